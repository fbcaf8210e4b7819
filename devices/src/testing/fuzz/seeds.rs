//! The same bytes at every run of the unit tests: what a fuzz target does at length, in short.

/// Runs of each target.
const RUNS: u64 = 400;

/// Has a fuzz target run with each of 400 fixed programs.
pub fn replay(target: fn(&[u8])) {
    for seed in 1..=RUNS {
        target(&bytes(seed));
    }
}

/// 16 to 271 bytes that depend on the seed only (xorshift64*).
fn bytes(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    let len = 16 + usize::from(next());
    (0..len).map(|_| next()).collect()
}

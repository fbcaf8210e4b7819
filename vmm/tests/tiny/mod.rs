//! A guest of a few instructions, and what its tests share.

use std::fs;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// For what hangs, on the slowest machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Where it is loaded and starts.
pub(crate) const ENTRY: u64 = 0x10_0000;

/// A 64-bit ELF file with a PVH note (XEN_ELFNOTE_PHYS32_ENTRY).
fn kernel(program: &[u8]) -> Vec<u8> {
    let len = program.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    file.extend(ENTRY.to_le_bytes());
    file.extend(64_u64.to_le_bytes());
    file.extend([0; 12]);
    file.extend([64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]);
    for (kind, offset, address, len) in [(1_u32, 0x100_u64, ENTRY, len), (4, 176, 0, 20)] {
        file.extend(kind.to_le_bytes());
        file.extend(7_u32.to_le_bytes());
        for value in [offset, address, address, len, len, 4] {
            file.extend(value.to_le_bytes());
        }
    }
    for word in [4, 4, 18, u32::from_le_bytes(*b"Xen\0"), ENTRY as u32] {
        file.extend(word.to_le_bytes());
    }
    file.resize(0x100, 0);
    file.extend(program);
    file
}

/// A folder with a kernel, the file `tiny`; `None`, which is said, where there is no KVM. Its path is short enough for a socket.
pub(crate) fn folder(program: &[u8]) -> Option<TempDir> {
    let kvm = fs::File::options().read(true).write(true).open("/dev/kvm");
    if kvm.is_err() {
        eprintln!("skipped: /dev/kvm cannot be opened");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("tiny"), kernel(program)).expect("a kernel");
    Some(folder)
}

/// Waits until something is true.
pub(crate) fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is_true() {
        assert!(Instant::now() < end, "in vain: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// Waits until a VMM has ended, and tells its exit code; none where a signal ended it.
pub(crate) fn code_of(strait: &mut Child) -> Option<i32> {
    let mut ended = None;
    until("strait ends", || {
        ended = strait.try_wait().expect("a child");
        ended.is_some()
    });
    ended.and_then(|status| status.code())
}

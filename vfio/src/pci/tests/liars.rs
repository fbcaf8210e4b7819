//! A table of lies, and what is said of each: an error at the start, or at most one warning for each part
//! that does not work. The guest then does all it can to the function; the mock checks that nothing outside
//! its regions is read, written or mapped.

use std::sync::atomic::Ordering;

use strait_devices::irq::EndOfInterrupt;

use super::heard::heard;
use super::*;
use crate::mock::Operation;

/// A lie and what it is answered with, the device's name left out.
struct Lie {
    lie: &'static str,
    hardware: MockHardware,
    says: &'static [&'static str],
}

fn lie(lie: &'static str, hardware: MockHardware, says: &'static [&'static str]) -> Lie {
    Lie { lie, hardware, says }
}

const BROKEN_LIST: &str = "a capability list is broken; what is wrong in it is left out";

fn with_region(len_bytes: u64) -> MockHardware {
    nic().with_bar(0, 0, len_bytes)
}

fn with_64_bit_region(len_bytes: u64) -> MockHardware {
    nic().with_bar(0, 0xc, len_bytes)
}

fn with_sparse(areas: &[(u64, u64)]) -> MockHardware {
    let mut hardware = nic();
    let bar = hardware.regions.get_mut(&0).expect("BAR 0");
    bar.sparse = Some(areas.to_vec());
    hardware
}

/// The extended capability at `from` leads to `to`.
fn with_link(from: u16, to: u32) -> MockHardware {
    nic().with_config(from, &(0xb | 1 << 16 | to << 20).to_le_bytes())
}

/// Table and pending bits as the MSI-X capability gives them.
fn with_msix(count: u16, table: u32, pending: u32) -> MockHardware {
    nic()
        .with_config(MSIX + 2, &(count - 1).to_le_bytes())
        .with_config(MSIX + 4, &table.to_le_bytes())
        .with_config(MSIX + 8, &pending.to_le_bytes())
}

fn wired() -> MockHardware {
    nic().with_interrupts(InterruptKind::Intx, 1, false)
}

fn sizes() -> Vec<Lie> {
    vec![
        lie("BAR 0 has 0 bytes", with_region(0), &[]),
        lie(
            "BAR 0 has 3 bytes",
            with_region(3),
            &["BAR 0 cannot be 0x3 bytes of 32-bit memory; the guest will not see it"],
        ),
        lie(
            "BAR 0 has 0x1001 bytes",
            with_region(0x1001),
            &["BAR 0 cannot be 0x1001 bytes of 32-bit memory; the guest will not see it"],
        ),
        lie(
            "BAR 0, 32 bits, has 2^63 bytes",
            with_region(1 << 63),
            &["BAR 0 cannot be 0x8000000000000000 bytes of 32-bit memory; the guest will not see it"],
        ),
        lie(
            "BAR 0, 64 bits, has 2^63 bytes",
            with_64_bit_region(1 << 63),
            &["BAR 0 cannot be 0x8000000000000000 bytes of 64-bit memory; the guest will not see it"],
        ),
        lie(
            "BAR 0 has 2^64 - 1 bytes",
            with_64_bit_region(u64::MAX),
            &["BAR 0 cannot be 0xffffffffffffffff bytes of 64-bit memory; the guest will not see it"],
        ),
        lie(
            "2^17 ports",
            nic().with_bar(2, 1, 1 << 17),
            &["BAR 2 cannot be 0x20000 bytes of I/O ports; the guest will not see it"],
        ),
        lie(
            "a 64-bit BAR in the last register",
            nic().with_bar(5, 4, 0x1000),
            &["BAR 5 is 64 bits wide, but the register after it is not free; the guest will not see it"],
        ),
        lie(
            "config space has 0 bytes",
            MockHardware {
                config_len: 0,
                ..nic()
            },
            &["cannot read the configuration space of 0000:01:00.0"],
        ),
        lie(
            "config space has 255 bytes",
            MockHardware {
                config_len: 255,
                ..nic()
            },
            &["cannot read the configuration space of 0000:01:00.0"],
        ),
        lie(
            "config space has 2^63 bytes",
            MockHardware {
                config_len: 1 << 63,
                ..nic()
            },
            &[],
        ),
        lie(
            "the ROM has 2^63 bytes",
            MockHardware {
                rom_len: 1 << 63,
                ..nic()
            },
            &[],
        ),
    ]
}

fn lists() -> Vec<Lie> {
    vec![
        lie(
            "a capability points at itself",
            nic().with_config(POWER + 1, &[POWER as u8]),
            &[BROKEN_LIST],
        ),
        lie(
            "the last capability points at the first",
            nic().with_config(VENDOR + 1, &[POWER as u8]),
            &[BROKEN_LIST],
        ),
        lie(
            "a capability points into the header",
            nic().with_config(VENDOR + 1, &[0x10]),
            &[BROKEN_LIST],
        ),
        lie(
            "MSI-X at the last four bytes",
            nic()
                .with_config(VENDOR + 1, &[0xfc])
                .with_config(0xfc, &[0x11, 0]),
            &[BROKEN_LIST],
        ),
        lie(
            "a capability inside another",
            nic()
                .with_config(VENDOR + 1, &[0xa4])
                .with_config(0xa4, &[0x09, 0, 3]),
            &[BROKEN_LIST],
        ),
        lie(
            "an extended capability points at itself",
            with_link(0x100, 0x100),
            &[BROKEN_LIST],
        ),
        lie("the extended list loops", with_link(0x200, 0x100), &[BROKEN_LIST]),
        lie(
            "an extended capability points into the first 256 bytes",
            with_link(0x200, 0x40),
            &[BROKEN_LIST],
        ),
        lie(
            "an extended capability at the last four bytes",
            nic().with_extended(&[(0x100, 1), (0xffc, 0xb)]),
            &[],
        ),
        lie(
            "extended capabilities of ones",
            nic().with_config(0x140, &[0xff; 0x100]),
            &[BROKEN_LIST],
        ),
    ]
}

fn messages() -> Vec<Lie> {
    vec![
        lie(
            "MSI-X table behind its BAR",
            with_msix(10, 0x4003, 0x2003),
            &["its MSI-X table at 0x4000 of BAR 3 is not inside that BAR; the guest will not see MSI-X"],
        ),
        lie(
            "MSI-X table half in its BAR",
            with_msix(512, 0x3003, 0x2003),
            &["its MSI-X table at 0x3000 of BAR 3 is not inside that BAR; the guest will not see MSI-X"],
        ),
        lie(
            "MSI-X table in BAR 1, which does not exist",
            with_msix(10, 1, 0x2003),
            &["its MSI-X table is in BAR 1, which is no memory; the guest will not see MSI-X"],
        ),
        lie(
            "MSI-X table in BAR 7",
            with_msix(10, 7, 0x2003),
            &["its MSI-X table is in BAR 7, which is no memory; the guest will not see MSI-X"],
        ),
        lie(
            "MSI-X table in ports",
            with_msix(1, 2, 0x2003),
            &["its MSI-X table is in BAR 2, which is no memory; the guest will not see MSI-X"],
        ),
        lie(
            "pending bits at 4 GiB of their BAR",
            with_msix(10, 3, 0xffff_fffb),
            &[],
        ),
        lie("pending bits over the table", with_msix(10, 3, 3), &[]),
        lie(
            "2048 vectors where the host knows 10",
            nic()
                .with_bar(3, 0, 0x10000)
                .with_config(MSIX + 2, &[0xff, 7])
                .with_config(MSIX + 8, &[3, 0x90, 0, 0]),
            &[
                "interrupt vector 0 does not work: the host gives 0000:01:00.0 only 10 MSI-X vectors, the guest uses vector 511; further failures are not reported",
            ],
        ),
        lie(
            "MSI-X of which the host knows no vector",
            nic().with_interrupts(InterruptKind::Msix, 0, true),
            &["VFIO gives it no MSI-X vectors; the guest will not see MSI-X"],
        ),
        lie("a pin that does not exist", wired().with_config(0x3d, &[9]), &[]),
    ]
}

fn areas() -> Vec<Lie> {
    vec![
        lie("no area of BAR 0 can be mapped", with_sparse(&[]), &[]),
        lie(
            "areas unsorted",
            with_sparse(&[(0x8000, 0x1000), (0x1000, 0x1000)]),
            &[],
        ),
        lie(
            "areas overlap",
            with_sparse(&[(0x1000, 0x3000), (0x2000, 0x8000), (0, 0x20000)]),
            &[],
        ),
        lie("an area of nothing", with_sparse(&[(0x1000, 0)]), &[]),
        lie(
            "areas beyond the BAR",
            with_sparse(&[(0x1f000, 0x10000), (0x40000, 0x1000), (u64::MAX, u64::MAX)]),
            &[],
        ),
        lie(
            "areas of half pages",
            with_sparse(&[(0x800, 0x1000), (0x2fff, 2)]),
            &[],
        ),
    ]
}

fn failures() -> Vec<Lie> {
    use Operation::*;
    vec![
        lie(
            "dead at the start: all ones",
            nic().with_config(0, &[0xff; 4096]),
            &[
                "0000:01:00.0 does not answer; is it powered off or dead? A cold boot of the host may revive it",
            ],
        ),
        lie(
            "a short or failed read of config space",
            nic().with_broken(Read(CONFIG)),
            &["cannot read the configuration space of 0000:01:00.0"],
        ),
        lie(
            "a failed write of config space",
            nic().with_broken(Write(CONFIG)),
            &["cannot turn on memory decoding of 0000:01:00.0"],
        ),
        lie(
            "a bridge",
            nic().with_config(0x0e, &[1]),
            &["0000:01:00.0 has header type 1, only endpoints (type 0) can be passed through"],
        ),
        lie(
            "the first reset fails",
            nic().with_broken(Prepare),
            &["cannot be reset, and starts in the state it was left in: Input/output error (os error 5)"],
        ),
        lie(
            "every later reset fails",
            nic().with_broken(Reset),
            &["cannot reset the function, which keeps its state: Input/output error (os error 5)"],
        ),
        lie(
            "no BAR can be mapped",
            nic().with_broken(Map),
            &[
                "cannot map BAR 0 at 0x0, it will be slow: Input/output error (os error 5)",
                "cannot map BAR 3 at 0x1000, it will be slow: Input/output error (os error 5)",
            ],
        ),
        lie(
            "BAR 0 cannot be read",
            nic().with_broken(Read(HardwareRegion::Bar(0))),
            &[
                "cannot read 0000:01:00.0 BAR 0 at 0x0: Input/output error (os error 5); further failures are not reported",
            ],
        ),
        lie(
            "BAR 0 cannot be written",
            nic().with_broken(Write(HardwareRegion::Bar(0))),
            &[
                "cannot write 0000:01:00.0 BAR 0 at 0x0: Input/output error (os error 5); further failures are not reported",
            ],
        ),
        lie(
            "the ROM cannot be read",
            MockHardware {
                rom_len: 0x1000,
                ..nic()
            }
            .with_broken(Read(HardwareRegion::Rom)),
            &["cannot read 0000:01:00.0 ROM, the guest finds none: Input/output error (os error 5)"],
        ),
        lie(
            "no vector can be bound",
            nic().with_broken(SetInterrupts),
            &[
                "interrupt vector 0 does not work: cannot bind MSI vector 0 and up of 0000:01:00.0 to an event: Input/output error (os error 5); further failures are not reported",
                "interrupt vector 0 does not work: cannot bind MSI-X vector 0 and up of 0000:01:00.0 to an event: Input/output error (os error 5); further failures are not reported",
            ],
        ),
        lie(
            "vectors cannot be disabled",
            nic().with_broken(DisableInterrupts),
            &[
                "cannot disable MSI: Input/output error (os error 5)",
                "cannot disable MSI-X: Input/output error (os error 5)",
            ],
        ),
        lie(
            "the wire cannot be unmasked",
            wired().with_broken(UnmaskIntx),
            &["cannot unmask INTx, the guest may miss interrupts: Input/output error (os error 5)"],
        ),
        lie("config space answers anew at each read", flipping(), &[]),
    ]
}

/// Tells the truth at the start, for nothing would be found otherwise.
fn flipping() -> MockHardware {
    let hardware = nic();
    hardware.flips.store(true, Ordering::Relaxed);
    hardware
}

/// The function in the hands of a guest that stops at nothing; what is said from its start to its end.
fn answer(hardware: MockHardware) -> Vec<String> {
    heard(|| {
        let hardware = Arc::new(hardware);
        match opened(hardware) {
            Ok(function) => misuse(&function),
            Err(error) => log::error!("{error}"),
        }
    })
}

fn misuse(function: &Passthrough) {
    let mut data = [0; 4];
    for width in [1, 2, 4] {
        for register in (0..4096).step_by(width) {
            function.read_config(register, &mut data[..width]);
        }
    }
    for fill in [0xff, 0x00, 0xa5] {
        for register in (0..4096).step_by(4) {
            let _ = function.write_config(register, &[fill; 4]);
        }
    }
    let _ = function.reset();
    let regions = place_all(function);
    for region in &regions {
        use_region(region);
    }
    for control in [0xc000u16, 0x8000, 0x0000, 0x8000, 0x0000] {
        let _ = function.write_config(MSIX + 2, &control.to_le_bytes());
        if let Some(intx) = function.intx() {
            intx.raise();
            intx.end_of_interrupt();
        }
    }
    let _ = function.write_config(EXPRESS + 8, &[0, 0x80]);
    let _ = function.reset();
}

/// Every BAR and the ROM at a place of its own, decoding on; their regions.
fn place_all(function: &Passthrough) -> Vec<Arc<Region>> {
    for (register, at) in (0x10..0x28).step_by(4).zip(0xe00u32..) {
        let _ = function.write_config(register, &(at << 20).to_le_bytes());
    }
    let _ = function.write_config(0x30, &0xf000_0001u32.to_le_bytes());
    remaps(function.write_config(0x04, &[0x07, 0]))
        .into_iter()
        .map(|remap| remap.region)
        .collect()
}

/// Its first bytes, its last ones and those around what MSI-X is in, in every width; vectors that are zero
/// are unmasked.
fn use_region(region: &Region) {
    let last = region.len_bytes().saturating_sub(16);
    for at in [0, 8, 0x10, 0xff8, 0x1ffc, 0x2000, 0x3ff0, 0x7ff0, last] {
        for len in [1usize, 2, 4, 8, 16] {
            if at + len as u64 <= region.len_bytes() {
                region.device().read(at, &mut vec![0; len]);
                let _ = region.device().write(at, &vec![0; len]);
            }
        }
    }
}

#[test]
fn each_lie_is_answered_once() {
    let table = [sizes(), lists(), messages(), areas(), failures()];
    let mut wrong = Vec::new();
    for Lie { lie, hardware, says } in table.into_iter().flatten() {
        let said = answer(hardware);
        let bare = |line: &String| line.trim_start_matches("0000:01:00.0: ").to_owned();
        let said: Vec<_> = said.iter().map(bare).collect();
        if said != says {
            wrong.push(format!("{lie}: {said:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

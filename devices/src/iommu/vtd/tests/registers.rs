use proptest::prelude::*;

use super::guest::*;
use crate::Device;
use crate::iommu::vtd::{RemappingRouter, Source, VtdConfig};
use crate::irq::{MsiMessage, MsiRouter};
use crate::testing::Registers;

#[test]
fn after_reset_events_are_masked_and_everything_else_is_zero() {
    let guest = Guest::new();
    assert_eq!(guest.vtd.read32(0), 0x10);
    assert_eq!(guest.vtd.read64(0x08), 0x00d2_078c_222f_0686);
    assert_eq!(guest.vtd.read64(0x10), 0x00f0_0f5b);
    assert_eq!(
        (guest.vtd.read32(0x38), guest.vtd.read32(0xa0)),
        (1 << 31, 1 << 31)
    );
    let others = (0x18..0x1000).step_by(4).filter(|at| !matches!(at, 0x38 | 0xa0));
    assert!(others.into_iter().all(|at| guest.vtd.read32(at) == 0));
}

#[test]
fn a_64_bit_register_takes_halves() {
    let guest = Guest::new();
    guest.vtd.write32(0x24, 0x12);
    guest.vtd.write32(0x20, 0x3456_7000);
    assert_eq!(guest.vtd.read64(0x20), 0x12_3456_7000);
    assert_eq!(guest.vtd.read32(0x24), 0x12);
}

#[test]
fn two_32_bit_registers_take_64_bits() {
    let guest = Guest::new();
    guest.vtd.write64(0x40, 0x0000_0100_fee0_1003);
    assert_eq!(
        (guest.vtd.read32(0x40), guest.vtd.read32(0x44)),
        (0xfee0_1000, 0x100)
    );
}

#[test]
fn read_only_registers_stay() {
    let guest = Guest::new();
    for at in [0x00, 0x08, 0x10, 0x80, 0xb0, 0x58, 0x64] {
        let before = guest.vtd.read64(at / 8 * 8);
        guest.vtd.write64(at / 8 * 8, u64::MAX);
        assert_eq!(guest.vtd.read64(at / 8 * 8), before, "{at:#x}");
    }
}

#[test]
fn srtp_latches_the_root_table_and_can_be_repeated() {
    let mut guest = Guest::translating();
    guest.set_page(0x1000, 0x20_0000 | READ);
    guest.invalidate_pages(0x1000, 0);
    guest.vtd.write64(0x20, 0x9000);
    assert_eq!(guest.mappings().len(), 1, "a write alone changes nothing");
    let status = guest.vtd.read32(GSTS);
    assert_eq!(status, TE | SRTP | QIE);
    guest.vtd.write32(GCMD, status);
    assert_eq!(guest.vtd.read32(GSTS), status);
    assert!(guest.mappings().is_empty(), "the new root table is empty");
}

#[test]
fn gcmd_reads_zero() {
    let guest = Guest::translating();
    assert_eq!(guest.vtd.read32(GCMD), 0);
}

#[test]
fn translation_needs_a_root_table_and_remapping_a_remap_table() {
    let guest = Guest::new();
    guest.vtd.write32(GCMD, TE | IRE);
    assert_eq!(guest.vtd.read32(GSTS), 0);
    guest.vtd.write32(GCMD, TE | IRE | SRTP | SIRTP);
    assert_eq!(guest.vtd.read32(GSTS), TE | IRE | SRTP | SIRTP);
}

#[test]
fn scalable_mode_tables_are_refused() {
    let guest = Guest::new();
    guest.vtd.write64(0x20, 0x1000 | 1 << 10);
    guest.vtd.write32(GCMD, SRTP);
    assert_eq!(guest.vtd.read32(GSTS), 0);
}

#[test]
fn remapping_that_is_not_offered_is_not_enabled() {
    let config = VtdConfig {
        interrupt_remapping: false,
        ..CONFIG
    };
    let guest = Guest::with(config, 4);
    guest.vtd.write32(GCMD, SIRTP | IRE);
    assert_eq!(guest.vtd.read32(GSTS), 0);
}

#[test]
fn one_shot_flushes_are_done_at_once() {
    let guest = Guest::new();
    guest.vtd.write32(GCMD, 1 << 27 | 1 << 28 | 1 << 29);
    assert_eq!(guest.vtd.read32(GSTS), 0);
}

#[test]
fn register_invalidation_reports_what_was_done() {
    let mut guest = Guest::translating();
    guest.vtd.write32(GCMD, TE);
    guest.set_page(0x5000, 0x20_0000 | READ | WRITE);
    guest.vtd.write64(0xf0, 0x5000);
    guest
        .vtd
        .write64(0xf8, 1 << 63 | 3 << 60 | u64::from(DOMAIN) << 32);
    assert_eq!(guest.mappings(), [(0x5000, 0x20_0000, 0x1000)]);
    assert_eq!(guest.vtd.read64(0xf8) >> 57, 3 << 3 | 3, "IVT clear, IAIG page");
}

#[test]
fn context_command_by_32_bit_halves() {
    let guest = Guest::translating();
    guest.vtd.write32(GCMD, TE);
    guest.set_context(0, 0);
    guest.vtd.write32(0x28, 0);
    guest.vtd.write32(0x2c, 1 << 31 | 1 << 29);
    assert_eq!(guest.vtd.read64(0x28) >> 63, 0);
    assert_eq!(guest.vtd.read64(0x28) >> 59 & 3, 1);
}

#[test]
fn register_invalidation_under_the_queue_does_nothing_and_ends() {
    let guest = Guest::translating();
    guest.vtd.write64(0x28, 1 << 63 | 1 << 61);
    guest.vtd.write64(0xf8, 1 << 63 | 1 << 60);
    assert_eq!(
        (guest.vtd.read64(0x28) >> 63, guest.vtd.read64(0xf8) >> 63),
        (0, 0)
    );
    assert_eq!(
        (guest.vtd.read64(0x28) >> 59 & 3, guest.vtd.read64(0xf8) >> 57 & 3),
        (0, 0)
    );
}

#[test]
fn a_reset_undoes_everything() {
    let mut guest = Guest::translating();
    assert!(guest.gate.set_bus_master(true));
    guest.set_page(0x1000, 0x20_0000 | READ);
    guest.invalidate_pages(0x1000, 0);
    guest.vtd.reset();
    assert!(guest.mappings().is_empty());
    let fresh = Guest::new();
    assert!(
        (0..0x1000)
            .step_by(4)
            .all(|at| guest.vtd.read32(at) == fresh.vtd.read32(at))
    );
}

#[test]
fn a_new_queue_or_remap_table_counts_when_it_is_latched() {
    let mut guest = Guest::translating();
    guest.vtd.write64(0x90, 0x7_0000);
    guest.invalidate(&[IOTLB_GLOBAL]);
    assert_eq!(guest.vtd.read64(0x80), 32, "the old ring is in use");
    guest.vtd.write64(0xb8, IRT | 7);
    guest.vtd.write32(GCMD, QIE | TE | SIRTP);
    guest.vtd.write32(GCMD, QIE | TE | IRE);
    // Vector 0x41 to CPU 1, from any source.
    guest.store(IRT, 0x100 << 32 | 0x41 << 16 | 1);
    guest.vtd.write64(0xb8, 0x7_0000 | 7);
    let request = MsiMessage {
        address: 0xfee0_0010,
        data: 0,
    };
    let source = Source::Function(guest.requester.clone());
    RemappingRouter::new(guest.vtd.clone(), source).send(request);
    assert_eq!(guest.router.sent().len(), 1, "the old table is in use");
}

#[test]
fn a_queue_that_stopped_can_be_turned_off_and_on() {
    let mut guest = Guest::translating();
    guest.submit(&[IOTLB_GLOBAL, [0xf, 0], IOTLB_GLOBAL]);
    assert_eq!(guest.vtd.read64(0x80), 16);
    guest.vtd.write32(GCMD, TE);
    assert_eq!((guest.vtd.read32(GSTS), guest.vtd.read64(0x80)), (TE | SRTP, 0));
    guest.vtd.write32(FSTS, 1 << 4);
    guest.store(RING, 5 << 32 | 1 << 5 | 5);
    guest.store(RING + 8, STATUS);
    guest.vtd.write64(0x88, 16);
    assert_eq!(guest.load(STATUS), 0, "off is off");
    guest.vtd.write32(GCMD, TE | QIE);
    assert_eq!(guest.load(STATUS), 5);
}

/// A kernel that another one started (kexec) finds translation on and brings its own tables.
#[test]
fn a_kernel_that_takes_over_replaces_the_tables() {
    let mut guest = Guest::translating();
    guest.set_page(0x1000, 0x20_0000 | READ | WRITE);
    guest.invalidate_pages(0x1000, 0);
    let (root, contexts, table) = (0x30_0000, 0x30_1000, 0x30_2000);
    guest.store(root + 16, contexts | 1);
    guest.store(contexts, table | 1);
    guest.store(contexts + 8, 2 | 7 << 8);
    guest.store(table, 0x30_3000 | READ);
    guest.store(0x30_3000, 0x30_4000 | READ);
    guest.store(0x30_4000, 0x30_5000 | READ);
    guest.store(0x30_5000 + 0x80 * 8, 0x40_0000 | READ);
    guest.vtd.write64(0x20, root);
    let status = guest.vtd.read32(GSTS);
    guest.vtd.write32(GCMD, status | SRTP);
    guest.invalidate(&[CONTEXT_GLOBAL, IOTLB_GLOBAL]);
    assert_eq!(guest.mappings(), [(0x8_0000, 0x40_0000, 0x1000)]);
}

#[test]
fn tables_that_are_gone_when_the_machine_starts_anew_are_forgotten() {
    let mut guest = Guest::translating();
    guest.set_page(0x1000, 0x20_0000 | READ | WRITE);
    guest.invalidate_pages(0x1000, 0);
    // Reset with translation on: the machine's memory is another guest's before the unit is asked again.
    guest.vtd.reset();
    for at in (0x1000..0x20_0000).step_by(8) {
        guest.store(at, u64::MAX);
    }
    assert!(guest.mappings().is_empty());
    assert!(guest.gate.set_bus_master(true));
    assert_eq!(guest.mappings(), [(0, 0, RAM)], "nothing is translated");
}

proptest! {
    #[test]
    fn no_access_panics(accesses in proptest::collection::vec((0u64..0x1000, 0usize..17, any::<u64>()), 1..64)) {
        let guest = Guest::translating();
        for (at, len, value) in accesses {
            let bytes: Vec<u8> = value.to_le_bytes().into_iter().cycle().take(len).collect();
            let _none = guest.vtd.write(at, &bytes);
            guest.vtd.read(at, &mut vec![0; len]);
        }
    }
}

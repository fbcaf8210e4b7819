use vm_memory::GuestAddress;

use super::guest::*;
use crate::dma::{Access, Iova, RequesterId};
use crate::iommu::vtd::{AddressWidth, VtdConfig};
use crate::testing::Registers;

fn translate(guest: &Guest, iova: u64, access: Access) -> Option<u64> {
    let found = guest.vtd.translate(RequesterId(DEVICE), Iova(iova), access);
    found.map(|GuestAddress(at)| at)
}

/// The reason of the only fault in the log.
fn reason(guest: &Guest) -> u64 {
    guest.vtd.read64(0x228) >> 32 & 0xff
}

#[test]
fn three_and_four_levels() {
    for levels in [3, 4] {
        let mut guest = Guest::with(CONFIG, levels);
        guest.start();
        guest.set_page(0x12_3456_7000, 0x20_0000 | READ);
        assert_eq!(translate(&guest, 0x12_3456_7abc, Access::READ), Some(0x20_0abc));
    }
}

#[test]
fn large_pages() {
    let mut guest = Guest::translating();
    let (two_mib, one_gib) = (guest.entry(0x4000_0000, 2), guest.entry(0x8000_0000, 3));
    guest.store(two_mib, 0x20_0000 | LARGE | READ | WRITE);
    guest.store(one_gib, LARGE | READ);
    assert_eq!(translate(&guest, 0x4001_2345, Access::all()), Some(0x21_2345));
    assert_eq!(translate(&guest, 0x8765_4321, Access::READ), Some(0x765_4321));
}

#[test]
fn rights_are_those_of_every_level() {
    let mut guest = Guest::translating();
    guest.set_page(0x1000, 0x20_0000 | READ | WRITE);
    let above = guest.entry(0x1000, 2);
    guest.store(above, guest.load(above) & !WRITE);
    assert_eq!(translate(&guest, 0x1000, Access::READ), Some(0x20_0000));
    assert_eq!(translate(&guest, 0x1000, Access::WRITE), None);
    assert_eq!(reason(&guest), 0x5);
}

#[test]
fn reserved_bits_block() {
    let bits = [1 << 11, 1 << 62, 1 << 48];
    for bit in bits {
        let mut guest = Guest::translating();
        guest.set_page(0x1000, 0x20_0000 | READ | bit);
        assert_eq!(translate(&guest, 0x1000, Access::READ), None);
        assert_eq!(reason(&guest), 0xc, "{bit:#x}");
    }
}

#[test]
fn a_large_page_out_of_line_or_at_the_top_is_reserved() {
    let mut guest = Guest::translating();
    let entry = guest.entry(0x4000_0000, 2);
    guest.store(entry, 0x20_1000 | LARGE | READ);
    guest.store(TABLE + 8, LARGE | READ);
    assert_eq!(translate(&guest, 0x4000_0000, Access::READ), None);
    assert_eq!(reason(&guest), 0xc);
    assert_eq!(translate(&guest, 1 << 39, Access::READ), None);
}

#[test]
fn the_snoop_bit_is_legal_with_snoop_control() {
    let config = VtdConfig {
        snoop_control: true,
        ..CONFIG
    };
    let mut guest = Guest::with(config, 4);
    guest.start();
    guest.set_page(0x1000, 0x20_0000 | READ | 1 << 11);
    assert_eq!(translate(&guest, 0x1000, Access::READ), Some(0x20_0000));
}

#[test]
fn addresses_beyond_the_width_are_blocked() {
    let guest = Guest::translating();
    assert_eq!(translate(&guest, 1 << 48, Access::READ), None);
    assert_eq!(reason(&guest), 0x4);
}

#[test]
fn each_reason_of_root_and_context() {
    let aw4 = 2 | u64::from(DOMAIN) << 8;
    let contexts = [
        (0, 0, 0x2),
        (TABLE | 1, aw4 | 1 << 7, 0xb),
        (TABLE | 1 | 1 << 4, aw4, 0xb),
        (1 << 50 | 1, aw4, 0xb),
        (TABLE | 1, 3, 0x3),
        (TABLE | 1 | 1 << 2, aw4, 0x3),
        (0x7f_ffff_f000 | 1, aw4, 0x7),
    ];
    for (low, high, expected) in contexts {
        let guest = Guest::translating();
        guest.set_context(low, high);
        assert_eq!(translate(&guest, 0x1000, Access::READ), None);
        assert_eq!(reason(&guest), expected, "{low:#x} {high:#x}");
    }
    for (root, expected) in [(0, 0x1), (1 | 2, 0xa), (0x7f_ffff_f000 | 1, 0x9)] {
        let guest = Guest::translating();
        guest.store(0x1010, root);
        assert_eq!(translate(&guest, 0x1000, Access::READ), None);
        assert_eq!(reason(&guest), expected, "{root:#x}");
    }
}

#[test]
fn an_unreadable_root_table() {
    let guest = Guest::new();
    guest.vtd.write64(0x20, 0x7f_ffff_f000);
    guest.vtd.write32(GCMD, SRTP | TE);
    assert_eq!(translate(&guest, 0x1000, Access::READ), None);
    assert_eq!(reason(&guest), 0x8);
}

#[test]
fn a_silent_context_records_nothing() {
    let mut guest = Guest::translating();
    guest.set_context(TABLE | 3, 2 | u64::from(DOMAIN) << 8);
    guest.set_page(0x1000, 0);
    assert_eq!(translate(&guest, 0x1000, Access::READ), None);
    assert_eq!(guest.vtd.read32(FSTS), 0);
}

#[test]
fn a_page_in_the_interrupt_window_is_blocked() {
    let mut guest = Guest::translating();
    guest.set_page(0x1000, 0xfee0_0000 | READ | WRITE);
    assert_eq!(translate(&guest, 0x1000, Access::WRITE), None);
    assert_eq!(reason(&guest), 0xe);
}

#[test]
fn a_large_page_around_the_interrupt_window_is_blocked_only_there() {
    let mut guest = Guest::translating();
    let one_gib = guest.entry(0xc000_0000, 3);
    guest.store(one_gib, 0xc000_0000 | LARGE | READ);
    assert_eq!(translate(&guest, 0xfedf_f000, Access::READ), Some(0xfedf_f000));
    assert_eq!(translate(&guest, 0xfee0_0000, Access::READ), None);
    assert_eq!(reason(&guest), 0xe);
}

#[test]
fn the_upper_half_of_a_root_entry_is_reserved() {
    let guest = Guest::translating();
    guest.store(0x1018, 1 << 63);
    assert_eq!(translate(&guest, 0x1000, Access::READ), None);
    assert_eq!(reason(&guest), 0xa);
}

#[test]
fn pass_through_ignores_the_table() {
    let guest = Guest::translating();
    guest.set_context(1 << 62 | 1 | 2 << 2, 0);
    assert_eq!(translate(&guest, 0x1234, Access::all()), Some(0x1234));
}

#[test]
fn pass_through_and_untranslated_requests_keep_their_address() {
    let guest = Guest::translating();
    guest.set_context(1 | 2 << 2, 0);
    assert_eq!(translate(&guest, 0x1234, Access::all()), Some(0x1234));
    guest.vtd.write32(GCMD, 0);
    assert_eq!(translate(&guest, 0x1234, Access::all()), Some(0x1234));
}

#[test]
fn a_39_bit_unit_refuses_four_levels() {
    let config = VtdConfig {
        width: AddressWidth::Bits39,
        ..CONFIG
    };
    let mut guest = Guest::with(config, 4);
    guest.start();
    assert_eq!(translate(&guest, 0x1000, Access::READ), None);
    assert_eq!(reason(&guest), 0x3);
}

//! What the drivers of Linux 6.12 do at start, in order (drivers/iommu/intel: dmar.c, irq_remapping.c,
//! iommu.c), read from the accesses they make.

use super::guest::*;
use crate::testing::Registers;

#[test]
fn linux_starts_maps_and_stops() {
    let mut guest = Guest::new();
    assert!(guest.gate.set_bus_master(true));
    // Interrupt remapping comes first: old state is cleared, the queue goes off and on.
    assert_eq!(guest.vtd.read32(0x00), 0x10);
    assert_ne!(guest.vtd.read64(0x08), u64::MAX);
    assert_eq!(guest.vtd.read32(GSTS), 0);
    guest.vtd.write32(FSTS, 0x83);
    guest.vtd.write64(0x88, 0);
    guest.vtd.write64(0x90, RING);
    guest.vtd.write32(GCMD, QIE);
    assert_eq!(guest.vtd.read32(GSTS), QIE);
    guest.vtd.write64(0xb8, IRT | 1 << 11 | 0xf);
    guest.vtd.write32(GCMD, QIE | SIRTP);
    assert_eq!(guest.vtd.read32(GSTS), QIE | SIRTP);
    guest.invalidate(&[[4, 0]]);
    guest.vtd.write32(GCMD, QIE | IRE);
    assert_eq!(guest.vtd.read32(GSTS), QIE | SIRTP | IRE);
    // The fault event.
    guest.vtd.write32(0x3c, 0x21);
    guest.vtd.write32(0x40, 0xfee0_0000);
    guest.vtd.write32(0x44, 0);
    guest.vtd.write32(0x38, 0);
    // The root table, flushed as a whole; contexts are written before translation is on.
    guest.vtd.write64(0x20, 0x1000);
    guest.vtd.write32(GCMD, QIE | IRE | SRTP);
    guest.invalidate(&[CONTEXT_GLOBAL]);
    guest.invalidate(&[IOTLB_GLOBAL]);
    guest.store(0x1010, 0x2000 | 1);
    guest.set_context(TABLE | 1, 2 | u64::from(DOMAIN) << 8);
    guest.invalidate(&[[u64::from(DEVICE) << 32 | 3 << 4 | 1, 0]]);
    guest.invalidate(&[[u64::from(DOMAIN) << 16 | 2 << 4 | 2, 0]]);
    assert_eq!(guest.mappings(), [(0, 0, RAM)], "nothing is translated yet");
    guest.vtd.write32(GCMD, QIE | IRE | TE);
    assert_eq!(guest.vtd.read32(GSTS), QIE | IRE | TE | SRTP | SIRTP);
    assert!(guest.mappings().is_empty());
    // A buffer is mapped and unmapped.
    guest.set_page(0xffff_f000, 0x20_0000 | READ | WRITE);
    guest.invalidate_pages(0xffff_f000, 0);
    assert_eq!(guest.mappings(), [(0xffff_f000, 0x20_0000, 0x1000)]);
    guest.set_page(0xffff_f000, 0);
    guest.invalidate_pages(0xffff_f000 | 1 << 6, 0);
    assert!(guest.mappings().is_empty());
    // kexec: everything off.
    guest.vtd.write32(GCMD, QIE | IRE);
    guest.vtd.write32(GCMD, QIE);
    guest.vtd.write32(GCMD, 0);
    assert_eq!(guest.vtd.read32(GSTS), SRTP | SIRTP);
    assert_eq!(guest.mappings(), [(0, 0, RAM)]);
}

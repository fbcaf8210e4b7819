//! Functions that lie, change their mind or die.

use super::*;

#[test]
fn a_dead_function_is_refused_by_name() {
    let error = refused(MockHardware::new().with_config(0, &[0xff; 256]));
    assert!(
        error.to_string().contains("0000:01:00.0 does not answer"),
        "{error}"
    );
}

#[test]
fn bridges_are_refused() {
    assert!(matches!(
        refused(nic().with_config(0x0e, &[0x81])),
        PassthroughError::Header { header_type: 1, .. }
    ));
}

#[test]
fn a_function_that_cannot_be_read_is_refused() {
    let hardware = nic();
    hardware.kill();
    assert!(matches!(refused(hardware), PassthroughError::ReadConfig { .. }));
}

#[test]
fn a_function_that_dies_in_use_reads_as_ones_and_stops_nothing() {
    let guest = guest(nic());
    let remaps = guest.enable();
    guest.hardware.kill();
    assert_eq!(guest.u16(0xf4), 0xffff);
    let mut data = [0; 4];
    remaps[0].region.device().read(0, &mut data);
    assert_eq!(data, [0xff; 4]);
    let _ = remaps[0].region.device().write(0, &data);
    guest.write(0x04, &[0x06]);
    guest.write(MSIX + 2, &[0x00, 0x80]);
    let _ = remaps[1].region.device().write(0x0c, &[0; 4]);
    let _ = guest.function.reset();
}

#[test]
fn answers_that_change_after_the_start_are_not_believed() {
    let guest = guest(nic());
    guest.hardware.set_config(0, &[0xff; 4096]);
    assert_eq!(guest.u32(0x00), 0x10c9_8086);
    assert_eq!(guest.capabilities().len(), 6);
    assert_eq!(guest.u32(MSIX + 4), 0x0000_0003);
    assert_eq!(guest.enable().len(), 2);
}

#[test]
fn bars_of_impossible_sizes_are_left_out() {
    for len_bytes in [1, 3, 0x1001, 1 << 32, 1 << 63, u64::MAX] {
        let guest = guest(
            MockHardware::new()
                .with_bar(0, 0, len_bytes)
                .with_bar(1, 0, 0x1000),
        );
        assert_eq!(guest.function.bars()[0], None, "{len_bytes:#x}");
        assert!(guest.function.bars()[1].is_some());
    }
}

#[test]
fn a_64_bit_bar_in_the_last_register_is_left_out() {
    let guest = guest(
        MockHardware::new()
            .with_bar(5, 0x4, 0x1000)
            .with_bar(3, 0xc, 0x1000),
    );
    assert_eq!(guest.function.bars()[5], None);
    assert!(
        guest.function.bars()[3].is_some(),
        "an odd register may be a lower half"
    );
}

#[test]
fn an_msix_table_outside_its_bar_hides_msix() {
    let table_too_far = [0x09, 0x00, 0x03, 0xff, 0x00, 0x00, 0x03, 0x20, 0x00, 0x00];
    let in_ports = [0x09, 0x00, 0x02, 0x00, 0x00, 0x00, 0x03, 0x20, 0x00, 0x00];
    let no_such_bar = [0x09, 0x00, 0x07, 0x00, 0x00, 0x00, 0x03, 0x20, 0x00, 0x00];
    let too_many = [0xff, 0x07, 0x03, 0x00, 0x00, 0x00, 0x03, 0x20, 0x00, 0x00];
    for lie in [table_too_far, in_ports, no_such_bar, too_many] {
        let guest = guest(nic().with_config(MSIX + 2, &lie));
        assert!(guest.capabilities().iter().all(|(_, id)| *id != 0x11), "{lie:x?}");
        assert_eq!(guest.u32(MSIX), 0);
        guest.write(MSIX + 2, &[0xff; 2]);
        assert!(guest.hardware.take_calls().is_empty());
    }
}

/// Where the guest of a function with `count` vectors, a table at `table` and a BAR 3 of `bar_len` bytes finds the
/// pending bits that the function says are at `pending`; they work there.
fn pending_found(bar_len: u64, count: u16, table: u32, pending: u32) -> u32 {
    let guest = guest(
        nic()
            .with_bar(3, 0, bar_len)
            .with_config(MSIX + 2, &(count - 1).to_le_bytes())
            .with_config(MSIX + 4, &table.to_le_bytes())
            .with_config(MSIX + 8, &pending.to_le_bytes()),
    );
    let bar = guest.enable()[1].region.clone();
    guest.write(MSIX + 2, &[0x00, 0x80]);
    let vector_0 = u64::from(table & !7) + 0xc;
    let _ = bar.device().write(vector_0, &[0; 4]);
    guest.router.routes()[0].set_pending(true);
    let found = guest.u32(MSIX + 8);
    assert_eq!(found & 7, 3);
    let mut bits = [0; 4];
    bar.device().read(u64::from(found & !7), &mut bits);
    assert_eq!(bits, [1, 0, 0, 0], "at {found:#x}");
    found
}

#[test]
fn pending_bits_without_a_place_get_one_beside_the_table() {
    let beyond_a_small_bar = pending_found(0x2000, 3, 0x1003, 0x8003);
    assert_eq!(beyond_a_small_bar, 0x1033, "behind the table, in its page");
    let in_no_bar = [1, 4, 6, 7].map(|bar| pending_found(0x2000, 10, 3, bar));
    assert_eq!(in_no_bar, [0xa3; 4]);
    assert_eq!(pending_found(0x2000, 10, 3, 0x2), 0xa3, "BAR 2 is ports");
    assert_eq!(pending_found(0x2000, 10, 3, 0x53), 0xa3, "over the table");
    assert_eq!(
        pending_found(0x2000, 16, 0xf03, 0x8003),
        0xefb,
        "before it, in its page"
    );
    assert_eq!(pending_found(0x2000, 256, 3, 0x8003), 0x1003, "in the next page");
    assert_eq!(
        pending_found(0x2000, 256, 0x1003, 0x8003),
        0xfe3,
        "in the page before"
    );
    assert_eq!(pending_found(0x2000, 10, 3, 0x1003), 0x1003, "where they can be");
}

#[test]
fn pending_bits_stay_below_the_end_of_their_register() {
    let hardware = nic()
        .with_bar(4, 0x4, 1 << 33)
        .with_config(MSIX + 2, &[0x00, 0x00])
        .with_config(MSIX + 4, &[0xf4, 0xff, 0xff, 0xff])
        .with_config(MSIX + 8, &[0x07, 0x00, 0x00, 0x00]);
    assert_eq!(guest(hardware).u32(MSIX + 8), 0xffff_ffec);
}

#[test]
fn a_table_that_fills_its_bar_wins_over_the_pending_bits() {
    let guest = guest(
        nic()
            .with_bar(3, 0, 0x1000)
            .with_config(MSIX + 2, &255u16.to_le_bytes())
            .with_config(MSIX + 4, &3u32.to_le_bytes())
            .with_config(MSIX + 8, &0x8003u32.to_le_bytes()),
    );
    assert_eq!(guest.u32(MSIX + 8), 3);
    let bar = guest.enable()[1].region.clone();
    let _ = bar.device().write(0, &0xfee0_1000u32.to_le_bytes());
    let mut data = [0; 4];
    bar.device().read(0, &mut data);
    assert_eq!(data, 0xfee0_1000u32.to_le_bytes());
}

#[test]
fn interrupts_the_kernel_does_not_know_are_hidden() {
    let guest = guest(MockHardware {
        interrupts: Default::default(),
        ..nic()
    });
    assert!(
        guest
            .capabilities()
            .iter()
            .all(|(_, id)| ![0x05, 0x11].contains(id))
    );
}

#[test]
fn a_capability_loop_ends() {
    let guest = guest(nic().with_config(VENDOR + 1, &[POWER as u8]));
    assert_eq!(guest.capabilities().len(), 6);
}

#[test]
fn an_extended_capability_loop_ends() {
    let back: u32 = 0x0b | 1 << 16 | 0x100 << 20;
    let guest = guest(nic().with_config(0x200, &back.to_le_bytes()));
    assert_eq!(
        guest.extended_capabilities(),
        [(0x100, 0x01), (0x140, 0x03), (0x200, 0x0b)]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a function says of itself, and whatever a guest does to it, nothing panics, and the mock
    /// checks that nothing outside its regions is read, written or mapped.
    #[test]
    fn any_function_survives_any_guest(
        mut config in prop::collection::vec(any::<u8>(), 4096),
        lens in prop::array::uniform6(prop_oneof![Just(0u64), (0u32..64).prop_map(|bit| 1 << bit), any::<u64>()]),
        vectors in 0u32..4000,
        writes in prop::collection::vec((0u16..1024, any::<u32>(), 0usize..3), 0..80),
        accesses in prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u8>(), 1..17)), 0..20),
    ) {
        config[0x06] |= 0x10;
        config[0x0e] = 0;
        let mut hardware = MockHardware::new()
            .with_interrupts(InterruptKind::Msi, vectors.min(32), false)
            .with_interrupts(InterruptKind::Msix, vectors, true)
            .with_config(4, &config[4..]);
        for (index, len_bytes) in (0..).zip(lens) {
            hardware.regions.insert(index, RegionInfo { len_bytes, mappable: true, sparse: None });
        }
        let guest = guest(hardware);
        let mut regions = Vec::new();
        for (register, value, width) in writes {
            let width = 1usize << width;
            let register = register * 4;
            regions.extend(guest.write(register, &value.to_le_bytes()[..width]).into_iter().map(|remap| remap.region));
            guest.function.read_config(register, &mut [0; 4][..width]);
        }
        for (region, (offset, mut data)) in regions.iter().cycle().zip(accesses) {
            let room = region.len_bytes().saturating_sub(data.len() as u64);
            let offset = offset % room.max(1);
            if offset + data.len() as u64 <= region.len_bytes() {
                region.device().read(offset, &mut data);
                let _ = region.device().write(offset, &data);
            }
        }
        let _ = guest.function.reset();
    }
}

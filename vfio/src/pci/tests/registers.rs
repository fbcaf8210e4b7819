//! Configuration space as the guest reads and writes it.

use super::*;

#[test]
fn the_header_hides_what_is_the_hosts() {
    let guest = guest(nic());
    assert_eq!(guest.u32(0x00), 0x10c9_8086);
    assert_eq!(guest.u16(0x04), 0, "nothing is decoded");
    assert_eq!(guest.u8(0x0e), 0, "a lone function");
    assert_eq!(guest.u32(0x10), 0, "BARs are not where the host has them");
    assert_eq!(guest.u32(0x30), 0, "nor is its ROM");
    assert_eq!(guest.u8(0x3d), 0, "the host delivers no INTx");
}

#[test]
fn a_function_beside_others_says_so() {
    let appearance = Appearance {
        is_multi_function: true,
        ..Appearance::default()
    };
    assert_eq!(guest_with(nic(), appearance).u8(0x0e), 0x80);
}

#[test]
fn hidden_msix_leaves_msi_and_never_bares_the_table() {
    let appearance = Appearance {
        hides_msix: true,
        ..Appearance::default()
    };
    let guest = guest_with(nic(), appearance);
    let ids: Vec<_> = guest.capabilities().into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, [0x01, 0x05, 0x10, 0x03, 0x09]);
    assert_eq!(guest.u32(MSIX + 4), 0);
    let table = guest.enable().pop().expect("BAR 3").region;
    assert_eq!(pieces(&table), [(0x1000, 0x1000), (0x3000, 0x1000)]);
}

#[test]
fn capabilities_keep_their_places_and_their_order() {
    let guest = guest(nic());
    let expected = [
        (POWER, 0x01),
        (MSI, 0x05),
        (MSIX, 0x11),
        (EXPRESS, 0x10),
        (VPD, 0x03),
        (VENDOR, 0x09),
    ];
    assert_eq!(guest.capabilities(), expected.map(|(at, id)| (at as u8, id)));
}

#[test]
fn sriov_and_ari_are_hidden_and_the_list_goes_on() {
    let guest = guest(nic());
    assert_eq!(
        guest.extended_capabilities(),
        [(0x100, 0x01), (0x140, 0x03), (0x200, 0x0b)]
    );
    assert_eq!((guest.u32(0x150), guest.u32(0x160)), (0, 0));
}

#[test]
fn a_hidden_first_extended_capability_only_links_on() {
    let guest = guest(nic().with_extended(&[(0x100, 0x0015), (0x140, 0x0003), (0x150, 0x000e)]));
    assert_eq!(guest.extended_capabilities(), [(0x100, 0x0000), (0x140, 0x0003)]);
    assert_eq!(guest.u32(0x104), 0);
}

#[test]
fn a_list_of_nothing_but_hidden_capabilities_is_empty() {
    let guest = guest(
        nic()
            .with_config(0x100, &[0; 0xf00])
            .with_extended(&[(0x100, 0x0010)]),
    );
    assert_eq!(guest.u32(0x100), 0);
}

#[test]
fn without_the_express_capability_there_is_no_extended_space() {
    let conventional = MockHardware::new().with_config(0x100, &[0x5a; 0x40]);
    assert_eq!(guest(conventional).u32(0x100), 0);
    let short = MockHardware {
        config_len: 256,
        ..nic()
    };
    assert_eq!(guest(short).u32(0x100), 0);
}

#[test]
fn an_endpoint_of_the_root_complex_stands_behind_a_port_now() {
    let guest = guest(nic().with_config(EXPRESS + 2, &[0x92, 0x00]));
    assert_eq!(guest.u16(EXPRESS + 2), 0x0002);
}

#[test]
fn device_control_forwards_only_what_is_about_speed() {
    let guest = guest(nic());
    guest.write(EXPRESS + 8, &[0xff, 0x7f]);
    assert_eq!(
        guest.hardware.take_calls(),
        [config_write(EXPRESS + 8, &[0x10, 0x78])]
    );
    assert_eq!(guest.u16(EXPRESS + 8), 0x7fff, "the guest sees what it wrote");
}

/// PCIe §7.5.3.4: bits 0 to 3 say which errors are reported, to the host's port and to the host's handler.
#[test]
fn error_reports_stay_as_the_host_has_them() {
    let guest = guest(nic().with_config(EXPRESS + 8, &[0x1f, 0x28]));
    guest.write(EXPRESS + 8, &[0x00, 0x00]);
    assert_eq!(
        guest.hardware.take_calls(),
        [config_write(EXPRESS + 8, &[0x0f, 0x00])]
    );
    assert_eq!(guest.u16(EXPRESS + 8), 0, "the guest sees what it wrote");
}

#[test]
fn vital_product_data_is_read_and_never_written() {
    let guest = guest(nic());
    guest.write(VPD + 2, &[0x10, 0x00]);
    assert_eq!(
        guest.hardware.take_calls(),
        [config_write(VPD + 2, &[0x10, 0x00])]
    );
    guest.write(VPD + 4, &[1, 2, 3, 4]);
    guest.write(VPD + 2, &[0x10, 0x80]);
    guest.write(VPD + 2, &[0x10]);
    assert!(guest.hardware.take_calls().is_empty());
}

#[test]
fn registers_of_the_device_itself_pass_through() {
    let guest = guest(nic());
    guest.write(VENDOR + 4, &[9, 9, 9, 9]);
    guest.write(0xf4, &[7, 7]);
    assert_eq!(
        guest.hardware.take_calls(),
        [config_write(VENDOR + 4, &[9; 4]), config_write(0xf4, &[7, 7])]
    );
    guest.hardware.set_config(0xf8, &[0x77]);
    assert_eq!(guest.u8(0xf8), 0x77, "read from the hardware, not from the copy");
}

/// Bits of configuration space that a guest's writes may change in the hardware of [`nic`].
fn allowed() -> Vec<u8> {
    let mut allowed = vec![0; 4096];
    let mut allow = |at: u16, mask: &[u8]| allowed[usize::from(at)..][..mask.len()].copy_from_slice(mask);
    allow(0x04, &[0x04, 0x04]);
    allow(EXPRESS + 0x08, &[0x10, 0x78]);
    allow(EXPRESS + 0x28, &[0x1f]);
    allow(VPD + 2, &[0xff, 0x7f]);
    allow(VENDOR + 3, &[0xff; 5]);
    allow(0x48, &[0xff; 0x08]);
    allow(0x68, &[0xff; 0x08]);
    allow(0x7c, &[0xff; 0x24]);
    allow(0xdc, &[0xff; 0x04]);
    allow(0xf0, &[0xff; 0x10]);
    allowed
}

#[test]
fn of_every_write_of_every_width_only_allowed_bits_reach_the_hardware() {
    let allowed = allowed();
    let mut leaked = Vec::new();
    for fill in [0xff, 0x00, 0xa5] {
        let guest = guest(nic());
        let before = lock(&guest.hardware.config).clone();
        for width in [1u16, 2, 4] {
            for register in (0..4096).step_by(usize::from(width)) {
                guest.write(register, &vec![fill; usize::from(width)]);
                let now = lock(&guest.hardware.config).clone();
                let changed = |at: &usize| (now[*at] ^ before[*at]) & !allowed[*at] != 0;
                leaked.extend((0..4096).filter(changed).map(|at| (register, width, at)));
                guest.hardware.set_config(0, &before);
            }
        }
    }
    assert!(leaked.is_empty(), "{leaked:x?}");
}

#[test]
fn every_read_of_every_width_agrees_with_its_bytes() {
    let guest = guest(nic());
    let bytes: Vec<u8> = (0..4096).map(|register| guest.u8(register)).collect();
    let words: Vec<u8> = (0..4096)
        .step_by(2)
        .flat_map(|register| guest.u16(register).to_le_bytes())
        .collect();
    let doubles: Vec<u8> = (0..4096)
        .step_by(4)
        .flat_map(|register| guest.u32(register).to_le_bytes())
        .collect();
    assert_eq!(bytes, words);
    assert_eq!(bytes, doubles);
}

//! Messages of every number and layout.

use std::ops::Range;

use super::*;

/// Every vector of its MSI-X table, which stands at `table` of BAR 3, as its pending bits do at `pending`.
fn with_vectors(count: u16, table: u32, pending: u32) -> MockHardware {
    let bar = 3;
    let control = (count - 1).to_le_bytes();
    let places = [table | bar, pending | bar].map(u32::to_le_bytes);
    nic()
        .with_bar(3, 0xdeaf_0000, 0x10000)
        .with_config(MSIX + 2, &control)
        .with_config(MSIX + 4, &places.concat())
        .with_interrupts(InterruptKind::Msix, count.into(), true)
}

/// Writes doublewords to vector `n` of the table at `table`: those at `fields`.
fn program(device: &dyn strait_devices::Device, table: u64, n: u64, fields: Range<u64>, values: [u32; 4]) {
    for field in fields {
        let at = table + 16 * n + 4 * field;
        let _ = device.write(at, &values[field as usize].to_le_bytes());
    }
}

#[test]
fn thirty_two_messages_are_one_call_in_every_shape() {
    // Per-vector masking and 64-bit addresses, in all combinations (PCIe §7.7.1.2).
    for shape in [0x0000u16, 0x0080, 0x0100, 0x0180] {
        let control = shape | 5 << 1;
        let hardware = nic()
            .with_capabilities(&[(0x50, 0x05, &control.to_le_bytes())])
            .with_interrupts(InterruptKind::Msi, 32, false);
        let guest = guest(hardware);
        let data = if shape & 0x80 == 0 { MSI + 8 } else { MSI + 0xc };
        guest.write(MSI + 4, &0xfee0_2000u32.to_le_bytes());
        guest.write(data, &[0x40, 0x00]);
        guest.write(MSI + 2, &(control | 5 << 4 | 1).to_le_bytes());
        let calls = guest.hardware.take_calls();
        let [Call::SetInterrupts(InterruptKind::Msi, 0, events)] = &calls[..] else {
            panic!("{shape:#x}: {calls:?}");
        };
        assert!(events.len() == 32 && events.iter().all(Option::is_some));
        let last = guest.router.routes()[31].message().expect("enabled");
        assert_eq!((last.address, last.data), (0xfee0_2000, 0x5f));
    }
}

#[test]
fn a_host_with_fewer_messages_shows_fewer() {
    let hardware = nic()
        .with_capabilities(&[(0x50, 0x05, &[0x8a, 0x00])])
        .with_interrupts(InterruptKind::Msi, 4, false);
    assert_eq!(guest(hardware).u16(MSI + 2) & 0xe, 2 << 1);
}

#[test]
fn masking_costs_the_device_no_call_and_keeps_its_event() {
    let guest = guest(with_vectors(3, 0, 0x2000));
    let bar = guest.enable()[1].region.clone();
    guest.write(MSIX + 2, &[0x02, 0x80]);
    program(&**bar.device(), 0, 0, 0..4, [0xfee0_1000, 0, 0x41, 0]);
    let bound = guest.hardware.take_calls();
    assert!(
        matches!(bound[..], [Call::SetInterrupts(..), Call::SetInterrupts(_, 0, _)]),
        "{bound:?}"
    );
    let route = guest.router.routes()[0].clone();
    for _ in 0..100 {
        program(&**bar.device(), 0, 0, 3..4, [0, 0, 0, 1]);
        assert_eq!(route.message(), None);
        program(&**bar.device(), 0, 0, 3..4, [0; 4]);
        assert!(route.message().is_some());
    }
    assert!(guest.hardware.take_calls().is_empty());
    assert_eq!(
        guest.router.routes().len(),
        1,
        "the event that remembers is the same"
    );
}

#[test]
fn the_last_of_2048_vectors_works_wherever_the_table_stands() {
    // Not page aligned, the pending bits right behind the table and in its last page.
    let (table, pending) = (0x0800, 0x8800);
    let guest = guest(with_vectors(2048, table, pending));
    let bar = guest.enable()[1].region.clone();
    assert_eq!(pieces(&bar), [(0x9000, 0x7000)]);
    guest.write(MSIX + 2, &[0xff, 0x87]);
    program(
        &**bar.device(),
        table.into(),
        2047,
        0..4,
        [0xfee0_1000, 0, 0x41, 0],
    );
    let calls = guest.hardware.take_calls();
    assert!(
        matches!(&calls[1..], [Call::SetInterrupts(InterruptKind::Msix, 2047, events)] if events.len() == 1),
        "{calls:?}"
    );
    guest.router.routes()[0].set_pending(true);
    let mut bits = [0; 8];
    bar.device().read(u64::from(pending) + 248, &mut bits);
    assert_eq!(bits, [0, 0, 0, 0, 0, 0, 0, 0x80]);
}

//! BARs and the interrupts that are programmed through them.

use super::*;

#[test]
fn bars_are_sized_without_touching_the_hardware() {
    let guest = guest(nic());
    let sizes = [0x10, 0x14, 0x18, 0x1c].map(|register| {
        assert!(guest.write(register, &[0xff; 4]).is_empty());
        guest.u32(register)
    });
    assert_eq!(sizes, [0xfffe_0000, 0, 0xffff_ffe1, 0xffff_c000]);
    assert!(guest.hardware.take_calls().is_empty());
    assert!(lock(&guest.hardware.reads).is_empty());
    let ports = Bar {
        kind: BarKind::Io,
        len_bytes: 0x20,
    };
    assert_eq!(guest.function.bars()[2], Some(ports));
}

#[test]
fn decoding_and_moves_bring_regions_and_stay_off_the_hardware() {
    let guest = guest(nic());
    let appeared = guest.enable();
    assert_eq!(
        appeared.iter().map(|remap| remap.to).collect::<Vec<_>>(),
        [memory(0xfe00_0000), memory(0xfe10_0000)]
    );
    let moved = guest.write(0x10, &0xfd00_0000u32.to_le_bytes());
    assert_eq!(
        (moved[0].from, moved[0].to),
        (memory(0xfe00_0000), memory(0xfd00_0000))
    );
    let gone = guest.write(0x04, &[0]);
    assert_eq!(
        gone.iter().map(|remap| remap.to).collect::<Vec<_>>(),
        [None, None]
    );
    assert!(guest.hardware.take_calls().is_empty());
}

#[test]
fn what_is_decoded_is_told_with_its_size_and_place() {
    let guest = guest(nic());
    let told = |guest: &Guest| {
        let decoders = guest.function.decoders().into_iter();
        decoders
            .map(|decoder| (decoder.index, decoder.len_bytes, decoder.place))
            .collect::<Vec<_>>()
    };
    let silent = [(0, 0x20000, None), (2, 0x20, None), (3, 0x4000, None)];
    assert_eq!(told(&guest)[..3], silent);
    guest.enable();
    assert_eq!(told(&guest)[0].2, memory(0xfe00_0000));
    assert_eq!(told(&guest)[2].2, memory(0xfe10_0000));
    guest.write(0x04, &[0]);
    assert_eq!(told(&guest)[..3], silent, "as before");
}

#[test]
fn ports_are_trapped_to_the_hardware() {
    let guest = guest(nic());
    guest.write(0x18, &0xc000u32.to_le_bytes());
    let remaps = guest.write(0x04, &[0x01]);
    assert_eq!(remaps[0].to, Some(Place::Port(0xc000)));
    assert!(pieces(&remaps[0].region).is_empty());
    let _ = remaps[0].region.device().write(4, &[1, 2]);
    assert_eq!(
        guest.hardware.take_calls(),
        [Call::Write(HardwareRegion::Bar(2), 4, vec![1, 2])]
    );
}

#[test]
fn the_pages_of_the_msix_structures_are_trapped() {
    let guest = guest(nic());
    let remaps = guest.enable();
    assert_eq!(pieces(&remaps[0].region), [(0, 0x20000)]);
    assert_eq!(pieces(&remaps[1].region), [(0x1000, 0x1000), (0x3000, 0x1000)]);
}

#[test]
fn the_guest_programs_vectors_in_the_model_and_never_in_the_hardware() {
    let guest = guest(nic());
    let remaps = guest.enable();
    let device = remaps[1].region.device();
    guest.write(MSIX + 2, &[0x00, 0x80]);
    for (at, value) in [(0x20, 0xfee0_1000u32), (0x24, 0), (0x28, 0x41), (0x2c, 0)] {
        let _ = device.write(at, &value.to_le_bytes());
    }
    let calls = guest.hardware.take_calls();
    assert!(
        matches!(
            calls[..],
            [
                Call::SetInterrupts(InterruptKind::Msix, 0, _),
                Call::SetInterrupts(InterruptKind::Msix, 2, _)
            ]
        ),
        "{calls:?}"
    );
    let message = guest.router.routes()[0].message().expect("unmasked");
    assert_eq!((message.address, message.data), (0xfee0_1000, 0x41));
    guest.router.routes()[0].set_pending(true);
    let mut pending = [0; 8];
    device.read(0x2000, &mut pending);
    assert_eq!(pending, [0x4, 0, 0, 0, 0, 0, 0, 0]);
    let _ = device.write(0x2000, &[0; 8]);
    assert_eq!(guest.u16(MSIX + 2), 0x8009);
    assert!(lock(&guest.hardware.reads).is_empty());
}

#[test]
fn accesses_across_the_edge_of_the_table_are_nobodys() {
    let guest = guest(nic());
    let remaps = guest.enable();
    let device = remaps[1].region.device();
    let mut data = [0; 8];
    device.read(0x9c, &mut data);
    assert_eq!(data, [0xff; 8]);
    let _ = device.write(0x9c, &[0; 8]);
    device.read(0xa0, &mut data);
    assert_eq!(data, [0x5a; 8]);
    assert!(guest.hardware.take_calls().is_empty());
}

#[test]
fn msi_is_bound_when_it_is_enabled_and_its_registers_stay_ours() {
    let guest = guest(nic());
    guest.write(MSI + 4, &0xfee0_2000u32.to_le_bytes());
    guest.write(MSI + 0xc, &[0x61, 0x00]);
    guest.write(MSI, &[0, 0, 0x01, 0x00]);
    let calls = guest.hardware.take_calls();
    assert!(
        matches!(calls[..], [Call::SetInterrupts(InterruptKind::Msi, 0, _)]),
        "{calls:?}"
    );
    assert_eq!(guest.u32(MSI), u32::from(MSIX) << 8 | 0x0181_0005);
    guest.write(MSI + 2, &[0]);
    assert_eq!(
        guest.hardware.take_calls(),
        [Call::DisableInterrupts(InterruptKind::Msi)]
    );
}

#[test]
fn msix_structures_may_share_a_page_or_overlap() {
    let shared = [0x09, 0x00, 0x03, 0x20, 0x00, 0x00, 0x03, 0x21, 0x00, 0x00];
    let overlapping = [0x09, 0x00, 0x03, 0x20, 0x00, 0x00, 0x03, 0x20, 0x00, 0x00];
    for layout in [shared, overlapping] {
        let guest = guest(nic().with_config(MSIX + 2, &layout));
        let remaps = guest.enable();
        assert_eq!(pieces(&remaps[1].region), [(0, 0x2000), (0x3000, 0x1000)]);
        let mut data = [0; 4];
        remaps[1].region.device().read(0x200c, &mut data);
        assert_eq!(data, [1, 0, 0, 0], "the table's vector control");
    }
}

#[test]
fn a_sparse_bar_is_mapped_where_the_host_says() {
    let mut hardware = nic();
    let sparse = Some(vec![(0x8000, 0x1000), (0x1000, 0x1000), (0x1_f000, u64::MAX)]);
    hardware.regions.insert(
        0,
        RegionInfo {
            len_bytes: 0x20000,
            mappable: true,
            sparse,
        },
    );
    let guest = guest(hardware);
    assert_eq!(
        pieces(&guest.enable()[0].region),
        [(0x1000, 0x1000), (0x8000, 0x1000), (0x1_f000, 0x1000)]
    );
}

#[test]
fn a_bar_smaller_than_a_page_is_never_mapped() {
    let guest = guest(nic().with_bar(1, 0xdead_0800, 0x800));
    guest.write(0x14, &0xfe20_0800u32.to_le_bytes());
    let small = guest.enable().swap_remove(1);
    assert_eq!(small.to, memory(0xfe20_0800));
    assert!(pieces(&small.region).is_empty());
    let mapped = lock(&guest.hardware.mapped);
    assert!(mapped.iter().all(|(bar, ..)| *bar != HardwareRegion::Bar(1)));
}

#[test]
fn a_prefetchable_64_bit_bar_goes_above_4_gib() {
    let guest = guest(nic().with_bar(4, 0xdead_000c, 4 << 20));
    assert_eq!((guest.u32(0x20), guest.u32(0x24)), (0xc, 0));
    guest.write(0x20, &0x4000_0000u32.to_le_bytes());
    guest.write(0x24, &0x12u32.to_le_bytes());
    let wide = guest.enable().pop().expect("BAR 4");
    assert_eq!(wide.to, memory(0x12_4000_0000));
    assert_eq!(pieces(&wide.region), [(0, 4 << 20)]);
}

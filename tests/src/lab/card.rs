//! The expansion ROM of one of the lab machine's cards.

/// Bytes, a power of two.
const LEN: usize = 16 << 10;

/// Where the data structure stands.
const DATA: usize = 0x1c;

/// Code of a kind that the lab machine's firmware does not run: EFI (PCI Firmware 3.3 §5.1.2).
const EFI: u8 = 3;

/// A ROM with a header (PCI Firmware 3.3 §5.1.1), a data structure (§5.1.2) and bytes that do not repeat.
pub(crate) fn rom() -> Vec<u8> {
    let noise = (0..LEN as u32).map(|n| (n.wrapping_mul(0x9e37_79b1) >> 24) as u8);
    let mut rom: Vec<u8> = noise.collect();
    rom[..DATA].fill(0);
    rom[..3].copy_from_slice(&[0x55, 0xaa, (LEN / 512) as u8]);
    rom[0x18] = DATA as u8;
    let mut data = [0; 0x18];
    data[..4].copy_from_slice(b"PCIR");
    data[4..8].copy_from_slice(&[0x86, 0x80, 0xd3, 0x10]);
    data[0x0a] = data.len() as u8;
    data[0x10] = (LEN / 512) as u8;
    data[0x14] = EFI;
    data[0x15] = 0x80; // the last image
    rom[DATA..DATA + data.len()].copy_from_slice(&data);
    rom
}

//! A guest of a few instructions.

/// Where it is loaded and starts.
pub(crate) const ENTRY: u64 = 0x10_0000;

/// A 64-bit ELF file with a PVH note (XEN_ELFNOTE_PHYS32_ENTRY).
pub(crate) fn kernel(program: &[u8]) -> Vec<u8> {
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

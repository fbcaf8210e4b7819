//! Kernel images that a test can shape, and RAM to load them into.

use std::io::Write;

use tempfile::NamedTempFile;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Low RAM of `len` bytes.
pub(super) fn memory(len: usize) -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), len)]).expect("a small anonymous mapping")
}

/// `len` bytes of RAM at `address`.
pub(super) fn bytes_at(memory: &GuestMemoryMmap, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory
        .read_slice(&mut bytes, GuestAddress(address))
        .expect("inside RAM");
    bytes
}

/// A file with these contents, gone when dropped.
pub(super) fn file_with(contents: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(contents).expect("room for it");
    file
}

/// A bzImage of protocol 2.15 with 8 KiB of 0xC5 as its kernel, for 16 MiB, that needs 4 MiB.
pub(super) fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 2 * 512];
    image.extend([0xc5; 8192]);
    put(&mut image, 0x1f1, &[1]);
    put(&mut image, 0x1f4, &512u32.to_le_bytes());
    put(&mut image, 0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(&mut image, 0x202, b"HdrS\x0f\x02");
    put(&mut image, 0x211, &[1]);
    put(&mut image, 0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(&mut image, 0x236, &3u16.to_le_bytes());
    put(&mut image, 0x238, &2047u32.to_le_bytes());
    put(&mut image, 0x258, &(16u64 << 20).to_le_bytes());
    put(&mut image, 0x260, &(4u32 << 20).to_le_bytes());
    image
}

/// An ELF file with one segment of 4 KiB of 0xC6 at 16 MiB, 8 KiB long in memory, and a PVH note behind a
/// note of somebody else.
pub(super) fn vmlinux() -> Vec<u8> {
    let mut image = vec![0; 0x2000];
    put(&mut image, 0, b"\x7fELF\x02\x01\x01");
    put(&mut image, 16, &[2, 0, 62, 0, 1, 0, 0, 0]);
    put(&mut image, 32, &64u64.to_le_bytes());
    put(&mut image, 52, &[64, 0, 56, 0, 2, 0]);
    put(
        &mut image,
        64,
        &program_header(1, 0x1000, 16 << 20, 0x1000, 0x2000),
    );
    put(&mut image, 120, &program_header(4, 0x200, 0, 0x30, 0x30));
    put(
        &mut image,
        0x200,
        b"\x04\0\0\0\x01\0\0\0\x01\0\0\0GNU\0\xff\0\0\0",
    );
    put(
        &mut image,
        0x214,
        b"\x04\0\0\0\x08\0\0\0\x12\0\0\0Xen\0\x40\0\0\x01\0\0\0\0",
    );
    image[0x1000..].fill(0xc6);
    image
}

/// Overwrites `bytes` at `offset`.
pub(super) fn put(image: &mut [u8], offset: usize, bytes: &[u8]) {
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn program_header(kind: u32, offset: u64, address: u64, file_len: u64, len: u64) -> Vec<u8> {
    let mut header = kind.to_le_bytes().to_vec();
    header.extend(5u32.to_le_bytes());
    header.extend(
        [offset, address, address, file_len, len, 0x1000]
            .into_iter()
            .flat_map(u64::to_le_bytes),
    );
    header
}

//! The initial file system: where it goes, and how it gets there.

use std::fs::File;
use std::path::{Path, PathBuf};

use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::error::BootError;
use super::image::{copy_file, open_regular};
use crate::layout::Range;

/// An initrd starts at a page's start.
pub(super) const PAGE_BYTES: u64 = 4096;

/// An initrd that has found its place.
#[derive(Debug)]
pub(super) struct Initramfs {
    file: File,
    pub(super) range: Range,
}

/// An initrd of which only the size is known yet.
#[derive(Debug)]
pub(super) struct Unplaced {
    path: PathBuf,
    file: File,
    pub(super) len_bytes: u64,
}

impl Unplaced {
    pub(super) fn open(path: &Path) -> Result<Self, BootError> {
        let (file, len_bytes) = open_regular("initrd", path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            len_bytes,
        })
    }

    /// Puts it as high as it may go below `limit`, at a page's start, and not below `kernel_end`: a kernel
    /// that unpacks itself, or moves itself for KASLR, finds the most room then.
    pub(super) fn place(self, kernel_end: GuestAddress, limit: GuestAddress) -> Result<Initramfs, BootError> {
        let highest = limit
            .0
            .checked_sub(self.len_bytes)
            .map(|start| start / PAGE_BYTES * PAGE_BYTES);
        match highest {
            Some(start) if start >= kernel_end.0 => {
                let range = Range {
                    start: GuestAddress(start),
                    len: self.len_bytes,
                };
                Ok(Initramfs {
                    file: self.file,
                    range,
                })
            }
            _ => Err(BootError::InitrdTooBig {
                room_bytes: limit.0.saturating_sub(kernel_end.0),
                len_bytes: self.len_bytes,
                limit: limit.0,
                path: self.path,
            }),
        }
    }
}

impl Initramfs {
    pub(super) fn load(&self, memory: &GuestMemoryMmap) -> Result<(), BootError> {
        copy_file("initrd", &self.file, 0, memory, self.range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::testing::file_with;

    fn unplaced(len: usize) -> Unplaced {
        let file = file_with(&vec![1; len]);
        Unplaced::open(file.path()).expect("the file is there")
    }

    #[test]
    fn goes_as_high_as_it_may() {
        let initrd = unplaced(5000)
            .place(GuestAddress(0x10_0000), GuestAddress(0x80_0000))
            .expect("room");
        assert_eq!(
            initrd.range,
            Range {
                start: GuestAddress(0x7f_e000),
                len: 5000
            }
        );
    }

    #[test]
    fn touches_the_kernel_but_never_overlaps_it() {
        let (end, limit) = (GuestAddress(0x7f_e000), GuestAddress(0x80_0000));
        assert!(unplaced(0x2000).place(end, limit).is_ok());
        let error = unplaced(0x2001).place(end, limit).expect_err("one byte too long");
        assert!(
            error.to_string().contains("has 1 MiB and only 0 MiB are left"),
            "{error}"
        );
    }

    #[test]
    fn larger_than_memory_is_refused() {
        assert!(
            unplaced(0x2000)
                .place(GuestAddress(0), GuestAddress(0x1000))
                .is_err()
        );
    }

    #[test]
    fn empty_file_is_refused() {
        let file = file_with(&[]);
        let error = Unplaced::open(file.path()).expect_err("empty");
        assert!(error.to_string().starts_with("the initrd ") && error.to_string().ends_with(" is empty"));
    }
}

//! The parts that both formats of a kernel share: the file they are read from, their demands on memory, and what a
//! kernel is told.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::error::BootError;
use crate::layout::Range;

/// The file a format is recognised from.
pub(super) struct ImageFile<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a File,
    pub(super) len_bytes: u64,
}

impl ImageFile<'_> {
    /// Fills `buffer` from `offset`; a file that ends before is truncated.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BootError> {
        self.check_len(offset.saturating_add(buffer.len() as u64))?;
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|source| BootError::Read {
                what: "kernel",
                path: self.path.to_owned(),
                source,
            })
    }

    pub(super) fn check_len(&self, expected: u64) -> Result<(), BootError> {
        if expected > self.len_bytes {
            return Err(BootError::Truncated {
                path: self.path.to_owned(),
                found: self.len_bytes,
                expected,
            });
        }
        Ok(())
    }

    pub(super) fn damaged(&self, what: &'static str, value: u64) -> BootError {
        BootError::Damaged {
            path: self.path.to_owned(),
            what,
            value,
        }
    }
}

/// The limits that a kernel's header sets to what is loaded beside it.
pub(super) struct Demands {
    /// First address the kernel does not use while it starts.
    pub(super) end: GuestAddress,
    /// First address the initrd must not reach, RAM apart.
    pub(super) initrd_limit: GuestAddress,
    /// Longest command line without its terminator.
    pub(super) cmdline_max: usize,
}

/// The facts about the machine that a kernel is told, besides the command line.
pub(super) struct Handover<'a> {
    pub(super) memory: &'a GuestMemoryMmap,
    pub(super) initrd: Option<Range>,
    pub(super) rsdp: GuestAddress,
}

/// Opens a file that must be regular and not empty, and tells its length in bytes.
pub(super) fn open_regular(what: &'static str, path: &Path) -> Result<(File, u64), BootError> {
    let failed = |source| BootError::Read {
        what,
        path: path.to_owned(),
        source,
    };
    // Looked at before it is opened: opening a pipe would wait for its other end.
    let kind = std::fs::metadata(path).map_err(failed)?;
    if !kind.is_file() {
        return Err(BootError::NotAFile(what, path.to_owned()));
    }
    let file = File::open(path).map_err(failed)?;
    let len_bytes = file.metadata().map_err(failed)?.len();
    if len_bytes == 0 {
        return Err(BootError::Empty(what, path.to_owned()));
    }
    Ok((file, len_bytes))
}

/// Reads `target.len` bytes at `offset` of a file straight into guest RAM.
pub(super) fn copy_file(
    what: &'static str,
    mut file: &File,
    offset: u64,
    memory: &GuestMemoryMmap,
    target: Range,
) -> Result<(), BootError> {
    let failed = |source| BootError::Copy { what, source };
    file.seek(SeekFrom::Start(offset))
        .map_err(|error| failed(GuestMemoryError::IOError(error)))?;
    memory
        .read_exact_volatile_from(target.start, &mut file, target.len as usize)
        .map_err(failed)
}

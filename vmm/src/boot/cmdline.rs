//! The kernel's command line.

use vm_memory::{Bytes, GuestMemoryMmap};

use super::error::BootError;
use crate::layout;

/// The longest command line that every x86 Linux takes (COMMAND_LINE_SIZE less the terminator). A bzImage says its own
/// size; an ELF file says nothing.
pub(super) const LINUX_MAX: usize = 2047;

/// A command line that the kernel takes.
#[derive(Debug)]
pub(super) struct Cmdline(Vec<u8>);

impl Cmdline {
    pub(super) fn new(text: &str, kernel_max: usize) -> Result<Self, BootError> {
        let max = kernel_max.min(layout::CMDLINE.len as usize - 1);
        let mut bytes = text.as_bytes().to_vec();
        // The kernel would take the rest for no part of it, without a word.
        if let Some(position) = bytes.iter().position(|byte| *byte == 0) {
            return Err(BootError::CmdlineNul(position));
        }
        if bytes.len() > max {
            return Err(BootError::CmdlineTooLong {
                len: bytes.len(),
                max,
            });
        }
        bytes.push(0);
        Ok(Self(bytes))
    }

    pub(super) fn load(&self, memory: &GuestMemoryMmap) -> Result<(), BootError> {
        let copy = memory.write_slice(&self.0, layout::CMDLINE.start);
        copy.map_err(|source| BootError::Copy {
            what: "command line",
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_exactly_what_the_kernel_takes() {
        assert!(Cmdline::new(&"x".repeat(LINUX_MAX), LINUX_MAX).is_ok());
        let error = Cmdline::new(&"x".repeat(LINUX_MAX + 1), LINUX_MAX).expect_err("one byte too long");
        assert_eq!(
            error.to_string(),
            "the kernel command line has 2048 bytes and this kernel takes 2047; make it shorter"
        );
    }

    #[test]
    fn never_leaves_its_place_in_memory() {
        let error = Cmdline::new(&"x".repeat(0x1_0000), usize::MAX).expect_err("longer than the room");
        assert!(matches!(error, BootError::CmdlineTooLong { max: 0xffff, .. }));
    }

    #[test]
    fn refuses_an_embedded_nul() {
        let error = Cmdline::new("quiet\0splash", LINUX_MAX).expect_err("would end after quiet");
        assert_eq!(
            error.to_string(),
            "the kernel command line has a NUL byte at position 5"
        );
    }
}

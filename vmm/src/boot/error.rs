//! Why a kernel cannot be started, as sentences.

use std::io;
use std::path::PathBuf;

use vm_memory::GuestMemoryError;

const MIB: u64 = 1 << 20;

/// A kernel, initrd or command line that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file that cannot be opened or read.
    #[error("Cannot read the {what} {}", path.display())]
    Read {
        /// Kernel or initrd.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// errno.
        source: io::Error,
    },
    /// A folder, pipe or device.
    #[error("The {what} {} is not a regular file", path.display())]
    NotAFile {
        /// Kernel or initrd.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// No bytes at all.
    #[error("The {what} {} is empty", path.display())]
    Empty {
        /// Kernel or initrd.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Neither format.
    #[error("{} is not a kernel: it is neither a bzImage nor an ELF file", path.display())]
    NotAKernel {
        /// The file.
        path: PathBuf,
    },
    /// Shorter than its own header says.
    #[error("The kernel {} is truncated: it has {found} bytes and its header describes {expected}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// What the header asks for.
        expected: u64,
    },
    /// Not for 64-bit mode.
    #[error("{} is a 32-bit kernel; give one built for x86-64", path.display())]
    Bits32 {
        /// The file.
        path: PathBuf,
    },
    /// For another CPU.
    #[error("{} is an ELF file for machine type {machine}; give a kernel for x86-64 (62)", path.display())]
    OtherMachine {
        /// The file.
        path: PathBuf,
        /// ELF e_machine.
        machine: u16,
    },
    /// A bzImage from before 64-bit entry points.
    #[error(
        "The kernel {} speaks boot protocol {}.{:02}; 2.12 (Linux 3.8) is the oldest that starts in 64-bit mode",
        path.display(), version >> 8, version & 0xff
    )]
    OldProtocol {
        /// The file.
        path: PathBuf,
        /// From the setup header.
        version: u16,
    },
    /// An ELF file without an entry point we can use.
    #[error(
        "{} has no PVH entry point; give a bzImage, or a vmlinux built with CONFIG_PVH=y",
        path.display()
    )]
    NoPvhNote {
        /// The file.
        path: PathBuf,
    },
    /// Header fields that contradict each other.
    #[error("The kernel {} is damaged: {what} {value:#x} makes no sense", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// Does not fit into RAM.
    #[error(
        "The kernel {}{} needs at least {} MiB of memory and the guest has {} MiB; give a larger --memory",
        path.display(), if *with_initrd { " with its initrd" } else { "" },
        needed_bytes.div_ceil(MIB), available_bytes / MIB
    )]
    TooBig {
        /// The file.
        path: PathBuf,
        /// Whether it would fit without the initrd.
        with_initrd: bool,
        /// What it needs.
        needed_bytes: u64,
        /// What there is.
        available_bytes: u64,
    },
    /// Does not fit between the kernel and the highest address the kernel can take it at.
    #[error(
        "The initrd {} has {} MiB and only {} MiB are left for it behind the kernel and below {limit:#x}",
        path.display(), len_bytes.div_ceil(MIB), room_bytes / MIB
    )]
    InitrdTooBig {
        /// The file.
        path: PathBuf,
        /// Its size.
        len_bytes: u64,
        /// What is left.
        room_bytes: u64,
        /// First address that it must not reach.
        limit: u64,
    },
    /// Longer than the kernel takes.
    #[error("The kernel command line has {len} bytes and this kernel takes {max}; make it shorter")]
    CmdlineTooLong {
        /// Bytes without the terminator.
        len: usize,
        /// Most the kernel takes.
        max: usize,
    },
    /// A byte that would end it early.
    #[error("The kernel command line has a NUL byte at position {position}")]
    CmdlineNul {
        /// Where.
        position: usize,
    },
    /// Guest RAM is not where the layout says, or a file became shorter since it was opened.
    #[error("Cannot copy the {what} into guest memory")]
    Copy {
        /// What was to be copied.
        what: &'static str,
        /// Why not.
        source: GuestMemoryError,
    },
}

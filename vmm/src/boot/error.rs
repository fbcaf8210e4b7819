//! Why a kernel cannot be started, as sentences.

use std::io;
use std::path::PathBuf;

use vm_memory::GuestMemoryError;

const MIB: u64 = 1 << 20;

/// A kernel, initrd or command line that cannot be used. A path is the one that the user gave.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file that cannot be opened or read.
    #[error("cannot read the {what} {}", path.display())]
    Read {
        /// What the file was given as: kernel or initrd.
        what: &'static str,
        /// The file as the user named it.
        path: PathBuf,
        /// What the host's kernel answered.
        source: io::Error,
    },
    /// A folder, pipe or device, given as a kernel or an initrd.
    #[error("the {0} {path} is not a regular file", path = .1.display())]
    NotAFile(&'static str, PathBuf),
    /// No bytes at all, given as a kernel or an initrd.
    #[error("the {0} {path} is empty", path = .1.display())]
    Empty(&'static str, PathBuf),
    /// A file of neither format.
    #[error("{} is not a kernel: it is neither a bzImage nor an ELF file", .0.display())]
    NotAKernel(PathBuf),
    /// An ELF file of another purpose: a program, a library, a module.
    #[error("{path} is {1}, not a kernel; give a bzImage (/boot/vmlinuz-*), or a vmlinux built with CONFIG_PVH=y", path = .0.display())]
    OtherElf(PathBuf, &'static str),
    /// Shorter than its own header says.
    #[error("the kernel {} is truncated: it has {found} bytes and its header describes {expected}", path.display())]
    Truncated {
        /// The file as the user named it.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// The length in bytes that its header asks for.
        expected: u64,
    },
    /// Not for 64-bit mode.
    #[error("{} is a 32-bit kernel; give one built for x86-64", .0.display())]
    Bits32(PathBuf),
    /// An ELF file for another CPU, with its e_machine.
    #[error("{path} is an ELF file for machine type {1}; give a kernel for x86-64 (62)", path = .0.display())]
    OtherMachine(PathBuf, u16),
    /// A bzImage from before 64-bit entry points.
    #[error(
        "the kernel {} speaks boot protocol {}.{:02}; 2.12 (Linux 3.8) is the oldest that starts in 64-bit mode",
        path.display(), version >> 8, version & 0xff
    )]
    OldProtocol {
        /// The file as the user named it.
        path: PathBuf,
        /// The setup header's version: major in the upper byte, minor in the lower.
        version: u16,
    },
    /// An ELF file without an entry point we can use.
    #[error("{} has no PVH entry point; give a bzImage, or a vmlinux built with CONFIG_PVH=y", .0.display())]
    NoPvhNote(PathBuf),
    /// Header fields that contradict each other.
    #[error("the kernel {} is damaged: {what} {value:#x} makes no sense", path.display())]
    Damaged {
        /// The file as the user named it.
        path: PathBuf,
        /// The field, as the format's specification names it.
        what: &'static str,
        /// What the field holds.
        value: u64,
    },
    /// Does not fit into RAM.
    #[error(
        "the kernel {}{} needs at least {} MiB of memory and the guest has {} MiB; give a larger --memory",
        path.display(), if *with_initrd { " with its initrd" } else { "" },
        needed_bytes.div_ceil(MIB), available_bytes / MIB
    )]
    TooBig {
        /// The file as the user named it.
        path: PathBuf,
        /// Whether it would fit without the initrd.
        with_initrd: bool,
        /// The end of what it uses while it starts.
        needed_bytes: u64,
        /// All RAM of the guest.
        available_bytes: u64,
    },
    /// Does not fit between the kernel and the highest address the kernel can take it at.
    #[error(
        "the initrd {} has {} MiB and only {} MiB are left for it behind the kernel and below {limit:#x}",
        path.display(), len_bytes.div_ceil(MIB), room_bytes / MIB
    )]
    InitrdTooBig {
        /// The file as the user named it.
        path: PathBuf,
        /// Its length, which is what it needs.
        len_bytes: u64,
        /// What is left between the kernel and the limit.
        room_bytes: u64,
        /// First address that it must not reach.
        limit: u64,
    },
    /// Longer than the kernel takes.
    #[error("the kernel command line has {len} bytes and this kernel takes {max}; make it shorter")]
    CmdlineTooLong {
        /// Bytes without the terminator.
        len: usize,
        /// Most that the kernel takes, without the terminator.
        max: usize,
    },
    /// A byte that would end the command line early, and how many are before it.
    #[error("the kernel command line has a NUL byte at position {0}")]
    CmdlineNul(usize),
    /// Guest RAM is not where the layout says, or a file became shorter since it was opened.
    #[error("cannot copy the {what} into guest memory")]
    Copy {
        /// What was to be copied, with the file's kind or the structure's name.
        what: &'static str,
        /// Which access to guest memory failed.
        source: GuestMemoryError,
    },
}

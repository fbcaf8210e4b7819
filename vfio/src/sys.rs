//! The kernel's VFIO interface.
//!
//! Structures are those of `linux/vfio.h`. Every function keeps errno.
#![expect(unsafe_code, reason = "ioctl, mmap and positioned I/O on file descriptors")]

pub(crate) mod group;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use libc::{c_ulong, c_void, off_t};
use vfio_bindings::bindings::vfio as uapi;
use vmm_sys_util::ioctl::{
    _IOC_NONE, ioctl, ioctl_expr, ioctl_with_mut_ptr, ioctl_with_mut_ref, ioctl_with_ptr, ioctl_with_ref,
};

const DEVICE_GET_INFO: c_ulong = request(7);
const DEVICE_GET_REGION_INFO: c_ulong = request(8);
const DEVICE_GET_IRQ_INFO: c_ulong = request(9);
const DEVICE_SET_IRQS: c_ulong = request(10);
const DEVICE_RESET: c_ulong = request(11);
const DEVICE_GET_PCI_HOT_RESET_INFO: c_ulong = request(12);
const DEVICE_PCI_HOT_RESET: c_ulong = request(13);
// The numbers of the container's calls begin anew at 12.
const IOMMU_GET_INFO: c_ulong = request(12);
const IOMMU_MAP_DMA: c_ulong = request(13);
const IOMMU_UNMAP_DMA: c_ulong = request(14);

/// All VFIO ioctls are of type ';', count from 100 and encode no direction or size.
const fn request(number: u32) -> c_ulong {
    ioctl_expr(_IOC_NONE, b';' as u32, 100 + number, 0)
}

/// An answer of the kernel longer than this is not believed.
const MAX_INFO_LEN: usize = 1 << 20;

/// What the kernel answered to a `*_GET_INFO` ioctl: a structure with its capability chain behind it.
pub(crate) struct Info {
    bytes: Vec<u8>,
}

impl Info {
    pub(crate) fn u32(&self, offset: usize) -> u32 {
        field(&self.bytes, offset).map_or(0, u32::from_ne_bytes)
    }

    pub(crate) fn u64(&self, offset: usize) -> u64 {
        field(&self.bytes, offset).map_or(0, u64::from_ne_bytes)
    }

    /// The first capability with `id`, from its header on, in the chain that starts at `offset`.
    pub(crate) fn capability(&self, offset: u32, id: u32) -> Option<&[u8]> {
        const MAX_CAPABILITIES: usize = 64;
        let mut at = offset as usize;
        for _ in 0..MAX_CAPABILITIES {
            let header = self.bytes.get(at..).filter(|_| at != 0)?;
            if u32::from(field(header, 0).map(u16::from_ne_bytes)?) == id {
                return Some(header);
            }
            at = field(header, 4).map(u32::from_ne_bytes)? as usize;
        }
        None
    }
}

/// `N` bytes at `offset`, if they are there.
pub(crate) fn field<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// Asks for a device's flags: `argsz, flags, num_regions, num_irqs, cap_offset, pad`.
pub(crate) fn device_info(device: BorrowedFd<'_>) -> io::Result<Info> {
    info(device, DEVICE_GET_INFO, [0; 6])
}

/// Asks about a region: `argsz, flags, index, cap_offset, size (64 bits), offset (64 bits)`.
pub(crate) fn region_info(device: BorrowedFd<'_>, index: u32) -> io::Result<Info> {
    info(device, DEVICE_GET_REGION_INFO, [0, 0, index, 0, 0, 0, 0, 0])
}

/// Asks about an interrupt type: `argsz, flags, index, count`.
pub(crate) fn irq_info(device: BorrowedFd<'_>, index: u32) -> io::Result<Info> {
    info(device, DEVICE_GET_IRQ_INFO, [0, 0, index, 0])
}

/// Asks about a container's IOMMU: `argsz, flags, iova_pgsizes (64 bits), cap_offset, pad`.
pub(crate) fn iommu_info(container: BorrowedFd<'_>) -> io::Result<Info> {
    info(container, IOMMU_GET_INFO, [0; 6])
}

/// The protocol of all info ioctls: the first word says how much room there is, and comes back as how much
/// the whole answer needs.
fn info<const WORDS: usize>(
    fd: BorrowedFd<'_>,
    request: c_ulong,
    mut head: [u32; WORDS],
) -> io::Result<Info> {
    let mut len = size_of_val(&head);
    for _ in 0..3 {
        head[0] = len as u32;
        let mut buffer = vec![0u64; len.div_ceil(8)];
        for (word, pair) in buffer.iter_mut().zip(head.chunks(2)) {
            *word = u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or(0)) << 32;
        }
        // SAFETY: `buffer` holds at least the `argsz` bytes that its first word announces, aligned to 8 as
        // the structures need, and the kernel writes no further.
        let result = unsafe { ioctl_with_mut_ptr(&fd, request, buffer.as_mut_ptr()) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let bytes: Vec<u8> = buffer.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let needed = field(&bytes, 0).map_or(0, u32::from_ne_bytes) as usize;
        if needed <= len {
            return Ok(Info { bytes });
        }
        len = needed.min(MAX_INFO_LEN);
    }
    Err(io::Error::other("the answer keeps growing"))
}

/// Resets the function by itself (`VFIO_DEVICE_RESET`).
pub(crate) fn device_reset(device: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the ioctl takes no argument.
    let result = unsafe { ioctl(&device, DEVICE_RESET) };
    check(result)
}

/// A function that is reset together with the one asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dependent {
    pub(crate) group: u32,
    pub(crate) segment: u16,
    pub(crate) bus: u8,
    pub(crate) devfn: u8,
}

/// Asks which functions a reset of the bus takes along: a header of `argsz, flags, count`, then 8 bytes each.
pub(crate) fn hot_reset_info(device: BorrowedFd<'_>) -> io::Result<Vec<Dependent>> {
    const HEADER_LEN: usize = 12;
    const ENTRY_LEN: usize = 8;
    // More than any tree of buses that was seen below one bridge; the kernel says ENOSPC beyond it.
    const MAX_FUNCTIONS: usize = 1024;
    let mut words = vec![0u32; (HEADER_LEN + ENTRY_LEN * MAX_FUNCTIONS) / 4];
    words[0] = size_of_val(&words[..]) as u32;
    // SAFETY: `words` holds the `argsz` bytes that its first word announces, and the kernel writes no further.
    let result = unsafe { ioctl_with_mut_ptr(&device, DEVICE_GET_PCI_HOT_RESET_INFO, words.as_mut_ptr()) };
    check(result)?;
    let count = words[2] as usize;
    let entry = |entry: &[u32]| {
        let [segment_low, segment_high, bus, devfn] = entry[1].to_ne_bytes();
        Dependent {
            group: entry[0],
            segment: u16::from_ne_bytes([segment_low, segment_high]),
            bus,
            devfn,
        }
    };
    Ok(words[3..].chunks_exact(2).take(count).map(entry).collect())
}

/// Resets the bus that the function is on; `groups` are the files of all groups that have functions on it.
pub(crate) fn hot_reset(device: BorrowedFd<'_>, groups: &[RawFd]) -> io::Result<()> {
    let argsz = (3 * size_of::<u32>() + size_of_val(groups)) as u32;
    let mut request = vec![argsz, 0, groups.len() as u32];
    request.extend(groups.iter().map(|fd| fd.cast_unsigned()));
    // SAFETY: `request` is a `vfio_pci_hot_reset` of `argsz` bytes; the kernel reads `count` descriptors.
    let result = unsafe { ioctl_with_ptr(&device, DEVICE_PCI_HOT_RESET, request.as_ptr()) };
    check(result)
}

/// Lets vectors `start..` of interrupt type `index` signal `events`; `None` leaves a vector silent.
///
/// `Ok(0)` is success. `Ok(n)` means that nothing was done, and the host would have given `n` vectors.
pub(crate) fn set_irq_events(
    device: BorrowedFd<'_>,
    index: u32,
    start: u16,
    events: &[Option<BorrowedFd<'_>>],
) -> io::Result<u32> {
    let flags = uapi::VFIO_IRQ_SET_DATA_EVENTFD | uapi::VFIO_IRQ_SET_ACTION_TRIGGER;
    let fd = |event: &Option<BorrowedFd<'_>>| event.map_or(-1, |event| event.as_raw_fd());
    set_irqs(
        device,
        flags,
        index,
        [u32::from(start), events.len() as u32],
        &events.iter().map(fd).collect::<Vec<RawFd>>(),
    )
}

/// Unbinds every vector of interrupt type `index` and disables the type.
pub(crate) fn disable_irqs(device: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let flags = uapi::VFIO_IRQ_SET_DATA_NONE | uapi::VFIO_IRQ_SET_ACTION_TRIGGER;
    set_irqs(device, flags, index, [0, 0], &[]).map(drop)
}

/// Lets the only vector of interrupt type `index` signal again after its signal masked it.
pub(crate) fn unmask_irq(device: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let flags = uapi::VFIO_IRQ_SET_DATA_NONE | uapi::VFIO_IRQ_SET_ACTION_UNMASK;
    set_irqs(device, flags, index, [0, 1], &[]).map(drop)
}

/// `range` is start and count; `fds` are `count` descriptors, or none where the flags say so.
fn set_irqs(
    device: BorrowedFd<'_>,
    flags: u32,
    index: u32,
    range: [u32; 2],
    fds: &[RawFd],
) -> io::Result<u32> {
    let argsz = (size_of::<uapi::vfio_irq_set>() + size_of_val(fds)) as u32;
    let [start, count] = range;
    let mut request = vec![argsz, flags, index, start, count];
    request.extend(fds.iter().map(|fd| fd.cast_unsigned()));
    // SAFETY: `request` is a `vfio_irq_set` with the descriptors behind it, `argsz` bytes in all; the kernel
    // checks `argsz` against `count` and reads no further.
    let result = unsafe { ioctl_with_ptr(&device, DEVICE_SET_IRQS, request.as_ptr()) };
    u32::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Maps process memory into a container's I/O address space.
///
/// This is safe towards the kernel, which checks and pins the pages. That devices may then write there at
/// any time is the promise of whoever hands out a `HostBacking`: no Rust reference points into it.
pub(crate) fn map_dma(container: BorrowedFd<'_>, request: &uapi::vfio_iommu_type1_dma_map) -> io::Result<()> {
    // SAFETY: the kernel reads one complete `vfio_iommu_type1_dma_map`.
    let result = unsafe { ioctl_with_ref(&container, IOMMU_MAP_DMA, request) };
    check(result)
}

/// Unmaps `len_bytes` from `iova`; returns how much really was unmapped.
pub(crate) fn unmap_dma(container: BorrowedFd<'_>, iova: u64, len_bytes: u64) -> io::Result<u64> {
    let argsz = size_of::<uapi::vfio_iommu_type1_dma_unmap>() as u32;
    let mut request = uapi::vfio_iommu_type1_dma_unmap {
        argsz,
        flags: 0,
        iova,
        size: len_bytes,
        ..Default::default()
    };
    // SAFETY: the kernel reads and writes one complete `vfio_iommu_type1_dma_unmap`; without flags it looks
    // at nothing behind it.
    let result = unsafe { ioctl_with_mut_ref(&container, IOMMU_UNMAP_DMA, &mut request) };
    check(result).map(|()| request.size)
}

/// Reads exactly `data` at `offset`.
pub(crate) fn read_at(fd: BorrowedFd<'_>, offset: u64, data: &mut [u8]) -> io::Result<()> {
    let offset = off_t::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `data.len()` bytes to `data`.
    let done = unsafe { libc::pread(fd.as_raw_fd(), data.as_mut_ptr().cast(), data.len(), offset) };
    check_len(done, data.len())
}

/// Writes exactly `data` at `offset`.
pub(crate) fn write_at(fd: BorrowedFd<'_>, offset: u64, data: &[u8]) -> io::Result<()> {
    let offset = off_t::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: the kernel reads at most `data.len()` bytes from `data`.
    let done = unsafe { libc::pwrite(fd.as_raw_fd(), data.as_ptr().cast(), data.len(), offset) };
    check_len(done, data.len())
}

/// Gives the calling thread a table of files of its own, with nothing in it, not even the standard ones: for a thread that
/// may outlive its process and owns no file yet. Where the kernel refuses, the thread goes on with the process's table.
pub(crate) fn leave_files() {
    // SAFETY: With CLOSE_RANGE_UNSHARE (since Linux 5.9) descriptors are closed in a copy of the table that is the thread's
    // alone, and none is where there can be no copy; by contract the thread owns none. No memory is passed.
    unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, libc::CLOSE_RANGE_UNSHARE) };
}

/// The descriptor of an object that outlives the borrow.
pub(crate) fn borrow(owner: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: `owner` keeps its descriptor open for as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}

/// A shared mapping of a file in this process, unmapped on drop. Nothing in Rust points into it.
#[derive(Debug)]
pub(crate) struct MappedRange {
    address: usize,
    len: usize,
}

impl MappedRange {
    /// Maps `len` bytes of `fd` from `offset`, readable and writable, at an address that is `phase` bytes
    /// beyond a multiple of `align`. All are multiples of the page size, `align` a power of two.
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        align: usize,
        phase: usize,
    ) -> io::Result<Self> {
        let offset = off_t::try_from(offset).map_err(io::Error::other)?;
        let room = len.checked_add(align).ok_or(io::ErrorKind::OutOfMemory)?;
        // The reservation is a mapping of its own, so that leaving early unmaps it.
        let mut reserved = Self {
            address: reserve(room)?,
            len: room,
        };
        let skip = (phase & (align - 1)).wrapping_sub(reserved.address) & (align - 1);
        let address = reserved.address + skip;
        reserved.trim_to(address, len);
        // SAFETY: replaces a range that `reserved` owns and nobody else knows of.
        let mapped = unsafe {
            libc::mmap(
                ptr::with_exposed_provenance_mut(address),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                fd.as_raw_fd(),
                offset,
            )
        };
        check_mapped(mapped)?;
        Ok(reserved)
    }

    pub(crate) fn address(&self) -> u64 {
        self.address as u64
    }

    pub(crate) fn len(&self) -> u64 {
        self.len as u64
    }

    /// Gives back all but `len` bytes from `address`, which lie inside.
    fn trim_to(&mut self, address: usize, len: usize) {
        let tail = address + len;
        unmap(tail, self.address + self.len - tail);
        unmap(self.address, address - self.address);
        (self.address, self.len) = (address, len);
    }
}

impl Drop for MappedRange {
    fn drop(&mut self) {
        unmap(self.address, self.len);
    }
}

/// Takes `len` bytes of address space that cannot be accessed.
fn reserve(len: usize) -> io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: an anonymous mapping at an address of the kernel's choice replaces nothing.
    let mapped = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
    check_mapped(mapped).map(|()| mapped.expose_provenance())
}

/// Unmaps a part of a [`MappedRange`], the only caller.
fn unmap(address: usize, len: usize) {
    if len == 0 {
        return;
    }
    // SAFETY: the range belongs to a `MappedRange` that gives it up; no reference points into it.
    let result = unsafe { libc::munmap(ptr::with_exposed_provenance_mut(address), len) };
    if let Err(error) = check(result) {
        log::warn!("{len:#x} bytes stay mapped at {address:#x}: {error}");
    }
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn check_mapped(mapped: *mut c_void) -> io::Result<()> {
    if mapped == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn check_len(done: isize, wanted: usize) -> io::Result<()> {
    match usize::try_from(done) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(done) if done < wanted => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    fn file(len: usize) -> File {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&vec![0x5a; len]).expect("room for a small file");
        file
    }

    #[test]
    fn a_mapping_stands_where_huge_pages_could() {
        let file = file(0x3000);
        let mapped = MappedRange::new(file.as_fd(), 0x1000, 0x2000, 1 << 21, 0x1000).expect("mmap");
        assert_eq!(mapped.address() % (1 << 21), 0x1000);
        assert_eq!(mapped.len(), 0x2000);
    }

    #[test]
    fn a_mapping_keeps_no_address_space_beyond_its_length() {
        let file = file(0x1000);
        let mapped = MappedRange::new(file.as_fd(), 0, 0x1000, 1 << 21, 0).expect("mmap");
        let (start, end) = (mapped.address(), mapped.address() + mapped.len());
        let maps = std::fs::read_to_string("/proc/self/maps").expect("procfs");
        assert!(
            maps.lines()
                .any(|line| line.starts_with(&format!("{start:x}-{end:x} rw-s"))),
            "{maps}"
        );
    }

    #[test]
    fn a_read_beyond_the_end_is_an_error() {
        let file = file(4);
        let mut data = [0; 4];
        read_at(file.as_fd(), 0, &mut data).expect("inside the file");
        assert_eq!(data, [0x5a; 4]);
        let error = read_at(file.as_fd(), 2, &mut data).expect_err("only two bytes are left");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_ioctl_on_a_plain_file_keeps_its_errno() {
        let file = file(4);
        let error = device_reset(file.as_fd()).expect_err("no device");
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
        let error = set_irq_events(file.as_fd(), 2, 0, &[None]).expect_err("no device");
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
    }

    #[test]
    fn a_capability_chain_with_a_loop_ends() {
        let mut bytes = vec![0u8; 64];
        bytes[32..40].copy_from_slice(&[9, 0, 1, 0, 32, 0, 0, 0]);
        let info = Info { bytes };
        assert!(info.capability(32, 1).is_none());
        assert!(info.capability(32, 9).is_some());
        assert!(info.capability(1 << 30, 9).is_none());
    }
}

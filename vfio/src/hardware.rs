//! The seam under [`Passthrough`](crate::pci::Passthrough): one physical function as its host driver shows
//! it. [`Device`](crate::Device) is the real one; tests put a function there that lies.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use strait_devices::region::HostBacking;
use vfio_bindings::bindings::vfio as uapi;

/// A part of a function that is read, written or mapped by offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HardwareRegion {
    /// Base address register 0 to 5.
    Bar(u8),
    /// The expansion ROM, read through the kernel.
    Rom,
    /// Configuration space, 256 or 4,096 bytes.
    Config,
}

impl HardwareRegion {
    /// All regions that Strait uses.
    pub const ALL: [Self; 8] = [
        Self::Bar(0),
        Self::Bar(1),
        Self::Bar(2),
        Self::Bar(3),
        Self::Bar(4),
        Self::Bar(5),
        Self::Rom,
        Self::Config,
    ];

    /// The index of the region in VFIO.
    pub(crate) fn index(self) -> u32 {
        match self {
            Self::Bar(bar) => uapi::VFIO_PCI_BAR0_REGION_INDEX + u32::from(bar),
            Self::Rom => uapi::VFIO_PCI_ROM_REGION_INDEX,
            Self::Config => uapi::VFIO_PCI_CONFIG_REGION_INDEX,
        }
    }
}

impl fmt::Display for HardwareRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bar(bar) => write!(f, "BAR {bar}"),
            Self::Rom => f.write_str("ROM"),
            Self::Config => f.write_str("config space"),
        }
    }
}

/// What the host says of a region. The default is a region that does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionInfo {
    /// Length in bytes, 0 if the function has no such region.
    pub len_bytes: u64,
    /// The host allows mmap, of all of it or of `sparse`.
    pub mappable: bool,
    /// The only areas that can be mapped, offset and length in bytes, as the driver listed them.
    pub sparse: Option<Vec<(u64, u64)>>,
}

/// A way in which a function raises interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InterruptKind {
    /// The wire, which has a level and is shared.
    Intx,
    /// One capability with up to 32 consecutive messages.
    Msi,
    /// A table of messages in a BAR.
    Msix,
}

impl InterruptKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Intx, Self::Msi, Self::Msix];

    /// The index of the interrupt type in VFIO.
    pub(crate) fn index(self) -> u32 {
        match self {
            Self::Intx => uapi::VFIO_PCI_INTX_IRQ_INDEX,
            Self::Msi => uapi::VFIO_PCI_MSI_IRQ_INDEX,
            Self::Msix => uapi::VFIO_PCI_MSIX_IRQ_INDEX,
        }
    }
}

impl fmt::Display for InterruptKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Intx => "INTx",
            Self::Msi => "MSI",
            Self::Msix => "MSI-X",
        })
    }
}

/// What the host says of an interrupt type. The default is one that does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterruptInfo {
    /// How many vectors there are at most.
    pub count: u32,
    /// Vectors beyond those of the first call can be added while others are live
    /// (no `VFIO_IRQ_INFO_NORESIZE`: MSI-X since Linux 6.5, where the interrupt controller allows it).
    pub resizable: bool,
}

/// One physical PCI function.
pub trait Hardware: Send + Sync {
    /// The host's BDF, for logs.
    fn name(&self) -> &str;

    /// Length and abilities of a region.
    fn region(&self, region: HardwareRegion) -> RegionInfo;

    /// Reads exactly `data` at `offset`.
    ///
    /// # Errors
    /// What the host's driver says; `data` may hold anything then.
    fn read(&self, region: HardwareRegion, offset: u64, data: &mut [u8]) -> io::Result<()>;

    /// Writes exactly `data` at `offset`.
    ///
    /// # Errors
    /// What the host's driver says.
    fn write(&self, region: HardwareRegion, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Maps page-aligned `len_bytes` of a region at `offset` into this process.
    ///
    /// # Errors
    /// What the host's driver says.
    fn map(&self, region: HardwareRegion, offset: u64, len_bytes: u64) -> io::Result<Arc<dyn HostBacking>>;

    /// Count and abilities of an interrupt type.
    fn interrupt(&self, kind: InterruptKind) -> InterruptInfo;

    /// Lets vectors `start..` signal `events`; `None` leaves a vector silent. The first call enables the
    /// type with `start + events.len()` vectors.
    ///
    /// `Ok(0)` is success; `Ok(n)` says that nothing was done since the host can give no more than `n`.
    ///
    /// # Errors
    /// What the host's driver says.
    fn set_interrupts(
        &self,
        kind: InterruptKind,
        start: u16,
        events: &[Option<BorrowedFd<'_>>],
    ) -> io::Result<u32>;

    /// Disables an interrupt type with all its vectors.
    ///
    /// # Errors
    /// What the host's driver says.
    fn disable_interrupts(&self, kind: InterruptKind) -> io::Result<()>;

    /// Lets the wire signal again. The host silences it with each signal, and signals at once if the
    /// function still asks for attention.
    ///
    /// # Errors
    /// What the host's driver says.
    fn unmask_intx(&self) -> io::Result<()>;

    /// Resets the function. The host restores its configuration space afterwards.
    ///
    /// # Errors
    /// `Unsupported` for a function that cannot be reset by itself, which was said before, else what the
    /// host's driver says.
    fn reset(&self) -> io::Result<()>;

    /// Takes the function into use: resets it unless it is fresh.
    ///
    /// # Errors
    /// As [`Hardware::reset`].
    fn prepare(&self) -> io::Result<()>;

    /// The function is out of use, and fresh if the last reset worked.
    fn retire(&self);
}

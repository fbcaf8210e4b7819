//! What a device can reach by DMA: addresses, rights, and the seam to the host's IOMMU.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bitflags::bitflags;

use crate::region::Effect;
use crate::region::HostAddress;

/// An address as a device puts it on the bus, before any IOMMU translates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Iova(pub u64);

impl Iova {
    /// The address `len_bytes` further on, or the last there is.
    pub fn saturating_add(self, len_bytes: u64) -> Self {
        Self(self.0.saturating_add(len_bytes))
    }

    /// Bytes from `start` to here; `start` is not behind.
    pub fn offset_from(self, start: Self) -> u64 {
        self.0 - start.0
    }

    /// The start of the aligned block of `len_bytes`, a power of two, that it lies in.
    pub fn align_down(self, len_bytes: u64) -> Self {
        Self(self.0 & !(len_bytes - 1))
    }
}

/// Bus, device and function in the low 16 bits of a request (PCIe §2.2.4.2): who issues it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequesterId(pub u16);

impl fmt::Display for RequesterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bus, devfn) = (self.0 >> 8, self.0 & 0xff);
        write!(f, "{bus:02x}:{:02x}.{}", devfn >> 3, devfn & 7)
    }
}

/// The bus number that a bridge has at this moment: a guest may renumber its buses.
#[derive(Debug, Default)]
pub struct LiveBus(AtomicU8);

impl LiveBus {
    /// The number that the bus has now.
    pub fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    /// Follows the bridge's register; true if it changed.
    pub fn set(&self, bus: u8) -> bool {
        self.0.swap(bus, Ordering::Relaxed) != bus
    }
}

/// A function that issues requests, wherever its bus is.
#[derive(Clone, Debug)]
pub struct Requester {
    /// The bus it is on.
    pub bus: Arc<LiveBus>,
    /// Device and function, as the byte of a routing id.
    pub devfn: u8,
}

impl Requester {
    /// What its requests carry now.
    pub fn id(&self) -> RequesterId {
        RequesterId(u16::from(self.bus.get()) << 8 | u16::from(self.devfn))
    }
}

/// Hears that a bridge gave its bus another number: what is behind it issues requests and interrupts under a new
/// id.
pub trait Renumbered: Send + Sync {
    /// [`LiveBus`] has the number already. What the functions may do is what the guest grants the new id, once
    /// the effect leaves nothing more to do.
    fn renumbered(&self) -> Effect;
}

/// Hears of a function's bus mastering before the hardware does.
pub trait BusMaster: Send + Sync {
    /// The function is about to be let issue DMA (`true`), or no longer does (`false`). True when what it may
    /// reach is mapped; false when that was a part of it, and the same is to be called again.
    #[must_use]
    fn set_bus_master(&self, on: bool) -> bool;

    /// Before [`set_bus_master`](Self::set_bus_master) is called again, with no lock held: waits for a few milliseconds where
    /// there is nothing to do but wait.
    fn wait_a_turn(&self) {}

    /// The function left the machine: it reaches nothing any more, whatever the guest says of it.
    fn leave(&self);
}

/// For a function whose memory is mapped as long as it is there.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysMapped;

impl BusMaster for AlwaysMapped {
    fn set_bus_master(&self, _on: bool) -> bool {
        true
    }

    fn leave(&self) {}
}

bitflags! {
    /// What a device may do with a mapping.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Access: u8 {
        /// The device may read.
        const READ = 1;
        /// The device may write.
        const WRITE = 2;
    }
}

/// Why a DMA mapping failed; the text says what and where, errno is in the source chain.
pub type DomainError = Box<dyn Error + Send + Sync>;

/// An I/O address space of the host that devices are attached to.
pub trait Domain: Send + Sync {
    /// Lets the devices of the domain reach `len_bytes` at `host` by DMA to `iova`. All page aligned; the
    /// range must not overlap another mapping. The caller keeps the memory alive until it is unmapped.
    fn map(&self, iova: Iova, host: HostAddress, len_bytes: u64, access: Access) -> Result<(), DomainError>;

    /// Takes back exactly one earlier `map` of the same start and length (type1v2 cannot split one).
    fn unmap(&self, iova: Iova, len_bytes: u64) -> Result<(), DomainError>;

    /// Takes back every mapping in the range at once; none may reach across its borders, and there may be
    /// gaps. When it fails, all of them count as still there.
    fn unmap_all(&self, iova: Iova, len_bytes: u64) -> Result<(), DomainError>;
}

//! A region: what a range of guest addresses does, as a device plus the pieces mapped straight through.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::device::{Device, Effect};

/// An address in the process that runs the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostAddress(pub u64);

/// Host memory that a guest may access directly: guest RAM, or the mmap of a BAR.
///
/// Whoever implements this promises that `len_bytes` bytes at `host_address` stay mapped in this process
/// for as long as the value lives, both page aligned; hypervisor and IOMMU mappings are built on it.
pub trait HostBacking: fmt::Debug + Send + Sync {
    /// Start of the mapping in this process.
    fn host_address(&self) -> HostAddress;

    /// Length in bytes, a multiple of the page size.
    fn len_bytes(&self) -> u64;
}

/// What kind of memory a region's mapped pieces are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Guest RAM. A mapping that fails is an error.
    Ram,
    /// Registers or memory of a device. A listener that cannot map them says what no longer works.
    Device,
}

/// A part of a region that needs no trap.
#[derive(Clone, Debug)]
pub struct MappedPiece {
    /// Bytes from the region's start, page aligned.
    pub offset: u64,
    /// What stands there.
    pub backing: Arc<dyn HostBacking>,
}

/// A range of guest addresses: its device answers every access that reaches us, its mapped pieces are
/// handed to the hypervisor so that accesses to them do not.
///
/// Field order is drop order: what is mapped goes before the device it belongs to.
pub struct Region {
    len_bytes: u64,
    kind: MemoryKind,
    /// Changes of its place that were decided on, and the last one that was applied.
    decided: AtomicU64,
    applied: AtomicU64,
    pieces: Vec<MappedPiece>,
    device: Arc<dyn Device>,
}

impl Region {
    /// The turn of a change after which there is no other.
    pub(crate) const LAST_TURN: u64 = u64::MAX;

    /// A region of `len_bytes` in which every access traps to `device`.
    pub fn trapped(device: Arc<dyn Device>, len_bytes: u64) -> Arc<Self> {
        Self::with_pieces(device, len_bytes, Vec::new())
    }

    /// A device region with directly mapped pieces; pieces that reach beyond `len_bytes` are left out.
    pub fn with_pieces(device: Arc<dyn Device>, len_bytes: u64, mut pieces: Vec<MappedPiece>) -> Arc<Self> {
        pieces.retain(|piece| {
            piece
                .offset
                .checked_add(piece.backing.len_bytes())
                .is_some_and(|end| end <= len_bytes)
        });
        Arc::new(Self {
            len_bytes,
            kind: MemoryKind::Device,
            decided: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            device,
            pieces,
        })
    }

    /// A block of guest RAM.
    pub fn ram(backing: Arc<dyn HostBacking>) -> Arc<Self> {
        let len_bytes = backing.len_bytes();
        let pieces = vec![MappedPiece { offset: 0, backing }];
        Arc::new(Self {
            len_bytes,
            kind: MemoryKind::Ram,
            decided: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            device: Arc::new(RamTrap),
            pieces,
        })
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// Length in bytes, at least 1.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// RAM or device memory.
    pub fn kind(&self) -> MemoryKind {
        self.kind
    }

    /// Who answers trapped accesses.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// The turn of the next change of its place.
    pub(crate) fn next_turn(&self) -> u64 {
        self.decided.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes note of a change that is about to be applied; false for one that a later one overtook. Called
    /// with the address space's layout locked.
    pub(crate) fn admits(&self, turn: u64) -> bool {
        self.applied.fetch_max(turn, Ordering::Relaxed) < turn
    }

    /// The pieces that need no trap, in the order they were given.
    pub fn pieces(&self) -> &[MappedPiece] {
        &self.pieces
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#x} bytes)", self.name(), self.len_bytes)
    }
}

/// Answers for RAM, whose accesses the hypervisor completes by itself. One that arrives here all the same
/// (an instruction KVM had to emulate while a memory slot was away) reads as ones.
struct RamTrap;

impl Device for RamTrap {
    fn name(&self) -> &str {
        "ram"
    }

    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&self, _offset: u64, _data: &[u8]) -> Effect {
        Effect::None
    }
}

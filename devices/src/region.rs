//! The one trait of everything that traps (an MMIO region, a port range, a BAR), what a write to it asks of the
//! world, and the region: a device with the pieces that are mapped straight through.
//!
//! They are one file, for they are one circle: a region has a device, whose writes have effects, which move
//! regions.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use crate::backing::{HostAddress, HostBacking, MappedPiece, MemoryKind};
use crate::place::Place;

/// A range of registers that answers guest accesses.
///
/// The address space guarantees that `offset + data.len()` lies inside the region. Any width from 1 byte
/// up can arrive: an unknown offset or width reads as all ones and its write is ignored. Neither method
/// may block for long or panic, whatever the guest does.
pub trait Device: Send + Sync {
    /// The name in logs and in the memory map.
    fn name(&self) -> &str;

    /// Fills `data` with what the registers at `offset` (bytes from the region's start) hold.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Writes `data` at `offset`; what must change outside the device comes back as a value.
    fn write(&self, offset: u64, data: &[u8]) -> Effect;
}

/// What a write asks of the world outside the device. Applied after the device's locks are dropped.
#[derive(Debug, Default)]
#[must_use]
pub enum Effect {
    /// Nothing beyond the device changed.
    #[default]
    None,
    /// Regions enter, leave or move in the guest's address spaces, in this order.
    Remap(Vec<Remap>),
    /// The same, and the write asks for more than a device does at a time: who wrote goes on with the rest, or
    /// leaves it when its CPU is to stop.
    More(Vec<Remap>, Arc<dyn Unfinished>),
    /// The guest let go of the device behind the root port with this number.
    Eject(u8),
    /// The guest asked for a system reset.
    Reset,
    /// The guest asked to be powered off.
    PowerOff,
    /// The guest reported that its kernel panicked.
    Panic,
}

/// Work of a write that is done part by part, each without a lock held before or after it.
pub trait Unfinished: Send + Sync {
    /// Does the next part; [`Effect::More`] if there is another. What nobody goes on with is done by whoever
    /// writes to the same device next, or forgotten when it is reset.
    fn go_on(&self) -> Effect;
}

impl fmt::Debug for dyn Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unfinished")
    }
}

/// One region that changes its place.
///
/// Changes are made under the lock of the function that owns the region and applied later, with no lock held:
/// those of two vCPUs may arrive in either order. Each has a turn, and one that a later one overtook is void,
/// so that the map ends where the function's registers say.
#[derive(Clone)]
pub struct Remap {
    /// The region; identity is the `Arc`.
    pub region: Arc<Region>,
    /// Where it was, `None` if it was nowhere.
    pub from: Option<Place>,
    /// Where it shall be, `None` for nowhere.
    pub to: Option<Place>,
    /// Its number among the changes of this region.
    pub(crate) turn: u64,
}

impl Remap {
    /// The next change of `region`. To be made under the lock that decides on its place.
    pub fn new(region: Arc<Region>, from: Option<Place>, to: Option<Place>) -> Self {
        let turn = region.next_turn();
        Self {
            region,
            from,
            to,
            turn,
        }
    }

    /// The last change of `region`, which leaves `from` and is refused from then on.
    pub fn last(region: Arc<Region>, from: Option<Place>) -> Self {
        let (to, turn) = (None, Region::LAST_TURN);
        Self {
            region,
            from,
            to,
            turn,
        }
    }
}

impl fmt::Debug for Remap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} -> {:?}", self.region.name(), self.from, self.to)
    }
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
    /// Accesses that its device answered.
    trapped: AtomicU64,
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
    pub fn with_pieces(device: Arc<dyn Device>, len_bytes: u64, pieces: Vec<MappedPiece>) -> Arc<Self> {
        Self::of_device(device, len_bytes, MemoryKind::Device, pieces)
    }

    /// The same with pieces that a guest reads without a trap, while its writes to them trap, too.
    pub fn with_images(device: Arc<dyn Device>, len_bytes: u64, pieces: Vec<MappedPiece>) -> Arc<Self> {
        Self::of_device(device, len_bytes, MemoryKind::Image, pieces)
    }

    fn of_device(
        device: Arc<dyn Device>,
        len_bytes: u64,
        kind: MemoryKind,
        mut pieces: Vec<MappedPiece>,
    ) -> Arc<Self> {
        pieces.retain(|piece| {
            piece
                .offset
                .checked_add(piece.backing.len_bytes())
                .is_some_and(|end| end <= len_bytes)
        });
        Arc::new(Self {
            len_bytes,
            kind,
            decided: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            trapped: AtomicU64::new(0),
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
            trapped: AtomicU64::new(0),
            device: Arc::new(RamTrap),
            pieces,
        })
    }

    /// Name of the device, for messages.
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// Length in bytes, at least 1.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// RAM, device memory, or images of registers.
    pub fn kind(&self) -> MemoryKind {
        self.kind
    }

    /// Who answers trapped accesses.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// A read of the guest's that left it, counted.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        self.trapped.fetch_add(1, Ordering::Relaxed);
        self.device.read(offset, data);
    }

    /// A write of the guest's that left it, counted.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Effect {
        self.trapped.fetch_add(1, Ordering::Relaxed);
        self.device.write(offset, data)
    }

    /// How many accesses trapped to its device so far.
    pub fn trapped_accesses(&self) -> u64 {
        self.trapped.load(Ordering::Relaxed)
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

//! The one trait of everything that traps: an MMIO region, a port range, a BAR.

use std::fmt;
use std::sync::Arc;

use vm_memory::GuestAddress;

use crate::region::Region;

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

/// An address in one of the two spaces a CPU can access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Guest physical memory.
    Memory(GuestAddress),
    /// The 64 KiB of I/O ports.
    Port(u16),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Memory(address) => write!(f, "{:#x}", address.0),
            Place::Port(port) => write!(f, "port {port:#x}"),
        }
    }
}

impl fmt::Debug for Remap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} -> {:?}", self.region.name(), self.from, self.to)
    }
}

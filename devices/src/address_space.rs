//! Where everything sits: guest physical memory and I/O ports, dispatch, and changes of the map.
//!
//! Lock order: `layout`, then `memory` or `ports`. Dispatch takes only the latter two, for the time of a
//! look-up; no lock is held while a device works. Listeners are called with `layout` held and must not
//! call back.

mod space;

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex};

use log::{info, trace, warn};
use vm_memory::GuestAddress;

use crate::chain::Chain;
use crate::lock::lock;
use crate::place::Place;
use crate::region::{Effect, Remap};
use crate::region::{HostBacking, MemoryKind, Region};
use crate::warning::FirstOnly;

use space::Space;

/// A piece of host memory at a place in guest physical memory.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// Where the guest sees it.
    pub at: GuestAddress,
    /// RAM, device memory, or an image of registers.
    pub kind: MemoryKind,
    /// The host memory that stands there.
    pub backing: Arc<dyn HostBacking>,
    /// Name of the region, for messages.
    pub name: Arc<str>,
}

/// Why a listener could not follow a change.
pub type MapError = Box<dyn Error + Send + Sync>;

/// Someone who mirrors the memory map: the hypervisor's memory slots, a device's DMA.
pub trait MapListener: Send + Sync {
    /// `mapping` is in the memory map from now on.
    fn map(&self, mapping: &Mapping) -> Result<(), MapError>;

    /// A mapping that `map` accepted goes away; it must be gone when this returns.
    fn unmap(&self, mapping: &Mapping);

    /// Whether it hears of [images](MemoryKind::Image), too: only CPUs read those.
    fn hears_of_images(&self) -> bool {
        false
    }
}

/// A region that cannot be placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Something else is there.
    #[error("{name} does not fit at {place}: {len_bytes:#x} bytes there are not free")]
    Occupied {
        /// The region that was to be added.
        name: String,
        /// Where it was to stand.
        place: Place,
        /// How long it is.
        len_bytes: u64,
    },
    /// A listener refused it.
    #[error("{name} cannot be mapped at {place}")]
    Listener {
        /// The region that was to be added.
        name: String,
        /// Where it was to stand.
        place: Place,
        /// What the listener said.
        source: MapError,
    },
}

/// The guest's two address spaces.
#[derive(Default)]
pub struct AddressSpace {
    layout: Mutex<Layout>,
    memory: Space,
    ports: Space,
}

/// What only changes of the map need.
#[derive(Default)]
struct Layout {
    listeners: Vec<Listener>,
    /// Regions that a guest placed over something else; each waits until the place is free.
    displaced: Vec<(Place, Arc<Region>)>,
    /// A listener refused a region that a guest placed, and that was said: a guest can repeat it.
    failed: FirstOnly,
}

struct Listener {
    listener: Arc<dyn MapListener>,
    /// Starts of the mappings it accepted.
    accepted: Vec<GuestAddress>,
}

impl AddressSpace {
    /// Both spaces without a region.
    pub fn new() -> Self {
        Self::default()
    }

    /// Places a region for good, or until [`remove`](Self::remove).
    ///
    /// # Errors
    /// When something is there already or a listener cannot map it; nothing changed then.
    pub fn add(&self, place: Place, region: Arc<Region>) -> Result<(), PlaceError> {
        let mut layout = self.lock_layout();
        if !self.claim(place, &region) {
            let (name, len_bytes) = (region.name().to_owned(), region.len_bytes());
            return Err(PlaceError::Occupied {
                name,
                place,
                len_bytes,
            });
        }
        layout.map(place, &region).inspect_err(|_| {
            layout.unmap(place, &region);
            self.release(place, &region);
        })
    }

    /// Takes a region away; one that is not there is no error.
    pub fn remove(&self, place: Place, region: &Arc<Region>) {
        let mut layout = self.lock_layout();
        self.take(&mut layout, place, region);
        self.place_displaced(&mut layout);
    }

    /// Takes away everything but RAM, wherever a guest may have moved it.
    pub fn remove_devices(&self) {
        let mut layout = self.lock_layout();
        layout.displaced.clear();
        for (start, region) in self.memory.all() {
            if region.kind() != MemoryKind::Ram {
                self.take(&mut layout, Place::Memory(GuestAddress(start)), &region);
            }
        }
        self.ports.clear();
    }

    /// Adds a listener, which hears at once of everything that is mapped.
    ///
    /// # Errors
    /// When the listener refuses RAM; it is not added then, and what it had accepted is unmapped again.
    pub fn add_listener(&self, listener: Arc<dyn MapListener>) -> Result<(), PlaceError> {
        let mut layout = self.lock_layout();
        let regions = self.memory.all();
        let mut listener = Listener {
            listener,
            accepted: Vec::new(),
        };
        for (start, region) in &regions {
            let place = Place::Memory(GuestAddress(*start));
            if let Err(error) = listener.map(place, region) {
                for (start, region) in &regions {
                    listener.unmap(GuestAddress(*start), region);
                }
                return Err(error);
            }
        }
        layout.listeners.push(listener);
        Ok(())
    }

    /// Takes away a listener, which hears first that all is gone; one that is not there is no error.
    pub fn remove_listener(&self, listener: &Arc<dyn MapListener>) {
        let mut layout = self.lock_layout();
        let is_it = |known: &mut Listener| Arc::ptr_eq(&known.listener, listener);
        let regions = self.memory.all();
        for mut listener in layout.listeners.extract_if(.., is_it) {
            for (start, region) in &regions {
                listener.unmap(GuestAddress(*start), region);
            }
        }
    }

    /// Reads guest physical memory; what nobody answers reads as all ones.
    pub fn read(&self, address: GuestAddress, data: &mut [u8]) {
        self.memory.read(address.0, data);
        trace!("{}", self.seen(Place::Memory(address), "read", data));
    }

    /// Writes guest physical memory. Changes of the map are applied; what is left for the machine to do
    /// (reset, power off) is returned.
    pub fn write(&self, address: GuestAddress, data: &[u8]) -> Effect {
        trace!("{}", self.seen(Place::Memory(address), "written", data));
        self.apply(self.memory.write(address.0, data))
    }

    /// Reads an I/O port.
    pub fn read_port(&self, port: u16, data: &mut [u8]) {
        self.ports.read(port.into(), data);
        trace!("{}", self.seen(Place::Port(port), "read", data));
    }

    /// Writes an I/O port, with the same effects as [`write`](Self::write).
    pub fn write_port(&self, port: u16, data: &[u8]) -> Effect {
        trace!("{}", self.seen(Place::Port(port), "written", data));
        self.apply(self.ports.write(port.into(), data))
    }

    /// Writes in either space.
    pub fn write_at(&self, place: Place, data: &[u8]) -> Effect {
        match place {
            Place::Memory(address) => self.write(address, data),
            Place::Port(port) => self.write_port(port, data),
        }
    }

    /// Applies changes of the map and hands back any other effect.
    pub fn apply(&self, effect: Effect) -> Effect {
        let (remaps, left) = match effect {
            Effect::Remap(remaps) => (remaps, Effect::None),
            Effect::More(remaps, rest) => (remaps, Effect::More(Vec::new(), rest)),
            effect => return effect,
        };
        if remaps.is_empty() {
            return left;
        }
        let mut layout = self.lock_layout();
        for remap in &remaps {
            self.remap(&mut layout, remap);
        }
        self.place_displaced(&mut layout);
        left
    }

    fn remap(&self, layout: &mut Layout, remap: &Remap) {
        let Remap { region, from, to, .. } = remap;
        if !region.admits(remap.turn) {
            return;
        }
        let was_there = from.is_some_and(|place| self.take(layout, place, region));
        if !was_there {
            self.take_anywhere(layout, region);
        }
        if let Some(place) = *to {
            layout.displaced.push((place, region.clone()));
        }
        info!("{}: {} -> {}", region.name(), Shown(*from), Shown(*to));
    }

    /// Removes a region from wherever `place` put it: the map, or the queue for a place. True if it was there.
    fn take(&self, layout: &mut Layout, place: Place, region: &Arc<Region>) -> bool {
        if let Some(at) = layout
            .displaced
            .iter()
            .position(|(p, r)| *p == place && Arc::ptr_eq(r, region))
        {
            layout.displaced.remove(at);
        } else if self.holds(place, region) {
            layout.unmap(place, region);
            self.release(place, region);
        } else {
            return false;
        }
        true
    }

    /// Removes a region from where no move says it is. Two CPUs may move one BAR at once, and what follows
    /// from their writes arrives here in any order: without this a region would stand in two places, one of
    /// them for ever.
    fn take_anywhere(&self, layout: &mut Layout, region: &Arc<Region>) {
        layout.displaced.retain(|(_, other)| !Arc::ptr_eq(other, region));
        for start in self.memory.places_of(region) {
            self.take(layout, Place::Memory(GuestAddress(start)), region);
        }
        for start in self.ports.places_of(region) {
            self.take(layout, Place::Port(start as u16), region);
        }
    }

    /// Places every waiting region that now fits. A guest may move BARs over each other while it
    /// rearranges them, and may point one at RAM, where it stays without effect.
    fn place_displaced(&self, layout: &mut Layout) {
        for (place, region) in std::mem::take(&mut layout.displaced) {
            if !self.claim(place, &region) {
                layout.displaced.push((place, region));
                continue;
            }
            let Err(error) = layout.map(place, &region) else {
                continue;
            };
            // Half a region that is mapped is worth nothing, and costs as much as all of it.
            layout.unmap(place, &region);
            if layout.failed.pass() {
                let error = Chain(&error);
                warn!("{error}; accesses to it trap; further failures are not reported");
            }
        }
    }

    fn claim(&self, place: Place, region: &Arc<Region>) -> bool {
        let (space, start) = self.space_of(place);
        let fits = match place {
            Place::Memory(_) => true,
            Place::Port(_) => start + region.len_bytes() <= 1 << 16,
        };
        fits && space.claim(start, region)
    }

    fn release(&self, place: Place, region: &Arc<Region>) {
        let (space, start) = self.space_of(place);
        space.release(start, region);
    }

    fn holds(&self, place: Place, region: &Arc<Region>) -> bool {
        let (space, start) = self.space_of(place);
        space.holds(start, region)
    }

    fn space_of(&self, place: Place) -> (&Space, u64) {
        match place {
            Place::Memory(at) => (&self.memory, at.0),
            Place::Port(port) => (&self.ports, port.into()),
        }
    }

    /// An access as the log tells it. Asked only when somebody wants to see each of them.
    fn seen<'a>(&self, place: Place, verb: &'static str, data: &'a [u8]) -> Access<'a> {
        let (space, address) = self.space_of(place);
        let who = space.at(address);
        Access {
            place,
            who,
            verb,
            data,
        }
    }

    fn lock_layout(&self) -> std::sync::MutexGuard<'_, Layout> {
        lock(&self.layout)
    }
}

/// Listeners outlive no mapping: what is left is unmapped when the space goes.
impl Drop for AddressSpace {
    fn drop(&mut self) {
        let mut layout = std::mem::take(&mut *self.lock_layout());
        for (start, region) in self.memory.all() {
            layout.unmap(Place::Memory(GuestAddress(start)), &region);
        }
    }
}

/// The memory map, a line a region.
impl fmt::Display for AddressSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (start, region) in self.memory.all() {
            let last = start + (region.len_bytes() - 1);
            let mapped: u64 = region
                .pieces()
                .iter()
                .map(|piece| piece.backing.len_bytes())
                .sum();
            writeln!(
                f,
                "{start:#018x}-{last:#018x} {}, {mapped:#x} bytes mapped",
                region.name()
            )?;
        }
        Ok(())
    }
}

impl Layout {
    fn map(&mut self, place: Place, region: &Arc<Region>) -> Result<(), PlaceError> {
        self.listeners
            .iter_mut()
            .try_for_each(|listener| listener.map(place, region))
    }

    fn unmap(&mut self, place: Place, region: &Arc<Region>) {
        let Place::Memory(at) = place else { return };
        for listener in &mut self.listeners {
            listener.unmap(at, region);
        }
    }
}

impl Listener {
    fn map(&mut self, place: Place, region: &Region) -> Result<(), PlaceError> {
        let Place::Memory(at) = place else { return Ok(()) };
        if region.kind() == MemoryKind::Image && !self.listener.hears_of_images() {
            return Ok(());
        }
        for mapping in mappings(at, region) {
            self.listener
                .map(&mapping)
                .map_err(|source| PlaceError::Listener {
                    name: region.name().to_owned(),
                    place,
                    source,
                })?;
            self.accepted.push(mapping.at);
        }
        Ok(())
    }

    fn unmap(&mut self, at: GuestAddress, region: &Region) {
        for mapping in mappings(at, region) {
            if let Some(index) = self.accepted.iter().position(|start| *start == mapping.at) {
                self.accepted.swap_remove(index);
                self.listener.unmap(&mapping);
            }
        }
    }
}

fn mappings(at: GuestAddress, region: &Region) -> impl Iterator<Item = Mapping> {
    let name: Arc<str> = region.name().into();
    region.pieces().iter().map(move |piece| Mapping {
        at: GuestAddress(at.0 + piece.offset),
        kind: region.kind(),
        backing: piece.backing.clone(),
        name: name.clone(),
    })
}

/// An access of the guest in a log line: `memory 0xe0008004, ECAM at 0x8004: written 0x0007`.
struct Access<'a> {
    place: Place,
    /// Who answers there, and from which offset on.
    who: Option<(Arc<Region>, u64)>,
    verb: &'static str,
    data: &'a [u8],
}

impl fmt::Display for Access<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, ", self.place)?;
        match &self.who {
            Some((region, offset)) => write!(f, "{} at {offset:#x}", region.name())?,
            None => f.write_str("nobody")?,
        }
        write!(f, ": {} 0x", self.verb)?;
        // Registers are little-endian; a number is read from its other end.
        self.data
            .iter()
            .rev()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A place in a log line.
struct Shown(Option<Place>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(place) => place.fmt(f),
            None => f.write_str("unmapped"),
        }
    }
}

#[cfg(test)]
mod tests;

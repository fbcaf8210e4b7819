//! The devices behind the unit, and what each of them may reach (§3.4.3, §6.5.3).

use std::ops::Range;
use std::sync::Arc;

use vm_memory::GuestAddress;

use super::DeviceStats;
use super::faults::{Fault, Reason};
use super::runs::{Guest, Wanted};
use super::shadow::{EVERYTHING, Shadow};
use super::translate::{self, Context, Lookup, is_interrupt};
use super::turn::Turn;
use super::unit::Unit;
use crate::address_space::Mapping;
use crate::dma::{Access, Domain, Iova, Requester, RequesterId};
use crate::region::MemoryKind;

/// What a device is let at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing: no bus master yet, or no context entry.
    Nothing,
    /// The guest's memory at the guest's addresses.
    Identity,
    /// What the guest maps in its domain of this number.
    Domain(u16),
}

/// A passed device: who it is, and its domain on the host.
pub(crate) struct Endpoint {
    requester: Requester,
    pub(crate) shadow: Shadow,
    /// The hardware may issue DMA. Without it no memory is pinned for untranslated requests.
    is_master: bool,
    wanted: Wanted,
    /// Whose context entry that is. It is another's when the guest gives the bus a new number.
    resolved_as: RequesterId,
    /// The guest's number of the domain, as of the last look at the context entry.
    domain_id: u16,
    /// Ranges to bring to what is wanted, the next one last.
    stale: Vec<Range<u64>>,
    /// It left the machine, and its domain with it.
    is_gone: bool,
}

impl Endpoint {
    pub(crate) fn new(requester: Requester, domain: Arc<dyn Domain>) -> Self {
        Self {
            resolved_as: requester.id(),
            requester,
            shadow: Shadow::new(domain),
            is_master: false,
            wanted: Wanted::Nothing,
            domain_id: 0,
            stale: Vec::new(),
            is_gone: false,
        }
    }

    pub(crate) fn stats(&self) -> DeviceStats {
        DeviceStats {
            requester: self.requester.id(),
            reach: match self.wanted {
                Wanted::Nothing => Reach::Nothing,
                Wanted::Identity => Reach::Identity,
                Wanted::Table(_) => Reach::Domain(self.domain_id),
            },
            shadow: self.shadow.stats(),
        }
    }

    /// All of it must be looked at; what is under way is overtaken.
    fn note_everything(&mut self) {
        self.shadow.abandon();
        self.stale.clear();
        self.stale.push(EVERYTHING);
    }

    /// What untranslated requests may reach. The map is made when it is first needed, and kept.
    fn identity(&self) -> Wanted {
        match self.is_master || self.wanted == Wanted::Identity {
            true => Wanted::Identity,
            false => Wanted::Nothing,
        }
    }
}

/// Whose context entries an invalidation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContextScope {
    Global,
    Domain(u16),
    /// The domain in such an invalidation does not count: Linux gives 0 for an entry that was not present.
    Device {
        source: u16,
        ignored: u16,
    },
}

impl ContextScope {
    /// `mask` 0 to 3 leaves out none, one, two or three low bits of the function number, from the top.
    pub(crate) fn device(source: u16, mask: u8) -> Self {
        let ignored = [0, 0b100, 0b110, 0b111][usize::from(mask & 3)];
        ContextScope::Device { source, ignored }
    }

    fn names(self, id: RequesterId, old_domain: u16, new_domain: u16) -> bool {
        match self {
            ContextScope::Global => true,
            ContextScope::Domain(domain) => domain == old_domain || domain == new_domain,
            ContextScope::Device { source, ignored } => (id.0 ^ source) & !ignored == 0,
        }
    }
}

impl Unit {
    /// The function is about to become bus master, or no longer is.
    pub(crate) fn set_bus_master(&mut self, index: usize, on: bool) {
        if let Some(endpoint) = self.endpoints.get_mut(index) {
            endpoint.is_master = on;
            self.resolve_one(index);
        }
    }

    /// The function left the machine.
    pub(crate) fn detach(&mut self, index: usize) {
        if let Some(endpoint) = self.endpoints.get_mut(index) {
            endpoint.is_master = false;
            endpoint.wanted = Wanted::Nothing;
            endpoint.is_gone = true;
            endpoint.note_everything();
        }
    }

    /// Devices have new ids: DMA and interrupts follow what the guest grants these.
    pub(crate) fn follow_requesters(&mut self) {
        self.resolve(&[]);
        self.retranslate_all();
    }

    /// Looks at the context entries that are named, and at those of devices that have a new id: who names one
    /// of these may mean the old.
    pub(crate) fn resolve(&mut self, scopes: &[ContextScope]) {
        for index in 0..self.endpoints.len() {
            let endpoint = &self.endpoints[index];
            let (id, domain) = (endpoint.requester.id(), endpoint.domain_id);
            if id != endpoint.resolved_as {
                self.resolve_one(index);
                continue;
            }
            if scopes.is_empty() {
                continue;
            }
            let now = self.look_up(id).map_or(0, |lookup| lookup.domain);
            if scopes.iter().any(|scope| scope.names(id, domain, now)) {
                self.resolve_one(index);
            }
        }
    }

    fn resolve_one(&mut self, index: usize) {
        let endpoint = &mut self.endpoints[index];
        let id = endpoint.requester.id();
        endpoint.resolved_as = id;
        if endpoint.is_gone {
            return;
        }
        let endpoint = &self.endpoints[index];
        let (wanted, domain_id) = match self.look_up(id) {
            None => (endpoint.identity(), 0),
            Some(lookup) => {
                let wanted = match lookup.context {
                    Ok(Context::PassThrough) => endpoint.identity(),
                    Ok(Context::Translate(table)) => Wanted::Table(table),
                    Err(_) => Wanted::Nothing,
                };
                (wanted, lookup.domain)
            }
        };
        let endpoint = &mut self.endpoints[index];
        endpoint.domain_id = domain_id;
        if endpoint.wanted != wanted {
            log::debug!("{id}: {:?} -> {wanted:?}", endpoint.wanted);
            endpoint.wanted = wanted;
            endpoint.note_everything();
        }
    }

    /// The context entry of a device; none while nothing is translated.
    fn look_up(&self, id: RequesterId) -> Option<Lookup> {
        let (capability, extended) = (self.registers.capability, self.registers.extended_capability);
        self.registers.status.translation().then(|| {
            let snoop = extended.snoop_control();
            translate::context(&*self.memory, self.root_frame, capability, snoop, id)
        })
    }

    /// Brings all devices to what is wanted. False when the turn is over before.
    pub(crate) fn sync_devices(&mut self, turn: &mut Turn) -> bool {
        (0..self.endpoints.len()).all(|index| self.sync_device(index, turn))
    }

    /// Brings one device to what is wanted.
    pub(crate) fn sync_device(&mut self, index: usize, turn: &mut Turn) -> bool {
        let guest = Guest {
            memory: &*self.memory,
            slots: &self.slots,
            peers: self.endpoints.len() > 1,
        };
        let Some(endpoint) = self.endpoints.get_mut(index) else {
            return true;
        };
        while endpoint.shadow.go_on(endpoint.wanted, &guest, turn) {
            match endpoint.stale.pop() {
                Some(range) => endpoint.shadow.begin(range, endpoint.wanted, &guest, turn),
                None => return true,
            }
        }
        false
    }

    /// Notes a range that the guest invalidates in a domain, or in all of them.
    pub(crate) fn invalidate(&mut self, domain: Option<u16>, range: &Range<u64>) {
        for index in 0..self.endpoints.len() {
            if domain.is_none_or(|domain| self.is_in(index, domain)) {
                self.endpoints[index].stale.push(range.clone());
            }
        }
    }

    /// Makes adjacent ranges one, and the lowest the next.
    pub(crate) fn order_invalidated(&mut self) {
        for endpoint in &mut self.endpoints {
            merge(&mut endpoint.stale);
        }
    }

    /// True for devices whose translations carry `domain`, or share a table with one whose do.
    fn is_in(&self, index: usize, domain: u16) -> bool {
        let wanted = self.endpoints[index].wanted;
        let carries = |other: &Endpoint| other.domain_id == domain && other.wanted == wanted;
        matches!(wanted, Wanted::Table(_)) && self.endpoints.iter().any(carries)
    }

    /// Memory appeared in the guest's map.
    pub(crate) fn add_slot(&mut self, mapping: &Mapping) {
        let (at, len) = (mapping.at, mapping.backing.len_bytes());
        self.slots
            .insert(at, len, mapping.backing.host_address(), mapping.kind);
        if mapping.kind == MemoryKind::Device && self.endpoints.len() < 2 {
            return;
        }
        for index in 0..self.endpoints.len() {
            match self.endpoints[index].wanted {
                Wanted::Nothing => {}
                Wanted::Identity => self.endpoints[index].stale.push(at.0..at.0.saturating_add(len)),
                Wanted::Table(_) => self.endpoints[index].note_everything(),
            }
        }
    }

    /// Memory goes: no device reaches it once all follow.
    pub(crate) fn remove_slot(&mut self, mapping: &Mapping) {
        self.slots.remove(mapping.at);
        let (host, len) = (mapping.backing.host_address(), mapping.backing.len_bytes());
        for endpoint in &mut self.endpoints {
            endpoint.stale.extend(endpoint.shadow.users_of(host, len));
        }
    }

    /// Nothing is translated and nobody is bus master.
    pub(crate) fn reset_endpoints(&mut self) {
        for endpoint in &mut self.endpoints {
            endpoint.is_master = false;
            endpoint.wanted = Wanted::Nothing;
            endpoint.note_everything();
        }
    }

    /// Where a request of an emulated device goes. A blocked one is recorded.
    pub(crate) fn translate(&mut self, id: RequesterId, iova: Iova, access: Access) -> Option<GuestAddress> {
        let lookup = match self.look_up(id) {
            Some(lookup) => lookup,
            None => return Some(GuestAddress(iova.0)),
        };
        let outcome = match lookup.context {
            Ok(Context::PassThrough) => Ok(iova.0),
            Ok(Context::Translate(table)) => table.lookup(&*self.memory, iova).and_then(|leaf| {
                let target = leaf.target + (iova.0 - leaf.iova);
                match (leaf.access.contains(access), is_interrupt(target)) {
                    (_, true) => Err(Reason::InterruptWindow),
                    (true, _) => Ok(target),
                    (false, _) => Err(Reason::Read),
                }
            }),
            Err(reason) => Err(reason),
        };
        outcome
            .map(GuestAddress)
            .map_err(|reason| self.report(lookup.silent, reason, id, iova, access))
            .ok()
    }

    fn report(&mut self, silent: bool, reason: Reason, source: RequesterId, iova: Iova, access: Access) {
        let is_write = access.contains(Access::WRITE);
        let reason = match reason {
            Reason::Read if is_write => Reason::Write,
            other => other,
        };
        self.record(Fault {
            reason,
            silent,
            source,
            info: iova.0 & !0xfff,
            is_read: !is_write,
        });
    }
}

/// Makes touching ranges one, and the lowest the last.
fn merge(ranges: &mut Vec<Range<u64>>) {
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|range, before| {
        let touches = range.start <= before.end;
        if touches {
            before.end = before.end.max(range.end);
        }
        touches
    });
    ranges.reverse();
}

//! The devices behind the unit, and what each of them may reach (§3.4.3, §6.5.3).

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use vm_memory::GuestAddress;

use super::faults::{Fault, Reason};
use super::runs::{Guest, Wanted};
use super::shadow::{EVERYTHING, Shadow};
use super::translate::{self, Context, Lookup, is_interrupt};
use super::unit::Unit;
use crate::address_space::Mapping;
use crate::dma::{Access, Domain, Iova, Requester, RequesterId};
use crate::region::MemoryKind;

/// A passed device: who it is, and its domain on the host.
pub(crate) struct Endpoint {
    requester: Requester,
    pub(crate) shadow: Shadow,
    /// The hardware may issue DMA. Without it no memory is pinned for untranslated requests.
    is_master: bool,
    wanted: Wanted,
    /// The guest's number of the domain, as of the last look at the context entry.
    domain_id: u16,
}

impl Endpoint {
    pub(crate) fn new(requester: Requester, domain: Arc<dyn Domain>) -> Self {
        Self {
            requester,
            shadow: Shadow::new(domain),
            is_master: false,
            wanted: Wanted::Nothing,
            domain_id: 0,
        }
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
            self.resolve_one(index, &mut BTreeSet::new());
        }
    }

    /// Brings every device to what the tables say.
    pub(crate) fn resolve_all(&mut self) {
        self.resolve(&[ContextScope::Global]);
    }

    /// Looks at the context entries that are named; tells which devices were brought up to date as a whole.
    pub(crate) fn resolve(&mut self, scopes: &[ContextScope]) -> BTreeSet<usize> {
        let mut synced = BTreeSet::new();
        if scopes.is_empty() {
            return synced;
        }
        for index in 0..self.endpoints.len() {
            let endpoint = &self.endpoints[index];
            let (id, domain) = (endpoint.requester.id(), endpoint.domain_id);
            let now = self.look_up(id).map_or(0, |lookup| lookup.domain);
            if scopes.iter().any(|scope| scope.names(id, domain, now)) {
                self.resolve_one(index, &mut synced);
            }
        }
        synced
    }

    fn resolve_one(&mut self, index: usize, synced: &mut BTreeSet<usize>) {
        let endpoint = &self.endpoints[index];
        let (wanted, domain_id) = match self.look_up(endpoint.requester.id()) {
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
            log::debug!("{}: {:?} -> {wanted:?}", endpoint.requester.id(), endpoint.wanted);
            endpoint.wanted = wanted;
            self.sync(index, EVERYTHING);
            synced.insert(index);
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

    /// Brings a range of one device to what is wanted.
    pub(crate) fn sync(&mut self, index: usize, range: Range<u64>) {
        let guest = Guest {
            memory: &*self.memory,
            slots: &self.slots,
            peers: self.endpoints.len() > 1,
        };
        let endpoint = &mut self.endpoints[index];
        endpoint.shadow.sync(range, endpoint.wanted, &guest);
    }

    /// Devices whose translations carry `domain`, or share a table with one that does.
    pub(crate) fn members_of(&self, domain: u16) -> BTreeSet<usize> {
        let is_table = |endpoint: &&Endpoint| matches!(endpoint.wanted, Wanted::Table(_));
        let named = |endpoint: &&Endpoint| endpoint.domain_id == domain;
        let tables: Vec<_> = self.endpoints.iter().filter(is_table).filter(named).collect();
        let shares = |endpoint: &Endpoint| tables.iter().any(|other| other.wanted == endpoint.wanted);
        let members = self.endpoints.iter().enumerate();
        members
            .filter(|(_, endpoint)| shares(endpoint))
            .map(|(index, _)| index)
            .collect()
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
                Wanted::Identity => self.sync(index, at.0..at.0.saturating_add(len)),
                Wanted::Table(_) => self.sync(index, EVERYTHING),
            }
        }
    }

    /// Memory goes: no device reaches it when this returns.
    pub(crate) fn remove_slot(&mut self, mapping: &Mapping) {
        self.slots.remove(mapping.at);
        let (host, len) = (mapping.backing.host_address(), mapping.backing.len_bytes());
        for index in 0..self.endpoints.len() {
            for range in self.endpoints[index].shadow.users_of(host, len) {
                self.sync(index, range);
            }
        }
    }

    /// Nothing is translated and nobody is bus master.
    pub(crate) fn reset_endpoints(&mut self) {
        for index in 0..self.endpoints.len() {
            self.endpoints[index].is_master = false;
            self.endpoints[index].wanted = Wanted::Nothing;
            self.sync(index, EVERYTHING);
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

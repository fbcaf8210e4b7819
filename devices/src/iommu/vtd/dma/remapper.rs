//! What each device may reach, and how it is brought there (§3.4.3, §6.5.3).

use std::ops::Range;
use std::sync::Arc;

use vm_memory::GuestAddress;

use super::context::{self, Context, Lookup};
use super::endpoint::{DeviceStats, Endpoint};
use super::runs::{Guest, Wanted};
use super::shadow::EVERYTHING;
use super::slots::Slots;
use super::table::is_interrupt;
use crate::address_space::Mapping;
use crate::dma::{Access, Domain, Iova, Requester, RequesterId};
use crate::iommu::vtd::capability::VtdConfig;
use crate::iommu::vtd::faults::{Fault, Reason};
use crate::iommu::vtd::memory::TableMemory;
use crate::iommu::vtd::request::{ContextScope, IotlbScope};
use crate::iommu::vtd::spec::registers::Capability;
use crate::iommu::vtd::spec::tables::PAGE;
use crate::iommu::vtd::turn::Turn;

/// The devices behind the unit, with the tables that are in force for them.
pub(in crate::iommu::vtd) struct DmaRemapper {
    memory: Arc<dyn TableMemory>,
    capability: Capability,
    /// Leaves may have the SNP bit.
    snoop: bool,
    slots: Slots,
    endpoints: Vec<Endpoint>,
    /// Devices that came since power-on.
    came: u64,
    /// The root table, latched by SRTP.
    root: Option<GuestAddress>,
    is_translating: bool,
}

impl DmaRemapper {
    /// A unit after power-on: nothing is translated, and nobody is bus master.
    pub(in crate::iommu::vtd) fn new(
        config: &VtdConfig,
        memory: Arc<dyn TableMemory>,
        devices: Vec<(Requester, Arc<dyn Domain>)>,
    ) -> Self {
        let endpoint = |(requester, domain)| Endpoint::new(requester, domain);
        Self {
            memory,
            capability: config.capability(),
            snoop: config.extended_capability().snoop_control(),
            slots: Slots::default(),
            endpoints: devices.into_iter().map(endpoint).collect(),
            came: 0,
            root: None,
            is_translating: false,
        }
    }

    /// Which of the devices that came has this index now; 0 for one that was there from the start.
    pub(in crate::iommu::vtd) fn who(&self, index: usize) -> u64 {
        self.endpoints[index].came
    }

    /// Whether leaves may have the SNP bit.
    pub(in crate::iommu::vtd) fn snoops(&self) -> bool {
        self.snoop
    }

    /// Numbers of each device.
    pub(in crate::iommu::vtd) fn stats(&self) -> Vec<DeviceStats> {
        self.endpoints.iter().map(Endpoint::stats).collect()
    }

    /// Has every sync of the first device read so few table entries.
    #[cfg(test)]
    pub(in crate::iommu::vtd) fn set_budget(&mut self, budget: u64) {
        self.endpoints[0].shadow.set_budget(budget);
    }

    /// SRTP: the root table is latched.
    pub(in crate::iommu::vtd) fn set_root_table(&mut self, root: GuestAddress) {
        self.root = Some(root);
    }

    /// Whether a root table is latched, for RTPS.
    pub(in crate::iommu::vtd) fn has_root_table(&self) -> bool {
        self.root.is_some()
    }

    /// Whether requests are translated, for TES.
    pub(in crate::iommu::vtd) fn is_translating(&self) -> bool {
        self.is_translating
    }

    /// TE, once devices follow.
    pub(in crate::iommu::vtd) fn set_translating(&mut self, on: bool) {
        self.is_translating = on;
    }

    /// Takes in a function that comes, which reaches nothing yet, and tells its index: that of one that left, where there
    /// is one, so that coming and going needs no more room each time.
    pub(in crate::iommu::vtd) fn attach(&mut self, requester: Requester, domain: Arc<dyn Domain>) -> usize {
        let mut endpoint = Endpoint::new(requester, domain);
        self.came += 1;
        endpoint.came = self.came;
        let index = match self.endpoints.iter().position(|endpoint| endpoint.is_gone) {
            Some(index) => {
                self.endpoints[index] = endpoint;
                index
            }
            None => {
                self.endpoints.push(endpoint);
                self.endpoints.len() - 1
            }
        };
        self.resolve_one(index);
        index
    }

    /// The function is about to become bus master, or no longer is.
    pub(in crate::iommu::vtd) fn set_bus_master(&mut self, index: usize, on: bool) {
        if let Some(endpoint) = self.endpoints.get_mut(index) {
            endpoint.is_master = on;
            self.resolve_one(index);
        }
    }

    /// The function left the machine.
    pub(in crate::iommu::vtd) fn detach(&mut self, index: usize) {
        if let Some(endpoint) = self.endpoints.get_mut(index) {
            endpoint.is_master = false;
            endpoint.wanted = Wanted::Nothing;
            endpoint.is_gone = true;
            endpoint.note_everything();
        }
    }

    /// Looks at the context entries that are named, and at those of devices that have a new id: who names one
    /// of these may mean the old.
    pub(in crate::iommu::vtd) fn resolve(&mut self, scopes: &[ContextScope]) {
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
        let root = self.root.filter(|_| self.is_translating)?;
        Some(context::context(
            &*self.memory,
            root,
            self.capability,
            self.snoop,
            id,
        ))
    }

    /// Brings all devices to what is wanted. False when the turn is over before.
    pub(in crate::iommu::vtd) fn sync(&mut self, turn: &mut Turn) -> bool {
        (0..self.endpoints.len()).all(|index| self.sync_device(index, turn))
    }

    /// Brings one device to what is wanted.
    pub(in crate::iommu::vtd) fn sync_device(&mut self, index: usize, turn: &mut Turn) -> bool {
        let guest = Guest {
            memory: &*self.memory,
            slots: &self.slots,
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

    /// Notes translations that the guest invalidates.
    pub(in crate::iommu::vtd) fn invalidate(&mut self, scope: &IotlbScope) {
        let (domain, range) = match scope {
            IotlbScope::Global => (None, &EVERYTHING),
            IotlbScope::Domain(domain) => (Some(*domain), &EVERYTHING),
            IotlbScope::Pages(domain, range) => (Some(*domain), range),
        };
        for index in 0..self.endpoints.len() {
            if domain.is_none_or(|domain| self.is_in(index, domain)) {
                self.endpoints[index].stale.push(range.clone());
            }
        }
    }

    /// Makes adjacent ranges one, and the lowest the next.
    pub(in crate::iommu::vtd) fn order_invalidated(&mut self) {
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
    pub(in crate::iommu::vtd) fn add_slot(&mut self, mapping: &Mapping) {
        let (at, len_bytes) = (mapping.at, mapping.backing.len_bytes());
        self.slots.insert(at, len_bytes, mapping.backing.host_address());
        let start = Iova(at.0);
        let range = start..start.saturating_add(len_bytes);
        for index in 0..self.endpoints.len() {
            match self.endpoints[index].wanted {
                Wanted::Nothing => {}
                Wanted::Identity => self.endpoints[index].stale.push(range.clone()),
                Wanted::Table(_) => self.endpoints[index].note_everything(),
            }
        }
    }

    /// Memory goes: no device reaches it once all follow.
    pub(in crate::iommu::vtd) fn remove_slot(&mut self, mapping: &Mapping) {
        self.slots.remove(mapping.at);
        let (host, len_bytes) = (mapping.backing.host_address(), mapping.backing.len_bytes());
        for endpoint in &mut self.endpoints {
            endpoint.stale.extend(endpoint.shadow.users_of(host, len_bytes));
        }
    }

    /// Nothing is translated and nobody is bus master.
    pub(in crate::iommu::vtd) fn reset(&mut self) {
        self.root = None;
        self.is_translating = false;
        for endpoint in &mut self.endpoints {
            endpoint.is_master = false;
            endpoint.wanted = Wanted::Nothing;
            endpoint.note_everything();
        }
    }

    /// Where a request of an emulated device goes.
    ///
    /// # Errors
    /// The fault of a blocked one, to be recorded.
    pub(in crate::iommu::vtd) fn translate(
        &self,
        id: RequesterId,
        iova: Iova,
        access: Access,
    ) -> Result<GuestAddress, Fault> {
        let Some(lookup) = self.look_up(id) else {
            return Ok(GuestAddress(iova.0));
        };
        let outcome = match lookup.context {
            Ok(Context::PassThrough) => Ok(GuestAddress(iova.0)),
            Ok(Context::Translate(table)) => table.lookup(&*self.memory, iova).and_then(|leaf| {
                let target = GuestAddress(leaf.target.0 + iova.offset_from(leaf.iova));
                match (leaf.access.contains(access), is_interrupt(target)) {
                    (_, true) => Err(Reason::InterruptWindow),
                    (true, _) => Ok(target),
                    (false, _) => Err(Reason::Read),
                }
            }),
            Err(reason) => Err(reason),
        };
        outcome.map_err(|reason| fault(lookup.silent, reason, id, iova, access))
    }
}

fn fault(silent: bool, reason: Reason, source: RequesterId, iova: Iova, access: Access) -> Fault {
    let is_write = access.contains(Access::WRITE);
    Fault {
        reason: match reason {
            Reason::Read if is_write => Reason::Write,
            other => other,
        },
        silent,
        source,
        info: iova.align_down(PAGE).0,
        is_read: !is_write,
    }
}

/// Makes touching ranges one, and the lowest the last.
fn merge(ranges: &mut Vec<Range<Iova>>) {
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

//! From the message a source sends to the one a CPU gets.

use std::sync::Arc;

use vm_memory::GuestAddress;

use crate::dma::{Requester, RequesterId};
use crate::iommu::vtd::capability::VtdConfig;
use crate::iommu::vtd::faults::{Fault, Reason};
use crate::iommu::vtd::memory::TableMemory;
use crate::iommu::vtd::spec::interrupt::{
    IRTE, IrteHigh, IrteLow, MessageAddress, MessageData, RequestAddress, RequestData, SOURCE_MASKS, WINDOW,
    validation,
};
use crate::iommu::vtd::spec::registers::RemapTableAddress;
use crate::iommu::vtd::spec::tables::PAGE;
use crate::irq::MsiMessage;

/// Who sends an interrupt.
#[derive(Clone, Debug)]
pub enum Source {
    /// The machine's own I/O APIC, which is trusted to be who it says.
    Ioapic(RequesterId),
    /// A function; its id is checked.
    Function(Requester),
}

impl Source {
    pub(super) fn id(&self) -> RequesterId {
        match self {
            Source::Ioapic(id) => *id,
            Source::Function(requester) => requester.id(),
        }
    }
}

/// The guest's table, and whether it is in use.
pub(super) struct RemapTable {
    memory: Arc<dyn TableMemory>,
    /// EIME means something (§11.4.9).
    extends: bool,
    /// The guest's table, latched by SIRTP.
    address: Option<RemapTableAddress>,
    /// Interrupts are remapped (IRES).
    pub(super) is_on: bool,
    /// Messages in the old format pass as they are (CFIS).
    pub(super) passes_compatibility: bool,
}

impl RemapTable {
    /// Off, and none latched.
    pub(super) fn new(config: &VtdConfig, memory: Arc<dyn TableMemory>) -> Self {
        Self {
            memory,
            extends: config.extended_interrupts,
            address: None,
            is_on: false,
            passes_compatibility: false,
        }
    }

    /// Off, and no table is latched.
    pub(super) fn reset(&mut self) {
        self.address = None;
        self.is_on = false;
        self.passes_compatibility = false;
    }

    /// Latches a table. EIME means nothing where EIM is not offered.
    pub(super) fn latch(&mut self, address: RemapTableAddress) {
        let extended = address.extended() && self.extends;
        self.address = Some(address.with_extended(extended));
    }

    /// IRTPS: a table is latched.
    pub(super) fn is_latched(&self) -> bool {
        self.address.is_some()
    }

    /// The message a CPU gets for the one a source sends (§5.1.5.2).
    ///
    /// # Errors
    /// The fault of one that is blocked, to be recorded when it is sent.
    pub(super) fn remap(&self, source: &Source, message: MsiMessage) -> Result<MsiMessage, Fault> {
        if !self.is_on {
            return Ok(message);
        }
        let table = self.address.unwrap_or_default();
        let fault = |silent, reason, index: u32| Fault {
            reason,
            silent,
            source: source.id(),
            info: u64::from(index) << 48,
            is_read: false,
        };
        let index = match index(message) {
            Ok(index) => index,
            Err(Reason::CompatibilityBlocked) if self.passes_compatibility && !table.extended() => {
                return Ok(message);
            }
            Err(reason) => return Err(fault(false, reason, 0)),
        };
        if index >= 2 << table.size() {
            return Err(fault(false, Reason::IndexTooLarge, index));
        }
        let at = (table.frame() * PAGE).saturating_add(u64::from(index) * IRTE);
        let quad = |at| self.memory.load(GuestAddress(at));
        let (Some(low), Some(high)) = (quad(at), quad(at.saturating_add(8))) else {
            return Err(fault(false, Reason::IrteUnreadable, index));
        };
        let (low, high) = (IrteLow::from_bits(low), IrteHigh::from_bits(high));
        check(low, high, source).map_err(|reason| fault(low.silent(), reason, index))?;
        Ok(output(low, table.extended()))
    }
}

/// The table index that a message names.
pub(super) fn index(message: MsiMessage) -> Result<u32, Reason> {
    let address = u32::try_from(message.address).map_err(|_| Reason::RequestReserved)?;
    let (address, data) = (
        RequestAddress::from_bits(address),
        RequestData::from_bits(message.data),
    );
    if address.window() != WINDOW {
        return Err(Reason::RequestReserved);
    }
    if !address.remappable() {
        return Err(Reason::CompatibilityBlocked);
    }
    let handle = u32::from(address.handle()) | u32::from(address.handle_15()) << 15;
    match (address.has_subhandle(), data.reserved()) {
        (false, _) => Ok(handle),
        (true, 0) => Ok(handle + u32::from(data.subhandle())),
        (true, _) => Err(Reason::RequestReserved),
    }
}

fn check(low: IrteLow, high: IrteHigh, source: &Source) -> Result<(), Reason> {
    if !low.present() {
        return Err(Reason::IrteNotPresent);
    }
    // Posted interrupts are not offered.
    let reserved = low.reserved() != 0 || low.reserved_high() != 0 || high.reserved() != 0;
    if reserved || low.posted() {
        return Err(Reason::IrteReserved);
    }
    let Source::Function(requester) = source else {
        return Ok(());
    };
    let (id, entry) = (requester.id().0, high.source());
    let [first, last] = entry.to_be_bytes();
    let is_valid = match high.validation() {
        validation::NONE => true,
        validation::SOURCE => (id ^ entry) & SOURCE_MASKS[usize::from(high.qualifier())] == 0,
        validation::BUS => (first..=last).contains(&(id >> 8).to_le_bytes()[0]),
        _ => return Err(Reason::IrteReserved),
    };
    is_valid.then_some(()).ok_or(Reason::SourceInvalid)
}

fn output(entry: IrteLow, extended: bool) -> MsiMessage {
    let destination = match extended {
        true => entry.destination(),
        false => entry.destination() >> 8 & 0xff,
    };
    let [low, ..] = destination.to_le_bytes();
    let address = MessageAddress::new()
        .with_logical(entry.logical())
        .with_redirection_hint(entry.redirection_hint())
        .with_destination(low)
        .with_window(WINDOW);
    let data = MessageData::new()
        .with_vector(entry.vector())
        .with_delivery_mode(entry.delivery_mode())
        .with_assert(true)
        .with_level(entry.level());
    // KVM and x2APIC hosts take the upper bits of the APIC id from the upper address.
    let upper = u64::from(destination - u32::from(low)) << 32;
    MsiMessage {
        address: upper | u64::from(address.into_bits()),
        data: data.into_bits(),
    }
}

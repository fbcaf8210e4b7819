//! Fault recording and the events that tell of it (§7).

use super::spec::registers::{
    EVENT_ADDRESS, EVENT_DATA, EventControl, FAULT_RECORDS, FaultRecord, FaultStatus,
};
use crate::dma::RequesterId;
use crate::irq::MsiMessage;

/// Why a request was blocked; the value is the reason code (§7.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reason {
    RootNotPresent = 0x1,
    ContextNotPresent = 0x2,
    ContextInvalid = 0x3,
    BeyondWidth = 0x4,
    Write = 0x5,
    Read = 0x6,
    PagingUnreadable = 0x7,
    RootUnreadable = 0x8,
    ContextUnreadable = 0x9,
    RootReserved = 0xa,
    ContextReserved = 0xb,
    PagingReserved = 0xc,
    InterruptWindow = 0xe,
    RequestReserved = 0x20,
    IndexTooLarge = 0x21,
    IrteNotPresent = 0x22,
    IrteUnreadable = 0x23,
    IrteReserved = 0x24,
    CompatibilityBlocked = 0x25,
    SourceInvalid = 0x26,
}

impl Reason {
    /// True for faults that the entry's FPD bit silences: those found after the entry was read.
    fn is_qualified(self) -> bool {
        use Reason::*;
        !matches!(
            self,
            RootNotPresent
                | RootUnreadable
                | ContextUnreadable
                | RootReserved
                | ContextReserved
                | RequestReserved
                | IndexTooLarge
                | IrteUnreadable
                | CompatibilityBlocked
        )
    }
}

/// A request that was blocked, as it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: Reason,
    /// FPD of the entry that says so.
    pub(crate) silent: bool,
    pub(crate) source: RequesterId,
    /// A device address, or an interrupt index in bits 63:48 (§7.2).
    pub(crate) info: u64,
    pub(crate) is_read: bool,
}

/// The four registers of one event (§11.4.7.2 to .5). Events are not remapped.
#[derive(Clone, Copy)]
pub(crate) struct EventRegisters {
    control: EventControl,
    data: u32,
    address: u32,
    upper: u32,
}

impl EventRegisters {
    /// Masked, else a guest that never programs the address would get an MSI to nowhere.
    pub(crate) const RESET: Self = Self {
        control: EventControl::new().with_masked(true),
        data: 0,
        address: 0,
        upper: 0,
    };

    /// Control, and data in the upper half.
    pub(crate) fn control_quad(&self) -> u64 {
        u64::from(self.control.into_bits()) | u64::from(self.data) << 32
    }

    /// Address, and upper address.
    pub(crate) fn address_quad(&self) -> u64 {
        u64::from(self.address) | u64::from(self.upper) << 32
    }

    pub(crate) fn set_data(&mut self, data: u32) {
        self.data = data & EVENT_DATA;
    }

    pub(crate) fn set_address(&mut self, quad: u64) {
        self.address = quad as u32 & EVENT_ADDRESS;
        self.upper = (quad >> 32) as u32;
    }

    /// Follows IM; a pending event is sent when it is unmasked.
    #[must_use]
    pub(crate) fn set_control(&mut self, written: u32) -> Option<MsiMessage> {
        self.control.set_masked(EventControl::from_bits(written).masked());
        self.deliver()
    }

    /// Something happened: send now, or when unmasked.
    #[must_use]
    pub(crate) fn raise(&mut self) -> Option<MsiMessage> {
        self.control.set_pending(true);
        self.deliver()
    }

    /// The condition was serviced before it was told of.
    pub(crate) fn clear(&mut self) {
        self.control.set_pending(false);
    }

    fn deliver(&mut self) -> Option<MsiMessage> {
        if !self.control.pending() || self.control.masked() {
            return None;
        }
        self.control.set_pending(false);
        Some(MsiMessage {
            address: self.address_quad(),
            data: self.data,
        })
    }
}

/// Fault status, records and event.
pub(crate) struct FaultLog {
    overflow: bool,
    queue_error: bool,
    records: [(u64, FaultRecord); FAULT_RECORDS],
    next: usize,
    first: usize,
    pub(crate) event: EventRegisters,
}

impl FaultLog {
    pub(crate) fn new() -> Self {
        Self {
            overflow: false,
            queue_error: false,
            records: [(0, FaultRecord::new()); FAULT_RECORDS],
            next: 0,
            first: 0,
            event: EventRegisters::RESET,
        }
    }

    /// What the fault status register shows (FSTS).
    pub(crate) fn status(&self) -> FaultStatus {
        FaultStatus::new()
            .with_overflow(self.overflow)
            .with_pending(self.is_pending())
            .with_queue_error(self.queue_error)
            .with_first(self.first as u8)
    }

    pub(crate) fn has_queue_error(&self) -> bool {
        self.queue_error
    }

    /// A record's quadword, `index` counting quadwords.
    pub(crate) fn record_quad(&self, index: usize) -> u64 {
        match self.records.get(index / 2) {
            Some((low, _)) if index.is_multiple_of(2) => *low,
            Some((_, high)) => high.into_bits(),
            None => 0,
        }
    }

    /// Records a fault. A full log sets the overflow bit and drops what comes; several faults of one source
    /// that is already in the log are one.
    #[must_use]
    pub(crate) fn record(&mut self, fault: Fault) -> Option<MsiMessage> {
        let silenced = fault.silent && fault.reason.is_qualified();
        if silenced || self.overflow || self.has_record_of(fault) {
            return None;
        }
        let was_active = self.is_active();
        let next = self.next;
        if self.records[next].1.fault() {
            self.overflow = true;
        } else {
            if !self.is_pending() {
                self.first = next;
            }
            let record = FaultRecord::new()
                .with_source(fault.source.0)
                .with_reason(fault.reason as u8)
                .with_read(fault.is_read)
                .with_fault(true);
            self.records[next] = (fault.info, record);
            self.next = (next + 1) % FAULT_RECORDS;
        }
        (!was_active).then(|| self.event.raise()).flatten()
    }

    /// The invalidation queue stopped.
    #[must_use]
    pub(crate) fn set_queue_error(&mut self) -> Option<MsiMessage> {
        let was_active = self.is_active();
        self.queue_error = true;
        (!was_active).then(|| self.event.raise()).flatten()
    }

    /// FSTS: a written 1 clears PFO and IQE; PPF follows the records.
    pub(crate) fn clear_status(&mut self, written: u32) {
        let written = FaultStatus::from_bits(written);
        self.overflow &= !written.overflow();
        self.queue_error &= !written.queue_error();
        self.settle();
    }

    /// FRCD: a written 1 clears F.
    pub(crate) fn clear_record(&mut self, quad: usize, written: u64) {
        if let Some((_, record)) = self.records.get_mut(quad / 2)
            && FaultRecord::from_bits(written).fault()
            && !quad.is_multiple_of(2)
        {
            record.set_fault(false);
            self.settle();
        }
    }

    /// Recording starts with the first record again when translation is turned off.
    pub(crate) fn rewind(&mut self) {
        if !self.is_pending() {
            (self.next, self.first) = (0, 0);
        }
    }

    fn settle(&mut self) {
        if !self.is_active() {
            self.event.clear();
        }
    }

    fn has_record_of(&self, fault: Fault) -> bool {
        let same = |record: &FaultRecord| record.fault() && record.source() == fault.source.0;
        self.records.iter().any(|(_, record)| same(record))
    }

    fn is_pending(&self) -> bool {
        self.records.iter().any(|(_, record)| record.fault())
    }

    fn is_active(&self) -> bool {
        self.overflow || self.queue_error || self.is_pending()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(source: u16, reason: Reason) -> Fault {
        Fault {
            reason,
            silent: false,
            source: RequesterId(source),
            info: 0x1234_5000,
            is_read: true,
        }
    }

    fn unmasked() -> FaultLog {
        let mut log = FaultLog::new();
        log.event.set_address(0x1_0000_0000 | 0xfee0_1000);
        log.event.set_data(0x41);
        assert_eq!(log.event.set_control(0), None);
        log
    }

    #[test]
    fn the_first_fault_raises_one_event_with_the_upper_address() {
        let mut log = unmasked();
        let message = log.record(fault(1, Reason::Read)).expect("an event");
        assert_eq!((message.address, message.data), (0x1_fee0_1000, 0x41));
        assert_eq!(
            log.record(fault(2, Reason::Write)),
            None,
            "the first is not serviced yet"
        );
    }

    #[test]
    fn a_masked_event_is_sent_once_when_unmasked() {
        let mut log = FaultLog::new();
        assert_eq!(log.record(fault(1, Reason::Read)), None);
        assert!(log.event.set_control(0).is_some());
        assert_eq!(log.event.set_control(0), None);
    }

    #[test]
    fn an_event_serviced_while_masked_is_not_sent() {
        let mut log = FaultLog::new();
        let _masked = log.record(fault(1, Reason::Read));
        log.clear_record(1, 1 << 63);
        assert_eq!(log.event.set_control(0), None);
    }

    #[test]
    fn the_ninth_source_overflows_and_overwrites_nothing() {
        let mut log = unmasked();
        for source in 0..9 {
            let _event = log.record(fault(source, Reason::Read));
        }
        assert!(log.status().overflow());
        assert_eq!(log.record_quad(1) & 0xffff, 0);
        log.clear_record(1, 1 << 63);
        let _dropped = log.record(fault(20, Reason::Read));
        assert_eq!(
            log.record_quad(1) >> 63,
            0,
            "nothing is recorded until PFO is cleared"
        );
    }

    #[test]
    fn faults_of_one_source_collapse() {
        let mut log = unmasked();
        let _event = log.record(fault(7, Reason::Read));
        let _collapsed = log.record(fault(7, Reason::Write));
        assert_eq!(log.record_quad(3), 0);
    }

    #[test]
    fn silent_entries_silence_only_what_is_qualified() {
        let mut log = unmasked();
        let silent = |reason| Fault {
            silent: true,
            ..fault(1, reason)
        };
        assert_eq!(log.record(silent(Reason::Read)), None);
        assert!(log.record(silent(Reason::RootNotPresent)).is_some());
    }

    /// As `dmar_fault` in drivers/iommu/intel/dmar.c reads it.
    #[test]
    fn the_linux_loop_empties_the_log() {
        let mut log = unmasked();
        for source in 0..3 {
            let _event = log.record(fault(source, Reason::Write));
        }
        let mut index = usize::from(log.status().first());
        let mut seen = Vec::new();
        while log.record_quad(2 * index + 1) >> 63 == 1 {
            seen.push(log.record_quad(2 * index + 1) as u16);
            log.clear_record(2 * index + 1, 1 << 63);
            index = (index + 1) % FAULT_RECORDS;
        }
        log.clear_status(0x83);
        assert_eq!(seen, [0, 1, 2]);
        assert_eq!(log.status().into_bits() & 0xff, 0);
        assert!(log.record(fault(9, Reason::Read)).is_some(), "a new event");
        assert_eq!(log.status().first(), 3);
    }
}

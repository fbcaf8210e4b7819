//! The register page: what is stored, what a write changes, and which command it gives.

use super::capability::VtdConfig;
use super::faults::{EventRegisters, FaultLog};
use super::spec::registers::{
    Capability, ContextCommand, ExtendedCapability, FAULT_RECORDS, Global, InvalidateAddress, IotlbCommand,
    QUEUE_OFFSET, QUEUE_WRITABLE, QueueAddress, REMAP_TABLE_WRITABLE, ROOT_TABLE_WRITABLE, RemapTableAddress,
    RootTableAddress, VERSION_1_0, WAIT_COMPLETE, offset,
};
use crate::irq::MsiMessage;

const LOW: u64 = 0xffff_ffff;
const HIGH: u64 = !LOW;

/// Registers are quadwords here; a doubleword access is a quadword access to one half.
pub(super) struct RegisterFile {
    pub(super) capability: Capability,
    pub(super) extended_capability: ExtendedCapability,
    /// GSTS: what is in force, once everything follows from it.
    pub(super) status: Global,
    pub(super) root_table: RootTableAddress,
    pub(super) context_command: ContextCommand,
    pub(super) faults: FaultLog,
    pub(super) queue_head: u64,
    pub(super) queue_tail: u64,
    pub(super) queue_address: QueueAddress,
    completed: bool,
    completion: EventRegisters,
    pub(super) remap_table: RemapTableAddress,
    pub(super) invalidate_address: InvalidateAddress,
    pub(super) iotlb_command: IotlbCommand,
}

/// What a write asks the unit to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// GCMD was written with this.
    Global(Global),
    /// CCMD was written with ICC set.
    Context,
    /// The IOTLB register was written with IVT set.
    Iotlb,
    /// IQT was written, or IQE cleared: the queue may run.
    Queue,
    /// An event that waited for its mask.
    Send(MsiMessage),
}

impl RegisterFile {
    pub(super) fn new(config: &VtdConfig) -> Self {
        Self {
            capability: config.capability(),
            extended_capability: config.extended_capability(),
            status: Global::new(),
            root_table: RootTableAddress::new(),
            context_command: ContextCommand::new(),
            faults: FaultLog::new(),
            queue_head: 0,
            queue_tail: 0,
            queue_address: QueueAddress::new(),
            completed: false,
            completion: EventRegisters::RESET,
            remap_table: RemapTableAddress::new(),
            invalidate_address: InvalidateAddress::new(),
            iotlb_command: IotlbCommand::new(),
        }
    }

    /// Aligned 4 and 8 bytes; what does not exist reads as zero, as does any other shape.
    pub(super) fn read(&self, at: u64, data: &mut [u8]) {
        data.fill(0);
        match data.len() {
            8 if at.is_multiple_of(8) => data.copy_from_slice(&self.quad(at).to_le_bytes()),
            4 if at.is_multiple_of(8) => data.copy_from_slice(&(self.quad(at) as u32).to_le_bytes()),
            4 if at.is_multiple_of(4) => {
                data.copy_from_slice(&((self.quad(at - 4) >> 32) as u32).to_le_bytes());
            }
            _ => {}
        }
    }

    /// Aligned 4 and 8 bytes; anything else is ignored.
    pub(super) fn write(&mut self, at: u64, data: &[u8]) -> Option<Command> {
        match *data {
            [a, b, c, d, e, f, g, h] if at.is_multiple_of(8) => {
                self.write_quad(at, u64::from_le_bytes([a, b, c, d, e, f, g, h]), LOW | HIGH)
            }
            [a, b, c, d] if at.is_multiple_of(8) => {
                self.write_quad(at, u32::from_le_bytes([a, b, c, d]).into(), LOW)
            }
            [a, b, c, d] if at.is_multiple_of(4) => {
                self.write_quad(at - 4, u64::from(u32::from_le_bytes([a, b, c, d])) << 32, HIGH)
            }
            _ => None,
        }
    }

    /// A wait descriptor asked for an interrupt. ICS tells when one is not serviced yet.
    #[must_use]
    pub(super) fn complete(&mut self) -> Option<MsiMessage> {
        let was_complete = std::mem::replace(&mut self.completed, true);
        (!was_complete).then(|| self.completion.raise()).flatten()
    }

    fn quad(&self, at: u64) -> u64 {
        let high = |value: u32| u64::from(value) << 32;
        match at {
            offset::VERSION => VERSION_1_0.into(),
            offset::CAPABILITY => self.capability.into_bits(),
            offset::EXTENDED_CAPABILITY => self.extended_capability.into_bits(),
            // GCMD, the low half, reads as zero.
            offset::GLOBAL_COMMAND => high(self.status.into_bits()),
            offset::ROOT_TABLE_ADDRESS => self.root_table.into_bits(),
            offset::CONTEXT_COMMAND => self.context_command.into_bits(),
            offset::FAULT_STATUS => high(self.faults.status().into_bits()),
            offset::FAULT_EVENT_CONTROL => self.faults.event.control_quad(),
            offset::FAULT_EVENT_ADDRESS => self.faults.event.address_quad(),
            offset::QUEUE_HEAD => self.queue_head,
            offset::QUEUE_TAIL => self.queue_tail,
            offset::QUEUE_ADDRESS => self.queue_address.into_bits(),
            offset::COMPLETION_STATUS => high(u32::from(self.completed) * WAIT_COMPLETE),
            offset::COMPLETION_EVENT_CONTROL => self.completion.control_quad(),
            offset::COMPLETION_EVENT_ADDRESS => self.completion.address_quad(),
            offset::REMAP_TABLE_ADDRESS => self.remap_table.into_bits(),
            offset::INVALIDATE_ADDRESS => self.invalidate_address.into_bits(),
            offset::IOTLB => self.iotlb_command.into_bits(),
            _ => record_index(at).map_or(0, |index| self.faults.record_quad(index)),
        }
    }

    /// Writes the bits of `value` that are 1 in `mask`, one or both halves.
    fn write_quad(&mut self, at: u64, value: u64, mask: u64) -> Option<Command> {
        let merged = self.quad(at) & !mask | value & mask;
        let (low, high) = (mask & LOW != 0, mask & HIGH != 0);
        match at {
            offset::GLOBAL_COMMAND if low => Some(Command::Global(Global::from_bits(value as u32))),
            offset::ROOT_TABLE_ADDRESS => {
                self.root_table = RootTableAddress::from_bits(merged & ROOT_TABLE_WRITABLE);
                None
            }
            offset::CONTEXT_COMMAND => self.write_context_command(merged, high),
            offset::FAULT_STATUS if high => self.clear_fault_status((value >> 32) as u32),
            offset::FAULT_EVENT_CONTROL => write_event(&mut self.faults.event, merged, low, high),
            offset::FAULT_EVENT_ADDRESS => {
                self.faults.event.set_address(merged);
                None
            }
            offset::QUEUE_TAIL if low => {
                self.queue_tail = value & QUEUE_OFFSET;
                Some(Command::Queue)
            }
            offset::QUEUE_ADDRESS => {
                self.queue_address = QueueAddress::from_bits(merged & QUEUE_WRITABLE);
                None
            }
            offset::COMPLETION_STATUS if high => {
                if (value >> 32) as u32 & WAIT_COMPLETE != 0 {
                    self.completed = false;
                    self.completion.clear();
                }
                None
            }
            offset::COMPLETION_EVENT_CONTROL => write_event(&mut self.completion, merged, low, high),
            offset::COMPLETION_EVENT_ADDRESS => {
                self.completion.set_address(merged);
                None
            }
            offset::REMAP_TABLE_ADDRESS => {
                self.remap_table = RemapTableAddress::from_bits(merged & REMAP_TABLE_WRITABLE);
                None
            }
            offset::INVALIDATE_ADDRESS => {
                self.invalidate_address = InvalidateAddress::from_bits(merged).with_reserved(0);
                None
            }
            offset::IOTLB => self.write_iotlb_command(merged, high),
            _ => {
                if let Some(index) = record_index(at) {
                    self.faults.clear_record(index, value);
                }
                None
            }
        }
    }

    /// The command bit is in the high half; the field that tells what was done is read only.
    fn write_context_command(&mut self, merged: u64, high: bool) -> Option<Command> {
        let written = ContextCommand::from_bits(merged);
        self.context_command = written.with_actual(self.context_command.actual());
        (high && written.busy()).then_some(Command::Context)
    }

    fn write_iotlb_command(&mut self, merged: u64, high: bool) -> Option<Command> {
        let written = IotlbCommand::from_bits(merged);
        self.iotlb_command = written.with_actual(self.iotlb_command.actual());
        (high && written.busy()).then_some(Command::Iotlb)
    }

    /// A queue that stopped runs on once its error is cleared.
    fn clear_fault_status(&mut self, written: u32) -> Option<Command> {
        let was_stopped = self.faults.has_queue_error();
        self.faults.clear_status(written);
        (was_stopped && !self.faults.has_queue_error()).then_some(Command::Queue)
    }
}

/// Data before control, so that an event which was waiting goes out with the new data.
fn write_event(event: &mut EventRegisters, merged: u64, control: bool, data: bool) -> Option<Command> {
    if data {
        event.set_data((merged >> 32) as u32);
    }
    if control {
        return event.set_control(merged as u32).map(Command::Send);
    }
    None
}

fn record_index(at: u64) -> Option<usize> {
    let index = usize::try_from(at.checked_sub(offset::FAULT_RECORDS)? / 8).ok()?;
    (index < 2 * FAULT_RECORDS).then_some(index)
}

//! The unit behind its lock: registers, devices and routes, and what a global command does to them.

use std::sync::Arc;

use super::capability::VtdConfig;
use super::domains::{ContextScope, Endpoint};
use super::faults::Fault;
use super::interrupt_remap::{EntryScope, Routes};
use super::invalidation::{InvalidationStats, Pending};
use super::memory::{Slots, TableMemory};
use super::register_file::{Command, RegisterFile};
use super::spec::registers::{Global, QueueAddress, RemapTableAddress};
use super::work::{Goal, Work};
use crate::irq::MsiRouter;

/// Everything the lock guards. What registers merely hold takes effect when a command latches it.
pub(crate) struct Unit {
    config: VtdConfig,
    pub(crate) registers: RegisterFile,
    pub(crate) memory: Arc<dyn TableMemory>,
    /// Where messages go once remapped, and where the unit's own events go.
    pub(crate) router: Arc<dyn MsiRouter>,
    pub(crate) slots: Slots,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) routes: Routes,
    /// Latched by SRTP.
    pub(crate) root_frame: u64,
    /// Latched by QIE.
    pub(crate) queue: QueueAddress,
    /// Latched by SIRTP.
    pub(crate) remap_table: RemapTableAddress,
    pub(crate) pending: Pending,
    pub(crate) work: Work,
    pub(crate) invalidations: InvalidationStats,
}

impl Unit {
    pub(crate) fn new(
        config: VtdConfig,
        memory: Arc<dyn TableMemory>,
        router: Arc<dyn MsiRouter>,
        endpoints: Vec<Endpoint>,
    ) -> Self {
        Self {
            registers: RegisterFile::new(&config),
            config,
            memory,
            router,
            slots: Slots::default(),
            endpoints,
            routes: Routes::default(),
            root_frame: 0,
            queue: QueueAddress::new(),
            remap_table: RemapTableAddress::new(),
            pending: Pending::default(),
            work: Work::default(),
            invalidations: InvalidationStats::default(),
        }
    }

    /// The state after power-on: nothing translated, nothing remapped, and no device reaches anything once it
    /// followed. What was under way is forgotten.
    pub(crate) fn reset(&mut self) {
        self.registers = RegisterFile::new(&self.config);
        self.root_frame = 0;
        self.queue = QueueAddress::new();
        self.remap_table = RemapTableAddress::new();
        self.pending = Pending::default();
        self.work = Work::default();
        self.reset_endpoints();
        self.clear_pins();
        self.retranslate_all();
    }

    /// A write to the register page. What it asks for begins with the next turn.
    pub(crate) fn write(&mut self, at: u64, data: &[u8]) {
        match self.registers.write(at, data) {
            None | Some(Command::Queue) => {}
            Some(Command::Global(command)) => self.work.note(command),
            Some(Command::Context) => self.work.context = true,
            Some(Command::Iotlb) => self.work.iotlb = true,
            Some(Command::Send(message)) => self.router.send(message),
        }
    }

    /// Records a fault, and tells of it if it is the first.
    pub(crate) fn record(&mut self, fault: Fault) {
        log::debug!("Fault: {fault:x?}");
        if let Some(event) = self.registers.faults.record(fault) {
            self.router.send(event);
        }
    }

    /// GCMD: any number of bits at once, one-shot and lasting ones. Status shows a state when everything
    /// that follows from it is done (§11.4.4).
    pub(crate) fn global_command(&mut self, command: Global) {
        let before = self.registers.status;
        self.switch_queue(command.queue());
        if command.root_table() {
            self.set_root_table();
        }
        if command.remap_table() && self.config.interrupt_remapping {
            self.set_remap_table();
        }
        self.switch_translation(command.translation());
        self.switch_remapping(command);
        let after = self.registers.status;
        if command.root_table() || before.translation() != after.translation() {
            self.pending.contexts.push(ContextScope::Global);
        }
        let interrupts = |status: Global| (status.interrupt_remapping(), status.compatibility_interrupts());
        if command.remap_table() || interrupts(before) != interrupts(after) {
            self.pending.entries.push(EntryScope::All);
        }
        self.begin(Some(Goal::Status));
    }

    /// On from a cleared head; a queue that has work starts with it. Off before the next descriptor: what was read
    /// of it is done.
    fn switch_queue(&mut self, on: bool) {
        if on == self.registers.status.queue() {
            return;
        }
        self.registers.status.set_queue(on);
        self.registers.queue_head = 0;
        if on {
            self.queue = self.registers.queue_address;
        }
    }

    /// Scalable mode is not offered, so its tables are refused.
    fn set_root_table(&mut self) {
        if self.registers.root_table.mode() == 0 {
            self.root_frame = self.registers.root_table.frame();
            self.registers.status.set_root_table(true);
        }
    }

    /// EIME means nothing where EIM is not offered (§11.4.9).
    fn set_remap_table(&mut self) {
        let table = self.registers.remap_table;
        let extended = table.extended() && self.config.extended_interrupts;
        self.remap_table = table.with_extended(extended);
        self.registers.status.set_remap_table(true);
    }

    fn switch_translation(&mut self, on: bool) {
        let status = &mut self.registers.status;
        if on && !status.root_table() {
            return;
        }
        if status.translation() && !on {
            self.registers.faults.rewind();
        }
        self.registers.status.set_translation(on);
    }

    fn switch_remapping(&mut self, command: Global) {
        let status = &mut self.registers.status;
        if !self.config.interrupt_remapping {
            return;
        }
        if !command.interrupt_remapping() || status.remap_table() {
            status.set_interrupt_remapping(command.interrupt_remapping());
        }
        status.set_compatibility_interrupts(command.compatibility_interrupts());
    }
}

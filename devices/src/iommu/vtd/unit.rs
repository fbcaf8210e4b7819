//! The unit behind its lock: it wires registers, queue, devices and interrupts to one another, and says in which order
//! work is done.
//!
//! What was begun is brought to its end a turn at a time, and only then is the next thing begun. Between two turns
//! the lock is free. What others ask for meanwhile is noted, and whoever writes to the unit next goes on with all
//! of it.

use std::mem;
use std::sync::Arc;

use vm_memory::GuestAddress;

use super::capability::VtdConfig;
use super::dma::DmaRemapper;
use super::faults::Fault;
use super::interrupts::{InterruptRemapper, Source, Way};
use super::memory::TableMemory;
use super::queue::{Found, InvalidationQueue, Malformed, Request, Wait};
use super::registers::{Command, RegisterFile};
use super::request::{ContextScope, EntryScope, IotlbScope};
use super::spec::registers::Global;
use super::spec::tables::PAGE;
use super::turn::Turn;
use super::work::{Goal, Work};
use crate::dma::{Access, Domain, Iova, Requester, RequesterId};
use crate::irq::{MsiMessage, MsiRouter};

/// Everything the lock guards. What registers merely hold takes effect when a command latches it.
pub(super) struct Unit {
    config: VtdConfig,
    registers: RegisterFile,
    pub(super) queue: InvalidationQueue,
    pub(super) dma: DmaRemapper,
    pub(super) interrupts: InterruptRemapper,
    work: Work,
    /// Where the unit's own events go.
    router: Arc<dyn MsiRouter>,
}

impl Unit {
    /// A unit after power-on, with devices that reach nothing.
    pub(super) fn new(
        config: VtdConfig,
        memory: Arc<dyn TableMemory>,
        router: Arc<dyn MsiRouter>,
        devices: Vec<(Requester, Arc<dyn Domain>)>,
    ) -> Self {
        Self {
            registers: RegisterFile::new(&config),
            queue: InvalidationQueue::new(memory.clone()),
            dma: DmaRemapper::new(&config, memory.clone(), devices),
            interrupts: InterruptRemapper::new(&config, memory, router.clone()),
            work: Work::default(),
            router,
            config,
        }
    }

    /// The state after power-on: nothing translated, nothing remapped, and no device reaches anything once it
    /// followed. What was under way is forgotten.
    pub(super) fn reset(&mut self) {
        self.registers = RegisterFile::new(&self.config);
        self.work = Work::default();
        self.queue.reset();
        self.dma.reset();
        self.interrupts.reset();
    }

    /// A read of the register page.
    pub(super) fn read(&self, at: u64, data: &mut [u8]) {
        self.registers.read(at, data);
    }

    /// A write to the register page. What it asks for begins with the next turn.
    pub(super) fn write(&mut self, at: u64, data: &[u8]) {
        match self.registers.write(at, data) {
            None | Some(Command::Queue) => {}
            Some(Command::Global(command)) => self.work.note(command),
            Some(Command::Context) => self.work.context = true,
            Some(Command::Iotlb) => self.work.iotlb = true,
            Some(Command::Send(message)) => self.router.send(message),
        }
    }

    /// Devices have new ids: DMA and interrupts follow what the guest grants these.
    pub(super) fn follow_requesters(&mut self) {
        self.dma.resolve(&[]);
        self.interrupts.begin(&[EntryScope::All]);
    }

    /// Where a request would go; nothing is recorded.
    pub(super) fn look_up(&self, id: RequesterId, iova: Iova, access: Access) -> Option<GuestAddress> {
        self.dma.translate(id, iova, access).ok()
    }

    /// Where a request of an emulated device goes. A blocked one is recorded.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn translate(&mut self, id: RequesterId, iova: Iova, access: Access) -> Option<GuestAddress> {
        let outcome = self.dma.translate(id, iova, access);
        outcome.map_err(|fault| self.record(fault)).ok()
    }

    /// Delivers a message. The fault of a blocked one is recorded.
    pub(super) fn send(&mut self, source: &Source, message: MsiMessage) {
        if let Err(fault) = self.interrupts.send(source, message) {
            self.record(fault);
        }
    }

    /// Marks a route through the unit.
    pub(super) fn set_route(&mut self, way: &Way, message: Option<MsiMessage>) {
        let mut record = |fault| record(&mut self.registers, &*self.router, fault);
        self.interrupts.set(way, message, &mut record);
    }

    /// Records a fault for each interrupt that fired where the guest's table leads nowhere.
    pub(super) fn report_blocked(&mut self) {
        let mut record = |fault| record(&mut self.registers, &*self.router, fault);
        self.interrupts.report_blocked(&mut record);
    }

    /// One turn. True when there is nothing left to do. Unless it `may_begin`, only what is under way is brought to
    /// its end.
    pub(super) fn go_on(&mut self, may_begin: bool) -> bool {
        let mut turn = Turn::new();
        let mut is_done = false;
        while self.follow(&mut turn) {
            if let Some(goal) = self.work.goal.take() {
                self.reach(goal);
            }
            if !may_begin {
                break;
            }
            if !self.begin_next(&mut turn) {
                is_done = true;
                break;
            }
        }
        self.registers.queue_head = self.queue.head();
        is_done
    }

    /// Brings devices, then routes, to what was noted for them. False when the turn is over before.
    pub(super) fn follow(&mut self, turn: &mut Turn) -> bool {
        let mut record = |fault| record(&mut self.registers, &*self.router, fault);
        !turn.is_over() && self.dma.sync(turn) && self.interrupts.retranslate(turn, &mut record)
    }

    /// A command before the queue, which may have much to do. False when nothing was asked for.
    fn begin_next(&mut self, turn: &mut Turn) -> bool {
        if let Some(command) = self.work.global.take() {
            self.global_command(command);
        } else if mem::take(&mut self.work.context) {
            self.context_command();
        } else if mem::take(&mut self.work.iotlb) {
            self.iotlb_command();
        } else {
            return self.run_queue(turn);
        }
        true
    }

    /// Reads the queue up to the next wait, or to its tail, and begins with what it asks for. False if it asks for
    /// nothing.
    fn run_queue(&mut self, turn: &mut Turn) -> bool {
        if !self.queue.is_on() || self.registers.faults.has_queue_error() {
            return false;
        }
        match self.queue.read(self.registers.queue_tail, turn) {
            Found::Nothing => return false,
            Found::Requests => self.begin(None),
            Found::Wait(wait) => self.begin(Some(Goal::Wait(wait))),
            Found::Malformed => self.begin(Some(Goal::QueueError)),
        }
        true
    }

    /// Tells devices and routes what is pending, contexts first, since translations depend on them; `goal` is
    /// reached when they follow.
    fn begin(&mut self, goal: Option<Goal>) {
        let pending = self.queue.take_pending();
        self.dma.resolve(&pending.contexts);
        pending.iotlb.iter().for_each(|scope| self.dma.invalidate(scope));
        self.dma.order_invalidated();
        self.interrupts.begin(&pending.entries);
        self.queue.keep_room(pending);
        self.work.goal = goal;
    }

    fn reach(&mut self, goal: Goal) {
        match goal {
            Goal::Wait(wait) => self.end_wait(wait),
            Goal::QueueError => self.stop_queue(),
            Goal::Status => self.registers.status = self.status(),
            Goal::Context(actual) => {
                let command = self.registers.context_command.with_actual(actual);
                self.registers.context_command = command.with_busy(self.work.context);
            }
            Goal::Iotlb(actual) => {
                let command = self.registers.iotlb_command.with_actual(actual);
                self.registers.iotlb_command = command.with_busy(self.work.iotlb);
            }
        }
    }

    fn end_wait(&mut self, wait: Wait) {
        match self.queue.complete(wait) {
            Ok(wants_interrupt) => {
                let event = wants_interrupt.then(|| self.registers.complete()).flatten();
                event.into_iter().for_each(|event| self.router.send(event));
            }
            Err(Malformed) => self.stop_queue(),
        }
    }

    fn stop_queue(&mut self) {
        log::debug!("The invalidation queue stops at {:#x}", self.queue.head());
        if let Some(event) = self.registers.faults.set_queue_error() {
            self.router.send(event);
        }
    }

    /// What is in force, as GSTS shows it.
    fn status(&self) -> Global {
        Global::new()
            .with_root_table(self.dma.has_root_table())
            .with_translation(self.dma.is_translating())
            .with_queue(self.queue.is_on())
            .with_remap_table(self.interrupts.is_latched())
            .with_interrupt_remapping(self.interrupts.is_on())
            .with_compatibility_interrupts(self.interrupts.passes_compatibility())
    }

    /// GCMD: any number of bits at once, one-shot and lasting ones. Status shows a state when everything
    /// that follows from it is done (§11.4.4).
    fn global_command(&mut self, command: Global) {
        let before = self.status();
        if command.queue() != before.queue() {
            self.queue.switch(command.queue(), self.registers.queue_address);
        }
        // Scalable mode is not offered, so its tables are refused.
        if command.root_table() && self.registers.root_table.mode() == 0 {
            let root = self.registers.root_table.frame() * PAGE;
            self.dma.set_root_table(GuestAddress(root));
        }
        if command.remap_table() {
            self.interrupts.latch_table(self.registers.remap_table);
        }
        self.switch_translation(command.translation());
        self.interrupts
            .switch(command.interrupt_remapping(), command.compatibility_interrupts());
        let after = self.status();
        let contexts = command.root_table() || before.translation() != after.translation();
        let interrupts = |status: Global| (status.interrupt_remapping(), status.compatibility_interrupts());
        let entries = command.remap_table() || interrupts(before) != interrupts(after);
        self.queue.note_everything(contexts, entries);
        self.begin(Some(Goal::Status));
    }

    fn switch_translation(&mut self, on: bool) {
        if on && !self.dma.has_root_table() {
            return;
        }
        if self.dma.is_translating() && !on {
            self.registers.faults.rewind();
        }
        self.dma.set_translating(on);
    }

    /// CCMD with ICC set. With the queue on it is not to be used; the busy bit is cleared all the same.
    fn context_command(&mut self) {
        let command = self.registers.context_command;
        let (granularity, domain) = (command.requested(), command.domain());
        let scope = ContextScope::decode(granularity, domain, command.source(), command.function_mask());
        let actual = self.ask(scope.map(Request::Context), granularity);
        self.begin(Some(Goal::Context(actual)));
    }

    /// IOTLB with IVT set, under the same rule.
    fn iotlb_command(&mut self) {
        let command = self.registers.iotlb_command;
        let granularity = command.requested();
        let address = self.registers.invalidate_address;
        let scope = IotlbScope::decode(granularity, command.domain(), address);
        let actual = self.ask(scope.map(Request::Iotlb), granularity);
        self.begin(Some(Goal::Iotlb(actual)));
    }

    /// Asks for what a register says; the granularity of what is done, 0 for nothing.
    fn ask(&mut self, request: Option<Request>, granularity: u8) -> u8 {
        match request.filter(|_| !self.queue.is_on()) {
            Some(request) => {
                self.queue.ask(request);
                granularity
            }
            None => 0,
        }
    }

    fn record(&mut self, fault: Fault) {
        record(&mut self.registers, &*self.router, fault);
    }
}

/// Records a fault, and tells of it if it is the first.
fn record(registers: &mut RegisterFile, router: &dyn MsiRouter, fault: Fault) {
    log::debug!("Fault: {fault:x?}");
    if let Some(event) = registers.faults.record(fault) {
        router.send(event);
    }
}

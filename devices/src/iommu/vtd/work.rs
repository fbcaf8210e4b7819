//! What is under way, and in which order: what was begun is brought to its end a turn at a time, and only then is
//! the next thing begun.
//!
//! Between two turns the lock is free. What others ask for meanwhile is noted, and whoever writes to the unit next
//! goes on with all of it.

use std::mem;

use super::invalidation::Wait;
use super::spec::registers::Global;
use super::turn::Turn;
use super::unit::Unit;

/// What was asked for.
#[derive(Default)]
pub(crate) struct Work {
    /// GCMD, which waits for what is under way.
    pub(crate) global: Option<Global>,
    /// CCMD.
    pub(crate) context: bool,
    /// The IOTLB register.
    pub(crate) iotlb: bool,
    /// What the guest is told once devices and routes follow.
    goal: Option<Goal>,
}

/// What is said last.
pub(crate) enum Goal {
    /// A wait descriptor is done: the queue goes on behind it.
    Wait(Wait),
    /// The queue stops at what it cannot obey.
    QueueError,
    /// GSTS shows what is in force.
    Status,
    /// CCMD tells what was done.
    Context(u8),
    /// So does the IOTLB register.
    Iotlb(u8),
}

impl Work {
    /// GCMD again before the last one began, which a guest should not do: none of the commands is lost.
    pub(crate) fn note(&mut self, command: Global) {
        let earlier = self.global.unwrap_or_default();
        let root_table = command.root_table() || earlier.root_table();
        let remap_table = command.remap_table() || earlier.remap_table();
        self.global = Some(command.with_root_table(root_table).with_remap_table(remap_table));
    }
}

impl Unit {
    /// One turn. True when there is nothing left to do. Unless it `may_begin`, only what is under way is brought to
    /// its end.
    pub(crate) fn go_on(&mut self, may_begin: bool) -> bool {
        let mut turn = Turn::new();
        while self.follow(&mut turn) {
            if let Some(goal) = self.work.goal.take() {
                self.reach(goal);
            }
            if !may_begin {
                return false;
            }
            if !self.begin_next(&mut turn) {
                return true;
            }
        }
        false
    }

    /// Brings devices, then routes, to what was noted for them. False when the turn is over before.
    pub(crate) fn follow(&mut self, turn: &mut Turn) -> bool {
        !turn.is_over() && self.sync_devices(turn) && self.retranslate(turn)
    }

    /// Notes what is pending for devices and routes; `goal` is reached when they follow.
    pub(crate) fn begin(&mut self, goal: Option<Goal>) {
        self.note_pending();
        self.work.goal = goal;
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

    fn reach(&mut self, goal: Goal) {
        match goal {
            Goal::Wait(wait) => self.end_wait(wait),
            Goal::QueueError => self.stop_queue(),
            Goal::Status => self.registers.shown_status = self.registers.status,
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
}

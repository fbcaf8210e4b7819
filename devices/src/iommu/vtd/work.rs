//! What is asked of the unit and not done yet.

use super::queue::Wait;
use super::spec::registers::Global;

/// What was asked for.
#[derive(Default)]
pub(super) struct Work {
    /// GCMD, which waits for what is under way.
    pub(super) global: Option<Global>,
    /// CCMD asks for an invalidation.
    pub(super) context: bool,
    /// The IOTLB register asks for one.
    pub(super) iotlb: bool,
    /// What the guest is told once devices and routes follow.
    pub(super) goal: Option<Goal>,
}

/// What is said last.
pub(super) enum Goal {
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
    pub(super) fn note(&mut self, command: Global) {
        let earlier = self.global.unwrap_or_default();
        let root_table = command.root_table() || earlier.root_table();
        let remap_table = command.remap_table() || earlier.remap_table();
        self.global = Some(command.with_root_table(root_table).with_remap_table(remap_table));
    }
}

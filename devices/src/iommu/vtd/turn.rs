//! What the unit does at a time: the price of a turn, after which its lock is free for others and the CPU that
//! asked for the work can be stopped.

/// Bytes mapped and unmapped in a turn, and by one call of a domain: some 20 ms where the host pins 4 KiB pages.
pub(crate) const BYTES: u64 = 1 << 30;
/// Calls of domains and changes of routes.
pub(crate) const CALLS: u64 = 1024;
/// Table entries read, and what costs as much. The 4 KiB pages in place of the largest mapping fit twice, so that a
/// fresh turn always gets past one.
pub(crate) const ENTRIES: u64 = 1 << 19;

/// What is left of a turn.
pub(crate) struct Turn {
    bytes: u64,
    calls: u64,
    entries: u64,
}

impl Turn {
    pub(crate) fn new() -> Self {
        Self {
            bytes: BYTES,
            calls: CALLS,
            entries: ENTRIES,
        }
    }

    /// Pays for a call of a domain about so many bytes, at most [`BYTES`]; false if it is for the next turn.
    #[must_use]
    pub(crate) fn pay_call(&mut self, bytes: u64) -> bool {
        if self.calls == 0 || bytes > self.bytes {
            return false;
        }
        self.calls -= 1;
        self.bytes -= bytes;
        true
    }

    /// Pays for what was done with one route or pin.
    pub(crate) fn pay_route(&mut self) {
        self.calls = self.calls.saturating_sub(1);
    }

    /// Pays for reading so many entries, however few are left.
    pub(crate) fn pay_entries(&mut self, entries: u64) {
        self.entries = self.entries.saturating_sub(entries);
    }

    /// Table entries that may be read.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Whatever is next, it is for the next turn.
    pub(crate) fn is_over(&self) -> bool {
        self.calls == 0 || self.entries == 0
    }
}

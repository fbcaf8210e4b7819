//! Devices that a guest was asked to let go of, and how long it may take.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a guest has to let go of a device. Linux gives its user five seconds of it to change his mind
/// (drivers/pci/hotplug/pciehp_ctrl.c).
const PATIENCE: Duration = Duration::from_secs(30);

/// Ports whose devices were asked for, with the time until which the guest may keep them. A reset of the guest
/// ends its time: a new boot knows nothing of what the one before was asked for.
#[derive(Debug, Default)]
pub(super) struct Leaving(BTreeMap<u8, Time>);

#[derive(Clone, Copy, Debug)]
struct Time {
    until: Instant,
    /// A client asked, who is told if the guest keeps the device; the host must have it.
    may_stay: bool,
}

impl Leaving {
    /// The guest was asked for the devices behind `port`, which the host must have.
    pub(super) fn insert(&mut self, port: u8, now: Instant) {
        let until = now + PATIENCE;
        let may_stay = false;
        self.0.insert(port, Time { until, may_stay });
    }

    /// It was asked for them by a client.
    pub(super) fn insert_for_client(&mut self, port: u8, now: Instant) {
        let until = now + PATIENCE;
        let may_stay = true;
        self.0.insert(port, Time { until, may_stay });
    }

    /// Whether the guest may keep the devices behind `port`, though it was asked for them.
    pub(super) fn may_stay(&self, port: u8) -> bool {
        self.0.get(&port).is_some_and(|time| time.may_stay)
    }

    /// The devices behind a port have left the guest.
    pub(super) fn remove(&mut self, port: u8) {
        self.0.remove(&port);
    }

    /// Whether the guest was asked for them already.
    pub(super) fn contains(&self, port: u8) -> bool {
        self.0.contains_key(&port)
    }

    /// When the first of them is overdue.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|time| time.until).min()
    }

    /// The ports whose time is over.
    pub(super) fn overdue(&self, now: Instant) -> Vec<u8> {
        let overdue = self.0.iter().filter(|(_, time)| time.until <= now);
        overdue.map(|(port, _)| *port).collect()
    }

    /// The ports whose devices are leaving.
    pub(super) fn all(&self) -> Vec<u8> {
        self.0.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_leave_sets_the_time() {
        let now = Instant::now();
        let mut leaving = Leaving::default();
        assert_eq!(leaving.next(), None);
        leaving.insert(2, now + PATIENCE);
        leaving.insert(1, now);
        assert_eq!(leaving.next(), Some(now + PATIENCE));
        assert_eq!(leaving.overdue(now), [0; 0]);
        assert_eq!(leaving.overdue(now + PATIENCE), [1]);
        assert_eq!(leaving.overdue(now + 2 * PATIENCE), [1, 2]);
        assert_eq!(leaving.all(), [1, 2], "a reset waits for neither");
    }

    #[test]
    fn what_a_client_asked_for_may_stay_until_the_host_wants_it() {
        let now = Instant::now();
        let mut leaving = Leaving::default();
        leaving.insert_for_client(1, now);
        assert!(leaving.may_stay(1));
        leaving.insert(1, now);
        assert!(!leaving.may_stay(1));
    }
}

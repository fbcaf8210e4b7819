//! Devices that leave a running guest: because the host wants them back, or because they failed.
//!
//! The guest is asked first and has some time to stop its drivers. A device it does not let go of in time, or
//! at all, is pulled: the host must not wait for a guest.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::board::Board;
use super::platform::Platform;
use super::state::Event;
use crate::config::OnDeviceError;
use crate::event_loop::{EventLoop, Sources, Wake};

/// What a guest has to let go of a device. Linux gives its user five seconds of it to change his mind
/// (drivers/pci/hotplug/pciehp_ctrl.c).
const PATIENCE: Duration = Duration::from_secs(30);

/// Ports whose devices were asked for, with the time until which the guest may keep them. A reset of the guest
/// ends its time: a new boot knows nothing of what the one before was asked for.
#[derive(Debug, Default)]
pub(super) struct Leaving(BTreeMap<u8, Instant>);

impl Leaving {
    fn next(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    fn overdue(&self, now: Instant) -> Vec<u8> {
        let overdue = self.0.iter().filter(|(_, until)| **until <= now);
        overdue.map(|(port, _)| *port).collect()
    }

    fn all(&self) -> Vec<u8> {
        self.0.keys().copied().collect()
    }
}

impl Platform {
    /// Serves the console, the wires and the host's wishes until something happens to the whole guest.
    ///
    /// # Errors
    /// When the host's poll fails.
    pub(super) fn serve(&mut self, board: &mut Board, event_loop: &mut EventLoop) -> io::Result<Event> {
        loop {
            match self.wait(board, event_loop, self.leaving.next())? {
                Wake::Ejected(port) => {
                    self.let_go(board, port, "the guest let go of it");
                }
                Wake::Event(event) => return Ok(event),
                Wake::Host => {
                    if let Some(event) = self.hear_host(board) {
                        return Ok(event);
                    }
                }
                Wake::Deadline => {
                    for port in self.leaving.overdue(Instant::now()) {
                        let seconds = PATIENCE.as_secs();
                        let why = format!("pulled, for the guest did not let go of it in {seconds} s");
                        self.let_go(board, port, &why);
                    }
                }
            }
        }
    }

    /// Takes what was asked for from a guest that was reset before it let go.
    pub(super) fn end_patience(&mut self, board: &mut Board) {
        for port in self.leaving.all() {
            self.let_go(
                board,
                port,
                "pulled, for the guest was reset before it let go of it",
            );
        }
    }

    fn wait(&self, board: &Board, event_loop: &mut EventLoop, until: Option<Instant>) -> io::Result<Wake> {
        let hosts = self.passed.iter().flat_map(|passed| passed.device.host_events());
        event_loop.next(&Sources {
            events: &self.events,
            console: &board.serial,
            wires: board.wires().collect(),
            hosts: hosts.collect::<Vec<BorrowedFd<'_>>>(),
            until,
            report: &|| self.iommu.report(),
        })
    }

    /// Does what the host's signals ask for; an event if it ends the guest.
    fn hear_host(&mut self, board: &mut Board) -> Option<Event> {
        let mut ports = Vec::new();
        for passed in &self.passed {
            let (name, port) = (&passed.name, passed.seat.port);
            if passed.device.is_asked_for() && !self.leaving.0.contains_key(&port) {
                log::warn!("{name}: the host asks for the device back");
                ports.push(port);
            }
            let Some(errors) = passed.device.new_errors() else {
                continue;
            };
            match self.on_device_error {
                OnDeviceError::Ignore => {
                    log::error!("{name}: the device reports {errors}; the guest keeps it");
                }
                OnDeviceError::Stop => {
                    let why = format!("{name}: the device reports {errors}, and --on-device-error is stop");
                    return Some(Event::Failed(why));
                }
                OnDeviceError::Unplug => {
                    log::error!("{name}: the device reports {errors}; it is unplugged from the guest");
                    ports.push(port);
                }
            }
        }
        for port in ports {
            self.ask(board, port);
        }
        None
    }

    fn ask(&mut self, board: &mut Board, port: u8) {
        if self.leaving.0.contains_key(&port) {
            return;
        }
        match board.ask_to_unplug(port) {
            true => _ = self.leaving.0.insert(port, Instant::now() + PATIENCE),
            false => self.let_go(board, port, "pulled, for the guest does not listen to hot plug"),
        }
    }

    /// The device is out of the guest and back with the host when this returns.
    fn let_go(&mut self, board: &mut Board, port: u8, why: &str) {
        self.leaving.0.remove(&port);
        let behind = self.passed.iter().filter(|passed| passed.seat.port == port);
        for passed in behind {
            log::warn!("{}: unplugged: {why}", passed.name);
        }
        board.unplug(port);
        self.release(port);
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
        leaving.0.insert(2, now + PATIENCE);
        leaving.0.insert(1, now);
        assert_eq!(leaving.next(), Some(now));
        assert_eq!(leaving.overdue(now), [1]);
        assert_eq!(leaving.overdue(now + PATIENCE), [1, 2]);
        assert_eq!(leaving.all(), [1, 2], "a reset waits for neither");
    }
}

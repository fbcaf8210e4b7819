//! Devices that leave a running guest: because the host wants them back, or because they failed.
//!
//! The guest is asked first and has some time to stop its drivers. A device it does not let go of in time, or
//! at all, is pulled: the host must not wait for a guest.

use std::time::Instant;

use super::board::Board;
use super::platform::Platform;
use super::state::Departure;

impl Platform {
    /// Asks the guest for the devices behind `port`, once, or pulls them where it does not listen.
    pub(super) fn ask(&mut self, board: &mut Board, port: u8, why: &str) {
        if self.leaving.contains(port) && !self.leaving.may_stay(port) {
            return;
        }
        log::warn!("{why}");
        match board.ask_to_unplug(port) {
            true => self.leaving.insert(port, Instant::now()),
            false => self.let_go(board, port, Departure::Deaf),
        }
    }

    /// The device is out of the guest when this returns, and on its way back to the host.
    pub(super) fn let_go(&mut self, board: &mut Board, port: u8, why: Departure) {
        self.leaving.remove(port);
        let behind = self.passed.iter().filter(|passed| passed.seat.port == port);
        for passed in behind {
            log::warn!("{}: unplugged: {why}", passed.name);
        }
        board.unplug(port);
        let passed = self.release(port);
        if !passed.is_empty() {
            self.give_back(passed);
        }
    }
}

//! The main loop: a guest from its first instruction until its vCPUs have stopped.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::board::Board;
use super::error::RunError;
use super::platform::Platform;
use super::state::{self, Answer, Next, Request, State};
use crate::event_loop::{EventLoop, Sources, Wake};

impl Platform {
    /// Loads the kernel, runs the guest until something happens to all of it, and stops its vCPUs. Tells what is
    /// next.
    ///
    /// # Errors
    /// When the kernel cannot be loaded, a vCPU not be started, or the host's poll fails.
    pub(super) fn run_guest(
        &mut self,
        board: &mut Board,
        event_loop: &mut EventLoop,
    ) -> Result<Next, RunError> {
        let threads = self.start(&board.ioapic)?;
        let next = self.serve(board, event_loop);
        self.stop(threads);
        let next = next?;
        self.settle(board, &next);
        Ok(next)
    }

    /// Serves the console, the wires and the host's wishes until the vCPUs are to stop.
    fn serve(&mut self, board: &mut Board, event_loop: &mut EventLoop) -> io::Result<Next> {
        loop {
            let wake = self.wait(board, event_loop)?;
            for request in self.requests(wake) {
                if let Some(next) = self.follow(State::Running, request, board) {
                    return Ok(next);
                }
            }
        }
    }

    /// What is left when no vCPU runs any more: what they reported on their way out, and, where the guest starts
    /// again, what it was asked for and did not do.
    fn settle(&mut self, board: &mut Board, next: &Next) {
        while let Some(event) = self.events.take() {
            self.follow(State::Stopping, Request::Guest(event), board);
        }
        self.events.clear();
        if *next == Next::Restart {
            for port in self.leaving.all() {
                self.follow(State::Stopping, Request::Overdue(port), board);
            }
        }
    }

    fn wait(&self, board: &Board, event_loop: &mut EventLoop) -> io::Result<Wake> {
        let hosts = self.passed.iter().flat_map(|passed| passed.device.host_events());
        event_loop.next(&Sources {
            events: &self.events,
            console: &board.serial,
            wires: board.wires().collect(),
            hosts: hosts.collect::<Vec<BorrowedFd<'_>>>(),
            until: self.leaving.next(),
            report: &|| self.iommu.report(),
        })
    }

    fn requests(&self, wake: Wake) -> Vec<Request> {
        match wake {
            Wake::Event(event) => vec![Request::Guest(event)],
            Wake::Quit => vec![Request::Quit],
            Wake::Host => self.wishes_of_the_host(),
            Wake::Deadline => {
                let overdue = self.leaving.overdue(Instant::now());
                overdue.into_iter().map(Request::Overdue).collect()
            }
        }
    }

    fn wishes_of_the_host(&self) -> Vec<Request> {
        let mut wishes = Vec::new();
        for passed in &self.passed {
            let (name, port) = (&passed.name, passed.seat.port);
            if passed.device.is_asked_for() {
                wishes.push(Request::Wanted(port, name.clone()));
            }
            if let Some(errors) = passed.device.new_errors() {
                wishes.push(Request::Broken(
                    port,
                    format!("{name}: the device reports {errors}"),
                ));
            }
        }
        wishes
    }

    /// Does what the table says; what is next, where that ends the guest.
    fn follow(&mut self, state: State, request: Request, board: &mut Board) -> Option<Next> {
        match state::answer(state, request, self.rules) {
            Answer::Stop(next) => return Some(next),
            Answer::Ask(port, why) => self.ask(board, port, &why),
            Answer::Pull(port, why) => self.let_go(board, port, why),
            Answer::Tell(what) => log::error!("{what}"),
            Answer::Later | Answer::Forget => {}
        }
        None
    }
}

//! The main loop: a guest from its first instruction until its vCPUs have stopped.

use std::io;
use std::mem;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use strait_devices::Chain;

use super::board::Board;
use super::error::RunError;
use super::platform::Platform;
use super::state::{self, Answer, Next, Request, State};
use super::telling::{self, Telling};
use crate::control::{self, Control};
use crate::event_loop::{EventLoop, Sources, Wake};
use crate::events::Event;
use crate::gdb::{Debugger, Wish};
use crate::kvm::vcpu::{DebugExit, Vcpu};
use crate::status::Status;

/// What follows where the vCPUs of a guest stop, or have stood still.
enum Turn {
    /// The guest is over, or starts again.
    Over(Next, &'static str),
    /// It stands still for a debugger.
    Hold(Option<DebugExit>),
    /// It stands still for a client of the control socket, until that lets it go on.
    Pause,
    /// No client holds it any more.
    Resume,
    /// It goes on.
    GoOn,
}

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
        status: &mut Status,
    ) -> Result<Next, RunError> {
        self.load_guest()?;
        status.prepared();
        if self.debugger.as_ref().is_some_and(Debugger::holds) {
            self.hold(None);
        }
        loop {
            let turn = match self.is_paused || self.debugger.as_ref().is_some_and(Debugger::holds) {
                true => self.serve(State::Held, board, event_loop, status)?,
                false => self.run_vcpus(board, event_loop, status)?,
            };
            match turn {
                Turn::Hold(exit) => self.hold(exit),
                Turn::Pause => self.is_paused = true,
                Turn::Resume => self.is_paused = false,
                Turn::GoOn => self.let_go_on(),
                Turn::Over(next, cause) => {
                    self.tell_clients(&next, cause);
                    if matches!(next, Next::End(_)) {
                        status.ends(cause);
                    }
                    self.end_of_guest(board, &next);
                    return Ok(next);
                }
            }
        }
    }

    /// From the moment that the vCPUs start, or go on, until all of them have stopped.
    fn run_vcpus(
        &mut self,
        board: &mut Board,
        event_loop: &mut EventLoop,
        status: &mut Status,
    ) -> Result<Turn, RunError> {
        self.let_clock_go_on();
        let threads = self.start(&board.ioapic)?;
        let turn = self.serve(State::Running, board, event_loop, status);
        let holds = matches!(turn, Ok(Turn::Hold(_) | Turn::Pause));
        self.stop(threads, holds);
        if holds {
            self.stop_clock();
        }
        Ok(turn?)
    }

    /// Serves the console, the wires, the debugger and the host's wishes until the vCPUs are to stop, or to go on.
    fn serve(
        &mut self,
        state: State,
        board: &mut Board,
        event_loop: &mut EventLoop,
        status: &mut Status,
    ) -> io::Result<Turn> {
        status.settle(state == State::Running, || telling::started(self, board));
        loop {
            while let Some(carried) = self.porter.take_done() {
                self.carried(carried, board);
            }
            if let Some(control) = &mut self.control {
                control.settle(state == State::Running);
            }
            let wake = self.wait(board, event_loop)?;
            if wake == Wake::Signal && self.gives_time() {
                event_loop.take_signal();
            }
            let (hears_debugger, hears_client) = (self.debugger_has_unread(), self.client_has_unread());
            let is_debugger = wake == Wake::Debugger;
            // A gdb that never ends to speak does not keep clients out.
            let hears_client = hears_client || is_debugger || wake == Wake::Control;
            for request in self.requests_of(wake, board) {
                if let Some(turn) = self.follow(state, request, board) {
                    return Ok(turn);
                }
            }
            // Nobody is heard behind a turn: a wish that was heard is answered as done.
            let hears_debugger = hears_debugger && !is_debugger;
            let wish = hears_debugger.then(|| self.wish_of_the_debugger(board)).flatten();
            if let Some(turn) = wish.and_then(|wish| self.follow(state, wish, board)) {
                return Ok(turn);
            }
            let wish = hears_client.then(|| self.wish_of_a_client(board)).flatten();
            if let Some(turn) = wish.and_then(|wish| self.follow(state, wish, board)) {
                return Ok(turn);
            }
        }
    }

    /// The guest stands still, unless its exit means nothing to the debugger.
    fn hold(&mut self, exit: Option<DebugExit>) {
        let others = self.events.take_debug();
        let vcpus = mem::take(&mut self.vcpus);
        // They are in its hands already.
        if vcpus.is_empty() {
            return;
        }
        let Some(debugger) = &mut self.debugger else {
            self.vcpus = vcpus;
            return;
        };
        if !debugger.stopped(vcpus, exit, others) {
            self.let_go_on();
        }
    }

    /// The guest's clock stands still with it.
    fn stop_clock(&mut self) {
        match self.vm.stop_clock() {
            Ok(clock) => self.clock = Some(clock),
            Err(error) => log::warn!("{}; it goes on while the guest stands still", Chain(&error)),
        }
    }

    /// Behind a hold: the clock goes on from where it stopped, and the guest's watchdogs hear of the pause.
    fn let_clock_go_on(&mut self) {
        let Some(clock) = self.clock.take() else { return };
        if let Err(error) = self.vm.go_on_with_clock(clock) {
            log::warn!("{}; the guest sees the time that it stood still", Chain(&error));
        }
        self.vcpus.iter().for_each(Vcpu::note_pause);
    }

    /// Clients of the control socket hear what becomes of the guest.
    fn tell_clients(&mut self, next: &Next, cause: &str) {
        let Some(control) = &mut self.control else { return };
        match next {
            Next::Restart => control.reset(cause == "guest-reset"),
            Next::End(_) => control.ended(cause),
        }
    }

    fn let_go_on(&mut self) {
        if let Some(debugger) = &mut self.debugger {
            self.vcpus.extend(debugger.go_on());
        }
    }

    /// The guest is over, or starts again.
    fn end_of_guest(&mut self, board: &mut Board, next: &Next) {
        if let Some(debugger) = &mut self.debugger {
            self.vcpus.extend(debugger.give_back());
            if let Next::End(outcome) = next {
                debugger.ended(outcome.exit_code());
            }
        }
        self.settle(board, next);
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
            debugger: self.debugger.as_ref().map(Debugger::fds).unwrap_or_default(),
            control: self.control.as_ref().map(Control::fds).unwrap_or_default(),
            until: match self.client_has_unread() || self.debugger_has_unread() {
                true => Some(Instant::now()),
                false => self.leaving.next().into_iter().chain(self.stop_at).min(),
            },
            report: &|| self.iommu.report(),
        })
    }

    /// A client of the control socket has said more than was listened to.
    fn client_has_unread(&self) -> bool {
        self.control.as_ref().is_some_and(Control::has_unread)
    }

    /// So has gdb.
    fn debugger_has_unread(&self) -> bool {
        self.debugger.as_ref().is_some_and(Debugger::has_unread)
    }

    fn wish_of_a_client(&mut self, board: &Board) -> Option<Request> {
        let mut control = self.control.take()?;
        let wish = control.hear(&Telling {
            platform: self,
            board,
        });
        self.control = Some(control);
        Some(match wish? {
            control::Wish::Pause => Request::Pause,
            control::Wish::Resume => Request::Resume,
            control::Wish::Reset => Request::Again,
            control::Wish::Quit => Request::QuitByClient,
            control::Wish::Powerdown => Request::Powerdown,
            control::Wish::Attach(ticket, attachment) => Request::Attach(ticket, attachment),
            control::Wish::Detach(ticket, id, force) => Request::Detach(ticket, id, force),
        })
    }

    fn requests_of(&mut self, wake: Wake, board: &Board) -> Vec<Request> {
        match wake {
            Wake::Control => Vec::new(),
            Wake::Event(event) => vec![Request::Guest(event)],
            Wake::Signal if self.gives_time() => vec![Request::Stop],
            Wake::Signal | Wake::Quit => vec![Request::Quit],
            Wake::Host => self.wishes_of_the_host(),
            Wake::Debugger => self.wish_of_the_debugger(board).into_iter().collect(),
            Wake::Deadline => {
                let now = Instant::now();
                if self.stop_at.is_some_and(|until| until <= now) {
                    log::warn!("The guest did not power off in its time");
                    return vec![Request::Quit];
                }
                let overdue = self.leaving.overdue(now).into_iter();
                let request = |port| match self.leaving.may_stay(port) {
                    true => Request::Kept(port),
                    false => Request::Overdue(port),
                };
                overdue.map(request).collect()
            }
        }
    }

    /// Whether a signal that asks for the end lets the guest power off first; a second one does not.
    fn gives_time(&self) -> bool {
        self.stop_timeout.is_some() && self.stop_at.is_none()
    }

    fn press(&mut self, board: &Board, is_timed: bool) {
        board.press_power_button();
        if let Some(time) = self.stop_timeout.filter(|_| is_timed) {
            log::info!("The guest has {} s to power off", time.as_secs());
            self.stop_at = Some(Instant::now() + time);
        }
        if let Some(control) = &mut self.control {
            control.pressed();
        }
    }

    fn wish_of_the_debugger(&mut self, board: &Board) -> Option<Request> {
        let scene = self.scene(board);
        let debugger = self.debugger.as_mut()?;
        debugger.look_at(Box::new(scene));
        match debugger.hear() {
            Wish::Nothing => None,
            Wish::Stop => Some(Request::Hold),
            Wish::Go => Some(Request::GoOn),
            Wish::Quit => Some(Request::Quit),
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

    /// Does what the table says; what is next, where the vCPUs stop by it or go on.
    fn follow(&mut self, state: State, request: Request, board: &mut Board) -> Option<Turn> {
        let cause = telling::cause(&request);
        let panics = request == Request::Guest(Event::GuestPanic);
        match state::answer(state, request, self.rules) {
            Answer::Stop(next) => {
                if let (true, Some(control)) = (panics, &mut self.control) {
                    control.panicked();
                }
                return Some(Turn::Over(next, cause));
            }
            Answer::Pause => return Some(Turn::Pause),
            Answer::Resume => return Some(Turn::Resume),
            Answer::Hold(exit) => return Some(Turn::Hold(exit)),
            Answer::GoOn => return Some(Turn::GoOn),
            Answer::Ask(port, why) => self.ask(board, port, &why),
            Answer::Pull(port, why) => self.let_go(board, port, why),
            Answer::Press(is_timed) => self.press(board, is_timed),
            Answer::Attach(ticket, attachment) => self.attach(ticket, &attachment),
            Answer::Detach(ticket, id, force) => self.detach(ticket, &id, force, board),
            Answer::Keep(port) => self.keep(port, board),
            Answer::Tell(what) => log::error!("{what}"),
            Answer::Later | Answer::Forget => {}
        }
        None
    }
}

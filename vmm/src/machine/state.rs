//! A machine's life as a table: where it is, what can be asked of it there, and what follows.

use std::fmt;

use crate::config::{Config, OnDeviceError};
use crate::control::{Attachment, Ticket};
use crate::events::Event;
use crate::kvm::vcpu::DebugExit;

/// Where a machine is in its life. A run is Starting, Running, Stopping, then over or Starting again; with a debugger or
/// a client of the control socket it is Held and Running by turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is built, or its emulated devices are built anew and the kernel is loaded. No vCPU runs.
    Starting,
    /// vCPUs run, and the event loop serves them, the user and the host.
    Running,
    /// No vCPU runs, and the guest goes on later: it is in the hands of a debugger, of a client of the control
    /// socket, or of both, and goes on when neither holds it. The event loop serves them, the user and the host.
    Held,
    /// vCPUs leave the guest one after another, and report what they still meet. Then none runs.
    Stopping,
}

/// Something that is asked of a machine, or happens to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// A vCPU saw it.
    Guest(Event),
    /// The user asks for the end, or a signal does for a second time, or the guest did not follow the first one.
    Quit,
    /// A signal asks for the end, in a machine that lets the guest power off first.
    Stop,
    /// A client wants the guest to power off.
    Powerdown,
    /// A client of the control socket asks for it.
    QuitByClient,
    /// A client wants the guest to start again.
    Again,
    /// A client wants the guest to stand still.
    Pause,
    /// A client lets it go on, as far as a debugger does.
    Resume,
    /// A debugger wants the guest to stand still.
    Hold,
    /// It lets the guest go on.
    GoOn,
    /// The host wants the device behind this root port back; its name.
    Wanted(u8, String),
    /// A device behind this root port reports errors; the text names both.
    Broken(u8, String),
    /// The guest was asked to let go of the devices behind this root port, and its time for that is over.
    Overdue(u8),
    /// A client wants a device to come.
    Attach(Ticket, Attachment),
    /// A client wants the device with this id to leave, at once where it is `true`.
    Detach(Ticket, String, bool),
    /// It was asked by a client, its time is over, and the host does not need the device.
    Kept(u8),
}

/// What the machine does about a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// All vCPUs stop, and this is next.
    Stop(Next),
    /// The guest is asked to let go of the devices behind the port; if it does not listen, they are pulled. The
    /// text says why.
    Ask(u8, String),
    /// The devices behind the port are taken out of the guest and given back.
    Pull(u8, Departure),
    /// The guest's power button is pressed. Where it is `true`, the guest has so much time and no more.
    Press(bool),
    /// A device is sent for.
    Attach(Ticket, Attachment),
    /// A device is sent away.
    Detach(Ticket, String, bool),
    /// The guest keeps the devices behind the port, and clients are told.
    Keep(u8),
    /// It is said, and the guest keeps the device.
    Tell(String),
    /// The vCPUs stand still for a debugger, who may be waiting for this exit of one.
    Hold(Option<DebugExit>),
    /// They stand still until a client lets them go on.
    Pause,
    /// No client holds them any more.
    Resume,
    /// They go on where they stand.
    GoOn,
    /// It waits where it was asked, in a signal's or the host's own event, for a state in which it is served.
    Later,
    /// It was the wish of a guest that is gone.
    Forget,
}

/// What a machine does when its vCPUs have stopped.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It starts the guest from the beginning.
    Restart,
    /// The run ends with this outcome.
    End(Outcome),
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest powered off, or the user ended it.
    PoweredOff,
    /// The guest reset and was not to be started again.
    Reset,
    /// The guest's kernel panicked.
    Panicked,
    /// The host could not go on; why.
    Failed(String),
}

/// Why a device leaves the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    /// The guest switched its slot off.
    LetGo,
    /// The guest kept it for longer than it may.
    Overdue,
    /// The guest was reset meanwhile: the next boot knows nothing of what this one was asked for.
    Reset,
    /// The guest would not hear that it is asked.
    Deaf,
    /// A client did not want the guest to be asked.
    Forced,
}

/// What the user chose for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// A reset by the guest ends the run (`--no-reboot`).
    pub(super) no_reboot: bool,
    /// What becomes of a device that reports an error (`--on-device-error`).
    pub(super) on_device_error: OnDeviceError,
}

impl Rules {
    /// The part of `config` that decides what follows.
    pub(super) fn of(config: &Config) -> Self {
        Self {
            no_reboot: config.no_reboot,
            on_device_error: config.on_device_error,
        }
    }
}

/// The table: what follows from `request` in `state`.
pub(super) fn answer(state: State, request: Request, rules: Rules) -> Answer {
    use Event::{Carried, Debug, Ejected, Failed, GuestPanic, PowerOff, Reset, TripleFault};
    use Request::{
        Again, Attach, Broken, Detach, GoOn, Guest, Hold, Kept, Overdue, Pause, Powerdown, Quit,
        QuitByClient, Resume, Stop, Wanted,
    };
    use State::{Held, Running, Starting, Stopping};
    let end = |outcome| Answer::Stop(Next::End(outcome));
    match (state, request) {
        // A client may have stopped the guest in the same moment; then both hold it.
        (Running | Held, Guest(Debug(exit))) => Answer::Hold(Some(exit)),
        (Running | Held, Hold) => Answer::Hold(None),
        (Running | Held, Pause) => Answer::Pause,
        (Held, Resume) => Answer::Resume,
        (Running, Resume) => Answer::Forget,
        (Held, GoOn) => Answer::GoOn,
        (Running, GoOn) => Answer::Forget,
        // The last thing that a vCPU did before all stood still, or what the host wants of a guest whether it runs or
        // not: one that stands still lets go of no device, which is pulled when its time is over.
        (Running | Held, Guest(Reset) | Again) if rules.no_reboot => end(Outcome::Reset),
        (Running | Held, Guest(Reset) | Again) => Answer::Stop(Next::Restart),
        (Running | Held, Guest(PowerOff)) => end(Outcome::PoweredOff),
        (Running | Held, Guest(GuestPanic | TripleFault)) => end(Outcome::Panicked),
        (Running | Held, Guest(Failed(why))) => end(Outcome::Failed(why)),
        (Running | Held, Guest(Ejected(port))) => Answer::Pull(port, Departure::LetGo),
        (Running | Held, Wanted(port, name)) => {
            Answer::Ask(port, format!("{name}: the host asks for the device back"))
        }
        (Running | Held, Broken(port, what)) => broken(port, what, rules.on_device_error),
        (Running | Held, Overdue(port)) => Answer::Pull(port, Departure::Overdue),
        (Running | Held, Kept(port)) => Answer::Keep(port),
        (Running | Held, Attach(ticket, attachment)) => Answer::Attach(ticket, attachment),
        (Running | Held, Detach(ticket, id, force)) => Answer::Detach(ticket, id, force),
        // Whoever runs the loop looks what it is.
        (Running | Held, Guest(Carried)) => Answer::Forget,
        // A vCPU that stops may meet a reset, an end or an error that another has reported already.
        (Stopping | Starting, Guest(_)) => Answer::Forget,
        (Stopping, Overdue(port)) => Answer::Pull(port, Departure::Reset),
        (Starting, Overdue(_)) | (Starting | Stopping, Kept(_)) => Answer::Forget,
        (Running | Held, Stop) => Answer::Press(true),
        (Running | Held, Powerdown) => Answer::Press(false),
        (Running | Held | Starting, Quit | QuitByClient) | (Starting, Stop) => end(Outcome::PoweredOff),
        (Stopping, Quit | QuitByClient | Stop) => Answer::Later,
        (Stopping | Starting, Wanted(..) | Broken(..) | Hold) => Answer::Later,
        // Nobody listens to clients there.
        (Stopping | Starting, Powerdown | GoOn | Again | Pause | Resume | Attach(..) | Detach(..)) => {
            Answer::Forget
        }
    }
}

fn broken(port: u8, what: String, rule: OnDeviceError) -> Answer {
    match rule {
        OnDeviceError::Ignore => Answer::Tell(format!("{what}; the guest keeps it")),
        OnDeviceError::Stop => {
            let why = format!("{what}, and --on-device-error is stop");
            Answer::Stop(Next::End(Outcome::Failed(why)))
        }
        OnDeviceError::Unplug => Answer::Ask(port, format!("{what}; it is unplugged from the guest")),
    }
}

impl Answer {
    /// How the run is over by it; a request that does not end it leaves it as after a power-off.
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Answer::Stop(Next::End(outcome)) => outcome,
            _ => Outcome::PoweredOff,
        }
    }
}

impl Outcome {
    /// The exit code of `strait run`; 32 and 34 are crosvm's.
    pub fn exit_code(&self) -> u8 {
        match self {
            Outcome::PoweredOff => 0,
            Outcome::Failed(_) => 1,
            Outcome::Reset => 32,
            Outcome::Panicked => 34,
        }
    }
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Departure::LetGo => "the guest let go of it",
            Departure::Overdue => "pulled, for the guest did not let go of it in 30 s",
            Departure::Reset => "pulled, for the guest was reset before it let go of it",
            Departure::Forced => "pulled by force",
            Departure::Deaf => "pulled, for the guest does not listen to hot plug",
        })
    }
}

#[cfg(test)]
mod tests;

//! Every cell of the table.

use super::Event::{Carried, Debug, Ejected, Failed, GuestPanic, PowerOff, Reset, TripleFault};
use super::Request::{
    Again, Attach, Broken, Detach, GoOn, Guest, Hold, Kept, Overdue, Pause, Powerdown, Quit, QuitByClient,
    Resume, Stop, Wanted,
};
use super::State::{Held, Running, Starting, Stopping};
use super::*;

const STATES: [State; 4] = [Starting, Running, Held, Stopping];

const EXIT: DebugExit = DebugExit {
    vcpu: 0,
    pc: 0x1000,
    exception: 3,
    dr6: 0,
};

const RULES: Rules = Rules {
    no_reboot: false,
    on_device_error: OnDeviceError::Unplug,
};

/// One of each kind.
fn requests() -> Vec<Request> {
    vec![
        Guest(Reset),
        Guest(PowerOff),
        Guest(GuestPanic),
        Guest(TripleFault),
        Guest(Failed("KVM".to_owned())),
        Guest(Ejected(1)),
        Quit,
        Wanted(1, "nic".to_owned()),
        Broken(1, "nic: AER".to_owned()),
        Overdue(1),
        Guest(Debug(EXIT)),
        Hold,
        GoOn,
        QuitByClient,
        Again,
        Pause,
        Resume,
        Guest(Carried),
        Attach(7, attachment()),
        Detach(7, "nic".to_owned(), true),
        Kept(1),
        Stop,
        Powerdown,
    ]
}

fn attachment() -> Attachment {
    Attachment {
        device: "host=01:00.0".to_owned(),
        others: Vec::new(),
    }
}

/// Where a request stands in [`requests`]: a new one does not compile until it has its place.
fn place(request: &Request) -> usize {
    match request {
        Guest(Reset) => 0,
        Guest(PowerOff) => 1,
        Guest(GuestPanic) => 2,
        Guest(TripleFault) => 3,
        Guest(Failed(_)) => 4,
        Guest(Ejected(_)) => 5,
        Quit => 6,
        Wanted(..) => 7,
        Broken(..) => 8,
        Overdue(_) => 9,
        Guest(Debug(_)) => 10,
        Hold => 11,
        GoOn => 12,
        QuitByClient => 13,
        Again => 14,
        Pause => 15,
        Resume => 16,
        Guest(Carried) => 17,
        Attach(..) => 18,
        Detach(..) => 19,
        Kept(_) => 20,
        Stop => 21,
        Powerdown => 22,
    }
}

/// The same for a state.
fn column(state: State) -> usize {
    match state {
        Starting => 0,
        Running => 1,
        Held => 2,
        Stopping => 3,
    }
}

fn end(outcome: Outcome) -> Answer {
    Answer::Stop(Next::End(outcome))
}

fn ask(why: &str) -> Answer {
    Answer::Ask(1, why.to_owned())
}

#[test]
fn every_request_has_its_answer_in_every_state() {
    use Answer::{Forget, Later, Pull};
    let failed = || end(Outcome::Failed("KVM".to_owned()));
    let (ended, panicked) = (|| end(Outcome::PoweredOff), || end(Outcome::Panicked));
    let restart = || Answer::Stop(Next::Restart);
    let let_go = || Pull(1, Departure::LetGo);
    let wanted = || ask("nic: the host asks for the device back");
    let broken = || ask("nic: AER; it is unplugged from the guest");
    let attach = || Answer::Attach(7, attachment());
    let detach = || Answer::Detach(7, "nic".to_owned(), true);
    let overdue = || Pull(1, Departure::Overdue);
    let table: [[Answer; 4]; 23] = [
        // Starting, Running, Held, Stopping
        [Forget, restart(), restart(), Forget],
        [Forget, ended(), ended(), Forget],
        [Forget, panicked(), panicked(), Forget],
        [Forget, panicked(), panicked(), Forget],
        [Forget, failed(), failed(), Forget],
        [Forget, let_go(), let_go(), Forget],
        [ended(), ended(), ended(), Later],
        [Later, wanted(), wanted(), Later],
        [Later, broken(), broken(), Later],
        [Forget, overdue(), overdue(), Pull(1, Departure::Reset)],
        [Forget, Answer::Hold(Some(EXIT)), Answer::Hold(Some(EXIT)), Forget],
        [Later, Answer::Hold(None), Answer::Hold(None), Later],
        [Forget, Forget, Answer::GoOn, Forget],
        [ended(), ended(), ended(), Later],
        [Forget, restart(), restart(), Forget],
        [Forget, Answer::Pause, Answer::Pause, Forget],
        [Forget, Forget, Answer::Resume, Forget],
        [Forget, Forget, Forget, Forget],
        [Forget, attach(), attach(), Forget],
        [Forget, detach(), detach(), Forget],
        [Forget, Answer::Keep(1), Answer::Keep(1), Forget],
        [ended(), Answer::Press(true), Answer::Press(true), Later],
        [Forget, Answer::Press(false), Answer::Press(false), Forget],
    ];
    let requests = requests();
    assert_eq!(requests.len(), table.len());
    for (row, request) in requests.iter().enumerate() {
        assert_eq!(place(request), row);
        for state in STATES {
            let answer = answer(state, request.clone(), RULES);
            assert_eq!(answer, table[row][column(state)], "{request:?} while {state:?}");
        }
    }
}

#[test]
fn a_reset_ends_the_run_where_the_user_wants_no_reboot() {
    let rules = Rules {
        no_reboot: true,
        ..RULES
    };
    assert_eq!(answer(Running, Guest(Reset), rules), end(Outcome::Reset));
    assert_eq!(answer(Held, Again, rules), end(Outcome::Reset));
    let others = requests()
        .into_iter()
        .filter(|request| !matches!(request, Guest(Reset) | Again));
    for request in others {
        let without = answer(Running, request.clone(), RULES);
        assert_eq!(answer(Running, request, rules), without, "nothing else changes");
    }
}

#[test]
fn a_device_error_does_what_the_user_wants() {
    let with = |on_device_error| {
        let rules = Rules {
            on_device_error,
            ..RULES
        };
        answer(Running, Broken(1, "nic: AER".to_owned()), rules)
    };
    let stopped = "nic: AER, and --on-device-error is stop".to_owned();
    assert_eq!(with(OnDeviceError::Stop), end(Outcome::Failed(stopped)));
    assert_eq!(
        with(OnDeviceError::Ignore),
        Answer::Tell("nic: AER; the guest keeps it".to_owned())
    );
}

#[test]
fn each_end_has_a_code_of_its_own() {
    let codes = [
        Outcome::PoweredOff,
        Outcome::Failed(String::new()),
        Outcome::Reset,
        Outcome::Panicked,
    ];
    assert_eq!(codes.map(|outcome| outcome.exit_code()), [0, 1, 32, 34]);
}

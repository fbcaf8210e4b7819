//! A virtual machine from its description to its end.
//!
//! [`run`] is the whole life. [`CheckedHost`] is what is checked before anything changes; [`Platform`] is what
//! stays through a guest's reset: KVM's virtual machine, RAM, open devices and their DMA; [`Board`] is
//! what is made anew each time: every emulated device, in the state after power-on.

mod about;
mod board;
mod error;
mod host;
mod inspect;
mod iommu;
mod leaving;
mod managed;
mod passthrough;
mod platform;
mod plug;
mod porter;
mod ram;
mod reception;
mod seat;
mod serve;
mod state;
mod statistics;
mod telling;
mod unplug;

use std::error::Error;
use std::sync::Arc;

pub use board::Board;
pub use error::RunError;
pub use host::CheckedHost;
pub use managed::Managed;
pub use platform::Platform;
pub use state::Outcome;

use strait_devices::Chain;
use strait_vfio::host::{Host, Root, RunningKernel};

use self::state::{Next, Request, Rules, State};
use crate::config::Config;
use crate::event_loop::EventLoop;
use crate::open_files::{self, OpenFiles};
use crate::output::Outputs;
use crate::signals::{Ended, Signals};
use crate::status::Status;
use crate::terminal::RawMode;
use crate::user::User;

/// Runs the machine that `config` describes until its guest ends or the user ends it.
///
/// # Errors
/// When the host cannot run it: before the guest starts nothing on the host has changed then.
pub fn run(config: &Config, outputs: Arc<Outputs>) -> Result<Outcome, RunError> {
    let mut status = Status::open(config.status.as_ref())?;
    let ended = run_and_tell(config, outputs, &mut status);
    match &ended {
        Ok(Outcome::Failed(why)) => status.stopped(1, Some(why)),
        Ok(outcome) => status.stopped(outcome.exit_code(), None),
        Err(error) => status.stopped(1, Some(&Chain(&**error).to_string())),
    }
    ended
}

/// The same with all that is told of it but the end.
fn run_and_tell(config: &Config, outputs: Arc<Outputs>, status: &mut Status) -> Result<Outcome, RunError> {
    let host = CheckedHost::check(config)?;
    // Before anything changes: from here on a signal ends the run by the way that undoes it.
    let user = User {
        signals: Arc::new(Signals::take_over()?),
        outputs,
    };
    let ended = run_on(config, host, &user, status);
    if user.signals.hand_back() {
        user.outputs.give_up();
    }
    match ended {
        Err(error) if is_end(&*error) => {
            log::info!("{Ended}");
            Ok(state::answer(State::Starting, Request::Quit, Rules::of(config)).outcome())
        }
        ended => ended,
    }
}

fn run_on(config: &Config, host: CheckedHost, user: &User, status: &mut Status) -> Result<Outcome, RunError> {
    // First, so that it is dropped last: a device goes back when nobody has it open.
    let (root, kernel) = (Root::real(), RunningKernel);
    let _managed = Managed::take(Host::new(&root, &kernel), config.managed_devices())?;
    user.signals.go_on()?;
    host.check_devices(config)?;
    let _raised = OpenFiles::raise();
    let mut platform = Platform::build(config, host, user)?;
    open_files::check(&platform.vectors());
    user.signals.go_on()?;
    let mut event_loop = EventLoop::new(user);
    let _raw_mode = RawMode::enter()?;
    let mut board = Board::build(&platform)?;
    // Behind the first memory slots: since Linux 6.18 each change of them waits for the kernel to be done with zones that
    // were registered shortly before, 10 ms (`kvm_io_bus_register_dev`, virt/kvm/kvm_main.c).
    platform.vm.note_index_writes()?;
    loop {
        match platform.run_guest(&mut board, &mut event_loop, status)? {
            Next::Restart => board.reset_devices(),
            Next::End(outcome) => return Ok(outcome),
        }
        user.signals.go_on()?;
        drop(board);
        board = Board::build(&platform)?;
    }
}

/// Whether a step of the start gave up because a signal asked for the end.
fn is_end(error: &(dyn Error + 'static)) -> bool {
    error.is::<Ended>() || error.source().is_some_and(is_end)
}

#[cfg(test)]
mod tests {
    use strait_devices::Place;
    use strait_devices::address_space::AddressSpace;
    use strait_devices::region::Region;
    use strait_devices::testing::FakeDomain;
    use strait_vfio::domain::Identity;

    use super::*;
    use crate::layout::Range;
    use crate::memory::{GuestRam, RamSource};

    #[test]
    fn an_end_between_two_pieces_of_ram_is_no_failure() {
        let ram = GuestRam::new(&[Range::new(0, 4 << 20)], &RamSource::default()).expect("RAM");
        let populated = ram.populate(|_| Err::<(), RunError>(Ended.into()));
        assert!(is_end(&*populated.expect_err("ended")));

        let space = AddressSpace::new();
        for (start, backing) in ram.blocks() {
            space
                .add(Place::Memory(start), Region::ram(backing))
                .expect("free");
        }
        let identity = Identity::new(FakeDomain::new(), Box::new(|| Err(Ended.into())));
        let mapped = space.add_listener(Arc::new(identity)).map_err(RunError::from);
        assert!(is_end(&*mapped.expect_err("ended")));
    }

    #[test]
    fn what_else_goes_wrong_is_a_failure() {
        let error: RunError = std::io::Error::from(std::io::ErrorKind::Interrupted).into();
        assert!(!is_end(&*error));
    }
}

//! A virtual machine from its description to its end.
//!
//! [`run`] is the whole life. [`Host`] is what is checked before anything changes; [`Platform`] is what
//! stays through a guest's reset: KVM's virtual machine, RAM, open devices and their DMA; [`Board`] is
//! what is made anew each time: every emulated device, in the state after power-on.

mod board;
mod host;
mod managed;
mod passthrough;
mod platform;
mod seat;
mod state;
mod unplug;
mod viommu;

use std::error::Error;

pub use board::Board;
pub use host::Host;
pub use managed::Managed;
pub use platform::Platform;
pub use state::{Event, Events, Next, Outcome};
pub use viommu::Viommu;

use strait_vfio::host::{Root, RunningKernel};

use crate::config::Config;
use crate::event_loop::EventLoop;
use crate::terminal::RawMode;

/// Anything that ends a run; messages are for users.
pub type RunError = Box<dyn Error + Send + Sync>;

/// Runs the machine that `config` describes until its guest ends or the user ends it.
///
/// # Errors
/// When the host cannot run it: before the guest starts nothing on the host has changed then.
pub fn run(config: &Config) -> Result<Outcome, RunError> {
    let host = Host::check(config)?;
    // First, so that it is dropped last: a device goes back when nobody has it open.
    let (root, kernel) = (Root::real(), RunningKernel);
    let _managed = Managed::take(&root, &kernel, config.managed_devices())?;
    host.check_devices(config)?;
    let mut platform = Platform::build(config, host)?;
    let mut event_loop = EventLoop::new()?;
    let _raw_mode = RawMode::enter()?;
    loop {
        let mut board = Board::build(&platform)?;
        let event = platform.run_guest(&mut board, &mut event_loop)?;
        match state::next(event, config.no_reboot) {
            Next::Restart => board.reset_devices(),
            Next::End(outcome) => return Ok(outcome),
        }
    }
}

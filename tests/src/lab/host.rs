//! The Linux in the lab machine, once it answers.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::machine::{Console, Host, Machine};
use super::{Logs, Share};
use crate::agent::Agent;
use crate::supplies::Supplies;

/// Six seconds are usual on a quiet machine.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// A booted lab host and the agent in it.
pub(crate) struct LabHost {
    /// First, so that it is dropped before the machine it speaks to.
    pub(crate) agent: Agent,
    _machine: Machine,
    _share: Share,
}

impl LabHost {
    /// Boots the lab host. One that never came up is tried once more, and said.
    pub(crate) fn boot(supplies: &Supplies, logs: &Logs, strait: Option<&Path>, kind: Host) -> Result<Self> {
        match Self::try_boot(supplies, logs, strait, kind) {
            Ok(host) => Ok(host),
            Err(error) => {
                eprintln!("The lab host did not come up ({error:#}), trying once more");
                Self::try_boot(supplies, logs, strait, kind).with_context(|| {
                    format!(
                        "The lab host did not come up twice, see {}",
                        console(logs).display()
                    )
                })
            }
        }
    }

    fn try_boot(supplies: &Supplies, logs: &Logs, strait: Option<&Path>, kind: Host) -> Result<Self> {
        let start = Instant::now();
        let share = Share::new(supplies, strait)?;
        let mut machine = Machine::start(supplies, &share, kind, &Console::Log(console(logs)))?;
        let agent = Agent::new(machine.connect()?)?;
        agent.is_up(BOOT_LIMIT)?;
        eprintln!("  The lab host is up ({:.1} s)", start.elapsed().as_secs_f64());
        Ok(Self {
            agent,
            _machine: machine,
            _share: share,
        })
    }
}

fn console(logs: &Logs) -> std::path::PathBuf {
    logs.path("host-console.log")
}

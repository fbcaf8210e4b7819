//! The guest's clock is the host's.

use anyhow::{Result, ensure};

use super::{Lab, Scenario};
use crate::guest::{GuestConfig, number};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new("clock", "the guest starts with the host's time", 90, clock)]
}

fn clock(lab: &Lab<'_>) -> Result<()> {
    lab.run(&GuestConfig::default(), |guest| {
        let inside = number(guest, "date +%s")?;
        let outside: u64 = lab.agent.sh("date +%s")?.trim().parse()?;
        ensure!(
            inside.abs_diff(outside) < 60,
            "The guest's clock says {inside}, the host's {outside}"
        );
        Ok(())
    })
}

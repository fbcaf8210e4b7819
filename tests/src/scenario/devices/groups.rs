//! Several groups in one guest: each device in its own, all in one container.

use anyhow::Result;

use super::interrupts::at_once;
use super::take;
use crate::guest::kept;
use crate::lab::devices::{NIC, NVME, RTL8139};
use crate::scenario::{Lab, Scenario};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "groups",
        "a NIC by messages, one by wire and a drive in one guest, both NICs at work together",
        300,
        groups,
    )]
}

fn groups(lab: &Lab<'_>) -> Result<()> {
    let config = take(lab, &[NIC.at(), NVME.at(), RTL8139.at()])?;
    lab.run(&config, |guest| {
        guest.sh("load igb 8139cp nvme")?;
        let (eth0, eth1) = (lab.eth0(), lab.interface("eth1", "10.0.3"));
        eth0.up(guest, "igb")?;
        eth0.ping(guest)?;
        eth0.fetch(guest)?;
        eth1.up(guest, "8139cp")?;
        at_once(guest, &eth0, &eth1)?;
        kept(guest, "/dev/nvme0n1", 8)
    })
}

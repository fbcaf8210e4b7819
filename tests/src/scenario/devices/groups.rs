//! Several groups in one guest: each device in its own, all in one container.

use anyhow::Result;

use super::{NVME, RTL8139, config, ping_and_fetch, run, says_the_same, with_words};
use crate::lab::NIC;
use crate::scenario::{Context, Scenario, Verdict};

const DEVICES: [&str; 3] = [NIC, NVME, RTL8139];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(
        "groups",
        "a NIC by messages, one by wire and a drive in one guest, both NICs at work together",
        300,
        groups,
    )]
}

fn groups(lab: &Context) -> Result<Verdict> {
    let steps = "net,ping3,fetch,second,little";
    let config = with_words(
        config(lab, &DEVICES, "igb,8139cp,nvme", steps),
        "lab.second=10.0.3",
    );
    run(lab, &DEVICES, &config, |guest| {
        ping_and_fetch(lab, guest)?;
        for nic in ["first", "second"] {
            lab.check_hash(&guest.expect(nic)?)?;
        }
        says_the_same(guest)
    })
}

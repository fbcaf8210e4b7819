//! Expansion ROMs: the device's own, another, and none.

use anyhow::{Context as _, Result, ensure};

use super::{E1000E, MEDIA, config, run, says};
use crate::scenario::{Context, Scenario, Verdict};

/// The devices: the first has a ROM, the second gets one, the third's is hidden.
const DEVICES: [&str; 3] = [E1000E[0], E1000E[1], MEDIA[0]];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "rom",
            "a NIC's own expansion ROM, one from a file, and one that is hidden",
            240,
            rom,
        )
        .strait_only(),
    ]
}

/// What the host reads as the first device's ROM, and another with the same header.
const HASHES: &str = "cd /sys/bus/pci/devices; [ -e 0000:00:12.0/rom ]
    echo 1 > 0000:05:00.0/rom; cat 0000:05:00.0/rom > /run/own; echo 0 > 0000:05:00.0/rom
    { head -c 1024 /run/own; head -c 15360 /dev/urandom; } > /run/other
    sha256sum < /lab/card.rom; sha256sum < /run/own; sha256sum < /run/other";

fn rom(lab: &Context) -> Result<Verdict> {
    let text = lab.agent.sh(HASHES)?;
    let hashes: Vec<&str> = text.split_whitespace().filter(|word| *word != "-").collect();
    let [card, own, other] = hashes[..]
        .try_into()
        .context("The lab host cannot read the ROM")?;
    ensure!(card == own, "The lab host reads another ROM than its card has");
    let devices = [
        DEVICES[0].to_owned(),
        format!("{},romfile=/run/other", DEVICES[1]),
        format!("{},rombar=off", DEVICES[2]),
    ];
    let config = config(lab, &devices.each_ref().map(String::as_str), "", "roms");
    run(lab, &DEVICES, &config, |guest| {
        says(guest, "rom", own)?;
        says(guest, "rom", other)?;
        says(guest, "rom", "none")
    })
}

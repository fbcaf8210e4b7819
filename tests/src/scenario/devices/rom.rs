//! Expansion ROMs: the device's own, another, and none.

use anyhow::{Context as _, Result, ensure};

use super::{take, with};
use crate::guest::says;
use crate::lab::devices::{E1000E, VGA};
use crate::scenario::{Lab, Scenario};

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

/// The ROM of each device, as a program in the guest finds it.
const ROMS: &str = "for folder in /sys/bus/pci/devices/0000:0[1-9]:*; do
        found=none
        if [ -e $folder/rom ]; then
            use $folder; echo 1 > $folder/rom
            found=$(sha256sum < $folder/rom | cut -d ' ' -f 1)
        fi
        echo $found
    done";

/// The first device has a ROM, the second gets one, the third's is hidden.
fn rom(lab: &Lab<'_>) -> Result<()> {
    let text = lab.agent.sh(HASHES)?;
    let hashes: Vec<&str> = text.split_whitespace().filter(|word| *word != "-").collect();
    let [card, own, other] = hashes[..]
        .try_into()
        .context("The lab host cannot read the ROM")?;
    ensure!(card == own, "The lab host reads another ROM than its card has");
    let (first, second) = (E1000E.functions[0], E1000E.functions[1]);
    take(lab, &[first, second, VGA.at()])?;
    let second = format!("{second},romfile=/run/other");
    let third = format!("{},rombar=off", VGA.at());
    lab.run(&with(&[first, &second, &third]), |guest| {
        says(guest, ROMS, &format!("{own}\n{other}\nnone"))
    })
}

//! Booting without any device: tells a machine problem from a device problem.

use anyhow::{Result, ensure};

use super::{Lab, Scenario};
use crate::guest::{GuestConfig, says};
use crate::supplies::{HOST_SERIES, OLD_SERIES};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "boot-bzimage",
            "a bzImage boots without any device and powers off",
            90,
            |lab| boot(lab, "vmlinuz", HOST_SERIES, 1),
        ),
        Scenario::new("boot-vmlinux", "a vmlinux boots by its PVH note", 90, |lab| {
            boot(lab, "vmlinux", HOST_SERIES, 1)
        }),
        Scenario::new("boot-6.1", "Debian's 6.1 kernel boots", 90, |lab| {
            boot(lab, "vmlinuz", OLD_SERIES, 1)
        })
        .full(),
        Scenario::new("boot-smp", "two CPUs come up", 120, |lab| {
            boot(lab, "vmlinuz", HOST_SERIES, 2)
        }),
        Scenario::new("boot-smp-4", "four CPUs come up on two of the host", 600, |lab| {
            boot(lab, "vmlinuz", HOST_SERIES, 4)
        })
        .full(),
        Scenario::new("boot-smp-64", "as many CPUs as a guest can have", 900, |lab| {
            boot(lab, "vmlinuz", HOST_SERIES, 64)
        })
        .full(),
        Scenario::new(
            "console-input",
            "the guest reads what is typed, and outlives a closed input",
            90,
            input,
        ),
    ]
}

fn boot(lab: &Lab<'_>, image: &'static str, series: &'static str, cpus: u32) -> Result<()> {
    lab.needs_kernel(series)?;
    let config = GuestConfig {
        image,
        series,
        cpus,
        ..GuestConfig::default()
    };
    lab.run(&config, |guest| {
        let kernel = guest.sh("uname -r")?;
        ensure!(
            kernel.starts_with(&format!("{series}.")),
            "The guest runs {kernel}, expected {series}"
        );
        says(guest, "nproc", &cpus.to_string())
    })
}

fn input(lab: &Lab<'_>) -> Result<()> {
    lab.start(&GuestConfig::default(), |guest| {
        guest.ready()?;
        guest.type_script("read -r heard; echo I heard $heard")?;
        guest.type_text("hello\n")?;
        let heard = guest.answer("read")?;
        ensure!(heard == "I heard hello", "The guest says `{heard}`");
        guest.type_script("sleep 2; echo alive; leave poweroff")?;
        guest.close_input()?;
        guest.line_with("alive")?;
        guest.expect_end(0).map(drop)
    })
}

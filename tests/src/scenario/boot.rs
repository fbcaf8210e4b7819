//! Booting without any device: tells a machine problem from a device problem.

use anyhow::{Result, ensure};

use super::{Context, Scenario, Verdict};
use crate::guest::GuestConfig;
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
        }),
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

fn boot(lab: &Context, image: &'static str, series: &'static str, cpus: u32) -> Result<Verdict> {
    if !lab.series.contains(&series) {
        return Ok(Verdict::Skipped(format!("this Debian has no {series} kernel")));
    }
    let config = GuestConfig {
        image,
        series,
        cpus,
        ..lab.config("facts")
    };
    lab.with_guest(&config, |guest| {
        let kernel = guest.expect("kernel")?;
        ensure!(
            kernel.starts_with(&format!("{series}.")),
            "The guest runs {kernel}, expected {series}"
        );
        let seen = guest.expect("cpus")?;
        ensure!(
            seen == cpus.to_string(),
            "The guest has {seen} CPUs, expected {cpus}"
        );
        guest.expect_power_off()?;
        Ok(())
    })?;
    Ok(Verdict::Passed)
}

fn input(lab: &Context) -> Result<Verdict> {
    lab.with_guest(&lab.config("ask,ask"), |guest| {
        guest.expect("ask")?;
        guest.type_line("hello")?;
        let heard = guest.expect("answer")?;
        ensure!(heard == "hello", "The guest heard `{heard}`, typed was `hello`");
        guest.expect("ask")?;
        guest.type_line("last")?;
        guest.close_input()?;
        guest.expect("answer")?;
        guest.expect_power_off()?;
        Ok(())
    })?;
    Ok(Verdict::Passed)
}

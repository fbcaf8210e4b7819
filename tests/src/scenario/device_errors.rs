//! Errors that a device reports, and what a guest's policy makes of them.

use anyhow::{Result, ensure};

use super::device_leaves::gone;
use super::{Lab, Scenario};
use crate::guest::GuestConfig;
use crate::lab::devices::REPORTER;

/// The name of the device that reports errors in the lab machine's monitor.
const ID: &str = "reporter";

/// Parts of what the host's kernel says of an error that a device reports.
const REPORTED: [&str; 4] = ["AER: ", "PCIe Bus Error: ", "CmpltTO", "error status/mask="];

/// What strait answers when it cannot go on.
const ERROR: i32 = 1;

pub(super) fn scenarios() -> Vec<Scenario> {
    let with = |name, about, policy, kind, after| {
        Scenario::new(name, about, 240, move |lab| error(lab, policy, kind, after))
            .strait_only()
            .warns(&REPORTED)
    };
    vec![
        with(
            "error-unplug",
            "a NIC reports an error: it is unplugged, the guest goes on",
            &[],
            &TIMEOUT,
            After::Unplugged,
        ),
        with(
            "error-fatal",
            "the same for a fatal one, for which the host resets the link under the guest",
            &[],
            &MALFORMED,
            After::Unplugged,
        )
        .full(),
        with(
            "error-ignore",
            "the same under --on-device-error ignore: the guest keeps it",
            &["--on-device-error", "ignore"],
            &TIMEOUT,
            After::Kept,
        )
        .full(),
        with(
            "error-stop",
            "a fatal one under --on-device-error stop: the guest ends",
            &["--on-device-error", "stop"],
            &MALFORMED,
            After::Ended,
        ),
    ]
}

/// An error, as the lab machine's monitor calls it and as strait does.
struct Kind {
    monitor: &'static str,
    strait: &'static str,
}

/// A completion did not come in time: one access failed.
const TIMEOUT: Kind = Kind {
    monitor: "COMP_TIME",
    strait: "non-fatal CmpltTO",
};

/// A packet cannot be understood, which is fatal: the host trusts no register of the device, counts nothing, and
/// resets the link under it (Linux, drivers/pci/pcie/aer.c).
const MALFORMED: Kind = Kind {
    monitor: "MALF_TLP",
    strait: "an uncorrectable error, which the host does not name",
};

/// What becomes of a guest whose device reported an error.
#[derive(Debug, Clone, Copy)]
enum After {
    Unplugged,
    Kept,
    Ended,
}

fn error(lab: &Lab<'_>, policy: &'static [&'static str], kind: &Kind, after: After) -> Result<()> {
    let config = GuestConfig {
        initrd: "devices",
        more: policy,
        ..GuestConfig::with(&[&lab.take(REPORTER.at())?])
    };
    let eth0 = lab.interface("eth0", "10.0.6");
    let finished = lab.start(&config, |guest| {
        guest.ready()?;
        guest.sh("load virtio_pci virtio_net")?;
        eth0.up(guest, "virtio_net")?;
        eth0.ping(guest)?;
        lab.host.monitor()?.inject_error(ID, kind.monitor)?;
        match after {
            After::Unplugged => gone(guest)?,
            After::Kept => eth0.ping(guest)?,
            After::Ended => return guest.expect_end(ERROR),
        }
        guest.power_off()
    })?;
    let words = format!("{}: the device reports {}", REPORTER.at(), kind.strait);
    ensure!(
        finished.errors.contains(&words),
        "It does not say `{words}`: {}",
        finished.errors
    );
    Ok(())
}

//! The main job: a NIC passed through, driven by the guest's own driver.

use anyhow::{Result, ensure};

use super::{Context, Scenario, Verdict};
use crate::guest::Guest;
use crate::guest::GuestConfig;
use crate::lab::Assigned;

const STEPS: &str = "net,ping3,irqs,fetch,irqs";

/// With one CPU: link changes, receive, transmit; with two a pair of queues each.
pub(super) const PF_VECTORS: usize = 3;

/// igbvf: receive, transmit, mailbox.
const VF_VECTORS: usize = 3;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "pf",
            "igb passed through: link, pings, 32 MiB intact, every MSI-X vector counts",
            180,
            physical_function,
        ),
        Scenario::new(
            "vf",
            "a virtual function with igbvf while the host keeps the physical function up",
            180,
            virtual_function,
        ),
        Scenario::new(
            "pf-affinity",
            "two CPUs, interrupt affinity moved between them while data arrives",
            240,
            affinity,
        ),
        Scenario::new("pf-vmlinux", "the NIC with a vmlinux as kernel", 120, |lab| {
            let nic = lab.bind_nic()?;
            let config = GuestConfig {
                image: "vmlinux",
                ..lab.config_with(&nic, "net,ping3")
            };
            ping(lab, &config)?;
            nic.restore()?;
            Ok(Verdict::Passed)
        }),
        Scenario::new("pf-kernel-6.1", "the NIC with Debian's 6.1 kernel", 120, |lab| {
            let series = crate::supplies::OLD_SERIES;
            if !lab.series.contains(&series) {
                return Ok(Verdict::Skipped(format!("this Debian has no {series} kernel")));
            }
            let nic = lab.bind_nic()?;
            let config = GuestConfig {
                series,
                ..lab.config_with(&nic, "net,ping3")
            };
            ping(lab, &config)?;
            nic.restore()?;
            Ok(Verdict::Passed)
        }),
        Scenario::new("pf-memory-256m", "the NIC in a guest with 256 MiB", 120, |lab| {
            memory(lab, 256)
        }),
        Scenario::new(
            "pf-memory-3g",
            "the NIC in a guest with 3 GiB, all of it pinned",
            180,
            |lab| memory(lab, 3072),
        ),
    ]
}

/// Everything a NIC is for. Returns its interrupt counts.
pub(super) fn exchange(
    lab: &Context,
    guest: &mut Guest<'_>,
    driver: &str,
    vectors: usize,
) -> Result<Vec<(String, Vec<u64>)>> {
    let found = guest.expect("driver")?;
    ensure!(
        found == driver,
        "The guest drives the NIC by {found}, expected {driver}"
    );
    guest.expect("link")?;
    let answered = guest.expect("ping")?;
    ensure!(answered == "3", "{answered} of 3 pings were answered");
    let before = guest.expect_irqs()?;
    lab.check_hash(&guest.expect("fetch")?)?;
    let after = guest.expect_irqs()?;
    ensure!(
        after.len() >= vectors,
        "The guest has {} interrupt vectors for its NIC, expected at least {vectors}",
        after.len()
    );
    for name in ["rx", "tx"] {
        let (was, is) = (total(&before, name), total(&after, name));
        ensure!(
            is > was,
            "The {name} vector counted {was}, then {is} interrupts, while 32 MiB were fetched"
        );
    }
    Ok(after)
}

/// Interrupts of the vectors whose name contains `name`, on all CPUs.
fn total(irqs: &[(String, Vec<u64>)], name: &str) -> u64 {
    let named = irqs.iter().filter(|(vector, _)| vector.contains(name));
    named.flat_map(|(_, counts)| counts).sum()
}

fn physical_function(lab: &Context) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    lab.with_guest(&lab.config_with(&nic, STEPS), |guest| {
        let irqs = exchange(lab, guest, "igb", PF_VECTORS)?;
        lab.check_irqs(&irqs, PF_VECTORS)?;
        guest.expect_power_off()
    })?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

/// The third vector, the mailbox, stays silent: the emulated physical function writes to it only
/// without raising the interrupt, also when the host itself drives the virtual function.
fn virtual_function(lab: &Context) -> Result<Verdict> {
    let nic = Assigned::bind_virtual_function(lab.agent)?;
    lab.with_guest(&lab.config_with(&nic, STEPS), |guest| {
        exchange(lab, guest, "igbvf", VF_VECTORS)?;
        guest.expect_power_off()
    })?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

fn affinity(lab: &Context) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    let config = GuestConfig {
        cpus: 2,
        ..lab.config_with(&nic, "facts,net,ping3,affinity,irqs")
    };
    lab.with_guest(&config, |guest| moved_interrupts(lab, guest))?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

/// What a guest with two CPUs prints that moves its interrupts and ends.
pub(super) fn moved_interrupts(lab: &Context, guest: &mut Guest<'_>) -> Result<()> {
    let cpus = guest.expect("cpus")?;
    ensure!(cpus == "2", "The guest has {cpus} CPUs, expected 2");
    let moves: u64 = guest.expect("moves")?.parse()?;
    ensure!(moves >= 2, "The interrupts were moved only {moves} times");
    lab.check_hash(&guest.expect("fetch")?)?;
    let irqs = guest.expect_irqs()?;
    lab.check_irqs(&irqs, PF_VECTORS)?;
    for cpu in 0..2 {
        let count: u64 = irqs.iter().filter_map(|(_, counts)| counts.get(cpu)).sum();
        ensure!(count > 0, "CPU {cpu} of the guest had no interrupt of the NIC");
    }
    guest.expect_power_off().map(drop)
}

fn ping(lab: &Context, config: &GuestConfig) -> Result<()> {
    lab.with_guest(config, |guest| {
        let answered = guest.expect("ping")?;
        ensure!(answered == "3", "{answered} of 3 pings were answered");
        guest.expect_power_off()?;
        Ok(())
    })
}

fn memory(lab: &Context, memory_mib: u64) -> Result<Verdict> {
    let available = lab.agent.sh("awk '/MemAvailable/ {print $2}' /proc/meminfo")?;
    let available_mib = available.trim().parse::<u64>()? >> 10;
    if available_mib < memory_mib + 512 {
        let reason = format!("the lab host has only {available_mib} MiB free");
        return Ok(Verdict::Skipped(reason));
    }
    let nic = lab.bind_nic()?;
    let config = GuestConfig {
        memory_mib,
        ..lab.config_with(&nic, "facts,net,ping3,fetch")
    };
    lab.with_guest(&config, |guest| {
        let seen_kib: u64 = guest.expect("memory")?.parse()?;
        // The kernel keeps some for itself: its image, page structures, the crash area.
        let least_kib = memory_mib * 1024 * 3 / 4;
        ensure!(
            (least_kib..=memory_mib * 1024).contains(&seen_kib),
            "The guest sees {seen_kib} KiB of {memory_mib} MiB"
        );
        let answered = guest.expect("ping")?;
        ensure!(answered == "3", "{answered} of 3 pings were answered");
        lab.check_hash(&guest.expect("fetch")?)?;
        guest.expect_power_off()?;
        Ok(())
    })?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

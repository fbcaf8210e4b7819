//! The main job: a NIC passed through, driven by the guest's own driver.

use anyhow::{Result, ensure};

use super::{Lab, Scenario};
use crate::guest::{Guest, GuestConfig, Vector, number, says};
use crate::lab::devices::NIC;
use crate::supplies::OLD_SERIES;

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
            |lab| {
                let config = GuestConfig {
                    cpus: 2,
                    ..GuestConfig::with(&[&lab.take(NIC.at())?])
                };
                lab.run(&config, |guest| moved_interrupts(lab, guest))
            },
        ),
        Scenario::new("pf-vmlinux", "the NIC with a vmlinux as kernel", 120, |lab| {
            ping(lab, |config| config.image = "vmlinux")
        })
        .full(),
        Scenario::new("pf-kernel-6.1", "the NIC with Debian's 6.1 kernel", 120, |lab| {
            lab.needs_kernel(OLD_SERIES)?;
            ping(lab, |config| config.series = OLD_SERIES)
        }),
        Scenario::new("pf-memory-256m", "the NIC in a guest with 256 MiB", 120, |lab| {
            memory(lab, 256)
        })
        .full(),
        Scenario::new(
            "pf-memory-3g",
            "the NIC in a guest with 3 GiB, all of it pinned",
            180,
            |lab| memory(lab, 3072),
        ),
    ]
}

/// Everything a NIC is for. Returns its interrupts.
pub(super) fn exchange(
    lab: &Lab<'_>,
    guest: &mut Guest<'_>,
    driver: &str,
    least: usize,
) -> Result<Vec<Vector>> {
    let eth0 = lab.eth0();
    eth0.up(guest, driver)?;
    eth0.ping(guest)?;
    let before = eth0.vectors(guest)?;
    eth0.fetch(guest)?;
    let after = eth0.vectors(guest)?;
    ensure!(
        after.len() >= least,
        "The guest has {} interrupt vectors for its NIC, expected at least {least}",
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
fn total(vectors: &[Vector], name: &str) -> u64 {
    let named = vectors.iter().filter(|vector| vector.name.contains(name));
    named.map(Vector::total).sum()
}

fn physical_function(lab: &Lab<'_>) -> Result<()> {
    let nic = lab.take(NIC.at())?;
    lab.run(&GuestConfig::with(&[&nic]), |guest| {
        exchange(lab, guest, "igb", PF_VECTORS)?;
        lab.eth0().counted(guest, PF_VECTORS).map(drop)
    })
}

/// The third vector, the mailbox, stays silent: the emulated physical function writes to it only
/// without raising the interrupt, also when the host itself drives the virtual function.
fn virtual_function(lab: &Lab<'_>) -> Result<()> {
    let nic = lab.take_virtual_function()?;
    lab.run(&GuestConfig::with(&[&nic]), |guest| {
        exchange(lab, guest, "igbvf", VF_VECTORS).map(drop)
    })
}

/// In a guest with two CPUs: each vector goes from one to the other and back while data arrives.
pub(super) fn moved_interrupts(lab: &Lab<'_>, guest: &mut Guest<'_>) -> Result<()> {
    says(guest, "nproc", "2")?;
    let eth0 = lab.eth0();
    eth0.up(guest, "igb")?;
    eth0.ping(guest)?;
    let said = guest.sh(&format!(
        "({}) > /run/hash & moves=0; cpu=1
         until [ -s /run/hash ]; do
             for irq in $(sed -n 's/^ *\\([0-9]*\\):.*eth0.*/\\1/p' /proc/interrupts); do
                 echo $cpu > /proc/irq/$irq/smp_affinity || fail IRQ $irq does not move
             done
             moves=$((moves + 1)); cpu=$((3 - cpu)); usleep 300000
         done
         echo $moves; cat /run/hash",
        eth0.fetch_line()
    ))?;
    let (moves, hash) = said.split_once('\n').unwrap_or((&said, ""));
    ensure!(
        moves.parse::<u32>()? >= 2,
        "The interrupts were moved only {moves} times"
    );
    eth0.check(hash)?;
    let vectors = eth0.counted(guest, PF_VECTORS)?;
    for cpu in 0..2 {
        let count: u64 = vectors.iter().filter_map(|vector| vector.counts.get(cpu)).sum();
        ensure!(count > 0, "CPU {cpu} of the guest had no interrupt of the NIC");
    }
    Ok(())
}

fn ping(lab: &Lab<'_>, change: impl Fn(&mut GuestConfig)) -> Result<()> {
    let mut config = GuestConfig::with(&[&lab.take(NIC.at())?]);
    change(&mut config);
    lab.run(&config, |guest| {
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)
    })
}

fn memory(lab: &Lab<'_>, memory_mib: u64) -> Result<()> {
    lab.needs_memory(memory_mib)?;
    let config = GuestConfig {
        memory_mib,
        ..GuestConfig::with(&[&lab.take(NIC.at())?])
    };
    lab.run(&config, |guest| {
        let seen_kib = number(guest, "sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")?;
        // The kernel keeps some for itself: its image, page structures, the crash area.
        let least_kib = memory_mib * 1024 * 3 / 4;
        ensure!(
            (least_kib..=memory_mib * 1024).contains(&seen_kib),
            "The guest sees {seen_kib} KiB of {memory_mib} MiB"
        );
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)?;
        lab.eth0().fetch(guest)
    })
}

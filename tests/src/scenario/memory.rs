//! Of which memory of the host RAM is made.

use anyhow::{Context as _, Result, ensure};

use super::{Lab, Scenario};
use crate::guest::{Guest, GuestConfig};
use crate::lab::devices::NIC;

/// The host's pool of pages of 2 MiB.
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
/// What a guest of 512 MiB takes of it.
const PAGES: u64 = 256;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "memory-hugepages",
            "RAM of the host's pool of 2 MiB pages: told what is missing, a NIC at work, over a reboot, all given back",
            240,
            pool,
        )
        .strait_only(),
        Scenario::new(
            "memory-shared",
            "RAM in a file of node 0, taken before a guest without devices starts",
            120,
            shared,
        )
        .strait_only()
        .full(),
        Scenario::new(
            "memory-auto",
            "the pool where it has enough, else what the kernel gives; and the pages of 1 GiB where the host has one",
            300,
            auto,
        )
        .strait_only()
        .full(),
    ]
}

fn pool(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig {
        memory_keys: ",hugepages=2M",
        ..GuestConfig::with(&[&lab.take(NIC.at())?])
    };
    let command = "strait run --kernel /lab/guest/vmlinuz-6.12 --memory 512M,hugepages=2M 2>&1 || true";
    let refused = lab.agent.sh(command)?;
    let remedy = refused.rsplit_once("add them with: ").context("There is no remedy")?.1;
    lab.agent.sh(remedy)?;
    let free = || number(lab, &format!("{POOL}/free_hugepages"));
    ensure!(free()? == PAGES, "`{remedy}` made {} pages", free()?);
    lab.run(&config, |guest| {
        work(lab, guest)?;
        ensure!(free()? == 0, "{} pages are left in the pool", free()?);
        guest.reboot()?;
        work(lab, guest)
    })?;
    ensure!(free()? == PAGES, "A guest kept {} pages", PAGES - free()?);
    lab.agent.sh(&format!("echo 0 > {POOL}/nr_hugepages")).map(drop)
}

fn work(lab: &Lab<'_>, guest: &mut Guest<'_>) -> Result<()> {
    lab.eth0().up(guest, "igb")?;
    lab.eth0().fetch(guest)
}

fn shared(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig {
        memory_mib: 256,
        memory_keys: ",shared=on,prealloc=on,host-nodes=0",
        ..GuestConfig::default()
    };
    lab.run(&config, |guest| {
        let rss = lab.agent.sh(&format!("grep RssShmem /proc/{}/status", guest.pid))?;
        let kib: Option<u64> = rss.split_whitespace().nth(1).and_then(|kib| kib.parse().ok());
        ensure!(kib.is_some_and(|kib| kib >= 256 << 10), "Of its RAM the guest has {rss}");
        guest.sh("dd if=/dev/zero of=/dev/shm/x bs=1M count=64 2>/dev/null").map(drop)
    })
}

fn auto(lab: &Lab<'_>) -> Result<()> {
    let config = |memory_mib, memory_keys| GuestConfig {
        memory_mib,
        memory_keys,
        ..GuestConfig::default()
    };
    let says_its_name = |guest: &mut Guest<'_>| guest.sh("uname").map(drop);
    lab.run(&config(512, ",hugepages=auto"), says_its_name)
        .context("Without a pool")?;
    lab.agent.sh(&format!("echo {PAGES} > {POOL}/nr_hugepages"))?;
    lab.run(&config(512, ",hugepages=auto"), |_| {
        let free = number(lab, &format!("{POOL}/free_hugepages"))?;
        let reserved = number(lab, &format!("{POOL}/resv_hugepages"))?;
        ensure!(free == reserved, "{} pages are for others", free - reserved);
        Ok(())
    })?;
    lab.agent.sh(&format!("echo 0 > {POOL}/nr_hugepages"))?;
    let giant = format!("{}/nr_hugepages", POOL.replace("2048", "1048576"));
    lab.agent.sh(&format!("echo 1 > {giant}"))?;
    if number(lab, &giant)? == 1 {
        lab.run(&config(1024, ",hugepages=1G,prealloc=on"), says_its_name)
            .context("With a page of 1 GiB")?;
    }
    lab.agent.sh(&format!("echo 0 > {giant}")).map(drop)
}

fn number(lab: &Lab<'_>, file: &str) -> Result<u64> {
    let text = lab.agent.sh(&format!("cat {file}"))?;
    text.trim().parse().with_context(|| format!("{file} has {text}"))
}

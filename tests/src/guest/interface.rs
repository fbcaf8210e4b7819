//! A network interface of a guest, as its user meets it: link, pings, data that arrives whole, interrupts.

use anyhow::{Context, Result, ensure};

use super::Guest;
use crate::lab::Outside;

/// Bytes that are fetched to see whether they arrive as they were sent.
const FETCHED: u64 = 32 << 20;

/// An interface and the network that it is in.
#[derive(Clone, Copy)]
pub(crate) struct Interface<'a> {
    name: &'static str,
    /// The first three bytes of its address; the guest is 15 there, and the server outside the lab 2.
    network: &'static str,
    outside: &'a Outside,
}

/// A line of /proc/interrupts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vector {
    /// Who takes it.
    pub(crate) name: String,
    /// On each CPU.
    pub(crate) counts: Vec<u64>,
    /// `IO-APIC`, `PCI-MSI` or `PCI-MSIX`.
    pub(crate) controller: String,
    /// It goes through the guest's IOMMU.
    pub(crate) is_remapped: bool,
}

impl<'a> Interface<'a> {
    pub(crate) fn new(outside: &'a Outside, name: &'static str, network: &'static str) -> Self {
        Self {
            name,
            network,
            outside,
        }
    }

    /// Brings it up, with its driver, which must be this one.
    pub(crate) fn up(&self, guest: &mut Guest<'_>, driver: &str) -> Result<()> {
        let found = guest.sh(&self.up_line())?;
        ensure!(
            found == driver,
            "The guest drives the NIC by {found}, expected {driver}"
        );
        Ok(())
    }

    /// The command line that brings it up, for whoever types it elsewhere.
    pub(crate) fn up_line(&self) -> String {
        format!("net {} {}.15", self.name, self.network)
    }

    /// Three pings are answered.
    pub(crate) fn ping(&self, guest: &mut Guest<'_>) -> Result<()> {
        guest.sh(&format!("ping -c 3 -W 10 {}.2", self.network))?;
        Ok(())
    }

    /// 32 MiB arrive whole.
    pub(crate) fn fetch(&self, guest: &mut Guest<'_>) -> Result<()> {
        let hash = guest.sh(&self.fetch_line())?;
        self.check(&hash)
    }

    /// The command line that fetches 32 MiB and prints their hash.
    pub(crate) fn fetch_line(&self) -> String {
        format!("wget -q -O - {} | sha256sum", self.url(FETCHED))
    }

    /// What arrived is what was sent.
    pub(crate) fn check(&self, hash: &str) -> Result<()> {
        let hash = hash.trim_end_matches('-').trim();
        ensure!(
            hash == self.outside.sha256,
            "32 MiB arrived with SHA-256 {hash}, expected {}",
            self.outside.sha256
        );
        Ok(())
    }

    /// Data without end flow in, beside what is typed next.
    pub(crate) fn flood(&self, guest: &mut Guest<'_>) -> Result<()> {
        guest.sh(&self.flood_script())?;
        Ok(())
    }

    /// What starts it, and waits until data flow.
    pub(crate) fn flood_script(&self) -> String {
        format!(
            "wget -q -O /dev/null {} > /dev/null 2>&1 &
             received=/sys/class/net/{}/statistics/rx_bytes; first=$(cat $received)
             flows() {{ [ $(($(cat $received) - first)) -gt 200000 ]; }}
             wait_until 60 flows || fail no data arrives",
            self.url(1_000_000_000_000),
            self.name
        )
    }

    /// Its lines of /proc/interrupts.
    pub(crate) fn vectors(&self, guest: &mut Guest<'_>) -> Result<Vec<Vector>> {
        let lines = guest.sh(&format!("grep {} /proc/interrupts", self.name))?;
        lines
            .lines()
            .map(|line| Vector::parse(line).with_context(|| format!("This is no vector: {line}")))
            .collect()
    }

    /// So many vectors at least, each of which has counted.
    pub(crate) fn counted(&self, guest: &mut Guest<'_>, least: usize) -> Result<Vec<Vector>> {
        let vectors = self.vectors(guest)?;
        ensure!(
            vectors.len() >= least,
            "The guest has {} interrupt vectors for its NIC, expected at least {least}",
            vectors.len()
        );
        for vector in &vectors {
            ensure!(vector.total() > 0, "The vector {} had no interrupt", vector.name);
        }
        Ok(vectors)
    }

    fn url(&self, bytes: u64) -> String {
        format!("http://{}.2:{}/bytes/{bytes}", self.network, self.outside.port)
    }
}

impl Vector {
    /// On all CPUs.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// ` 25:   0   17   IR-PCI-MSIX-0000:01:00.0   1-edge      eth0-TxRx-0`
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().skip(1).peekable();
        let mut counts = Vec::new();
        while let Some(count) = words.peek().and_then(|word| word.parse().ok()) {
            counts.push(count);
            words.next();
        }
        let wire = words.next()?;
        let controller = ["IO-APIC", "PCI-MSIX", "PCI-MSI"]
            .into_iter()
            .find(|name| wire.contains(name))?;
        Some(Self {
            name: words.last()?.to_owned(),
            counts,
            controller: controller.to_owned(),
            is_remapped: wire.starts_with("IR-"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_has_a_name_a_count_on_each_cpu_and_a_way() {
        let line = " 25:          0         17  IR-PCI-MSIX-0000:01:00.0   1-edge      eth0-TxRx-0";
        let vector = Vector::parse(line).expect("a vector");
        assert_eq!(vector.name, "eth0-TxRx-0");
        assert_eq!(vector.counts, [0, 17]);
        assert_eq!(
            (vector.controller.as_str(), vector.is_remapped),
            ("PCI-MSIX", true)
        );
        let wire = Vector::parse("16:  3   IO-APIC  16-fasteoi   eth0, eth1").expect("a wire");
        assert_eq!((wire.total(), wire.controller.as_str()), (3, "IO-APIC"));
        assert_eq!(Vector::parse("LAB done 0"), None);
    }
}

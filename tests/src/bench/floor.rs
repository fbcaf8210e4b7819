//! What a guest must leave for, whatever runs it: counted from a start of which every access is told.

use std::collections::BTreeMap;

use anyhow::Result;

use super::Bench;
use crate::guest::{GuestConfig, Vmm};

/// The port at whose write Linux begins to look whether the configuration ports are there (`pci_check_type1`,
/// arch/x86/pci/direct.c). What it read before, its early quirks read: they use the ports without a look.
const LOOK: &str = "port 0xcfb";

/// What this floor is, for the report.
pub(super) const ABOUT: &str = "reads of the passed function's configuration, writes to configuration, MSI-X table and I/O \
     APIC that change something, the early quirks' reads, and bytes of the console";

/// Accesses that leave a guest with a NIC in every machine: no VMM may answer for the NIC, and none hears of a write or a
/// byte otherwise.
pub(super) fn measure(bench: &Bench<'_>, nic: &str) -> Result<u64> {
    let config = GuestConfig {
        more: &["-vvv"],
        ..GuestConfig::with(&[nic]).told("lab.run=load")
    };
    bench.with_guest(Vmm::Strait, &config, |guest| {
        guest.ready()?;
        Ok(count(&guest.expect_end(0)?.errors))
    })
}

fn count(told: &str) -> u64 {
    let mut start = Start::default();
    let accesses = told.lines().filter_map(Access::parse);
    accesses.filter(|access| start.must_leave(access)).count() as u64
}

/// A line `strait: trace: PLACE, WHO at OFFSET: VERB VALUE`.
struct Access<'a> {
    place: &'a str,
    who: &'a str,
    offset: u64,
    is_write: bool,
    value: &'a str,
}

impl<'a> Access<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (place, rest) = line.strip_prefix("strait: trace: ")?.split_once(", ")?;
        let (who, said) = rest.rsplit_once(": ")?;
        let (who, offset) = who.rsplit_once(" at 0x")?;
        let (verb, value) = said.split_once(' ')?;
        Some(Self {
            place,
            who,
            offset: u64::from_str_radix(offset, 16).ok()?,
            is_write: verb == "written",
            value,
        })
    }

    /// How many bytes it read or wrote, by the digits that are told.
    fn len(&self) -> usize {
        (self.value.len() - 2) / 2
    }

    fn number(&self) -> u64 {
        u64::from_str_radix(&self.value[2..], 16).unwrap_or(0)
    }
}

/// How far a start is.
#[derive(Default)]
struct Start {
    /// Linux has looked for the configuration ports.
    has_looked: bool,
    /// What the configuration ports point at, as an offset in ECAM.
    target: u64,
    /// What registers were seen to hold, by their offset in ECAM and their width.
    seen: BTreeMap<(u64, usize), u64>,
}

impl Start {
    fn must_leave(&mut self, access: &Access<'_>) -> bool {
        if access.place == LOOK {
            self.has_looked = true;
        }
        match (access.who, access.offset) {
            ("pci cam", 0) if access.is_write && access.len() == 4 => {
                let latched = access.number();
                self.target = (latched >> 8 & 0xffff) << 12 | latched & 0xfc;
                false
            }
            ("pci cam", 4..) => self.configures(self.target + access.offset - 4, access),
            ("pci ecam", offset) => self.configures(offset, access),
            ("ioapic", 0x10) | ("serial", 0) | ("acpi-sleep", _) => access.is_write,
            (who, _) => who.contains(" BAR ") && access.is_write,
        }
    }

    /// An access to configuration space at `offset` in ECAM.
    fn configures(&mut self, offset: u64, access: &Access<'_>) -> bool {
        let before = self.seen.insert((offset, access.len()), access.number());
        match access.is_write {
            true => before != Some(access.number()),
            false => {
                !self.has_looked || offset >> 20 != 0 && !access.value[2..].bytes().all(|digit| digit == b'f')
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_machine_needs_is_not_counted() {
        let told = "\
strait: trace: port 0xcf8, pci cam at 0x0: written 0x80001000
strait: trace: port 0xcfc, pci cam at 0x4: read 0xffff
strait: trace: port 0xcfb, pci cam at 0x3: written 0x01
strait: trace: port 0xcf8, pci cam at 0x0: written 0x80000800
strait: trace: port 0xcfc, pci cam at 0x4: read 0x000c1b36
strait: trace: port 0xcf8, pci cam at 0x0: written 0x80010004
strait: trace: port 0xcfc, pci cam at 0x4: read 0x0007
strait: trace: port 0xcfc, pci cam at 0x4: written 0x0007
strait: trace: port 0xcfc, pci cam at 0x4: written 0x0407
strait: trace: 0xe0100100, pci ecam at 0x100100: read 0x14010001
strait: trace: 0xe0100104, pci ecam at 0x100104: read 0xffffffff
strait: trace: 0xfec00010, ioapic at 0x10: read 0x00000000
strait: trace: 0xfec00010, ioapic at 0x10: written 0x00000000
strait: trace: 0xc0040000, 0000:01:00.0 BAR 3 at 0x0: written 0xfee00000
strait: trace: 0xc0040000, 0000:01:00.0 BAR 3 at 0x0: read 0xfee00000
strait: trace: port 0x3f8, serial at 0x0: written 0x41
strait: trace: port 0x3fd, serial at 0x5: read 0x60
strait: trace: port 0x2e, nobody: written 0x87
";
        // Early, the passed function's command twice, its extended capability, a pin, a vector, a byte.
        assert_eq!(count(told), 7);
    }
}

//! Where the devices of the zoo are on a lab machine, and how QEMU is told of them.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};

use super::hand_over;
use super::kind::Kind;
use super::zoo::{self, Family, Inhabitant};

/// Slots of the root bus. Those before have the devices that the lab itself needs.
const FIRST_SLOT: usize = 5;
const SLOTS: usize = 22;

/// The slots behind have eight root ports each. There are few windows for ports: the first devices go without.
const FIRST_PORT_SLOT: usize = FIRST_SLOT + SLOTS;

/// Bytes of a drive: an SD card's are a power of two.
const DRIVE_LEN: u64 = 64 << 20;

/// A device on a machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lodger {
    /// Among those of its machine, from 0: its place, and what is its own by name.
    pub(crate) number: usize,
    pub(crate) inhabitant: Inhabitant,
    /// What QEMU is told of this one besides.
    property: &'static str,
}

/// Those of a machine of this kind.
pub(crate) fn lodgers(kind: Kind) -> Vec<Lodger> {
    let inhabitants: Vec<(Inhabitant, &'static str)> = match kind {
        Kind::Zoo => zoo::ALL.iter().map(|one| (*one, "")).collect(),
        Kind::HandOver => hand_over::all()
            .map(|visitor| (visitor.inhabitant(), visitor.property))
            .collect(),
        _ => Vec::new(),
    };
    let numbered = inhabitants.into_iter().enumerate();
    let housed = numbered.map(|(number, (inhabitant, property))| Lodger {
        number,
        inhabitant,
        property,
    });
    housed.collect()
}

impl Lodger {
    /// Its function on the lab host. Buses are numbered in the order of the root ports.
    pub(crate) fn at(&self) -> String {
        match self.number.checked_sub(SLOTS) {
            None => format!("0000:00:{:02x}.0", FIRST_SLOT + self.number),
            Some(port) => format!("0000:{:02x}:00.0", port + 1),
        }
    }

    /// What is behind a drive or a port, in the shared folder.
    pub(crate) fn file_name(&self) -> String {
        format!("zoo-{}.img", self.number)
    }

    /// Makes what is behind a drive.
    pub(super) fn make_file(&self, folder: &Path) -> Result<()> {
        if self.inhabitant.family != Family::Drive {
            return Ok(());
        }
        let path = folder.join(self.file_name());
        let made = File::create(&path).and_then(|file| file.set_len(DRIVE_LEN));
        made.with_context(|| format!("Cannot create {}", path.display()))
    }

    /// QEMU's options for it; its file is in `folder`.
    pub(super) fn arguments(&self, folder: &Path) -> Vec<String> {
        let (port, place) = self.place();
        let file = folder.join(self.file_name()).display().to_string();
        let file = file.replace(',', ",,");
        let device = format!("{place}{}", self.property);
        let own = self.inhabitant.options.iter().flat_map(|option| {
            let (name, value) = option.split_once(' ').unwrap_or((option, ""));
            let value = value
                .replace("{at}", &device)
                .replace("{n}", &self.number.to_string())
                .replace("{file}", &file);
            [format!("-{name}"), value]
        });
        port.into_iter().chain(own).collect()
    }

    /// The options for its root port, if it has one, and where it is.
    fn place(&self) -> (Vec<String>, String) {
        let Some(port) = self.number.checked_sub(SLOTS) else {
            let slot = FIRST_SLOT + self.number;
            return (Vec::new(), format!("bus=pcie.0,addr={slot:#x}"));
        };
        let (slot, function, id) = (FIRST_PORT_SLOT + port / 8, port % 8, port + 1);
        let options = format!(
            "pcie-root-port,id=zoo{id},chassis={id},slot={id},bus=pcie.0,addr={slot:#x}.{function},multifunction=on"
        );
        (vec!["-device".to_owned(), options], format!("bus=zoo{id},addr=0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_has_a_place_of_its_own() {
        for kind in [Kind::Zoo, Kind::HandOver] {
            let lodgers = lodgers(kind);
            let mut places: Vec<String> = lodgers.iter().map(Lodger::at).collect();
            places.sort();
            places.dedup();
            assert_eq!(places.len(), lodgers.len());
            // 31 is the PC's own.
            assert!(
                lodgers.len() <= SLOTS + 8 * (31 - FIRST_PORT_SLOT),
                "{kind:?} has {}",
                lodgers.len()
            );
        }
    }

    #[test]
    fn a_property_is_the_devices_and_nothing_elses() {
        let all = lodgers(Kind::HandOver);
        let told = |lodger: &&Lodger| !lodger.property.is_empty();
        for lodger in all.iter().filter(told) {
            let words = lodger.arguments(Path::new("/folder")).join(" ");
            assert_eq!(words.matches(lodger.property).count(), 1, "{words}");
        }
    }
}

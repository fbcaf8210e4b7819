//! Names of vendors, devices and classes, from the pci.ids file that most systems have.

use std::collections::HashMap;

use super::sysfs::{PciDevice, Root};

/// Where distributions keep the file: Debian and SUSE, Red Hat and Arch.
const PLACES: [&str; 2] = ["usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids"];

/// Names, as far as the system knows them.
#[derive(Clone, Debug, Default)]
pub struct PciIds {
    vendors: HashMap<u16, String>,
    devices: HashMap<(u16, u16), String>,
    classes: HashMap<u8, String>,
    subclasses: HashMap<(u8, u8), String>,
}

/// What the indented lines below a heading belong to.
enum Heading {
    Vendor(u16),
    Class(u8),
    Other,
}

impl PciIds {
    /// Reads the system's file; without one every name is a number.
    pub fn read(root: &Root) -> Self {
        let text = PLACES.iter().find_map(|place| root.text(place));
        Self::parse(&text.unwrap_or_default())
    }

    /// Lines are `vvvv  name`, TAB `dddd  name`, TAB TAB subsystems; classes are `C cc  name`, TAB `ss  name`.
    fn parse(text: &str) -> Self {
        let mut ids = Self::default();
        let mut heading = Heading::Other;
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') || line.starts_with("\t\t") {
                continue;
            }
            match line.strip_prefix('\t') {
                Some(entry) => ids.add(&heading, entry),
                None => heading = ids.begin(line),
            }
        }
        ids
    }

    fn begin(&mut self, line: &str) -> Heading {
        let (is_class, rest) = match line.strip_prefix("C ") {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let Some((number, name)) = numbered(rest) else {
            return Heading::Other;
        };
        if !is_class {
            self.vendors.insert(number, name);
            return Heading::Vendor(number);
        }
        let class = (number & 0xff) as u8;
        self.classes.insert(class, name);
        Heading::Class(class)
    }

    fn add(&mut self, heading: &Heading, entry: &str) {
        let Some((number, name)) = numbered(entry) else {
            return;
        };
        match *heading {
            Heading::Vendor(vendor) => drop(self.devices.insert((vendor, number), name)),
            Heading::Class(class) => drop(self.subclasses.insert((class, (number & 0xff) as u8), name)),
            Heading::Other => {}
        }
    }

    /// The vendor's name, if the list has it.
    pub fn vendor(&self, device: &PciDevice) -> Option<&str> {
        self.vendors.get(&device.vendor).map(String::as_str)
    }

    /// The device's name, if the list has it.
    pub fn device(&self, device: &PciDevice) -> Option<&str> {
        let key = (device.vendor, device.device);
        self.devices.get(&key).map(String::as_str)
    }

    /// Vendor and device in words, or in numbers where there are none.
    pub fn full_name(&self, device: &PciDevice) -> String {
        let PciDevice {
            vendor, device: id, ..
        } = device;
        match (self.vendor(device), self.device(device)) {
            (Some(vendor), Some(name)) => format!("{vendor} {name}"),
            (Some(vendor), None) => format!("{vendor} device {id:04x}"),
            _ => format!("device {vendor:04x}:{id:04x}"),
        }
    }

    /// What kind of device it is: by the system's file, else by the few names known here.
    pub fn class(&self, device: &PciDevice) -> String {
        let (class, subclass) = ((device.class >> 16) as u8, (device.class >> 8) as u8);
        let named = self.subclasses.get(&(class, subclass)).map(String::as_str);
        let named = named.or_else(|| builtin_class(class, subclass));
        let named = named.or_else(|| self.classes.get(&class).map(String::as_str));
        named.map_or_else(|| format!("Class {class:02x}{subclass:02x}"), str::to_owned)
    }
}

/// Classes that a passthrough user meets (PCI Code and ID Assignment §1), for systems without pci.ids.
fn builtin_class(class: u8, subclass: u8) -> Option<&'static str> {
    Some(match (class, subclass) {
        (0x01, 0x06) => "SATA controller",
        (0x01, 0x08) => "Non-Volatile memory controller",
        (0x02, 0x00) => "Ethernet controller",
        (0x03, 0x00) => "VGA compatible controller",
        (0x03, _) => "Display controller",
        (0x04, 0x03) => "Audio device",
        (0x06, 0x00) => "Host bridge",
        (0x06, 0x01) => "ISA bridge",
        (0x06, 0x04) => "PCI bridge",
        (0x0c, 0x03) => "USB controller",
        (0x0c, 0x05) => "SMBus",
        _ => return None,
    })
}

/// `10c9  82576 Gigabit Network Connection`.
fn numbered(line: &str) -> Option<(u16, String)> {
    let (number, name) = line.split_once(' ')?;
    let number = u16::from_str_radix(number, 16).ok()?;
    Some((number, name.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# a comment\n8086  Intel Corporation\n\t10c9  82576 Gigabit Network Connection\n\
                        \t\t103c 31ef  NC362i\nzzzz  no number\n\tffff  lost\nC 02  Network controller\n\
                        \t00  Ethernet controller\n";

    fn nic(device: u16) -> PciDevice {
        PciDevice {
            bdf: "01:00.0".parse().expect("a name"),
            class: 0x02_0000,
            vendor: 0x8086,
            device,
            driver: None,
            is_bridge: false,
            is_given: false,
            group: None,
            is_virtual: false,
        }
    }

    #[test]
    fn names_come_from_the_file() {
        let ids = PciIds::parse(FILE);
        let name = ids.full_name(&nic(0x10c9));
        assert_eq!(name, "Intel Corporation 82576 Gigabit Network Connection");
        assert_eq!(ids.full_name(&nic(1)), "Intel Corporation device 0001");
        assert_eq!(ids.class(&nic(1)), "Ethernet controller");
    }

    #[test]
    fn without_a_file_there_are_numbers() {
        let ids = PciIds::parse("");
        assert_eq!(ids.full_name(&nic(0x10c9)), "device 8086:10c9");
        assert_eq!(ids.class(&nic(1)), "Ethernet controller");
        let mut odd = nic(1);
        odd.class = 0x13_3700;
        assert_eq!(ids.class(&odd), "Class 1337");
    }
}

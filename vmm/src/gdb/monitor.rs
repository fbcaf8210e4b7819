//! `monitor` commands: what a debugger's user asks of the machine beside its CPUs.

use std::fmt::Write as _;

use strait_devices::GuestAddress;
use vm_memory::{Bytes as _, GuestMemoryMmap};

/// The machine as it stands, for whoever asks. Each answer is text, a line for each thing.
pub trait Scene: Send {
    /// Guest physical memory and ports, region by region.
    fn memory(&self) -> String;
    /// Memory slots of KVM's.
    fn slots(&self) -> String;
    /// Functions on the guest's PCI buses.
    fn pci(&self) -> String;
    /// Pins of the I/O APIC.
    fn interrupts(&self) -> String;
    /// Devices that are passed through.
    fn devices(&self) -> String;
    /// What the guest asked of its IOMMU.
    fn viommu(&self) -> String;
    /// Where an I/O address of the device with this requester ID leads.
    fn translate(&self, requester: u16, iova: u64) -> Option<GuestAddress>;
}

const HELP: &str = "\
info mem                       the guest's memory and ports, region by region
info slots                     the memory slots that KVM has
info pci                       the functions on the guest's buses
info irq                       the pins of the I/O APIC
info devices                   the devices that are passed through
info viommu                    what the guest asked of its IOMMU, and what it cost
viommu translate DEVICE ADDR   where an I/O address of a device leads, as in viommu translate 01:00.0 0xfffff000
xp ADDR [COUNT]                words of 4 bytes at a physical address
quit                           end the guest
";

/// Words that `xp` shows at most.
const MOST_WORDS: usize = 1024;

/// The answer to a command, with a line end.
pub(super) fn answer(command: &str, scene: Option<&dyn Scene>, memory: &GuestMemoryMmap) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let Some(scene) = scene else {
        return "The guest has not started yet.\n".to_owned();
    };
    let told = match words[..] {
        ["info", "mem"] => scene.memory(),
        ["info", "slots"] => scene.slots(),
        ["info", "pci"] => scene.pci(),
        ["info", "irq"] => scene.interrupts(),
        ["info", "devices"] => scene.devices(),
        ["info", "viommu"] => scene.viommu(),
        ["viommu", "translate", device, address] => translate(scene, device, address),
        ["xp", address] => words_at(memory, address, "1"),
        ["xp", address, count] => words_at(memory, address, count),
        [] | ["help"] => HELP.to_owned(),
        _ => format!("{command}: there is no such command; these are:\n{HELP}"),
    };
    format!("{}\n", told.trim_end())
}

fn translate(scene: &dyn Scene, device: &str, address: &str) -> String {
    let Some(requester) = requester(device) else {
        return format!("{device} is no function of the guest's, as 01:00.0 is");
    };
    let Some(iova) = number(address) else {
        return format!("{address} is no address");
    };
    match scene.translate(requester, iova) {
        Some(found) => format!("{iova:#x} of {device} leads to {:#x}", found.0),
        None => format!(
            "{iova:#x} of {device} leads nowhere: the guest's tables have nothing there, or there is no IOMMU"
        ),
    }
}

/// `01:00.0`, with or without the domain.
fn requester(text: &str) -> Option<u16> {
    let text = text.strip_prefix("0000:").unwrap_or(text);
    let (bus, rest) = text.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let number = |digits, most: u16| {
        u16::from_str_radix(digits, 16)
            .ok()
            .filter(|found| *found <= most)
    };
    Some(number(bus, 255)? << 8 | number(device, 31)? << 3 | number(function, 7)?)
}

fn words_at(memory: &GuestMemoryMmap, address: &str, count: &str) -> String {
    let (Some(start), Some(count)) = (number(address), number(count)) else {
        return format!("{address} {count}: an address and a count are wanted");
    };
    let mut text = String::new();
    for index in 0..(count as usize).min(MOST_WORDS) {
        let at = start.wrapping_add(4 * index as u64);
        if index % 4 == 0 {
            let _ = write!(text, "{}{at:#018x}:", if index == 0 { "" } else { "\n" });
        }
        match memory.read_obj::<u32>(GuestAddress(at)) {
            Ok(word) => _ = write!(text, " {word:#010x}"),
            Err(_) => return text + " no memory",
        }
    }
    text
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gdb::testing::Still;
    use crate::layout::Range;
    use crate::memory::{GuestRam, RamSource};

    fn said(command: &str) -> String {
        let ram = GuestRam::new(&[Range::new(0, 1 << 20)], &RamSource::default()).expect("RAM");
        ram.memory()
            .write_obj(0x1234_u32, GuestAddress(0x2000))
            .expect("memory");
        answer(command, Some(&Still), ram.memory())
    }

    #[test]
    fn every_command_of_the_help_is_one() {
        for line in HELP.lines() {
            let command = line.split("  ").next().unwrap_or_default().trim();
            let command = command
                .replace("DEVICE", "01:00.0")
                .replace("ADDR", "0x2000")
                .replace(" [COUNT]", "");
            if command != "quit" {
                assert!(!said(&command).contains("no such command"), "{command}");
            }
        }
        assert!(said("info everything").contains("info everything: there is no such command"));
    }

    #[test]
    fn memory_is_shown_by_words_up_to_its_end() {
        assert_eq!(said("xp 0x2000"), "0x0000000000002000: 0x00001234\n");
        assert!(said("xp 0xffffc 2").ends_with("0x00000000 no memory\n"));
        assert!(said("xp 0 99999999").lines().count() <= MOST_WORDS / 4);
        assert!(said("xp here").contains("are wanted"));
    }

    #[test]
    fn an_io_address_is_followed() {
        assert_eq!(
            said("viommu translate 01:00.0 0x5000"),
            "0x5000 of 01:00.0 leads to 0x6000\n"
        );
        assert!(said("viommu translate 02:00.0 0x5000").contains("leads nowhere"));
        assert!(said("viommu translate eth0 0x5000").contains("is no function"));
    }
}

//! QEMU's options, for those whose fingers know them: what is typed here in their place.

use std::ffi::OsString;

/// QEMU's words for an option, and what to type here. Words that are right here too (`-m`, `-s`, `-S`) are none of these.
const OPTIONS: &[(&[&str], &str)] = &[
    (&["kernel"], "type --kernel FILE"),
    (&["initrd"], "type --initrd FILE"),
    (&["append"], "type --cmdline TEXT"),
    (&["smp"], "type --cpus N"),
    (&["cpu"], "type --cpu host, with nested=off where it is wanted"),
    (&["device"], "type --device ADDRESS, as in --device 01:00.0"),
    (&["name"], "type --name NAME"),
    (
        &["qmp", "monitor", "mon", "chardev"],
        "type --qmp PATH, or --name NAME and `strait ctl`",
    ),
    (&["gdb"], "type --gdb tcp:HOST:PORT, or -s"),
    (&["no-reboot"], "type --no-reboot"),
    (
        &["object", "mem-path", "mem-prealloc", "numa"],
        "type --memory SIZE,hugepages=2M,prealloc=on,host-nodes=N, with the keys that are wanted",
    ),
    (
        &["machine", "M"],
        "leave it out, or type --machine lean; a guest's IOMMU is --viommu intel",
    ),
    (&["enable-kvm", "accel"], "leave it out: KVM is always used"),
    (
        &[
            "nographic",
            "serial",
            "display",
            "vga",
            "nodefaults",
            "no-user-config",
            "daemonize",
        ],
        "leave it out: the guest's console is this terminal, and there are no other devices than those of --device",
    ),
    (
        &["netdev", "nic", "net", "drive", "blockdev", "cdrom", "hda", "hdb"],
        "leave it out: there are no virtual disks and NICs; pass one of the host's with --device ADDRESS",
    ),
    (
        &["bios", "pflash"],
        "leave it out: there is no firmware; a kernel is booted with --kernel FILE",
    ),
    (&["pidfile"], "leave it out, or type --status FILE"),
    (&["version"], "type `strait -V`"),
    (
        &[
            "boot",
            "rtc",
            "usb",
            "usbdevice",
            "uuid",
            "snapshot",
            "no-shutdown",
            "no-acpi",
            "no-hpet",
            "global",
            "vnc",
            "spice",
            "trace",
            "watchdog",
            "overcommit",
            "readconfig",
            "incoming",
            "loadvm",
            "sandbox",
            "runas",
            "action",
            "virtfs",
            "fsdev",
            "tpmdev",
            "smbios",
            "acpitable",
        ],
        "leave it out: there is nothing of the kind here",
    ),
];

/// Devices of QEMU's, by how their names begin, and what to do about them.
const DEVICES: &[(&[&str], &str)] = &[
    (
        &["intel-iommu", "amd-iommu", "virtio-iommu"],
        "type --viommu intel for an IOMMU of the guest",
    ),
    (
        &["pcie-root-port", "ioh3420", "pcie-pci-bridge", "pxb"],
        "leave it out: each device has a root port of its own",
    ),
    (
        &[
            "virtio-",
            "e1000",
            "rtl8139",
            "nvme",
            "scsi-",
            "ide-",
            "ahci",
            "usb-",
            "qemu-xhci",
        ],
        "leave it out: there are no virtual devices; pass one of the host's with --device ADDRESS",
    ),
];

/// What to say of those of `words` that are QEMU's alone: with one dash, or with two where that is no option here.
pub(super) fn hint(words: &[OsString], is_ours: impl Fn(&str) -> bool) -> Option<String> {
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let said = words.iter().enumerate().skip(1).filter_map(|(place, word)| {
        let typed = word.split('=').next().unwrap_or(word);
        let name = match typed.strip_prefix("--") {
            Some(name) => Some(name).filter(|name| !is_ours(name)),
            None => typed.strip_prefix('-'),
        };
        Some((*word, here(name?, words.get(place + 1))?))
    });
    let said: Vec<(&str, &str)> = said.collect();
    match said[..] {
        [] => None,
        [(word, here)] => Some(format!("{word} is an option of QEMU's; {here}")),
        _ => {
            let all: Vec<String> = said
                .iter()
                .map(|(word, here)| format!("{word} ({here})"))
                .collect();
            Some(format!("these are options of QEMU's: {}", all.join(", ")))
        }
    }
}

/// What to type in place of an option of QEMU's, with its value.
fn here(name: &str, value: Option<&&str>) -> Option<&'static str> {
    let device = |value: &str| {
        let is_one = |names: &[&str]| names.iter().any(|name| value.starts_with(name));
        DEVICES
            .iter()
            .find(|(names, _)| is_one(names))
            .map(|(_, here)| *here)
    };
    let (_, here) = OPTIONS.iter().find(|(names, _)| names.contains(&name))?;
    match (name, value) {
        ("device", Some(value)) => Some(device(value).unwrap_or(here)),
        _ => Some(here),
    }
}

#[cfg(test)]
mod tests {
    use clap::{ArgAction, CommandFactory as _};

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn what_is_proposed_is_an_option_of_run() {
        let cli = Cli::command();
        let run = cli.find_subcommand("run").expect("a command");
        let options: Vec<&str> = run
            .get_arguments()
            .filter_map(|option| option.get_long())
            .collect();
        for (names, here) in OPTIONS {
            let proposed = here
                .split("--")
                .skip(1)
                .map(|text| text.split([' ', ',', ';']).next().unwrap_or(""));
            for option in proposed {
                assert!(options.contains(&option), "{names:?}: there is no --{option}");
            }
        }
    }

    #[test]
    fn no_word_that_is_right_here_is_taken_for_qemus() {
        let cli = Cli::command();
        let run = cli.find_subcommand("run").expect("a command");
        let flags: Vec<char> = run
            .get_arguments()
            .filter(|option| matches!(option.get_action(), ArgAction::SetTrue | ArgAction::Count))
            .filter_map(clap::Arg::get_short)
            .collect();
        for (names, _) in OPTIONS {
            for name in *names {
                let is_flags = name.chars().all(|letter| flags.contains(&letter));
                assert!(!is_flags, "-{name} could be several flags in one");
            }
        }
    }
}

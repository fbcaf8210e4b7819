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
        &["netdev", "nic", "net", "drive", "blockdev", "cdrom", "hda"],
        "leave it out: there are no virtual disks and NICs; pass one of the host's with --device ADDRESS",
    ),
    (
        &["bios", "pflash"],
        "leave it out: there is no firmware; a kernel is booted with --kernel FILE",
    ),
];

/// What to say of the first of `words` that is QEMU's alone, with a single dash.
pub(super) fn hint(words: &[OsString]) -> Option<String> {
    words
        .iter()
        .skip(1)
        .filter_map(|word| word.to_str())
        .find_map(|word| {
            let name = word.strip_prefix('-').filter(|name| !name.starts_with('-'))?;
            let (_, here) = OPTIONS.iter().find(|(names, _)| names.contains(&name))?;
            Some(format!("{word} is an option of QEMU's; {here}"))
        })
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

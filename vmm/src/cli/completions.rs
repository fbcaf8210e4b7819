//! `strait completions`: what a shell needs to complete commands, options and devices.

use clap::{Args, Command};
use clap_complete::Shell;
use clap_complete::aot::generate;

const BASH_DEVICES: &str = include_str!("../../../resources/completions/strait.bash");
const ZSH_DEVICES: &str = concat!(
    include_str!("../../../resources/completions/devices.zsh"),
    include_str!("../../../resources/completions/strait.zsh")
);
const FISH_DEVICES: &str = include_str!("../../../resources/completions/strait.fish");

/// Print a completion script.
#[derive(Debug, Args)]
#[command(after_help = "\
bash: strait completions bash > /usr/share/bash-completion/completions/strait
zsh:  strait completions zsh > /usr/share/zsh/site-functions/_strait
fish: strait completions fish > /usr/share/fish/vendor_completions.d/strait.fish")]
pub struct CompletionsArgs {
    /// The shell that will read the script.
    #[arg(value_name = "SHELL", value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

impl CompletionsArgs {
    /// The whole script for `command`, devices included.
    pub fn script(&self, command: Command) -> String {
        match self.shell.as_str() {
            "zsh" => zsh(command),
            "fish" => generated(Shell::Fish, command) + FISH_DEVICES,
            _ => generated(Shell::Bash, command) + BASH_DEVICES,
        }
    }
}

/// In zsh every argument has its own way of completion; those that are devices, guests or another program's get ours.
/// Functions must be there before the last lines of the script call them.
fn zsh(command: Command) -> String {
    let script = generated(Shell::Zsh, command);
    let lines = script.lines().map(|line| {
        let is_device =
            line.contains(":DEVICE:") || line.contains("device -- ") || line.contains("devices -- ");
        match () {
            () if is_device => line.replace(":_default'", ":_strait_devices'"),
            () if line.contains("guest -- ") => line.replace(":_default'", ":_strait_guests'"),
            () if line.contains("*::arguments -- ") => line.replace(":_default'", ":_strait_bench'"),
            () => line.to_owned(),
        }
    });
    let script = lines.collect::<Vec<_>>().join("\n");
    match script.split_once('\n') {
        Some((compdef, rest)) => format!("{compdef}\n{ZSH_DEVICES}\n{rest}\n"),
        None => script,
    }
}

fn generated(shell: Shell, mut command: Command) -> String {
    let mut script = Vec::new();
    generate(shell, &mut command, "strait", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;
    use crate::cli::command;

    fn script(shell: &str) -> String {
        let shell = shell.to_owned();
        CompletionsArgs { shell }.script(command())
    }

    #[test]
    fn every_shell_completes_commands_and_devices() {
        for shell in ["bash", "zsh", "fish"] {
            let script = script(shell);
            for word in ["doctor", "restore", "no-reboot", "strait host names"] {
                assert!(script.contains(word), "{shell} does not know {word}");
            }
        }
    }

    /// What bash offers for the last word of `line`, on a host with a NIC, a disk and a guest.
    fn offered(line: &str) -> String {
        let devices = r#"strait() {
            case $1 in
                ctl) printf 'web\tpaused\n';;
                bench) echo '_strait_bench_with_devices() { COMPREPLY=("$# $* at $COMP_CWORD of $COMP_LINE"); }';;
                *) printf '0000:01:00.0\tNIC\nenp3s0\tNIC\n0000:02:00.0\tNVMe\n';;
            esac
        }"#;
        let ask = r#"
            COMP_LINE=$1 COMP_POINT=${#1}
            read -ra COMP_WORDS <<< "$1"
            [[ $1 == *" " ]] && COMP_WORDS+=("")
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _strait_with_devices strait "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            echo "${COMPREPLY[*]}""#;
        let script = [devices, &script("bash"), ask].join("\n");
        let bash = process::Command::new("bash")
            .args(["-c", &script, "bash", line])
            .output();
        String::from_utf8_lossy(&bash.expect("bash").stdout)
            .trim()
            .to_owned()
    }

    #[test]
    fn bash_offers_addresses_and_names_and_completes_short_addresses() {
        let all = "0000:01:00.0 enp3s0 0000:02:00.0";
        assert_eq!(offered("strait host bind "), all);
        assert_eq!(offered("strait host bind --group "), all);
        assert_eq!(offered("strait host bind e"), "enp3s0");
        assert_eq!(offered("strait host bind 02"), "02:00.0");
        assert_eq!(offered("strait run --device vfio-pci,host=02"), "02:00.0");
        // What is before the colon is typed already.
        assert_eq!(offered("strait host bind 01:"), "00.0");
    }

    #[test]
    fn bash_offers_no_device_where_another_value_is_meant() {
        assert!(!offered("strait host bind --driver ").contains("0000:"));
        assert!(offered("strait host list --class ").contains("nvme"));
        assert_eq!(offered("strait host bind --dr"), "--driver --dry-run");
        assert_eq!(offered("strait host bi"), "bind");
        assert_eq!(offered("strait host vf e"), "enp3s0");
        assert_eq!(offered("strait host vf enp3s0 "), "");
    }

    #[test]
    fn bash_offers_guests_and_what_is_asked_of_them() {
        let ctl = command().find_subcommand("ctl").expect("a command").clone();
        let shown = ctl.get_subcommands().filter(|one| !one.is_hide_set());
        let asked = shown
            .map(|one| one.get_name().to_owned())
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(offered("strait ctl "), format!("web {asked}"));
        assert_eq!(offered("strait ctl w"), "web");
        assert_eq!(offered("strait ctl web "), asked);
        assert_eq!(offered("strait ctl web pow"), "powerdown");
        assert_eq!(offered("strait ctl web attach 02"), "02:00.0");
        assert_eq!(offered("strait ctl detach e"), "enp3s0");
        assert_eq!(offered("strait ctl web detach --f"), "--force");
        assert!(!offered("strait ctl web pause ").contains("reset"));
    }

    #[test]
    fn behind_bench_bash_asks_what_the_other_program_would_be_asked() {
        assert_eq!(
            offered("strait bench --only strait --dev"),
            "3 strait-bench --dev strait at 3 of strait-bench --only strait --dev"
        );
        assert_eq!(
            offered("strait bench "),
            "3 strait-bench  bench at 1 of strait-bench"
        );
    }

    #[test]
    fn zsh_asks_for_devices_where_they_are_meant() {
        let script = script("zsh");
        assert!(script.starts_with("#compdef strait\n"));
        assert!(script.matches(":_strait_devices'").count() >= 8, "{script}");
        assert!(script.contains(":_strait_guests'"), "{script}");
        assert_eq!(script.matches(":_strait_bench'").count(), 1, "{script}");
        assert_eq!(script.matches("\n    _strait__subcmd__ctl_commands\n").count(), 1);
        assert!(script.contains("\n_strait__subcmd__ctl_commands() {"), "{script}");
    }
}

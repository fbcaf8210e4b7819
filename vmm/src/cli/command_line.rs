//! The commands as they are typed, and the line that is said where none of them is meant.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use super::bench::BenchArgs;
use super::completions::CompletionsArgs;
use super::ctl::{self, CtlArgs};
use super::failure::USAGE;
use super::host::HostArgs;
use super::man::ManArgs;
use super::qemu;
use super::run::RunArgs;
use super::symbols::SymbolsArgs;

/// Pass PCI devices to a virtual machine, and from there on to its own guests.
#[derive(Debug, Parser)]
#[command(
    name = "strait",
    version,
    about,
    after_help = "Exit codes and examples: strait run --help. Manual pages: strait man DIR."
)]
pub struct Cli {
    /// The first word behind the program's name, with its own arguments.
    #[command(subcommand)]
    pub command: Command,
    /// Say more on standard error: -v what changes, -vv details, -vvv each trapped access.
    // Last but for --help: clap would put it among the options of each command.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, display_order = 900)]
    pub verbose: u8,
}

/// What `strait` can be asked to do, a variant for each command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot a kernel in a virtual machine, with PCI devices of this host passed through.
    Run(Box<RunArgs>),
    /// See and prepare the host's PCI devices.
    Host(HostArgs),
    /// See and control guests that are running.
    Ctl(CtlArgs),
    /// Measure guests beside QEMU's, and compare what was measured.
    Bench(BenchArgs),
    /// Make a file of symbols for gdb from a guest's /proc/kallsyms.
    Symbols(SymbolsArgs),
    /// Print a completion script for bash, zsh or fish.
    Completions(CompletionsArgs),
    /// Write manual pages into a folder.
    Man(ManArgs),
}

/// The commands with all that can be typed for them, for those who describe them.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The arguments of this process, or what to print and the exit code.
///
/// # Errors
/// Help and version are "errors" with code 0; everything else is one line and code 2.
pub fn parse() -> Result<Cli, (String, u8)> {
    parse_from(std::env::args_os())
}

pub(super) fn parse_from(words: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Cli, (String, u8)> {
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    let run = "strait run";
    // clap would take some of them for short options with their values.
    if command_of(&words) == run
        && let Some(says) = qemu::hint(&words, is_option_of_run)
    {
        return Err((format!("strait: {says}; `{run} --help` explains"), USAGE));
    }
    Cli::try_parse_from(&words).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => (error.render().to_string(), 0),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => (error.render().to_string(), USAGE),
        _ => {
            let command = command_of(&words);
            let says = misplaced(&words, &error).unwrap_or_else(|| one_line(&error.render().to_string()));
            (format!("strait: {says}; `{command} --help` explains"), USAGE)
        }
    })
}

fn is_option_of_run(name: &str) -> bool {
    let cli = Cli::command();
    let run = cli.find_subcommand("run");
    let mut options = run.into_iter().flat_map(clap::Command::get_arguments);
    options.any(|option| {
        let aliases = option.get_all_aliases().unwrap_or_default();
        option.get_long() == Some(name) || aliases.contains(&name)
    })
}

/// A guest behind what is asked of it, or something that nobody can ask of one: clap knows the word alone.
fn misplaced(words: &[OsString], error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let words = words.iter().skip(1).filter_map(|word| word.to_str());
    let mut words = words.filter(|word| !word.starts_with('-'));
    let (Some("ctl"), Some(first), Some(second)) = (words.next(), words.next(), words.next()) else {
        return None;
    };
    let rest: String = words.map(|word| format!(" {word}")).collect();
    match (CtlArgs::is_command(first), CtlArgs::is_command(second)) {
        // An address is no guest's name.
        (true, false) if first != "list" && !second.contains(':') => Some(format!(
            "the guest comes first, as in `strait ctl {second} {first}{rest}`"
        )),
        (false, false) => Some(format!(
            "{second} is no command for a guest; the commands are {}",
            ctl::commands()
        )),
        _ => None,
    }
}

/// The command that `words` mean, with its subcommands: the first words behind the program's that are no options. No
/// option that may stand between them takes a value.
fn command_of(words: &[OsString]) -> String {
    let mut command = &Cli::command();
    let mut names = vec![command.get_name()];
    for word in words.iter().skip(1) {
        match command.find_subcommand(word) {
            Some(found) => {
                command = found;
                names.push(found.get_name());
            }
            None if word.as_encoded_bytes().starts_with(b"-") => {}
            None => break,
        }
    }
    names.join(" ")
}

/// clap's message without its usage block, on one line.
fn one_line(message: &str) -> String {
    let says = message.trim_start_matches("error: ");
    let lines: Vec<_> = says
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join(" ").replace(" tip: ", "; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> String {
        let (message, code) = parse_from(line.split(' ')).expect_err("wrong usage");
        assert_eq!(code, USAGE, "{message}");
        message
    }

    #[test]
    fn wrong_usage_points_at_the_help_of_the_command_that_was_meant() {
        for (line, help) in [
            ("strait --nonsense", "`strait --help` explains"),
            ("strait run --memory lots", "`strait run --help` explains"),
            ("strait run --cpus", "`strait run --help` explains"),
            (
                "strait -v host list --nonsense",
                "`strait host list --help` explains",
            ),
            ("strait host ls --nonsense", "`strait host list --help` explains"),
            ("strait host bind", "`strait host bind --help` explains"),
            ("strait completions tcsh", "`strait completions --help` explains"),
        ] {
            let message = refusal(line);
            assert!(message.ends_with(help), "{line}: {message}");
        }
    }

    #[test]
    fn an_option_of_qemus_is_known_for_one() {
        for (line, says) in [
            (
                "strait run -smp 4",
                "strait: -smp is an option of QEMU's; type --cpus N; `strait run --help` explains",
            ),
            (
                "strait run -k vmlinuz -mem-path /dev/hugepages",
                "strait: -mem-path is",
            ),
            ("strait run -device vfio-pci,host=01:00.0", "strait: -device is"),
            ("strait run -kernel vmlinuz", "strait: -kernel is"),
            ("strait run -k vmlinuz -daemonize", "strait: -daemonize is"),
            ("strait run -k vmlinuz -hda disk.img", "strait: -hda is"),
            ("strait run -k vmlinuz -snapshot", "strait: -snapshot is"),
            (
                "strait run -k vmlinuz -device intel-iommu,caching-mode=on",
                "strait: -device is an option of QEMU's; type --viommu intel",
            ),
            (
                "strait run --kernel vmlinuz --smp 2 --nographic",
                "strait: these are options of QEMU's: --smp (type --cpus N), --nographic (leave it out",
            ),
        ] {
            let message = refusal(line);
            assert!(message.starts_with(says), "{line}: {message}");
        }
    }

    #[test]
    fn the_words_behind_ctl_have_their_order() {
        let message = refusal("strait ctl pause web");
        let says =
            "strait: the guest comes first, as in `strait ctl web pause`; `strait ctl pause --help` explains";
        assert_eq!(message.trim_end(), says);
        for (line, says) in [
            ("strait ctl attach web 01:00.0", "`strait ctl web attach 01:00.0`"),
            (
                "strait ctl device_del web net1",
                "`strait ctl web device_del net1`",
            ),
            ("strait ctl web pause now", "unexpected argument 'now'"),
            (
                "strait ctl web attach 01:00.0 02:00.0",
                "unexpected argument '02:00.0'",
            ),
            ("strait ctl list web", "unexpected argument 'web'"),
        ] {
            let message = refusal(line);
            assert!(message.contains(says), "{line}: {message}");
        }
        let message = refusal("strait ctl web migrate");
        assert!(
            message.contains("migrate is no command for a guest; the commands are list, info,"),
            "{message}"
        );
        for virsh in ["suspend", "shutdown", "destroy", "device_del net1"] {
            let line = format!("strait ctl web {virsh}");
            assert!(parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }

    #[test]
    fn an_option_of_our_own_is_no_one_elses() {
        for line in [
            "strait run -k vmlinuz --device 01:00.0 --name web --append quiet",
            "strait bench -device",
        ] {
            assert!(parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_tip_is_part_of_the_sentence() {
        let message = refusal("strait run --no-reboots");
        assert!(
            message.contains("found; a similar argument exists: '--no-reboot'; `strait"),
            "{message}"
        );
    }

    #[test]
    fn the_help_names_every_command_that_a_user_may_type() {
        let (help, code) = parse_from(["strait", "--help"]).expect_err("help");
        assert_eq!(code, 0);
        for command in ["run", "host", "completions", "man"] {
            assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
        }
        let (help, _) = parse_from(["strait", "host", "--help"]).expect_err("help");
        assert!(help.contains("\n  set-override "), "{help}");
    }
}

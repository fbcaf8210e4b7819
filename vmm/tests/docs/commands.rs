//! Options and commands as the pages have them, against those that the program takes.

use std::collections::BTreeSet;

use clap::{Arg, Command, CommandFactory, Parser};
use strait::cli::Cli;
use strait::config::{DEVICE_KEYS, ViommuConfig};

use crate::pages::{all, blocks, page, rows, section, spans};

/// Commands with what is typed for them, those that show in the help and have no further ones.
fn commands() -> Vec<(String, Command)> {
    let mut found = Vec::new();
    collect("strait", &Cli::command(), &mut found);
    found
}

fn collect(path: &str, command: &Command, found: &mut Vec<(String, Command)>) {
    let below: Vec<_> = command
        .get_subcommands()
        .filter(|one| !one.is_hide_set())
        .collect();
    if below.is_empty() {
        found.push((path.to_owned(), command.clone()));
    }
    for one in below {
        collect(&format!("{path} {}", one.get_name()), one, found);
    }
}

/// The spellings of an option: the long one with its value, the short one, other names.
fn spellings(option: &Arg) -> BTreeSet<String> {
    let long = option.get_long().expect("every option has a long name");
    let value = option
        .get_value_names()
        .filter(|_| option.get_action().takes_values());
    let mut all = BTreeSet::new();
    all.insert(match value {
        Some(names) => format!("--{long} {}", names.join(" ")),
        None => format!("--{long}"),
    });
    all.extend(option.get_short().map(|short| format!("-{short}")));
    let aliases = option.get_visible_aliases().unwrap_or_default();
    all.extend(aliases.into_iter().map(|alias| format!("--{alias}")));
    all
}

#[test]
fn every_option_of_every_command_stands_on_its_page_as_the_help_has_it() {
    let globals: Vec<Arg> = Cli::command().get_arguments().cloned().collect();
    for (path, command) in commands() {
        let is_run = path == "strait run";
        let page = page(match path.as_str() {
            "strait run" => "options.md",
            "strait symbols" => "debugging.md",
            "strait bench" => "measuring.md",
            path if path.starts_with("strait ctl ") => "control.md",
            _ => "host.md",
        });
        let text = section(&page, &format!("`{path}`")).unwrap_or_else(|| panic!("no section on `{path}`"));
        for alias in command.get_visible_aliases() {
            assert!(
                spans(text).iter().any(|span| span == alias),
                "{path} is also {alias}"
            );
        }
        let rows = rows(text);
        let mut options: Vec<Arg> = command.get_arguments().cloned().collect();
        options.extend(globals.iter().filter(|_| is_run).cloned());
        options.retain(|option| option.get_long().is_some());
        let told: BTreeSet<BTreeSet<String>> = rows.iter().map(|row| names(&row[0])).collect();
        let known = options.iter().map(spellings).collect();
        assert_eq!(told, known, "{path}");
        for option in &options {
            let row = rows.iter().find(|row| names(&row[0]) == spellings(option));
            check_values(&path, option, row.expect("it is on the page"));
        }
    }
}

/// What the first cell of a row names: `--kernel FILE` and -k.
fn names(cell: &str) -> BTreeSet<String> {
    spans(cell).into_iter().collect()
}

/// The default is in the last cell, and each value that can be given is named.
fn check_values(path: &str, option: &Arg, row: &[String]) {
    if !option.get_action().takes_values() {
        return;
    }
    for default in option.get_default_values() {
        let default = format!("`{}`", default.to_string_lossy());
        assert_eq!(row[2], default, "{path}: {}", row[0]);
    }
    for value in option.get_possible_values() {
        let value = value.get_name().to_owned();
        assert!(
            spans(&row[1]).contains(&value),
            "{path}: {} lacks {value}",
            row[0]
        );
    }
}

#[test]
fn every_key_of_a_device_and_of_the_guests_iommu_is_told() {
    let page = page("options.md");
    let told = |option: &str| -> BTreeSet<String> {
        let text = section(&page, &format!("The value of `--{option}`")).expect(option);
        rows(text).iter().flat_map(|row| names(&row[0])).collect()
    };
    let keys = DEVICE_KEYS.iter().map(|(key, _)| (*key).to_owned());
    assert_eq!(told("device"), keys.collect());
    let refused = "intel,x=on"
        .parse::<ViommuConfig>()
        .expect_err("no key")
        .to_string();
    let (_, keys) = refused.split_once("the keys are ").expect("it lists them");
    let keys = keys.replace(" and ", ", ");
    assert_eq!(told("viommu"), keys.split(", ").map(str::to_owned).collect());
}

#[test]
fn what_the_pages_say_to_type_is_understood() {
    let mut count = 0;
    for (path, text) in all() {
        let table = path.ends_with("messages.md");
        // Messages are quoted in the first column, and may end in the middle of a command.
        let text = match table {
            true => rows(&text).iter().map(|row| format!("{}\n", row[1])).collect(),
            false => text,
        };
        for line in blocks(&text).iter().chain(&spans(&text)) {
            let line = line.strip_prefix("sudo ").unwrap_or(line);
            if line.starts_with("strait ") {
                count += 1;
                check_line(line);
            }
        }
    }
    assert!(count > 40, "command lines are found");
}

/// A line that names a command is one that there is; a line with more is what the program takes.
fn check_line(line: &str) {
    let words = words(line);
    let mut command = Cli::command();
    for word in &words[1..] {
        match command.find_subcommand(word).cloned() {
            Some(found) => command = found,
            None => {
                let read = Cli::try_parse_from(&words);
                read.unwrap_or_else(|error| panic!("{line}: {error}"));
                return;
            }
        }
    }
}

/// The words of a line as a shell makes them, as far as the pages need it.
fn words(line: &str) -> Vec<String> {
    let line = line.split(" # ").next().unwrap_or_default();
    let line = line
        .split(" > ")
        .next()
        .unwrap_or_default()
        .replace("$(uname -r)", "6.1");
    let mut words = Vec::new();
    for (n, part) in line.split('"').enumerate() {
        match n % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

#[test]
fn options_that_the_prose_names_are_options_of_some_command() {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for (_, command) in commands() {
        known.extend(
            command
                .get_arguments()
                .filter(|one| one.get_long().is_some())
                .flat_map(spellings),
        );
    }
    known.extend(Cli::command().get_arguments().flat_map(spellings));
    let known: BTreeSet<_> = known.iter().filter_map(|name| name.split(' ').next()).collect();
    for (path, text) in all() {
        // They have the options of other programs.
        if path.ends_with("lab.md") || path.ends_with("measuring.md") {
            continue;
        }
        for span in spans(&text).iter().filter(|span| span.starts_with("--")) {
            let name = span.split([' ', '=', ':']).next().unwrap_or_default();
            assert!(
                known.contains(name) || name == "--help",
                "{}: {span}",
                path.display()
            );
        }
    }
}

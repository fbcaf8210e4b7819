//! The line that is said where nothing that can be asked was typed.

use std::error::Error as _;
use std::ffi::OsString;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// Wrong usage, as clap has it.
const USAGE: u8 = 2;

/// What was typed, or what to print and the exit code.
///
/// # Errors
/// Help and version are "errors" with code 0; everything else is one line and code 2.
pub(crate) fn parse<P: Parser>(words: impl IntoIterator<Item = OsString>) -> Result<P, (String, u8)> {
    P::try_parse_from(words).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => (error.render().to_string(), 0),
        _ => (
            format!("strait-bench: {}; `strait-bench --help` explains\n", says(&error)),
            USAGE,
        ),
    })
}

/// What the refusal is about, with its value, and why; without control characters of the value.
fn says(error: &Error) -> String {
    let text = match (error.kind(), error.source()) {
        (ErrorKind::ValueValidation, Some(why)) => {
            let of = |kind| match error.get(kind) {
                Some(ContextValue::String(text)) => text.as_str(),
                _ => "",
            };
            // `--limit <SECONDS>`
            let option = of(ContextKind::InvalidArg).split(' ').next().unwrap_or_default();
            format!("{option} {}: {why}", of(ContextKind::InvalidValue))
        }
        _ => one_line(&error.render().to_string()),
    };
    text.replace(char::is_control, " ")
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

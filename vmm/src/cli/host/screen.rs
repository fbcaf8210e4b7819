//! Where output goes, and how it looks there.

use std::env;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Columns that every terminal has.
const WIDTH: usize = 80;

/// How a piece of text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Heading,
    Good,
    Warning,
    Bad,
    Quiet,
}

/// Standard output, or what a test reads.
pub struct Screen<'a> {
    out: &'a mut dyn Write,
    colour: bool,
}

impl<'a> Screen<'a> {
    /// Plain text to `out`.
    pub fn plain(out: &'a mut dyn Write) -> Self {
        Self { out, colour: false }
    }

    /// Text for standard output: in colour on a terminal, unless NO_COLOR says no.
    pub fn standard(out: &'a mut dyn Write) -> Self {
        let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        let colour = io::stdout().is_terminal() && !set("NO_COLOR") && !dumb;
        Self { out, colour }
    }

    pub(super) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.out, "{}", text.to_string().trim_end())
    }

    /// Several lines, each but the first indented, that keep words whole and fit the width.
    pub(super) fn wrapped(&mut self, indent: &str, text: &str) -> io::Result<()> {
        let mut line = String::from(indent);
        for word in text.split(' ') {
            let width = visible_len(&line) + visible_len(word) + 1;
            if width > WIDTH && line.trim() != "" {
                self.line(&line)?;
                line = String::from(indent);
            }
            if line.len() > indent.len() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.line(line)
    }

    /// `text` in the colour of `tone`.
    pub(super) fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Heading => "1",
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
            Tone::Quiet => "2",
        };
        match self.colour && !text.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// `text` that leaves room for `used` columns, cut with an ellipsis.
    pub(super) fn fit(text: &str, used: usize) -> String {
        let room = WIDTH.saturating_sub(used);
        if text.chars().count() <= room {
            return text.to_owned();
        }
        let kept: String = text.chars().take(room.saturating_sub(3)).collect();
        format!("{}...", kept.trim_end())
    }
}

/// Characters of `text` that take a column: all but escape sequences.
fn visible_len(text: &str) -> usize {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap_or_default().chars().count();
    let rest = parts.map(|part| part.split_once('m').map_or(0, |(_, shown)| shown.chars().count()));
    first + rest.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_wrapped_at_80_columns() {
        let mut out = Vec::new();
        let text = "word ".repeat(40);
        Screen::plain(&mut out)
            .wrapped("    ", text.trim())
            .expect("memory");
        let text = String::from_utf8(out).expect("text");
        assert!(
            text.lines()
                .all(|line| line.len() <= WIDTH && line.starts_with("    word"))
        );
        assert_eq!(text.split_whitespace().count(), 40);
    }

    #[test]
    fn colour_takes_no_columns() {
        assert_eq!(visible_len("\x1b[1mab\x1b[0m c"), 4);
    }

    #[test]
    fn what_does_not_fit_is_cut() {
        assert_eq!(Screen::fit("abcdefgh", 74), "abc...");
        assert_eq!(Screen::fit("abc", 74), "abc");
    }
}

//! Where output goes, and how it looks there.

use std::env;
use std::fmt::Display;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

/// Columns that every terminal has.
const WIDTH: usize = 80;
/// Families of terminals with colour, as TERM names them before the first hyphen (terminfo's colour entries). The
/// likes of vt100, vt220 and dumb have none.
const COLOUR_TERMINALS: [&str; 17] = [
    "alacritty",
    "contour",
    "cygwin",
    "foot",
    "ghostty",
    "gnome",
    "konsole",
    "linux",
    "mintty",
    "putty",
    "rxvt",
    "screen",
    "st",
    "tmux",
    "vte",
    "wezterm",
    "xterm",
];

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
    is_closed: bool,
}

impl<'a> Screen<'a> {
    /// Plain text to `out`.
    pub fn plain(out: &'a mut dyn Write) -> Self {
        Self {
            out,
            colour: false,
            is_closed: false,
        }
    }

    /// Text for standard output: in colour where the terminal is known to show it, unless NO_COLOR says no.
    pub fn standard(out: &'a mut dyn Write) -> Self {
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        // The name by which this process opened it, or was given it.
        let terminal = fs::read_link("/proc/self/fd/1").unwrap_or_default();
        let kind = env::var("TERM").unwrap_or_default();
        let colour = io::stdout().is_terminal() && !refused && shows_colour(&kind, &terminal);
        Self {
            out,
            colour,
            is_closed: false,
        }
    }

    pub(super) fn line(&mut self, text: impl Display) -> io::Result<()> {
        let written = writeln!(self.out, "{}", text.to_string().trim_end());
        written.inspect_err(|error| self.is_closed |= error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// True once a line found that nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
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

/// Whether the terminal at `file` with TERM `kind` is known to show colours and bold.
///
/// On a pseudo-terminal or a virtual console TERM tells what shows the text. On a serial line nobody knows what is at
/// the other end: TERM is what getty was told (vt102, vt220) or what the kernel gave to init (linux), and a program
/// that reads the line gets the escape sequences. The same goes for /dev/console and a hypervisor's console.
fn shows_colour(kind: &str, file: &Path) -> bool {
    let name = file
        .to_str()
        .and_then(|file| file.strip_prefix("/dev/"))
        .unwrap_or_default();
    let virtual_console = name
        .strip_prefix("tty")
        .is_some_and(|number| number.parse::<u8>().is_ok());
    let is_known = name.starts_with("pts/") || virtual_console;
    let family = kind.split(['-', '.', '+']).next().unwrap_or_default();
    is_known && (COLOUR_TERMINALS.contains(&family) || kind.ends_with("color")) && !kind.ends_with("-mono")
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
    fn colour_is_for_terminals_that_show_it() {
        let shown = |kind: &str, file: &str| shows_colour(kind, Path::new(file));
        assert!(shown("xterm-256color", "/dev/pts/3"));
        assert!(shown("xterm", "/dev/pts/0"));
        assert!(shown("linux", "/dev/tty1"));
        assert!(shown("screen.xterm-256color", "/dev/pts/3"));
        assert!(shown("unheard-of-256color", "/dev/pts/3"));
        for kind in [
            "",
            "dumb",
            "unknown",
            "vt100",
            "vt102",
            "vt220",
            "xterm-mono",
            "ansi",
        ] {
            assert!(!shown(kind, "/dev/pts/3"), "{kind}");
        }
    }

    #[test]
    fn a_serial_console_gets_plain_text_whatever_term_says() {
        for kind in ["vt220", "linux", "xterm-256color"] {
            for file in [
                "/dev/ttyS0",
                "/dev/ttyAMA0",
                "/dev/ttyUSB1",
                "/dev/hvc0",
                "/dev/console",
                "/dev/tty",
                "",
            ] {
                assert!(!shows_colour(kind, Path::new(file)), "{kind} on {file}");
            }
        }
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

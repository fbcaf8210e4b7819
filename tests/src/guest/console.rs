//! What a guest has printed, and how far it was read.

/// How a kernel that gives up says so.
const PANIC: &str = "Kernel panic - not syncing";

/// The text of a serial console so far. Lines that begin with `LAB ` are the guest's first program's, see
/// tests/README.md.
#[derive(Debug, Default)]
pub(super) struct Console {
    text: String,
    /// Up to where it was read.
    read: usize,
    /// Up to where a panic was expected.
    forgiven: usize,
}

impl Console {
    /// Adds what came, without the carriage returns of a terminal.
    pub(super) fn add(&mut self, text: &str) {
        self.text += &text.replace('\r', "");
    }

    /// All of it.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Reads on to the first complete line `LAB word ...`; returns what is before it and what follows the word.
    pub(super) fn read_marker(&mut self, word: &str) -> Option<(String, String)> {
        let unread = self.text.get(self.read..)?;
        let mut at = 0;
        while let Some(length) = unread[at..].find('\n') {
            let line = &unread[at..at + length];
            let marker = line
                .strip_prefix("LAB ")
                .map(|rest| rest.split_once(' ').unwrap_or((rest, "")));
            if let Some((_, rest)) = marker.filter(|(found, _)| *found == word) {
                let found = (unread[..at].trim().to_owned(), rest.trim().to_owned());
                self.read += at + length + 1;
                return Some(found);
            }
            at += length + 1;
        }
        None
    }

    /// Reads on behind the first line that contains `words`, which it returns.
    pub(super) fn read_line_with(&mut self, words: &str) -> Option<String> {
        let unread = self.text.get(self.read..)?;
        let start = unread.find(words)?;
        let line_start = unread[..start].rfind('\n').map_or(0, |at| at + 1);
        let end = start + unread[start..].find('\n')?;
        let line = unread[line_start..end].to_owned();
        self.read += end + 1;
        Some(line)
    }

    /// Forgets what was printed and not read.
    pub(super) fn skip(&mut self) {
        self.read = self.text.len();
    }

    /// Where a panic is that nobody waited for.
    pub(super) fn panic(&self) -> Option<usize> {
        let at = self.text.get(self.forgiven..)?.find(PANIC)?;
        Some(self.forgiven + at)
    }

    /// A panic was expected: it is none from here on, and reading goes on behind it. False if there is none yet.
    pub(super) fn forgive_panic(&mut self) -> bool {
        let Some(at) = self.panic() else { return false };
        self.forgiven = at + PANIC.len();
        self.read = self.read.max(self.forgiven);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(text: &str) -> Console {
        let mut console = Console::default();
        console.add(text);
        console
    }

    #[test]
    fn an_answer_is_what_stands_before_its_marker() {
        let mut console = console("LAB ready 2.50\r\nigb\r\n\r\nLAB done 0\r\nLAB do");
        assert_eq!(
            console.read_marker("ready"),
            Some((String::new(), "2.50".to_owned()))
        );
        assert_eq!(
            console.read_marker("done"),
            Some(("igb".to_owned(), "0".to_owned()))
        );
        assert_eq!(console.read_marker("done"), None);
        console.add("ne 1\n");
        assert_eq!(console.read_marker("done"), Some((String::new(), "1".to_owned())));
    }

    #[test]
    fn a_line_is_waited_for_until_it_is_whole() {
        let mut console = console("round 1 of 3\nmapp");
        assert_eq!(console.read_line_with("mapped"), None);
        console.add("ed 3\nLAB done 0\n");
        assert_eq!(console.read_line_with("mapped"), Some("mapped 3".to_owned()));
        assert!(console.read_marker("done").is_some());
    }

    #[test]
    fn only_a_panic_that_nobody_expects_is_one() {
        let mut console = console("Kernel panic - not syncing: sysrq\nnext kernel\n");
        assert!(console.panic().is_some());
        assert!(console.forgive_panic());
        assert_eq!(console.panic(), None);
        assert!(!console.forgive_panic());
        console.add("Kernel panic - not syncing: again\n");
        assert!(console.panic().is_some());
    }
}

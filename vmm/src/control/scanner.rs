//! Where a command ends in what a client says: with the bracket that closes it, whether its line ends there or goes on. QEMU's own
//! client ends no line.

use std::mem;

/// Levels of brackets that serde_json reads; one that goes deeper is no command.
const MAX_DEPTH: u32 = 128;

/// What is known of the command that is coming.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Brackets that are open.
    depth: u32,
    in_string: bool,
    is_escaped: bool,
    /// It is no JSON that is worth waiting for: it ends with its line, if not before.
    is_lost: bool,
}

impl Scanner {
    /// Takes the next byte; whether the command ends with it, and another may begin. White space in front of a command is
    /// not shown to it.
    pub(super) fn ends_with(&mut self, byte: u8) -> bool {
        let ends = match byte {
            // No string of JSON has a line's end in it: a quotation mark is missing.
            b'\n' if self.is_lost || self.in_string => true,
            _ if mem::take(&mut self.is_escaped) => false,
            b'\\' if self.in_string => {
                self.is_escaped = true;
                false
            }
            b'"' if self.in_string || self.depth > 0 => {
                self.in_string = !self.in_string;
                false
            }
            _ if self.in_string => false,
            b'{' | b'[' if self.depth > 0 || !self.is_lost => {
                self.depth = self.depth.saturating_add(1);
                self.is_lost |= self.depth > MAX_DEPTH;
                false
            }
            b'}' | b']' if self.depth > 0 => {
                self.depth -= 1;
                self.depth == 0
            }
            _ => {
                self.is_lost |= self.depth == 0;
                false
            }
        };
        if ends {
            *self = Self::default();
        }
        ends
    }

    /// The command is too long to be waited for.
    pub(super) fn give_up(&mut self) {
        self.is_lost = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands of a text that has no white space in front of one.
    fn commands(text: &str) -> Vec<&str> {
        let mut scanner = Scanner::default();
        let ends = text.bytes().map(|byte| scanner.ends_with(byte));
        let mut start = 0;
        let mut found = Vec::new();
        for (at, _) in ends.enumerate().filter(|(_, ends)| *ends) {
            found.push(&text[start..=at]);
            start = at + 1;
        }
        found
    }

    #[test]
    fn a_command_ends_with_its_bracket() {
        assert_eq!(
            commands(r#"{"a": [1]}{"b": "}\"{"}["c"]{"d""#),
            [r#"{"a": [1]}"#, r#"{"b": "}\"{"}"#, r#"["c"]"#]
        );
        assert_eq!(commands("{\n\"a\":\n1}"), ["{\n\"a\":\n1}"]);
    }

    #[test]
    fn what_is_no_json_ends_with_its_line() {
        assert_eq!(commands("stop\n{}"), ["stop\n", "{}"]);
        assert_eq!(commands("x{\n}\n{}"), ["x{\n", "}\n", "{}"]);
        assert_eq!(commands("{\"a: 1}\n{}"), ["{\"a: 1}\n", "{}"]);
    }

    #[test]
    fn what_is_too_deep_ends_with_its_line_or_its_bracket() {
        let open = "[".repeat(10_000);
        let shut = "]".repeat(10_000);
        assert_eq!(
            commands(&format!("{open}\n{{}}")),
            [format!("{open}\n"), "{}".into()]
        );
        assert_eq!(
            commands(&format!("{open}{shut}{{}}")),
            [open + &shut, "{}".into()]
        );
    }
}

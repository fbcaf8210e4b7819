//! The terminal as the guest's console: raw mode that is always undone, and the escape key.

use std::io;
use std::os::fd::AsFd;
use std::panic;
use std::sync::Arc;

use rustix::termios::{InputModes, LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// Ctrl-A, the key before a command to Strait.
const ESCAPE: u8 = 0x01;

/// Standard input in raw mode: every key goes to the guest. The former mode comes back when this is
/// dropped, and before the message of a panic.
pub struct RawMode {
    former: Arc<Termios>,
}

impl RawMode {
    /// Puts standard input into raw mode if it is a terminal.
    ///
    /// Output processing stays on, so that our own lines and a guest's bare line feeds look right.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !isatty(stdin.as_fd()) {
            return Ok(None);
        }
        let former = Arc::new(tcgetattr(stdin.as_fd())?);
        let mut raw = (*former).clone();
        // Ctrl-C, Ctrl-Z and Ctrl-\ are the guest's to interpret, and so are Ctrl-S, Ctrl-Q and carriage returns.
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN;
        raw.input_modes -= InputModes::ICRNL | InputModes::IXON | InputModes::BRKINT;
        // Now, without a flush: what was typed ahead is for the guest.
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw)?;
        // A release build aborts in a panic and drops nothing (Cargo.toml), so the message would come in raw mode, and
        // the shell after it.
        let (at_panic, report) = (former.clone(), panic::take_hook());
        panic::set_hook(Box::new(move |info| {
            restore(&at_panic);
            report(info);
        }));
        Ok(Some(Self { former }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore(&self.former);
    }
}

fn restore(former: &Termios) {
    // There is no one left to tell when the terminal is gone.
    let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, former);
}

/// What a typed byte means.
#[derive(Debug, PartialEq, Eq)]
pub enum Key {
    /// A byte for the guest.
    Byte(u8),
    /// Ctrl-A X: the user ends the machine.
    Quit,
}

/// Finds the escape key in what is typed: Ctrl-A X quits, Ctrl-A Ctrl-A is one Ctrl-A, and Ctrl-A before
/// any other key is dropped with it, as in QEMU.
#[derive(Debug, Default)]
pub struct Escape {
    pending: bool,
}

impl Escape {
    /// Takes the next byte.
    pub fn feed(&mut self, byte: u8) -> Option<Key> {
        match (std::mem::take(&mut self.pending), byte) {
            (false, ESCAPE) => {
                self.pending = true;
                None
            }
            (false, byte) => Some(Key::Byte(byte)),
            (true, ESCAPE) => Some(Key::Byte(ESCAPE)),
            (true, b'x' | b'X') => Some(Key::Quit),
            (true, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> Vec<Key> {
        let mut escape = Escape::default();
        keys.iter().filter_map(|key| escape.feed(*key)).collect()
    }

    #[test]
    fn ctrl_a_x_quits() {
        assert_eq!(typed(b"a\x01x"), [Key::Byte(b'a'), Key::Quit]);
    }

    #[test]
    fn ctrl_a_twice_sends_one() {
        assert_eq!(typed(b"\x01\x01x"), [Key::Byte(1), Key::Byte(b'x')]);
    }

    #[test]
    fn ctrl_a_and_another_key_send_nothing() {
        assert_eq!(typed(b"\x01q."), [Key::Byte(b'.')]);
    }
}

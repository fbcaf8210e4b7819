//! Outputs whose readers are slow, stand still, or are gone.

use std::io::{PipeReader, Read, pipe};
use std::sync::mpsc::channel;
use std::thread;

use strait_devices::Device;
use strait_devices::irq::IrqLine;
use strait_devices::legacy::Serial;

use super::*;

/// Against a hang only.
const LIMIT: Duration = Duration::from_secs(60);
const BACKLOG: usize = 1 << 20;

/// Both outputs and the readers of their pipes, console first.
fn piped() -> (Outputs, PipeReader, PipeReader) {
    let ((console, to_console), (messages, to_messages)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
    let outputs = Outputs::new(to_console, to_messages).expect("descriptors");
    (outputs, console, messages)
}

/// Fills the pipe of an output to the brim; how many bytes that took.
fn fill(output: &Output) -> usize {
    let mut filled = 0;
    while output.waiting() == 0 {
        output.put(b".");
        filled += 1;
    }
    output.give_up();
    assert_eq!(output.news(), Some(News::Lost(1)));
    filled - 1
}

fn is_woken(outputs: &Outputs) -> bool {
    let mut fds = [PollFd::new(&outputs.wake, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())) == Ok(1)
}

fn read(reader: &mut PipeReader, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    reader.read_exact(&mut bytes).expect("so many bytes");
    bytes
}

struct NoLine;

impl IrqLine for NoLine {
    fn set_level(&self, _: bool) {}
}

#[test]
fn a_serial_port_that_nobody_reads_holds_nobody() {
    let (outputs, _console, _messages) = piped();
    fill(&outputs.console);
    let writer = Box::new(Writer(outputs.console.clone()));
    let serial = Arc::new(Serial::new(Arc::new(NoLine), writer, Box::new(|| {})));
    let (done, is_done) = channel();
    let vcpu = serial.clone();
    thread::spawn(move || {
        b"hello".iter().for_each(|byte| _ = vcpu.write(0, &[*byte]));
        done.send(()).expect("somebody waits");
    });
    is_done.recv_timeout(LIMIT).expect("the vCPU goes on");
    // What the event loop does with it in each turn.
    assert_eq!(serial.send(b"typed"), 5);
    assert_eq!(outputs.console.waiting(), 5);
}

#[test]
fn what_waits_comes_out_in_order_when_it_is_read() {
    let (outputs, mut console, _messages) = piped();
    let filled = fill(&outputs.console);
    assert!(is_woken(&outputs));
    outputs.serve();
    outputs.console.put(b"a");
    assert!(is_woken(&outputs), "somebody has to wait for the reader");
    assert_eq!(outputs.serve(), 0);
    outputs.console.put(b"b");
    assert!(!is_woken(&outputs), "he knows");
    assert_eq!(outputs.poll_fds().len(), 2);
    read(&mut console, filled);
    outputs.console.put(b"c");
    assert_eq!(read(&mut console, 3), b"abc");
    assert_eq!(outputs.poll_fds().len(), 1);
}

#[test]
fn a_reader_that_comes_back_hears_what_is_lost() {
    let (outputs, mut console, _messages) = piped();
    let filled = fill(&outputs.console);
    outputs.console.put(&[b'k'; BACKLOG]);
    outputs.console.put(b"lost");
    assert_eq!(outputs.console.news(), None, "not yet");
    read(&mut console, filled);
    let reader = thread::spawn(move || read(&mut console, BACKLOG));
    while outputs.console.waiting() > 0 {
        outputs.console.flush();
    }
    assert_eq!(outputs.console.news(), Some(News::Lost(4)));
    assert_eq!(outputs.console.news(), None);
    assert_eq!(reader.join().expect("all of it"), [b'k'; BACKLOG]);
}

#[test]
fn the_end_waits_for_a_reader_that_goes_on() {
    let (outputs, _console, mut messages) = piped();
    let filled = fill(&outputs.messages);
    outputs.messages.put(&[b'k'; BACKLOG]);
    let reader = thread::spawn(move || read(&mut messages, filled + BACKLOG));
    outputs.finish_within(LIMIT);
    assert!(reader.join().expect("all of it").ends_with(&[b'k'; BACKLOG]));
}

#[test]
fn a_closed_reader_is_told_once_and_costs_nothing() {
    let (outputs, console, messages) = piped();
    drop((console, messages));
    outputs.console.put(&[b'k'; BACKLOG]);
    outputs.console.put(b"x");
    assert_eq!(
        outputs.console.news(),
        Some(News::Refused(rustix::io::Errno::PIPE))
    );
    outputs.console.put(b"x");
    assert_eq!((outputs.console.news(), outputs.console.waiting()), (None, 0));
}

#[test]
fn the_end_does_not_wait_for_a_reader_that_stands_still() {
    let (outputs, _console, _messages) = piped();
    fill(&outputs.messages);
    outputs.messages.put(b"last words");
    outputs.finish_within(Duration::ZERO);
    outputs.give_up();
    assert_eq!(outputs.messages.news(), Some(News::Lost(10)));
}

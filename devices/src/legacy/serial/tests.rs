//! The serial port as a driver and a terminal see it.

use std::io;
use std::sync::atomic::AtomicUsize;

use super::*;

/// Counts rising edges.
#[derive(Default)]
struct Edges(AtomicUsize);

impl IrqLine for Edges {
    fn set_level(&self, high: bool) {
        self.0.fetch_add(usize::from(high), Ordering::Relaxed);
    }
}

/// A terminal that shows everything.
#[derive(Clone, Default)]
struct Terminal {
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn shown(&self) -> Vec<u8> {
        self.shown.lock().expect("no test panics with it").clone()
    }
}

impl Write for Terminal {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.shown.lock().expect("no test panics with it").extend(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Bench {
    serial: Serial,
    edges: Arc<Edges>,
    terminal: Terminal,
    rooms: Arc<AtomicUsize>,
}

impl Bench {
    fn new() -> Self {
        let (edges, terminal, rooms) = (Arc::new(Edges::default()), Terminal::default(), Arc::default());
        let announced: Arc<AtomicUsize> = Arc::clone(&rooms);
        let on_room = Box::new(move || {
            announced.fetch_add(1, Ordering::Relaxed);
        });
        let line: Arc<dyn IrqLine> = edges.clone();
        Self {
            serial: Serial::new(line, Box::new(terminal.clone()), on_room),
            edges,
            terminal,
            rooms,
        }
    }

    fn read(&self, register: u64) -> u8 {
        let mut data = [0];
        self.serial.read(register, &mut data);
        data[0]
    }

    fn write(&self, register: u64, value: u8) {
        assert!(matches!(self.serial.write(register, &[value]), Effect::None));
    }

    fn edges(&self) -> usize {
        self.edges.0.load(Ordering::Relaxed)
    }

    /// Reads bytes for as long as the line status says there are any.
    fn receive(&self) -> Vec<u8> {
        let mut received = Vec::new();
        while self.read(5) & 1 != 0 {
            received.push(self.read(0));
        }
        received
    }
}

#[test]
fn linux_console_output_reaches_the_terminal() {
    let bench = Bench::new();
    for byte in b"hello" {
        assert_eq!(bench.read(5) & 0x60, 0x60, "the transmitter is always empty");
        bench.write(0, *byte);
    }
    assert_eq!(bench.terminal.shown(), b"hello");
    assert_eq!(bench.edges(), 0);
}

#[test]
fn linux_driver_probe_finds_a_16550a() {
    let bench = Bench::new();
    // autoconfig: IER takes 4 bits, scratch holds, loop-back shows in MSR, IIR says "FIFO enabled".
    bench.write(1, 0x0f);
    assert_eq!(bench.read(1), 0x0f);
    bench.write(1, 0);
    bench.write(4, 0x1a);
    assert_eq!(bench.read(6) & 0xf0, 0x90);
    bench.write(4, 0);
    bench.write(2, 0x01);
    assert_eq!(bench.read(2) >> 6, 3);
    bench.write(7, 0x5a);
    assert_eq!(bench.read(7), 0x5a);
}

#[test]
fn input_interrupts_once_and_is_read_in_order() {
    let bench = Bench::new();
    bench.write(1, 0x01);
    assert_eq!(bench.serial.send(b"abc"), 3);
    assert_eq!(bench.edges(), 1);
    assert_eq!(bench.receive(), b"abc");
}

#[test]
fn input_that_came_while_masked_interrupts_when_unmasked() {
    let bench = Bench::new();
    assert_eq!(bench.serial.send(b"x"), 1);
    assert_eq!(bench.edges(), 0);
    bench.write(1, 0x01);
    assert_eq!(bench.edges(), 1);
    assert_eq!(bench.receive(), b"x");
}

/// Linux's handler: as long as the port says that it interrupts, at most 256 bytes of what there is.
fn handle_interrupts(bench: &Bench) -> Vec<u8> {
    let (mut received, mut handled) = (Vec::new(), 0);
    while bench.edges() > handled {
        handled = bench.edges();
        while bench.read(2) & 1 == 0 {
            for _ in 0..256 {
                if bench.read(5) & 1 == 0 {
                    break;
                }
                received.push(bench.read(0));
            }
        }
    }
    received
}

#[test]
fn all_that_is_typed_at_once_arrives_by_interrupts_alone() {
    for len in [1, 64, 65, 255, 256, 257, 300, 320, 321, 1000, Serial::QUEUE_BYTES] {
        let bench = Bench::new();
        bench.write(1, 0x01);
        let input: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
        assert_eq!(bench.serial.send(&input), len);
        assert_eq!(handle_interrupts(&bench).len(), len);
    }
}

#[test]
fn full_queue_refuses_and_announces_room_once() {
    let bench = Bench::new();
    let input: Vec<u8> = (0..=u8::MAX).cycle().take(Serial::QUEUE_BYTES + 1000).collect();
    let taken = bench.serial.send(&input);
    assert_eq!(taken, Serial::QUEUE_BYTES);
    // One more fits because the first went into the FIFO.
    assert_eq!(bench.serial.send(&input[taken..]), 1);
    assert_eq!(bench.serial.send(b"?"), 0);
    assert_eq!(bench.rooms.load(Ordering::Relaxed), 0);
    assert_eq!(bench.receive(), &input[..=taken]);
    assert_eq!(bench.rooms.load(Ordering::Relaxed), 1);
}

#[test]
fn input_waits_out_loop_back_mode() {
    let bench = Bench::new();
    bench.write(4, 0x10);
    assert_eq!(bench.serial.send(b"x"), 1);
    assert_eq!(bench.receive(), b"");
    bench.write(4, 0x00);
    assert_eq!(bench.receive(), b"x");
}

#[test]
fn wrong_widths_and_offsets_read_ones_and_write_nothing() {
    let bench = Bench::new();
    let mut data = [0; 4];
    bench.serial.read(0, &mut data);
    assert_eq!(data, [0xff; 4]);
    assert!(matches!(bench.serial.write(0, b"ab"), Effect::None));
    assert!(matches!(bench.serial.write(256, b"a"), Effect::None));
    assert_eq!(bench.read(256), 0xff);
    assert!(bench.terminal.shown().is_empty());
}

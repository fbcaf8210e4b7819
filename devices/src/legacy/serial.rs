//! The 16550 serial port: vm-superio's register model with our output, input queue and interrupt line.
//!
//! | a guest, or whoever types, can ... | what stops it |
//! |---|---|
//! | send input faster than it is read | the queue holds [`Serial::QUEUE_BYTES`]; what does not fit stays with the caller |
//! | mask the receive interrupt while input waits | unmasking raises it again (vm-superio from 0.8.2) |
//! | write while the terminal is slow, full or gone | the output neither waits nor fails, which [`Serial::new`] asks of it |
//! | feed itself through loop-back mode | vm-superio's 64-byte FIFO bounds it |

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial as Uart};

use crate::irq::IrqLine;
use crate::lock::lock;
use crate::{Device, Effect};

/// The line status register, and its bit for received data (16550 data sheet §8.6.3).
const LINE_STATUS: u8 = 5;
const DATA_READY: u8 = 1;

/// Called when the guest has made room after a [`Serial::send`] that did not fit.
pub type OnRoom = Box<dyn Fn() + Send + Sync>;

/// The port. Locks: its core first, then whatever the interrupt line takes.
pub struct Serial {
    core: Mutex<Core>,
    on_room: OnRoom,
    /// Somebody waits for `on_room`.
    refused: AtomicBool,
}

struct Core {
    uart: Uart<Pulse, NoEvents, Box<dyn Write + Send>>,
    /// Input that waits for room in the UART's own FIFO.
    queue: VecDeque<u8>,
}

impl Serial {
    /// Number of ports a 16550 takes.
    pub const PORTS: u64 = 8;
    /// How much input waits for the guest at most.
    pub const QUEUE_BYTES: usize = 4096;

    /// A port that interrupts on `line`, which must be edge-triggered, and writes to `output`.
    ///
    /// `output` must take everything at once: it is written with a lock held that whoever [`send`](Self::send)s
    /// takes too. `on_room` runs on a vCPU's thread with no lock held and should do no more than wake whoever
    /// sends.
    pub fn new(line: Arc<dyn IrqLine>, output: Box<dyn Write + Send>, on_room: OnRoom) -> Self {
        let uart = Uart::new(Pulse(line), output);
        Self {
            core: Mutex::new(Core {
                uart,
                queue: VecDeque::new(),
            }),
            on_room,
            refused: AtomicBool::new(false),
        }
    }

    /// Queues input for the guest and returns how many bytes were taken. When it is not all of them, keep
    /// the rest and stop reading more until `on_room` was called.
    pub fn send(&self, input: &[u8]) -> usize {
        let mut core = self.lock();
        let taken = input.len().min(Self::QUEUE_BYTES - core.queue.len());
        core.queue.extend(&input[..taken]);
        core.refill();
        if taken < input.len() {
            self.refused.store(true, Ordering::Release);
        }
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    /// Tells the sender that there is room again, with no lock held.
    fn announce_room(&self, has_room: bool) {
        if has_room && self.refused.load(Ordering::Acquire) && self.refused.swap(false, Ordering::AcqRel) {
            (self.on_room)();
        }
    }
}

impl Device for Serial {
    fn name(&self) -> &str {
        "serial"
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let (Ok(register @ 0..8), [byte]) = (u8::try_from(offset), &mut *data) else {
            data.fill(0xff);
            return;
        };
        let mut core = self.lock();
        *byte = core.uart.read(register);
        let has_room = core.refill();
        drop(core);
        self.announce_room(has_room);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let (Ok(register @ 0..8), &[value]) = (u8::try_from(offset), data) else {
            return Effect::None;
        };
        let mut core = self.lock();
        // The output reports no errors and neither does the line; a full loop-back FIFO drops the byte.
        let _ = core.uart.write(register, value);
        let has_room = core.refill();
        drop(core);
        self.announce_room(has_room);
        Effect::None
    }
}

impl Core {
    /// Moves the next byte of queued input into the UART's FIFO once the guest has emptied it. True when the queue is
    /// then at most half full: waking the sender for each byte would cost a system call a byte.
    ///
    /// One at a time: a 16550 interrupts for as long as there is data, but vm-superio takes the interrupt back with the
    /// first byte that is read. Linux reads 256 in one go (`serial8250_rx_chars`), and whatever then stood in the FIFO
    /// would stay there until somebody types once more.
    fn refill(&mut self) -> bool {
        let has_data = self.uart.read(LINE_STATUS) & DATA_READY != 0;
        if let Some(byte) = self.queue.front().filter(|_| !has_data) {
            // Loop-back mode takes no input from outside.
            if self
                .uart
                .enqueue_raw_bytes(&[*byte])
                .is_ok_and(|taken| taken == 1)
            {
                self.queue.pop_front();
            }
        }
        self.queue.len() <= Serial::QUEUE_BYTES / 2
    }
}

/// The UART's interrupt, an edge on the line: vm-superio says "now" and never "no longer".
struct Pulse(Arc<dyn IrqLine>);

impl Trigger for Pulse {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.set_level(true);
        self.0.set_level(false);
        Ok(())
    }
}

#[cfg(test)]
mod tests;

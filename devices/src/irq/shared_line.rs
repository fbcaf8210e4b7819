//! A level-triggered wire that several devices share, as PCI's INTx wires (PCI Local Bus 3.0 §2.2.6).

use std::sync::{Arc, Mutex, Weak};

use super::IrqLine;

use crate::lock::lock;

/// Hears of the end of a level interrupt: a CPU is done with it, and a device that still wants attention
/// asks again.
pub trait EndOfInterrupt: Send + Sync {
    /// The interrupt ended. Called without a lock of the interrupt controller, so that the listener may
    /// lower its wire at once.
    fn end_of_interrupt(&self);
}

/// The wire, high for as long as one of its inputs is.
///
/// Lock order: a device's own lock, an input, the count of high inputs, then the interrupt controller. The
/// list of listeners is never held over a call.
pub struct SharedLine {
    line: Arc<dyn IrqLine>,
    high_inputs: Mutex<usize>,
    listeners: Mutex<Vec<Weak<dyn EndOfInterrupt>>>,
}

impl SharedLine {
    /// A low wire in front of `line`, without inputs.
    pub fn new(line: Arc<dyn IrqLine>) -> Arc<Self> {
        Arc::new(Self {
            line,
            high_inputs: Mutex::new(0),
            listeners: Mutex::default(),
        })
    }

    /// One device's end of the wire; it goes low when it is dropped.
    pub fn input(self: &Arc<Self>) -> LineInput {
        LineInput {
            line: Arc::clone(self),
            is_high: Mutex::new(false),
        }
    }

    /// Lets a device hear of the end of this wire's interrupts, for as long as it lives.
    pub fn listen(&self, listener: Weak<dyn EndOfInterrupt>) {
        let mut listeners = lock(&self.listeners);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(listener);
    }

    fn change(&self, rises: bool) {
        let mut high_inputs = lock(&self.high_inputs);
        let was_high = *high_inputs > 0;
        *high_inputs = match rises {
            true => *high_inputs + 1,
            false => high_inputs.saturating_sub(1),
        };
        let is_high = *high_inputs > 0;
        if is_high != was_high {
            // Under the lock, so that levels reach the controller in their order.
            self.line.set_level(is_high);
        }
    }
}

impl EndOfInterrupt for SharedLine {
    fn end_of_interrupt(&self) {
        let listeners: Vec<_> = lock(&self.listeners).iter().filter_map(Weak::upgrade).collect();
        for listener in listeners {
            listener.end_of_interrupt();
        }
    }
}

/// What one device holds of a [`SharedLine`].
pub struct LineInput {
    line: Arc<SharedLine>,
    is_high: Mutex<bool>,
}

impl IrqLine for LineInput {
    fn set_level(&self, high: bool) {
        let mut is_high = lock(&self.is_high);
        if *is_high != high {
            *is_high = high;
            self.line.change(high);
        }
    }
}

impl Drop for LineInput {
    fn drop(&mut self) {
        self.set_level(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeLine;

    /// Lowers its input when the interrupt ends, as a device without further cause does.
    struct Lowering(LineInput);

    impl EndOfInterrupt for Lowering {
        fn end_of_interrupt(&self) {
            self.0.set_level(false);
        }
    }

    #[test]
    fn the_wire_is_high_while_any_input_is() {
        let line = FakeLine::new();
        let shared = SharedLine::new(line.clone());
        let (first, second) = (shared.input(), shared.input());
        first.set_level(true);
        second.set_level(true);
        first.set_level(false);
        assert!(line.is_high());
        second.set_level(false);
        assert_eq!(line.levels(), [true, false]);
    }

    #[test]
    fn a_level_that_is_set_twice_counts_once() {
        let line = FakeLine::new();
        let input = SharedLine::new(line.clone()).input();
        input.set_level(true);
        input.set_level(true);
        input.set_level(false);
        input.set_level(false);
        assert_eq!(line.levels(), [true, false]);
    }

    #[test]
    fn a_dropped_input_lets_go_of_the_wire() {
        let line = FakeLine::new();
        let shared = SharedLine::new(line.clone());
        let input = shared.input();
        input.set_level(true);
        drop(input);
        assert!(!line.is_high());
    }

    #[test]
    fn every_living_listener_hears_of_the_end() {
        let line = FakeLine::new();
        let shared = SharedLine::new(line.clone());
        let devices = [(); 2].map(|()| Arc::new(Lowering(shared.input())));
        for device in &devices {
            let listener: Weak<Lowering> = Arc::downgrade(device);
            shared.listen(listener);
            device.0.set_level(true);
        }
        let [first, second] = devices;
        drop(first);
        assert!(line.is_high(), "the second still asks");
        shared.end_of_interrupt();
        assert!(!line.is_high());
        drop(second);
        shared.end_of_interrupt();
    }
}

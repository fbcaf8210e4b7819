//! Recording fakes of the seams, for unit tests: what was routed, mapped and bound can be looked at.
//!
//! They panic where a test has gone wrong; nothing here is built into the product.

mod dma;
pub mod fuzz;
mod irq;
mod memory;
mod registers;

use std::sync::{Mutex, MutexGuard};

pub use dma::{DmaCall, FakeDmaMapping, FakeDomain};
pub use irq::{Binding, FakeBinder, FakeLine, FakeRoute, FakeRouter};
pub use memory::{FakeBacking, FakeListener, Heard, RamDevice};
pub use registers::{Registers, finish};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("no test thread panics while it holds a fake's lock")
}

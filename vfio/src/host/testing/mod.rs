//! A host made of files, and a kernel that does to them what Linux does to sysfs.

mod fault;
mod kernel;
mod tree;

pub use fault::{Does, Fault};
pub use tree::{FakeFunction, FakeHost};

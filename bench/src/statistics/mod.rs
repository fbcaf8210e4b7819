//! What rounds say, and how sure that is.

mod interval;
mod median;
mod resample;
mod verdict;

pub use interval::{Interval, interval, ratio};
pub use median::median;
pub use verdict::Verdict;

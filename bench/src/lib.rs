//! What VMMs were measured at, and what can be said of it: a model of figures in rounds, statistics that do not say
//! more than the rounds do, and reports of both.
//!
//! Who runs guests fills a [`Report`] in [`Order::abba`]
//! and hands it to [`table`], [`html`] and [`Report::write`]. [`compare`] reads two of them.
//!
//! ```
//! use strait_bench::{Better, Metric, Report};
//!
//! let mut report = Report::new("qemu");
//! let start = report.metric(Metric::new("start.wall", "start to power-off", "s", Better::Lower));
//! start.add("strait", 1.0);
//! start.add("qemu", 2.0);
//! assert!(strait_bench::table(&report).contains("0.50"));
//! ```

#![forbid(unsafe_code)]

mod beside;
mod compare;
pub mod counting;
mod file;
mod host;
mod html;
mod order;
pub mod real;
mod report;
mod shell;
mod statistics;
mod table;
mod words;

pub use compare::{Comparison, Line, compare};
pub use file::{FileError, SCHEMA};
pub use host::Look;
pub use html::html;
pub use order::Order;
pub use report::{Asked, Better, Broken, Floor, Metric, Report};
pub use shell::{Shell, ThisHost};
pub use statistics::{Interval, Verdict, interval, median, ratio};
pub use table::{comparison_table, table};

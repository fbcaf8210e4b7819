//! What is mapped in one domain of the host, and how it is brought to what the guest wants.
//!
//! A sync walks the guest's tables over a range, compares with the book, deletes what is gone and adds what
//! is new. What stayed the same is not touched: a page-selective invalidation may cover neighbours. The host
//! cannot split a mapping (type1v2), so one that lost a part goes whole and its rest is mapped again.
//!
//! `book` knows what is mapped and makes the calls, `diff` compares it with what is wanted, `sync` decides how far
//! to go at a time.

mod book;
mod diff;
mod sync;

pub use book::ShadowStats;
pub(super) use sync::{EVERYTHING, Shadow};

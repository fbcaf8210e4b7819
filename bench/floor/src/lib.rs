//! The bare necessary of what a VMM does, and nothing else: what a figure of one is held against. A VMM that is better
//! than its floor was measured wrongly.
//!
//! Each probe is a process of its own, started as a VMM is, so that what the kernel notes down of one it notes down of
//! the other.

mod device;
mod guest;
mod interrupt;
mod launch;
mod ram;
mod sys;

use anyhow::Result;
use clap::Parser;

pub use interrupt::{Interrupts, Latency};
pub use launch::{Launch, Took};
pub use ram::Pages;

/// Do only what every VMM must, and print how many nanoseconds it took, as JSON: what a VMM is held against.
#[derive(Debug, Parser)]
#[command(name = "strait-floor", version)]
pub enum Floor {
    /// Start a guest of one instruction.
    Launch(Launch),
    /// Interrupt a guest by an eventfd, again and again.
    Interrupts(Interrupts),
}

impl Floor {
    /// Measures, and prints what it took in nanoseconds, as JSON.
    ///
    /// # Errors
    /// When the kernel refuses something.
    pub fn run(&self) -> Result<()> {
        let took = match self {
            Self::Launch(launch) => serde_json::to_string(&launch.run()?)?,
            Self::Interrupts(interrupts) => serde_json::to_string(&interrupts.run()?)?,
        };
        println!("{took}");
        Ok(())
    }
}

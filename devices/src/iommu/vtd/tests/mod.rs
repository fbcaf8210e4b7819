//! The unit by what a guest sees of it: registers, tables and rings in memory, and what reaches the host.

mod guest;
mod hostile;
mod hot_path;
mod interrupts;
mod linux;
mod property;
mod queue;
mod registers;
mod shadow;
mod sharing;
mod turns;
mod walk;

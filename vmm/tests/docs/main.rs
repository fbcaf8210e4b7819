//! The documentation says what the program does: its options, its commands and its messages.

mod commands;
mod links;
mod messages;
mod pages;

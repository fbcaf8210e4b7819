//! What the project's own sources are held to: arrows that lead one way, and tables of ARCHITECTURE.md that are whole.

mod architecture;
mod circles;
mod threads_and_locks;

//! Layout only: registers, tables in memory and messages of VT-d, with section numbers of the
//! Intel Virtualization Technology for Directed I/O specification.

pub(crate) mod descriptors;
pub(crate) mod interrupt;
pub(crate) mod registers;
pub(crate) mod tables;

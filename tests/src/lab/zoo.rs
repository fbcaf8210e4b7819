//! One of each PCI device that QEMU has, a row each: they are on a lab machine of their own.

use super::devices::{Device, NIC};

/// All of them. What is new comes last: bus numbers are given in this order.
pub(crate) const ALL: [&Device; 1] = [&NIC];

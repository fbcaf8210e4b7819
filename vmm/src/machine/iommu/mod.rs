//! What stands between the devices of a machine and its memory and CPUs: nothing of the guest's, or its own unit.
//!
//! [`Plan`] decides it, once, and makes the one or the other. The rest of the machine does not ask which it is.

mod direct;
mod plan;
mod reach;
mod seam;
mod viommu;

pub(super) use plan::Plan;
pub(super) use seam::{Iommu, Surroundings};

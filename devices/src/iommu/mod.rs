//! Virtual IOMMUs: what stands between a passed device and the guest's memory when the guest has one.

pub mod vtd;

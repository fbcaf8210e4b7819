//! DMA remapping (§3): what the guest lets each device reach, and the domain of the host that holds it.
//!
//! `context` finds what a requester's requests walk, `table` walks it, `runs` turns that into stretches of host
//! memory, `shadow` brings a domain to them; [`DmaRemapper`] does so for all devices.

mod context;
mod endpoint;
mod latency;
mod remapper;
mod runs;
mod shadow;
mod slots;
mod table;

pub use endpoint::{DeviceStats, Translation};
pub use latency::Latency;
pub(super) use remapper::DmaRemapper;
pub use shadow::ShadowStats;

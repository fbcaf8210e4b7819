//! What a start and a run cost, by what the kernel of the host counts and notes down, alike for every VMM.
//!
//! Who measures has a [`Shell`](crate::Shell) on that host. A [`Trace`] counts while guests run, a [`StartTrace`] notes
//! when a start came how far, a [`Process`] is what a VMM is while its guest waits; a [`Sheet`] makes metrics of them.

mod counts;
mod figures;
mod floors;
mod names;
mod phases;
mod plain;
mod process;
mod sheet;
mod trace;

pub use counts::Counts;
pub use figures::Figures;
pub use floors::{Floors, Launch, Launched, PROGRAM as FLOOR, Probe, least};
pub use names::{svm_exit, vmx_exit};
pub use phases::{Moments, StartTrace};
pub use plain::{Boot, Runs};
pub use process::{Cpu, Process, locked_kib};
pub use sheet::{Sheet, less, more};
pub use trace::{BOOT, CALLS, Histogram, MAPPINGS, Stopwatch, Trace, VECTORS, WORK};

/// VFIO_IOMMU_MAP_DMA, the low half.
pub const MAP: u64 = 0x3b71;
/// VFIO_IOMMU_UNMAP_DMA, the low half.
pub const UNMAP: u64 = 0x3b72;

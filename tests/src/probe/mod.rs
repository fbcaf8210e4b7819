//! A VFIO user program for the inside of a guest: it drives the lab's teaching device by DMA and says what
//! became of it, a line each.
//!
//! A guest with an IOMMU of its own runs it on a device that it gave to vfio-pci. So the program sees from
//! above what Strait's IOMMU makes of the guest's map and unmap calls.

mod bulk;
mod edu;
mod faults;
mod neighbours;
mod pages;
mod small_pages;

use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Subcommand;
use strait_vfio::host::HostBdf;
use strait_vfio::{Container, Device};

use edu::Edu;

/// What to try.
#[derive(Subcommand)]
pub(crate) enum Probe {
    /// DMA where nothing is mapped, where it is mapped no longer, and against the rights of a mapping.
    Faults {
        /// The device, bound to vfio-pci.
        device: String,
    },
    /// DMA to one page while the pages beside it are mapped and unmapped.
    Neighbours {
        /// The device, bound to vfio-pci.
        device: String,
        /// How often each page beside it is mapped and unmapped, at least.
        #[arg(long, default_value_t = 500)]
        rounds: u64,
        /// How often the device fetches a page and writes it.
        #[arg(long, default_value_t = 25)]
        transfers: u64,
    },
    /// Memory mapped by one call and unmapped by another.
    Bulk {
        /// The device, bound to vfio-pci.
        device: String,
        /// How many pages.
        #[arg(long)]
        pages: u64,
    },
    /// DMA to a lot of memory in 4 KiB pages, mapped and unmapped as a whole, again and again.
    SmallPages {
        /// The device, bound to vfio-pci.
        device: String,
        /// How much, a power of two.
        #[arg(long, default_value_t = 1024)]
        mebibytes: u64,
        /// How often.
        #[arg(long, default_value_t = 3)]
        rounds: u64,
    },
}

/// The device and its address space, in which nothing is mapped yet.
struct Bench {
    edu: Edu,
    container: Arc<Container>,
}

impl Bench {
    fn open(device: &str) -> Result<Self> {
        let bdf: HostBdf = device.parse().with_context(|| format!("{device} is no device"))?;
        let container = Container::open(None)?;
        let edu = Edu::new(Device::open(&container, bdf)?)?;
        Ok(Self { edu, container })
    }
}

/// Runs a probe.
pub(crate) fn run(probe: &Probe) -> Result<()> {
    match probe {
        Probe::Faults { device } => faults::run(&Bench::open(device)?),
        Probe::Neighbours {
            device,
            rounds,
            transfers,
        } => neighbours::run(&Bench::open(device)?, *rounds, *transfers),
        Probe::Bulk { device, pages } => bulk::run(&Bench::open(device)?, *pages),
        Probe::SmallPages {
            device,
            mebibytes,
            rounds,
        } => small_pages::run(&Bench::open(device)?, *mebibytes, *rounds),
    }
}

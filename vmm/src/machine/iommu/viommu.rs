//! The virtual IOMMU of a machine: the unit, and the buses its devices are on.

mod report;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;
use std::{io, thread};

use strait_devices::dma::{Access, Domain, Iova, LiveBus, Requester, RequesterId};
use strait_devices::iommu::vtd::{AddressWidth, RemappingRouter, Source, Vtd, VtdConfig};
use strait_devices::irq::MsiRouter;
use strait_devices::pci::Upstream;
use strait_devices::{Device, GuestAddress};
use strait_vfio::Container;
use strait_vfio::domain::ContainerError;
use strait_vfio::host::{HostBdf, entries_needed};

use super::seam::{Iommu, Surroundings};
use crate::acpi::{Dmar, IOAPIC_BUS};
use crate::config::{Config, ViommuConfig};
use crate::kvm::irq::GsiRouter;
use crate::machine::error::RunError;
use crate::machine::passthrough::{Opened, Passed};
use crate::placement::IovaRanges;
use crate::signals::Signals;

/// The unit with what stays through a reset of the guest.
pub(super) struct Viommu {
    vtd: Arc<Vtd>,
    table: Dmar,
    router: Arc<GsiRouter>,
    /// Behind each root port.
    buses: BTreeMap<u8, Arc<LiveBus>>,
    stats: Option<PathBuf>,
    /// Ends the watch when it is dropped.
    _watch: Sender<()>,
}

impl Viommu {
    /// A unit in front of `opened`, which are in a container each. It hears of every change of the memory map.
    ///
    /// # Errors
    /// When the host gives no more threads.
    pub(super) fn connect_all(
        machine: &Config,
        config: ViommuConfig,
        width: AddressWidth,
        opened: Vec<Opened>,
        surroundings: &Surroundings<'_>,
    ) -> Result<(Self, Vec<Passed>), RunError> {
        warn_of_limits(config, &opened, machine.memory.size.bytes())?;
        let buses: BTreeMap<u8, Arc<LiveBus>> = (1..=surroundings.ports)
            .map(|port| (port, Arc::default()))
            .collect();
        let requesters: Vec<_> = opened.iter().map(|opened| requester(&buses, opened)).collect();
        let domain = |opened: &Opened| opened.container.clone() as Arc<dyn Domain>;
        let unit = VtdConfig {
            width,
            caching_mode: config.caching_mode,
            interrupt_remapping: config.interrupt_remapping,
            extended_interrupts: config.extended_interrupts,
            // Nothing is promised for a device that is still to come.
            snoop_control: !opened.is_empty() && opened.iter().all(|opened| opened.container.is_coherent()),
        };
        let router = surroundings.vm.router().clone();
        let endpoints = requesters
            .iter()
            .cloned()
            .zip(opened.iter().map(domain))
            .collect();
        let vtd = Vtd::new(unit, surroundings.ram.tables(), router.clone(), endpoints);
        let viommu = Self {
            _watch: watch(&vtd)?,
            vtd,
            table: Dmar {
                width_bits: width.bits(),
                interrupt_remapping: config.interrupt_remapping,
            },
            router,
            buses,
            stats: machine.stats.clone(),
        };
        let passed = (0..).zip(opened).zip(requesters);
        let passed = passed.map(|((index, opened), requester)| {
            let router = viommu.route(Source::Function(requester));
            opened.connected(router, viommu.vtd.bus_master(index))
        });
        let passed = passed.collect();
        surroundings.space.add_listener(viommu.vtd.clone())?;
        Ok((viommu, passed))
    }

    /// Whether what the guest was promised holds for a device that comes.
    fn check(&self, opened: &Opened) -> Result<(), RunError> {
        let name = opened.device.bdf();
        if self.vtd.snoops() && !opened.container.is_coherent() {
            return Err(ComeError::Incoherent(name).into());
        }
        let facts = opened.container.facts()?;
        let (has, promised) = (
            IovaRanges::everything().within(&facts.iova_ranges).bits(),
            self.table.width_bits,
        );
        if has < promised {
            return Err(ComeError::Narrow { name, has, promised }.into());
        }
        Ok(())
    }

    fn route(&self, source: Source) -> Arc<dyn MsiRouter> {
        match self.table.interrupt_remapping {
            true => RemappingRouter::new(self.vtd.clone(), source),
            false => self.router.clone(),
        }
    }
}

/// The function that `opened` is to the guest, behind its port's bus.
fn requester(buses: &BTreeMap<u8, Arc<LiveBus>>, opened: &Opened) -> Requester {
    Requester {
        bus: buses.get(&opened.seat.port).cloned().unwrap_or_default(),
        devfn: opened.seat.function,
    }
}

/// A device for which the guest's IOMMU promises too much.
#[derive(Debug, thiserror::Error)]
enum ComeError {
    #[error(
        "the guest's IOMMU makes DMA coherent, which the host's does not do for {0}; pass it when the guest starts, whose \
         IOMMU then does not promise that"
    )]
    Incoherent(HostBdf),
    #[error(
        "the guest's IOMMU has {promised} bits and the host's has {has} for {name}; start the guest with --viommu \
         intel,aw-bits={has} or less"
    )]
    Narrow { name: HostBdf, has: u8, promised: u8 },
}

impl Iommu for Viommu {
    fn container(&self) -> Option<Arc<Container>> {
        None
    }

    fn admit(&self, opened: &[Opened], _: &Arc<Signals>) -> Result<(), RunError> {
        opened.iter().try_for_each(|opened| self.check(opened))
    }

    fn connect(&self, opened: Vec<Opened>) -> Vec<Passed> {
        let connected = |opened: Opened| {
            let requester = requester(&self.buses, &opened);
            let index = self.vtd.attach(requester.clone(), opened.container.clone());
            let router = self.route(Source::Function(requester));
            opened.connected(router, self.vtd.bus_master(index))
        };
        opened.into_iter().map(connected).collect()
    }

    fn vacate(&self) {}

    fn give_up(&self) {}

    fn ioapic_router(&self) -> Arc<dyn MsiRouter> {
        self.route(Source::Ioapic(RequesterId(u16::from(IOAPIC_BUS) << 8)))
    }

    fn upstream(&self, number: u8) -> Upstream {
        let port = Requester {
            bus: Arc::default(),
            devfn: number << 3,
        };
        Upstream {
            bus: self.buses.get(&number).cloned().unwrap_or_default(),
            listener: self.vtd.clone(),
            router: self.route(Source::Function(port)),
        }
    }

    fn registers(&self) -> Option<Arc<dyn Device>> {
        Some(self.vtd.clone())
    }

    fn reset(&self) {
        self.vtd.reset();
    }

    fn acpi_tables(&self) -> Vec<Vec<u8>> {
        vec![self.table.table()]
    }

    fn report(&self) -> String {
        report::report(&self.vtd.stats())
    }

    fn translate(&self, requester: RequesterId, iova: Iova) -> Option<GuestAddress> {
        let read = self.vtd.look_up(requester, iova, Access::READ);
        read.or_else(|| self.vtd.look_up(requester, iova, Access::WRITE))
    }
}

/// Says what will not work for the guest's own guests, or for a guest of `memory_bytes` that maps page by page.
fn warn_of_limits(config: ViommuConfig, opened: &[Opened], memory_bytes: u64) -> Result<(), ContainerError> {
    let Some(first) = opened.first() else {
        return Ok(());
    };
    if !config.interrupt_remapping {
        log::warn!(
            "--viommu: with intremap=off the guest can pass its devices on only if its vfio_iommu_type1 \
             has allow_unsafe_interrupts=1"
        );
    }
    let needed = entries_needed(memory_bytes);
    let mut fewest = u64::MAX;
    for opened in opened {
        let left = opened.container.facts()?.mappings_left;
        fewest = fewest.min(left.map_or(u64::MAX, u64::from));
    }
    if fewest < needed {
        log::warn!(
            "--viommu: the host has {fewest} DMA mappings for each device, and the guest may need {needed}, one a page; \
             maps beyond that fail. `strait host bind --dma-entries {needed} {}` before the start makes room",
            first.device.bdf()
        );
    }
    Ok(())
}

impl Drop for Viommu {
    fn drop(&mut self) {
        let stats = self.vtd.stats();
        for line in report::refusals(&stats) {
            log::warn!("{line}");
        }
        let text = report::report(&stats);
        if let Some(path) = &self.stats
            && let Err(why) = write_stats(path, &text)
        {
            log::warn!("Cannot write {}: {why}", path.display());
        }
        log::info!("The guest's IOMMU: {}", text.trim_end().replace('\n', ", "));
    }
}

/// Writes a file, or into a pipe what there is room for: the end of a run waits for no reader.
fn write_stats(path: &Path, text: &str) -> Result<(), String> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.raw_os_error() {
        Some(libc::ENXIO | libc::EPIPE | libc::EAGAIN) => "nobody reads it".to_owned(),
        _ => error.to_string(),
    })
}

/// Looks once a second for interrupts that arrived where the guest's table leads nowhere: the kernel holds
/// them back and tells nobody.
fn watch(vtd: &Arc<Vtd>) -> io::Result<Sender<()>> {
    let (sender, end) = channel();
    let vtd = Arc::downgrade(vtd);
    let work = move || {
        while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(Duration::from_secs(1)) {
            let Some(vtd) = vtd.upgrade() else { return };
            vtd.report_blocked();
        }
    };
    thread::Builder::new().name("viommu".to_owned()).spawn(work)?;
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use std::io::pipe;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn numbers_for_a_pipe_that_nobody_reads_hold_up_no_end() {
        let (reader, writer) = pipe().expect("a pipe");
        let path = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
        assert_eq!(write_stats(&path, "12"), Ok(()));
        let too_much = "x".repeat(1 << 20);
        assert_eq!(write_stats(&path, &too_much), Err("nobody reads it".to_owned()));
        drop(reader);
        assert_eq!(write_stats(&path, "12"), Err("nobody reads it".to_owned()));
    }
}

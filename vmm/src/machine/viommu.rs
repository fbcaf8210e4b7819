//! The virtual IOMMU of a machine: the unit, and the buses its devices are on.

mod report;

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;
use std::{io, thread};

use strait_devices::dma::{BusMaster, Domain, LiveBus, Requester, RequesterId};
use strait_devices::iommu::vtd::{AddressWidth, RemappingRouter, Source, Vtd, VtdConfig};
use strait_devices::irq::MsiRouter;
use strait_vfio::domain::Container;

use super::seat::Seat;
use crate::acpi::{Dmar, IOAPIC_BUS};
use crate::config::ViommuConfig;
use crate::memory::GuestRam;
use crate::placement::IovaRanges;

/// A width that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum WidthError {
    #[error("--viommu: aw-bits={wanted} is wider than the {has} bits of the host's IOMMU; give less")]
    TooWide { wanted: u8, has: u8 },
    #[error("--viommu: the host's IOMMU has {0} bits; at least 39 are needed")]
    TooNarrow(u8),
}

/// The unit with what stays through a reset of the guest.
pub struct Viommu {
    vtd: Arc<Vtd>,
    width: AddressWidth,
    remaps_interrupts: bool,
    /// Behind each root port.
    buses: Vec<Arc<LiveBus>>,
    /// The passed devices.
    requesters: Vec<Requester>,
    router: Arc<dyn MsiRouter>,
    stats: Option<PathBuf>,
    /// Ends the watch when it is dropped.
    _watch: Sender<()>,
}

impl Viommu {
    /// A unit in front of the functions at `seats`, each with a container of its own.
    ///
    /// # Errors
    /// When the host gives no more threads.
    pub(super) fn new(
        config: ViommuConfig,
        width: AddressWidth,
        seats: &[Seat],
        containers: &[Arc<Container>],
        router: Arc<dyn MsiRouter>,
        ram: &GuestRam,
        stats: Option<PathBuf>,
    ) -> io::Result<Self> {
        if !config.interrupt_remapping && !containers.is_empty() {
            log::warn!(
                "--viommu: with intremap=off the guest can pass its devices on only if its vfio_iommu_type1 \
                 has allow_unsafe_interrupts=1"
            );
        }
        let ports = seats.iter().map(|seat| seat.port).max().unwrap_or(0);
        let buses: Vec<_> = (0..ports).map(|_| Arc::<LiveBus>::default()).collect();
        let requester = |seat: &Seat| Requester {
            bus: buses[usize::from(seat.port) - 1].clone(),
            devfn: seat.function,
        };
        let requesters: Vec<_> = seats.iter().map(requester).collect();
        let domains = containers
            .iter()
            .map(|container| container.clone() as Arc<dyn Domain>);
        let unit = VtdConfig {
            width,
            caching_mode: config.caching_mode,
            interrupt_remapping: config.interrupt_remapping,
            extended_interrupts: config.extended_interrupts,
            snoop_control: containers.iter().all(|container| container.is_coherent()),
        };
        let endpoints = requesters.iter().cloned().zip(domains).collect();
        let vtd = Vtd::new(unit, ram.tables(), router.clone(), endpoints);
        let remaps_interrupts = config.interrupt_remapping;
        let watch = watch(&vtd)?;
        Ok(Self {
            vtd,
            width,
            remaps_interrupts,
            buses,
            requesters,
            router,
            stats,
            _watch: watch,
        })
    }

    /// The register page.
    pub fn unit(&self) -> &Arc<Vtd> {
        &self.vtd
    }

    /// What ACPI tells of it.
    pub fn dmar(&self) -> Dmar {
        Dmar {
            width_bits: self.width.bits(),
            interrupt_remapping: self.remaps_interrupts,
        }
    }

    /// Where the I/O APIC's messages go.
    pub fn ioapic_router(&self) -> Arc<dyn MsiRouter> {
        self.route(Source::Ioapic(RequesterId(u16::from(IOAPIC_BUS) << 8)))
    }

    /// Where the interrupts of root port `number` go, which stands on bus 0.
    pub fn port_router(&self, number: u8) -> Arc<dyn MsiRouter> {
        self.route(Source::Function(Requester {
            bus: Arc::default(),
            devfn: number << 3,
        }))
    }

    /// The bus behind root port `port`.
    pub fn bus(&self, port: u8) -> Arc<LiveBus> {
        self.buses[usize::from(port) - 1].clone()
    }

    /// What the passed device `index` needs: its router, and who hears of its bus mastering.
    pub fn seat(&self, index: usize) -> (Arc<dyn MsiRouter>, Arc<dyn BusMaster>) {
        let source = Source::Function(self.requesters[index].clone());
        (self.route(source), self.vtd.bus_master(index))
    }

    /// What the guest asked of it and what that cost, a number a line.
    pub fn report(&self) -> String {
        report::report(&self.vtd.stats())
    }

    fn route(&self, source: Source) -> Arc<dyn MsiRouter> {
        match self.remaps_interrupts {
            true => RemappingRouter::new(self.vtd.clone(), source),
            false => self.router.clone(),
        }
    }
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

/// The width asked for, else the widest of which all addresses can be mapped, by a guest whose CPUs have `cpu_bits` to
/// see windows over the others; none without a virtual IOMMU.
///
/// # Errors
/// When the host's IOMMU is narrower than was asked for, or than any.
pub(super) fn width(
    config: Option<ViommuConfig>,
    reach: &IovaRanges,
    cpu_bits: u8,
) -> Result<Option<AddressWidth>, WidthError> {
    config
        .map(|config| choose(config.width, reach.bits(), reach.usable_bits(cpu_bits)))
        .transpose()
}

fn choose(wanted: Option<AddressWidth>, has: u8, usable: u8) -> Result<AddressWidth, WidthError> {
    let widest = AddressWidth::within(has).ok_or(WidthError::TooNarrow(has))?;
    match wanted {
        Some(wanted) if wanted > widest => {
            let wanted = wanted.bits();
            Err(WidthError::TooWide { wanted, has })
        }
        Some(wanted) => Ok(wanted),
        // Refused maps are counted and told of.
        None => Ok(AddressWidth::within(usable).unwrap_or(AddressWidth::Bits39)),
    }
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

    #[test]
    fn the_hosts_width_is_the_default_and_the_limit() {
        let error = |wanted, has| choose(wanted, has, has).expect_err("no such width").to_string();
        assert!(matches!(choose(None, 48, 48), Ok(AddressWidth::Bits48)));
        assert!(matches!(choose(None, 48, 47), Ok(AddressWidth::Bits39)));
        assert!(matches!(choose(None, 39, 39), Ok(AddressWidth::Bits39)));
        assert!(matches!(
            choose(Some(AddressWidth::Bits48), 48, 47),
            Ok(AddressWidth::Bits48)
        ));
        assert!(matches!(
            choose(Some(AddressWidth::Bits39), 57, 57),
            Ok(AddressWidth::Bits39)
        ));
        assert_eq!(
            error(Some(AddressWidth::Bits48), 39),
            "--viommu: aw-bits=48 is wider than the 39 bits of the host's IOMMU; give less"
        );
        assert!(error(None, 36).contains("36 bits; at least 39"));
    }
}

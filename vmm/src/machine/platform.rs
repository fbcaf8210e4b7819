//! What stays through a guest's reset: KVM's virtual machine, RAM, the open devices and their DMA.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Instant;
use std::{env, mem};

use strait_devices::Place;
use strait_devices::address_space::AddressSpace;
use strait_devices::iommu::vtd::AddressWidth;
use strait_devices::pci::firmware::Windows;
use strait_devices::region::Region;
use strait_vfio::{Hardware as _, InterruptKind};
use vm_memory::Bytes;

use super::RunError;
use super::board::Board;
use super::host::Host;
use super::passthrough::{HostDevices, Passed};
use super::state::{Event, Events};
use super::unplug::Leaving;
use super::user::User;
use super::viommu::{self, Viommu};
use crate::acpi::{self, AcpiConfig, PciHost};
use crate::boot::{EntryState, GuestKernel};
use crate::config::{Config, OnDeviceError};
use crate::event_loop::EventLoop;
use crate::kvm::irq::GsiRouter;
use crate::kvm::slots::MemorySlots;
use crate::kvm::vcpu::{self, Vcpu};
use crate::kvm::{Vm, cpuid};
use crate::layout::{self, Range};
use crate::memory::GuestRam;
use crate::output::{Outputs, Writer};
use crate::placement::{self, IovaRanges};
use crate::progress::{Pages, Progress, Style};
use crate::vcpu::{Surroundings, VcpuThread, install_kick};

/// The lasting part of a machine.
///
/// Field order is drop order: the map goes first and takes memory slots and DMA mappings with it, while
/// the container that holds them still has its devices; RAM goes after everything that reaches it.
pub struct Platform {
    vcpus: Vec<Vcpu>,
    /// Guest physical memory and ports.
    pub space: Arc<AddressSpace>,
    /// The virtual IOMMU, if the guest has one.
    pub viommu: Option<Viommu>,
    host_devices: Option<HostDevices>,
    /// Where the guest's console goes.
    pub(super) outputs: Arc<Outputs>,
    /// Where vCPUs report.
    pub events: Arc<Events>,
    ram: GuestRam,
    kernel: GuestKernel,
    mmio_32: Range,
    mmio_64: Option<Range>,
    /// What the guest's IOMMU cannot map.
    unmappable: Vec<Range>,
    /// What follows when a device reports an error.
    pub(super) on_device_error: OnDeviceError,
    /// Devices that the guest was asked to let go of.
    pub(super) leaving: Leaving,
    /// The virtual machine.
    pub vm: Vm,
}

impl Platform {
    /// Builds the machine in the order that hardware comes up: RAM, memory map, devices, CPUs. Each step
    /// that fails undoes itself and those before it. Between two steps the user may end it.
    ///
    /// # Errors
    /// Says which step failed and what to do; [`Ended`](crate::signals::Ended) after a signal.
    pub fn build(config: &Config, host: Host, user: &User) -> Result<Self, RunError> {
        let vm = Vm::new(&host.system)?;
        vm.note_index_writes()?;
        let host_devices = open_devices(config, &vm, user)?;
        if let (Some(devices), Some(_)) = (&host_devices, config.viommu) {
            devices.check_entries(config.memory.bytes())?;
        }
        let reach = host_devices.as_ref().map(HostDevices::reach).transpose()?;
        let reach = reach.unwrap_or_else(IovaRanges::everything);
        let cpu_bits = cpuid::address_bits(&host.cpuid);
        let width = viommu::width(config.viommu, &reach, cpu_bits)?;
        let unmappable = width.map(|width| reach.windows(width.bits(), host.mmio_32));
        let address_bits = cpu_bits.min(width.map_or(u8::MAX, AddressWidth::bits));
        let placement = placement::place(config.memory.bytes(), host.mmio_32, &reach, address_bits)?;
        let ram = GuestRam::new(&placement.ram)?;
        let space = Arc::new(AddressSpace::new());
        space.add_listener(Arc::new(MemorySlots::new(&vm)))?;
        for (start, backing) in ram.blocks() {
            space.add(Place::Memory(start), Region::ram(backing))?;
        }
        let viommu = let_reach(config, width, &vm, &space, &ram, host_devices.as_ref(), user)?;
        let vcpus = vcpu::all(&vm, &host.system, &host.cpuid, config.cpus)?;
        install_kick()?;
        let events = Arc::new(Events::new()?);
        Ok(Self {
            vcpus,
            space,
            viommu,
            host_devices,
            outputs: user.outputs.clone(),
            events,
            ram,
            kernel: host.kernel,
            mmio_32: host.mmio_32,
            mmio_64: placement.mmio_64,
            unmappable: unmappable.unwrap_or_default(),
            on_device_error: config.on_device_error,
            leaving: Leaving::default(),
            vm,
        })
    }

    /// The passed devices in the order they were given.
    pub(super) fn passed(&self) -> &[Passed] {
        self.host_devices.as_ref().map_or(&[], HostDevices::passed)
    }

    /// How many interrupt vectors each passed device can have.
    pub fn vectors(&self) -> Vec<u32> {
        let count = |passed: &Passed| {
            let kinds = [InterruptKind::Msi, InterruptKind::Msix].into_iter();
            kinds
                .map(|kind| passed.device.interrupt(kind).count)
                .max()
                .unwrap_or(0)
        };
        self.passed().iter().map(count).collect()
    }

    /// How many root ports there are, with numbers from 1 on.
    pub(super) fn ports(&self) -> u8 {
        self.host_devices.as_ref().map_or(0, HostDevices::ports)
    }

    /// Gives the devices behind `port` back to the host; nothing of the guest's reaches them any more.
    pub(super) fn release(&mut self, port: u8) {
        for passed in self.passed().iter().filter(|passed| passed.seat.port == port) {
            if let Some(viommu) = &self.viommu {
                viommu.unit().detach(passed.index);
            }
        }
        if let Some(devices) = &mut self.host_devices {
            devices.remove(port);
        }
    }

    /// What the host bridge forwards.
    pub fn windows(&self) -> Windows {
        let range = |range: Range| range.start.0..range.end().0;
        Windows {
            io: range(layout::PCI_PORTS),
            memory_32: range(self.mmio_32),
            memory_64: self.mmio_64.map_or(0..0, range),
        }
    }

    /// Loads the kernel and runs the guest until something happens to it.
    ///
    /// # Errors
    /// When the kernel cannot be loaded or a vCPU not be started.
    pub fn run_guest(&mut self, board: &mut Board, event_loop: &mut EventLoop) -> Result<Event, RunError> {
        let entry = self.load()?;
        for vcpu in &mut self.vcpus {
            vcpu.reset(&entry)?;
        }
        let threads = self.start(board)?;
        let event = self.serve(board, event_loop);
        self.stop(threads);
        Ok(event?)
    }

    /// What the machine does, for who asks.
    pub(super) fn report(&self) -> String {
        match &self.viommu {
            Some(viommu) => viommu.report(),
            None => "The guest has no IOMMU of its own (--viommu): nothing to report\n".to_owned(),
        }
    }

    fn load(&self) -> Result<EntryState, RunError> {
        let config = AcpiConfig {
            apic_ids: self.vcpus.iter().map(Vcpu::id).collect(),
            pci: PciHost {
                last_bus: self.ports(),
                mmio_32: self.mmio_32,
                mmio_64: self.mmio_64,
                unmappable: self.unmappable.clone(),
            },
            extra: self.viommu.iter().map(|viommu| viommu.dmar().table()).collect(),
        };
        let tables = acpi::build(&config, layout::ACPI_TABLES)?;
        let memory = self.ram.memory();
        memory.write_slice(&tables.bytes, tables.address)?;
        Ok(self.kernel.load(memory, tables.rsdp)?)
    }

    fn start(&mut self, board: &Board) -> Result<Vec<VcpuThread>, RunError> {
        let surroundings = Surroundings {
            space: self.space.clone(),
            ioapic: board.ioapic.clone(),
            events: self.events.clone(),
        };
        let mut threads = Vec::new();
        for vcpu in mem::take(&mut self.vcpus) {
            match VcpuThread::start(vcpu, surroundings.clone()) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    self.stop(threads);
                    return Err(error.into());
                }
            }
        }
        Ok(threads)
    }

    /// Stops all vCPUs. What happened to the guest is known by then, or nothing did.
    fn stop(&mut self, threads: Vec<VcpuThread>) {
        threads.iter().for_each(VcpuThread::ask_to_stop);
        self.vcpus = threads.into_iter().filter_map(VcpuThread::join).collect();
        self.events.forget();
    }
}

fn open_devices(config: &Config, vm: &Vm, user: &User) -> Result<Option<HostDevices>, RunError> {
    match config.devices.is_empty() {
        true => Ok(None),
        false => HostDevices::open(&config.devices, vm, config.viommu.is_some(), &user.signals).map(Some),
    }
}

/// Lets the devices reach RAM, or whoever decides on their DMA hear of the memory map.
fn let_reach(
    config: &Config,
    width: Option<AddressWidth>,
    vm: &Vm,
    space: &AddressSpace,
    ram: &GuestRam,
    devices: Option<&HostDevices>,
    user: &User,
) -> Result<Option<Viommu>, RunError> {
    let Some((viommu, width)) = config.viommu.zip(width) else {
        devices.map_or(Ok(()), |devices| map_all(devices, space, ram, user))?;
        return Ok(None);
    };
    let passed = devices.map_or(&[][..], HostDevices::passed);
    let seats: Vec<_> = passed.iter().map(|passed| passed.seat).collect();
    let containers = devices.map_or(&[][..], HostDevices::containers);
    let router = Arc::new(GsiRouter::new(vm));
    let viommu = Viommu::new(
        viommu,
        width,
        &seats,
        containers,
        router,
        ram,
        config.stats.clone(),
    )?;
    space.add_listener(viommu.unit().clone())?;
    Ok(Some(viommu))
}

/// Maps all RAM for the devices, and says so when it takes long.
fn map_all(devices: &HostDevices, space: &AddressSpace, ram: &GuestRam, user: &User) -> Result<(), RunError> {
    let is_terminal = io::stderr().is_terminal();
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let style = Style::of(is_terminal, no_color, env::var("TERM").ok().as_deref());
    let ranges = ram.host_ranges();
    let total = ranges.iter().map(|(start, end)| end - start).sum();
    let out = Writer(user.outputs.messages.clone());
    let mut progress = Progress::new(out, style, total, Instant::now());
    ram.populate(|bytes| {
        progress.advance(bytes, Instant::now());
        Ok::<(), RunError>(user.signals.go_on()?)
    })?;
    devices.map_all(space, &user.signals)?;
    progress.finish(Instant::now(), || Pages::of(&ranges));
    Ok(())
}

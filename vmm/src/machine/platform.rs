//! What stays through a guest's reset: KVM's virtual machine, RAM, the open devices and their DMA.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strait_devices::Place;
use strait_devices::address_space::AddressSpace;
use strait_devices::irq::ioapic::Ioapic;
use strait_devices::pci::firmware::{Room, Windows};
use strait_devices::region::Region;
use strait_vfio::GroupListener;
use vm_memory::Bytes;

use super::about::About;
use super::error::RunError;
use super::host::CheckedHost;
use super::iommu::{self, Iommu, Plan};
use super::leaving::Leaving;
use super::passthrough::{self, Passed};
use super::porter::Porter;
use super::ram;
use super::reception::{Coming, Reception};
use super::state::Rules;
use super::statistics::KvmNumbers;
use crate::acpi::{self, AcpiConfig, PciHost};
use crate::boot::{EntryState, GuestKernel};
use crate::config::{self, Config, MachineKind};
use crate::control::Control;
use crate::events::Events;
use crate::gdb::Debugger;
use crate::kvm::clock::StoppedClock;
use crate::kvm::slots::MemorySlots;
use crate::kvm::vcpu::{self, Vcpu};
use crate::kvm::{Vm, cpuid};
use crate::layout::{self, Range};
use crate::memory::GuestRam;
use crate::output::Outputs;
use crate::placement;
use crate::progress::Style;
use crate::user::User;
use crate::vcpu::{Surroundings, VcpuThread, install_kick};

/// The lasting part of a machine.
///
/// Field order is drop order: the map goes first and takes memory slots and DMA mappings with it, while
/// the container that holds them still has its devices; RAM goes after everything that reaches it.
pub struct Platform {
    /// Who brings devices and takes them away. What it is at comes to its end before all else does.
    pub(super) porter: Porter,
    /// What it was made as.
    pub(super) about: About,
    /// What KVM counts of it, where clients may ask.
    pub(super) numbers: Option<KvmNumbers>,
    /// Those that no thread has.
    pub(super) vcpus: Vec<Vcpu>,
    /// Whom the user wants to look into the guest.
    pub(super) debugger: Option<Debugger>,
    /// Who controls the guest from outside.
    pub(super) control: Option<Control>,
    /// They want it to stand still.
    pub(super) is_paused: bool,
    /// The guest's clock, while it stands still.
    pub(super) clock: Option<StoppedClock>,
    /// How many vCPUs there are.
    pub(super) cpus: u32,
    /// What the guest finds beside.
    pub(super) kind: MachineKind,
    /// Guest physical memory and ports.
    pub space: Arc<AddressSpace>,
    /// What stands between devices and memory.
    pub(super) iommu: Arc<dyn Iommu>,
    /// The devices that are there, in the order they were given.
    pub(super) passed: Vec<Passed>,
    /// Root ports, with numbers from 1 on; their slots stay when their devices leave.
    pub(super) ports: u8,
    /// Where the guest's console goes.
    pub(super) outputs: Arc<Outputs>,
    /// What vCPUs report, read by the event loop.
    pub events: Arc<Events>,
    /// The map as KVM has it.
    pub(super) slots: Arc<MemorySlots>,
    ram: Arc<GuestRam>,
    kernel: GuestKernel,
    mmio_32: Range,
    mmio_64: Option<Range>,
    /// What the guest's IOMMU cannot map.
    unmappable: Vec<Range>,
    /// Somebody may press the guest's power button.
    has_power_button: bool,
    /// How long the guest has for it when a signal presses it; none for an end at once.
    pub(super) stop_timeout: Option<Duration>,
    /// When its time is over.
    pub(super) stop_at: Option<Instant>,
    /// What the user chose.
    pub(super) rules: Rules,
    /// Devices that the guest was asked to let go of.
    pub(super) leaving: Leaving,
    /// Devices that are on their way to the guest.
    pub(super) coming: Vec<Coming>,
    /// What devices need to come, where they may.
    pub(super) reception: Option<Reception>,
    /// KVM's virtual machine, which stays through resets.
    pub vm: Vm,
}

/// Whoever brings devices, and is to come to an end first, may wait for RAM.
impl Drop for Platform {
    fn drop(&mut self) {
        self.iommu.give_up();
    }
}

impl Platform {
    /// Builds the machine in the order that hardware comes up: RAM, memory map, devices, CPUs. Each step
    /// that fails undoes itself and those before it. Between two steps the user may end it.
    ///
    /// # Errors
    /// Says which step failed and what to do; [`Ended`](crate::signals::Ended) after a signal.
    pub fn build(config: &Config, host: CheckedHost, user: &User) -> Result<Self, RunError> {
        let vm = Vm::new(&host.system)?;
        let has_devices = !config.devices.is_empty() || config.hotplug.is_some();
        let groups = has_devices.then(|| vm.vfio_groups()).transpose()?;
        let groups: Option<Arc<dyn GroupListener>> = groups.map(|groups| Arc::new(groups) as _);
        let apart = config.viommu.is_some();
        let opened = passthrough::open(&config.devices, groups.as_ref(), apart, &user.signals)?;
        let empty = config.hotplug.map_or(0, |hotplug| hotplug.slots);
        let ports = opened.iter().map(|opened| opened.seat.port).max().unwrap_or(0) + empty;
        let iovas = passthrough::iova_ranges(&opened)?;
        let cpu_bits = cpuid::address_bits(&host.cpuid);
        let plan = Plan::new(config, &iovas, cpu_bits)?;
        let unmappable = plan.unmappable(&iovas, host.mmio_32);
        let address_bits = plan.address_bits(cpu_bits);
        let placement = placement::place(config.memory.size.bytes(), host.mmio_32, &iovas, address_bits)?;
        let ram = Arc::new(GuestRam::new(&placement.ram, &host.ram)?);
        if config.memory.is_taken_first {
            let messages = user.outputs.messages.clone();
            ram::populate(&ram, messages, Style::of_stderr(), &|_| user.signals.go_on())?.finish();
        }
        let (space, slots) = map(&vm, &ram)?;
        let debugger = config
            .gdb
            .as_ref()
            .map(|gdb| gdb.listen(&ram, &vm, &user.outputs.messages))
            .transpose()?;
        let control = config::listen(config.name.as_ref(), config.qmp.as_ref())?;
        let events = Arc::new(Events::new()?);
        let surroundings = iommu::Surroundings {
            vm: &vm,
            space: &space,
            ram: &ram,
            user,
            events: &events,
            ports,
        };
        let (iommu, passed) = plan.connect(config, opened, &surroundings)?;
        let vcpus = vcpu::all(&vm, &host.system, &host.cpuid, config.cpus)?;
        install_kick()?;
        let reception = groups.and_then(|groups| Reception::new(config, &host, groups, user));
        let has_power_button = control.is_some() || config.stop_timeout.is_some();
        Ok(Self {
            porter: Porter::new(events.clone()),
            about: About::new(config, &host.ram),
            numbers: control.as_ref().and_then(|_| KvmNumbers::open(&vm, &vcpus)),
            vcpus,
            debugger,
            control,
            is_paused: false,
            clock: None,
            cpus: config.cpus,
            kind: config.machine,
            slots,
            space,
            iommu: Arc::from(iommu),
            passed,
            ports,
            outputs: user.outputs.clone(),
            events,
            ram,
            kernel: host.kernel,
            mmio_32: host.mmio_32,
            mmio_64: placement.mmio_64,
            unmappable,
            has_power_button,
            stop_timeout: config.stop_timeout,
            stop_at: None,
            rules: Rules::of(config),
            leaving: Leaving::default(),
            coming: Vec::new(),
            reception,
            vm,
        })
    }

    /// How many interrupt vectors each passed device can have.
    pub fn vectors(&self) -> Vec<u32> {
        let passed = self.passed.iter();
        passed
            .map(|passed| passthrough::vectors(&passed.device))
            .collect()
    }

    /// Takes the devices behind `port` from the machine.
    pub(super) fn release(&mut self, port: u8) -> Vec<Passed> {
        self.passed
            .extract_if(.., |passed| passed.seat.port == port)
            .collect()
    }

    /// What the windows of `port` have at least.
    pub(super) fn room(&self, port: u8) -> Room {
        let is_kept_free = |reception: &&Reception| port > self.ports - reception.slots;
        let Some(reception) = self.reception.as_ref().filter(is_kept_free) else {
            return Room::default();
        };
        // Few devices of today have ports, and there are windows for fifteen.
        let windows = u64::from(self.ports) * reception.room.io;
        Room {
            io: if windows <= layout::PCI_PORTS.len {
                reception.room.io
            } else {
                0
            },
            ..reception.room
        }
    }

    /// The number of the I/O APIC's first pin.
    pub(super) fn first_gsi(&self) -> u8 {
        match (self.kind, self.has_power_button) {
            (MachineKind::Usual, _) => 0,
            (MachineKind::Lean, true) => layout::POWER_BUTTON_IRQ,
            (MachineKind::Lean, false) => layout::COM1_IRQ,
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

    fn load(&self) -> Result<EntryState, RunError> {
        let config = AcpiConfig {
            apic_ids: self.vcpus.iter().map(Vcpu::id).collect(),
            pci: PciHost {
                last_bus: self.ports,
                mmio_32: self.mmio_32,
                mmio_64: self.mmio_64,
                unmappable: self.unmappable.clone(),
            },
            has_power_button: self.has_power_button,
            has_clock: self.kind == MachineKind::Usual,
            first_gsi: self.first_gsi(),
            extra: self.iommu.acpi_tables(),
        };
        let tables = acpi::build(&config, layout::ACPI_TABLES)?;
        let memory = self.ram.memory();
        memory.write_slice(&tables.bytes, tables.address)?;
        Ok(self.kernel.load(memory, tables.rsdp)?)
    }

    /// Loads the kernel, and puts every vCPU into the state in which it starts.
    ///
    /// # Errors
    /// When the kernel cannot be loaded, or KVM refuses a register.
    pub(super) fn load_guest(&mut self) -> Result<(), RunError> {
        if let Some(debugger) = &mut self.debugger {
            debugger.lift();
        }
        let entry = self.load()?;
        for vcpu in &mut self.vcpus {
            vcpu.reset(&entry)?;
        }
        if let Some(debugger) = &mut self.debugger {
            debugger.put_back();
        }
        Ok(())
    }

    /// Lets the vCPUs run, all but those that a debugger keeps.
    ///
    /// # Errors
    /// When the host gives no more threads; no vCPU runs then.
    pub(super) fn start(&mut self, ioapic: &Arc<Ioapic>) -> Result<Vec<VcpuThread>, RunError> {
        let surroundings = Surroundings {
            space: self.space.clone(),
            ioapic: ioapic.clone(),
            events: self.events.clone(),
        };
        let runs = |vcpu: &Vcpu| {
            self.debugger
                .as_ref()
                .is_none_or(|debugger| debugger.runs(vcpu.id()))
        };
        let (running, kept): (Vec<Vcpu>, Vec<Vcpu>) = mem::take(&mut self.vcpus).into_iter().partition(runs);
        self.vcpus = kept;
        let mut threads = Vec::new();
        for vcpu in running {
            match VcpuThread::start(vcpu, surroundings.clone()) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    self.stop(threads, false);
                    return Err(error.into());
                }
            }
        }
        // Who controls the guest may ask at once which threads its CPUs are.
        if self.control.is_some() {
            threads.iter().for_each(VcpuThread::wait_for_name);
        }
        Ok(threads)
    }

    /// Stops all vCPUs, each between two instructions. With `holds` they go on later, as if nothing had been.
    pub(super) fn stop(&mut self, threads: Vec<VcpuThread>, holds: bool) {
        threads.iter().for_each(|thread| thread.ask_to_stop(holds));
        self.vcpus
            .extend(threads.into_iter().filter_map(VcpuThread::join));
        self.vcpus.sort_by_key(Vcpu::id);
    }
}

/// Guest physical memory with RAM in it, and the slots by which KVM has it.
fn map(vm: &Vm, ram: &GuestRam) -> Result<(Arc<AddressSpace>, Arc<MemorySlots>), RunError> {
    let space = Arc::new(AddressSpace::new());
    let slots = Arc::new(MemorySlots::new(vm));
    space.add_listener(slots.clone())?;
    for (start, backing) in ram.blocks() {
        space.add(Place::Memory(start), Region::ram(backing))?;
    }
    Ok((space, slots))
}

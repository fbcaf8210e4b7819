//! The emulated devices of a machine and where they sit.

use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use strait_devices::acpi_pm::SleepRegisters;
use strait_devices::address_space::{AddressSpace, PlaceError};
use strait_devices::irq::SharedLine;
use strait_devices::irq::ioapic::Ioapic;
use strait_devices::legacy::{KeyboardController, Pit, Pvpanic, ResetControl, Rtc, Serial, SystemControl};
use strait_devices::pci::cam::{self, Cam};
use strait_devices::pci::ecam::{self, Ecam};
use strait_devices::pci::firmware::{self, NoRoom, Room};
use strait_devices::pci::{Function, RootComplex, RootPort};
use strait_devices::region::Region;
use strait_devices::{Device, Place};
use strait_vfio::pci::{Decoder, Passthrough, PassthroughError};
use strait_vfio::{Device as HostDevice, Intx};

use super::error::RunError;
use super::passthrough::Passed;
use super::platform::Platform;
use super::seat::Seat;
use crate::config::MachineKind;
use crate::layout;
use crate::output::Writer;

/// The Interrupt Pin register: 1 is INTA, 0 none (PCIe §7.5.1.1.13).
const INTERRUPT_PIN: u16 = 0x3d;

/// Every emulated device of one start of the guest. Dropping it takes them all out of the map.
pub struct Board {
    /// The first serial port, which is the console.
    pub serial: Arc<Serial>,
    /// The interrupt controller of the wires.
    pub ioapic: Arc<Ioapic>,
    functions: Vec<Seated>,
    /// The interrupt controller's pins for PCI.
    lines: Vec<Arc<SharedLine>>,
    /// What each port forwards, in the order of their numbers.
    rooms: Vec<Room>,
    root: Arc<RootComplex>,
    space: Arc<AddressSpace>,
}

impl Board {
    /// All devices after power-on, with buses numbered and BARs assigned.
    ///
    /// # Errors
    /// When a device cannot be opened for the guest, or the BARs do not fit.
    pub fn build(platform: &Platform) -> Result<Self, RunError> {
        platform.iommu.reset();
        let ioapic = Ioapic::new(platform.iommu.ioapic_router());
        let serial = Arc::new(serial(&ioapic, platform));
        let lines = pci_lines(&ioapic);
        let functions = functions(platform, &lines)?;
        let end = match platform.reception {
            Some(_) => layout::PCI_FIRST_GSI + layout::PCI_GSIS,
            None => last_pin(&functions) + 1,
        };
        ioapic.show_pins(platform.first_gsi()..end);
        let mut board = Self {
            root: Arc::new(RootComplex::new(root_ports(platform, &functions))),
            functions,
            lines,
            rooms: Vec::new(),
            serial,
            ioapic,
            space: platform.space.clone(),
        };
        board.place(platform.kind)?;
        if let Some(registers) = platform.iommu.registers() {
            board.memory(layout::VTD, registers)?;
        }
        let mut apply = |effect| {
            let _only_maps = board.space.apply(effect);
        };
        let least = |port: &RootPort| platform.room(port.number());
        board.rooms =
            firmware::configure(&board.root, platform.windows(), &least, &mut apply).map_err(by_option)?;
        log::debug!("The guest's memory as its firmware leaves it:\n{}", board.space);
        Ok(board)
    }

    /// Presses and releases the guest's power button: a rising edge.
    pub fn press_power_button(&self) {
        let wire = self.ioapic.line(layout::POWER_BUTTON_IRQ);
        wire.set_level(true);
        wire.set_level(false);
    }

    /// Puts every passed device back into the state after power-on, for the board that comes after.
    pub fn reset_devices(&self) {
        for port in self.root.ports() {
            let _only_maps = self.space.apply(port.reset());
        }
    }

    /// Puts devices that came into the slot of their port, of which they are all. Whether the guest hears of it.
    ///
    /// # Errors
    /// When one cannot be used, or its BARs have no room behind the port; the guest has seen nothing then.
    pub(super) fn plug(&mut self, passed: &[Passed]) -> Result<bool, RunError> {
        let seated = passed
            .iter()
            .map(|passed| seated(passed, &self.lines))
            .collect::<Result<Vec<Seated>, _>>()?;
        let behind = |seated: &Seated| (seated.seat.function, seated.function.clone() as Arc<dyn Function>);
        let functions: Vec<_> = seated.iter().map(behind).collect();
        let number = passed.first().map_or(0, |passed| passed.seat.port);
        let Some((port, room)) = self
            .root
            .ports()
            .iter()
            .zip(&self.rooms)
            .find(|(port, _)| port.number() == number)
        else {
            return Ok(false);
        };
        firmware::check(&functions, port, *room).map_err(by_option)?;
        let is_heard = port.plug(functions);
        self.functions.extend(seated);
        Ok(is_heard)
    }

    /// The number of the bus behind `port`, as the guest has it now.
    pub fn bus_behind(&self, port: u8) -> u8 {
        self.port(port).map_or(0, |port| port.secondary_bus())
    }

    /// Whether the guest does not use the device behind `port`, whose slot it has not switched on.
    pub fn is_idle(&self, port: u8) -> bool {
        self.port(port).is_some_and(|port| port.is_idle())
    }

    /// The guest keeps the device that it was asked for.
    pub fn keep(&self, port: u8) {
        if let Some(port) = self.port(port) {
            port.keep();
        }
    }

    /// Asks the guest to let go of the device behind `port`; false if it does not listen.
    pub fn ask_to_unplug(&self, port: u8) -> bool {
        self.port(port).is_some_and(|port| port.ask_to_unplug())
    }

    /// Takes the device behind `port` out of the guest.
    pub fn unplug(&mut self, port: u8) {
        if let Some(root_port) = self.port(port) {
            let _only_maps = self.space.apply(root_port.unplug());
        }
        self.functions.retain(|seated| seated.seat.port != port);
    }

    /// The passed devices' wires, whose signals want to be served.
    pub fn wires(&self) -> impl Iterator<Item = &Intx> {
        self.functions
            .iter()
            .filter_map(|seated| Some(&**seated.function.intx()?))
    }

    /// What a passed function behind `port` decodes.
    pub(super) fn decoders(&self, port: u8, function: u8) -> Vec<Decoder> {
        let is_it = |seated: &&Seated| (seated.seat.port, seated.seat.function) == (port, function);
        let found = self.functions.iter().find(is_it);
        found.map_or_else(Vec::new, |seated| seated.function.decoders())
    }

    /// The guest's PCI buses.
    pub fn root(&self) -> &Arc<RootComplex> {
        &self.root
    }

    fn port(&self, number: u8) -> Option<&Arc<RootPort>> {
        self.root.ports().iter().find(|port| port.number() == number)
    }

    fn place(&self, kind: MachineKind) -> Result<(), PlaceError> {
        let clock = Box::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        let cam = match kind {
            MachineKind::Usual => Cam::new(self.root.clone()),
            MachineKind::Lean => Cam::mute(self.root.clone()),
        };
        let pci = Arc::new(ResetControl::new(Arc::new(cam)));
        self.memory(layout::IOAPIC, self.ioapic.clone())?;
        let buses = layout::ECAM.len / ecam::BYTES_PER_BUS;
        let ecam = Ecam::region(self.root.clone(), buses, kind == MachineKind::Lean);
        self.space.add(Place::Memory(layout::ECAM.start), ecam)?;
        self.ports(layout::COM1, Serial::PORTS, self.serial.clone())?;
        self.ports(layout::RTC, Rtc::PORTS, Arc::new(Rtc::new(clock)))?;
        self.ports(
            layout::KEYBOARD_CONTROLLER,
            KeyboardController::PORTS,
            Arc::new(KeyboardController),
        )?;
        let power_on = Instant::now();
        let pit = Arc::new(Pit::new(Box::new(move || power_on.elapsed())));
        self.ports(layout::PIT, Pit::PORTS, pit.clone())?;
        self.ports(
            layout::SYSTEM_CONTROL,
            SystemControl::PORTS,
            Arc::new(SystemControl::new(pit)),
        )?;
        self.ports(layout::PVPANIC, Pvpanic::PORTS, Arc::new(Pvpanic))?;
        self.ports(
            layout::SLEEP_REGISTERS,
            SleepRegisters::PORTS,
            Arc::new(SleepRegisters),
        )?;
        self.ports(cam::PORT, cam::PORTS, pci)
    }

    fn memory(&self, range: layout::Range, device: Arc<dyn Device>) -> Result<(), PlaceError> {
        self.space
            .add(Place::Memory(range.start), Region::trapped(device, range.len))
    }

    fn ports(&self, first: u16, count: u64, device: Arc<dyn Device>) -> Result<(), PlaceError> {
        self.space.add(Place::Port(first), Region::trapped(device, count))
    }
}

/// BARs leave the map before their devices go, so that no memory slot outlives an mmap.
impl Drop for Board {
    fn drop(&mut self) {
        self.space.remove_devices();
    }
}

/// A passed device with its place.
struct Seated {
    seat: Seat,
    function: Arc<Passthrough>,
}

/// Room for devices to come that is too much, or too little for one.
#[derive(Debug, thiserror::Error)]
#[error("--hotplug-slots: {0}")]
struct SlotRoomError(NoRoom);

/// What is wrong with room, with the option that it comes from.
fn by_option(error: NoRoom) -> RunError {
    match error.is_to_come() {
        true => SlotRoomError(error).into(),
        false => error.into(),
    }
}

/// The interrupt controller's pins for PCI, from [`layout::PCI_FIRST_GSI`] on.
fn pci_lines(ioapic: &Arc<Ioapic>) -> Vec<Arc<SharedLine>> {
    let pins = layout::PCI_FIRST_GSI..layout::PCI_FIRST_GSI + layout::PCI_GSIS;
    let line = |pin| {
        let line = SharedLine::new(ioapic.line(pin));
        let listener: Weak<SharedLine> = Arc::downgrade(&line);
        ioapic.listen(pin, listener);
        line
    };
    pins.map(line).collect()
}

/// The last pin of the interrupt controller that something is wired to, where nothing is plugged in while the guest runs: a
/// port without a device has no wire.
fn last_pin(functions: &[Seated]) -> u8 {
    let wire = |seated: &Seated| {
        let mut pin = [0];
        seated.function.read_config(INTERRUPT_PIN, &mut pin);
        let [pin @ 1..=4] = pin else { return None };
        Some(layout::intx_gsi(seated.seat.port, pin - 1))
    };
    functions.iter().filter_map(wire).fold(layout::COM1_IRQ, u8::max)
}

/// The passed devices in the order they were given.
fn functions(platform: &Platform, lines: &[Arc<SharedLine>]) -> Result<Vec<Seated>, PassthroughError> {
    let devices: Vec<_> = platform
        .passed
        .iter()
        .map(|passed| passed.device.clone())
        .collect();
    HostDevice::reset_buses(&devices);
    platform
        .passed
        .iter()
        .map(|passed| seated(passed, lines))
        .collect()
}

fn seated(passed: &Passed, lines: &[Arc<SharedLine>]) -> Result<Seated, PassthroughError> {
    let line = |pin| {
        let gsi = layout::intx_gsi(passed.seat.port, pin);
        lines[usize::from(gsi - layout::PCI_FIRST_GSI)].clone()
    };
    // Device 0 behind a port keeps its wires: the swizzle adds the device's number (PCI-to-PCI Bridge 1.2 §9.1).
    let wires = [0, 1, 2, 3].map(line);
    let (device, appearance) = (passed.device.clone(), passed.appearance.clone());
    let (router, gate) = (passed.router.clone(), passed.gate.clone());
    Ok(Seated {
        seat: passed.seat,
        function: Passthrough::new(device, router, &wires, appearance, gate)?,
    })
}

/// Each device behind a port of its own (one slot, one IOMMU group in the guest), with all its functions.
fn root_ports(platform: &Platform, functions: &[Seated]) -> Vec<Arc<RootPort>> {
    let port = |number: u8| {
        let behind = functions.iter().filter(|seated| seated.seat.port == number);
        let behind =
            behind.map(|Seated { seat, function }| (seat.function, function.clone() as Arc<dyn Function>));
        Arc::new(RootPort::new(
            number,
            behind.collect(),
            platform.iommu.upstream(number),
        ))
    };
    (1..=platform.ports).map(port).collect()
}

fn serial(ioapic: &Arc<Ioapic>, platform: &Platform) -> Serial {
    let events = platform.events.clone();
    let wake = Box::new(move || events.wake());
    let output = Box::new(Writer(platform.outputs.console.clone()));
    Serial::new(ioapic.line(layout::COM1_IRQ), output, wake)
}

//! The emulated devices of a machine and where they sit.

use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use strait_devices::acpi_pm::SleepRegisters;
use strait_devices::address_space::{AddressSpace, PlaceError};
use strait_devices::irq::ioapic::Ioapic;
use strait_devices::irq::{MsiRouter, SharedLine};
use strait_devices::legacy::{KeyboardController, Pvpanic, ResetControl, Rtc, Serial};
use strait_devices::pci::cam::{self, Cam};
use strait_devices::pci::ecam::Ecam;
use strait_devices::pci::firmware;
use strait_devices::pci::{Function, RootComplex, RootPort};
use strait_devices::region::Region;
use strait_devices::{Device, Place};
use strait_vfio::pci::{Passthrough, PassthroughError};
use strait_vfio::{Device as HostDevice, Intx};

use super::passthrough::Passed;
use super::viommu::Viommu;
use super::{Platform, RunError};
use crate::kvm::irq::GsiRouter;
use crate::layout;
use crate::output::Writer;

/// Every emulated device of one start of the guest. Dropping it takes them all out of the map.
pub struct Board {
    /// The console.
    pub serial: Arc<Serial>,
    /// The interrupt controller of the wires.
    pub ioapic: Arc<Ioapic>,
    /// The passed devices' wires, whose signals want to be served.
    pub wires: Vec<Wire>,
    root: Arc<RootComplex>,
    space: Arc<AddressSpace>,
}

impl Board {
    /// All devices after power-on, with buses numbered and BARs assigned.
    ///
    /// # Errors
    /// When a device cannot be opened for the guest, or the BARs do not fit.
    pub fn build(platform: &Platform) -> Result<Self, RunError> {
        let router: Arc<dyn MsiRouter> = Arc::new(GsiRouter::new(&platform.vm));
        if let Some(viommu) = &platform.viommu {
            viommu.unit().reset();
        }
        let pins = platform.viommu.as_ref().map(Viommu::ioapic_router);
        let ioapic = Ioapic::new(pins.unwrap_or_else(|| router.clone()));
        let serial = Arc::new(serial(&ioapic, platform));
        let functions = functions(platform, &router, &wires(&ioapic))?;
        let board = Self {
            wires: intx_wires(platform, &functions),
            serial,
            ioapic,
            root: Arc::new(RootComplex::new(root_ports(platform, &router, &functions))),
            space: platform.space.clone(),
        };
        board.place()?;
        if let Some(viommu) = &platform.viommu {
            board.memory(layout::VTD, viommu.unit().clone())?;
        }
        let mut apply = |effect| {
            let _only_maps = board.space.apply(effect);
        };
        firmware::configure(&board.root, platform.windows(), &mut apply)?;
        log::debug!("The guest's memory as its firmware leaves it:\n{}", board.space);
        Ok(board)
    }

    /// Puts every passed device back into the state after power-on, for the board that comes after.
    pub fn reset_devices(&self) {
        for port in self.root.ports() {
            let _only_maps = self.space.apply(port.reset());
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
        self.wires.retain(|wire| wire.port != port);
    }

    fn port(&self, number: u8) -> Option<&Arc<RootPort>> {
        self.root.ports().iter().find(|port| port.number() == number)
    }

    fn place(&self) -> Result<(), PlaceError> {
        let clock = Box::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        let pci = Arc::new(ResetControl::new(Arc::new(Cam::new(self.root.clone()))));
        self.memory(layout::IOAPIC, self.ioapic.clone())?;
        self.memory(layout::ECAM, Arc::new(Ecam::new(self.root.clone())))?;
        self.ports(layout::COM1, Serial::PORTS, self.serial.clone())?;
        self.ports(layout::RTC, Rtc::PORTS, Arc::new(Rtc::new(clock)))?;
        self.ports(
            layout::KEYBOARD_CONTROLLER,
            KeyboardController::PORTS,
            Arc::new(KeyboardController),
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

/// The interrupt wire of a passed device.
pub struct Wire {
    port: u8,
    /// What the host signals.
    pub intx: Arc<Intx>,
}

fn intx_wires(platform: &Platform, functions: &[Arc<Passthrough>]) -> Vec<Wire> {
    let wire = |(passed, function): (&Passed, &Arc<Passthrough>)| {
        Some(Wire {
            port: passed.seat.port,
            intx: function.intx()?.clone(),
        })
    };
    platform.passed().iter().zip(functions).filter_map(wire).collect()
}

/// The interrupt controller's pins for PCI, from [`layout::PCI_FIRST_GSI`] on.
type Wires = Vec<Arc<SharedLine>>;

fn wires(ioapic: &Arc<Ioapic>) -> Wires {
    let pins = layout::PCI_FIRST_GSI..layout::PCI_FIRST_GSI + layout::PCI_GSIS;
    let wire = |pin| {
        let wire = SharedLine::new(ioapic.line(pin));
        let listener: Weak<SharedLine> = Arc::downgrade(&wire);
        ioapic.listen(pin, listener);
        wire
    };
    pins.map(wire).collect()
}

/// The passed devices in the order they were given.
fn functions(
    platform: &Platform,
    router: &Arc<dyn MsiRouter>,
    wires: &Wires,
) -> Result<Vec<Arc<Passthrough>>, PassthroughError> {
    let wire = |port, pin| {
        let gsi = layout::intx_gsi(port, pin);
        wires[usize::from(gsi - layout::PCI_FIRST_GSI)].clone()
    };
    let open = |passed: &Passed| {
        // Device 0 behind a port keeps its wires: the swizzle adds the device's number (PCI-to-PCI Bridge
        // 1.2 §9.1).
        let slot = [0, 1, 2, 3].map(|pin| wire(passed.seat.port, pin));
        let (device, appearance) = (passed.device.clone(), passed.appearance.clone());
        match &platform.viommu {
            None => Passthrough::new(device, router.clone(), &slot, appearance),
            Some(viommu) => {
                let (router, gate) = viommu.seat(passed.index);
                Passthrough::behind(device, router, &slot, appearance, gate)
            }
        }
    };
    let devices: Vec<_> = platform
        .passed()
        .iter()
        .map(|passed| passed.device.clone())
        .collect();
    HostDevice::reset_buses(&devices);
    platform.passed().iter().map(open).collect()
}

/// Each device behind a port of its own (one slot, one IOMMU group in the guest), with all its functions.
fn root_ports(
    platform: &Platform,
    router: &Arc<dyn MsiRouter>,
    functions: &[Arc<Passthrough>],
) -> Vec<Arc<RootPort>> {
    let seated = || platform.passed().iter().zip(functions);
    let port = |number: u8| {
        let behind = seated()
            .filter(|(passed, _)| passed.seat.port == number)
            .map(|(passed, function)| (passed.seat.function, function.clone() as Arc<dyn Function>))
            .collect();
        Arc::new(match &platform.viommu {
            None => RootPort::new(number, behind, router.clone()),
            Some(viommu) => {
                let (bus, router) = (viommu.bus(number), viommu.port_router(number));
                RootPort::on_bus(number, bus, behind, router, viommu.unit().clone())
            }
        })
    };
    (1..=platform.ports()).map(port).collect()
}

fn serial(ioapic: &Arc<Ioapic>, platform: &Platform) -> Serial {
    let events = platform.events.clone();
    let wake = Box::new(move || events.wake());
    let output = Box::new(Writer(platform.outputs.console.clone()));
    Serial::new(ioapic.line(layout::COM1_IRQ), output, wake)
}

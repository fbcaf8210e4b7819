//! The PCI Express host bridge in AML: its windows, its interrupt wires, and who controls what
//! (PCI Firmware 3.3 §4.1.3, §4.5).

use acpi_tables::Aml;
use acpi_tables::AmlSink;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, Else, Equal, IO, If,
    Local, Method, Name, NotEqual, ONE, Or, Package, PackageBuilder, Path, ResourceTemplate, Return, Store,
    Uuid, ZERO,
};

use crate::layout::{self, Range};

/// Devices on a bus, and wires of each (PCI 3.0 §2.2.6).
const DEVICES: u8 = 32;
const WIRES: u8 = 4;
/// First port behind PCI's configuration ports.
const AFTER_CONFIG_PORTS: u16 = layout::PCI_CONFIG + 8;

/// _OSC's UUID for PCI host bridges, and its control bits (PCI Firmware 3.3 table 4-6) that we grant:
/// hot plug 0, power management events 2, error reporting 3, the capability structure 4. Not granted: the
/// standard hot-plug controller 1, which root ports do not have.
const OSC_UUID: &str = "33DB4D5B-1FF7-401C-9657-7441C03DD766";
const OSC_GRANTED: u8 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4;
/// Bits that _OSC reports in its first word (ACPI 6.5 §6.2.11.1).
const OSC_UNKNOWN_UUID: u8 = 1 << 2;
const OSC_UNKNOWN_REVISION: u8 = 1 << 3;
const OSC_CONTROL_MASKED: u8 = 1 << 4;

/// The properties of the host bridge that differ from machine to machine.
#[derive(Clone, Debug)]
pub struct PciHost {
    /// The highest bus number below the bridge.
    pub last_bus: u8,
    /// The window for BARs below 4 GiB.
    pub mmio_32: Range,
    /// The window for BARs above RAM.
    pub mmio_64: Option<Range>,
    /// Addresses that a virtual IOMMU cannot map: windows without a BAR, since an operating system uses no window's
    /// addresses for DMA.
    pub unmappable: Vec<Range>,
}

impl Aml for PciHost {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let hid = Name::new("_HID".into(), &EISAName::new("PNP0A08"));
        let cid = Name::new("_CID".into(), &EISAName::new("PNP0A03"));
        let uid = Name::new("_UID".into(), &ZERO);
        let segment = Name::new("_SEG".into(), &ZERO);
        let first_bus = Name::new("_BBN".into(), &ZERO);
        let resources = Name::new("_CRS".into(), &Windows(self));
        let wires = Name::new("_PRT".into(), &interrupt_wires());
        let bridge: [&dyn Aml; 8] = [&hid, &cid, &uid, &segment, &first_bus, &resources, &wires, &Osc];
        Device::new("PCI0".into(), bridge.to_vec()).to_aml_bytes(sink);
    }
}

/// The resources that the bridge passes on: its buses, all ports but the configuration ports, and the memory windows.
struct Windows<'a>(&'a PciHost);

impl Aml for Windows<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let buses = AddressSpace::new_bus_number(0u16, u16::from(self.0.last_bus));
        // The bridge answers these itself, so they are its own and not among what it passes on (PCI Firmware 3.3
        // §4.1.3).
        let config_ports = IO::new(layout::PCI_CONFIG, layout::PCI_CONFIG, 1, 8);
        let ports_below = AddressSpace::new_io(0u16, layout::PCI_CONFIG - 1, None);
        let ports_above = AddressSpace::new_io(AFTER_CONFIG_PORTS, u16::MAX, None);
        let low = AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            self.0.mmio_32.start.0 as u32,
            self.0.mmio_32.last().0 as u32,
            None,
        );
        let window = |range: &Range| {
            let kind = AddressSpaceCacheable::NotCacheable;
            AddressSpace::new_memory(kind, true, range.start.0, range.last().0, None)
        };
        let more: Vec<_> = self
            .0
            .mmio_64
            .iter()
            .chain(&self.0.unmappable)
            .map(window)
            .collect();
        let mut windows: Vec<&dyn Aml> = vec![&buses, &config_ports, &ports_below, &ports_above, &low];
        windows.extend(more.iter().map(|window| window as &dyn Aml));
        ResourceTemplate::new(windows).to_aml_bytes(sink);
    }
}

/// `_PRT`: each wire of each device on bus 0 and its I/O APIC pin. PCI's wires are level-triggered and
/// active low unless something else is said, and a zero as source says that the index is the pin.
fn interrupt_wires() -> PackageBuilder {
    let mut wires = PackageBuilder::new();
    for (device, wire) in (0..DEVICES).flat_map(|device| (0..WIRES).map(move |wire| (device, wire))) {
        // All functions of a device share its wires (ACPI 6.5 §6.2.13).
        let any_function = u32::from(device) << 16 | 0xffff;
        let pin = layout::intx_gsi(device, wire);
        wires.add_element(&Package::new(vec![&any_function, &wire, &ZERO, &pin]));
    }
    wires
}

/// `_OSC`: grants the operating system native control of what it asks for, as far as we have it.
struct Osc;

impl Aml for Osc {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let (uuid, revision, capabilities) = (Arg(0), Arg(1), Arg(3));
        let (status, control, granted) = (Path::new("CDW1"), Path::new("CDW3"), Local(0));
        let status_field = CreateDWordField::new(&status, &capabilities, &ZERO);
        let control_field = CreateDWordField::new(&control, &capabilities, &8u8);
        let grant = And::new(&granted, &control, &OSC_GRANTED);
        let other_revision = NotEqual::new(&revision, &ONE);
        let report_revision = Or::new(&status, &status, &OSC_UNKNOWN_REVISION);
        let check_revision = If::new(&other_revision, vec![&report_revision]);
        let masked = NotEqual::new(&control, &granted);
        let report_masked = Or::new(&status, &status, &OSC_CONTROL_MASKED);
        let check_masked = If::new(&masked, vec![&report_masked]);
        let answer = Store::new(&control, &granted);
        let pci_uuid = Uuid::new(OSC_UUID);
        let is_pci = Equal::new(&uuid, &pci_uuid);
        let for_pci = If::new(
            &is_pci,
            vec![&control_field, &grant, &check_revision, &check_masked, &answer],
        );
        let report_uuid = Or::new(&status, &status, &OSC_UNKNOWN_UUID);
        let otherwise = Else::new(vec![&report_uuid]);
        let answered = Return::new(&capabilities);
        let body: Vec<&dyn Aml> = vec![&status_field, &for_pci, &otherwise, &answered];
        Method::new("_OSC".into(), 4, false, body).to_aml_bytes(sink);
    }
}

//! The guest's PCI buses in QEMU's words (qapi/pci.json, PciInfo).

use serde_json::{Value, json};
use strait_devices::Place;
use strait_devices::pci::bar::BarKind;
use strait_devices::pci::{Bdf, DevFn, RootComplex};
use strait_vfio::pci::Decoder;

use crate::machine::board::Board;
use crate::machine::platform::Platform;

/// Registers of a function's header (PCIe §7.5.1.1, §7.5.1.3).
const IDS: u16 = 0x00;
const CLASS: u16 = 0x08;
const HEADER_TYPE: u16 = 0x0c;
pub(super) const BUSES: u16 = 0x18;
const IO_WINDOW: u16 = 0x1c;
const MEMORY_WINDOW: u16 = 0x20;
const PREFETCHABLE_WINDOW: u16 = 0x24;
const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;
const SUBSYSTEM: u16 = 0x2c;
const INTERRUPT: u16 = 0x3c;

/// What a function that is not there reads as.
const NOBODY: u32 = 0xffff_ffff;

/// QEMU's address of a region that the guest does not let answer.
const NOWHERE: i64 = -1;

/// The buses of a machine, of which those behind ports hang from these.
pub(super) fn buses(platform: &Platform, board: &Board) -> Value {
    let tree = Tree {
        platform,
        board,
        root: board.root(),
    };
    let devices: Vec<Value> = all_of(0, u8::MAX)
        .filter_map(|bdf| tree.function(bdf, None))
        .collect();
    json!([{"bus": 0, "devices": devices}])
}

struct Tree<'a> {
    platform: &'a Platform,
    board: &'a Board,
    root: &'a RootComplex,
}

impl Tree<'_> {
    /// What is behind a root port: one slot, and no bridge of ours.
    fn behind(&self, port: u8, bus: u8) -> Vec<Value> {
        let functions = all_of(bus, 7);
        functions
            .filter_map(|bdf| self.function(bdf, Some(port)))
            .collect()
    }

    /// The function at `bdf`, behind a root port or on the root's own bus.
    fn function(&self, bdf: Bdf, port: Option<u8>) -> Option<Value> {
        let register = |register| self.root.register(bdf, register);
        let ids = register(IDS);
        if ids == NOBODY {
            return None;
        }
        let (slot, number) = (bdf.devfn.device(), bdf.devfn.function());
        let [line, pin, ..] = register(INTERRUPT).to_le_bytes();
        let mut function = json!({
            "bus": bdf.bus,
            "slot": slot,
            "function": number,
            "class_info": {"class": register(CLASS) >> 16},
            "id": {"device": ids >> 16, "vendor": ids & 0xffff},
            "irq_pin": pin,
            "qdev_id": port.map_or("", |port| self.id(port, number)),
            "regions": port.map_or_else(Vec::new, |port| self.regions(port, number)),
        });
        if pin != 0 {
            function["irq"] = line.into();
        }
        match (register(HEADER_TYPE) >> 16) & 0x7f {
            0 => {
                let subsystem = register(SUBSYSTEM);
                function["id"]["subsystem"] = (subsystem >> 16).into();
                function["id"]["subsystem-vendor"] = (subsystem & 0xffff).into();
            }
            1 if port.is_none() => {
                let (bus, secondary) = bridge(&register);
                let behind = match secondary {
                    0 => Vec::new(),
                    secondary => self.behind(slot, secondary),
                };
                function["pci_bridge"] = json!({"bus": bus, "devices": behind});
            }
            _ => {}
        }
        Some(function)
    }

    /// The user's name of a passed function.
    fn id(&self, port: u8, function: u8) -> &str {
        let mut passed = self.platform.passed.iter();
        let found = passed.find(|passed| (passed.seat.port, passed.seat.function) == (port, function));
        found.map_or("", |passed| &passed.id)
    }

    fn regions(&self, port: u8, function: u8) -> Vec<Value> {
        let decoders = self.board.decoders(port, function).into_iter();
        decoders.map(region).collect()
    }
}

/// The functions that a bus could have, up to this one.
fn all_of(bus: u8, last: u8) -> impl Iterator<Item = Bdf> {
    let bdf = move |devfn| Bdf {
        bus,
        devfn: DevFn::from_byte(devfn),
    };
    (0..=last).map(bdf)
}

/// A BAR or the ROM (PciMemoryRegion).
fn region(decoder: Decoder) -> Value {
    let address = match decoder.place {
        Some(Place::Memory(address)) => json!(address.0),
        Some(Place::Port(port)) => json!(port),
        None => json!(NOWHERE),
    };
    let mut region = json!({
        "bar": decoder.index,
        "type": "memory",
        "address": address,
        "size": decoder.len_bytes,
    });
    let (prefetch, is_64_bit) = match decoder.kind {
        BarKind::Io => {
            region["type"] = "io".into();
            return region;
        }
        BarKind::Memory32 { prefetchable } => (prefetchable, false),
        BarKind::Memory64 { prefetchable } => (prefetchable, true),
    };
    region["prefetch"] = prefetch.into();
    region["mem_type_64"] = is_64_bit.into();
    region
}

/// A bridge's buses and windows (PciBusInfo; PCIe §7.5.1.3.6 to 10), and the number of the bus behind it.
fn bridge(register: &dyn Fn(u16) -> u32) -> (Value, u8) {
    let [primary, secondary, subordinate, _] = register(BUSES).to_le_bytes();
    let range = |base: u64, limit: u64| json!({"base": base, "limit": limit});
    let window = |value: u32| {
        let (base, limit) = (
            u64::from(value & 0xfff0) << 16,
            u64::from(value >> 16 & 0xfff0) << 16,
        );
        (base, limit | 0xf_ffff)
    };
    let io = u64::from(register(IO_WINDOW));
    let (base, limit) = window(register(MEMORY_WINDOW));
    let (low, low_limit) = window(register(PREFETCHABLE_WINDOW));
    let upper = |at| u64::from(register(at)) << 32;
    let bus = json!({
        "number": primary,
        "secondary": secondary,
        "subordinate": subordinate,
        "io_range": range((io & 0xf0) << 8, (io & 0xf000) | 0xfff),
        "memory_range": range(base, limit),
        "prefetchable_range": range(
            low | upper(PREFETCHABLE_BASE_UPPER),
            low_limit | upper(PREFETCHABLE_LIMIT_UPPER),
        ),
    });
    (bus, secondary)
}

#[cfg(test)]
mod tests {
    use strait_devices::GuestAddress;

    use super::*;

    fn decoder(index: u8, kind: BarKind, place: Option<Place>) -> Decoder {
        Decoder {
            index,
            kind,
            len_bytes: 0x4000,
            place,
            trapped: 0,
        }
    }

    #[test]
    fn a_region_has_the_members_of_its_kind() {
        let place = Some(Place::Memory(GuestAddress(0x38_0000_0000)));
        assert_eq!(
            region(decoder(2, BarKind::Memory64 { prefetchable: true }, place)),
            json!({
                "bar": 2, "type": "memory", "address": 0x38_0000_0000_u64, "size": 0x4000,
                "prefetch": true, "mem_type_64": true,
            })
        );
        assert_eq!(
            region(decoder(4, BarKind::Io, Some(Place::Port(0xc000)))),
            json!({"bar": 4, "type": "io", "address": 0xc000, "size": 0x4000})
        );
    }

    #[test]
    fn a_region_that_does_not_answer_has_qemus_address_for_it() {
        let kind = BarKind::Memory32 { prefetchable: false };
        assert_eq!(region(decoder(Decoder::ROM, kind, None))["address"], -1);
    }

    #[test]
    fn a_bridge_tells_its_buses_and_windows() {
        let register = |at| match at {
            BUSES => 0x0002_0100,
            IO_WINDOW => 0x0000_2010,
            MEMORY_WINDOW => 0xfeb0_fea0,
            PREFETCHABLE_WINDOW => 0x0011_0001,
            PREFETCHABLE_BASE_UPPER | PREFETCHABLE_LIMIT_UPPER => 0x38,
            _ => 0,
        };
        let (bus, secondary) = bridge(&register);
        assert_eq!(secondary, 1);
        assert_eq!(
            bus,
            json!({
                "number": 0, "secondary": 1, "subordinate": 2,
                "io_range": {"base": 0x1000, "limit": 0x2fff},
                "memory_range": {"base": 0xfea0_0000_u32, "limit": 0xfebf_ffff_u32},
                "prefetchable_range": {"base": 0x38_0000_0000_u64, "limit": 0x38_001f_ffff_u64},
            })
        );
    }
}

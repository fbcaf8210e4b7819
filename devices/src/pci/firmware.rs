//! What a firmware does before it starts an operating system: numbers the buses, sizes the BARs, gives
//! them addresses and opens the bridges' windows around them. It works by configuration cycles alone, as
//! a guest would, so it needs to know nothing of what stands behind them.
//!
//! Memory decoding is left off, as PCIe has it after reset: a guest that sizes BARs would have to switch it
//! off and on around each of them, and every change costs a memory slot and a DMA mapping.

use std::ops::Range;

use crate::device::Effect;
use crate::pci::address::{Bdf, DevFn};
use crate::pci::root_complex::RootComplex;
use crate::pci::root_port::RootPort;
use crate::pci::spec::{bar, bridge, command, header, rom_bar};

/// The address ranges the host bridge forwards, to be shared out among the ports.
#[derive(Clone, Debug)]
pub struct Windows {
    /// I/O ports.
    pub io: Range<u64>,
    /// Guest physical memory below 4 GiB.
    pub memory_32: Range<u64>,
    /// Guest physical memory above RAM.
    pub memory_64: Range<u64>,
}

/// A device that needs more room than there is.
#[derive(Debug, thiserror::Error)]
#[error(
    "{what} of the device behind {port} needs {size:#x} bytes of {kind} and {left:#x} are left; \
     pass fewer or smaller devices"
)]
pub struct NoRoom {
    port: String,
    what: String,
    size: u64,
    kind: &'static str,
    left: u64,
}

/// The expansion ROM counts as one more BAR.
const ROM: u8 = 6;

/// One BAR, as sizing found it.
struct Bar {
    bdf: Bdf,
    index: u8,
    size: u64,
    wide: bool,
}

/// The BARs behind a port by the window they belong to.
#[derive(Default)]
struct Demand {
    io: Vec<Bar>,
    memory: Vec<Bar>,
    prefetchable: Vec<Bar>,
}

/// Numbers buses, places BARs and opens windows; each effect of a write goes to `apply`.
///
/// # Errors
/// When the windows are too small.
pub fn configure(root: &RootComplex, windows: Windows, apply: &mut dyn FnMut(Effect)) -> Result<(), NoRoom> {
    let mut free = windows;
    for (port, bus) in root.ports().iter().zip(1u8..) {
        let mut cycles = Cycles {
            root,
            apply: &mut *apply,
        };
        let bridge_bdf = Bdf {
            bus: 0,
            devfn: port.devfn(),
        };
        cycles.write(bridge_bdf, bridge::PRIMARY_BUS, &[0, bus, bus]);
        let demand = size_all(&mut cycles, bus);
        let io = place(&mut cycles, port, demand.io, &mut free.io, IO)?;
        let memory = place(&mut cycles, port, demand.memory, &mut free.memory_32, MEMORY)?;
        let prefetch = place(
            &mut cycles,
            port,
            demand.prefetchable,
            &mut free.memory_64,
            PREFETCH,
        )?;
        open_windows(&mut cycles, bridge_bdf, [io, memory, prefetch]);
    }
    Ok(())
}

/// Granularity and name of a kind of window.
struct Kind {
    align: u64,
    name: &'static str,
}

const IO: Kind = Kind {
    align: bridge::IO_WINDOW_ALIGN,
    name: "I/O ports",
};
const MEMORY: Kind = Kind {
    align: bridge::MEMORY_WINDOW_ALIGN,
    name: "memory below 4 GiB",
};
const PREFETCH: Kind = Kind {
    align: bridge::MEMORY_WINDOW_ALIGN,
    name: "64-bit memory",
};

/// Configuration cycles whose effects are passed on.
struct Cycles<'a> {
    root: &'a RootComplex,
    apply: &'a mut dyn FnMut(Effect),
}

impl Cycles<'_> {
    fn read32(&self, bdf: Bdf, register: u16) -> u32 {
        let mut data = [0; 4];
        self.root.read_config(bdf, register, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, bdf: Bdf, register: u16, data: &[u8]) {
        for (register, byte) in (register..).zip(data) {
            (self.apply)(self.root.write_config(bdf, register, &[*byte]));
        }
    }

    fn write32(&mut self, bdf: Bdf, register: u16, value: u32) {
        (self.apply)(self.root.write_config(bdf, register, &value.to_le_bytes()));
    }

    /// The bits of a BAR that hold after all ones were written, then the BAR as before.
    fn probe(&mut self, bdf: Bdf, register: u16) -> u32 {
        let before = self.read32(bdf, register);
        self.write32(bdf, register, u32::MAX);
        let mask = self.read32(bdf, register);
        self.write32(bdf, register, before);
        mask
    }
}

fn size_all(cycles: &mut Cycles<'_>, bus: u8) -> Demand {
    let mut demand = Demand::default();
    for function in 0..8 {
        let bdf = Bdf {
            bus,
            devfn: DevFn::new(0, function),
        };
        if cycles.read32(bdf, header::VENDOR_ID) == u32::MAX {
            continue;
        }
        let mut index = 0;
        while index < 6 {
            let wide = size_one(cycles, bdf, index, &mut demand);
            index += if wide { 2 } else { 1 };
        }
        size_rom(cycles, bdf, &mut demand);
    }
    demand
}

/// Sizes the ROM (§7.5.1.2.4). Its place is kept though it is not enabled: a driver or a user may want it.
fn size_rom(cycles: &mut Cycles<'_>, bdf: Bdf, demand: &mut Demand) {
    let mask = cycles.probe(bdf, header::ROM_BAR) & rom_bar::ADDRESS;
    if mask != 0 {
        demand.memory.push(Bar {
            bdf,
            index: ROM,
            size: u64::from(mask.wrapping_neg()),
            wide: false,
        });
    }
}

/// Sizes one BAR (PCIe §7.5.1.2.1) into `demand`; true if it takes two registers.
fn size_one(cycles: &mut Cycles<'_>, bdf: Bdf, index: u8, demand: &mut Demand) -> bool {
    let register = register_of(index);
    let low = cycles.probe(bdf, register);
    if low & bar::IO != 0 {
        let size = u64::from((low & !bar::IO_FLAGS | 0xffff_0000).wrapping_neg());
        demand.io.push(Bar {
            bdf,
            index,
            size,
            wide: false,
        });
        return false;
    }
    let wide = low & bar::MEMORY_64 != 0 && index < 5;
    let high = if wide {
        cycles.probe(bdf, register + 4)
    } else {
        u32::MAX
    };
    let mask = u64::from(high) << 32 | u64::from(low & !bar::MEMORY_FLAGS);
    if low & !bar::MEMORY_FLAGS == 0 && (!wide || high == 0) {
        return wide;
    }
    let found = Bar {
        bdf,
        index,
        size: mask.wrapping_neg(),
        wide,
    };
    // A port's window for memory with side effects has 32 bits (§7.5.1.3.8), so a 64-bit BAR that is not
    // prefetchable goes below 4 GiB too.
    match wide && low & bar::PREFETCHABLE != 0 {
        true => demand.prefetchable.push(found),
        false => demand.memory.push(found),
    }
    wide
}

fn name_of(index: u8) -> String {
    match index {
        ROM => "The ROM".to_owned(),
        _ => format!("BAR {index}"),
    }
}

fn register_of(index: u8) -> u16 {
    match index {
        ROM => header::ROM_BAR,
        _ => header::BAR0 + 4 * u16::from(index),
    }
}

/// Gives addresses to `bars`, biggest first, and returns the window around them; empty without BARs.
fn place(
    cycles: &mut Cycles<'_>,
    port: &RootPort,
    mut bars: Vec<Bar>,
    free: &mut Range<u64>,
    kind: Kind,
) -> Result<Range<u64>, NoRoom> {
    bars.sort_by_key(|bar| std::cmp::Reverse(bar.size));
    let Some(biggest) = bars.first() else {
        return Ok(0..0);
    };
    let base = free
        .start
        .next_multiple_of(kind.align.max(biggest.size.next_power_of_two()));
    let mut next = base;
    for bar in &bars {
        let end = next.checked_add(bar.size).filter(|end| *end <= free.end);
        let Some(end) = end else {
            return Err(NoRoom {
                port: crate::pci::Function::name(port).to_owned(),
                what: name_of(bar.index),
                size: bar.size,
                kind: kind.name,
                left: free.end.saturating_sub(next),
            });
        };
        cycles.write32(bar.bdf, register_of(bar.index), next as u32);
        if bar.wide {
            cycles.write32(bar.bdf, register_of(bar.index) + 4, (next >> 32) as u32);
        }
        next = end;
    }
    free.start = next.next_multiple_of(kind.align).min(free.end);
    Ok(base..next.next_multiple_of(kind.align))
}

/// Writes the windows (§7.5.1.3.6 to .9) and lets the port forward; an empty one stays closed.
fn open_windows(cycles: &mut Cycles<'_>, port: Bdf, [io, memory, prefetch]: [Range<u64>; 3]) {
    if !io.is_empty() {
        cycles.write(
            port,
            bridge::IO_BASE,
            &[(io.start >> 8) as u8, ((io.end - 1) >> 8) as u8],
        );
        cycles.write32(port, bridge::IO_BASE_UPPER, 0);
    }
    if !memory.is_empty() {
        cycles.write32(port, bridge::MEMORY_BASE, window_bits(&memory));
    }
    if !prefetch.is_empty() {
        cycles.write32(port, bridge::PREFETCH_BASE, window_bits(&prefetch));
        cycles.write32(port, bridge::PREFETCH_BASE_UPPER, (prefetch.start >> 32) as u32);
        cycles.write32(
            port,
            bridge::PREFETCH_BASE_UPPER + 4,
            ((prefetch.end - 1) >> 32) as u32,
        );
    }
    let forward = command::IO | command::MEMORY | command::BUS_MASTER;
    cycles.write(port, header::COMMAND, &forward.to_le_bytes());
}

/// Base in the low half, limit in the high half, both as address bits 31:20.
fn window_bits(window: &Range<u64>) -> u32 {
    let field = |address: u64| (address >> 16) as u32 & 0xfff0;
    field(window.start) | field(window.end - 1) << 16
}

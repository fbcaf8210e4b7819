//! What a firmware does before it starts an operating system: numbers the buses, sizes the BARs, gives
//! them addresses and opens the bridges' windows around them. It works by configuration cycles alone, as
//! a guest would, so it needs to know nothing of what stands behind them.
//!
//! Memory decoding is left off, as PCIe has it after reset: a guest that sizes BARs would have to switch it
//! off and on around each of them, and every change costs a memory slot and a DMA mapping.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

use crate::pci::Function;
use crate::pci::address::{Bdf, DevFn};
use crate::pci::root_complex::RootComplex;
use crate::pci::root_port::RootPort;
use crate::pci::spec::{bar, bridge, command, header, rom_bar};
use crate::region::Effect;

/// The address ranges the host bridge forwards, to be shared out among the ports.
#[derive(Clone, Debug)]
pub struct Windows {
    /// Ports that are forwarded to PCI.
    pub io: Range<u64>,
    /// Guest physical memory below 4 GiB.
    pub memory_32: Range<u64>,
    /// Guest physical memory above RAM.
    pub memory_64: Range<u64>,
}

/// Bytes of each kind that a port forwards, or is to forward at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// I/O ports, in whole windows of 4 KiB.
    pub io: u64,
    /// Memory below 4 GiB.
    pub memory_32: u64,
    /// Prefetchable memory of 64 bits.
    pub memory_64: u64,
}

/// A device that needs more room than there is, or room for one to come that there is not.
#[derive(Debug, thiserror::Error)]
#[error("{what} behind {port} needs {size:#x} bytes of {kind} and {left:#x} are left; {advice}")]
pub struct NoRoom {
    port: String,
    what: String,
    size: u64,
    kind: &'static str,
    left: u64,
    advice: &'static str,
    /// The room is for a device to come.
    is_to_come: bool,
}

impl NoRoom {
    /// Whether it is the room for devices to come that is wrong, and not a device that is there.
    pub fn is_to_come(&self) -> bool {
        self.is_to_come
    }
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

/// The BARs behind each port by the window they belong to.
#[derive(Default)]
struct Demand {
    io: Vec<Vec<Bar>>,
    memory: Vec<Vec<Bar>>,
    prefetchable: Vec<Vec<Bar>>,
}

impl Demand {
    fn add_port(&mut self) {
        for kind in [&mut self.io, &mut self.memory, &mut self.prefetchable] {
            kind.push(Vec::new());
        }
    }
}

/// Adds to what the last port has of a kind.
fn add(kind: &mut [Vec<Bar>], bar: Bar) {
    kind.last_mut()
        .expect("a port is added before its BARs")
        .push(bar);
}

/// Whether memory BARs of these sizes, a list for each port, have room in `window`.
pub fn fits(sizes: &[Vec<u64>], window: Range<u64>) -> bool {
    share(sizes, window, bridge::MEMORY_WINDOW_ALIGN).is_ok()
}

/// Shares `free` out among ports whose BARs have these sizes: a window for each, empty without BARs; or which port
/// has no room, for a BAR of which size, with how much left. A port's window begins where its biggest BAR may, and
/// ports go by their biggest BARs, so that little is lost between them.
fn share(sizes: &[Vec<u64>], mut free: Range<u64>, align: u64) -> Result<Vec<Range<u64>>, (usize, u64, u64)> {
    let biggest = |port: usize| sizes[port].iter().copied().max().unwrap_or(0);
    let mut order: Vec<usize> = (0..sizes.len()).filter(|port| biggest(*port) > 0).collect();
    order.sort_by_key(|port| Reverse(biggest(*port)));
    let mut windows = vec![0..0; sizes.len()];
    for port in order {
        let granule = biggest(port)
            .checked_next_power_of_two()
            .unwrap_or(u64::MAX)
            .max(align);
        let start = free.start.checked_next_multiple_of(granule).unwrap_or(u64::MAX);
        let mut next = start;
        for size in descending(&sizes[port]) {
            let end = next.checked_add(size).filter(|end| *end <= free.end);
            next = end.ok_or((port, size, free.end.saturating_sub(next)))?;
        }
        windows[port] = start..next.next_multiple_of(align);
        free.start = windows[port].end;
    }
    Ok(windows)
}

fn descending(sizes: &[u64]) -> Vec<u64> {
    let mut sizes = sizes.to_vec();
    sizes.sort_by_key(|size| Reverse(*size));
    sizes
}

/// Numbers buses, places BARs and opens windows, those of a port at least as wide as `least` says of it; each effect of a
/// write goes to `apply`. Returns what each port forwards, in the order of the ports.
///
/// # Errors
/// When the windows are too small.
pub fn configure(
    root: &RootComplex,
    windows: Windows,
    least: &dyn Fn(&RootPort) -> Room,
    apply: &mut dyn FnMut(Effect),
) -> Result<Vec<Room>, NoRoom> {
    let mut cycles = Cycles { target: root, apply };
    let ports = root.ports();
    let mut demand = Demand::default();
    for (port, bus) in ports.iter().zip(1u8..) {
        cycles.write(bdf_of(port), bridge::PRIMARY_BUS, &[0, bus, bus]);
        size_all(&mut cycles, bus, &mut demand);
    }
    let least = |of: fn(Room) -> u64| ports.iter().map(|port| of(least(port))).collect::<Vec<u64>>();
    let (least_io, least_32, least_64) = (
        least(|room| room.io),
        least(|room| room.memory_32),
        least(|room| room.memory_64),
    );
    let io = place(&mut cycles, ports, demand.io, &least_io, windows.io, IO)?;
    let memory = place(
        &mut cycles,
        ports,
        demand.memory,
        &least_32,
        windows.memory_32,
        MEMORY,
    )?;
    let prefetch = place(
        &mut cycles,
        ports,
        demand.prefetchable,
        &least_64,
        windows.memory_64,
        PREFETCH,
    )?;
    let mut rooms = Vec::new();
    for (n, port) in ports.iter().enumerate() {
        let windows = [&io, &memory, &prefetch].map(|windows| windows[n].clone());
        let [io, memory_32, memory_64] = windows.clone().map(|window| window.end - window.start);
        rooms.push(Room {
            io,
            memory_32,
            memory_64,
        });
        open_windows(&mut cycles, bdf_of(port), windows);
    }
    Ok(rooms)
}

/// Whether a device with these functions, which no port has yet, finds room behind `port`, which forwards `room`.
///
/// # Errors
/// Which of its BARs finds none.
pub fn check(functions: &[(u8, Arc<dyn Function>)], port: &RootPort, room: Room) -> Result<(), NoRoom> {
    let mut cycles = Cycles {
        target: &Unplugged(functions),
        apply: &mut |_| {},
    };
    let mut demand = Demand::default();
    size_all(&mut cycles, 0, &mut demand);
    let kinds = [
        (demand.io, room.io, IO),
        (demand.memory, room.memory_32, MEMORY),
        (demand.prefetchable, room.memory_64, PREFETCH),
    ];
    for (bars, room, kind) in kinds {
        let sizes: Vec<u64> = bars.iter().flatten().map(|bar| bar.size).collect();
        share(&[sizes], 0..room, kind.align).map_err(|(_, size, left)| NoRoom {
            advice: "start the guest with more room for devices to come",
            is_to_come: true,
            ..no_room(port, &bars[0], size, left, kind.name)
        })?;
    }
    Ok(())
}

fn no_room(port: &RootPort, bars: &[Bar], size: u64, left: u64, kind: &'static str) -> NoRoom {
    let bar = bars.iter().find(|bar| bar.size == size);
    let (what, advice) = match bar {
        Some(bar) => (
            format!("{} of the device", name_of(bar.index)),
            "pass fewer or smaller devices",
        ),
        None => ("a device to come".to_owned(), "keep less room free, or for fewer"),
    };
    NoRoom {
        port: Function::name(port).to_owned(),
        what,
        size,
        kind,
        left,
        advice,
        is_to_come: bar.is_none(),
    }
}

fn bdf_of(port: &RootPort) -> Bdf {
    Bdf {
        bus: 0,
        devfn: port.devfn(),
    }
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

/// Who answers configuration cycles.
trait Target {
    fn read(&self, bdf: Bdf, register: u16, data: &mut [u8]);
    fn write(&self, bdf: Bdf, register: u16, data: &[u8]) -> Effect;
}

impl Target for RootComplex {
    fn read(&self, bdf: Bdf, register: u16, data: &mut [u8]) {
        self.read_config(bdf, register, data);
    }

    fn write(&self, bdf: Bdf, register: u16, data: &[u8]) -> Effect {
        self.write_config(bdf, register, data)
    }
}

/// Functions of a device that is in no slot, by their numbers.
struct Unplugged<'a>(&'a [(u8, Arc<dyn Function>)]);

impl Unplugged<'_> {
    fn function(&self, bdf: Bdf) -> Option<&dyn Function> {
        let found = self.0.iter().find(|(number, _)| *number == bdf.devfn.function());
        found.map(|(_, function)| &**function)
    }
}

impl Target for Unplugged<'_> {
    fn read(&self, bdf: Bdf, register: u16, data: &mut [u8]) {
        match self.function(bdf) {
            Some(function) => function.read_config(register, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, bdf: Bdf, register: u16, data: &[u8]) -> Effect {
        let function = self.function(bdf);
        function.map_or(Effect::None, |function| function.write_config(register, data))
    }
}

/// Configuration cycles whose effects are passed on.
struct Cycles<'a> {
    target: &'a dyn Target,
    apply: &'a mut dyn FnMut(Effect),
}

impl Cycles<'_> {
    fn read32(&self, bdf: Bdf, register: u16) -> u32 {
        let mut data = [0; 4];
        self.target.read(bdf, register, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, bdf: Bdf, register: u16, data: &[u8]) {
        for (register, byte) in (register..).zip(data) {
            (self.apply)(self.target.write(bdf, register, &[*byte]));
        }
    }

    fn write32(&mut self, bdf: Bdf, register: u16, value: u32) {
        (self.apply)(self.target.write(bdf, register, &value.to_le_bytes()));
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

fn size_all(cycles: &mut Cycles<'_>, bus: u8, demand: &mut Demand) {
    demand.add_port();
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
            let wide = size_one(cycles, bdf, index, demand);
            index += if wide { 2 } else { 1 };
        }
        size_rom(cycles, bdf, demand);
    }
}

/// Sizes the ROM (§7.5.1.2.4). Its place is kept though it is not enabled: a driver or a user may want it.
fn size_rom(cycles: &mut Cycles<'_>, bdf: Bdf, demand: &mut Demand) {
    let mask = cycles.probe(bdf, header::ROM_BAR) & rom_bar::ADDRESS;
    if mask != 0 {
        let rom = Bar {
            bdf,
            index: ROM,
            size: u64::from(mask.wrapping_neg()),
            wide: false,
        };
        add(&mut demand.memory, rom);
    }
}

/// Sizes one BAR (PCIe §7.5.1.2.1) into `demand`; true if it takes two registers.
fn size_one(cycles: &mut Cycles<'_>, bdf: Bdf, index: u8, demand: &mut Demand) -> bool {
    let register = register_of(index);
    let low = cycles.probe(bdf, register);
    if low & bar::IO != 0 {
        let size = u64::from((low & !bar::IO_FLAGS | 0xffff_0000).wrapping_neg());
        let ports = Bar {
            bdf,
            index,
            size,
            wide: false,
        };
        add(&mut demand.io, ports);
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
        true => add(&mut demand.prefetchable, found),
        false => add(&mut demand.memory, found),
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

/// Gives addresses to the BARs of each port, biggest first, and returns the windows around them, which have at least
/// the bytes of `least`.
fn place(
    cycles: &mut Cycles<'_>,
    ports: &[Arc<RootPort>],
    mut bars: Vec<Vec<Bar>>,
    least: &[u64],
    free: Range<u64>,
    kind: Kind,
) -> Result<Vec<Range<u64>>, NoRoom> {
    let sizes = |(bars, least): (&Vec<Bar>, &u64)| {
        let mut sizes: Vec<u64> = bars.iter().map(|bar| bar.size).collect();
        let missing = least.saturating_sub(sizes.iter().sum());
        sizes.extend((missing > 0).then_some(missing));
        sizes
    };
    let sizes: Vec<Vec<u64>> = bars.iter().zip(least).map(sizes).collect();
    let windows = share(&sizes, free, kind.align)
        .map_err(|(port, size, left)| no_room(&ports[port], &bars[port], size, left, kind.name))?;
    for (bars, window) in bars.iter_mut().zip(&windows) {
        bars.sort_by_key(|bar| Reverse(bar.size));
        let mut next = window.start;
        for bar in bars {
            cycles.write32(bar.bdf, register_of(bar.index), next as u32);
            if bar.wide {
                cycles.write32(bar.bdf, register_of(bar.index) + 4, (next >> 32) as u32);
            }
            next += bar.size;
        }
    }
    Ok(windows)
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn ports_go_by_their_biggest_bars_and_windows_do_not_touch() {
        let sizes = [vec![64 << 10], Vec::new(), vec![16 * MIB, 1024 * MIB]];
        let windows = share(&sizes, 0x8000_0000..0xe000_0000, MIB).expect("room for all");
        assert_eq!(windows[2], 0x8000_0000..0xc100_0000);
        assert_eq!(windows[1], 0..0);
        assert_eq!(windows[0], 0xc100_0000..0xc110_0000);
    }

    #[test]
    fn what_has_no_room_is_told_with_what_is_left() {
        let sizes = [vec![256 * MIB], vec![512 * MIB]];
        assert_eq!(
            share(&sizes, 0xc000_0000..0xe000_0000, MIB),
            Err((0, 256 * MIB, 0))
        );
        assert!(!fits(&[vec![1 << 63, u64::MAX]], 0..u64::MAX));
    }
}

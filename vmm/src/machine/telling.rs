//! What a machine tells of itself on its control socket, in QEMU's words where it has them.

use std::fs;

use serde_json::{Value, json};
use strait_devices::pci::{Bdf, DevFn, RootComplex};

use super::board::Board;
use super::platform::Platform;
use super::seat::Seat;
use super::state::Request;
use super::statistics::{self, KvmNumbers};
use crate::control::{Control, Facts};
use crate::events::Event;
use crate::gdb::Debugger;

/// Registers of a function's header (PCIe §7.5.1.1, §7.5.1.3).
const IDS: u16 = 0x00;
const CLASS: u16 = 0x08;
const HEADER_TYPE: u16 = 0x0c;
const BUSES: u16 = 0x18;
const IO_WINDOW: u16 = 0x1c;
const MEMORY_WINDOW: u16 = 0x20;
const PREFETCHABLE_WINDOW: u16 = 0x24;
const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;

/// Nobody answers.
const NOBODY: u32 = 0xffff_ffff;

/// A machine that is asked between two events.
pub(super) struct Telling<'a> {
    pub(super) platform: &'a Platform,
    pub(super) board: &'a Board,
}

impl Facts for Telling<'_> {
    fn status(&self) -> &'static str {
        match self.platform.debugger.as_ref().is_some_and(Debugger::holds) {
            _ if self.platform.is_paused => "paused",
            true => "debug",
            false => "running",
        }
    }

    fn pci(&self) -> Value {
        json!([{"bus": 0, "devices": bus(self.board.root(), 0)}])
    }

    fn cpus(&self) -> Value {
        let cpu = |id| {
            json!({
                "cpu-index": id,
                "qom-path": format!("/machine/cpu[{id}]"),
                "thread-id": thread_of(id),
                "target": "x86_64",
            })
        };
        (0..self.platform.cpus).map(cpu).collect()
    }

    fn strait(&self) -> Value {
        let device = |passed: &super::passthrough::Passed| {
            json!({
                "name": passed.name.to_string(),
                "id": passed.id,
                "host": passed.device.bdf().to_string(),
                "path": place(self.board.root(), passed.seat),
                "port": passed.seat.port,
                "function": passed.seat.function,
            })
        };
        let about = &self.platform.about;
        json!({
            "name": about.name.as_ref().map(ToString::to_string),
            "pid": std::process::id(),
            "uptime-seconds": about.began.elapsed().as_secs(),
            "memory-bytes": about.memory_bytes,
            "devices": self.platform.passed.iter().map(device).collect::<Vec<Value>>(),
            "locked-bytes": statistics::locked_bytes(),
            "process": statistics::of_this_process(),
            "kvm": self.platform.numbers.as_ref().map(KvmNumbers::tell),
            "iommu": self.platform.iommu.report(),
        })
    }
}

/// What a guest is and has when it starts, for `--status`.
pub(super) fn started(platform: &Platform, board: &Board) -> Value {
    let device = |passed: &super::passthrough::Passed| {
        json!({
            "id": passed.id,
            "host": passed.device.bdf().to_string(),
            "guest": place(board.root(), passed.seat),
        })
    };
    json!({
        "name": platform.about.name.as_ref().map(ToString::to_string),
        "pid": std::process::id(),
        "socket": platform.control.as_ref().and_then(Control::socket),
        "devices": platform.passed.iter().map(device).collect::<Vec<Value>>(),
    })
}

/// QEMU's name for why a guest is over (qapi/run-state.json, ShutdownCause).
pub(super) fn cause(request: &Request) -> &'static str {
    match request {
        Request::Guest(Event::Reset) => "guest-reset",
        Request::Guest(Event::PowerOff) => "guest-shutdown",
        Request::Guest(Event::GuestPanic | Event::TripleFault) => "guest-panic",
        Request::Again => "host-qmp-system-reset",
        Request::QuitByClient => "host-qmp-quit",
        Request::Quit => "host-signal",
        _ => "host-error",
    }
}

/// The thread that runs a vCPU; the first one, where it stands still and has none.
fn thread_of(vcpu: u32) -> u32 {
    let name = format!("vcpu{vcpu}");
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let mut named = threads.filter(|thread| {
        fs::read_to_string(thread.path().join("comm")).is_ok_and(|text| text.trim() == name)
    });
    named
        .find_map(|thread| thread.file_name().to_str()?.parse().ok())
        .unwrap_or_else(std::process::id)
}

/// Where the guest finds a passed function: on the bus that it gave to its root port. Before it gave it one, there is none.
fn place(root: &RootComplex, seat: Seat) -> Option<String> {
    let port = Bdf {
        bus: 0,
        devfn: DevFn::from_byte(seat.port << 3),
    };
    let mut buses = [0; 4];
    root.read_config(port, BUSES, &mut buses);
    let [_, secondary, ..] = buses;
    let function = seat.function;
    (secondary != 0).then(|| format!("0000:{secondary:02x}:00.{function}"))
}

/// The functions of a bus, and those behind its bridges. A bus behind a root port has one slot, and no bridge of ours.
fn bus(root: &RootComplex, number: u8) -> Vec<Value> {
    let last = if number == 0 { u8::MAX } else { 7 };
    let functions = (0..=last).map(|devfn| Bdf {
        bus: number,
        devfn: DevFn::from_byte(devfn),
    });
    functions
        .enumerate()
        .filter_map(|(devfn, bdf)| function(root, bdf, devfn))
        .collect()
}

fn function(root: &RootComplex, bdf: Bdf, devfn: usize) -> Option<Value> {
    let register = |register| {
        let mut data = [0; 4];
        root.read_config(bdf, register, &mut data);
        u32::from_le_bytes(data)
    };
    let ids = register(IDS);
    if ids == NOBODY {
        return None;
    }
    let mut function = json!({
        "bus": bdf.bus,
        "slot": devfn >> 3,
        "function": devfn & 7,
        "class_info": {"class": register(CLASS) >> 16},
        "id": {"device": ids >> 16, "vendor": ids & 0xffff},
        "qdev_id": "",
        "regions": [],
    });
    let is_bridge = (register(HEADER_TYPE) >> 16) & 0x7f == 1;
    if is_bridge && bdf.bus == 0 {
        function["pci_bridge"] = bridge(root, &register);
    }
    Some(function)
}

/// A bridge's buses and windows (PCIe §7.5.1.3.6 to 10).
fn bridge(root: &RootComplex, register: &dyn Fn(u16) -> u32) -> Value {
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
    json!({
        "bus": {
            "number": primary,
            "secondary": secondary,
            "subordinate": subordinate,
            "io_range": range((io & 0xf0) << 8, (io & 0xf000) | 0xfff),
            "memory_range": range(base, limit),
            "prefetchable_range": range(
                low | upper(PREFETCHABLE_BASE_UPPER),
                low_limit | upper(PREFETCHABLE_LIMIT_UPPER),
            ),
        },
        "devices": if secondary == 0 { Vec::new() } else { bus(root, secondary) },
    })
}

//! What a machine tells of itself on its control socket, in QEMU's words where it has them.

mod pci;

use std::fs;

use serde_json::{Value, json};
use strait_devices::pci::{Bdf, DevFn, RootComplex};
use strait_vfio::pci::Decoder;

use super::board::Board;
use super::passthrough::Passed;
use super::platform::Platform;
use super::seat::Seat;
use super::state::Request;
use super::statistics::{self, Interrupts, KvmNumbers};
use crate::control::{Control, Facts};
use crate::events::Event;
use crate::gdb::Debugger;

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
        pci::buses(self.platform, self.board)
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
        let interrupts = Interrupts::read();
        let trapped = |decoder: Decoder| json!({"bar": decoder.index, "trapped": decoder.trapped});
        let device = |passed: &Passed| {
            let (bdf, seat) = (passed.device.bdf(), passed.seat);
            let decoders = self.board.decoders(seat.port, seat.function).into_iter();
            json!({
                "name": passed.name.to_string(),
                "id": passed.id,
                "host": bdf.to_string(),
                "path": place(self.board.root(), seat),
                "port": seat.port,
                "function": seat.function,
                "interrupts": interrupts.as_ref().map(|interrupts| interrupts.of(bdf)),
                "bars": decoders.map(trapped).collect::<Vec<Value>>(),
            })
        };
        let about = &self.platform.about;
        json!({
            "name": about.name.as_ref().map(ToString::to_string),
            "pid": std::process::id(),
            "uptime-seconds": about.began.elapsed().as_secs(),
            "memory-bytes": about.memory_bytes,
            "memory": about.memory,
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
    let device = |passed: &Passed| {
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
    root.read_config(port, pci::BUSES, &mut buses);
    let [_, secondary, ..] = buses;
    let function = seat.function;
    (secondary != 0).then(|| format!("0000:{secondary:02x}:00.{function}"))
}

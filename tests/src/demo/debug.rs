//! The guest's kernel under gdb, shown: symbols from the guest itself, a look around, and the NIC goes on.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::guest::gdb_session::{SOCKET, command, symbols};
use crate::guest::{Boot, Guest, GuestConfig, Interface, Vmm};
use crate::lab::devices::NIC;
use crate::lab::{Assigned, Kind, LabHost, Logs, Outside, build_strait};
use crate::supplies::Supplies;

const LIMIT: Duration = Duration::from_secs(300);

/// What is typed at gdb.
const SCRIPT: &str = "info threads\nbacktrace 1\nx/3i ksys_read\np *(long *) &jiffies\nstepi 10\ninfo registers rip cr3\n\
     monitor info devices\nmonitor info pci\ndetach\n";

/// Runs the demonstration.
pub(super) fn demo(vmm: Vmm) -> Result<ExitCode> {
    let supplies = Supplies::prepare()?;
    let (logs, outside) = (Logs::open()?, Outside::start()?);
    // Symbols are made by strait, whoever runs the guest.
    let strait = build_strait()?;
    let host = LabHost::boot(&supplies, &logs, Some(&strait), Kind::Whole)?;
    let nic = Assigned::bind(&host.agent, NIC.at())?;
    let config = GuestConfig {
        gdb: Some(SOCKET),
        ..GuestConfig::with(&[NIC.at()]).told("nokaslr")
    };
    let boot = Boot {
        pace: host.pace.factor(),
        ..Boot::default()
    };
    let words = vmm.command(&config, &boot.cmdline(&config.words));
    println!(
        "Starting a guest that gdb may look into:\n\n  {}\n",
        words.join(" ")
    );
    let deadline = Instant::now() + host.pace.stretch(LIMIT);
    let mut guest = Guest::start(&host.agent, words, deadline, false)?;
    let eth0 = Interface::new(&outside, "eth0", "10.0.2");
    guest.ready()?;
    eth0.up(&mut guest, "igb")?;
    println!("Its NIC is up. In the guest: cat /proc/kallsyms, of which here a part;");
    println!("on the host: strait symbols kallsyms guest.sym; gdb guest.sym, and there:\n");
    symbols(
        &host.agent,
        &mut guest,
        "ksys_read|jiffies|default_idle|pv_native_safe_halt",
    )?;
    for line in SCRIPT.lines() {
        println!("  (gdb) {line}");
    }
    let finished = host.agent.exec(&command(SCRIPT), host.pace.stretch(LIMIT))?;
    logs.append("demo-debug.log", &guest.transcript());
    println!("\n{}{}", finished.output, finished.errors);
    ensure!(finished.code == 0, "gdb ended with code {}", finished.code);
    eth0.ping(&mut guest)?;
    println!("gdb has left, and 3 of 3 pings are answered through the NIC.");
    guest.power_off()?;
    nic.restore()?;
    Ok(ExitCode::SUCCESS)
}

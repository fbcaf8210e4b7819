//! The main job, shown: a Linux guest boots, drives the passed-through NIC and reaches a server
//! outside the lab.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::guest::{Boot, Guest, GuestConfig, Interface, Vmm};
use crate::lab::devices::NIC;
use crate::lab::{Assigned, Kind, LabHost, Logs, Outside, build_strait};
use crate::supplies::Supplies;

const LIMIT: Duration = Duration::from_secs(300);

/// Runs the demonstration.
pub(super) fn demo(vmm: Vmm) -> Result<ExitCode> {
    println!("Preparing: a QEMU machine with an IOMMU, KVM and an Intel 82576 NIC, all in software.");
    let supplies = Supplies::prepare()?;
    let logs = Logs::open()?;
    let outside = Outside::start()?;
    let strait = (vmm == Vmm::Strait).then(build_strait).transpose()?;
    let host = LabHost::boot(&supplies, &logs, strait.as_deref(), Kind::Whole)?;

    println!("Binding {}, the NIC, to vfio-pci.", NIC.at());
    let nic = Assigned::bind(&host.agent, NIC.at())?;
    let boot = Boot {
        pace: host.pace.factor(),
        is_loud: true,
        ..Boot::default()
    };
    let command = vmm.command(&GuestConfig::with(&[NIC.at()]), &boot.cmdline(""));
    println!(
        "Starting the guest; what follows is its console.\n\n  {}\n",
        command.join(" ")
    );
    let deadline = Instant::now() + host.pace.stretch(LIMIT);
    let mut guest = Guest::start(&host.agent, command, deadline, true)?;
    let verdict = watch(&mut guest, &outside);
    logs.append("demo.log", &guest.transcript());
    let verdict = verdict?;
    nic.restore()?;
    println!("\n{verdict}");
    Ok(ExitCode::SUCCESS)
}

fn watch(guest: &mut Guest<'_>, outside: &Outside) -> Result<String> {
    let eth0 = Interface::new(outside, "eth0", "10.0.2");
    let init = guest.ready()?;
    let kernel = guest.sh("uname -r")?;
    eth0.up(guest, "igb")?;
    eth0.ping(guest)?;
    eth0.fetch(guest)?;
    let vectors = eth0.vectors(guest)?;
    let packets = guest
        .sh("cd /sys/class/net/eth0/statistics; echo $(cat rx_packets) received, $(cat tx_packets) sent")?;
    let finished = guest.power_off()?;

    let counts: Vec<String> = vectors
        .iter()
        .map(|vector| format!("{} {}", vector.name, vector.total()))
        .collect();
    let seconds = Duration::from_millis(finished.elapsed_ms).as_secs_f64();
    Ok(format!(
        "Verdict\n  guest kernel   {kernel}\n  driver         igb, link up, 3 of 3 pings answered\n  \
         data           32 MiB fetched, SHA-256 equal\n  packets        {packets}\n  \
         interrupts     {}\n  time           {init} s of guest time to init, {seconds:.1} s from start to power-off",
        counts.join(", ")
    ))
}

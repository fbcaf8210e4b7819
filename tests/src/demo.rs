//! The main job, shown: a Linux guest boots, drives the passed-through NIC and reaches a server
//! outside the lab.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::guest::Guest;
use crate::guest::{GuestConfig, Vmm};
use crate::lab::Outside;
use crate::lab::{Assigned, Host, LabHost, Logs, NIC, build_strait};
use crate::supplies::Supplies;

const LIMIT: Duration = Duration::from_secs(300);

/// Runs the demonstration.
pub(crate) fn demo(vmm: Vmm) -> Result<ExitCode> {
    println!("Preparing: a QEMU machine with an IOMMU, KVM and an Intel 82576 NIC, all in software.");
    let supplies = Supplies::prepare()?;
    let logs = Logs::open()?;
    let outside = Outside::start()?;
    let strait = (vmm == Vmm::Strait).then(build_strait).transpose()?;
    let host = LabHost::boot(&supplies, &logs, strait.as_deref(), Host::Whole)?;

    println!("Binding {NIC}, the NIC, to vfio-pci.");
    let nic = Assigned::bind(&host.agent, NIC)?;
    let config = GuestConfig {
        devices: vec![nic.bdf.clone()],
        cmdline: format!(
            "console=ttyS0 panic=-1 iomem=relaxed lab.do=facts,net,ping3,fetch,irqs,packets lab.address=10.0.2.15 lab.port={}",
            outside.port
        ),
        ..GuestConfig::default()
    };
    let command = vmm.command(&config);
    println!(
        "Starting the guest; what follows is its console.\n\n  {}\n",
        command.join(" ")
    );
    let mut guest = Guest::start(
        &host.agent,
        command,
        Instant::now() + host.pace.stretch(LIMIT),
        true,
    )?;
    let verdict = watch(&mut guest, &outside);
    logs.append("demo.log", &guest.transcript());
    let verdict = verdict?;
    nic.restore()?;
    println!("\n{verdict}");
    Ok(ExitCode::SUCCESS)
}

fn watch(guest: &mut Guest<'_>, outside: &Outside) -> Result<String> {
    let init = guest.expect("init")?;
    let kernel = guest.expect("kernel")?;
    let driver = guest.expect("driver")?;
    guest.expect("link")?;
    let pings = guest.expect("ping")?;
    let hash = guest.expect("fetch")?;
    let irqs = guest.expect_irqs()?;
    let packets = guest.expect("packets")?;
    let finished = guest.expect_power_off()?;
    anyhow::ensure!(pings == "3", "{pings} of 3 pings were answered");
    anyhow::ensure!(
        hash == outside.sha256,
        "What arrived is not what was sent: SHA-256 {hash}"
    );

    let (received, sent) = packets.split_once(' ').unwrap_or((&packets, "?"));
    let counts = irqs
        .iter()
        .map(|(name, counts)| format!("{name} {}", counts.iter().sum::<u64>()));
    let counts: Vec<String> = counts.collect();
    let seconds = Duration::from_millis(finished.elapsed_ms).as_secs_f64();
    Ok(format!(
        "Verdict\n  guest kernel   {kernel}\n  driver         {driver}, link up, {pings} of 3 pings answered\n  \
         data           32 MiB fetched, SHA-256 equal\n  packets        {received} received, {sent} sent\n  \
         interrupts     {}\n  time           {init} s of guest time to init, {seconds:.1} s from start to power-off",
        counts.join(", ")
    ))
}

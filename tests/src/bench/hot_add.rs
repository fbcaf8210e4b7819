//! A NIC that comes to a running guest: from a client's word until the guest's driver has it.

use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::json;

use super::Bench;
use crate::guest::{GuestConfig, Vmm};

const SOCKET: &str = "/run/lab/qmp";

/// What the guest says when its driver has the device, at most a few milliseconds later.
const BOUND: &str = "bound";

/// Seconds from `device_add` until the driver is bound, without the device's own reset, which takes as long for everybody.
pub(super) fn measure(bench: &Bench<'_>, vmm: Vmm, nic: &str) -> Result<f64> {
    let reset_s = reset(bench, nic)?;
    let config = GuestConfig {
        qmp: Some(SOCKET),
        slots: 1,
        ..GuestConfig::default()
    };
    let mut arguments = json!({"driver": "vfio-pci", "host": nic, "id": "nic"});
    if vmm == Vmm::Qemu {
        arguments["bus"] = "slot0".into();
        arguments["rombar"] = 0.into();
    }
    let add = json!({"execute": "device_add", "arguments": arguments});
    bench.with_guest(vmm, &config, |guest| {
        guest.ready()?;
        guest.sh("load")?;
        guest.type_script(&format!(
            "until ls /sys/bus/pci/drivers/igb | grep -q :; do usleep 2000; done; echo {BOUND}"
        ))?;
        let start = Instant::now();
        bench.agent.sh(&format!("lab qmp {SOCKET} '{add}'"))?;
        guest.line_with(BOUND)?;
        let whole_s = start.elapsed().as_secs_f64();
        guest.answer(BOUND)?;
        guest.power_off()?;
        Ok(whole_s - reset_s)
    })
}

/// How long the kernel takes for a reset of the function, in seconds.
fn reset(bench: &Bench<'_>, nic: &str) -> Result<f64> {
    let text = bench.agent.sh(&format!(
        "start=${{EPOCHREALTIME/.}}; echo 1 > /sys/bus/pci/devices/{nic}/reset; echo $((${{EPOCHREALTIME/.}} - start))"
    ))?;
    let us: f64 = text.trim().parse().context("The reset's time is no number")?;
    Ok(us / 1e6)
}

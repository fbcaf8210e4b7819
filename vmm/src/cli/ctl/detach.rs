//! `strait ctl detach`.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use strait_vfio::host::{self, Root};

use super::connection::Connection;
use super::description::{Device, devices};
use super::trouble::Trouble;
use super::wait::Limit;

/// Take a device out of a running guest, and wait until it has left.
#[derive(Debug, Args)]
pub(super) struct DetachArgs {
    /// The device, by its id or as the host names it: net0, 01:00.0, enp3s0.
    #[arg(value_name = "DEVICE")]
    device: String,
    /// How long the guest may take to let go of it; 0 does not wait.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    wait: Limit,
    /// Take it at once, without asking the guest, whose driver finds it gone.
    #[arg(long)]
    force: bool,
}

impl DetachArgs {
    pub(super) fn run(self, guest: &mut Connection, root: &Root) -> Result<(), Trouble> {
        let strait = guest.execute("x-query-strait", Value::Null)?;
        let device = find(guest, devices(&strait), &self.device, root)?;
        let id = device.id.clone().or(device.host.clone()).unwrap_or_default();
        let mut arguments = json!({"id": id});
        if self.force {
            arguments["force"] = json!(true);
        }
        guest.execute("device_del", arguments)?;
        let Limit(waited) = self.wait;
        if waited.is_zero() {
            return Ok(());
        }
        self.wait_until_it_left(guest, &device, &id, waited)
    }

    fn wait_until_it_left(
        &self,
        guest: &mut Connection,
        device: &Device,
        id: &str,
        waited: Duration,
    ) -> Result<(), Trouble> {
        let until = Instant::now() + waited;
        while let Some(event) = guest.event(until)? {
            if event.data["device"] != id {
                continue;
            }
            match event.name.as_str() {
                "DEVICE_DELETED" => return Ok(()),
                "DEVICE_UNPLUG_GUEST_ERROR" => {
                    return Err(Trouble::Kept {
                        guest: guest.guest.clone(),
                        device: device.short(),
                    });
                }
                _ => {}
            }
        }
        Err(Trouble::NotYet {
            guest: guest.guest.clone(),
            device: device.short(),
            waited,
        })
    }
}

/// The device of the guest that is meant: by its id, else by what the host calls it.
fn find(guest: &Connection, devices: Vec<Device>, wanted: &str, root: &Root) -> Result<Device, Trouble> {
    let by_id = devices
        .iter()
        .position(|device| device.id.as_deref() == Some(wanted));
    let by_host = || {
        let address = host::find(root, wanted).ok()?.to_string();
        devices
            .iter()
            .position(|device| device.host.as_ref() == Some(&address))
    };
    match by_id.or_else(by_host) {
        Some(at) => Ok(devices.into_iter().nth(at).expect("it was found there")),
        None => Err(Trouble::NoDevice {
            guest: guest.guest.clone(),
            device: wanted.to_owned(),
            has: match devices.is_empty() {
                true => "none".to_owned(),
                false => devices.iter().map(Device::short).collect::<Vec<_>>().join(", "),
            },
        }),
    }
}

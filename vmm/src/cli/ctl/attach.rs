//! `strait ctl attach`.

use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};
use strait_vfio::host::Root;

use super::connection::Connection;
use super::description::text;
use super::show::pretty;
use super::trouble::Trouble;
use crate::cli::screen::Screen;
use crate::config::{DeviceConfig, RomConfig};

/// What it may take until a device has left its driver, was reset and has its memory mapped.
const PATIENCE: Duration = Duration::from_secs(120);

/// Put a device into a running guest.
#[derive(Debug, Args)]
pub(super) struct AttachArgs {
    /// The device, with the keys of `strait run --device` behind commas: 01:00.0,id=net0,managed=on.
    #[arg(value_name = "DEVICE")]
    device: String,
    /// Print the answer in JSON, for programs.
    #[arg(long)]
    json: bool,
}

impl AttachArgs {
    pub(super) fn run(
        self,
        guest: &mut Connection,
        root: &Root,
        screen: &mut Screen<'_>,
    ) -> Result<(), Trouble> {
        let device = DeviceConfig::read(&self.device, root).map_err(|source| Trouble::Device {
            device: self.device.clone(),
            source,
        })?;
        guest.patience = PATIENCE;
        let added = guest.execute("device_add", arguments(&device))?;
        if self.json {
            return Ok(screen.line(pretty(&added))?);
        }
        let name = text(&added["id"]).unwrap_or_else(|| device.to_string());
        let place = text(&added["path"])
            .map(|path| format!("{path} "))
            .unwrap_or_default();
        let note = match added["heard"] == false {
            true => ", which does not listen to hot plug and finds it when its driver of the slot starts",
            false => "",
        };
        Ok(screen.line(format!("{name} is {place}in the guest{note}"))?)
    }
}

/// The arguments of QEMU's `device_add`; keys that were not given are left to the guest.
fn arguments(device: &DeviceConfig) -> Value {
    let mut arguments = Map::from_iter([
        ("driver".to_owned(), json!("vfio-pci")),
        ("host".to_owned(), json!(device.host.to_string())),
    ]);
    let mut give = |key: &str, value: Value| _ = arguments.insert(key.to_owned(), value);
    if let Some(id) = &device.id {
        give("id", json!(id));
    }
    if device.managed {
        give("managed", json!(true));
    }
    match &device.rom {
        RomConfig::Own => {}
        RomConfig::Hidden => give("rombar", json!(false)),
        RomConfig::File(path) => give("romfile", json!(path)),
    }
    if device.hides_msix {
        give("msix", json!(false));
    }
    arguments.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_arguments_and_what_is_not_given_is_not_said() {
        let given = |text: &str| {
            let device = DeviceConfig::read(text, &Root::at("/nonexistent")).expect(text);
            arguments(&device)
        };
        assert_eq!(
            given("01:10.0"),
            json!({"driver": "vfio-pci", "host": "0000:01:10.0"})
        );
        assert_eq!(
            given("vfio-pci,host=01:10.0,id=net0,managed=on,rombar=off,msix=off"),
            json!({
                "driver": "vfio-pci", "host": "0000:01:10.0", "id": "net0", "managed": true, "rombar": false,
                "msix": false,
            })
        );
        assert_eq!(given("01:10.0,romfile=/lib/gpu.rom")["romfile"], "/lib/gpu.rom");
    }
}

//! Giving a device of the lab host to vfio-pci, and giving it back.

use anyhow::{Context, Result};

use super::devices;
use crate::agent::Agent;

/// A device bound to vfio-pci for as long as this value lives.
pub(crate) struct Assigned<'a> {
    agent: &'a Agent,
    /// The function that is passed through.
    pub(crate) bdf: String,
    /// What undoes the preparation.
    undo: Option<String>,
}

impl<'a> Assigned<'a> {
    /// Takes a device from its driver.
    pub(crate) fn bind(agent: &'a Agent, bdf: &str) -> Result<Self> {
        let driver = agent.sh(&format!(
            "basename $(readlink -m /sys/bus/pci/devices/{bdf}/driver)"
        ))?;
        let had_driver = driver.trim() != "driver";
        agent
            .sh(&bind_script(bdf))
            .with_context(|| format!("Cannot bind {bdf} to vfio-pci"))?;
        Ok(Self {
            agent,
            bdf: bdf.to_owned(),
            undo: Some(restore_script(bdf, had_driver)),
        })
    }

    /// Creates a virtual function of the NIC and takes it; its physical function stays up with the
    /// host's driver, without which a virtual function does nothing.
    pub(crate) fn bind_virtual_function(agent: &'a Agent) -> Result<Self> {
        let nic = devices::NIC.at();
        let prepare = format!(
            "cd /sys/bus/pci/devices/{nic}; nic=$(ls net | head -n 1); ip link set $nic up; \
             for i in $(seq 100); do [ $(cat net/$nic/carrier) = 1 ] && break; sleep 0.1; done; \
             echo 0 > sriov_drivers_autoprobe; echo 1 > sriov_numvfs; \
             basename $(readlink virtfn0)"
        );
        let bdf = agent.sh(&prepare).context("Cannot create a virtual function")?;
        let bdf = bdf.trim().to_owned();
        let undo = format!(
            "{}; cd /sys/bus/pci/devices/{nic}; echo 0 > sriov_numvfs; echo 1 > sriov_drivers_autoprobe; \
             ip link set $(ls net | head -n 1) down",
            unbind_script(&bdf)
        );
        // From here on the guard undoes it, also when binding fails.
        let assigned = Self {
            agent,
            bdf,
            undo: Some(undo),
        };
        agent
            .sh(&bind_script(&assigned.bdf))
            .with_context(|| format!("Cannot bind {} to vfio-pci", assigned.bdf))?;
        Ok(assigned)
    }

    /// Gives the device back to the driver it had.
    pub(crate) fn restore(mut self) -> Result<()> {
        match self.undo.take() {
            Some(undo) => self
                .agent
                .sh(&undo)
                .map(drop)
                .with_context(|| format!("Cannot give {} back to its driver", self.bdf)),
            None => Ok(()),
        }
    }
}

impl Drop for Assigned<'_> {
    fn drop(&mut self) {
        if let Some(undo) = self.undo.take() {
            let _ = self.agent.sh(&undo);
        }
    }
}

fn bind_script(bdf: &str) -> String {
    format!(
        "{}; echo vfio-pci > driver_override; echo {bdf} > /sys/bus/pci/drivers_probe; \
         [ $(basename $(readlink driver)) = vfio-pci ]",
        unbind_script(bdf)
    )
}

fn restore_script(bdf: &str, had_driver: bool) -> String {
    let check = if had_driver {
        "[ -e driver ]"
    } else {
        "[ ! -e driver ]"
    };
    format!(
        "{}; echo > driver_override; echo {bdf} > /sys/bus/pci/drivers_probe; {check}",
        unbind_script(bdf)
    )
}

fn unbind_script(bdf: &str) -> String {
    format!("cd /sys/bus/pci/devices/{bdf}; [ ! -e driver ] || echo {bdf} > driver/unbind")
}

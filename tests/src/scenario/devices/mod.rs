//! Devices of every kind, each with the guest's own driver, and every way to interrupt.

mod by_hand;
mod groups;
mod interrupts;
mod media;
mod rom;
mod storage;
mod sweep;

use super::{Kind, Lab, Scenario};
use crate::guest::GuestConfig;

pub(super) fn scenarios() -> Vec<Scenario> {
    let kinds = [
        interrupts::scenarios(),
        storage::scenarios(),
        by_hand::scenarios(),
        media::scenarios(),
        rom::scenarios(),
        groups::scenarios(),
        sweep::scenarios(),
    ];
    kinds.into_iter().flatten().collect()
}

/// Takes functions for a guest that has the drivers of all devices of the lab machine.
fn take(lab: &Lab<'_>, functions: &[&str]) -> anyhow::Result<GuestConfig> {
    for function in functions {
        lab.take(function)?;
    }
    Ok(with(functions))
}

/// Such a guest, with functions as its VMM is told them.
fn with(functions: &[&str]) -> GuestConfig {
    GuestConfig {
        initrd: "devices",
        ..GuestConfig::with(functions)
    }
}

/// What the interrupts of a driver come through.
fn controller_of(driver: &str) -> String {
    format!("grep {driver} /proc/interrupts | head -n 1 | grep -o 'IO-APIC\\|PCI-MSIX\\|PCI-MSI'")
}

//! What is asked of the host before anything on it changes.

use std::collections::BTreeMap;
use std::{fs, io};

use kvm_bindings::CpuId;
use strait_vfio::host::{self, Decoded, HostBdf};

use super::RunError;
use super::passthrough::seats_of;
use crate::boot::{Kernel, Source};
use crate::config::{Config, MemorySize, RomConfig};
use crate::kvm::{System, cpuid};
use crate::layout::Range;
use crate::placement;

/// A wish the host cannot fulfil.
#[derive(Debug, thiserror::Error)]
enum HostError {
    #[error("--memory {wanted} is more than the {has}M this host has; give less")]
    Memory { wanted: MemorySize, has: u64 },
    #[error("--cpus {wanted} is more than the {has} vCPUs KVM runs in one guest here; give fewer")]
    Cpus { wanted: u32, has: usize },
    #[error(
        "--cpu host,nested=on: KVM offers guests neither SVM nor VMX here; turn it on with \
         `modprobe -r kvm_amd && modprobe kvm_amd nested=1` (kvm_intel on Intel)"
    )]
    Nesting,
    #[error(
        "--viommu: {other} and {bdf} share the host's IOMMU group {group} and cannot be told apart; pass one of \
         them, or leave --viommu out"
    )]
    SharedGroup {
        bdf: HostBdf,
        other: HostBdf,
        group: u32,
    },
}

/// A host that was found able to run the machine.
pub struct Host {
    /// KVM, with all we need.
    pub system: System,
    /// What KVM lets a guest see of the CPU.
    pub cpuid: CpuId,
    /// The kernel, found bootable.
    pub kernel: Kernel,
    /// The window for BARs below 4 GiB.
    pub mmio_32: Range,
}

impl Host {
    /// Asks everything that can be asked before devices are bound for the guest, cheapest first.
    ///
    /// # Errors
    /// The first thing in the way, and what to do about it.
    pub fn check(config: &Config) -> Result<Self, RunError> {
        check_memory(config.memory)?;
        let mmio_32 = placement::low_window(&decoded_below_4_gib(config)?);
        let source = Source {
            kernel: &config.kernel,
            initrd: config.initrd.as_deref(),
            cmdline: &config.cmdline,
        };
        let kernel = Kernel::open(&source, config.memory.bytes(), mmio_32)?;
        let system = System::open()?;
        let (wanted, has) = (config.cpus, system.max_vcpus());
        if wanted as usize > has {
            return Err(HostError::Cpus { wanted, has }.into());
        }
        let mut cpuid = system.supported_cpuid()?;
        match config.cpu.nested {
            Some(true) if !cpuid::offers_nesting(&cpuid) => return Err(HostError::Nesting.into()),
            Some(false) => cpuid::hide_nesting(&mut cpuid),
            _ => {}
        }
        Ok(Self {
            system,
            cpuid,
            kernel,
            mmio_32,
        })
    }

    /// Asks whether all devices can be had.
    ///
    /// # Errors
    /// The first thing in the way, and what to do about it.
    pub fn check_devices(&self, config: &Config) -> Result<(), RunError> {
        let devices: Vec<HostBdf> = config.devices.iter().map(|device| device.host).collect();
        if !devices.is_empty() {
            let memory = config.memory.bytes();
            host::check(&host::Root::real(), &host::RunningKernel, &devices, memory)?;
        }
        if config.viommu.is_some() {
            check_groups(&host::Root::real(), &devices)?;
        }
        Ok(())
    }
}

/// Behind a virtual IOMMU each device has an address space of its own, which the host can give only to a
/// whole group.
fn check_groups(root: &host::Root, devices: &[HostBdf]) -> Result<(), RunError> {
    let mut seen = BTreeMap::new();
    for &bdf in devices {
        let Some(group) = root.device(bdf)?.and_then(|device| device.group) else {
            continue;
        };
        if let Some(other) = seen.insert(group, bdf) {
            return Err(HostError::SharedGroup { bdf, other, group }.into());
        }
    }
    Ok(())
}

/// Sizes of what the devices behind each root port decode below 4 GiB, the ROMs as the guest will see them. What
/// sysfs does not show is found out when it is placed.
fn decoded_below_4_gib(config: &Config) -> io::Result<Vec<Vec<u64>>> {
    let root = host::Root::real();
    let seats = seats_of(&config.devices)?;
    let ports = seats.iter().map(|seat| usize::from(seat.port)).max().unwrap_or(0);
    let mut sizes = vec![Vec::new(); ports];
    for (device, seat) in config.devices.iter().zip(&seats) {
        let mut decoded = Decoded::read(&root, device.host).unwrap_or_default();
        match &device.rom {
            RomConfig::Own => {}
            RomConfig::Hidden => decoded.rom = 0,
            // A file that cannot be read is told of by who reads it.
            RomConfig::File(path) => {
                decoded.rom = fs::metadata(path)
                    .map_or(0, |file| file.len())
                    .next_power_of_two();
            }
        }
        sizes[usize::from(seat.port) - 1].extend(decoded.below_4_gib());
    }
    Ok(sizes)
}

/// Refuses more memory than there is; where the kernel does not tell, it is left to say so itself.
fn check_memory(wanted: MemorySize) -> Result<(), HostError> {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total_kib: Option<u64> = info.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?
            .trim()
            .split(' ')
            .next()?
            .parse()
            .ok()
    });
    match total_kib {
        Some(kib) if wanted.bytes() > kib << 10 => Err(HostError::Memory {
            wanted,
            has: kib >> 10,
        }),
        _ => Ok(()),
    }
}

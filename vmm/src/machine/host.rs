//! What is asked of the host before anything on it changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use kvm_bindings::CpuId;
use rustix::fs::{Access, access};
use strait_devices::pci::firmware::Room;
use strait_vfio::host::{self, Decoded, HostBdf};

use super::error::RunError;
use super::seat;
use crate::boot::{GuestKernel, Source};
use crate::config::{Config, HotplugConfig, MemorySize, RomConfig};
use crate::kvm::{System, cpuid};
use crate::layout::Range;
use crate::memory::{self, RamSource};
use crate::placement;

/// A wish the host cannot fulfil.
#[derive(Debug, thiserror::Error)]
enum HostError {
    #[error("--memory {wanted} is more than the {has}M this host has; give less")]
    Memory { wanted: MemorySize, has: u64 },
    #[error("--cpus {wanted} is more than the {has} vCPUs KVM runs in one guest here; give fewer")]
    Cpus { wanted: u32, has: usize },
    #[error("--stats: {} cannot be written at the end of the run", path.display())]
    Stats { path: PathBuf, source: io::Error },
    #[error(
        "--cpu host,nested=on: KVM offers guests neither SVM nor VMX here; turn it on with \
         `modprobe -r {0} && modprobe {0} nested=1` as root"
    )]
    Nesting(&'static str),
    #[error(
        "--cpu host,nested=on: this CPU shows neither SVM nor VMX; where this is a virtual machine, its host must allow nested \
         guests"
    )]
    NoNesting,
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
pub struct CheckedHost {
    /// KVM, with all we need.
    pub system: System,
    /// What KVM lets a guest see of the CPU.
    pub cpuid: CpuId,
    /// Where RAM comes from.
    pub ram: RamSource,
    /// The kernel, found bootable.
    pub kernel: GuestKernel,
    /// The window for BARs below 4 GiB.
    pub mmio_32: Range,
    /// What a slot for a device to come has for BARs.
    pub room: Room,
}

impl CheckedHost {
    /// Asks everything that can be asked before devices are bound for the guest, cheapest first.
    ///
    /// # Errors
    /// The first thing in the way, and what to do about it.
    pub fn check(config: &Config) -> Result<Self, RunError> {
        check_memory(config.memory.size)?;
        config.stats.as_deref().map_or(Ok(()), check_stats)?;
        let ram = memory::source(&config.memory)?;
        let room = config.hotplug.map_or(Room::default(), room);
        let mut sizes = decoded_below_4_gib(config)?;
        let slots = config.hotplug.map_or(0, |hotplug| hotplug.slots);
        sizes.extend((0..slots).map(|_| vec![room.memory_32]));
        let mmio_32 = placement::low_window(&sizes);
        let source = Source {
            kernel: &config.kernel,
            initrd: config.initrd.as_deref(),
            cmdline: &config.cmdline,
        };
        let kernel = GuestKernel::open(&source, config.memory.size.bytes(), mmio_32)?;
        let system = System::open()?;
        let (wanted, has) = (config.cpus, system.max_vcpus());
        if wanted as usize > has {
            return Err(HostError::Cpus { wanted, has }.into());
        }
        let mut cpuid = system.supported_cpuid()?;
        match config.cpu.nested {
            Some(true) if !cpuid::offers_nesting(&cpuid) => {
                let virtualization = host::Virtualization::read(&host::Root::real());
                let module = virtualization.map(host::Virtualization::module);
                return Err(module.map_or(HostError::NoNesting, HostError::Nesting).into());
            }
            Some(false) => cpuid::hide_nesting(&mut cpuid),
            _ => {}
        }
        Ok(Self {
            system,
            cpuid,
            ram,
            kernel,
            mmio_32,
            room,
        })
    }

    /// Asks whether all devices can be had.
    ///
    /// # Errors
    /// The first thing in the way, and what to do about it.
    pub fn check_devices(&self, config: &Config) -> Result<(), RunError> {
        let devices: Vec<HostBdf> = config.devices.iter().map(|device| device.host).collect();
        if !devices.is_empty() {
            let memory = config.memory.size.bytes();
            host::check(
                host::Host::new(&host::Root::real(), &host::RunningKernel),
                &devices,
                memory,
            )?;
        }
        if config.viommu.is_some() {
            check_groups(&host::Root::real(), &devices)?;
        }
        Ok(())
    }
}

/// Behind a virtual IOMMU each device has an address space of its own, which the host can give only to a
/// whole group.
pub(super) fn check_groups(root: &host::Root, devices: &[HostBdf]) -> Result<(), RunError> {
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

/// What a slot has for BARs, by what the functions of this host that could be passed decode.
fn room(hotplug: HotplugConfig) -> Room {
    let root = host::Root::real();
    let sizes = |bdf: HostBdf| {
        let decoded = Decoded::read(&root, bdf)?;
        Some((
            decoded.below_4_gib().iter().sum(),
            decoded.high.iter().sum::<u64>(),
        ))
    };
    hotplug.room_for(|| root.endpoints().into_iter().filter_map(sizes))
}

/// Sizes of what the devices behind each root port decode below 4 GiB, the ROMs as the guest will see them. What
/// sysfs does not show is found out when it is placed.
fn decoded_below_4_gib(config: &Config) -> io::Result<Vec<Vec<u64>>> {
    let root = host::Root::real();
    let seated = seat::seated(&config.devices)?;
    let ports = seated.iter().map(|(_, seat)| usize::from(seat.port)).max();
    let mut sizes = vec![Vec::new(); ports.unwrap_or(0)];
    for (device, seat) in seated {
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

/// Refuses a file for `--stats` that could not be written. It is not opened: what it holds stays until there is
/// something new, and whoever reads a pipe would take that for the end.
fn check_stats(path: &Path) -> Result<(), HostError> {
    let may_write = match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => access(path, Access::WRITE_OK).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| *folder != Path::new(""));
            access(folder.unwrap_or(Path::new(".")), Access::WRITE_OK).map_err(io::Error::from)
        }
        Err(error) => Err(error),
    };
    may_write.map_err(|source| HostError::Stats {
        path: path.to_owned(),
        source,
    })
}

/// Refuses more memory than there is; where the kernel does not tell, it is left to say so itself.
fn check_memory(wanted: MemorySize) -> Result<(), HostError> {
    match host::memory_bytes(&host::Root::real()) {
        Some(has) if wanted.bytes() > has => Err(HostError::Memory {
            wanted,
            has: has >> 20,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stats_file_that_cannot_be_written_is_refused_before_the_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let refusal = |path: &Path| {
            let refused = check_stats(path).expect_err("no place for a file");
            strait_devices::Chain(&refused).to_string()
        };
        let text = refusal(folder.path());
        assert!(
            text.starts_with("--stats: /") && text.contains("directory"),
            "{text}"
        );
        let text = refusal(&folder.path().join("missing/stats"));
        assert!(text.contains("No such file"), "{text}");
    }

    #[test]
    fn a_stats_file_that_can_be_written_is_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        fs::write(&old, "of the run before").expect("room");
        check_stats(&old).expect("it is ours");
        check_stats(&new).expect("the folder is ours");
        assert_eq!(fs::read_to_string(old).expect("text"), "of the run before");
        assert!(!new.exists());
    }
}

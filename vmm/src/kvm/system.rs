//! /dev/kvm: is it there, may we use it, can it do what we need.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::{fs, io};

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm};

/// Why this host cannot run guests, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// There is no device node /dev/kvm.
    #[error(
        "there is no /dev/kvm: turn virtualization on in the firmware (AMD SVM, Intel VT-x) and load the \
         module, `modprobe kvm_amd` or `modprobe kvm_intel`"
    )]
    Missing,
    /// The node cannot be opened for lack of rights.
    #[error("no permission to open /dev/kvm: {0}")]
    Permission(String),
    /// The module is there but not usable.
    #[error(
        "/dev/kvm cannot be used: is virtualization turned off in the firmware, or in use by another hypervisor?"
    )]
    Unusable(#[source] io::Error),
    /// The kernel speaks another version of the interface than this program.
    #[error("KVM speaks API version {0}, strait needs 12")]
    Version(i32),
    /// A feature that every kernel since 5.10 has.
    #[error("KVM lacks {0}; strait needs a kernel from 5.10 on with KVM for AMD SVM or Intel VT-x")]
    Lacks(&'static str),
    /// CPUID cannot be read.
    #[error("KVM does not tell which CPU features it supports")]
    Cpuid(#[source] io::Error),
}

impl SystemError {
    /// The node under `root` cannot be opened: by whom it can be.
    pub fn permission(root: &Path) -> Self {
        let owner = fs::metadata(root.join("dev/kvm")).ok();
        // Debian's udev gives it to a group named kvm; other systems and containers have another, or none.
        let group = owner
            .filter(|node| node.mode() & 0o060 == 0o060)
            .and_then(|node| {
                let groups = fs::read_to_string(root.join("etc/group")).ok()?;
                group_named(&groups, node.gid())
            });
        Self::Permission(match group.as_deref() {
            Some("root") | None => "no group but root's may; run as root".to_owned(),
            Some(group) => format!(
                "add yourself to its group (`usermod -aG {group} $USER`) and log in again, or run as root"
            ),
        })
    }
}

/// The name of a group in /etc/group (group(5)).
fn group_named(groups: &str, gid: u32) -> Option<String> {
    let mut entries = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let entry = entries.find(|fields| fields.get(2) == Some(&gid.to_string().as_str()))?;
    entry.first().map(|&name| name.to_owned())
}

/// What strait cannot work without.
const NEEDED: [(Cap, &str); 10] = [
    (
        Cap::Irqchip,
        "the in-kernel interrupt controller (KVM_CAP_IRQCHIP)",
    ),
    (
        Cap::SplitIrqchip,
        "the split interrupt controller (KVM_CAP_SPLIT_IRQCHIP)",
    ),
    (Cap::Irqfd, "irqfd (KVM_CAP_IRQFD)"),
    (
        Cap::CoalescedMmio,
        "coalesced memory writes (KVM_CAP_COALESCED_MMIO)",
    ),
    (Cap::CoalescedPio, "coalesced port writes (KVM_CAP_COALESCED_PIO)"),
    (Cap::SignalMsi, "MSI from user space (KVM_CAP_SIGNAL_MSI)"),
    (Cap::UserMemory, "user memory regions (KVM_CAP_USER_MEMORY)"),
    (Cap::ImmediateExit, "immediate exit (KVM_CAP_IMMEDIATE_EXIT)"),
    (Cap::X2ApicApi, "x2APIC (KVM_CAP_X2APIC_API)"),
    (
        Cap::TscDeadlineTimer,
        "the TSC deadline timer (KVM_CAP_TSC_DEADLINE_TIMER)",
    ),
];

/// An open /dev/kvm that has all we need.
pub struct System {
    kvm: Kvm,
}

impl System {
    /// Opens /dev/kvm and checks its features.
    ///
    /// # Errors
    /// Says what is missing and how to get it.
    pub fn open() -> Result<Self, SystemError> {
        let kvm = Kvm::new().map_err(|errno| match errno.errno() {
            libc::ENOENT => SystemError::Missing,
            libc::EACCES | libc::EPERM => SystemError::permission(Path::new("/")),
            _ => SystemError::Unusable(errno.into()),
        })?;
        match kvm.get_api_version() {
            12 => {}
            other => return Err(SystemError::Version(other)),
        }
        match NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
            Some((_, what)) => Err(SystemError::Lacks(what)),
            None => Ok(Self { kvm }),
        }
    }

    /// The ioctls of /dev/kvm itself.
    pub(super) fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    /// The CPU features a guest can have.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn supported_cpuid(&self) -> Result<CpuId, SystemError> {
        self.kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|errno| SystemError::Cpuid(errno.into()))
    }

    /// Most vCPUs the host runs in one guest.
    pub fn max_vcpus(&self) -> usize {
        self.kvm.get_max_vcpus()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_number() {
        let groups = "root:x:0:\nkvm:x:107:ann\nvirt:x:36:\n";
        assert_eq!(group_named(groups, 36).as_deref(), Some("virt"));
        assert_eq!(group_named(groups, 3), None);
    }

    #[test]
    fn a_node_that_no_group_may_open_is_roots() {
        let folder = tempfile::tempdir().expect("a folder");
        let says = SystemError::permission(folder.path()).to_string();
        assert!(says.ends_with("no group but root's may; run as root"), "{says}");
    }
}

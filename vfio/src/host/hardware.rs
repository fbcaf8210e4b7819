//! What the host's CPUs can do, and how much memory there is.

use super::sysfs::Root;

/// How a CPU runs guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Virtualization {
    /// Intel's VMX.
    Vmx,
    /// AMD's SVM.
    Svm,
}

impl Virtualization {
    /// By the flags in /proc/cpuinfo; none where the CPU or its firmware has it off.
    pub fn read(root: &Root) -> Option<Self> {
        let text = root.text("proc/cpuinfo")?;
        let (_, flags) = text
            .lines()
            .find_map(|line| line.strip_prefix("flags")?.split_once(':'))?;
        flags.split_whitespace().find_map(|flag| match flag {
            "vmx" => Some(Self::Vmx),
            "svm" => Some(Self::Svm),
            _ => None,
        })
    }

    /// KVM's module for it.
    pub fn module(self) -> &'static str {
        match self {
            Self::Vmx => "kvm_intel",
            Self::Svm => "kvm_amd",
        }
    }
}

/// Bytes of memory that the host's kernel has, by MemTotal of /proc/meminfo; none where it does not tell.
pub fn memory_bytes(root: &Root) -> Option<u64> {
    let text = root.text("proc/meminfo")?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::FakeHost;

    #[test]
    fn flags_of_the_cpu_alone_tell_how_it_runs_guests() {
        let host = FakeHost::new();
        for (text, expected) in [
            ("flags\t\t: fpu vmx\n", Some(Virtualization::Vmx)),
            ("flags\t\t: fpu svm\n", Some(Virtualization::Svm)),
            ("model name\t: svm vmx\nflags\t\t: fpu\nbugs\t\t: vmx\n", None),
            ("", None),
        ] {
            host.file("proc/cpuinfo", text);
            assert_eq!(Virtualization::read(&host.root()), expected, "{text}");
        }
    }

    #[test]
    fn memory_is_told_in_bytes_or_not_at_all() {
        let host = FakeHost::new();
        for (text, expected) in [
            ("MemTotal:        2048 kB\nMemFree: 1 kB\n", Some(2 << 20)),
            ("MemTotal: much\n", None),
            ("MemTotal: 18446744073709551615 kB\n", None),
            ("MemFree: 1 kB\n", None),
        ] {
            host.file("proc/meminfo", text);
            assert_eq!(memory_bytes(&host.root()), expected, "{text}");
        }
    }
}

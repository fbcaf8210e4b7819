//! What a guest is to have.

use crate::supplies::HOST_SERIES;

/// A guest, whoever runs it.
#[derive(Debug, Clone)]
pub(crate) struct GuestConfig {
    /// `vmlinuz`, a bzImage, or `vmlinux`, an ELF file.
    pub(crate) image: &'static str,
    /// The kernel's series.
    pub(crate) series: &'static str,
    /// The initial file system, by its name in `supplies/guests.rs`.
    pub(crate) initrd: &'static str,
    pub(crate) memory_mib: u64,
    /// What strait is told of it besides, from a comma on.
    pub(crate) memory_keys: &'static str,
    pub(crate) cpus: u32,
    /// As the VMM is told them.
    pub(crate) devices: Vec<String>,
    /// What the kernel is told besides what every guest is told.
    pub(crate) words: String,
    /// An IOMMU for the guest itself.
    pub(crate) viommu: bool,
    pub(crate) no_reboot: bool,
    /// The socket at which gdb is let in.
    pub(crate) gdb: Option<&'static str>,
    /// It does not start before gdb lets it.
    pub(crate) waits_for_gdb: bool,
    /// The socket at which it is controlled.
    pub(crate) qmp: Option<&'static str>,
    /// Slots for devices that come while it runs.
    pub(crate) slots: u32,
    /// Options that only strait has.
    pub(crate) more: &'static [&'static str],
}

impl Default for GuestConfig {
    fn default() -> Self {
        Self {
            image: "vmlinuz",
            series: HOST_SERIES,
            initrd: "initramfs",
            memory_mib: 512,
            memory_keys: "",
            cpus: 1,
            devices: Vec::new(),
            words: String::new(),
            viommu: false,
            no_reboot: false,
            gdb: None,
            waits_for_gdb: false,
            qmp: None,
            slots: 0,
            more: &[],
        }
    }
}

impl GuestConfig {
    /// One with these devices.
    pub(crate) fn with(devices: &[&str]) -> Self {
        Self {
            devices: devices.iter().map(|&device| device.to_owned()).collect(),
            ..Self::default()
        }
    }

    /// The same with more words for its kernel.
    pub(crate) fn told(mut self, words: &str) -> Self {
        self.words = format!("{} {words}", self.words).trim().to_owned();
        self
    }

    /// The same behind an IOMMU of its own, of which the kernel is told these words.
    pub(crate) fn behind_iommu(mut self, words: &str) -> Self {
        self.viommu = true;
        self.told(words)
    }

    /// Where the lab host has the kernel.
    pub(crate) fn kernel(&self) -> String {
        format!("/lab/guest/{}-{}", self.image, self.series)
    }

    /// Where it has the initial file system.
    pub(crate) fn initrd(&self) -> String {
        format!("/lab/guest/{}-{}", self.initrd, self.series)
    }
}

/// What every guest's kernel is told, see `resources/lab/guest-init.sh`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Boot {
    /// What limits in the guest are multiplied by; 0 for none.
    pub(crate) pace: u64,
    /// Kernel messages on the console.
    pub(crate) is_loud: bool,
    /// Words that the user adds.
    pub(crate) extra: String,
}

impl Boot {
    /// The kernel command line of a guest.
    pub(crate) fn cmdline(&self, words: &str) -> String {
        let quiet = if self.is_loud { "" } else { "quiet" };
        let pace = match self.pace {
            0 => String::new(),
            pace => format!("lab.pace={pace}"),
        };
        // Registers of a device that has a driver are looked at through /dev/mem.
        [
            "console=ttyS0 panic=-1 iomem=relaxed",
            quiet,
            &pace,
            words,
            &self.extra,
        ]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_has_no_empty_words() {
        let boot = Boot {
            pace: 3,
            ..Boot::default()
        };
        assert_eq!(
            boot.cmdline("intel_iommu=on"),
            "console=ttyS0 panic=-1 iomem=relaxed quiet lab.pace=3 intel_iommu=on"
        );
        assert_eq!(GuestConfig::default().told("a").behind_iommu("b").words, "a b");
    }
}

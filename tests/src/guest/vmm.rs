//! The VMM under test, Strait or QEMU in its place, as command lines.

use clap::ValueEnum;

use crate::supplies::HOST_SERIES;

/// Who runs the guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Vmm {
    /// The project's own.
    Strait,
    /// The control: shows that a scenario itself is right.
    Qemu,
}

/// What to run, for either VMM.
#[derive(Debug, Clone)]
pub(crate) struct GuestConfig {
    /// `vmlinuz` (a bzImage) or `vmlinux` (ELF with a PVH note).
    pub(crate) image: &'static str,
    pub(crate) series: &'static str,
    /// `initramfs`, `devices` with more drivers, `nested` or `nested-qemu` with a hypervisor inside,
    /// `probe` with a VFIO program.
    pub(crate) initrd: &'static str,
    pub(crate) memory_mib: u64,
    pub(crate) cpus: u32,
    pub(crate) devices: Vec<String>,
    pub(crate) cmdline: String,
    /// An IOMMU for the guest itself.
    pub(crate) viommu: bool,
    pub(crate) no_reboot: bool,
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
            cpus: 1,
            devices: Vec::new(),
            cmdline: String::new(),
            viommu: false,
            no_reboot: false,
            more: &[],
        }
    }
}

impl Vmm {
    /// As a user names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Strait => "strait",
            Self::Qemu => "qemu",
        }
    }

    /// The command line that runs a guest with its console on standard input and output.
    pub(crate) fn command(self, guest: &GuestConfig) -> Vec<String> {
        match self {
            Self::Strait => strait(guest),
            Self::Qemu => qemu(guest),
        }
    }
}

impl GuestConfig {
    fn kernel(&self) -> String {
        format!("/lab/guest/{}-{}", self.image, self.series)
    }

    fn initrd(&self) -> String {
        format!("/lab/guest/{}-{}", self.initrd, self.series)
    }
}

fn strait(guest: &GuestConfig) -> Vec<String> {
    let mut words = vec!["strait".to_owned(), "run".to_owned()];
    words.extend(["--kernel".to_owned(), guest.kernel()]);
    words.extend(["--initrd".to_owned(), guest.initrd()]);
    words.extend(["--cmdline".to_owned(), guest.cmdline.clone()]);
    words.extend(["--memory".to_owned(), format!("{}M", guest.memory_mib)]);
    words.extend(["--cpus".to_owned(), guest.cpus.to_string()]);
    for device in &guest.devices {
        words.extend(["--device".to_owned(), device.clone()]);
    }
    if guest.viommu {
        words.extend(["--viommu".to_owned(), "intel".to_owned()]);
    }
    if guest.no_reboot {
        words.push("--no-reboot".to_owned());
    }
    words.extend(guest.more.iter().map(|word| (*word).to_owned()));
    words
}

fn qemu(guest: &GuestConfig) -> Vec<String> {
    let mut words: Vec<String> = "qemu-system-x86_64 -nodefaults -no-user-config -display none -accel kvm \
         -machine q35,kernel-irqchip=split -cpu host -chardev stdio,id=console,signal=off -serial chardev:console"
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    words.extend(["-kernel".to_owned(), guest.kernel()]);
    words.extend(["-initrd".to_owned(), guest.initrd()]);
    words.extend(["-append".to_owned(), guest.cmdline.clone()]);
    words.extend(["-m".to_owned(), guest.memory_mib.to_string()]);
    words.extend(["-smp".to_owned(), guest.cpus.to_string()]);
    if guest.viommu {
        let unit = "intel-iommu,intremap=on,caching-mode=on,eim=on";
        words.extend(["-device".to_owned(), unit.to_owned()]);
    }
    for (index, device) in guest.devices.iter().enumerate() {
        let port = format!("pcie-root-port,id=port{index},chassis={index},slot={index}");
        let function = format!("vfio-pci,host={device},bus=port{index},rombar=0");
        words.extend(["-device".to_owned(), port, "-device".to_owned(), function]);
    }
    if guest.no_reboot {
        words.push("-no-reboot".to_owned());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strait_gets_every_setting() {
        let guest = GuestConfig {
            devices: vec!["0000:01:00.0".to_owned()],
            cmdline: "console=ttyS0".to_owned(),
            no_reboot: true,
            ..GuestConfig::default()
        };
        assert_eq!(
            Vmm::Strait.command(&guest).join(" "),
            "strait run --kernel /lab/guest/vmlinuz-6.12 --initrd /lab/guest/initramfs-6.12 --cmdline console=ttyS0 \
             --memory 512M --cpus 1 --device 0000:01:00.0 --no-reboot"
        );
    }

    #[test]
    fn each_device_of_qemu_has_its_root_port() {
        let guest = GuestConfig {
            devices: vec!["0000:01:00.0".to_owned(), "0000:02:00.0".to_owned()],
            ..GuestConfig::default()
        };
        let command = Vmm::Qemu.command(&guest).join(" ");
        assert!(command.contains("vfio-pci,host=0000:02:00.0,bus=port1"));
    }
}

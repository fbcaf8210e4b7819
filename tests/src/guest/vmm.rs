//! The VMM under test, Strait or QEMU in its place, as command lines.

use clap::ValueEnum;

use super::GuestConfig;

/// Who runs the guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Vmm {
    /// The project's own.
    Strait,
    /// The control: shows that a scenario itself is right.
    Qemu,
}

impl Vmm {
    /// As a user names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Strait => "strait",
            Self::Qemu => "qemu",
        }
    }

    /// What it is started by, to be found on PATH.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Strait => "strait",
            Self::Qemu => "qemu-system-x86_64",
        }
    }

    /// The command that runs a guest, whose kernel is told `cmdline`, with its console on standard input and output.
    pub(crate) fn command(self, guest: &GuestConfig, cmdline: &str) -> Vec<String> {
        match self {
            Self::Strait => strait(guest, cmdline),
            Self::Qemu => qemu(guest, cmdline),
        }
    }
}

fn strait(guest: &GuestConfig, cmdline: &str) -> Vec<String> {
    let mut words = vec!["strait".to_owned(), "run".to_owned()];
    words.extend(["--kernel".to_owned(), guest.kernel()]);
    words.extend(["--initrd".to_owned(), guest.initrd()]);
    words.extend(["--cmdline".to_owned(), cmdline.to_owned()]);
    words.extend([
        "--memory".to_owned(),
        format!("{}M{}", guest.memory_mib, guest.memory_keys),
    ]);
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
    words.extend(guest.gdb.map(|path| format!("--gdb=unix:{path}")));
    words.extend(guest.waits_for_gdb.then(|| "-S".to_owned()));
    words.extend(guest.qmp.map(|path| format!("--qmp={path}")));
    if guest.slots > 0 {
        words.push(format!("--hotplug-slots={}", guest.slots));
    }
    words.extend(guest.more.iter().map(|word| (*word).to_owned()));
    words
}

fn qemu(guest: &GuestConfig, cmdline: &str) -> Vec<String> {
    let mut words: Vec<String> = "qemu-system-x86_64 -nodefaults -no-user-config -display none -accel kvm \
         -machine q35,kernel-irqchip=split -cpu host -chardev stdio,id=console,signal=off -serial chardev:console"
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    words.extend(["-kernel".to_owned(), guest.kernel()]);
    words.extend(["-initrd".to_owned(), guest.initrd()]);
    words.extend(["-append".to_owned(), cmdline.to_owned()]);
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
    for slot in 0..guest.slots {
        let port = format!("pcie-root-port,id=slot{slot},chassis={0},slot={0}", 64 + slot);
        words.extend(["-device".to_owned(), port]);
    }
    if guest.no_reboot {
        words.push("-no-reboot".to_owned());
    }
    if let Some(path) = guest.gdb {
        let socket = format!("socket,path={path},server=on,wait=off,id=gdb");
        words.extend(["-chardev", &socket, "-gdb", "chardev:gdb"].map(str::to_owned));
    }
    words.extend(guest.waits_for_gdb.then(|| "-S".to_owned()));
    if let Some(path) = guest.qmp {
        words.extend(["-qmp".to_owned(), format!("unix:{path},server=on,wait=off")]);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strait_gets_every_setting() {
        let guest = GuestConfig {
            no_reboot: true,
            ..GuestConfig::with(&["0000:01:00.0"])
        };
        assert_eq!(
            Vmm::Strait.command(&guest, "console=ttyS0").join(" "),
            "strait run --kernel /lab/guest/vmlinuz-6.12 --initrd /lab/guest/initramfs-6.12 --cmdline console=ttyS0 \
             --memory 512M --cpus 1 --device 0000:01:00.0 --no-reboot"
        );
    }

    #[test]
    fn each_device_of_qemu_has_its_root_port() {
        let guest = GuestConfig::with(&["0000:01:00.0", "0000:02:00.0"]);
        let command = Vmm::Qemu.command(&guest, "").join(" ");
        assert!(command.contains("vfio-pci,host=0000:02:00.0,bus=port1"));
    }
}

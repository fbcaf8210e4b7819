//! Which Linux distribution this is, so that a remedy can be typed as it is printed.

use super::sysfs::Root;

/// The commands that bring saved bindings into this host's initramfs, whose drivers are earlier than any rule of the
/// system.
pub fn initramfs_commands(root: &Root) -> &'static [&'static str] {
    Distribution::read(root).initramfs_commands()
}

/// Families whose commands differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distribution {
    Debian,
    RedHat,
    Suse,
    Arch,
    NixOs,
    Other,
}

impl Distribution {
    /// By ID and ID_LIKE of os-release(5).
    pub(crate) fn read(root: &Root) -> Self {
        let text = root
            .text("etc/os-release")
            .or_else(|| root.text("usr/lib/os-release"))
            .unwrap_or_default();
        let values = text
            .lines()
            .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")));
        let words = values.flat_map(|value| value.trim_matches(['"', '\'']).split(' '));
        let mut families = words.filter_map(|word| match word {
            "debian" | "ubuntu" => Some(Self::Debian),
            "fedora" | "rhel" | "centos" => Some(Self::RedHat),
            "suse" | "opensuse" | "sles" => Some(Self::Suse),
            "arch" => Some(Self::Arch),
            "nixos" => Some(Self::NixOs),
            _ => None,
        });
        families.next().unwrap_or(Self::Other)
    }

    /// How `option` gets onto the kernel's command line by GRUB.
    pub(crate) fn by_grub(self, option: &str) -> String {
        let update = match self {
            Self::RedHat => {
                return format!("run: grubby --update-kernel=ALL --args={option}, and reboot");
            }
            Self::NixOs | Self::Other => {
                return format!("add {option} to the kernel's command line and reboot");
            }
            Self::Debian => "update-grub",
            Self::Suse => "grub2-mkconfig -o /boot/grub2/grub.cfg",
            Self::Arch => "grub-mkconfig -o /boot/grub/grub.cfg",
        };
        format!("add {option} to GRUB_CMDLINE_LINUX in /etc/default/grub, run {update}, and reboot")
    }

    /// How the entry of systemd-boot for the running kernel is written anew.
    pub(crate) fn write_loader_entry(self) -> &'static str {
        match self {
            Self::Arch => "mkinitcpio -P",
            Self::RedHat => "kernel-install add $(uname -r) /lib/modules/$(uname -r)/vmlinuz",
            _ => "kernel-install add $(uname -r) /boot/vmlinuz-$(uname -r)",
        }
    }

    /// What puts vfio-pci and the rules of saved bindings into the image that the kernel starts from. The last
    /// command makes the image anew, also once the rules are gone: a hook that fails ends update-initramfs, and a file
    /// of FILES that is missing mkinitcpio.
    fn initramfs_commands(self) -> &'static [&'static str] {
        match self {
            Self::Debian => &[
                "echo vfio-pci >> /etc/initramfs-tools/modules",
                "f=/etc/initramfs-tools/hooks/strait; echo '#!/bin/sh' > $f; chmod +x $f",
                "echo '[ \"$1\" = prereqs ] && exit' >> $f",
                "echo 'mkdir -p $DESTDIR/etc/udev/rules.d' >> $f",
                "echo 'for rule in /etc/udev/rules.d/10-strait-*; do' >> $f",
                "echo '[ -e \"$rule\" ] || continue' >> $f",
                "echo 'cp \"$rule\" $DESTDIR/etc/udev/rules.d || exit 1' >> $f",
                "echo 'done; exit 0' >> $f",
                "update-initramfs -u",
            ],
            Self::RedHat | Self::Suse => &[
                "f=/etc/dracut.conf.d/strait.conf; echo 'add_drivers+=\" vfio-pci \"' > $f",
                "rules=$(echo /etc/udev/rules.d/10-strait-*)",
                "echo 'install_optional_items+=\" '$rules' \"' >> $f",
                "dracut -f",
            ],
            Self::Arch => &[
                "f=/etc/mkinitcpio.conf.d/strait.conf; echo 'MODULES+=(vfio_pci)' > $f",
                "echo 'for rule in /etc/udev/rules.d/10-strait-*; do' >> $f",
                "echo '[ ! -e \"$rule\" ] || FILES+=(\"$rule\"); done' >> $f",
                "mkinitcpio -P",
            ],
            Self::NixOs => &[
                "boot.initrd.kernelModules = [ \"vfio-pci\" ]; and the rule into",
                "boot.initrd.services.udev.rules in /etc/nixos/configuration.nix, then",
                "nixos-rebuild boot",
            ],
            Self::Other => &["add vfio-pci and /etc/udev/rules.d/10-strait-* to the initramfs"],
        }
    }

    /// How the image that the kernel starts from is made anew.
    pub(crate) fn rebuild_initramfs(self) -> &'static str {
        match self {
            Self::Debian => "update-initramfs -u",
            Self::RedHat | Self::Suse => "dracut -f",
            Self::Arch => "mkinitcpio -P",
            Self::NixOs => "nixos-rebuild boot",
            Self::Other => "your tool for the initramfs",
        }
    }
}

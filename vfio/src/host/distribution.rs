//! Which Linux distribution this is, so that a remedy can be typed as it is printed.

use super::sysfs::Root;

/// Families whose commands differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distribution {
    Debian,
    RedHat,
    Suse,
    Arch,
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
            _ => None,
        });
        families.next().unwrap_or(Self::Other)
    }

    /// How `option` gets onto the kernel's command line.
    pub(crate) fn kernel_option(self, option: &str) -> String {
        let update = match self {
            Self::RedHat => {
                return format!("run: grubby --update-kernel=ALL --args={option}, and reboot");
            }
            Self::Other => return format!("add {option} to the kernel's command line and reboot"),
            Self::Debian => "update-grub",
            Self::Suse => "grub2-mkconfig -o /boot/grub2/grub.cfg",
            Self::Arch => "grub-mkconfig -o /boot/grub/grub.cfg",
        };
        format!("add {option} to GRUB_CMDLINE_LINUX in /etc/default/grub, run {update}, and reboot")
    }

    /// How the image that the kernel starts from is made anew.
    pub(crate) fn rebuild_initramfs(self) -> &'static str {
        match self {
            Self::Debian => "update-initramfs -u",
            Self::RedHat | Self::Suse => "dracut -f",
            Self::Arch => "mkinitcpio -P",
            Self::Other => "your tool for the initramfs",
        }
    }
}

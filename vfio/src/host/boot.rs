//! The kernel's command line, and how this host's boot loader puts an option onto it.

use super::distribution::Distribution;
use super::sysfs::Root;

/// What systemd-boot tells of itself (systemd's Boot Loader Interface), and GRUB since 2.12.
const LOADER_INFO: &str = "sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// The command line of hosts whose kernel-install or proxmox-boot-tool writes the loader's entries.
const KERNEL_CMDLINE: &str = "etc/kernel/cmdline";
/// Where systemd-boot's entries may be.
const ENTRIES: [&str; 3] = [
    "boot/loader/entries",
    "efi/loader/entries",
    "boot/efi/loader/entries",
];

/// The first of `options` on the kernel's command line, as in `intel_iommu=off` or in `intel_iommu=on,off`.
pub(super) fn given<'a>(root: &Root, options: &[&'a str]) -> Option<&'a str> {
    let line = root.text("proc/cmdline").unwrap_or_default();
    let fits = |word: &str, option: &str| match (word.split_once('='), option.split_once('=')) {
        (Some((key, values)), Some((name, value))) => {
            key == name && values.split(',').any(|one| one == value)
        }
        _ => word == option,
    };
    let is_given = |option: &&&str| line.split_whitespace().any(|word| fits(word, option));
    options.iter().find(is_given).copied()
}

/// How `option` gets onto the command line; `None` if it is there already.
pub(super) fn with_option(root: &Root, option: &str) -> Option<String> {
    given(root, &[option]).is_none().then(|| added(root, option))
}

/// For the loader that the host has, so that it can be done as it is printed.
fn added(root: &Root, option: &str) -> String {
    let has = |path: &str| root.path(path).exists();
    let distribution = Distribution::read(root);
    if distribution == Distribution::NixOs {
        return format!(
            "add {option} to boot.kernelParams in /etc/nixos/configuration.nix, run nixos-rebuild boot, and reboot"
        );
    }
    if has("run/ostree-booted") {
        return format!("run: rpm-ostree kargs --append-if-missing={option}, and reboot");
    }
    if has("etc/kernelstub") {
        return format!("run: kernelstub -a {option}, and reboot");
    }
    if has("etc/kernel/proxmox-boot-uuids") {
        let file = match is_systemd_boot(root) {
            true => "the line in /etc/kernel/cmdline",
            false => "GRUB_CMDLINE_LINUX in /etc/default/grub",
        };
        return format!("add {option} to {file}, run proxmox-boot-tool refresh, and reboot");
    }
    match is_systemd_boot(root) {
        true => by_systemd_boot(root, distribution, option),
        false => distribution.by_grub(option),
    }
}

fn by_systemd_boot(root: &Root, distribution: Distribution, option: &str) -> String {
    if root.path(KERNEL_CMDLINE).exists() {
        let update = distribution.write_loader_entry();
        return format!("add {option} to the line in /{KERNEL_CMDLINE}, run {update}, and reboot");
    }
    let folder = ENTRIES.iter().find(|folder| root.path(folder).exists());
    let folder = folder.unwrap_or(&ENTRIES[0]);
    format!("add {option} to the line options of the entry in /{folder}, and reboot")
}

/// By the loader's own word, else by what it leaves where GRUB has left nothing.
fn is_systemd_boot(root: &Root) -> bool {
    // UTF-16 behind four bytes of attributes.
    match root.text(LOADER_INFO) {
        Some(info) => info.replace('\0', "").contains("systemd-boot"),
        None => {
            let has = |path: &str| root.path(path).exists();
            let configured = ENTRIES
                .iter()
                .any(|folder| has(&folder.replace("entries", "loader.conf")));
            configured && !has("etc/default/grub")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::FakeHost;

    const OPTION: &str = "intel_iommu=on";

    fn host(files: &[(&str, &str)]) -> FakeHost {
        let host = FakeHost::new();
        host.file("proc/cmdline", "quiet\n");
        for (path, content) in files {
            host.file(path, content);
        }
        host
    }

    fn told(files: &[(&str, &str)]) -> String {
        with_option(&host(files).root(), OPTION).expect("it is not there yet")
    }

    /// As systemd-boot writes it.
    fn loader(name: &str) -> String {
        let text = name.chars().flat_map(|letter| [letter, '\0']);
        ['\u{6}', '\0', '\0', '\0'].into_iter().chain(text).collect()
    }

    #[test]
    fn grub_is_written_by_its_distribution() {
        assert!(told(&[]).contains("run update-grub"));
        assert!(told(&[("etc/os-release", "ID=arch\n")]).contains("grub-mkconfig"));
        assert!(told(&[(LOADER_INFO, &loader("GRUB 2.12"))]).contains("run update-grub"));
    }

    #[test]
    fn proxmox_has_a_tool_of_its_own() {
        let uuids = ("etc/kernel/proxmox-boot-uuids", "ABCD-1234\n");
        let text = told(&[uuids, (LOADER_INFO, &loader("systemd-boot 252.6-1"))]);
        let expected = "add intel_iommu=on to the line in /etc/kernel/cmdline, run proxmox-boot-tool refresh, and reboot";
        assert_eq!(text, expected);
        let text = told(&[uuids]);
        assert!(
            text.contains("/etc/default/grub, run proxmox-boot-tool refresh"),
            "{text}"
        );
    }

    #[test]
    fn systemd_boot_has_entries_or_a_line() {
        let loader = loader("systemd-boot 257");
        let text = told(&[(LOADER_INFO, &loader), ("efi/loader/entries/arch.conf", "")]);
        assert!(
            text.contains("the line options of the entry in /efi/loader/entries"),
            "{text}"
        );
        let text = told(&[(LOADER_INFO, &loader), (KERNEL_CMDLINE, "quiet\n")]);
        assert!(
            text.contains("to the line in /etc/kernel/cmdline, run kernel-install"),
            "{text}"
        );
        let text = told(&[("boot/loader/loader.conf", "")]);
        assert!(text.contains("/boot/loader/entries"), "{text}");
        let text = told(&[("boot/loader/loader.conf", ""), ("etc/default/grub", "")]);
        assert!(text.contains("run update-grub"), "{text}");
    }

    #[test]
    fn images_and_declared_systems_have_their_commands() {
        assert!(
            told(&[("run/ostree-booted", ""), ("etc/os-release", "ID=fedora\n")])
                .contains("rpm-ostree kargs")
        );
        assert!(told(&[("etc/os-release", "ID=nixos\n")]).contains("boot.kernelParams"));
        assert!(told(&[("etc/kernelstub/configuration", "{}")]).contains("kernelstub -a"));
    }

    #[test]
    fn what_is_there_is_not_told_again() {
        for line in ["quiet intel_iommu=on", "intel_iommu=sm_on,on"] {
            assert_eq!(
                with_option(&host(&[("proc/cmdline", line)]).root(), OPTION),
                None,
                "{line}"
            );
        }
        assert!(with_option(&host(&[("proc/cmdline", "intel_iommu=only")]).root(), OPTION).is_some());
    }
}

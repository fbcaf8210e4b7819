//! The command line of QEMU: the machine that everything with a passed device happens in.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::card;
use super::devices;
use super::housing;
use super::kind::Kind;
use super::share::Share;
use crate::agent::protocol::PORT;
use crate::supplies::Supplies;
use crate::supplies::command;
use crate::supplies::guests::QEMU;

/// The monitor's socket in the shared folder.
pub(crate) const MONITOR_SOCKET: &str = "monitor.socket";

/// The socket of the agent's port in the shared folder.
pub(super) const AGENT_SOCKET: &str = "agent.socket";

/// What the lab machine's serial console is for.
pub(crate) enum Console {
    /// A log of kernel messages, and one of what the emulator itself says; the harness speaks to the agent.
    Log { kernel: PathBuf, emulator: PathBuf },
    /// The terminal of the person who asked for a shell.
    Terminal,
}

/// The command that starts it.
pub(super) fn command(supplies: &Supplies, share: &Share, kind: Kind, console: &Console) -> Result<Command> {
    let socket = share.path(AGENT_SOCKET);
    let [(_, disk), (_, stick), (_, rom)] = files(share);
    for (path, len) in [(disk, 512 << 20), (stick, 16 << 20)] {
        File::create(path)
            .and_then(|file| file.set_len(len))
            .context("Cannot create the disks of the lab machine")?;
    }
    let lodgers = housing::lodgers(kind);
    for lodger in &lodgers {
        lodger.make_file(&share.path(""))?;
    }
    fs::write(rom, card::rom()).context("Cannot write the ROM of the lab machine's card")?;
    let kernel = supplies.host_kernel()?;
    let has_x2apic = supplies.emulator.has_x2apic;
    let mut command = command::tied(&supplies.root.command(QEMU));
    let iommu = kind.kernel_options();
    // On a busy build machine the emulated timer can be too late for the kernel's check of its wire,
    // which then panics.
    let mut append = format!("console=ttyS0 panic=-1 quiet no_timer_check msr.allow_writes=on {iommu}");
    match console {
        Console::Log { kernel, emulator } => {
            command.args(["-serial", &format!("file:{}", kernel.display())]);
            let log =
                File::create(emulator).with_context(|| format!("Cannot create {}", emulator.display()))?;
            command.stdin(Stdio::null()).stderr(log);
        }
        Console::Terminal => {
            command.args([
                "-chardev",
                "stdio,id=terminal,signal=off",
                "-serial",
                "chardev:terminal",
            ]);
            append += " lab.shell";
        }
    }
    command.args(fixed_arguments(kind, has_x2apic, supplies.memory_mib));
    let monitor = share.path(MONITOR_SOCKET);
    command.args([
        "-chardev",
        &format!("socket,id=monitor,server=on,wait=off,path={}", escaped(&monitor)),
    ]);
    command.args(["-mon", "chardev=monitor,mode=readline"]);
    command.args(virtio_arguments(supplies, share, &socket));
    if lodgers.is_empty() {
        command.args(device_arguments(kind, &files(share)));
    }
    command.args(
        lodgers
            .iter()
            .flat_map(|lodger| lodger.arguments(&share.path(""))),
    );
    command.arg("-kernel").arg(&kernel.bzimage);
    command.arg("-initrd").arg(share.path("host.cpio"));
    command.args(["-append", &append]);
    Ok(command)
}

fn fixed_arguments(kind: Kind, has_x2apic: bool, memory_mib: u64) -> Vec<String> {
    let memory = memory_mib.to_string();
    let iommu = kind.iommu_device(has_x2apic);
    let words = [
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-accel",
        "tcg,thread=multi,tb-size=1024",
        "-machine",
        "q35,kernel-irqchip=off",
        "-cpu",
        kind.cpu(),
        "-smp",
        "2",
        "-m",
        &memory,
    ];
    let iommu = iommu
        .into_iter()
        .flat_map(|device| ["-device".to_owned(), device]);
    words.map(str::to_owned).into_iter().chain(iommu).collect()
}

/// A path as the value of one of QEMU's options, which end at a comma that is not doubled.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The shared folders and the agent's port.
fn virtio_arguments(supplies: &Supplies, share: &Share, socket: &Path) -> Vec<String> {
    let folder = |path: &Path, tag: &str| {
        format!(
            "local,path={},mount_tag={tag},readonly=on,security_model=none,multidevs=remap",
            escaped(path)
        )
    };
    vec![
        "-virtfs".to_owned(),
        folder(supplies.root.folder(), "root"),
        "-virtfs".to_owned(),
        folder(&share.path(""), "lab"),
        "-chardev".to_owned(),
        format!("socket,id=agent,server=on,wait=off,path={}", escaped(socket)),
        "-device".to_owned(),
        "virtio-serial-pci".to_owned(),
        "-device".to_owned(),
        format!("virtserialport,chardev=agent,name={PORT}"),
    ]
}

/// The files that stand behind some options of devices.
fn files(share: &Share) -> [(&'static str, PathBuf); 3] {
    [
        ("{disk}", "nvme.img"),
        ("{stick}", "stick.img"),
        ("{rom}", "card.rom"),
    ]
    .map(|(name, file)| (name, share.path(file)))
}

/// The options of all devices that the machine has from its start.
fn device_arguments(kind: Kind, files: &[(&str, PathBuf)]) -> Vec<String> {
    let options = devices::ALL
        .iter()
        .flat_map(|device| device.options.iter().map(move |option| (device, option)));
    let words = options
        .filter(|(device, option)| !kind.plugs(device, option))
        .flat_map(|(_, option)| {
            let (name, value) = option.split_once(' ').unwrap_or((option, ""));
            [format!("-{name}"), with_files(value, files)]
        });
    words.collect()
}

/// What the monitor is told, once the lab host runs, to plug in the others.
pub(super) fn plugged(kind: Kind, share: &Share) -> Vec<String> {
    let files = files(share);
    let options = devices::ALL
        .iter()
        .flat_map(|device| device.options.iter().map(move |option| (device, option)));
    let plugged = options.filter(|(device, option)| kind.plugs(device, option));
    plugged
        .map(|(_, option)| with_files(&option.replacen("device ", "device_add ", 1), &files))
        .collect()
}

fn with_files(option: &str, files: &[(&str, PathBuf)]) -> String {
    let put = |option: String, (name, path): &(&str, PathBuf)| option.replace(name, &escaped(path));
    files.iter().fold(option.to_owned(), put)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_devices_have_their_files() {
        let words = device_arguments(Kind::Whole, &[("{disk}", PathBuf::from("/a b/disk"))]);
        assert!(words.contains(&"if=none,id=disk,format=raw,file=/a b/disk".to_owned()));
        assert!(words.contains(&"edu,addr=0x10,dma_mask=0xffffffffffffffff".to_owned()));
    }

    #[test]
    fn a_path_with_a_comma_stays_one_path() {
        assert_eq!(escaped(Path::new("/tmp/a, b/disk")), "/tmp/a,, b/disk");
    }
}

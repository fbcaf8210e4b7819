//! The outer QEMU: the machine that everything else happens in.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::card;
use super::devices::{self, Device};
use super::share::Share;
use super::zoo;
use crate::agent::protocol::PORT;
use crate::supplies::Supplies;
use crate::supplies::command;
use crate::supplies::guests::QEMU;

/// The monitor's socket in the shared folder.
pub(crate) const MONITOR_SOCKET: &str = "monitor.socket";

/// A running lab machine, killed when this value is dropped.
pub(crate) struct Machine {
    qemu: Child,
    socket: PathBuf,
}

/// What the lab machine's serial console is for.
pub(crate) enum Console {
    /// A log of kernel messages, and one of what QEMU itself says; the harness speaks to the agent.
    Log { kernel: PathBuf, qemu: PathBuf },
    /// The terminal of the person who asked for a shell.
    Terminal,
}

/// What kind of machine the lab is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// With all that passthrough needs.
    Whole,
    /// As a user finds a machine whose IOMMU is off.
    WithoutIommu,
    /// With an IOMMU that has fewer address bits than the CPU, as desktop processors have.
    Narrow,
    /// With an IOMMU that does not remap interrupts.
    WithoutRemapping,
    /// With CPUs whose XSAVE is off.
    WithoutXsave,
    /// Whose own drivers never had the devices: they are as the machine's reset left them.
    Undriven,
    /// With an AMD IOMMU.
    AmdIommu,
    /// With one of each device that QEMU has, never driven.
    Zoo,
}

/// A machine that a person may want everything tested on, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lane {
    /// A host with an AMD IOMMU.
    AmdIommu,
    /// One of each device that QEMU has.
    Zoo,
}

impl Kind {
    /// All kinds, the usual one first.
    pub(crate) const ALL: [Self; 8] = [
        Self::Whole,
        Self::WithoutIommu,
        Self::Narrow,
        Self::WithoutRemapping,
        Self::WithoutXsave,
        Self::Undriven,
        Self::AmdIommu,
        Self::Zoo,
    ];

    /// The lane that this machine is.
    pub(crate) fn lane(self) -> Option<Lane> {
        match self {
            Self::AmdIommu => Some(Lane::AmdIommu),
            Self::Zoo => Some(Lane::Zoo),
            _ => None,
        }
    }

    fn devices(self) -> &'static [&'static Device] {
        match self {
            Self::Zoo => &zoo::ALL,
            _ => &devices::ALL,
        }
    }

    /// Interrupts of the lab host are remapped to x2APIC where there is one: the agent can then see which are in
    /// service.
    fn iommu_device(self, has_x2apic: bool) -> String {
        let extended = if has_x2apic { ",eim=on" } else { "" };
        let remapping = match self {
            Self::AmdIommu => return "amd-iommu,pt=off,intremap=off".to_owned(),
            Self::Whole | Self::WithoutIommu | Self::WithoutXsave | Self::Undriven | Self::Zoo => {
                format!("intremap=on{extended}")
            }
            Self::Narrow => format!("intremap=on{extended},aw-bits=39"),
            Self::WithoutRemapping => "intremap=off".to_owned(),
        };
        format!("intel-iommu,{remapping},caching-mode=on")
    }

    fn kernel_options(self) -> &'static str {
        match self {
            Self::WithoutIommu => "intel_iommu=off",
            Self::WithoutXsave => "intel_iommu=on iommu=pt noxsave",
            Self::Whole | Self::Narrow | Self::WithoutRemapping => "intel_iommu=on iommu=pt",
            Self::Undriven | Self::Zoo => "intel_iommu=on iommu=pt lab.undriven",
            Self::AmdIommu => "iommu=pt",
        }
    }
}

impl Machine {
    /// Starts the machine.
    pub(crate) fn start(supplies: &Supplies, share: &Share, kind: Kind, console: &Console) -> Result<Self> {
        let socket = share.path("agent.socket");
        let disk = share.path("nvme.img");
        let stick = share.path("stick.img");
        for (path, len) in [(&disk, 512 << 20), (&stick, 16 << 20)] {
            File::create(path)
                .and_then(|file| file.set_len(len))
                .context("Cannot create the disks of the lab machine")?;
        }
        let rom = share.path("card.rom");
        fs::write(&rom, card::rom()).context("Cannot write the ROM of the lab machine's card")?;
        let kernel = supplies.host_kernel()?;
        let has_x2apic = supplies.emulator.has_x2apic;
        let mut command = command::tied(&supplies.root.command(QEMU));
        let iommu = kind.kernel_options();
        // On a busy build machine the emulated timer can be too late for the kernel's check of its wire,
        // which then panics.
        let mut append = format!("console=ttyS0 panic=-1 quiet no_timer_check msr.allow_writes=on {iommu}");
        match console {
            Console::Log { kernel, qemu } => {
                command.args(["-serial", &format!("file:{}", kernel.display())]);
                let log = File::create(qemu).with_context(|| format!("Cannot create {}", qemu.display()))?;
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
        let files = [("{disk}", &*disk), ("{stick}", &stick), ("{rom}", &rom)];
        command.args(device_arguments(kind.devices(), &files));
        command.arg("-kernel").arg(&kernel.bzimage);
        command.arg("-initrd").arg(share.path("host.cpio"));
        command.args(["-append", &append]);
        let qemu = command.spawn().context("Cannot start the lab machine")?;
        Ok(Self { qemu, socket })
    }

    /// Connects to the agent's port as soon as QEMU has opened it.
    pub(crate) fn connect(&mut self) -> Result<UnixStream> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(socket) => return Ok(socket),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context("The lab machine opened no port for its agent");
                }
                Err(_) => sleep(Duration::from_millis(50)),
            }
            if let Some(status) = self.qemu.try_wait().context("Cannot wait for QEMU")? {
                bail!("The lab machine's QEMU ended at once ({status})");
            }
        }
    }

    /// CPU time that the machine has used, all its CPUs and devices together: what a measurement needs where
    /// the build machine has other work too.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.qemu.id());
        let stat = fs::read_to_string(&path).with_context(|| format!("Cannot read {path}"))?;
        parse_cpu_time(&stat).with_context(|| format!("{path} is not as proc(5) says"))
    }

    /// Waits until the machine is powered off from inside.
    pub(crate) fn wait(mut self) -> Result<ExitStatus> {
        self.qemu.wait().context("Cannot wait for QEMU")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// The fields behind the program's name, which may hold spaces: user and system time are 14 and 15 of all,
/// in hundredths of a second.
fn parse_cpu_time(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(") ")?.1.split_whitespace().skip(11);
    let ticks = |field: Option<&str>| field?.parse::<u64>().ok();
    let (user, system) = (ticks(fields.next())?, ticks(fields.next())?);
    Some(Duration::from_millis(10 * (user + system)))
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
        "max",
        "-smp",
        "2",
        "-m",
        &memory,
        "-device",
        &iommu,
    ];
    words.map(str::to_owned).to_vec()
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

/// The options of devices, with the files that stand behind some of them.
fn device_arguments(devices: &[&Device], files: &[(&str, &Path)]) -> Vec<String> {
    let options = devices.iter().flat_map(|device| device.options);
    let words = options.flat_map(|option| {
        let (name, value) = option.split_once(' ').unwrap_or((option, ""));
        let put = |value: String, (name, path): &(&str, &Path)| value.replace(name, &escaped(path));
        [format!("-{name}"), files.iter().fold(value.to_owned(), put)]
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_devices_have_their_files() {
        let words = device_arguments(&devices::ALL, &[("{disk}", Path::new("/a b/disk"))]);
        assert!(words.contains(&"if=none,id=disk,format=raw,file=/a b/disk".to_owned()));
        assert!(words.contains(&"edu,addr=0x10,dma_mask=0xffffffffffffffff".to_owned()));
    }

    #[test]
    fn a_path_with_a_comma_stays_one_path() {
        assert_eq!(escaped(Path::new("/tmp/a, b/disk")), "/tmp/a,, b/disk");
    }

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b) R 1 7 7 0 -1 0 0 0 0 0 120 30 0 0 20 0 4 0";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_millis(1500)));
    }
}

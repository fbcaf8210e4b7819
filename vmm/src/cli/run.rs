//! `strait run`: the arguments that describe a machine.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use strait_vfio::host::Root;

use super::ctl::CtlArgs;
use crate::config::{
    Config, CpuConfig, DEVICE_KEYS, DeviceConfig, GdbConfig, HotplugConfig, MAX_CPUS, MAX_DEVICES,
    MachineKind, MemoryConfig, OnDeviceError, ViommuConfig,
};
use crate::gdb::GdbAddress;
use crate::guests::GuestName;

/// Boot a kernel in a virtual machine, with PCI devices of this host passed through.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP, override_usage = "strait run --kernel <FILE> [OPTIONS]")]
pub struct RunArgs {
    /// The kernel: a bzImage (/boot/vmlinuz-*) or an ELF vmlinux with a PVH note.
    #[arg(long, short, value_name = "FILE")]
    // Not required of clap, since `--device help` needs none.
    kernel: Option<PathBuf>,
    /// The initial RAM file system.
    #[arg(long, visible_alias = "initramfs", value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// The kernel's command line.
    #[arg(
        long,
        visible_alias = "append",
        value_name = "STR",
        default_value = "console=ttyS0"
    )]
    cmdline: String,
    /// The guest's memory: a number with M or G (MiB without), from 64M on; with hugepages=2M|1G|auto of the host's pools of
    /// large pages, shared=on in a file, prealloc=on taken before the start, host-nodes=N of these nodes.
    #[arg(long, short, value_name = "SIZE", default_value = "512M")]
    memory: MemoryConfig,
    /// The machine the guest finds: usual; or lean, in which Linux starts with fewer exits, without a clock and with PCI
    /// configured by ECAM alone, which other kernels may not find.
    #[arg(long, value_name = "KIND", value_enum, default_value_t = MachineKind::Usual)]
    machine: MachineKind,
    /// Virtual CPUs, 1 to 64.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CPUS)))]
    cpus: u32,
    /// The CPU the guest sees: host, all that KVM supports; host,nested=off hides SVM and VMX, so that
    /// the guest cannot be a hypervisor itself, and nested=on insists on them.
    #[arg(long, value_name = "MODEL", default_value = "host")]
    // Read by `config`, for clap would not name the value in our words.
    cpu: String,
    /// A PCI device to pass, may be given again: 0000:01:00.0, 01:00.0, pci_0000_01_00_0, a path in /sys,
    /// 8086:10c9, enp3s0, nvme0n1, or vfio-pci,host=01:00.0[,id=NAME][,managed=on]. `--device vfio-pci,help` lists the keys.
    #[arg(long, short, value_name = "DEVICE")]
    device: Vec<String>,
    /// Empty slots into which devices may be plugged while the guest runs, by `strait ctl` or --qmp: a number, with mem=SIZE and
    /// pref=SIZE for the room of each below and above 4 GiB (16M and 1G), or with auto for what any device of this host
    /// could want.
    #[arg(long, value_name = "N")]
    hotplug_slots: Option<String>,
    /// Give the guest an IOMMU, so that it can pass its devices on to guests of its own:
    /// intel[,caching-mode=on][,intremap=on][,aw-bits=39|48][,eim=on].
    #[arg(long, value_name = "KIND")]
    viommu: Option<String>,
    /// With --viommu: write what the guest asked of its IOMMU, and what it cost, to a file at the end. SIGUSR1 prints
    /// the same on standard error at any time.
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
    /// What follows when a passed device reports an uncorrectable error (Advanced Error Reporting).
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = OnDeviceError::Unplug)]
    on_device_error: OnDeviceError,
    /// Let the guest power off when SIGTERM, SIGINT or SIGHUP comes: press its power button, and end it after so many
    /// seconds, or with a second signal. 0: end it at once.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    stop_timeout: u32,
    /// End with code 32 when the guest resets, instead of starting it again.
    #[arg(long)]
    no_reboot: bool,
    /// Let gdb look into the guest: tcp:[HOST]:PORT, unix:PATH, or fd:NUMBER of an open connection. It may attach and
    /// detach at any time; the guest stands still while it looks. Whoever reaches the address has the guest.
    #[arg(long, value_name = "ADDRESS")]
    gdb: Option<String>,
    /// The same as --gdb tcp::1234, which only this host reaches.
    #[arg(short = 's', long, conflicts_with = "gdb")]
    gdb_local: bool,
    /// With -s or --gdb: do not start the guest before gdb lets it go.
    #[arg(short = 'S', long = "wait-for-gdb")]
    wait_for_gdb: bool,
    /// A name, by which `strait ctl NAME` finds the guest.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Let QEMU's tools control the guest by QMP, at a Unix socket that is made for this user alone: PATH, or LISTEN_FDS
    /// for the first socket that a service manager passed. Whoever reaches it has the guest.
    #[arg(long, value_name = "PATH")]
    qmp: Option<String>,
    /// Write a line of JSON whenever the guest is prepared, started, paused, resumed or stopped: to a file or a pipe with
    /// a name, or to the descriptor of this number.
    #[arg(long, value_name = "FD|FILE")]
    status: Option<String>,
}

const AFTER_HELP: &str = "\
The guest's serial console is this terminal: Ctrl-A X ends strait, Ctrl-A Ctrl-A sends Ctrl-A.

Exit codes: 0 the guest powered off or you ended it, 1 error, 2 wrong usage, 32 the guest reset under --no-reboot,
34 the guest panicked.

Example, with the NIC at 01:00.0 bound to vfio-pci:
  strait run --kernel /boot/vmlinuz --initrd initrd.img --memory 2G --cpus 2 --device 01:00.0";

impl RunArgs {
    /// True if the user only asks for the keys of `--device`.
    pub fn wants_device_help(&self) -> bool {
        self.device
            .iter()
            .any(|device| matches!(device.as_str(), "help" | "vfio-pci,help"))
    }

    /// The keys of `--device`, a line each.
    pub fn device_help() -> String {
        DEVICE_KEYS
            .iter()
            .map(|(key, meaning)| format!("{key:10} {meaning}\n"))
            .collect()
    }

    /// The machine these arguments describe, with devices as `root` names them.
    ///
    /// # Errors
    /// One sentence on the argument that is wrong.
    pub fn config(self, root: &Root) -> Result<Config, String> {
        let kernel = self
            .kernel
            .ok_or("--kernel FILE is missing; `strait run --help` explains")?;
        let mut devices: Vec<DeviceConfig> = Vec::new();
        for text in &self.device {
            let device =
                DeviceConfig::read(text, root).map_err(|error| format!("--device {text}: {error}"))?;
            if devices.iter().any(|other| other.host == device.host) {
                return Err(format!(
                    "--device {text}: {} is given twice; leave one out",
                    device.host
                ));
            }
            devices.push(device);
        }
        let hotplug = self.hotplug_slots.as_deref().map(hotplug).transpose()?;
        let slots = hotplug.map_or(0, |hotplug| usize::from(hotplug.slots));
        if devices.len() + slots > MAX_DEVICES {
            return Err(match slots {
                0 => format!(
                    "{} devices are given; at most {MAX_DEVICES} can be passed",
                    devices.len()
                ),
                _ => format!(
                    "--hotplug-slots {slots}: with {} devices there is room for {} slots; give fewer",
                    devices.len(),
                    MAX_DEVICES.saturating_sub(devices.len())
                ),
            });
        }
        let cpu: CpuConfig = self
            .cpu
            .parse()
            .map_err(|error| format!("--cpu {}: {error}", self.cpu))?;
        let viommu = self.viommu.as_deref().map(viommu).transpose()?;
        if self.stats.is_some() && viommu.is_none() {
            return Err(
                "--stats tells of the guest's IOMMU; give --viommu, too, or leave --stats out".to_owned(),
            );
        }
        // VT-d §6.1: with CAP.CM clear, hardware caches no entry that is not present, so drivers tell of none they add.
        if viommu.is_some_and(|viommu| !viommu.caching_mode) && (!devices.is_empty() || slots > 0) {
            return Err(
                "--viommu: a passed device needs caching-mode=on, for only then does the guest tell what it maps"
                    .to_owned(),
            );
        }
        let gdb = debugger(self.gdb.as_deref(), self.gdb_local, self.wait_for_gdb)?;
        let qmp = self.qmp.as_deref().map(str::parse).transpose();
        let qmp = qmp.map_err(|error: String| format!("--qmp {error}"))?;
        let name = self.name.as_deref().map(guest_name).transpose()?;
        let status = self.status.as_deref().map(str::parse).transpose();
        let status = status.map_err(|error: String| format!("--status {error}"))?;
        if hotplug.is_some() && qmp.is_none() && name.is_none() {
            return Err(
                "--hotplug-slots: nobody could plug a device in; give --name or --qmp, too, or leave it out"
                    .to_owned(),
            );
        }
        Ok(Config {
            kernel,
            initrd: self.initrd,
            cmdline: self.cmdline,
            memory: self.memory,
            machine: self.machine,
            cpus: self.cpus,
            cpu,
            devices,
            viommu,
            stats: self.stats,
            on_device_error: self.on_device_error,
            no_reboot: self.no_reboot,
            gdb,
            name,
            qmp,
            stop_timeout: (self.stop_timeout > 0).then(|| Duration::from_secs(self.stop_timeout.into())),
            hotplug,
            status,
        })
    }
}

/// What `--gdb`, `-s` and `-S` ask for together.
fn debugger(address: Option<&str>, is_usual: bool, waits: bool) -> Result<Option<GdbConfig>, String> {
    let given = address.map(|text| text.parse().map_err(|error| format!("--gdb {error}")));
    let address = given.transpose()?.or_else(|| is_usual.then(GdbAddress::usual));
    if waits && address.is_none() {
        return Err("-S waits for gdb, which is let in nowhere; give -s or --gdb ADDRESS, too".to_owned());
    }
    Ok(address.map(|address| GdbConfig { address, waits }))
}

fn hotplug(text: &str) -> Result<HotplugConfig, String> {
    text.parse()
        .map_err(|error| format!("--hotplug-slots {text}: {error}"))
}

/// A name that `strait ctl` takes for one.
fn guest_name(text: &str) -> Result<GuestName, String> {
    match CtlArgs::is_command(text) {
        true => Err(format!(
            "--name {text}: `strait ctl {text}` is a command; give another name"
        )),
        false => text.parse().map_err(|error| format!("--name {error}")),
    }
}

fn viommu(text: &str) -> Result<ViommuConfig, String> {
    text.parse().map_err(|error| format!("--viommu {text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse_from};

    /// What `strait run` says to these options, on a host without devices.
    fn refusal(options: &str) -> String {
        let line = format!("strait run --kernel vmlinuz {options}");
        let Command::Run(args) = parse_from(line.split(' ')).expect("known options").command else {
            panic!("another command");
        };
        let refused = args.config(&Root::at("/nonexistent"));
        refused.expect_err("it cannot be")
    }

    #[test]
    fn numbers_of_an_iommu_that_the_guest_does_not_have_are_refused() {
        assert_eq!(
            refusal("--stats numbers"),
            "--stats tells of the guest's IOMMU; give --viommu, too, or leave --stats out"
        );
    }

    #[test]
    fn a_guest_does_not_wait_for_a_debugger_that_cannot_come() {
        assert!(refusal("-S").ends_with("give -s or --gdb ADDRESS, too"));
        assert!(refusal("--gdb 1234").starts_with("--gdb \"1234\" is none of tcp:[HOST]:PORT"));
    }

    #[test]
    fn what_is_wrong_in_a_value_is_told_with_its_option() {
        assert_eq!(
            refusal("--viommu intel,eim=on,eim=on"),
            "--viommu intel,eim=on,eim=on: the key \"eim\" is given twice"
        );
        assert!(refusal("--cpu pentium").starts_with("--cpu pentium: \"pentium\" is not a CPU model"));
        assert!(refusal("--device 01:00.0 -d 1:00.0").contains("0000:01:00.0 is given twice"));
        assert!(
            refusal("--hotplug-slots 2,mem=3M")
                .starts_with("--hotplug-slots 2,mem=3M: mem=\"3M\" is not a size")
        );
        assert!(refusal("--hotplug-slots 31 -d 1:00.0 --qmp q").contains("there is room for 30 slots"));
        assert!(refusal("--hotplug-slots 1").contains("give --name or --qmp, too"));
        let refused = refusal("--device 01:00.0 --viommu intel,caching-mode=off");
        assert!(refused.starts_with("--viommu: a passed device needs caching-mode=on"));
    }
}

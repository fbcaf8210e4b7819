//! A host made of files, and a kernel that does to them what Linux does to sysfs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::HostBdf;
use super::kernel::{Kernel, pending};
use super::modules::Modules;
use super::sysfs::{Root, names_in, read_text};
use super::vf_link::VfLink;

const DEVICES: &str = "sys/bus/pci/devices";
const DRIVERS: &str = "sys/bus/pci/drivers";

/// Modules that can be loaded, and the PCI driver that each has, if any.
const MODULES: [(&str, Option<&str>); 8] = [
    ("vfio-pci", Some("vfio-pci")),
    ("igb", Some("igb")),
    ("nvme", Some("nvme")),
    ("uio_pci_generic", Some("uio_pci_generic")),
    ("hollow", None),
    ("xhci_hcd", None),
    ("xhci_pci", Some("xhci_hcd")),
    ("i2c_i801", Some("i801_smbus")),
];

/// A host in the making.
pub struct FakeHost {
    folder: TempDir,
    faults: RefCell<Vec<Fault>>,
    /// Disks that do not open, and the errno.
    claims: RefCell<BTreeMap<String, i32>>,
    /// Every disk that was asked for.
    asked: RefCell<Vec<String>>,
    /// Writes that the kernel still works on.
    pending: RefCell<Vec<(PathBuf, String)>>,
}

/// Something that goes wrong at the `nth` write (from 0) to a file whose path ends in `file`.
pub struct Fault {
    /// End of the path.
    pub file: &'static str,
    /// How many such writes go well before.
    pub nth: u32,
    /// What happens instead of the write.
    pub does: Does,
}

/// How a write goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Does {
    /// The write fails with this errno.
    Fails(i32),
    /// The kernel does not come back, until [`FakeHost::finish_writes`].
    Hangs,
    /// The same, and the link to the driver is gone already (`__device_release_driver`).
    HangsHalfway(&'static str),
    /// The kernel needs so many seconds.
    Takes(u64),
    /// The write succeeds and nothing happens.
    Nothing,
    /// The device is pulled out.
    Unplugs(&'static str),
    /// Another program writes this into the file first.
    ComesSecond(&'static str),
    /// Another program binds the device to this driver first.
    Steals(&'static str, &'static str),
}

/// A function to add to a [`FakeHost`].
#[derive(Clone, Copy, Debug)]
pub struct FakeFunction {
    /// Path from the root bus, as in `0000:00:01.0/0000:01:00.0`.
    pub path: &'static str,
    /// Class, subclass and programming interface.
    pub class: u32,
    /// Vendor id and device id.
    pub ids: (u16, u16),
    /// Number of its IOMMU group.
    pub group: Option<u32>,
    /// The driver that has it, and that the kernel chooses for it.
    pub driver: Option<&'static str>,
}

impl Default for FakeHost {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeHost {
    /// Linux with VFIO as modules on an Intel machine, without any device.
    pub fn new() -> Self {
        // In memory if possible: the journal waits for its disk.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let host = Self {
            folder: folder.expect("a temporary folder"),
            faults: RefCell::default(),
            claims: RefCell::default(),
            asked: RefCell::default(),
            pending: RefCell::default(),
        };
        host.file("proc/sys/kernel/osrelease", "6.12.0\n");
        host.file("proc/cmdline", "quiet intel_iommu=on\n");
        host.file(
            "proc/cpuinfo",
            "flags\t\t: fpu vmx\naddress sizes\t: 46 bits physical, 48 bits virtual\n",
        );
        host.file(
            "proc/interrupts",
            " 24:  0  IR-PCI-MSI-0000:01:00.0  0-edge  eth0\n",
        );
        host.file("proc/self/status", "Name:\tstrait\nCapEff:\t000001ffffffffff\n");
        host.sees_namespace("4026531836");
        host.file("proc/1/comm", "systemd\n");
        host.file("etc/os-release", "ID=debian\n");
        host.file("dev/kvm", "");
        host.file("sys/firmware/acpi/tables/DMAR", "");
        host.file("sys/class/iommu/dmar0/intel-iommu/cap", "d2008c40660462\n");
        host.file("sys/module/kvm_intel/parameters/nested", "Y\n");
        host.file(
            "sys/kernel/mm/transparent_hugepage/enabled",
            "always [madvise] never\n",
        );
        host.file("sys/bus/pci/drivers_probe", "");
        host.file(&format!("{DEVICES}/.keep"), "");
        host.file(&format!("{DRIVERS}/.keep"), "");
        host.file(
            "lib/modules/6.12.0/modules.dep",
            "kernel/vfio.ko:\nkernel/vfio_iommu_type1.ko:\nkernel/vfio-pci.ko:\n",
        );
        host
    }

    /// Where its files are.
    pub fn root(&self) -> Root {
        Root::at(self.folder.path())
    }

    /// A path of the host on this machine.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Writes a file and the folders it is in.
    pub fn file(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a folder");
        // Only what has numbers has a file (`dev_uevent`, drivers/base/core.c).
        if path.ends_with("uevent") && content.contains("DEVNAME=") {
            fs::write(path.with_file_name("dev"), "0:0\n").expect("a file");
        }
        fs::write(path, content).expect("a file");
    }

    /// Makes a link; `target` is a path of the host.
    pub fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a link in a folder")).expect("a folder");
        symlink(self.path(target), path).expect("a link");
    }

    /// Adds a function, its group and its driver.
    pub fn add(&self, function: FakeFunction) -> &Self {
        let FakeFunction {
            path,
            class,
            ids,
            group,
            driver,
        } = function;
        let bdf = path.rsplit('/').next().unwrap_or(path);
        let folder = format!("sys/devices/pci0000:00/{path}");
        let (vendor, device) = ids;
        self.file(&format!("{folder}/class"), &format!("{class:#08x}\n"));
        self.file(&format!("{folder}/vendor"), &format!("{vendor:#06x}\n"));
        self.file(&format!("{folder}/device"), &format!("{device:#06x}\n"));
        self.file(
            &format!("{folder}/modalias"),
            &format!(
                "pci:v{vendor:08X}d{device:08X}sv00000000sd00000000bc{:02x}\n",
                class >> 16
            ),
        );
        self.file(&format!("{folder}/driver_override"), "(null)\n");
        self.file(&format!("{folder}/reset_method"), "flr bus\n");
        self.file(&format!("{folder}/numa_node"), "-1\n");
        self.file(
            &format!("{folder}/resource"),
            "0xfe000000 0xfe01ffff 0x0000000000040200\n",
        );
        self.file(&format!("{folder}/uevent"), "PCI_SLOT_NAME=x\n");
        // What the kernel would choose, for the kernel here.
        self.file(&format!("{folder}/.natural"), driver.unwrap_or_default());
        self.link(&format!("{DEVICES}/{bdf}"), &folder);
        if let Some(group) = group {
            self.link(
                &format!("{folder}/iommu_group"),
                &format!("sys/kernel/iommu_groups/{group}"),
            );
            self.link(&format!("sys/kernel/iommu_groups/{group}/devices/{bdf}"), &folder);
            self.file(
                &format!("sys/kernel/iommu_groups/{group}/reserved_regions"),
                "0xfee00000 0xfeefffff msi\n",
            );
        }
        if let Some(driver) = driver {
            self.add_driver(driver);
            self.attach(bdf, driver);
        }
        self
    }

    /// Adds network interface `name` to the function at `path`.
    pub fn add_interface(&self, path: &str, name: &str) -> &Self {
        let folder = format!("sys/devices/pci0000:00/{path}/net/{name}");
        self.file(&format!("{folder}/flags"), "0x1002\n");
        self.file(&format!("{folder}/address"), "52:54:00:11:22:33\n");
        self.link(&format!("sys/class/net/{name}"), &folder);
        self
    }

    /// Adds disk `name` with a partition to the function at `path`.
    pub fn add_disk(&self, path: &str, name: &str, number: &str) -> &Self {
        let folder = format!("sys/devices/pci0000:00/{path}/nvme/nvme0/{name}");
        let partition = format!("{folder}/{name}p1");
        self.file(&format!("{folder}/uevent"), &format!("DEVNAME={name}\n"));
        self.file(&format!("{partition}/partition"), "1\n");
        self.link(&format!("sys/class/block/{name}"), &folder);
        self.link(&format!("sys/class/block/{name}p1"), &partition);
        self.link(&format!("sys/dev/block/{number}"), &partition);
        self
    }

    /// Adds SR-IOV with up to `max` virtual functions to the function at `path`.
    pub fn add_sriov(&self, path: &str, max: u32) -> &Self {
        let folder = format!("sys/devices/pci0000:00/{path}");
        self.file(&format!("{folder}/sriov_totalvfs"), &format!("{max}\n"));
        self.file(&format!("{folder}/sriov_numvfs"), "0\n");
        self.file(&format!("{folder}/sriov_drivers_autoprobe"), "1\n");
        self
    }

    /// Process `pid` has `file` open.
    pub fn add_process(&self, pid: u32, name: &str, file: &str) -> &Self {
        self.file(&format!("proc/{pid}/comm"), &format!("{name}\n"));
        fs::create_dir_all(self.path(format!("proc/{pid}/fd"))).expect("a folder");
        let fd = self.path(format!("proc/{pid}/fd"));
        let number = names_in(&fd).len() + 3;
        symlink(
            self.path(file.trim_start_matches('/')),
            fd.join(number.to_string()),
        )
        .expect("a link");
        self
    }

    /// Processes are seen from the namespace with this number, 4026531836 for the one of all.
    pub fn sees_namespace(&self, number: &str) {
        let folder = self.path("proc/self/ns");
        fs::create_dir_all(&folder).expect("a folder");
        let _ = fs::remove_file(folder.join("pid"));
        symlink(format!("pid:[{number}]"), folder.join("pid")).expect("a link");
    }

    /// Whoever asks for the whole of `disk` gets `number` for an answer.
    pub fn claimed(&self, disk: &str, number: i32) {
        self.claims.borrow_mut().insert(disk.to_owned(), number);
    }

    /// The disks that were asked for since this was last called.
    pub fn take_asked(&self) -> Vec<String> {
        self.asked.take()
    }

    /// Has something go wrong.
    pub fn fault(&self, file: &'static str, nth: u32, does: Does) {
        self.faults.borrow_mut().push(Fault { file, nth, does });
    }

    /// The driver of `bdf` and its override, `-` for none.
    pub fn binding(&self, bdf: &str) -> (String, String) {
        let folder = self.path(DEVICES).join(bdf);
        let driver = fs::read_link(folder.join("driver")).ok();
        let driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        let override_driver = read_text(&folder.join("driver_override")).unwrap_or_default();
        let text = if override_driver == "(null)" {
            "-".to_owned()
        } else {
            override_driver
        };
        (driver.unwrap_or_else(|| "-".to_owned()), text)
    }

    /// Every file and link with what it holds, but for locks.
    pub fn picture(&self) -> BTreeMap<PathBuf, String> {
        let mut picture = BTreeMap::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for name in names_in(&folder) {
                let path = folder.join(name);
                let kind = fs::symlink_metadata(&path).expect("it was listed").file_type();
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_symlink() {
                    let target = fs::read_link(&path).expect("a link");
                    picture.insert(path, target.display().to_string());
                } else if !path.ends_with("run/strait/lock") {
                    let text = fs::read(&path).expect("a file");
                    picture.insert(path, String::from_utf8_lossy(&text).into_owned());
                }
            }
        }
        picture
    }

    /// Registers a driver with the fake kernel.
    pub fn add_driver(&self, driver: &str) {
        for file in ["bind", "unbind", "new_id"] {
            self.file(&format!("{DRIVERS}/{driver}/{file}"), "");
        }
    }

    fn attach(&self, bdf: &str, driver: &str) {
        self.link(&format!("{DEVICES}/{bdf}/driver"), &format!("{DRIVERS}/{driver}"));
    }

    /// The driver that the kernel finds for `bdf`: the override, else the natural one.
    fn chosen(&self, bdf: &str) -> Option<String> {
        let (_, override_driver) = self.binding(bdf);
        let natural = read_text(&self.path(format!("{DEVICES}/{bdf}/.natural"))).unwrap_or_default();
        let chosen = if override_driver == "-" {
            natural
        } else {
            override_driver
        };
        let registered = !chosen.is_empty() && self.path(format!("{DRIVERS}/{chosen}")).exists();
        registered.then_some(chosen)
    }

    fn bind_if_free(&self, bdf: &str, driver: &str) -> io::Result<()> {
        if self.binding(bdf).0 != "-" {
            return Err(errno(libc::EBUSY));
        }
        self.attach(bdf, driver);
        Ok(())
    }

    fn unplug(&self, bdf: &str) {
        let link = self.path(DEVICES).join(bdf);
        if let Ok(folder) = fs::canonicalize(&link) {
            if let Ok(group) = fs::canonicalize(folder.join("iommu_group")) {
                fs::remove_file(group.join("devices").join(bdf)).expect("a member");
                if names_in(&group.join("devices")).is_empty() {
                    fs::remove_dir_all(group).expect("a group");
                }
            }
            fs::remove_dir_all(folder).expect("a folder");
            fs::remove_file(link).expect("a link");
        }
    }

    /// As the kernel does on a write to `path`.
    fn obey(&self, path: &Path, text: &str) -> io::Result<()> {
        let bdf = text.trim();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let folder = path.parent().expect("a file in a folder");
        match name {
            "driver_override" => {
                let text = if bdf.is_empty() { "(null)\n" } else { text };
                fs::write(path, text)
            }
            "unbind" => match self.binding(bdf).0.as_str() {
                "-" => Err(errno(libc::ENODEV)),
                _ => fs::remove_file(self.path(format!("{DEVICES}/{bdf}/driver"))),
            },
            "bind" => {
                let driver = folder
                    .file_name()
                    .expect("a driver")
                    .to_string_lossy()
                    .into_owned();
                match self.chosen(bdf) {
                    Some(chosen) if chosen == driver => self.bind_if_free(bdf, &driver),
                    _ => Err(errno(libc::ENODEV)),
                }
            }
            "drivers_probe" => match self.chosen(bdf) {
                Some(driver) if self.binding(bdf).0 == "-" => self.bind_if_free(bdf, &driver),
                _ => Ok(()),
            },
            "sriov_numvfs" => {
                self.set_virtual_functions(folder, bdf.parse().map_err(|_| errno(libc::EINVAL))?)
            }
            _ => fs::write(path, text),
        }
    }

    /// Virtual functions begin at device 0x10 of the same bus and take every second number, as those of an 82576.
    fn set_virtual_functions(&self, folder: &Path, count: u32) -> io::Result<()> {
        let number = |file: &str| read_text(&folder.join(file)).ok()?.parse::<u32>().ok();
        let (active, max) = (
            number("sriov_numvfs").unwrap_or(0),
            number("sriov_totalvfs").unwrap_or(0),
        );
        if count > max {
            return Err(errno(libc::ERANGE));
        }
        if active > 0 && count > 0 {
            return Err(errno(libc::EBUSY));
        }
        let physical = fs::canonicalize(folder)?;
        let bdf = physical
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let HostBdf { domain, bus, .. } = bdf.parse().expect("a function");
        for vf in 0..active.max(count) {
            let id = (u32::from(bus) << 8) + 0x80 + 2 * vf;
            let name = format!("{domain:04x}:{:02x}:{:02x}.{}", id >> 8, id >> 3 & 0x1f, id & 7);
            let link = folder.join(format!("virtfn{vf}"));
            if count == 0 {
                self.unplug(&name);
                fs::remove_file(link)?;
                continue;
            }
            let parent = physical.parent().expect("a bus");
            let root = self.path("sys/devices/pci0000:00");
            let root = fs::canonicalize(root)?;
            let path = parent.strip_prefix(root).map_or_else(
                |_| name.clone(),
                |parent| parent.join(&name).display().to_string(),
            );
            self.add(FakeFunction {
                path: Box::leak(path.into_boxed_str()),
                class: 0x02_0000,
                ids: (0x8086, 0x10ca),
                group: Some(100 + vf),
                driver: None,
            });
            symlink(&physical, self.path(format!("{DEVICES}/{name}/physfn")))?;
            symlink(self.path(format!("{DEVICES}/{name}")).canonicalize()?, link)?;
        }
        fs::write(folder.join("sriov_numvfs"), format!("{count}\n"))
    }

    /// What a write of `seconds` comes to, on a clock of its own.
    fn work(
        &self,
        seconds: u64,
        path: &Path,
        text: &str,
        go_on: &mut dyn FnMut(Duration) -> bool,
    ) -> io::Result<()> {
        for second in 1..seconds {
            if !go_on(Duration::from_secs(second)) {
                let write = (path.to_owned(), text.to_owned());
                self.pending.borrow_mut().push(write);
                return Err(pending(Duration::from_secs(second)));
            }
        }
        self.obey(path, text)
    }

    /// Whether a write to `path` concerns a device that the kernel still works on.
    fn is_locked(&self, path: &Path, text: &str) -> bool {
        let device = |path: &Path, text: &str| match text.trim().parse::<HostBdf>() {
            Ok(bdf) => Some(bdf.to_string()),
            Err(_) => Some(path.parent()?.file_name()?.to_string_lossy().into_owned()),
        };
        let pending = self.pending.borrow();
        let mut others = pending.iter().map(|(path, text)| device(path, text));
        others.any(|other| other == device(path, text))
    }

    /// Whether a read of `path` has to do with a device that the kernel still works on, as those of a USB controller are
    /// too while its driver lets go of it.
    fn is_read_late(&self, path: &Path) -> bool {
        let mut above = path.ancestors().skip(1);
        above.any(|folder| self.is_locked(&folder.join("uevent"), ""))
    }

    /// The kernel comes back from all writes that it still works on, the first one first.
    pub fn finish_writes(&self) {
        for (path, text) in self.pending.take() {
            // Nobody listens any more. What a driver that lets go halfway has left to do shows nowhere.
            let _ = self.obey(&path, &text);
        }
    }

    /// The fault that this write runs into, if any.
    fn next_fault(&self, path: &Path) -> Option<Does> {
        let mut faults = self.faults.borrow_mut();
        let text = path.to_string_lossy().into_owned();
        for fault in faults.iter_mut().filter(|fault| text.ends_with(fault.file)) {
            if fault.nth == 0 {
                fault.nth = u32::MAX;
                return Some(fault.does);
            }
            fault.nth = fault.nth.saturating_sub(u32::from(fault.nth != u32::MAX));
        }
        None
    }
}

impl Kernel for FakeHost {
    fn write_while(
        &self,
        path: &Path,
        text: &str,
        go_on: &mut dyn FnMut(Duration) -> bool,
    ) -> io::Result<()> {
        // The device's lock is held by the write before.
        if self.is_locked(path, text) {
            return self.work(u64::MAX, path, text, go_on);
        }
        let fault = self.next_fault(path);
        match fault {
            Some(Does::Fails(number)) => return Err(errno(number)),
            Some(Does::Hangs) => return self.work(u64::MAX, path, text, go_on),
            Some(Does::HangsHalfway(bdf)) => {
                fs::remove_file(self.path(format!("{DEVICES}/{bdf}/driver"))).expect("a driver");
                return self.work(u64::MAX, path, text, go_on);
            }
            Some(Does::Takes(seconds)) => return self.work(seconds, path, text, go_on),
            Some(Does::Nothing) => return Ok(()),
            Some(Does::Unplugs(bdf)) => {
                self.unplug(bdf);
                return Err(errno(libc::ENODEV));
            }
            Some(Does::ComesSecond(theirs)) => self.obey(path, theirs)?,
            Some(Does::Steals(bdf, driver)) => {
                self.add_driver(driver);
                let _ = fs::remove_file(self.path(format!("{DEVICES}/{bdf}/driver")));
                self.attach(bdf, driver);
                return Ok(());
            }
            None => {}
        }
        if !path.exists() {
            return Err(errno(libc::ENOENT));
        }
        self.obey(path, text)
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        match self.is_read_late(path) {
            true => Err(pending(Duration::from_secs(20))),
            false => read_text(path),
        }
    }

    fn load_module(&self, name: &str) -> io::Result<()> {
        if let Some(Does::Fails(_)) = self.next_fault(Path::new(name)) {
            return Err(io::Error::other(format!(
                "modprobe: FATAL: Module {name} not found."
            )));
        }
        let modules = match name.starts_with("pci:") {
            true => Modules::read(&self.root()).wanting(name),
            false => vec![name.to_owned()],
        };
        let known = MODULES
            .iter()
            .filter(|(known, _)| modules.iter().any(|module| module == known));
        let drivers: Vec<Option<&str>> = known.map(|(_, driver)| *driver).collect();
        drivers
            .iter()
            .flatten()
            .for_each(|driver| self.add_driver(driver));
        match drivers.is_empty() {
            true => Err(io::Error::other(format!(
                "modprobe: FATAL: Module {name} not found."
            ))),
            false => Ok(()),
        }
    }

    /// Kept as a file, `mac vlan`.
    fn set_vf_link(&self, interface: &str, index: u32, link: &VfLink) -> io::Result<()> {
        if let Some(Does::Fails(number)) = self.next_fault(Path::new("set_vf_link")) {
            return Err(errno(number));
        }
        self.file(
            &format!("links/{interface}-{index}"),
            &format!("{:x?} {:?}\n", link.mac, link.vlan),
        );
        Ok(())
    }

    fn claim(&self, path: &Path) -> io::Result<()> {
        let disk = path.file_name().unwrap_or_default().to_string_lossy();
        self.asked.borrow_mut().push(disk.clone().into_owned());
        match self.claims.borrow().get(&*disk) {
            Some(number) => Err(errno(*number)),
            None => Ok(()),
        }
    }

    /// Time passes at once.
    fn pause(&self, _: Duration) {}
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

//! The kernel of a host made of files: it does to them what Linux does to sysfs.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use super::fault::Does;
use super::tree::{DEVICES, DRIVERS, FakeFunction, FakeHost};
use crate::host::HostBdf;
use crate::host::kernel::{Kernel, pending};
use crate::host::modules::Modules;
use crate::host::sysfs::{names_in, read_text};
use crate::host::vf_link::VfLink;

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

impl FakeHost {
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

//! The wire of a function that nobody has any more.
//!
//! The host's kernel gives a function that is closed the command register that it had when it was opened
//! (`vfio_pci_core_disable`, drivers/vfio/pci/vfio_pci_core.c), and opening clears the interrupt disable bit
//! (`do_pci_enable_device`, drivers/pci/pci.c). A function that is not reset goes on with what its guest began, and may
//! raise its wire for good. On a line that it shares with another, the kernel then gives up the line, and with it the
//! other (`note_interrupt`, kernel/irq/spurious.c). So the bit is set behind the closing, where this process may do so.
//! A function that is suspended meanwhile gets back what was saved when it was (`pci_pm_runtime_resume`,
//! drivers/pci/pci-driver.c), as late as when its driver is unbound: it is kept awake while the bit is set.
//! It disturbs no later owner: each enables the function first, which clears the bit, and nobody can own it before its
//! group is given up (`iommu_group_claim_dma_owner`, drivers/iommu/iommu.c). Where the host unbinds the function, the kernel gives
//! the group up by itself: then nothing is written, and of the register only the byte with this bit ever is.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use strait_devices::pci::spec::{command, header, status};

use crate::host::{HostBdf, is_vfio_driver};

/// Silences the wire of a function when dropped: to be dropped after the function's file, and before its group.
pub(crate) struct Hush {
    bdf: HostBdf,
    /// The function's driver in sysfs.
    driver: PathBuf,
    /// Its configuration space in sysfs, of which the first 64 bytes are everybody's to read.
    config: PathBuf,
    /// Whether the kernel may suspend it, in sysfs.
    power: PathBuf,
}

/// The register's upper byte, in which the bit is.
const UPPER: u64 = header::COMMAND as u64 + 1;

impl Hush {
    /// For the function with this folder in sysfs.
    pub(crate) fn new(bdf: HostBdf, sysfs: &Path) -> Self {
        Self {
            bdf,
            driver: sysfs.join("driver"),
            config: sysfs.join("config"),
            power: sysfs.join("power/control"),
        }
    }

    /// Nobody else has it: its driver is the one through which we had it.
    fn is_ours(&self) -> bool {
        let driver = fs::read_link(&self.driver).unwrap_or_default();
        let name = driver.file_name().and_then(|name| name.to_str());
        name.is_some_and(is_vfio_driver)
    }
}

impl Drop for Hush {
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        // A function that was unplugged has nothing that could be read.
        let Ok(start) = Start::read(&self.config) else {
            return;
        };
        if !start.has_wire() {
            return;
        }
        let _awake = Awake::keep(&self.power);
        match start.silence(&self.config) {
            Err(error) if start.is_raised() => log::warn!(
                "{0} has no way to be reset and goes on raising its interrupt wire, which cannot be silenced: {error}; \
                 `echo on > /sys/bus/pci/devices/{0}/power/control` and then `setpci -s {0} COMMAND=400:400` as root \
                 do it",
                self.bdf
            ),
            Err(error) => log::debug!("{}: the interrupt wire stays on: {error}", self.bdf),
            Ok(()) => {}
        }
    }
}

/// Keeps a function awake until dropped, where the kernel would suspend it (Documentation/ABI/testing/sysfs-devices-power).
struct Awake<'a>(Option<&'a Path>);

impl<'a> Awake<'a> {
    /// Where this process may not, the function is as it was.
    fn keep(power: &'a Path) -> Self {
        let may_suspend = fs::read_to_string(power).is_ok_and(|text| text.trim() == "auto");
        Self((may_suspend && fs::write(power, "on").is_ok()).then_some(power))
    }
}

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        if let Some(power) = self.0 {
            let _ = fs::write(power, "auto");
        }
    }
}

/// The part of a header that every user may read.
struct Start([u8; 64]);

impl Start {
    fn read(config: &Path) -> io::Result<Self> {
        let mut bytes = [0; 64];
        File::open(config)?.read_exact_at(&mut bytes, 0)?;
        Ok(Self(bytes))
    }

    fn u16(&self, register: u16) -> u16 {
        let at = usize::from(register);
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    /// A function that does not answer reads as ones, and has no pin of that number.
    fn has_wire(&self) -> bool {
        (1..=4).contains(&self.0[usize::from(header::INTERRUPT_PIN)])
    }

    fn is_raised(&self) -> bool {
        self.u16(header::STATUS) & status::INTERRUPT != 0
    }

    fn silence(&self, config: &Path) -> io::Result<()> {
        let [_, upper] = (self.u16(header::COMMAND) | command::INTX_DISABLE).to_le_bytes();
        let file = OpenOptions::new().write(true).open(config)?;
        file.write_all_at(&[upper], UPPER)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn closed(command: u16, status: u16, pin: u8) -> Start {
        closed_by("vfio-pci", command, status, pin)
    }

    /// What is there of a function with these command and status registers and this pin, when it was closed and has this
    /// driver.
    fn closed_by(driver: &str, command: u16, status: u16, pin: u8) -> Start {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut bytes = [0; 256];
        bytes[4..6].copy_from_slice(&command.to_le_bytes());
        bytes[6..8].copy_from_slice(&status.to_le_bytes());
        bytes[0x3d] = pin;
        let config = folder.path().join("config");
        fs::write(&config, bytes).expect("written");
        let drivers = Path::new("../../../bus/pci/drivers");
        symlink(drivers.join(driver), folder.path().join("driver")).expect("made");
        drop(Hush::new("0000:00:05.0".parse().expect("a name"), folder.path()));
        Start::read(&config).expect("readable")
    }

    #[test]
    fn only_the_interrupt_disable_bit_is_set() {
        let start = closed(0x0003, 0x0018, 1);
        assert_eq!((start.u16(4), start.u16(6)), (0x0403, 0x0018));
    }

    #[test]
    fn one_that_another_driver_has_is_left_alone() {
        assert_eq!(closed_by("igb", 0x0003, 0x0018, 1).u16(4), 0x0003);
    }

    #[test]
    fn a_function_without_a_wire_is_left_alone() {
        assert_eq!(closed(0x0003, 0, 0).u16(4), 0x0003);
    }

    #[test]
    fn one_that_does_not_answer_is_left_alone() {
        assert_eq!(closed(0xffff, 0xffff, 0xff).u16(4), 0xffff);
    }

    #[test]
    fn what_may_be_suspended_is_awake_meanwhile_and_may_be_afterwards() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let power = folder.path().join("control");
        fs::write(&power, "auto\n").expect("written");
        let awake = Awake::keep(&power);
        assert_eq!(fs::read_to_string(&power).expect("there"), "on");
        drop(awake);
        assert_eq!(fs::read_to_string(&power).expect("there"), "auto");
        fs::write(&power, "on\n").expect("written");
        drop(Awake::keep(&power));
        assert_eq!(
            fs::read_to_string(&power).expect("there"),
            "on\n",
            "it was kept awake before"
        );
    }

    #[test]
    fn one_that_is_gone_is_no_fault() {
        drop(Hush::new(
            "0000:00:05.0".parse().expect("a name"),
            Path::new("/nowhere"),
        ));
    }
}

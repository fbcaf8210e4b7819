//! Moving one function from driver to driver by sysfs: the three writes, and whether they did it.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::HostBdf;
use super::access::Host;
use super::hint;
use super::inventory;
use super::kernel::is_pending;
use super::modules;
use super::sysfs::{Root, link_name};

/// Probing is done when the write comes back; only a driver that probes in the background needs more.
const SETTLE_TRIES: u32 = 20;
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// A function that did not go where it should.
#[derive(Debug, thiserror::Error)]
pub enum BindingError {
    /// The function is not there any more.
    #[error("{0} vanished meanwhile; was it unplugged, or its physical function reset?")]
    Vanished(HostBdf),
    /// The kernel refuses a write.
    #[error("cannot {doing}{}", hint(.source))]
    Write {
        /// What was tried, with which function.
        doing: String,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The kernel has not come back, and may yet do it.
    #[error(
        "cannot {doing} yet; a process that uses it keeps the driver waiting, and the kernel still works on it; \
         end that process, then strait host restore {bdf}"
    )]
    Pending {
        /// What was tried, with which function.
        doing: String,
        /// The function's address on the host.
        bdf: HostBdf,
        /// How long it was waited for.
        #[source]
        source: io::Error,
    },
    /// The driver does not let go of it.
    #[error("{driver} does not let go of {bdf}; see the kernel's log")]
    Clings {
        /// The function's address on the host.
        bdf: HostBdf,
        /// Name of the driver, as in sysfs.
        driver: String,
    },
    /// The driver does not take it.
    #[error("{driver} does not take {bdf}; see the kernel's log")]
    NotTaken {
        /// The function's address on the host.
        bdf: HostBdf,
        /// Name of the driver, as in sysfs.
        driver: String,
    },
    /// Another program gave it away meanwhile.
    #[error("another program gave {bdf} to {driver} meanwhile, instead of {wanted}; try again")]
    Stolen {
        /// The function's address on the host.
        bdf: HostBdf,
        /// Name of the driver that has it.
        driver: String,
        /// Name of the driver that should have it.
        wanted: String,
    },
    /// There is no such driver.
    #[error("there is no driver {driver}: it cannot be loaded")]
    NoDriver {
        /// Name of the driver, as in sysfs.
        driver: String,
        /// What modprobe says, or why it cannot be run.
        #[source]
        source: io::Error,
    },
    /// The module is there, the driver is not.
    #[error("module {0} is loaded, but there is no PCI driver of that name")]
    NoSuchDriver(String),
    /// There is neither such a driver nor a module for it.
    #[error("there is no driver {0}, nor a module of that name for this kernel")]
    NotInKernel(String),
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EBUSY) => "; another process uses it",
        _ => hint::sysfs(error),
    }
}

/// One function, and who may move it.
#[derive(Clone, Copy)]
pub(super) struct Binding<'a> {
    pub(super) host: Host<'a>,
    pub(super) bdf: HostBdf,
}

impl Binding<'_> {
    /// The driver that has it now.
    pub(super) fn driver(&self) -> Result<Option<String>, BindingError> {
        let folder = self.host.root.function(self.bdf);
        if !folder.exists() {
            return Err(BindingError::Vanished(self.bdf));
        }
        link_name(&folder.join("driver")).map_err(|source| BindingError::Write {
            doing: format!("read the driver of {}", self.bdf),
            source,
        })
    }

    /// The driver that alone may have it.
    pub(super) fn override_driver(&self) -> Result<Option<String>, BindingError> {
        let found = inventory::override_driver(self.host.kernel, &self.host.root.function(self.bdf));
        found.map_err(|source| BindingError::Pending {
            doing: format!("read driver_override of {}", self.bdf),
            bdf: self.bdf,
            source,
        })
    }

    /// Says which driver may have it; `None` for any that knows it.
    pub(super) fn set_override(&self, driver: Option<&str>) -> Result<(), BindingError> {
        let folder = self.host.root.function(self.bdf);
        if self.override_driver()?.as_deref() == driver {
            return Ok(());
        }
        // An empty line takes the override away (driver_set_override, drivers/base/driver.c).
        let text = format!("{}\n", driver.unwrap_or_default());
        self.write(
            &format!("set driver_override of {}", self.bdf),
            &folder.join("driver_override"),
            &text,
        )
    }

    /// Takes it from its driver, if it has one.
    pub(super) fn unbind(&self) -> Result<(), BindingError> {
        let Some(driver) = self.driver()? else {
            return Ok(());
        };
        let path = self.host.root.function(self.bdf).join("driver/unbind");
        let written = self.write(
            &format!("take {} from {driver}", self.bdf),
            &path,
            &self.bdf.to_string(),
        );
        match (written, self.driver()?) {
            // The kernel takes the link away first and asks the driver then.
            (Err(error @ BindingError::Pending { .. }), _) => Err(error),
            // Whoever did it, it is done.
            (_, None) => Ok(()),
            (Err(error), _) => Err(error),
            (Ok(()), Some(driver)) => Err(BindingError::Clings {
                bdf: self.bdf,
                driver,
            }),
        }
    }

    /// Has the kernel find a driver, and waits until `wanted` has it.
    pub(super) fn probe(&self, wanted: &str) -> Result<(), BindingError> {
        let path = self.host.root.path("sys/bus/pci/drivers_probe");
        self.write(
            &format!("have {wanted} probe {}", self.bdf),
            &path,
            &self.bdf.to_string(),
        )?;
        self.expect(wanted)
    }

    /// Has the kernel give it to any driver that knows it, and returns which.
    pub(super) fn probe_any(&self) -> Result<Option<String>, BindingError> {
        let path = self.host.root.path("sys/bus/pci/drivers_probe");
        self.write(
            &format!("find a driver for {}", self.bdf),
            &path,
            &self.bdf.to_string(),
        )?;
        self.driver()
    }

    /// Gives it to `driver`, whether the kernel would choose it or not.
    pub(super) fn give_to(&self, driver: &str) -> Result<(), BindingError> {
        self.load(driver)?;
        // Loading the module may have been enough.
        if self.driver()?.as_deref() == Some(driver) {
            return Ok(());
        }
        let path = self.host.root.path(format!("sys/bus/pci/drivers/{driver}/bind"));
        self.write(
            &format!("give {} to {driver}", self.bdf),
            &path,
            &self.bdf.to_string(),
        )?;
        self.expect(driver)
    }

    /// Moves it to `driver`, and leaves it with `override_driver`, which may be another one: an override holds only for
    /// the next driver, and the kernel gives the function to no other then.
    pub(super) fn put_back(
        &self,
        driver: Option<&str>,
        override_driver: Option<&str>,
    ) -> Result<(), BindingError> {
        if self.driver()?.as_deref() != driver {
            self.set_override(override_driver.and(driver).or(override_driver))?;
            self.unbind()?;
            if let Some(driver) = driver {
                self.give_to(driver)?;
            }
        }
        self.set_override(override_driver)
    }

    /// Has `driver` in the kernel, by the module of that name or by those that know the function: xhci_hcd is in
    /// xhci_pci, i801_smbus in i2c_i801.
    pub(super) fn load(&self, driver: &str) -> Result<(), BindingError> {
        let by_name = load(self.host, driver);
        match by_name {
            Err(BindingError::NoDriver { .. } | BindingError::NoSuchDriver(_)) => {
                self.load_natural();
                match is_registered(self.host.root, driver) {
                    true => Ok(()),
                    false => by_name,
                }
            }
            by_name => by_name,
        }
    }

    /// Loads what udev would load for the function. Modules that do not load are no loss.
    pub(super) fn load_natural(&self) {
        let modalias = modules::modalias(self.host.root, self.bdf);
        let _ = modalias.map(|modalias| self.host.kernel.load_module(&modalias));
    }

    fn expect(&self, wanted: &str) -> Result<(), BindingError> {
        let (bdf, wanted) = (self.bdf, wanted.to_owned());
        for _ in 0..SETTLE_TRIES {
            match self.driver()? {
                Some(driver) if driver == wanted => return Ok(()),
                Some(driver) => return Err(BindingError::Stolen { bdf, driver, wanted }),
                None => self.host.kernel.pause(SETTLE_PAUSE),
            }
        }
        Err(BindingError::NotTaken { bdf, driver: wanted })
    }

    fn write(&self, doing: &str, path: &Path, text: &str) -> Result<(), BindingError> {
        self.host.kernel.write(path, text).map_err(|source| {
            let (doing, bdf) = (doing.to_owned(), self.bdf);
            match self.host.root.function(bdf).exists() {
                true if is_pending(&source) => BindingError::Pending { doing, bdf, source },
                true => BindingError::Write { doing, source },
                false => BindingError::Vanished(bdf),
            }
        })
    }
}

fn load(host: Host<'_>, name: &str) -> Result<(), BindingError> {
    if is_registered(host.root, name) {
        return Ok(());
    }
    let driver = name.to_owned();
    host.kernel
        .load_module(name)
        .map_err(|source| BindingError::NoDriver { driver, source })?;
    match is_registered(host.root, name) {
        true => Ok(()),
        false => Err(BindingError::NoSuchDriver(name.to_owned())),
    }
}

fn is_registered(root: &Root, driver: &str) -> bool {
    root.path("sys/bus/pci/drivers").join(driver).exists()
}

//! Devices that are taken from the host for one guest, and go back when it ends.

use std::sync::Arc;

use strait_vfio::host::{self, BindError, Host, HostBdf, Owner, Request, Root, RunningKernel};

/// The devices of `managed=on`; dropped, it gives back those that were taken here. Where that cannot
/// happen because the process is killed, the undo journal knows whose they were, and the next strait command
/// gives them back.
pub struct Managed<'a> {
    host: Host<'a>,
    taken: Vec<HostBdf>,
}

impl<'a> Managed<'a> {
    /// Takes `devices`, all or none. One that is bound to vfio-pci already stays so afterwards.
    ///
    /// # Errors
    /// In the words of `strait host bind`.
    pub fn take(host: Host<'a>, devices: Vec<HostBdf>) -> Result<Self, BindError> {
        let taken = take(host, devices)?;
        Ok(Self { host, taken })
    }
}

impl Drop for Managed<'_> {
    fn drop(&mut self) {
        give_back(self.host, &self.taken);
    }
}

/// Devices that were taken from this host for one that comes to a running guest; dropped, they go back.
pub(super) struct Borrowed(Vec<HostBdf>);

impl Borrowed {
    /// Takes `devices`, all or none; nothing where there are none.
    ///
    /// # Errors
    /// In the words of `strait host bind`.
    pub(super) fn take(devices: Vec<HostBdf>) -> Result<Option<Arc<Self>>, BindError> {
        let taken = take(Host::new(&Root::real(), &RunningKernel), devices)?;
        Ok((!taken.is_empty()).then(|| Arc::new(Self(taken))))
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        give_back(Host::new(&Root::real(), &RunningKernel), &self.0);
    }
}

/// Binds `devices`, and tells which were not bound before.
fn take(host: Host<'_>, devices: Vec<HostBdf>) -> Result<Vec<HostBdf>, BindError> {
    if devices.is_empty() {
        return Ok(Vec::new());
    }
    let request = Request {
        devices,
        group: false,
        driver: "vfio-pci".to_owned(),
        force: false,
        save: false,
        dma_entries: None,
        owner: Owner::this(host.root),
    };
    let plan = host::plan(host, request)?;
    host::bind(host, &plan)?;
    Ok(plan.moves.iter().map(|one| one.bdf).collect())
}

fn give_back(host: Host<'_>, taken: &[HostBdf]) {
    for bdf in taken {
        match host::restore(host, *bdf, false) {
            Ok(_) => log::info!("{bdf} went back to the host"),
            Err(error) => {
                log::warn!("{bdf} could not go back to the host: {error}; try strait host restore {bdf}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use strait_vfio::host::testing::{Does, FakeFunction, FakeHost};
    use strait_vfio::host::{restore_orphans, taken};

    use super::*;

    fn host() -> FakeHost {
        let host = FakeHost::new();
        for (path, driver) in [("0000:00:01.0", Some("igb")), ("0000:00:02.0", None)] {
            host.add(FakeFunction {
                path,
                class: 0x02_0000,
                ids: (0x8086, 0x10c9),
                group: Some(7),
                driver,
            });
        }
        host.add_driver("vfio-pci");
        host
    }

    fn devices(names: &[&str]) -> Vec<HostBdf> {
        names.iter().map(|name| name.parse().expect("a name")).collect()
    }

    #[test]
    fn devices_go_back_when_the_guest_ends() {
        let host = host();
        let (root, before) = (host.root(), host.picture());
        let managed =
            Managed::take(Host::new(&root, &host), devices(&["00:01.0", "00:02.0"])).expect("taken");
        assert_eq!(host.binding("0000:00:01.0").0, "vfio-pci");
        drop(managed);
        assert!(host.picture() == before);
    }

    #[test]
    fn what_the_host_uses_is_not_taken_for_a_guest() {
        let host = host();
        host.add_interface("0000:00:01.0", "eth0");
        host.link("sys/class/net/eth0/master", "sys/devices/virtual/net/virbr0");
        let (root, before) = (host.root(), host.picture());
        let refused = Managed::take(Host::new(&root, &host), devices(&["00:02.0", "00:01.0"]));
        let error = refused.err().expect("a port of a bridge").to_string();
        assert!(
            error.starts_with("0000:00:01.0 is in use: eth0 is a port of virbr0"),
            "{error}"
        );
        assert!(host.picture() == before);
    }

    #[test]
    fn what_was_bound_before_stays_bound() {
        let host = host();
        let root = host.root();
        let outer = Managed::take(Host::new(&root, &host), devices(&["00:01.0"])).expect("taken");
        drop(Managed::take(Host::new(&root, &host), devices(&["00:01.0"])).expect("nothing to do"));
        assert_eq!(host.binding("0000:00:01.0").0, "vfio-pci");
        drop(outer);
        assert_eq!(host.binding("0000:00:01.0").0, "igb");
    }

    #[test]
    fn who_does_not_see_all_processes_gives_back_what_is_its_own() {
        let host = host();
        let root = host.root();
        let pid = std::process::id();
        host.file(
            &format!("proc/{pid}/stat"),
            &format!("{pid} (strait) S 1 1 1 0 -1 0 1 0 0 0 0 0 0 0 20 0 1 0 99 0\n"),
        );
        let managed = Managed::take(Host::new(&root, &host), devices(&["00:01.0"])).expect("taken");
        host.sees_namespace("4026532211");
        drop(managed);
        assert_eq!(host.binding("0000:00:01.0").0, "igb");
    }

    #[test]
    fn the_next_command_gives_back_what_a_killed_one_took() {
        let host = host();
        let root = host.root();
        let stat = |started: u32| {
            let pid = std::process::id();
            host.file(
                &format!("proc/{pid}/stat"),
                &format!("{pid} (strait) S 1 1 1 0 -1 0 1 0 0 0 0 0 0 0 20 0 1 0 {started} 0\n"),
            );
        };
        stat(99);
        std::mem::forget(Managed::take(Host::new(&root, &host), devices(&["00:01.0"])).expect("taken"));
        assert!(restore_orphans(Host::new(&root, &host)).is_empty());
        // Killed, and its number is another's now.
        stat(12345);
        assert_eq!(restore_orphans(Host::new(&root, &host)).len(), 1);
        assert_eq!(host.binding("0000:00:01.0"), ("igb".to_owned(), "-".to_owned()));
        assert!(taken(&root).is_empty());
    }

    #[test]
    fn a_device_that_does_not_come_leaves_all_where_they_were() {
        let host = host();
        let (root, before) = (host.root(), host.picture());
        host.fault("drivers_probe", 1, Does::Nothing);
        assert!(Managed::take(Host::new(&root, &host), devices(&["00:01.0", "00:02.0"])).is_err());
        assert!(host.picture() == before);
    }
}

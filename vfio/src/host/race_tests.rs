//! Two commands at once: what one has found out does not hold for the other any more.

use crate::host::access::Host;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, FileType, mknodat};

use super::testing::{FakeFunction, FakeHost};
use super::{
    BindError, HostBdf, Kernel, Owner, Request, UndoEntry, VfLink, bind, journal, plan, restore_orphans,
    set_virtual_functions,
};

const ALIVE: Owner = Owner {
    pid: 4712,
    started: 99,
};

fn nic() -> HostBdf {
    "01:00.0".parse().expect("a name")
}

fn host() -> FakeHost {
    let host = FakeHost::new();
    host.add(FakeFunction {
        path: "0000:00:01.0/0000:01:00.0",
        class: 0x02_0000,
        ids: (0x8086, 0x10c9),
        group: Some(14),
        driver: Some("igb"),
    });
    host
}

fn request(owner: Option<Owner>) -> Request {
    Request {
        devices: vec![nic()],
        group: false,
        driver: "vfio-pci".to_owned(),
        force: false,
        save: false,
        dma_entries: None,
        owner,
    }
}

/// `/proc/<pid>/stat` of a process that started at `started`.
fn stat(owner: Owner) -> String {
    let fields = "S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0";
    format!("{} (strait) {fields} {} 0\n", owner.pid, owner.started)
}

fn take(host: &FakeHost, owner: Option<Owner>) {
    let plan = plan(Host::new(&host.root(), host), request(owner)).expect("a free NIC");
    bind(Host::new(&host.root(), host), &plan).expect("bound");
}

/// The journal's entry of the NIC, as if it had been taken for `owner`.
fn owned(host: &FakeHost, owner: Owner) -> UndoEntry {
    let entry = journal::read(&host.root(), nic())
        .expect("read")
        .expect("an entry");
    UndoEntry {
        owner: Some(owner),
        ..entry
    }
}

#[test]
fn a_fresh_bind_is_not_given_back_for_the_owner_before() {
    let ended = Owner {
        pid: 4711,
        started: 1,
    };
    let host = host();
    take(&host, Some(ended));
    host.file("proc/4712/stat", &stat(ALIVE));
    // Whoever asks after the ended owner waits at this pipe until the other command has the lock.
    let pipe = host.path("proc/4711/stat");
    fs::create_dir_all(pipe.parent().expect("a folder")).expect("a folder");
    mknodat(CWD, &pipe, FileType::Fifo, 0o600.into(), 0).expect("a pipe");
    let (root, fresh, locked) = (host.root(), owned(&host, ALIVE), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            let lock = journal::lock(&root).expect("a lock");
            locked.wait();
            let mut asked = OpenOptions::new().write(true).open(&pipe).expect("a pipe");
            journal::write(&root, &fresh).expect("written");
            asked.write_all(b"gone").expect("read");
            drop((asked, lock));
        });
        locked.wait();
        assert!(restore_orphans(Host::new(&root, &host)).is_empty());
    });
    assert_eq!(host.binding("0000:01:00.0").0, "vfio-pci");
    assert_eq!(journal::read(&root, nic()).expect("read"), Some(fresh));
}

#[test]
fn a_plan_of_before_another_command_is_not_carried_out() {
    let host = host();
    let stale = plan(Host::new(&host.root(), &host), request(None)).expect("a free NIC");
    // Taken and left by a command that was killed before it touched the device.
    let entry = UndoEntry {
        bdf: nic(),
        driver: Some("igb".to_owned()),
        override_driver: None,
        bound: "vfio-pci".to_owned(),
        owner: Some(ALIVE),
    };
    journal::write(&host.root(), &entry).expect("written");
    let error = bind(Host::new(&host.root(), &host), &stale).expect_err("stale");
    assert!(matches!(error, BindError::Changed(_)), "{error}");
    assert_eq!(journal::read(&host.root(), nic()).expect("read"), Some(entry));
}

#[test]
fn what_another_command_has_bound_meanwhile_is_done() {
    let host = host();
    let stale = plan(Host::new(&host.root(), &host), request(Some(ALIVE))).expect("a free NIC");
    take(&host, None);
    let before = host.picture();
    bind(Host::new(&host.root(), &host), &stale).expect("it is where it should be");
    assert!(host.picture() == before);
}

const VF: &str = "0000:01:10.0";

/// The host with udev, which is not through before the command of the virtual function's rule is.
struct WithUdev(FakeHost);

impl WithUdev {
    fn lock_is_free(&self) -> bool {
        let lock = File::open(self.0.path("run/strait/lock"));
        lock.is_ok_and(|lock| lock.try_lock().is_ok())
    }
}

impl Kernel for WithUdev {
    fn write_while(
        &self,
        path: &Path,
        text: &str,
        go_on: &mut dyn FnMut(Duration) -> bool,
    ) -> io::Result<()> {
        let written = self.0.write_while(path, text, go_on);
        if path.ends_with("sriov_numvfs") {
            self.0.file("run/udev/queue", "");
        }
        written
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        self.0.read(path)
    }

    fn load_module(&self, name: &str) -> io::Result<()> {
        self.0.load_module(name)
    }

    fn set_vf_link(&self, interface: &str, index: u32, link: &VfLink) -> io::Result<()> {
        self.0.set_vf_link(interface, index, link)
    }

    fn claim(&self, path: &Path) -> io::Result<()> {
        self.0.claim(path)
    }

    fn pause(&self, _: Duration) {
        let queue = self.0.path("run/udev/queue");
        if queue.exists() && self.lock_is_free() {
            let devices = vec![VF.parse().expect("a name")];
            let request = Request {
                devices,
                ..request(None)
            };
            let plan = plan(Host::new(&self.0.root(), &self.0), request).expect("a free function");
            bind(Host::new(&self.0.root(), &self.0), &plan).expect("bound");
            fs::remove_file(queue).expect("a queue");
        }
    }
}

#[test]
fn a_rule_of_udev_binds_a_new_function_while_it_is_waited_for() {
    let host = WithUdev(host());
    host.0.add_sriov("0000:00:01.0/0000:01:00.0", 7);
    let root = host.0.root();
    let made = set_virtual_functions(Host::new(&root, &host), nic(), 1, false, &mut |_, _| ()).expect("made");
    assert_eq!(made[0].driver.as_deref(), Some("vfio-pci"));
    assert!(!host.0.path("run/udev/queue").exists());
}

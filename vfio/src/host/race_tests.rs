//! Two commands at once: what one has found out does not hold for the other any more.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::sync::Barrier;
use std::thread;

use rustix::fs::{CWD, FileType, mknodat};

use super::testing::{FakeFunction, FakeHost};
use super::{BindError, Entry, HostBdf, Owner, Request, bind, journal, plan, restore_orphans};

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
    let plan = plan(&host.root(), host, request(owner)).expect("a free NIC");
    bind(&host.root(), host, &plan).expect("bound");
}

/// The journal's entry of the NIC, as if it had been taken for `owner`.
fn owned(host: &FakeHost, owner: Owner) -> Entry {
    let entry = journal::read(&host.root(), nic())
        .expect("read")
        .expect("an entry");
    Entry {
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
        assert!(restore_orphans(&root, &host).is_empty());
    });
    assert_eq!(host.binding("0000:01:00.0").0, "vfio-pci");
    assert_eq!(journal::read(&root, nic()).expect("read"), Some(fresh));
}

#[test]
fn a_plan_of_before_another_command_is_not_carried_out() {
    let host = host();
    let stale = plan(&host.root(), &host, request(None)).expect("a free NIC");
    // Taken and left by a command that was killed before it touched the device.
    let entry = Entry {
        bdf: nic(),
        driver: Some("igb".to_owned()),
        override_driver: None,
        bound: "vfio-pci".to_owned(),
        owner: Some(ALIVE),
    };
    journal::write(&host.root(), &entry).expect("written");
    let error = bind(&host.root(), &host, &stale).expect_err("stale");
    assert!(matches!(error, BindError::Changed(_)), "{error}");
    assert_eq!(journal::read(&host.root(), nic()).expect("read"), Some(entry));
}

//! Hosts with many devices and processes: what is read of all processes is read once, not for each device.

use crate::host::access::Host;
use std::mem::MaybeUninit;

use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use super::doctor::{self, Wishes};
use super::testing::{FakeFunction, FakeHost};
use super::{HostBdf, Inventory, PciDevice, Request, plan, ways_out};

const FUNCTIONS: u32 = 500;
const PROCESSES: u32 = 2000;

/// A host with many functions that the host has, two to a group, and many processes.
fn host() -> (FakeHost, Vec<HostBdf>) {
    let host = FakeHost::new();
    let mut functions = Vec::new();
    for n in 0..FUNCTIONS {
        let bdf = format!("0000:{:02x}:{:02x}.{}", n >> 8, n >> 3 & 0x1f, n & 7);
        host.add(FakeFunction {
            path: Box::leak(bdf.clone().into_boxed_str()),
            class: 0x02_0000,
            ids: (0x8086, 0x10ca),
            group: Some(n / 2),
            driver: Some("igb"),
        });
        functions.push(bdf.parse().expect("a name"));
    }
    for n in 0..PROCESSES {
        host.add_process(1000 + n, "sleep", "/dev/rtc0");
    }
    (host, functions)
}

/// Notes each time that somebody lists the processes.
fn watch(host: &FakeHost) -> OwnedFd {
    let watch = inotify::init(CreateFlags::NONBLOCK).expect("inotify");
    // Equal events that follow on one another are one: each opening is followed by its end.
    let flags = WatchFlags::OPEN | WatchFlags::CLOSE_NOWRITE;
    inotify::add_watch(&watch, host.path("proc"), flags).expect("a folder");
    watch
}

/// How often the processes were listed since the last time.
fn listings(watch: &OwnedFd) -> usize {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(watch, &mut buffer);
    let mut count = 0;
    while let Ok(event) = reader.next() {
        // Only what happens to the folder itself has no name.
        let is_listing = event.file_name().is_none() && event.events().contains(ReadFlags::OPEN);
        count += usize::from(is_listing);
    }
    count
}

#[test]
fn all_processes_are_listed_once_for_all_devices() {
    let (host, functions) = host();
    let root = host.root();
    let watch = watch(&host);

    let inventory = Inventory::read(Host::new(&root, &host)).expect("a bus");
    assert_eq!(inventory.functions.len(), functions.len());
    assert_eq!(listings(&watch), 1);

    let wishes = Wishes {
        memory_bytes: 1 << 30,
        address_spaces: 1,
        has_viommu: false,
        low_windows: Vec::new(),
        high_window: 0..0,
    };
    let findings = doctor::examine(Host::new(&root, &host), &functions, &wishes);
    let unbound = findings.iter().filter(|one| one.check == "driver");
    assert_eq!(unbound.count(), functions.len());
    assert_eq!(listings(&watch), 1);
}

#[test]
fn all_processes_are_listed_once_for_all_that_is_in_the_way() {
    let (host, functions) = host();
    let root = host.root();
    let devices: Vec<HostBdf> = functions.iter().step_by(2).copied().collect();
    let watch = watch(&host);
    let request = Request {
        devices: devices.clone(),
        group: false,
        driver: "vfio-pci".to_owned(),
        force: false,
        save: false,
        dma_entries: None,
        owner: None,
    };
    let others: Vec<PciDevice> = plan(Host::new(&root, &host), request).expect("free").in_the_way;
    assert_eq!(listings(&watch), 1);
    let ways_out = ways_out(Host::new(&root, &host), &devices, &others);
    assert_eq!(ways_out.len(), devices.len());
    assert_eq!(listings(&watch), 1);
}

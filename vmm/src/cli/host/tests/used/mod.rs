//! Every way in which a host uses a device: `list`, `doctor` and `bind` say the same of it, and nobody takes it.

mod files;
mod network;
mod storage;

use std::fs;

use super::*;

const DISK: &str = "sys/devices/pci0000:00/0000:00:02.0/0000:02:00.0/nvme/nvme0/nvme0n1";
const VMD_PATH: &str = "0000:00:0e.0";
const BEHIND_VMD: &str = "0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0";

/// A host in which `device` is in use.
struct Used {
    name: &'static str,
    prepare: fn(&FakeHost),
    device: &'static str,
    /// All that is said of it.
    says: &'static str,
    /// What is to be done first.
    remedy: &'static str,
}

const fn used(
    name: &'static str,
    prepare: fn(&FakeHost),
    device: &'static str,
    says: &'static str,
    remedy: &'static str,
) -> Used {
    Used {
        name,
        prepare,
        device,
        says,
        remedy,
    }
}

#[test]
fn every_use_is_told_alike_by_list_doctor_and_bind() {
    let all: Vec<&Used> = [storage::STORAGE, network::NETWORK, files::FILES]
        .into_iter()
        .flatten()
        .collect();
    let wrong: Vec<String> = all.into_iter().filter_map(|one| check(one).err()).collect();
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Says where `used` is not told, or not told right.
fn check(used: &Used) -> Result<(), String> {
    let Used {
        name,
        prepare,
        device,
        says,
        remedy,
    } = used;
    let host = host();
    host.add_driver("vfio-pci");
    prepare(&host);
    let before = host.picture();
    let wrong = |what: &str, text: &str| Err(format!("{name}: {what}: {text}"));

    let failure = match run(&host, &format!("host bind {device}")) {
        Err(failure) => failure.message,
        Ok((text, _)) => return wrong("it was taken", &text),
    };
    println!("{name}\n  {failure}");
    if !failure.starts_with(&format!("{device} is in use: {says}; {remedy}")) {
        return wrong("bind", &failure);
    }
    let list = one_line(&done(&host, &format!("host list {device}")));
    if !list.contains(&one_line(&says.replace(", nvme0n1", " in use: nvme0n1"))) {
        return wrong("list", &list);
    }
    let (doctor, code) = run(&host, &format!("host doctor -q {device}")).expect("findings");
    let doctor = one_line(&doctor);
    let (_, finding) = doctor
        .split_once("FAIL Can the host do without it?")
        .unwrap_or_default();
    if code != 1 || !finding.contains(&format!("{says} -> {remedy}")) {
        return wrong("doctor", &doctor);
    }
    match host.picture() == before {
        true => Ok(()),
        false => wrong("the host", "is not as it was"),
    }
}

#[test]
fn what_is_behind_a_controller_that_keeps_its_domain_is_not_advised_to_take_it() {
    let host = host();
    behind_vmd(&host);
    let failure = run(&host, "host bind 10000:e1:00.0").expect_err("it is not its own");
    assert!(
        failure.message.starts_with(
            "10000:e1:00.0 is behind 0000:00:0e.0 (vmd) and does DMA under its address, so it cannot be passed \
             while vmd has 0000:00:0e.0; turn VMD off in the firmware setup"
        ),
        "{}",
        failure.message
    );
    let (doctor, code) = run(&host, "host doctor 10000:e1:00.0").expect("findings");
    assert_eq!(code, 1);
    assert!(!doctor.contains("strait host bind"), "{doctor}");
    // What is behind it comes along by itself, and is in nobody's way.
    let failure = run(&host, "host bind --group 0000:00:0e.0").expect_err("the root file system");
    assert!(
        failure.message.starts_with("0000:00:0e.0 is in use"),
        "{}",
        failure.message
    );
}

#[test]
fn a_controller_with_an_idle_disk_behind_it_goes_alone() {
    let host = host();
    behind_vmd(&host);
    host.file("proc/self/mountinfo", "");
    let text = done(&host, "host bind 0000:00:0e.0");
    assert_eq!(text, "0000:00:0e.0 went from vmd to vfio-pci\n");
}

#[test]
fn what_cannot_be_asked_is_not_known_instead_of_free() {
    for (errno, remedy) in [
        (libc::EACCES, "run as root, on the host itself"),
        (libc::ENOENT, "look with lsblk /dev/nvme0n1"),
    ] {
        let host = host();
        host.claimed("nvme0n1", errno);
        let (doctor, _) = run(&host, "host doctor 02:00.0").expect("findings");
        let doctor = one_line(&doctor);
        let finding = "UNKNOWN Can the host do without it? it is not known whether something of the kernel keeps nvme0n1";
        assert!(
            doctor.contains(finding) && doctor.contains(&format!("-> {remedy}")),
            "{doctor}"
        );
        run(&host, "host bind 02:00.0").expect_err("perhaps in use");
        done(&host, "host bind --force 02:00.0");
    }
}

#[test]
fn a_pool_whose_disks_are_not_told_makes_no_disk_doubtful_that_the_kernel_gives_away() {
    let host = host();
    mount(&host, "36 1 0:40 / / rw - zfs rpool/ROOT/debian rw");
    done(&host, "host bind --dry-run 02:00.0");
    host.claimed("nvme0n1", libc::EACCES);
    let failure = run(&host, "host bind 02:00.0").expect_err("perhaps in use");
    assert!(
        failure.message.contains(
            ", it is not known whether it has a disk of the ZFS pool rpool; run as root, on the host itself; then \
             look with zpool status -P rpool"
        ),
        "{}",
        failure.message
    );
    done(&host, "host bind 01:00.0");
}

#[test]
fn after_one_silent_disk_the_others_are_not_waited_for() {
    let host = host();
    host.add_disk(NVME_PATH, "nvme0n2", "259:3");
    host.claimed("nvme0n1", libc::ETIMEDOUT);
    let text = one_line(&done(&host, "host list 02:00.0"));
    assert!(
        text.contains("keeps nvme0n2, since it does not open: another disk did not answer"),
        "{text}"
    );
}

#[test]
fn what_is_mounted_in_a_mount_goes_first() {
    let host = host();
    mount(&host, "36 1 259:1 / /srv rw - ext4 /dev/nvme0n1p1 rw");
    mount(&host, "37 36 259:1 /a /srv/a rw - ext4 /dev/nvme0n1p1 rw");
    let failure = run(&host, "host bind 02:00.0").expect_err("mounted");
    assert!(
        failure.message.contains("; umount /srv/a /srv, or"),
        "{}",
        failure.message
    );
}

#[test]
fn an_empty_drive_and_a_path_without_a_file_are_free() {
    let host = host();
    host.claimed("nvme0n1", libc::ENOMEDIUM);
    done(&host, "host bind --dry-run 02:00.0");
    host.claimed("nvme0n1", libc::ENOENT);
    host.file(&format!("{DISK}/hidden"), "1\n");
    done(&host, "host bind 02:00.0");
}

#[test]
fn what_a_sleeping_host_would_wake_up_from_is_told() {
    let host = host();
    host.file("sys/power/resume", "259:1\n");
    let text = done(&host, "host list 02:00.0");
    assert!(text.contains("the host would wake up from nvme0n1"), "{text}");
    done(&host, "host bind 02:00.0");
}

#[test]
fn force_does_not_take_what_the_kernel_could_not_give_back() {
    let host = host();
    nvidia(&host);
    host.add_process(812, "Xorg", "/dev/nvidia0");
    let failure = run(&host, "host bind --force 05:00.0").expect_err("it would hang");
    assert!(
        failure
            .message
            .ends_with("; end process 812 (Xorg) (--force would not help)"),
        "{}",
        failure.message
    );
    let host = self::host();
    behind_vmd(&host);
    run(&host, "host bind --force 00:0e.0").expect_err("the root file system");
}

#[test]
fn every_use_has_its_remedy_unless_one_is_endless() {
    let zfs = |at: &str| {
        let host = host();
        mount(&host, &format!("36 1 0:40 / {at} rw - zfs tank/x rw"));
        zfs_member(&host, "tank");
        run(&host, "host bind 02:00.0").expect_err("a pool").message
    };
    assert!(zfs("/srv").contains("; umount /srv; then zpool export tank, or take it"));
    assert!(zfs("/").ends_with("; the host runs from it, so pass another device (--force would not help)"));
}

#[test]
fn processes_of_another_card_are_no_matter() {
    let host = host();
    nvidia(&host);
    host.file(
        "proc/driver/nvidia/gpus/0000:05:00.0/information",
        "Model: \t X\nDevice Minor: \t 1\n",
    );
    host.add_process(812, "Xorg", "/dev/nvidia0");
    done(&host, "host bind 05:00.0");
}

#[test]
fn a_guest_with_the_devices_own_file_keeps_it() {
    let host = host();
    done(&host, "host bind 01:00.0");
    host.file(
        &format!("sys/devices/pci0000:00/{NIC_PATH}/vfio-dev/vfio0/dev"),
        "511:0\n",
    );
    host.add_process(4711, "qemu-system-x86", "/dev/vfio/devices/vfio0");
    let list = done(&host, "host list 01:00.0");
    assert!(
        list.contains("in use: process 4711 (qemu-system-x86) has /dev/vfio/devices/vfio0 open"),
        "{list}"
    );
    let failure = run(&host, "host restore 01:00.0").expect_err("a guest has it");
    assert!(
        failure
            .message
            .starts_with("0000:01:00.0 is in use by process 4711 (qemu-system-x86)"),
        "{}",
        failure.message
    );
}

/// Ways not to see all processes.
const BLINDS: [fn(&FakeHost); 2] = [
    |host| host.sees_namespace("4026532211"),
    |host| fs::remove_dir_all(host.path("proc/1")).expect("there"),
];

#[test]
fn what_a_process_that_is_not_seen_may_have_is_not_free() {
    for blind in BLINDS {
        let host = host();
        let folder = format!("sys/devices/pci0000:00/{GPU_PATH}/drm/card0");
        host.file(&format!("{folder}/uevent"), "DEVNAME=dri/card0\n");
        blind(&host);
        let failure = run(&host, "host bind 05:00.0").expect_err("perhaps in use");
        assert!(
            failure.message.contains(
                "may be in use: it is not known whether a process that is hidden from here has a file of it open; \
                 run as root, on the host itself"
            ),
            "{}",
            failure.message
        );
    }
}

#[test]
fn nobody_can_have_files_of_vfio_that_are_not_there() {
    for blind in BLINDS {
        let host = host();
        blind(&host);
        done(&host, "host bind 01:00.0");
    }
}

#[test]
fn a_guest_that_is_not_seen_may_have_the_device() {
    for blind in BLINDS {
        let host = host();
        done(&host, "host bind 01:00.0");
        blind(&host);
        let failure = run(&host, "host restore 01:00.0").expect_err("perhaps in use");
        assert_eq!(
            failure.message,
            "0000:01:00.0 may be in use by a process that cannot be seen from here; give it back as root on the \
             host itself, or all the same with --force"
        );
        assert_eq!(binding(&host, NIC), "vfio-pci vfio-pci");
        done(&host, "host restore --force 01:00.0");
        assert_eq!(binding(&host, NIC), "igb -");
    }
}

#[test]
fn a_guest_with_a_virtual_functions_own_file_keeps_all_of_them() {
    let host = host();
    done(&host, "host vf 01:00.0 1 --bind");
    host.file(
        "sys/devices/pci0000:00/0000:00:01.0/0000:01:10.0/vfio-dev/vfio0/dev",
        "511:0\n",
    );
    host.add_process(4711, "qemu-system-x86", "/dev/vfio/devices/vfio0");
    for words in ["host vf 01:00.0 0", "host vf 01:00.0 0 --force"] {
        let failure = run(&host, words).expect_err("a guest has it");
        assert!(
            failure
                .message
                .contains("in use by process 4711 (qemu-system-x86)"),
            "{}",
            failure.message
        );
    }
}

#[test]
fn many_processes_are_counted() {
    let host = host();
    bound(&host, "amdgpu");
    for pid in 100..120 {
        host.add_process(pid, "python3", "/dev/kfd");
    }
    let text = done(&host, "host list 05:00.0");
    assert_eq!(text.matches("has /dev/kfd open").count(), 4, "{text}");
    assert!(
        text.contains("in use: 16 more processes have its files open"),
        "{text}"
    );
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// One more line of mountinfo.
fn mount(host: &FakeHost, line: &str) {
    let before = host.root().text("proc/self/mountinfo").unwrap_or_default();
    host.file("proc/self/mountinfo", &format!("{before}\n{line}\n"));
}

/// What udev has read from the disk's partition.
fn zfs_member(host: &FakeHost, pool: &str) {
    let text = format!("E:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL={pool}\n");
    host.file("run/udev/data/b259:1", &text);
}

fn block(host: &FakeHost, name: &str) {
    let folder = format!("sys/devices/virtual/block/{name}");
    host.file(
        &format!("{folder}/uevent"),
        &format!("DEVNAME={name}\nDEVTYPE=disk\n"),
    );
    host.link(&format!("sys/class/block/{name}"), &folder);
}

/// Block device `name` on `below`.
fn made_of(host: &FakeHost, name: &str, below: &str) {
    block(host, name);
    host.link(
        &format!("sys/class/block/{below}/holders/{name}"),
        &format!("sys/devices/virtual/block/{name}"),
    );
}

fn volume(host: &FakeHost, node: &str, name: &str, uuid: &str, below: &str) {
    made_of(host, node, below);
    host.file(
        &format!("sys/devices/virtual/block/{node}/dm/name"),
        &format!("{name}\n"),
    );
    host.file(
        &format!("sys/devices/virtual/block/{node}/dm/uuid"),
        &format!("{uuid}\n"),
    );
}

/// A virtual interface.
fn interface(host: &FakeHost, name: &str, index: usize, event: &str) {
    let folder = format!("sys/devices/virtual/net/{name}");
    host.file(&format!("{folder}/type"), "1\n");
    host.file(&format!("{folder}/ifindex"), &format!("{index}\n"));
    host.file(&format!("{folder}/iflink"), &format!("{index}\n"));
    host.file(&format!("{folder}/uevent"), &format!("{event}INTERFACE={name}\n"));
    host.link(&format!("sys/class/net/{name}"), &folder);
}

/// Interface `upper` stands on `name`.
fn on(host: &FakeHost, name: &str, upper: &str, is_port: bool) {
    let target = format!("sys/devices/virtual/net/{upper}");
    host.link(&format!("sys/class/net/{name}/upper_{upper}"), &target);
    if is_port {
        host.link(&format!("sys/class/net/{name}/master"), &target);
    }
}

/// The graphics card has `driver`.
fn bound(host: &FakeHost, driver: &str) {
    let link = format!("sys/devices/pci0000:00/{GPU_PATH}/driver");
    fs::remove_file(host.path(&link)).expect("bound");
    host.add_driver(driver);
    host.link(&link, &format!("sys/bus/pci/drivers/{driver}"));
}

fn nvidia(host: &FakeHost) {
    bound(host, "nvidia");
}

/// Intel VMD in group 30 with everything behind it, and the root file system on a disk there.
fn behind_vmd(host: &FakeHost) {
    let functions = [
        (VMD_PATH, 0x01_0400, 0x467f, "vmd"),
        (
            "0000:00:0e.0/pci10000:e0/10000:e0:06.0",
            0x06_0400,
            0x464d,
            "pcieport",
        ),
        (BEHIND_VMD, 0x01_0802, 0xf1a8, "nvme"),
    ];
    for (path, class, device, driver) in functions {
        host.add(FakeFunction {
            path,
            class,
            ids: (0x8086, device),
            group: Some(30),
            driver: Some(driver),
        });
    }
    host.add_disk(BEHIND_VMD, "nvme9n1", "259:9");
    mount(host, "36 1 259:9 / / rw - ext4 /dev/nvme9n1p1 rw");
}

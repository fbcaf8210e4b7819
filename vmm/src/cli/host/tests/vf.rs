//! Virtual functions.

use std::fs;

use strait_vfio::host::testing::Does;

use super::*;

#[test]
fn they_come_and_go() {
    let host = host();
    let before = host.picture();
    let text = done(&host, "host vf eth0 2");
    assert_eq!(
        text,
        "VF 0  0000:01:10.0  group 100  MAC not shown  no driver\n\
         VF 1  0000:01:10.2  group 101  MAC not shown  no driver\n\
         eth0 is down, so they do not work yet: ip link set eth0 up\n"
    );
    assert_eq!(
        done(&host, "host vf eth0 0"),
        "0000:01:00.0 has no virtual functions now\n"
    );
    assert!(host.picture() == before);
}

#[test]
fn another_number_goes_by_zero() {
    let host = host();
    done(&host, "host vf 01:00.0 2");
    done(&host, "host vf 01:00.0 3");
    assert_eq!(binding(&host, "0000:01:10.4"), "- -");
    done(&host, "host vf 01:00.0 3");
}

#[test]
fn they_are_bound_at_once() {
    let host = host();
    let text = done(&host, "host vf 01:00.0 1 --bind --mac 52:54:00:00:00:01 --vlan 5");
    assert!(
        text.starts_with("VF 0  0000:01:10.0  group 100  MAC 52:54:00:00:00:01  vfio-pci  VLAN 5\n"),
        "{text}"
    );
    assert_eq!(binding(&host, "0000:01:10.0"), "vfio-pci vfio-pci");
    let link = fs::read_to_string(host.path("links/eth0-0")).expect("set");
    assert_eq!(link, "Some([52, 54, 0, 0, 0, 1]) Some(5)\n");
    done(&host, "host vf 01:00.0 0");
    assert_eq!(done(&host, "host restore --all"), "Nothing is taken.\n");
}

#[test]
fn what_does_not_come_leaves_the_old_number() {
    let host = host();
    done(&host, "host vf 01:00.0 2");
    // 0 goes well, 4 does not.
    host.fault("sriov_numvfs", 1, Does::Fails(libc::ENOMEM));
    let failure = run(&host, "host vf 01:00.0 4").expect_err("no room");
    assert!(failure.message.contains("pci=realloc"), "{}", failure.message);
    assert_eq!(binding(&host, "0000:01:10.2"), "- -");
    assert!(!host.path("sys/bus/pci/devices/0000:01:10.4").exists());
}

const LARGE: &str = "0000:00:06.0/0000:40:00.0";

/// A host with a NIC for `max` virtual functions at 40:00.0, and room on the buses behind.
fn large(max: u32) -> FakeHost {
    let host = host();
    host.add(FakeFunction {
        path: LARGE,
        class: 0x02_0000,
        ids: (0x15b3, 0x101d),
        group: Some(40),
        driver: Some("mlx5_core"),
    });
    host.add_interface(LARGE, "ens1").add_sriov(LARGE, max);
    host
}

fn active(host: &FakeHost) -> String {
    let file = format!("sys/devices/pci0000:00/{LARGE}/sriov_numvfs");
    fs::read_to_string(host.path(file)).expect("a number")
}

#[test]
fn many_take_their_time() {
    for (count, seconds) in [(64, 22), (125, 65)] {
        let host = large(127);
        host.fault("sriov_numvfs", 0, Does::Takes(seconds));
        let text = done(&host, &format!("host vf ens1 {count}"));
        let told = format!("after 20 s there are 0 virtual functions, {count} are wanted\n");
        assert!(text.contains(&told), "{text}");
        assert_eq!(active(&host), format!("{count}\n"));
        // They go as slowly as they came.
        host.fault("sriov_numvfs", 0, Does::Takes(seconds));
        done(&host, "host vf ens1 0");
        assert_eq!(active(&host), "0\n");
    }
}

#[test]
fn they_may_fill_more_than_a_bus() {
    let host = large(300);
    let text = done(&host, "host vf ens1 300");
    assert!(text.contains("VF 299  0000:42:1a.6"), "{text}");
}

#[test]
fn what_the_driver_still_works_on_is_not_undone() {
    let host = large(127);
    done(&host, "host vf ens1 2");
    // 0 goes well, 8 does not come back.
    host.fault("sriov_numvfs", 1, Does::Hangs);
    let failure = run(&host, "host vf ens1 8").expect_err("no answer");
    let says = "has 0 virtual functions instead of 8 so far; its driver still works on it";
    assert!(failure.message.contains(says), "{}", failure.message);
    host.finish_writes();
    assert_eq!(active(&host), "8\n");
}

#[test]
fn what_another_program_makes_meanwhile_is_not_undone() {
    for before in [0, 2] {
        let host = large(127);
        done(&host, &format!("host vf ens1 {before}"));
        // The write of 0, if there are some, goes well.
        host.fault("sriov_numvfs", u32::from(before > 0), Does::ComesSecond("4"));
        let failure = run(&host, "host vf ens1 8").expect_err("4 are there");
        assert!(
            failure.message.contains("to 8; another program changes it"),
            "{}",
            failure.message
        );
        assert_eq!(active(&host), "4\n");
    }
}

#[test]
fn what_was_remembered_of_functions_goes_with_them() {
    let host = large(127);
    done(&host, "host vf ens1 2 --bind");
    // 0 goes well, 8 does not.
    host.fault("sriov_numvfs", 1, Does::Fails(libc::ENOMEM));
    run(&host, "host vf ens1 8").expect_err("no room");
    assert_eq!(active(&host), "2\n");
    assert_eq!(done(&host, "host restore --all"), "Nothing is taken.\n");
}

#[test]
fn they_are_counted_without_asking_their_driver() {
    let host = large(127);
    done(&host, "host vf ens1 2");
    // As good as a read that waits for the lock which the driver has while it makes them.
    let file = host.path(format!("sys/devices/pci0000:00/{LARGE}/sriov_numvfs"));
    fs::remove_file(file).expect("there");
    let list = done(&host, "host list ens1");
    assert!(
        list.contains("VFs 2/127") && list.contains("it has 2 active virtual functions"),
        "{list}"
    );
}

#[test]
fn what_the_driver_gives_up_is_undone() {
    let host = large(127);
    done(&host, "host vf ens1 2");
    host.fault("sriov_numvfs", 1, Does::Fails(libc::ETIMEDOUT));
    run(&host, "host vf ens1 8").expect_err("the firmware does not answer");
    assert_eq!(active(&host), "2\n");
}

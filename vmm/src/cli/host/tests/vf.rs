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

//! A remedy is one that its own command would carry out, and that leaves what was wanted.

use std::fs;

use super::bind::default_route;
use super::*;

const VF: &str = "0000:01:10.0";

/// The NIC with a virtual function in its group, as in a slot without ACS.
fn without_acs() -> FakeHost {
    let host = host();
    done(&host, "host vf 01:00.0 1");
    let folder = "sys/devices/pci0000:00/0000:00:01.0/0000:01:10.0";
    fs::remove_file(host.path(folder).join("iommu_group")).expect("one");
    host.link(&format!("{folder}/iommu_group"), "sys/kernel/iommu_groups/14");
    host.link(&format!("sys/kernel/iommu_groups/14/devices/{VF}"), folder);
    host
}

/// What the doctor says of `device`, in one line.
fn diagnosis(host: &FakeHost, device: &str) -> String {
    let (text, _) = run(host, &format!("host doctor -q {device}")).expect("findings");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn refusal(host: &FakeHost, words: &str) -> String {
    run(host, words).expect_err("refused").message
}

#[test]
fn a_virtual_function_is_not_deleted_to_pass_it() {
    let host = without_acs();
    let text = diagnosis(&host, "01:10.0");
    assert!(
        text.contains("put the card into a slot whose ports have ACS, or pass 0000:01:00.0 itself"),
        "{text}"
    );
    assert!(
        !text.contains("--group") && !text.contains("strait host bind 0000:01:10.0"),
        "{text}"
    );
    let text = done(&host, "host bind 01:10.0");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.contains("0000:01:00.0 (igb) shares the group and must go too; 0000:01:10.0 would vanish"),
        "{text}"
    );
}

#[test]
fn a_virtual_function_is_not_taken_with_its_physical_one() {
    let host = without_acs();
    let before = host.picture();
    for words in [
        "host bind --group 01:10.0",
        "host bind --force 01:10.0 01:00.0",
        "host bind --group --force 01:00.0",
    ] {
        let text = refusal(&host, words);
        assert!(
            text.contains("0000:01:10.0 cannot be taken together with 0000:01:00.0"),
            "{text}"
        );
        assert!(
            text.contains("strait host vf 0000:01:00.0 0, then strait host bind 0000:01:00.0"),
            "{text}"
        );
    }
    assert!(host.picture() == before);
}

#[test]
fn virtual_functions_of_a_guest_are_not_told_to_be_deleted() {
    let host = without_acs();
    host.add_process(4711, "strait", "/dev/vfio/14");
    let text = refusal(&host, "host bind 01:00.0");
    assert!(
        text.contains("0000:01:10.0 of 0000:01:00.0 is in use by process 4711 (strait)"),
        "{text}"
    );
    assert!(!text.contains("strait host vf"), "{text}");
}

#[test]
fn what_keeps_bind_from_working_comes_first() {
    let host = host();
    default_route(&host, "eth0");
    let text = diagnosis(&host, "01:00.0");
    assert!(
        text.contains("move the default route to another interface"),
        "{text}"
    );
    assert!(text.contains("then strait host bind 0000:01:00.0"), "{text}");
    assert!(!text.contains("give it up with"), "{text}");
}

#[test]
fn what_keeps_a_group_from_working_comes_first() {
    let host = host();
    host.file(
        "sys/devices/pci0000:00/0000:00:04.0/0000:05:00.1/driver_override",
        "xen-pciback\n",
    );
    let text = diagnosis(&host, "05:00.0");
    assert!(
        text.contains("driver_override of 0000:05:00.1 is xen-pciback already"),
        "{text}"
    );
}

#[test]
fn a_bridge_with_a_driver_of_its_own_is_not_told_to_be_bound() {
    let host = host();
    host.add_driver("odd_bridge");
    host.link(
        "sys/bus/pci/devices/0000:03:00.0/driver",
        "sys/bus/pci/drivers/odd_bridge",
    );
    let text = diagnosis(&host, "04:01.0");
    let says = "0000:03:00.0 (odd_bridge) stays with the host, so pass the device from a slot with a group of its own";
    assert!(text.contains(says), "{text}");
    let text = done(&host, "host bind 04:01.0");
    assert!(text.contains("must go too; it stays with the"), "{text}");
}

#[test]
fn a_virtual_gpu_without_a_type_is_told_to_choose_one() {
    let host = without_acs();
    let folder = "sys/devices/pci0000:00/0000:00:01.0/0000:01:10.0";
    host.file(
        &format!("{folder}/nvidia/creatable_vgpu_types"),
        "ID : vGPU Name\n",
    );
    let text = diagnosis(&host, "01:10.0");
    assert!(
        text.contains("write its number into /sys/bus/pci/devices/0000:01:10.0/nvidia/current_vgpu_type"),
        "{text}"
    );
}

#[test]
fn virtual_functions_need_a_driver_that_can_be_had() {
    let host = host();
    host.add_sriov("0000:00:05.0", 4);
    let text = refusal(&host, "host vf 00:05.0 1");
    assert!(
        text.contains("has no driver") && text.contains("this kernel knows none for it"),
        "{text}"
    );
    host.file(
        "lib/modules/6.12.0/modules.alias",
        "alias pci:v00008086d00001E31sv*sd*bc* ice\n",
    );
    let text = refusal(&host, "host vf 00:05.0 1");
    assert!(text.contains("load it with: modprobe ice"), "{text}");
    done(&host, "host bind 01:00.0");
    host.add_process(4711, "strait", "/dev/vfio/14");
    let text = refusal(&host, "host vf 01:00.0 1");
    assert!(
        text.contains("in use by process 4711 (strait); end it first"),
        "{text}"
    );
}

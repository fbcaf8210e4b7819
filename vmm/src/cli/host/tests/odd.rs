//! Devices that are not what their class or the name of their driver suggests.

use std::fs;
use strait_vfio::host::Host;

use super::*;

/// A function alone in group 30, without a driver.
fn add(host: &FakeHost, path: &'static str, class: u32, driver: Option<&'static str>) {
    host.add(FakeFunction {
        path,
        class,
        ids: (0x10de, 0x1af1),
        group: Some(30),
        driver,
    });
}

/// Configuration space of the function at `path` up to its header type.
fn set_header_type(host: &FakeHost, path: &str, header: u8) {
    let mut start = [0; 64];
    start[0x0e] = header;
    fs::write(
        host.path("sys/devices/pci0000:00").join(path).join("config"),
        start,
    )
    .expect("a file");
}

#[test]
fn an_nvswitch_is_no_bridge() {
    let host = host();
    add(&host, "0000:06:00.0", 0x06_8000, None);
    set_header_type(&host, "0000:06:00.0", 0x00);
    done(&host, "host bind 06:00.0");
    assert_eq!(binding(&host, "0000:06:00.0"), "vfio-pci vfio-pci");
    assert!(done(&host, "host names").contains("0000:06:00.0"));
}

#[test]
fn a_non_transparent_bridge_of_several_functions_is_no_bridge() {
    let host = host();
    add(&host, "0000:06:00.0", 0x06_8000, Some("ntb_hw_intel"));
    set_header_type(&host, "0000:06:00.0", 0x80);
    done(&host, "host bind 06:00.0");
    assert_eq!(binding(&host, "0000:06:00.0"), "vfio-pci vfio-pci");
}

#[test]
fn an_isa_bridge_goes_with_the_sound_beside_it() {
    let host = host();
    add(&host, "0000:00:1f.0", 0x06_0100, Some("lpc_ich"));
    set_header_type(&host, "0000:00:1f.0", 0x80);
    add(&host, "0000:00:1f.3", 0x04_0300, Some("snd_hda_intel"));
    done(&host, "host bind --group 00:1f.3");
    assert_eq!(binding(&host, "0000:00:1f.0"), "vfio-pci vfio-pci");
}

#[test]
fn a_port_that_calls_itself_a_processor_is_a_bridge() {
    let host = host();
    // As the root ports of some Freescale chips do.
    add(&host, "0000:00:1c.0", 0x0b_2000, None);
    host.file("sys/devices/pci0000:00/0000:00:1c.0/secondary_bus_number", "1\n");
    let failure = run(&host, "host bind 00:1c.0").expect_err("a bridge");
    assert!(failure.message.contains("is a bridge"), "{}", failure.message);
}

/// A virtual function of the NIC in group 100, bound to `driver`, which made a VFIO device of it.
fn given_by_its_own_driver(driver: &str) -> FakeHost {
    let host = host();
    done(&host, "host vf 01:00.0 1");
    host.add_driver(driver);
    let folder = "sys/devices/pci0000:00/0000:00:01.0/0000:01:10.0";
    host.link(
        &format!("{folder}/driver"),
        &format!("sys/bus/pci/drivers/{driver}"),
    );
    host.file(&format!("{folder}/vfio-dev/vfio0/dev"), "511:0\n");
    host.file("dev/vfio/vfio", "");
    host.file("dev/vfio/100", "");
    host
}

#[test]
fn a_virtual_gpu_is_ready_as_it_is() {
    let host = given_by_its_own_driver("nvidia");
    let before = host.picture();
    let text = done(&host, "host list 01:10.0");
    assert!(text.contains("driver nvidia, which gives it to guests"), "{text}");
    assert_eq!(
        done(&host, "host bind --save 01:10.0"),
        "0000:01:10.0 is ready as it is: its driver nvidia gives it to guests itself\n"
    );
    let (text, code) = run(&host, "host doctor -q 01:10.0").expect("findings");
    assert_eq!((text.as_str(), code), ("", 0));
    assert_eq!(
        done(&host, "host restore 01:10.0"),
        "0000:01:10.0 was not taken, nvidia has it\n"
    );
    assert!(host.picture() == before);
    let vf = "0000:01:10.0".parse().expect("a name");
    strait_vfio::host::check(Host::new(&host.root(), &host), &[vf], 512 << 20).expect("what a guest needs");
}

#[test]
fn a_driver_that_migrates_is_not_replaced() {
    let host = given_by_its_own_driver("xe-vfio-pci");
    let text = done(&host, "host bind 01:10.0");
    assert!(text.contains("ready as it is"), "{text}");
    assert_eq!(binding(&host, "0000:01:10.0"), "xe-vfio-pci -");
}

#[test]
fn a_vfio_device_is_no_trouble_beside_another() {
    let host = given_by_its_own_driver("nvidia");
    host.link(
        "sys/kernel/iommu_groups/14/devices/0000:01:10.0",
        "sys/devices/pci0000:00/0000:00:01.0/0000:01:10.0",
    );
    let text = run(&host, "host doctor 01:00.0").expect("findings").0;
    assert!(text.contains("0000:01:10.0 (nvidia, given away)"), "{text}");
}

#[test]
fn vfio_makes_virtual_functions_where_it_is_told_to() {
    let host = host();
    done(&host, "host bind 01:00.0");
    host.file("sys/module/vfio_pci/parameters/enable_sriov", "Y\n");
    done(&host, "host vf 01:00.0 1");
    assert_eq!(binding(&host, "0000:01:10.0"), "- -");
}

/// A host with a function whose `driver` is in a module of another name, which nothing has loaded since.
fn unloaded(class: u32, module: &str, driver: &'static str) -> FakeHost {
    let host = host();
    let aliases = format!("alias pci:v000010DEd00001AF1sv*sd*bc* {module}\n");
    host.file("lib/modules/6.12.0/modules.alias", &aliases);
    add(&host, "0000:06:00.0", class, Some(driver));
    done(&host, "host bind 06:00.0");
    fs::remove_dir_all(host.path("sys/bus/pci/drivers").join(driver)).expect("unloaded");
    host
}

#[test]
fn a_driver_of_a_module_with_another_name_comes_back() {
    for (class, module, driver) in [
        (0x0c_0330, "xhci_pci", "xhci_hcd"),
        (0x0c_0500, "i2c_i801", "i801_smbus"),
    ] {
        let host = unloaded(class, module, driver);
        let text = done(&host, "host restore 06:00.0");
        assert_eq!(text, format!("0000:06:00.0 went back to {driver}\n"));
        let host = unloaded(class, module, driver);
        fs::remove_dir_all(host.path("run/strait")).expect("as after a reboot");
        done(&host, "host restore 06:00.0");
        assert_eq!(binding(&host, "0000:06:00.0"), format!("{driver} -"));
    }
}

#[test]
fn a_device_can_be_given_to_a_driver_of_a_module_with_another_name() {
    let host = unloaded(0x0c_0330, "xhci_pci", "xhci_hcd");
    done(&host, "host bind --force --driver xhci_hcd 06:00.0");
    assert_eq!(binding(&host, "0000:06:00.0"), "xhci_hcd xhci_hcd");
}

#[test]
fn the_module_of_a_driver_is_no_second_driver() {
    let host = host();
    host.file(
        "lib/modules/6.12.0/modules.alias",
        "alias pci:v000010DEd00001AF1sv*sd*bc* xhci_pci\n",
    );
    add(&host, "0000:06:00.0", 0x0c_0330, Some("xhci_hcd"));
    host.link("sys/bus/pci/drivers/xhci_hcd/module", "sys/module/xhci_pci");
    let text = done(&host, "host list 06:00.0");
    assert!(text.contains("    driver xhci_hcd, group 30"), "{text}");
}

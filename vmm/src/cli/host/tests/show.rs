//! What `list` and `doctor` print.

use std::io;
use strait_vfio::host::Host;

use super::bind::default_route;
use super::*;

#[test]
fn everything_fits_80_columns() {
    let host = host();
    let ids = "8086  Intel Corporation\n\t10c9  A Very Long Name of a Gigabit Network Connection With All the \
               Trimmings\n";
    host.file("usr/share/misc/pci.ids", ids);
    for words in [
        "host list",
        "host list --tree",
        "host list --groups",
        "host doctor 01:00.0 02:00.0",
    ] {
        let (text, _) = run(&host, words).expect(words);
        let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(long.is_empty(), "{words}: {long:?}");
    }
}

#[test]
fn the_list_has_driver_group_names_and_uses() {
    let host = host();
    default_route(&host, "eth0");
    let text = done(&host, "host list eth0");
    assert_eq!(
        text,
        "0000:01:00.0 Ethernet controller: device 8086:10c9 [8086:10c9]\n    \
         driver igb, group 14, reset flr/bus, VFs 0/7, interface eth0\n    \
         in use: eth0 carries the default route\n"
    );
}

#[test]
fn classes_choose() {
    let host = host();
    for (class, bdf) in [
        ("net", NIC),
        ("display", GPU),
        ("nvme", NVME),
        ("usb", "0000:00:05.0"),
        ("audio", SOUND),
    ] {
        let text = done(&host, &format!("host list --class {class}"));
        assert!(
            text.contains(bdf) && !text.contains("0000:00:00.0"),
            "{class}: {text}"
        );
    }
}

#[test]
fn the_tree_is_drawn_with_bridges() {
    let text = done(&host(), "host list --tree --class net");
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.split(',').next().unwrap_or_default())
        .collect();
    let expected = [
        "computer",
        "  |",
        "  +- 0000:00:01.0 PCI bridge",
        "  |   |",
        "  |   +- 0000:01:00.0 Ethernet controller",
        "  +- 0000:00:03.0 PCI bridge",
        "      |",
        "      +- 0000:03:00.0 PCI bridge",
        "          |",
        "          +- 0000:04:01.0 Ethernet controller",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn groups_hold_their_members() {
    let text = done(&host(), "host list --groups");
    assert!(
        text.contains("IOMMU group 17\n  0000:05:00.0 VGA compatible controller [0300]"),
        "{text}"
    );
}

#[test]
fn json_is_json() {
    let list: serde_json::Value = serde_json::from_str(&done(&host(), "host list --json")).expect("JSON");
    let devices = list.as_array().expect("a list");
    assert_eq!(devices.len(), FUNCTIONS.len());
    let nic = devices
        .iter()
        .find(|device| device["bdf"] == NIC)
        .expect("the NIC");
    assert_eq!(nic["sriov"]["max"], 7);
    let (text, _) = run(&host(), "host doctor --json 01:00.0").expect("findings");
    let findings: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(findings[0]["check"], "cpu");
}

#[test]
fn a_bound_device_passes_the_doctor() {
    let host = host();
    done(&host, "host bind 01:00.0");
    host.file("dev/vfio/vfio", "");
    host.file("dev/vfio/14", "");
    let (text, code) = run(&host, "host doctor -q 01:00.0").expect("findings");
    assert_eq!((text.as_str(), code), ("", 0));
}

/// What the doctor says about one thing that is wrong, and that it ends with 1.
fn diagnosis(change: impl Fn(&FakeHost), words: &str) -> String {
    let host = host();
    done(&host, "host bind 01:00.0");
    host.file("dev/vfio/vfio", "");
    host.file("dev/vfio/14", "");
    change(&host);
    let (text, code) = run(&host, words).expect("findings");
    assert_eq!(code, u8::from(text.contains("FAIL")), "{text}");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_illness_is_named_with_its_cure() {
    let about = |change: &dyn Fn(&FakeHost)| diagnosis(change, "host doctor -q 01:00.0");
    let gone = |host: &FakeHost, path: &str| std::fs::remove_file(host.path(path)).expect("there");

    let text = about(&|host| host.file("proc/cpuinfo", "flags : fpu\n"));
    assert!(text.contains("FAIL Does the CPU run virtual machines?"), "{text}");
    let text = about(&|host| gone(host, "dev/kvm"));
    assert!(
        text.contains("there is no /dev/kvm -> turn virtualization on"),
        "{text}"
    );
    let text = about(&|host| host.file("sys/module/kvm_intel/parameters/nested", "N\n"));
    assert!(
        text.contains("WARN May guests run guests") && text.contains("options kvm_intel nested=1"),
        "{text}"
    );
    let text = about(&|host| gone(host, "sys/firmware/acpi/tables/DMAR"));
    assert!(text.contains("FAIL Does the firmware offer an IOMMU?"), "{text}");
    let text = about(&|host| host.file("sys/class/iommu/dmar0/intel-iommu/cap", "c0000000100000\n"));
    assert!(
        text.contains("17 address bits, pages of 4 KiB alone -> give the guest less memory"),
        "{text}"
    );
    let text = about(&|host| host.file("proc/interrupts", "24: 0 PCI-MSI\n"));
    assert!(text.contains("FAIL Are device interrupts remapped?"), "{text}");
    let text = about(&|host| {
        host.file("proc/interrupts", "24: 0 PCI-MSI\n");
        host.file(
            "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
            "Y\n",
        );
    });
    assert!(text.contains("WARN Are device interrupts remapped?"), "{text}");
    let text = about(&|host| host.file("lib/modules/6.12.0/modules.dep", "kernel/vfio.ko:\n"));
    assert!(
        text.contains("vfio loaded") || text.contains("vfio_pci missing"),
        "{text}"
    );
    let text = about(&|host| host.file("etc/modules", "vfio\nvfio_virqfd\n"));
    assert!(
        text.contains("take the line from /etc/modules and run update-initramfs -u"),
        "{text}"
    );
    let text = about(&|host| {
        host.file("proc/self/status", "CapEff:\t0\n");
        host.file("proc/self/limits", "Max locked memory 8388608 8388608 bytes\n");
    });
    assert!(
        text.contains(
            "512 MiB, but the limit is 8 MiB -> run as root, or raise it: `USER - memlock 524288` in"
        ),
        "{text}"
    );
    let text = about(&|host| {
        host.file(
            "sys/kernel/mm/transparent_hugepage/enabled",
            "always madvise [never]\n",
        );
    });
    assert!(text.contains("WARN Is there memory in large pages?"), "{text}");
    let text = about(&|host| host.file("sys/module/vfio_iommu_type1/parameters/dma_entry_limit", "100\n"));
    assert!(text.contains("WARN Are enough DMA mappings allowed?"), "{text}");
    let text = about(&|host| {
        host.file(
            "sys/kernel/iommu_groups/14/reserved_regions",
            "0x1000 0x1fff direct\n",
        );
    });
    assert!(text.contains("0x1000-0x1fff for 0000:01:00.0 (RMRR)"), "{text}");
    let text = about(&|host| {
        gone(
            host,
            "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/reset_method",
        );
    });
    assert!(text.contains("WARN Can it be reset?"), "{text}");
    let resource = "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/resource";
    let text = about(&|host| host.file(resource, "0x0 0x7fffffff 0x40200\n"));
    assert!(
        text.contains("FAIL Do its BARs fit into the guest? 2 GiB of 2560 MiB below 4 GiB"),
        "{text}"
    );
    let text = about(&|host| gone(host, "dev/vfio/vfio"));
    assert!(
        text.contains("the host has no /dev/vfio/vfio -> load VFIO"),
        "{text}"
    );
}

#[test]
fn more_address_spaces_lock_more_memory() {
    let limits = |host: &FakeHost| {
        host.file("proc/self/status", "CapEff:\t0\n");
        host.file(
            "proc/self/limits",
            "Max locked memory 1073741824 1073741824 bytes\n",
        );
    };
    let text = diagnosis(limits, "host doctor -q --memory 512M 01:00.0");
    assert_eq!(text, "");
    let text = diagnosis(limits, "host doctor -q --memory 512M --address-spaces 3 01:00.0");
    assert!(text.contains("1536 MiB, but the limit is 1024 MiB"), "{text}");
}

#[test]
fn a_boot_screen_is_told() {
    let host = host();
    host.file(
        "proc/iomem",
        "c0000000-cfffffff : 0000:05:00.0\n  c0000000-c0300000 : efifb\n",
    );
    let (text, code) = run(&host, "host doctor -q 05:00.0").expect("findings");
    assert_eq!(code, 1);
    assert!(text.contains("efifb still holds"), "{text}");
}

#[test]
fn doctor_and_run_say_the_same() {
    let host = host();
    let (text, _) = run(&host, "host doctor 01:00.0").expect("findings");
    let nic = NIC.parse().expect("a name");
    let refusal =
        strait_vfio::host::check(Host::new(&host.root(), &host), &[nic], 512 << 20).expect_err("igb has it");
    assert!(text.contains(&refusal.fact()), "{text}");
    assert!(text.contains(&refusal.remedy().expect("one")), "{text}");
}

#[test]
fn a_guest_with_an_iommu_needs_a_mapping_for_each_page() {
    const LIMIT: &str = "sys/module/vfio_iommu_type1/parameters/dma_entry_limit";
    let about = |limit: &str, words: &str| {
        diagnosis(
            |host: &FakeHost| host.file(LIMIT, limit),
            &format!("host doctor {words}"),
        )
    };
    let text = about("65535\n", "-q --viommu --memory 2G");
    assert!(
        text.contains("WARN Are enough DMA mappings allowed? dma_entry_limit is 65535;")
            && text.contains("up to 524288 for each device")
            && text.contains("-> strait host bind --dma-entries 524288"),
        "{text}"
    );
    let text = about("65535\n", "--memory 2G");
    assert!(
        text.contains("PASS Are enough DMA mappings allowed?") && text.contains("may need up to 524288"),
        "{text}"
    );
    let text = about("524288\n", "--viommu --memory 2G");
    assert!(
        text.contains("dma_entry_limit is 524288, enough for every page of 2048 MiB"),
        "{text}"
    );
}

#[test]
fn a_bar_with_side_effects_counts_below_4_gib_whatever_its_width() {
    let path = "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/resource";
    let doctor = |flags| {
        diagnosis(
            |host: &FakeHost| host.file(path, &format!("0x0 0x3fffffff {flags}\n")),
            "host doctor 01:00.0",
        )
    };
    let not_prefetchable = doctor("0x140204");
    assert!(
        not_prefetchable.contains("PASS Do its BARs fit into the guest? 1 GiB of 1536 MiB below 4 GiB, 0 of"),
        "{not_prefetchable}"
    );
    let prefetchable = doctor("0x14220c");
    assert!(
        prefetchable.contains("0 of 512 MiB below 4 GiB, 1 GiB of"),
        "{prefetchable}"
    );
}

#[test]
fn a_shell_that_completes_disturbs_no_disk() {
    let host = host();
    let names = done(&host, "host names");
    assert!(
        names.contains("0000:02:00.0\t") && names.contains("(nvme)"),
        "{names}"
    );
    assert!(names.contains("\nnvme0n1\t"), "{names}");
    assert!(host.take_asked().is_empty());
    done(&host, "host list");
    assert_eq!(host.take_asked(), ["nvme0n1"]);
}

/// An output that takes nothing, for this reason.
struct Refusing(io::ErrorKind);

impl io::Write for Refusing {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure_and_a_full_disk_is_one() {
    let list = |kind| {
        let cli = parse_from(["strait", "host", "list"]).expect("a command");
        let Command::Host(args) = cli.command else {
            panic!("another command");
        };
        let (host, mut out) = (host(), Refusing(kind));
        args.run(Host::new(&host.root(), &host), &mut Screen::plain(&mut out))
            .map_err(|failure| failure.code)
    };
    assert_eq!(list(io::ErrorKind::BrokenPipe), Ok(0));
    assert_eq!(list(io::ErrorKind::StorageFull), Err(1));
}

//! Binding and restoring when they go well.

use std::fs;
use std::io;
use std::path::Path;
use std::process;

use strait_vfio::host::testing::Does;

use super::*;

#[test]
fn a_device_goes_to_vfio_and_comes_back() {
    let host = host();
    host.add_driver("vfio-pci");
    let before = host.picture();
    assert_eq!(
        done(&host, "host bind 01:00.0"),
        "0000:01:00.0 went from igb to vfio-pci\n"
    );
    assert_eq!(binding(&host, NIC), "vfio-pci vfio-pci");
    assert_eq!(
        done(&host, "host restore 01:00.0"),
        "0000:01:00.0 went back to igb\n"
    );
    assert!(host.picture() == before, "something is left");
}

#[test]
fn vfio_is_loaded_when_needed() {
    let host = host();
    done(&host, "host bind 02:00.0");
    assert_eq!(binding(&host, NVME), "vfio-pci vfio-pci");
}

#[test]
fn names_of_all_kinds_are_understood() {
    for name in [
        "eth0",
        "01:00.0",
        "pci_0000_01_00_0",
        "8086:10c9",
        "/sys/bus/pci/devices/0000:01:00.0",
    ] {
        let host = host();
        done(&host, &format!("host bind {name}"));
        assert_eq!(binding(&host, NIC), "vfio-pci vfio-pci", "{name}");
    }
    let host = host();
    done(&host, "host bind nvme0n1");
    assert_eq!(binding(&host, NVME), "vfio-pci vfio-pci");
}

#[test]
fn names_of_other_tools_are_understood() {
    let pairs = [
        ("detach 01:00.0", "reattach 01:00.0"),
        ("set-override 01:00.0 vfio-pci", "unset-override 01:00.0"),
        ("bind eth0", "unbind 01:00.0"),
    ];
    for (there, back) in pairs {
        let host = host();
        done(&host, &format!("host {there}"));
        assert_eq!(binding(&host, NIC), "vfio-pci vfio-pci", "{there}");
        done(&host, &format!("host {back}"));
        assert_eq!(binding(&host, NIC), "igb -", "{back}");
    }
}

#[test]
fn a_group_comes_along_without_its_bridges() {
    let host = host();
    done(&host, "host bind --group 05:00.0");
    assert_eq!(binding(&host, GPU), "vfio-pci vfio-pci");
    assert_eq!(binding(&host, SOUND), "vfio-pci vfio-pci");
    done(&host, "host bind --group 04:01.0");
    assert_eq!(binding(&host, RTL), "vfio-pci vfio-pci");
    assert_eq!(binding(&host, "0000:03:00.0"), "- -");
    done(&host, "host restore --all");
    assert_eq!(binding(&host, SOUND), "snd_hda_intel -");
    assert_eq!(binding(&host, RTL), "8139cp -");
}

#[test]
fn who_else_must_go_is_told() {
    let text = done(&host(), "host bind 05:00.0");
    assert!(
        text.contains("0000:05:00.1 (snd_hda_intel) shares the group and must go too"),
        "{text}"
    );
}

#[test]
fn a_device_that_is_bound_already_is_left_alone() {
    let host = host();
    done(&host, "host bind 01:00.0");
    let before = host.picture();
    assert_eq!(
        done(&host, "host bind 01:00.0"),
        "0000:01:00.0 is bound to vfio-pci already\n"
    );
    assert!(host.picture() == before);
}

#[test]
fn a_device_without_driver_has_none_afterwards() {
    let host = host();
    let before = binding(&host, "0000:00:05.0");
    done(&host, "host bind 00:05.0");
    assert_eq!(
        done(&host, "host restore 00:05.0"),
        "0000:00:05.0 went back to having no driver\n"
    );
    assert_eq!(binding(&host, "0000:00:05.0"), before);
}

#[test]
fn a_foreign_override_comes_back_too() {
    let host = host();
    host.file(
        "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/driver_override",
        "igb\n",
    );
    done(&host, "host bind --force 01:00.0");
    done(&host, "host restore 01:00.0");
    assert_eq!(binding(&host, NIC), "igb igb");
}

#[test]
fn a_second_driver_does_not_hide_the_first() {
    let host = host();
    done(&host, "host bind 01:00.0");
    done(&host, "host bind --force --driver uio_pci_generic 01:00.0");
    assert_eq!(binding(&host, NIC), "uio_pci_generic uio_pci_generic");
    done(&host, "host restore 01:00.0");
    assert_eq!(binding(&host, NIC), "igb -");
}

#[test]
fn a_failed_second_driver_leaves_the_way_back_to_the_first() {
    let host = host();
    done(&host, "host bind 01:00.0");
    host.fault("drivers_probe", 0, Does::Nothing);
    run(&host, "host bind --force --driver uio_pci_generic 01:00.0").expect_err("nobody probes");
    assert_eq!(binding(&host, NIC), "vfio-pci vfio-pci");
    done(&host, "host restore 01:00.0");
    assert_eq!(binding(&host, NIC), "igb -");
}

#[test]
fn force_takes_what_is_used() {
    let host = host();
    default_route(&host, "eth0");
    let text = done(&host, "host bind --force eth0");
    assert!(text.contains("though eth0 carries the default route"), "{text}");
    assert_eq!(binding(&host, NIC), "vfio-pci vfio-pci");
}

#[test]
fn a_dry_run_tells_and_does_nothing() {
    let host = host();
    let before = host.picture();
    let text = done(&host, "host bind --dry-run --save 01:00.0 02:00.0");
    assert_eq!(
        text,
        "0000:01:00.0 would go from igb to vfio-pci\n0000:02:00.0 would go from nvme to vfio-pci\n"
    );
    assert!(host.picture() == before);
}

#[test]
fn a_saved_binding_is_repeated_at_boot_until_restore() {
    let host = host();
    host.add_driver("vfio-pci");
    let before = host.picture();
    done(&host, "host bind --save 01:00.0");
    let rule =
        fs::read_to_string(host.path("etc/udev/rules.d/10-strait-0000:01:00.0.rules")).expect("a rule");
    assert!(
        rule.contains("KERNEL==\"0000:01:00.0\", ATTR{driver_override}=\"vfio-pci\""),
        "{rule}"
    );
    let modules =
        fs::read_to_string(host.path("etc/modules-load.d/strait-0000:01:00.0.conf")).expect("a list");
    assert!(modules.ends_with("\nvfio-pci\n"), "{modules}");
    done(&host, "host restore 01:00.0");
    assert!(host.picture() == before);
}

#[test]
fn a_binding_that_was_saved_before_outlasts_one_that_cannot_be() {
    let host = host();
    done(&host, "host bind --save --driver uio_pci_generic 01:00.0");
    let saved = [
        "udev/rules.d/10-strait-0000:01:00.0.rules",
        "modules-load.d/strait-0000:01:00.0.conf",
    ];
    let read = || saved.map(|file| fs::read_to_string(host.path("etc").join(file)).expect("saved"));
    let before = read();
    // The second device's list cannot be written.
    fs::create_dir_all(host.path("etc/modules-load.d/strait-0000:02:00.0.conf")).expect("a folder");
    let failure = run(&host, "host bind --save --force 01:00.0 02:00.0").expect_err("a folder is in the way");
    assert!(
        failure
            .message
            .starts_with("cannot save the binding of 0000:02:00.0"),
        "{}",
        failure.message
    );
    assert_eq!(read(), before);
    assert!(
        !host
            .path("etc/udev/rules.d/10-strait-0000:02:00.0.rules")
            .exists()
    );
    assert_eq!(binding(&host, NIC), "uio_pci_generic uio_pci_generic");
}

#[test]
fn a_saved_binding_of_a_card_that_is_gone_is_forgotten() {
    for words in ["host restore 01:00.0", "host restore --all"] {
        let host = host();
        done(&host, "host bind --save 01:00.0");
        let rule = host.path("etc/udev/rules.d/10-strait-0000:01:00.0.rules");
        // Pulled out and booted anew.
        fs::remove_dir_all(host.path("run/strait")).expect("as after a reboot");
        fs::remove_file(host.path("sys/bus/pci/devices/0000:01:00.0")).expect("as after a reboot");
        assert!(rule.exists());
        assert_eq!(done(&host, words), "0000:01:00.0 is gone and forgotten\n");
        assert!(!rule.exists());
    }
}

/// The host as udev's rule finds it at boot where the initramfs gave the disk to nvme.
fn booted_with_saved_disk() -> FakeHost {
    let host = host();
    done(&host, "host bind --save 02:00.0");
    fs::remove_dir_all(host.path("run/strait")).expect("as after a reboot");
    let folder = host.path("sys/bus/pci/devices/0000:02:00.0");
    fs::remove_file(folder.join("driver")).expect("as after a reboot");
    host.link(
        "sys/bus/pci/devices/0000:02:00.0/driver",
        "sys/bus/pci/drivers/nvme",
    );
    host
}

/// What the rule has strait do at boot.
fn command_of_the_rule(host: &FakeHost) -> String {
    let rule = host.path("etc/udev/rules.d/10-strait-0000:02:00.0.rules");
    let rule = fs::read_to_string(rule).expect("a rule");
    let (_, command) = rule.rsplit_once("RUN+=\"").expect("a command");
    let (program, words) = command.split_once(' ').expect("arguments");
    assert!(Path::new(program).is_absolute(), "{rule}");
    words.trim_end_matches("\"\n").to_owned()
}

#[test]
fn what_the_initramfs_took_is_taken_from_it_at_boot() {
    let host = booted_with_saved_disk();
    done(&host, &command_of_the_rule(&host));
    assert_eq!(binding(&host, NVME), "vfio-pci vfio-pci");
    done(&host, "host restore 02:00.0");
    assert_eq!(binding(&host, NVME), "nvme -");
    assert!(
        !host
            .path("etc/udev/rules.d/10-strait-0000:02:00.0.rules")
            .exists()
    );
}

#[test]
fn what_the_host_boots_from_is_not_taken_at_boot() {
    let host = booted_with_saved_disk();
    host.file(
        "proc/self/mountinfo",
        "36 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw\n",
    );
    run(&host, &command_of_the_rule(&host)).expect_err("in use");
    assert_eq!(binding(&host, NVME), "nvme vfio-pci");
}

#[test]
fn what_the_initramfs_needs_is_told_for_each_distribution() {
    for (id, says) in [
        ("debian", "    update-initramfs -u\n"),
        ("fedora", "    f=/etc/dracut.conf.d/strait.conf;"),
        ("arch", "    mkinitcpio -P\n"),
    ] {
        let host = host();
        host.file("etc/os-release", &format!("ID={id}\n"));
        let text = done(&host, "host bind --save 02:00.0");
        assert!(
            text.contains("initramfs loads nvme") && text.contains(says),
            "{text}"
        );
        let long: Vec<&str> = text.lines().filter(|line| line.len() > 80).collect();
        assert!(long.is_empty(), "{long:?}");
    }
}

/// Types into `shell` what is printed for distribution `id` to a folder that stands for `/etc`, but for the last command,
/// and then `build` with and without a rule. What it prints each time, and how it ends.
fn images(id: &str, shell: &str, build: &str) -> [(String, bool); 2] {
    let host = host();
    host.file("etc/os-release", &format!("ID={id}\n"));
    let text = done(&host, "host bind --save 02:00.0");
    let commands: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    let (_, commands) = commands.split_last().expect("commands");
    for folder in ["initramfs-tools/hooks", "mkinitcpio.conf.d", "dracut.conf.d"] {
        fs::create_dir_all(host.path("etc").join(folder)).expect("a folder");
    }
    let etc = host.path("etc").display().to_string();
    let run = |script: &str| {
        // The image's own path stays as it is.
        let script = script
            .replace("/etc/", &format!("{etc}/"))
            .replace(&format!("$DESTDIR{etc}/"), "$DESTDIR/etc/");
        let output = process::Command::new(shell)
            .args(["-c", &script])
            .env("DESTDIR", host.path("image"))
            .output();
        let output = output.expect("a shell");
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (text.replace(&etc, "/etc"), output.status.success())
    };
    assert_eq!(run(&commands.join("\n")), (String::new(), true));
    let with = run(build);
    done(&host, "host restore 02:00.0");
    fs::remove_dir_all(host.path("image"))
        .or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })
        .expect("removed");
    [with, run(build)]
}

#[test]
fn an_image_can_be_made_after_a_restore_too() {
    let rule = "10-strait-0000:02:00.0.rules\n";
    let hook = "/etc/initramfs-tools/hooks/strait && ls $DESTDIR/etc/udev/rules.d";
    assert_eq!(
        images("debian", "sh", hook),
        [(rule.to_owned(), true), (String::new(), true)]
    );
    // mkinitcpio is a script for bash and ends where this file fails.
    let list = ". /etc/mkinitcpio.conf.d/strait.conf && printf '%s ' $MODULES ${FILES[@]}";
    assert_eq!(
        images("arch", "bash", list),
        [
            (format!("vfio_pci /etc/udev/rules.d/{} ", rule.trim_end()), true),
            ("vfio_pci ".to_owned(), true)
        ]
    );
    // So is dracut, which takes an optional item only where it is.
    let list = ". /etc/dracut.conf.d/strait.conf && printf '%s' \"$install_items\"";
    assert_eq!(
        images("fedora", "bash", list),
        [(String::new(), true), (String::new(), true)]
    );
}

#[test]
fn an_override_that_came_after_the_driver_is_no_obstacle_to_restore() {
    let host = host();
    let file = "sys/devices/pci0000:00/0000:00:02.0/0000:02:00.0/driver_override";
    for override_driver in ["vfio-pci", "pci-stub"] {
        host.file(file, &format!("{override_driver}\n"));
        done(&host, "host bind --force 02:00.0");
        done(&host, "host restore 02:00.0");
        assert_eq!(binding(&host, NVME), format!("nvme {override_driver}"));
    }
}

#[test]
fn without_a_journal_looks_are_enough() {
    let host = host();
    done(&host, "host bind 01:00.0 02:00.0");
    fs::remove_dir_all(host.path("run/strait")).expect("as after a reboot");
    let text = done(&host, "host restore --all");
    assert_eq!(
        text,
        "0000:01:00.0 went back to igb\n0000:02:00.0 went back to nvme\n"
    );
    assert_eq!(binding(&host, NIC), "igb -");
}

#[test]
fn a_damaged_journal_is_no_obstacle_to_restore() {
    let host = host();
    done(&host, "host bind 01:00.0");
    host.file("run/strait/undo/0000:01:00.0", "strait undo 1\ndriver ");
    done(&host, "host restore 01:00.0");
    assert_eq!(binding(&host, NIC), "igb -");
    assert!(!host.path("run/strait/undo/0000:01:00.0").exists());
}

#[test]
fn a_crash_between_any_two_writes_is_undone() {
    // Killed after so many of: override, unbind, probe.
    for writes in 0..3 {
        let host = host();
        host.add_driver("vfio-pci");
        let before = host.picture();
        let entry = "strait undo 1\ndriver igb\noverride -\nbound vfio-pci\nowner -\n";
        host.file("run/strait/undo/0000:01:00.0", entry);
        let folder = host.path("sys/bus/pci/devices/0000:01:00.0");
        if writes > 0 {
            fs::write(folder.join("driver_override"), "vfio-pci\n").expect("override");
        }
        if writes > 1 {
            fs::remove_file(folder.join("driver")).expect("unbind");
        }
        done(&host, "host restore --all");
        assert!(host.picture() == before, "after {writes} writes");
    }
}

#[test]
fn what_vanished_is_forgotten() {
    let host = host();
    done(&host, "host bind 01:00.0");
    fs::remove_file(host.path("sys/bus/pci/devices/0000:01:00.0")).expect("unplugged");
    assert_eq!(
        done(&host, "host restore --all"),
        "0000:01:00.0 is gone and forgotten\n"
    );
    assert_eq!(done(&host, "host restore --all"), "Nothing is taken.\n");
}

#[test]
fn what_was_not_taken_stays() {
    let host = host();
    let before = host.picture();
    assert_eq!(
        done(&host, "host restore 01:00.0"),
        "0000:01:00.0 was not taken, igb has it\n"
    );
    assert!(host.picture() == before);
}

#[test]
fn what_was_taken_for_a_process_that_ended_goes_back_with_the_next_command() {
    let host = host();
    done(&host, "host bind 01:00.0");
    let entry = "strait undo 1\ndriver igb\noverride -\nbound vfio-pci\nowner 4711 99\n";
    host.file("run/strait/undo/0000:01:00.0", entry);
    let fields = "S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0";
    host.file("proc/4711/stat", &format!("4711 (strait (x)) {fields} 99 0\n"));
    done(&host, "host list");
    assert_eq!(binding(&host, NIC), "vfio-pci vfio-pci");
    // The same number, but another process.
    host.file("proc/4711/stat", &format!("4711 (bash) {fields} 12345 0\n"));
    done(&host, "host list");
    assert_eq!(binding(&host, NIC), "igb -");
}

/// A default route through `interface`.
pub(super) fn default_route(host: &FakeHost, interface: &str) {
    let heading = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
    let route = format!("{interface}\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n");
    host.file("proc/net/route", &format!("{heading}{route}"));
}

#[test]
fn the_limit_of_mappings_is_raised_and_put_back_with_the_last_device() {
    const LIMIT: &str = "sys/module/vfio_iommu_type1/parameters/dma_entry_limit";
    let host = host();
    host.add_driver("vfio-pci");
    host.file(LIMIT, "65535\n");
    let (before, limit) = (host.picture(), || host.root().text(LIMIT).expect("there"));
    let text = done(&host, "host bind --dry-run --dma-entries 262144 01:00.0");
    assert!(
        text.contains("dma_entry_limit would go from 65535 to 262144"),
        "{text}"
    );
    assert!(host.picture() == before);

    let text = done(&host, "host bind --dma-entries 262144 01:00.0");
    assert!(
        text.contains("dma_entry_limit went from 65535 to 262144"),
        "{text}"
    );
    done(&host, "host bind 02:00.0");
    let text = done(&host, "host bind --dma-entries 131072 02:00.0");
    assert!(text.contains("dma_entry_limit is as high already"), "{text}");
    done(&host, "host restore 01:00.0");
    assert_eq!(limit(), "262144");
    done(&host, "host restore --all");
    assert!(host.picture() == before, "something is left");
}

#[test]
fn a_bind_that_fails_leaves_the_limit_of_mappings() {
    const LIMIT: &str = "sys/module/vfio_iommu_type1/parameters/dma_entry_limit";
    let host = host();
    host.add_driver("vfio-pci");
    host.file(LIMIT, "65535\n");
    let before = host.picture();
    host.fault("drivers_probe", 0, Does::Nothing);
    run(&host, "host bind --dma-entries 262144 01:00.0").expect_err("not taken");
    assert!(host.picture() == before);
}

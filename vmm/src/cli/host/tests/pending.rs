//! A driver that does not come back within the time that a command waits: the way back is kept.

use strait_vfio::host::Usage;
use strait_vfio::host::testing::Does;

use super::*;

const IN_TRANSIT: &str = "it is not known what it is used for, since the kernel works on it and does not tell before \
                          that is done, nor lets this command end";

fn has_way_back(host: &FakeHost, bdf: &str) -> bool {
    host.path("run/strait/undo").join(bdf).exists()
}

/// Binding the NIC ends in `hang`, and says so.
fn hung(hang: Does) -> FakeHost {
    let host = host();
    host.add_driver("vfio-pci");
    host.fault("driver/unbind", 0, hang);
    let failure = run(&host, "host bind 01:00.0").expect_err("no answer");
    let says = "cannot take 0000:01:00.0 from igb yet; a process that uses it keeps the driver waiting, and the \
                kernel still works on it; end that process, then strait host restore 0000:01:00.0: the kernel has \
                not come back within 20 s, and this command cannot end before it does";
    assert_eq!(failure.message, says);
    host
}

#[test]
fn a_driver_that_lets_go_later_can_be_given_its_device_back() {
    let host = hung(Does::Hangs);
    assert!(has_way_back(&host, NIC));
    host.finish_writes();
    assert_eq!(binding(&host, NIC), "- vfio-pci");
    assert_eq!(
        done(&host, "host restore 01:00.0"),
        "0000:01:00.0 went back to igb\n"
    );
    assert_eq!(binding(&host, NIC), "igb -");
}

#[test]
fn a_driver_that_has_only_lost_its_link_has_not_let_go() {
    let host = hung(Does::HangsHalfway(NIC));
    assert!(has_way_back(&host, NIC));
    host.finish_writes();
    done(&host, "host restore --all");
    assert_eq!(binding(&host, NIC), "igb -");
}

#[test]
fn restoring_too_early_keeps_the_way_back() {
    let host = hung(Does::Hangs);
    run(&host, "host restore 01:00.0").expect_err("the kernel still works on it");
    assert!(has_way_back(&host, NIC));
    host.finish_writes();
    done(&host, "host restore 01:00.0");
    assert_eq!(binding(&host, NIC), "igb -");
}

#[test]
fn what_the_kernel_does_not_tell_meanwhile_is_not_waited_for() {
    let host = hung(Does::Hangs);
    for words in ["host list 01:00.0", "host doctor 01:00.0"] {
        let (text, _) = run(&host, words).expect("told");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(IN_TRANSIT), "{words}: {text}");
    }
    let says = "cannot read driver_override of 0000:01:00.0 yet; a process that uses it keeps the driver waiting, and \
                the kernel still works on it; end that process, then strait host restore 0000:01:00.0: the kernel has \
                not come back within 20 s, and this command cannot end before it does";
    for words in ["host restore 01:00.0", "host bind 01:00.0"] {
        assert_eq!(run(&host, words).expect_err("it is not told").message, says);
    }
    assert!(has_way_back(&host, NIC));
    // All others are told.
    let others = done(&host, "host list 02:00.0");
    assert!(!others.contains("not known"), "{others}");
    host.finish_writes();
    assert!(!done(&host, "host list 01:00.0").contains("not known"));
}

#[test]
fn files_of_what_the_kernel_works_on_are_not_known() {
    let host = host();
    let folder = format!("sys/devices/pci0000:00/{NVME_PATH}/nvme/nvme0/nvme0n1");
    host.file(
        &format!("{folder}/uevent"),
        "MAJOR=259\nMINOR=0\nDEVNAME=nvme0n1\n",
    );
    host.fault("driver/unbind", 0, Does::HangsHalfway(NVME));
    run(&host, "host bind 02:00.0").expect_err("no answer");
    let usage = Usage::read(&host.root());
    let uses = usage.of(&host.root(), &host, NVME.parse().expect("a name"));
    let told: Vec<String> = uses.iter().map(ToString::to_string).collect();
    assert_eq!(told, [IN_TRANSIT]);
}

#[test]
fn the_others_go_back_at_once() {
    let host = host();
    host.fault("driver/unbind", 1, Does::Hangs);
    run(&host, "host bind 01:00.0 02:00.0").expect_err("no answer");
    assert_eq!(binding(&host, NIC), "igb -");
    assert!(!has_way_back(&host, NIC) && has_way_back(&host, NVME));
}

#[test]
fn a_probe_that_hangs_keeps_the_way_back() {
    let host = host();
    host.fault("drivers_probe", 0, Does::Hangs);
    run(&host, "host bind 01:00.0").expect_err("no answer");
    assert!(has_way_back(&host, NIC));
    host.finish_writes();
    assert_eq!(binding(&host, NIC), "vfio-pci vfio-pci");
    done(&host, "host restore 01:00.0");
    assert_eq!(binding(&host, NIC), "igb -");
}

#[test]
fn vfio_that_hangs_at_restore_keeps_the_way_back() {
    let host = host();
    done(&host, "host bind 01:00.0");
    host.fault("driver/unbind", 0, Does::Hangs);
    let failure = run(&host, "host restore 01:00.0").expect_err("no answer");
    assert!(
        failure.message.contains("keeps the driver waiting"),
        "{}",
        failure.message
    );
    assert!(has_way_back(&host, NIC));
    host.finish_writes();
    done(&host, "host restore 01:00.0");
    assert_eq!(binding(&host, NIC), "igb -");
}

#[test]
fn binding_again_after_the_driver_has_let_go_keeps_the_way_back() {
    let host = hung(Does::Hangs);
    host.finish_writes();
    assert_eq!(binding(&host, NIC), "- vfio-pci");
    done(&host, "host bind 01:00.0");
    assert_eq!(
        done(&host, "host restore 01:00.0"),
        "0000:01:00.0 went back to igb\n"
    );
    assert_eq!(binding(&host, NIC), "igb -");
}

#[test]
fn binding_again_before_the_driver_lets_go_keeps_the_way_back() {
    let host = hung(Does::Hangs);
    assert_eq!(binding(&host, NIC), "igb vfio-pci");
    run(&host, "host bind 01:00.0").expect_err("the kernel still works on it");
    host.finish_writes();
    done(&host, "host restore 01:00.0");
    assert_eq!(binding(&host, NIC), "igb -");
}

#[test]
fn binding_again_after_one_that_was_killed_keeps_the_way_back() {
    let host = host();
    host.add_driver("vfio-pci");
    // Killed between the override and the unbinding.
    let entry = "strait undo 1\ndriver igb\noverride -\nbound vfio-pci\nowner -\n";
    host.file("run/strait/undo/0000:01:00.0", entry);
    host.file(
        "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/driver_override",
        "vfio-pci\n",
    );
    done(&host, "host bind 01:00.0");
    done(&host, "host restore 01:00.0");
    assert_eq!(binding(&host, NIC), "igb -");
}

#[test]
fn what_another_tool_set_since_a_killed_bind_comes_back() {
    let host = host();
    let entry = "strait undo 1\ndriver igb\noverride -\nbound vfio-pci\nowner -\n";
    host.file("run/strait/undo/0000:01:00.0", entry);
    host.file(
        "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/driver_override",
        "igb\n",
    );
    done(&host, "host bind --force 01:00.0");
    done(&host, "host restore 01:00.0");
    assert_eq!(binding(&host, NIC), "igb igb");
}

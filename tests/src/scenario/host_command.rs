//! Preparing the lab host with `strait host`: devices go to vfio-pci and come back to drivers that work.

use anyhow::{Context as _, Result, ensure};

use super::{Lab, Scenario};
use crate::guest::GuestConfig;
use crate::lab::devices::NIC;
use crate::supplies::HOST_SERIES;
use crate::supplies::command::last_line;

const COLUMNS: usize = 80;

/// What the scripts share: failing at the first wrong step, and the names of the NIC's interface.
const START: &str = "set -e\nNIC=0000:01:00.0; NVME=0000:02:00.0\n\
                     interface() { ls /sys/bus/pci/devices/$1/net | head -n 1; }\n\
                     driver() { basename $(readlink /sys/bus/pci/devices/$1/driver); }\n\
                     carrier() { for i in $(seq 100); do [ $(cat /sys/class/net/$1/carrier) = 1 ] && break; \
                     sleep 0.1; done; }\n\
                     refused() { if strait host \"$@\" 2> /tmp/refusal; then false; fi; cat /tmp/refusal; }\n";

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenarios = vec![
        Scenario::new(
            "host-list",
            "every device is listed with driver, group and names in 80 columns",
            180,
            list,
        ),
        Scenario::new(
            "host-doctor",
            "the doctor passes a bound NIC and nothing else",
            60,
            doctor,
        ),
        Scenario::new(
            "host-bind-nic",
            "a NIC in use is refused, bound, restored, and pings again",
            90,
            |lab| {
                script(
                    lab,
                    BIND_NIC,
                    &["carries the default route", "3 packets received"],
                )
            },
        ),
        Scenario::new(
            "host-bind-vf",
            "virtual functions are made with address and VLAN, bound, and taken away",
            90,
            |lab| script(lab, BIND_VF, &["vlan 5", "active virtual functions"]),
        )
        .full(),
        Scenario::new(
            "host-bind-nvme",
            "a mounted disk is refused; bound and restored it has its file",
            90,
            |lab| {
                script(
                    lab,
                    BIND_NVME,
                    &["nvme0n1 is mounted at /tmp/disk", "the file is whole"],
                )
            },
        ),
        Scenario::new(
            "host-bind-behind-bridge",
            "an old NIC goes without its bridge, comes back and pings",
            90,
            |lab| script(lab, BIND_BEHIND_BRIDGE, &["may stay", "3 packets received"]),
        )
        .full(),
        Scenario::new(
            "host-crash",
            "what a killed command took goes back, with the journal and without",
            60,
            |lab| script(lab, CRASH, &["went back to igb", "went back to nvme"]),
        ),
        Scenario::new(
            "host-managed",
            "managed=on binds for one guest and gives back at its end",
            180,
            managed,
        ),
        Scenario::new(
            "host-managed-kill",
            "after a kill the next command gives back what was taken",
            180,
            managed_kill,
        ),
        Scenario::new(
            "host-managed-signal",
            "a signal during the start ends it, and the device goes back",
            180,
            |lab| script(lab, &SIGNALS.replace("SERIES", HOST_SERIES), &["5 starts ended"]),
        )
        .full(),
    ];
    scenarios.into_iter().map(Scenario::strait_only).collect()
}

fn list(lab: &Lab<'_>) -> Result<()> {
    for words in ["", "--tree", "--groups"] {
        let text = lab.agent.sh(&format!("strait host list {words}"))?;
        lab.log(&text);
        for word in [NIC.at(), "igb", "nvme0n1", "8139cp", "82576"] {
            // A tree has classes in place of names.
            let shown = text.contains(word) || (words == "--tree" && word == "82576");
            ensure!(shown, "`list {words}` does not show {word}");
        }
        let wide = text.lines().find(|line| line.chars().count() > COLUMNS);
        ensure!(
            wide.is_none(),
            "`list {words}` is wider than {COLUMNS} columns: {wide:?}"
        );
    }
    lab.agent
        .sh("strait host list --json | grep -q '\"bdf\": \"0000:01:00.0\"'")?;
    Ok(())
}

fn doctor(lab: &Lab<'_>) -> Result<()> {
    let text = script_output(
        lab,
        "strait host doctor $NIC && false\n\
         strait host bind --dma-entries 70000 $NIC\n\
         limit=/sys/module/vfio_iommu_type1/parameters/dma_entry_limit; [ $(cat $limit) = 70000 ]\n\
         strait host doctor $NIC\n\
         strait host doctor -q $NIC > /tmp/quiet; [ ! -s /tmp/quiet ]\n\
         strait host restore $NIC; [ $(cat $limit) = 65535 ]",
    )?;
    ensure!(
        text.contains("0000:01:00.0 is bound to igb instead of vfio-pci"),
        "The doctor does not say who has the NIC: {text}"
    );
    Ok(())
}

const BIND_NIC: &str = "eth=$(interface $NIC)\n\
    ip link set $eth up; ip addr add 10.0.2.15/24 dev $eth; ip route add default via 10.0.2.2\n\
    refused bind $NIC; refused bind $eth\n\
    [ $(driver $NIC) = igb ]\n\
    ip addr flush dev $eth; ip link set $eth down\n\
    strait host bind $eth\n\
    [ $(driver $NIC) = vfio-pci ]; [ -e /run/strait/undo/$NIC ]\n\
    strait host restore $NIC\n\
    [ $(driver $NIC) = igb ]; [ ! -e /run/strait/undo/$NIC ]\n\
    eth=$(interface $NIC); ip link set $eth up; carrier $eth; ip addr add 10.0.2.15/24 dev $eth\n\
    busybox ping -c 3 -W 5 10.0.2.2\n\
    ip addr flush dev $eth; ip link set $eth down";

const BIND_VF: &str = "eth=$(interface $NIC)\n\
    ip link set $eth up; carrier $eth\n\
    strait host vf $eth 2 --bind --mac 52:54:00:00:00:10,52:54:00:00:00:11 --vlan 0,5\n\
    ip link show $eth | tee /tmp/links\n\
    grep -q 'vf 0 .*52:54:00:00:00:10' /tmp/links; grep -q 'vf 1 .*52:54:00:00:00:11.*vlan 5' /tmp/links\n\
    for vf in 0000:01:10.0 0000:01:10.2; do [ $(driver $vf) = vfio-pci ]; strait host doctor -q $vf; done\n\
    refused bind $NIC\n\
    strait host restore 0000:01:10.0; [ ! -e /sys/bus/pci/devices/0000:01:10.0/driver ]\n\
    strait host vf $NIC 0\n\
    [ -z \"$(ls /run/strait/undo)\" ]\n\
    ip link set $eth down";

const BIND_NVME: &str = "modprobe ext4; busybox mke2fs /dev/nvme0n1 > /dev/null\n\
    mkdir -p /tmp/disk; mount -t ext4 /dev/nvme0n1 /tmp/disk\n\
    head -c 1000000 /dev/urandom > /tmp/disk/file; sum=$(sha256sum < /tmp/disk/file)\n\
    refused bind nvme0n1; refused bind $NVME\n\
    umount /tmp/disk\n\
    strait host bind nvme0n1; [ $(driver $NVME) = vfio-pci ]\n\
    strait host restore $NVME; [ $(driver $NVME) = nvme ]\n\
    for i in $(seq 100); do [ -b /dev/nvme0n1 ] && break; sleep 0.1; done\n\
    mount -t ext4 /dev/nvme0n1 /tmp/disk\n\
    [ \"$(sha256sum < /tmp/disk/file)\" = \"$sum\" ] && echo the file is whole\n\
    umount /tmp/disk";

const BIND_BEHIND_BRIDGE: &str = "rtl=$(basename $(ls -d /sys/bus/pci/drivers/8139cp/0000:*))\n\
    strait host bind --group $rtl; [ $(driver $rtl) = vfio-pci ]\n\
    strait host doctor $rtl\n\
    strait host restore $rtl; [ $(driver $rtl) = 8139cp ]\n\
    eth=$(interface $rtl); ip link set $eth up; carrier $eth; ip addr add 10.0.3.15/24 dev $eth\n\
    busybox ping -c 3 -W 5 10.0.3.2\n\
    ip addr flush dev $eth; ip link set $eth down";

/// Killed between two writes, the journal is there and the device has no driver; after a reboot without the
/// journal only the override tells.
const CRASH: &str = "strait host bind $NIC\n\
    echo $NIC > /sys/bus/pci/devices/$NIC/driver/unbind\n\
    strait host restore --all; [ $(driver $NIC) = igb ]\n\
    strait host bind $NVME; rm -r /run/strait\n\
    strait host restore --all; [ $(driver $NVME) = nvme ]\n\
    for i in $(seq 100); do [ -b /dev/nvme0n1 ] && break; sleep 0.1; done; [ -b /dev/nvme0n1 ]";

/// One start for each thing that can be seen of it from outside: the way back is written, vfio-pci has the NIC, its
/// group is open, RAM is being taken; before the guest runs, and beside it. The loops fork nothing, so that they see it in
/// time.
const SIGNALS: &str = "group=/dev/vfio/$(basename $(readlink /sys/bus/pci/devices/$NIC/iommu_group))\n\
    journal() { [ -e /run/strait/undo/$NIC ]; }\n\
    bound() { [ /sys/bus/pci/devices/$NIC/driver -ef /sys/bus/pci/drivers/vfio-pci ]; }\n\
    opened() { for fd in /proc/$pid/fd/*; do [ $fd -ef $group ] && return; done; false; }\n\
    populating() { read size resident rest < /proc/$pid/statm && [ $resident -gt 40000 ]; }\n\
    ended() { strait -v run --kernel /lab/guest/vmlinuz-SERIES --initrd /lab/guest/initramfs-SERIES --memory 1G$3 \\\n\
        --device $NIC,managed=on < /dev/null > /tmp/console 2> /tmp/errors & pid=$!\n\
        until $2 2> /dev/null; do kill -0 $pid; done; kill -$1 $pid\n\
        code=0; wait $pid || code=$?; echo \"$1 when $2: $code\"; cat /tmp/errors; [ $code = 0 ]\n\
        [ -z $3 ] || { grep 'Ended by a signal' /tmp/errors; [ ! -s /tmp/console ]; }\n\
        [ $(driver $NIC) = igb ]; [ ! -e /run/strait/undo/$NIC ]; }\n\
    first=,prealloc=on; ended TERM journal $first; ended INT bound $first; ended HUP opened $first\n\
    ended TERM populating $first; ended TERM populating ''; echo 5 starts ended";

/// Runs `text`, which must succeed and say all of `words`.
fn script(lab: &Lab<'_>, text: &str, words: &[&str]) -> Result<()> {
    let output = script_output(lab, text)?;
    for word in words {
        ensure!(output.contains(word), "It does not say `{word}`: {output}");
    }
    Ok(())
}

/// What `text` prints; it is kept, and whatever is taken goes back.
fn script_output(lab: &Lab<'_>, text: &str) -> Result<String> {
    let finished = lab.script(&format!("({START}{text}\n) 2>&1"))?;
    let undone = lab.agent.sh("strait host restore --all");
    ensure!(
        finished.code == 0,
        "The script failed ({}): {}",
        finished.code,
        last_line(&finished.output)
    );
    undone.context("Cannot restore what was taken")?;
    Ok(finished.output)
}

fn driver(lab: &Lab<'_>) -> Result<String> {
    let name = format!("basename $(readlink /sys/bus/pci/devices/{}/driver)", NIC.at());
    Ok(lab.agent.sh(&name)?.trim().to_owned())
}

fn managed_config() -> GuestConfig {
    GuestConfig::with(&[&format!("{},managed=on", NIC.at())])
}

fn managed(lab: &Lab<'_>) -> Result<()> {
    lab.run(&managed_config(), |guest| {
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)?;
        let during = driver(lab)?;
        ensure!(
            during == "vfio-pci",
            "The NIC is bound to {during} while the guest runs"
        );
        Ok(())
    })?;
    let after = driver(lab)?;
    ensure!(
        after == "igb",
        "The NIC is bound to {after} after the guest's end"
    );
    Ok(())
}

fn managed_kill(lab: &Lab<'_>) -> Result<()> {
    lab.start(&managed_config(), |guest| {
        guest.ready()?;
        lab.eth0().up(guest, "igb")?;
        guest.kill()
    })?;
    let left = driver(lab)?;
    ensure!(
        left == "vfio-pci",
        "The NIC is bound to {left} right after the kill"
    );
    lab.agent.sh("strait host list > /tmp/list")?;
    let after = driver(lab)?;
    ensure!(
        after == "igb",
        "The NIC is bound to {after} after the next command"
    );
    Ok(())
}

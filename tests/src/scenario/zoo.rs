//! Every device there is: each is given to a guest that was never driven by the host, probed by the guest's own driver,
//! interrupts, moves data, is taken from its driver and given back to it, and outlives a reboot.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::{Kind, Lab, Scenario};
use crate::guest::{Guest, GuestConfig};
use crate::lab::zoo::{self, But, Family, Inhabitant};

/// Bytes that a NIC fetches. Some take an exit a word.
const FETCHED: usize = 1 << 18;

/// Devices that are in one guest together, in the default tier.
const TOGETHER: [&str; 2] = ["e1000e", "virtio-net"];

/// What a host says when a device that cannot be reset goes on with addresses of its last guest: its IOMMU blocks it.
const FAULTS: [&str; 2] = ["DMAR: DRHD: handling fault status", "DMAR: [DMA"];

pub(super) fn scenarios() -> Vec<Scenario> {
    let several = zoo::ALL.iter().filter(|one| TOGETHER.contains(&one.name)).collect();
    let each = zoo::ALL.iter().map(|one| visit("zoo", one.name, vec![one]).full());
    std::iter::once(visit("zoo", "together", several))
        .chain(each)
        .map(|one| one.on(Kind::Zoo))
        .collect()
}

/// A guest with these devices.
pub(super) fn visit(prefix: &str, name: &str, inhabitants: Vec<&'static Inhabitant>) -> Scenario {
    let names: Vec<&str> = inhabitants.iter().map(|one| one.name).collect();
    let about = format!("{}: probed, used, given back to the driver, rebooted", names.join(", "));
    let run = move |lab: &Lab<'_>| meet(lab, &inhabitants);
    Scenario::new(format!("{prefix}-{name}"), about, 300, run).warns(&FAULTS)
}

fn meet(lab: &Lab<'_>, inhabitants: &[&Inhabitant]) -> Result<()> {
    let functions: Vec<String> = inhabitants
        .iter()
        .map(|one| lab.take(&one.at()).with_context(|| one.name))
        .collect::<Result<_>>()?;
    let functions: Vec<&str> = functions.iter().map(String::as_str).collect();
    let config = GuestConfig {
        initrd: "zoo",
        ..GuestConfig::with(&functions)
    };
    let mut failures = Vec::new();
    lab.run(&config, |guest| {
        for (state, give_back) in [("at first", false), ("given back to its driver", true), ("after a reboot", false)] {
            if state == "after a reboot" {
                guest.reboot()?;
            }
            for (bus, one) in (1..).zip(inhabitants) {
                if let Err(error) = prove(lab, guest, one, bus, give_back) {
                    failures.push(format!("{} {state}: {error:#}", one.name));
                }
            }
        }
        Ok(())
    })?;
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

/// What a guest is told first: the device's folder, and how many interrupts it has had.
const DEVICE: &str = "irqs() {
        for irq in $(ls $d/msi_irqs 2> /dev/null || cat $d/irq); do sed -n \"s/^ *$irq: //p\" /proc/interrupts; done |
            awk '{ for (i = 1; i <= NF && $i ~ /^[0-9]+$/; i++) sum += $i } END { print sum + 0 }'
    }
    driven() { [ -e $d/driver ]; }
    class() { for f in /sys/class/$1/*; do case $(readlink -f $f) in $(readlink -f $d)/*) basename $f ;; esac; done; }
    has() { [ -n \"$(class $1)\" ]; }";

/// A NIC has an interface; its address is its own network's.
const NIC: &str = "wait_until 20 has net || fail there is no interface
    net=$(class net | head -n 1); ip addr flush dev $net; ip addr add $network.15/24 dev $net; ip link set $net up
    wait_until 30 grep -q 1 /sys/class/net/$net/carrier || fail there is no link
    ping -c 2 -W 10 $network.2 > /dev/null || fail no answer to pings
    found=$(wget -q -O - $url | sha256sum | cut -d ' ' -f 1)
    [ $found = $hash ] || fail data arrived with SHA-256 $found";

const DRIVE: &str = "wait_until 30 has block || fail there is no drive
    drive=$(class block | head -n 1)
    [ $(keep /dev/$drive 4 | sort -u | wc -l) = 1 ] || fail what was read is not what was written";

const SOUND: &str = "wait_until 20 has sound || fail there is no card
    card=$(class sound | sed -n 's/^card//p' | head -n 1); [ $card != 0 ] || card=
    wait_until 10 test -e /dev/dsp$card || fail there is no /dev/dsp$card
    timeout 60 dd if=/dev/urandom of=/dev/dsp$card bs=4096 count=4 2> /dev/null || fail it does not play";

/// Behind the lines that the kernel's own console may draw on.
const DISPLAY: &str = "wait_until 20 has graphics || fail there is no frame buffer
    fb=/dev/$(class graphics | grep '^fb' | head -n 1)
    dd if=/dev/urandom of=/tmp/picture bs=4096 count=64 2> /dev/null
    dd if=/tmp/picture of=$fb bs=4096 seek=64 2> /dev/null
    dd if=$fb bs=4096 skip=64 count=64 2> /dev/null | cmp - /tmp/picture || fail the picture is another";

const SERIAL: &str = "[ $(class tty | wc -l) = $ports ] || fail it has the ports $(class tty)
    for port in $(class tty); do stty raw < /dev/$port; exec 3<> /dev/$port; head -c 2000 /dev/zero | tr '\\0' x > /dev/$port; done";

fn prove(lab: &Lab<'_>, guest: &mut Guest<'_>, one: &Inhabitant, bus: u32, give_back: bool) -> Result<()> {
    let load = match one.drivers {
        [] => String::new(),
        drivers => format!("load {}", drivers.join(" ")),
    };
    let change = match give_back {
        true => {
            "driver=$(readlink -f $d/driver); echo ${d##*/} > $driver/unbind; ! driven || fail it keeps its driver
             echo ${d##*/} > $driver/bind"
        }
        false => &load,
    };
    let number = one.number();
    let proof = match one.family {
        Family::Nic => {
            let outside = lab.outside;
            format!(
                "network=10.1.{number}; url=http://10.1.{number}.2:{}/bytes/{FETCHED}; hash={}\n{NIC}",
                outside.port,
                outside.hash(FETCHED)
            )
        }
        Family::Drive => DRIVE.to_owned(),
        Family::Sound => SOUND.to_owned(),
        Family::Display => DISPLAY.to_owned(),
        Family::Serial(ports) => format!("ports={ports}\n{SERIAL}"),
        Family::Other(command) => format!("{command} > /dev/null || fail it does not do what it is for"),
    };
    let interrupts = match one.but {
        Some(But::NoInterrupt) => "",
        None => "[ $(irqs) -gt $before ] || fail no interrupt was taken",
    };
    let before = file_len(lab, number, one)?;
    guest.sh(&format!(
        "d=/sys/bus/pci/devices/0000:{bus:02x}:00.0\n{DEVICE}\n{change}
         wait_until 20 driven || fail no driver takes it
         before=$(irqs)\n{proof}\n{interrupts}"
    ))?;
    if let Family::Serial(_) = one.family {
        let written = file_len(lab, number, one)? - before;
        ensure!(written == 2000, "{written} bytes left its first port, expected 2000");
    }
    Ok(())
}

/// What has left a serial port.
fn file_len(lab: &Lab<'_>, number: usize, one: &Inhabitant) -> Result<u64> {
    match one.family {
        Family::Serial(_) => {
            let file = lab.host.file(&zoo::file_name(number));
            Ok(fs::metadata(&file).with_context(|| format!("Cannot look at {}", file.display()))?.len())
        }
        _ => Ok(0),
    }
}

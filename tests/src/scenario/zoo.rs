//! Every device there is: each is given to a guest that was never driven by the host, probed by the guest's own driver,
//! interrupts, moves data, is taken from its driver and given back to it, and outlives a reboot.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::{Kind, Lab, Scenario};
use crate::guest::{Guest, GuestConfig};
use crate::lab::housing::{self, Lodger};
use crate::lab::zoo::{But, Family};

/// Bytes that a NIC fetches. Some take an exit a word.
const FETCHED: usize = 1 << 18;

/// Devices that are in one guest together, in the default tier.
const TOGETHER: [&str; 2] = ["e1000e", "virtio-net"];

/// What a host says when a device that cannot be reset goes on with addresses of its last guest: its IOMMU blocks it.
pub(super) const FAULTS: [&str; 2] = ["DMAR: DRHD: handling fault status", "DMAR: [DMA"];

pub(super) fn scenarios() -> Vec<Scenario> {
    let all = housing::lodgers(Kind::Zoo);
    let several = all
        .iter()
        .filter(|one| TOGETHER.contains(&one.inhabitant.name))
        .copied()
        .collect();
    let each = all
        .iter()
        .map(|one| visit(one.inhabitant.name, vec![*one]).full());
    std::iter::once(visit("together", several))
        .chain(each)
        .map(|one| one.on(Kind::Zoo))
        .collect()
}

/// A guest with these devices.
fn visit(name: &str, lodgers: Vec<Lodger>) -> Scenario {
    let names: Vec<&str> = lodgers.iter().map(|one| one.inhabitant.name).collect();
    let about = format!("{}: probed, used, given back to the driver, rebooted", names.join(", "));
    let run = move |lab: &Lab<'_>| meet(lab, &lodgers);
    Scenario::new(format!("zoo-{name}"), about, 300, run).warns(&FAULTS)
}

fn meet(lab: &Lab<'_>, lodgers: &[Lodger]) -> Result<()> {
    let functions: Vec<String> = lodgers
        .iter()
        .map(|one| lab.take(&one.at()).with_context(|| one.inhabitant.name))
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
            for (bus, lodger) in (1..).zip(lodgers) {
                let load = match lodger.inhabitant.drivers {
                    [] => String::new(),
                    drivers => format!("load {}", drivers.join(" ")),
                };
                let before = if give_back { GIVE_BACK } else { &load };
                let proof = Proof {
                    lodger,
                    bus,
                    before,
                    behind: "",
                };
                if let Err(error) = proof.ask(lab, guest) {
                    failures.push(format!("{} {state}: {error:#}", lodger.inhabitant.name));
                }
            }
        }
        Ok(())
    })?;
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

/// The driver loses it, and takes it anew.
const GIVE_BACK: &str = "driver=$(readlink -f $d/driver)
    echo ${d##*/} > $driver/unbind; ! driven || fail it keeps its driver
    echo ${d##*/} > $driver/bind";

/// What a guest is told first: the device's folder, and how many interrupts it has had.
const DEVICE: &str = "lines() { ls $d/msi_irqs 2> /dev/null | grep . || cat $d/irq; }
    irqs() {
        for irq in $(lines); do sed -n \"s/^ *$irq: //p\" /proc/interrupts; done |
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

const CHANNEL: &str = "wait_until 20 has virtio-ports || fail there is no channel
    head -c 2000 /dev/zero | tr '\\0' x > /dev/$(class virtio-ports)";

/// What a guest is told first of the device on this bus.
pub(super) fn device(bus: u32) -> String {
    format!("d=/sys/bus/pci/devices/0000:{bus:02x}:00.0\n{DEVICE}")
}

/// What a guest is asked, to show that it can use a device.
pub(super) struct Proof<'a> {
    pub(super) lodger: &'a Lodger,
    /// Its bus in the guest.
    pub(super) bus: u32,
    /// What makes a driver take it.
    pub(super) before: &'a str,
    /// What is looked at in the end.
    pub(super) behind: &'a str,
}

impl Proof<'_> {
    pub(super) fn ask(&self, lab: &Lab<'_>, guest: &mut Guest<'_>) -> Result<()> {
        let interrupts = match self.lodger.inhabitant.but {
            Some(But::NoInterrupt) => "",
            // A driver may turn messages on only behind its probe: what was counted before is the wire's, which others have.
            None => "[ \"$(lines)\" = \"$before\" ] || had=0; [ $(irqs) -gt $had ] || fail no interrupt was taken",
        };
        let left = self.file_len(lab)?;
        guest.sh(&format!(
            "{}\n{}\nwait_until 20 driven || fail no driver takes it
             before=$(lines); had=$(irqs)\n{}\n{interrupts}\n{}",
            device(self.bus),
            self.before,
            self.use_of_it(lab),
            self.behind
        ))?;
        if let Family::Serial(_) | Family::Channel = self.lodger.inhabitant.family {
            let written = self.file_len(lab)? - left;
            ensure!(written == 2000, "{written} bytes left its first port, expected 2000");
        }
        Ok(())
    }

    fn use_of_it(&self, lab: &Lab<'_>) -> String {
        let number = self.lodger.number;
        match self.lodger.inhabitant.family {
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
            Family::Channel => CHANNEL.to_owned(),
            Family::Other(command) => format!("{command} > /dev/null || fail it does not do what it is for"),
        }
    }

    /// What has left a port.
    fn file_len(&self, lab: &Lab<'_>) -> Result<u64> {
        match self.lodger.inhabitant.family {
            Family::Serial(_) | Family::Channel => {
                let file = lab.host.file(&self.lodger.file_name());
                Ok(fs::metadata(&file).with_context(|| format!("Cannot look at {}", file.display()))?.len())
            }
            _ => Ok(0),
        }
    }
}

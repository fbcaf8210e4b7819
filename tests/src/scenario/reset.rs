//! Resets of devices: how each is done, and what is left of a guest's work after one.

use anyhow::{Result, ensure};

use super::{Lab, Scenario};
use crate::guest::{GuestConfig, says};
use crate::lab::devices::{E1000E, EDU, NIC, XHCI};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "reset-methods",
            "four kinds of devices over a reboot: each is reset in its own way, which is said once",
            240,
            methods,
        )
        .strait_only(),
        Scenario::new(
            "reset",
            "the guest resets its NIC, five times under traffic",
            240,
            |lab| resets(lab, 5, true),
        ),
        Scenario::new("reset-200", "two hundred resets of an idle NIC", 2400, |lab| {
            resets(lab, 200, false)
        })
        .full(),
        Scenario::new("reset-traffic-50", "fifty resets under traffic", 1200, |lab| {
            resets(lab, 50, true)
        })
        .full(),
    ]
}

fn methods(lab: &Lab<'_>) -> Result<()> {
    let [first, second] = E1000E.functions else {
        anyhow::bail!("The NIC has not two functions");
    };
    let functions = [NIC.at(), XHCI.at(), EDU.at(), first, second];
    for function in functions {
        lab.take(function)?;
    }
    let config = GuestConfig {
        more: &["-v"],
        ..GuestConfig::with(&functions)
    };
    let finished = lab.start(&config, |guest| {
        guest.ready()?;
        guest.reboot()?;
        guest.power_off()
    })?;
    let sentences = [
        format!("{} is reset by the kernel with flr", NIC.at()),
        format!("{} is reset by the kernel with bus", XHCI.at()),
        format!("{} has no way to be reset", EDU.at()),
        format!("{first} is reset with its bus, that is {first}, {second}"),
        format!("{second} is reset with its bus, that is {first}, {second}"),
    ];
    for sentence in &sentences {
        let times = finished.errors.matches(sentence.as_str()).count();
        ensure!(times == 1, "It says `{sentence}` {times} times, not once");
    }
    ensure!(
        !finished.errors.contains("cannot be reset"),
        "A reset failed: {}",
        finished.errors
    );
    Ok(())
}

/// A reset under the driver, which leaves the receiver off.
const RESET: &str = "device=$(readlink -f /sys/class/net/eth0/device); function=${device##*/}
    receiver() { /bin/ethtool -d eth0 | sed -n 's/^ *Receiver: *//p' | head -n 1; }
    [ $(receiver) = enabled ] || fail the receiver is off before the reset
    dmesg -c > /dev/null
    echo 1 > $device/reset";

/// The driver starts over. When igb happens to read a register in the middle of a reset, it takes the NIC for lost and
/// must be bound anew.
const START_OVER: &str = "if dmesg | grep -q 'PCIe link lost'; then
        echo $function > /sys/bus/pci/drivers/igb/unbind; echo $function > /sys/bus/pci/drivers/igb/bind
        wait_until 20 test -e /sys/class/net/eth0 || fail no eth0 after the reset
        ip addr add 10.0.2.15/24 dev eth0
    else
        [ $(receiver) = disabled ] || fail the receiver is on after the reset
        ip link set eth0 down
    fi
    ip link set eth0 up";

/// It works again.
const WORKS: &str = "wait_until 30 grep -q 1 /sys/class/net/eth0/carrier || fail no link after the reset
    ping -c 1 -W 10 10.0.2.2 > /dev/null";

/// An idle NIC is asked to work again after every tenth reset.
fn resets(lab: &Lab<'_>, times: u32, with_traffic: bool) -> Result<()> {
    let config = GuestConfig {
        initrd: "devices",
        ..GuestConfig::with(&[&lab.take(NIC.at())?])
    };
    lab.run(&config, |guest| {
        guest.sh("load igb")?;
        lab.eth0().up(guest, "igb")?;
        let flood = lab.eth0().flood_script();
        let script = if with_traffic {
            format!("for n in $(seq {times}); do\n{flood}\n{RESET}\nkill $!\n{START_OVER}\n{WORKS}\ndone; echo $n")
        } else {
            format!("for n in $(seq {times}); do\n{RESET}\n{START_OVER}\n[ $((n % 10)) != 0 ] || {{ {WORKS}\n}}\ndone; echo $n")
        };
        says(guest, &script, &times.to_string())?;
        lab.eth0().ping(guest)?;
        lab.eth0().fetch(guest)
    })
}

//! In which state a host may hand a device over, times how it interrupts. A guest visits all devices that there are for
//! a combination: each is probed by its stock driver, interrupts as it should, and moves data.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::zoo::{self, Proof};
use super::{Kind, Lab, Scenario};
use crate::guest::{Guest, GuestConfig};
use crate::lab::hand_over::{self, Interrupts, Visitor};
use crate::lab::housing::{self, Lodger};
use crate::lab::zoo::{But, Family};

/// What the lab host may say besides: its NVMe driver makes nothing of the drive's memory buffer, nor did it before a
/// guest had the drive, and its SATA driver knows QEMU's disk.
const WARNINGS: [&str; 5] = [
    zoo::FAULTS[0],
    zoo::FAULTS[1],
    "failed to register the CMB",
    "applying quirks: bridgeok",
    "LPM support broken",
];

/// What a device went through before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is as the machine's reset and its firmware left it.
    Undriven,
    /// The host's driver had it, and gets it back.
    Driven,
    /// It is in D3hot.
    Asleep,
    /// The VMM of the guest before was killed, and its messages are on.
    Abandoned,
}

impl State {
    /// Undriven comes first: nothing else finds a device in this state.
    const ALL: [Self; 4] = [Self::Undriven, Self::Driven, Self::Asleep, Self::Abandoned];

    fn name(self) -> &'static str {
        match self {
            Self::Undriven => "undriven",
            Self::Driven => "driven",
            Self::Asleep => "asleep",
            Self::Abandoned => "abandoned",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Undriven => "never driven",
            Self::Driven => "taken from the host's driver, and given back to it",
            Self::Asleep => "in D3hot",
            Self::Abandoned => "left by a VMM that was killed, with messages on",
        }
    }

    /// Whether a device can be in it.
    fn is_for(self, visitor: &Visitor) -> bool {
        match self {
            Self::Undriven => !visitor.is_driven_at_once(),
            Self::Asleep => visitor.sleeps,
            Self::Driven => visitor.is_left_in_peace,
            // Where it has no way to be reset it goes on with its DMA when the next guest lets it, into what is that one's
            // memory at the old addresses: a killed VMM cannot stop it, and who starts it is warned.
            Self::Abandoned => visitor.sleeps,
        }
    }
}

/// A device that is handed over.
struct Handed {
    visitor: &'static Visitor,
    lodger: Lodger,
    /// Its bus in the guest.
    bus: u32,
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let all = State::ALL
        .into_iter()
        .flat_map(|state| Interrupts::ALL.map(|interrupts| (state, interrupts)));
    all.filter(|(state, interrupts)| !devices(*state, *interrupts).is_empty())
        .map(|(state, interrupts)| {
            let name = format!("zoo-hand-over-{}-{}", state.name(), interrupts.name());
            let names: Vec<&str> = devices(state, interrupts)
                .iter()
                .map(|one| one.lodger.inhabitant.name)
                .collect();
            let about = format!("{}, then used by {}: {}", state.about(), interrupts.name(), names.join(", "));
            Scenario::new(name, about, 600, move |lab| hand_over(lab, state, interrupts))
                .on(Kind::HandOver)
                .warns(&WARNINGS)
                .full()
        })
        .collect()
}

fn devices(state: State, interrupts: Interrupts) -> Vec<Handed> {
    let all = hand_over::all().zip(housing::lodgers(Kind::HandOver));
    let chosen = all.filter(|(visitor, _)| visitor.interrupts == interrupts && state.is_for(visitor));
    let numbered = (1..).zip(chosen).map(|(bus, (visitor, lodger))| Handed {
        visitor,
        lodger,
        bus,
    });
    numbered.collect()
}

fn hand_over(lab: &Lab<'_>, state: State, interrupts: Interrupts) -> Result<()> {
    let devices = devices(state, interrupts);
    if state != State::Driven {
        return visit(lab, state, &devices);
    }
    let verdict = drive_on_host(lab, &devices).and_then(|()| visit(lab, state, &devices));
    let given_back = lab.give_back().and_then(|()| look_on_host(lab, &devices));
    let released = release_on_host(lab, &devices);
    verdict.and(given_back).and(released)
}

/// Gives the devices to a guest in this state.
fn visit(lab: &Lab<'_>, state: State, devices: &[Handed]) -> Result<()> {
    let mut functions = Vec::new();
    for one in devices {
        functions.push(lab.take(&one.lodger.at()).with_context(|| one.name())?);
    }
    let functions: Vec<&str> = functions.iter().map(String::as_str).collect();
    let mut config = GuestConfig {
        initrd: "zoo",
        ..GuestConfig::with(&functions)
    };
    if devices[0].visitor.interrupts == Interrupts::Intx {
        config = config.told("pci=nomsi");
    }
    match state {
        State::Undriven | State::Driven => {}
        State::Asleep => set_bits(lab, devices, |_| Some("CAP_PM+4.w=3:3"))?,
        State::Abandoned => {
            abandon(lab, &config, devices)?;
            set_bits(lab, devices, |one| match one.visitor.interrupts {
                Interrupts::Intx => None,
                Interrupts::Msi => Some("CAP_MSI+2.w=1:1"),
                Interrupts::Msix => Some("CAP_MSIX+2.w=8000:8000"),
            })?;
        }
    }
    let mut failures = Vec::new();
    lab.run(&config, |guest| {
        for one in devices {
            if let Err(error) = one.prove(lab, guest) {
                failures.push(format!("{}: {error:#}", one.name()));
            }
        }
        Ok(())
    })?;
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

/// Kills a VMM whose guest's drivers have the devices.
fn abandon(lab: &Lab<'_>, config: &GuestConfig, devices: &[Handed]) -> Result<()> {
    lab.start(config, |guest| {
        guest.ready()?;
        for one in devices {
            guest.sh(&one.drive()).with_context(|| one.name())?;
        }
        guest.kill()
    })
}

/// Sets bits of the configuration space, as `setpci` is told: a register, a value and a mask.
fn set_bits(
    lab: &Lab<'_>,
    devices: &[Handed],
    bits: impl Fn(&Handed) -> Option<&'static str>,
) -> Result<()> {
    for one in devices {
        let Some((register, value)) = bits(one).and_then(|bits| bits.split_once('=')) else {
            continue;
        };
        let at = one.lodger.at();
        let mask = value.split_once(':').map_or(value, |(_, mask)| mask);
        lab.agent
            .sh(&format!(
                "setpci -s {at} {register}={value}; [ $((0x$(setpci -s {at} {register}) & 0x{mask})) = $((0x{mask})) ]"
            ))
            .with_context(|| format!("Cannot set {register} of {}", one.name()))?;
    }
    Ok(())
}

/// Time that the lab host's drivers may take, on a quiet machine.
const DRIVE_LIMIT: Duration = Duration::from_secs(120);

/// What the lab host is told of a device first. A probe that is asked for happens, those that the arrival of a driver
/// asks for do not: each device has others of its kind.
const ON_HOST: &str = "cd /sys/bus/pci; d=$PWD/devices/$at
    below() { for f in /sys/class/$1/*; do case $(readlink -f $f) in $(readlink -f $d)/*) basename $f ;; esac; done; }
    patiently() { for i in $(seq 600); do ! \"$@\" || return 0; sleep 0.1; done; false; }
    found() { [ -n \"$(below $class)\" ]; }
    used() {
        [ -e $d/driver ] || return 1
        case $class in
            net) patiently found; ip link set $(below net | head -n 1) up ;;
            block) patiently found; dd if=/dev/$(below block | head -n 1) of=/dev/null bs=1M count=1 iflag=direct ;;
            *) patiently found ;;
        esac
    }";

/// The lab host's own driver has each device, and uses it.
fn drive_on_host(lab: &Lab<'_>, devices: &[Handed]) -> Result<()> {
    lab.agent.sh("echo 0 > /sys/bus/pci/drivers_autoprobe")?;
    for one in devices {
        let modules = one.lodger.inhabitant.drivers.join(" ");
        one.on_host(
            lab,
            &format!("for m in {modules}; do modprobe $m; done; echo $at > drivers_probe; used"),
        )?;
    }
    Ok(())
}

/// It has each of them again.
fn look_on_host(lab: &Lab<'_>, devices: &[Handed]) -> Result<()> {
    devices.iter().try_for_each(|one| one.on_host(lab, "used"))
}

/// The lab host has no driver for them, as before.
fn release_on_host(lab: &Lab<'_>, devices: &[Handed]) -> Result<()> {
    let released = devices.iter().map(|one| {
        let modules: Vec<&str> = one.lodger.inhabitant.drivers.iter().rev().copied().collect();
        let unbind = match one.visitor.is_driven_at_once() {
            true => "",
            false => "[ ! -e $d/driver ] || echo $at > $d/driver/unbind;",
        };
        one.on_host(lab, &format!("{unbind} modprobe -r {} || true", modules.join(" ")))
    });
    let verdict = released.fold(Ok(()), Result::and);
    lab.agent.sh("echo 1 > /sys/bus/pci/drivers_autoprobe")?;
    verdict
}

impl Handed {
    fn name(&self) -> String {
        format!("{} with {}", self.lodger.inhabitant.name, self.visitor.interrupts.name())
    }

    fn on_host(&self, lab: &Lab<'_>, work: &str) -> Result<()> {
        let class = self.lodger.inhabitant.family.class();
        let script = format!("at={}; class={class}\n{ON_HOST}\n{work}", self.lodger.at());
        let finished = lab.script_within(&script, DRIVE_LIMIT * 5)?;
        ensure!(
            finished.code == 0,
            "{}: the lab host's driver does not use it: {}",
            self.name(),
            finished.errors.trim()
        );
        Ok(())
    }

    /// What makes its driver take it.
    fn load(&self) -> String {
        let drivers = self.lodger.inhabitant.drivers.join(" ");
        format!("load {drivers}")
    }

    /// It interrupts as it should.
    fn kind(&self) -> String {
        match self.lodger.inhabitant.but {
            Some(But::NoInterrupt) => String::new(),
            None => format!(
                "is_kind() {{ kind=$(cat $d/msi_irqs/* 2> /dev/null | sort -u); [ ${{kind:-intx}} = {0} ]; }}
                wait_until 20 is_kind || fail it has ${{kind:-intx}}, not {0}",
                self.visitor.interrupts.name()
            ),
        }
    }

    /// Its driver has it, and has its interrupts on.
    fn drive(&self) -> String {
        let up = match self.lodger.inhabitant.family {
            Family::Nic => "wait_until 20 has net || fail there is no interface; ip link set $(class net) up",
            _ => "",
        };
        format!(
            "{}\n{}\nwait_until 20 driven || fail no driver takes it\n{up}\n{}",
            zoo::device(self.bus),
            self.load(),
            self.kind()
        )
    }

    fn prove(&self, lab: &Lab<'_>, guest: &mut Guest<'_>) -> Result<()> {
        let proof = Proof {
            lodger: &self.lodger,
            bus: self.bus,
            before: &self.load(),
            behind: &self.kind(),
        };
        proof.ask(lab, guest)
    }
}

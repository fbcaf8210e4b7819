//! An Intel CPU. All other machines of the lab have one of AMD's; and neither of these has an IOMMU.

use anyhow::{Context as _, Result, ensure};

use super::tiny::{self, SURVIVES, Tiny};
use super::{Kind, Lab, Scenario};
use crate::guest::{GuestConfig, says, vmx_code};

/// Guests that do what no kernel does.
const GUESTS: [Tiny; 3] = [
    Tiny {
        name: "vmx-reset",
        about: "a reset in VMX operation: the guest starts again as after power-on",
        program: vmx_code::reset_in_vmx_operation,
        ..SURVIVES
    },
    Tiny {
        name: "nested-reset",
        about: "a reset by a guest's own guest: the same",
        program: vmx_code::reset_from_a_guest,
        ..SURVIVES
    },
    Tiny {
        name: "sane",
        about: "CPUID and MSRs are an Intel CPU's, before and after a reset",
        program: vmx_code::sane,
        ..SURVIVES
    },
];

const WITHOUT_XSAVE: Tiny = Tiny {
    name: "sane",
    about: "the same where the CPU has no XSAVE",
    program: vmx_code::sane_without_xsave,
    ..SURVIVES
};

pub(super) fn scenarios() -> Vec<Scenario> {
    let of_any_cpu = tiny::GUESTS
        .into_iter()
        .filter(|guest| !guest.with_nic && guest.name != "tiny-nested-reset");
    let with_xsave = of_any_cpu.chain(GUESTS).map(|guest| tiny(Kind::Haswell, guest));
    let without = [tiny::SECOND_CPU, GUESTS[0], GUESTS[1], WITHOUT_XSAVE].map(|guest| tiny(Kind::Lynnfield, guest));
    let linux = [Kind::Haswell, Kind::Lynnfield].into_iter().flat_map(linux);
    with_xsave.chain(without).chain(linux).collect()
}

fn prefix(kind: Kind) -> &'static str {
    match kind {
        Kind::Lynnfield => "i5-750",
        _ => "intel",
    }
}

fn tiny(kind: Kind, guest: Tiny) -> Scenario {
    let name = format!("{}-{}", prefix(kind), guest.name.trim_start_matches("tiny-"));
    let about = format!("on an Intel CPU, {}", guest.about);
    Scenario::new(name, about, 300, move |lab| tiny::run(lab, &guest))
        .strait_only()
        .on(kind)
}

/// Two CPUs on Haswell alone: Lynnfield has no exits of loops of PAUSE, and a guest's CPU that waits for the other with
/// interrupts off would keep the one CPU that Bochs has.
fn linux(kind: Kind) -> Vec<Scenario> {
    let scenario = |name: &str, about: &str, run: fn(&Lab<'_>) -> Result<()>| {
        Scenario::new(format!("{}-{name}", prefix(kind)), about, 600, run)
            .strait_only()
            .full()
            .on(kind)
    };
    let mut scenarios = vec![
        scenario("linux", "Linux boots on an Intel CPU, reboots and powers off", |lab| boot(lab, 1, &[])),
        scenario("linux-not-nested", "the same with nested=off: it has no VT-x", |lab| {
            boot(lab, 1, &["--cpu", "host,nested=off"])
        }),
    ];
    if kind == Kind::Haswell {
        scenarios.push(scenario("linux-smp", "Linux with two CPUs", |lab| boot(lab, 2, &[])));
    }
    scenarios
}

fn boot(lab: &Lab<'_>, cpus: u32, more: &'static [&'static str]) -> Result<()> {
    let config = GuestConfig {
        memory_mib: 128,
        cpus,
        more,
        ..GuestConfig::default()
    };
    lab.run(&config, |guest| {
        for start in ["The first start", "After a reboot"] {
            says(guest, "nproc", &cpus.to_string()).context(start)?;
            let count = guest.sh("grep -c '^flags.* vmx ' /proc/cpuinfo || true")?;
            let expected = if more.is_empty() { cpus } else { 0 };
            ensure!(
                count == expected.to_string(),
                "{start}: {count} CPUs have VT-x, expected {expected}"
            );
            if start == "The first start" {
                guest.reboot()?;
            }
        }
        Ok(())
    })
}

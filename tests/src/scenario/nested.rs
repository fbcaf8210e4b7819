//! Nested passthrough: the guest (L1) gives the device that it was given to a guest of its own (L2).

use anyhow::{Result, ensure};

use super::nic::PF_VECTORS;
use super::viommu::{check_complaints, messages};
use super::{Context, Scenario, Verdict};
use crate::guest::{Guest, INNER};
use crate::lab::Assigned;
use crate::vmm::{GuestConfig, Vmm};

/// What L1 does, see resources/lab/nested.sh: L2 runs, and then L1 drives the NIC itself.
const STEPS: &str = "hypervisor,give,inner,take_back,net,ping3,dmar";

/// What L2 does.
const INNER_STEPS: &str = "net,ping3,irqs";

/// L1's kernel, the recipe of the README.
const WORDS: &str = "intel_iommu=on iommu=pt";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "nested-strait",
            "a guest runs strait and passes the NIC on: the inner guest pings, then the outer one",
            400,
            |lab| physical_function(lab, Vmm::Strait),
        )
        .strait_only(),
        Scenario::new("nested-qemu", "the same with QEMU as the inner VMM", 600, |lab| {
            physical_function(lab, Vmm::Qemu)
        }),
        Scenario::new(
            "nested-vf",
            "a virtual function passed on by a guest that runs strait",
            400,
            |lab| virtual_function(lab, Vmm::Strait),
        )
        .strait_only(),
        Scenario::new(
            "nested-vf-qemu",
            "a virtual function passed on by a guest that runs QEMU",
            600,
            |lab| virtual_function(lab, Vmm::Qemu),
        )
        .full(),
    ]
}

fn physical_function(lab: &Context, inner: Vmm) -> Result<Verdict> {
    let nic = lab.bind_nic()?;
    pass_on(lab, &nic, inner, "igb")?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

fn virtual_function(lab: &Context, inner: Vmm) -> Result<Verdict> {
    let nic = Assigned::bind_virtual_function(lab.agent)?;
    pass_on(lab, &nic, inner, "igbvf")?;
    nic.restore()?;
    Ok(Verdict::Passed)
}

/// An L1 that can be a hypervisor, with `inner` as its VMM.
fn config(lab: &Context, device: &Assigned<'_>, inner: Vmm, driver: &str) -> GuestConfig {
    let plain = lab.config_with(device, STEPS);
    GuestConfig {
        initrd: match inner {
            Vmm::Strait => "nested",
            Vmm::Qemu => "nested-qemu",
        },
        memory_mib: 1024,
        viommu: true,
        cmdline: format!(
            "{} {WORDS} lab.drivers=kvm_amd,vfio_iommu_type1,vfio_pci,{driver} lab.vmm={} lab.inner={INNER_STEPS}",
            plain.cmdline,
            inner.name()
        ),
        ..plain
    }
}

fn pass_on(lab: &Context, device: &Assigned<'_>, inner: Vmm, driver: &str) -> Result<()> {
    lab.with_guest(&config(lab, device, inner, driver), |guest| {
        let unsafe_interrupts = guest.expect("unsafe-interrupts")?;
        ensure!(
            unsafe_interrupts == "N",
            "The outer guest allows unsafe interrupts: {unsafe_interrupts}"
        );
        let bound = guest.expect("bound")?;
        ensure!(bound == "vfio-pci", "The outer guest bound the device to {bound}");
        inner_exchange(lab, guest, driver)?;
        let restored = guest.expect("restored")?;
        ensure!(
            restored == driver,
            "The outer guest gave the device to {restored}, expected {driver}"
        );
        let answered = guest.expect("ping")?;
        ensure!(
            answered == "3",
            "{answered} of 3 pings of the outer guest were answered"
        );
        check_complaints(&messages(guest)?)?;
        guest.expect_power_off()?;
        Ok(())
    })
}

/// What [`INNER_STEPS`] print, to the inner guest's end.
fn inner_exchange(lab: &Context, guest: &mut Guest<'_>, driver: &str) -> Result<()> {
    let found = guest.expect(&format!("{INNER}driver"))?;
    ensure!(
        found == driver,
        "The inner guest drives the NIC by {found}, expected {driver}"
    );
    let answered = guest.expect(&format!("{INNER}ping"))?;
    ensure!(
        answered == "3",
        "{answered} of 3 pings of the inner guest were answered"
    );
    let irqs = guest.expect_irqs_of(INNER)?;
    // The mailbox of a virtual function stays silent.
    if driver == "igb" {
        lab.check_irqs(&irqs, PF_VECTORS)?;
    }
    let code = guest.expect(&format!("{INNER}exit"))?;
    ensure!(code == "0", "The inner VMM ended with code {code}");
    Ok(())
}

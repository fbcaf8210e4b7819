//! A hypervisor under gdb, stopped while its guest owns the NIC.

use anyhow::{Result, ensure};

use super::gdb::{gdb, says};
use super::{Lab, Scenario};
use crate::guest::gdb_session::{SOCKET, symbols};
use crate::guest::hypervisor::{give, inner, outer};
use crate::guest::{GuestConfig, Vmm, number};
use crate::lab::devices::{NIC, NVME};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "gdb-nested",
            "a hypervisor is stopped again and again, in its guest too, while that one has the NIC: data flow on",
            1200,
            nested,
        )
        .with_strait_inside()
        .full(),
        Scenario::new(
            "gdb-nested-vfio",
            "a hypervisor is stopped in vfio_iommu_type1 and in intel_iommu while its guest has the NIC: pings go on",
            1800,
            in_vfio,
        )
        .strait_only()
        .with_strait_inside()
        .full(),
    ]
}

fn nested(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig {
        gdb: Some(SOCKET),
        ..outer(&[&lab.take(NIC.at())?], Vmm::Strait).told("nokaslr")
    };
    lab.run(&config, |guest| {
        give(guest, "igb", &["01:00.0"])?;
        symbols(lab.agent, guest, "kvm_vcpu_ioctl|vfio_iommu_type1_ioctl|svm_vcpu_run|ksys_read")?;
        guest.enter(&inner(&lab.boot, Vmm::Strait, &["0000:01:00.0"], 1))?;
        guest.sh("load igb")?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().flood(guest)?;
        for _ in 0..10 {
            let said = gdb(lab, "info threads\nx/1i svm_vcpu_run\ndetach\n")?;
            says(&said, "vCPU 0")?;
            says(&said, "<svm_vcpu_run>:")?;
        }
        guest.sh("kill $(pidof wget)")?;
        lab.eth0().ping(guest)?;
        lab.eth0().fetch(guest)?;
        guest.leave()
    })
}

/// Functions of L1's on the way of a mapping, of VFIO and of the IOMMU's driver.
const WAY: &str = "vfio_.*|qi_.*|intel_iommu_.*|iommu_map.*|iommu_unmap.*|__domain_mapping|dma_pte_.*|cache_tag_.*";

/// Stops until it was found in both.
const TRIES: u32 = 60;

/// Bytes that a function may be long: what is farther from its begin is another.
const FUNCTION_LEN: u64 = 0x1000;

/// Another VMM in L1 maps memory for a drive again and again meanwhile, and is stopped and ended.
const MAPS: &str = "(while :; do
    timeout 8 strait run --kernel /lab/guest/vmlinuz-* --initrd /lab/guest/inner-* --memory 300M \
        --device 0000:02:00.0 --gdb unix:/run/other -S
done) < /dev/null > /dev/null 2>&1 &";

fn in_vfio(lab: &Lab<'_>) -> Result<()> {
    let config = GuestConfig {
        gdb: Some(SOCKET),
        ..outer(&[&lab.take(NIC.at())?, &lab.take(NVME.at())?], Vmm::Strait).told("nokaslr")
    };
    lab.run(&config, |guest| {
        give(guest, "igb nvme", &["01:00.0", "02:00.0"])?;
        symbols(lab.agent, guest, WAY)?;
        guest.sh(MAPS)?;
        guest.enter(&inner(&lab.boot, Vmm::Strait, &["0000:01:00.0"], 1))?;
        guest.sh("load igb")?;
        lab.eth0().up(guest, "igb")?;
        guest.sh("ping 10.0.2.2 > /run/pings 2>&1 &")?;
        let (mut of_vfio, mut of_iommu) = (0, 0);
        for _ in 0..TRIES {
            // L2's stack is not to be found by L1's tables: gdb says so, and leaves.
            let Ok(said) = gdb(lab, "info threads\nx/1i $rip\nx/400ga $rsp\ndetach\n") else {
                continue;
            };
            let names = functions(&said);
            let is_in = |prefixes: &[&str]| {
                names.iter().any(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
            };
            of_vfio += u32::from(is_in(&["vfio_"]));
            of_iommu += u32::from(is_in(&["intel_iommu_", "qi_", "cache_tag_", "__domain_mapping"]));
            if of_vfio > 2 && of_iommu > 2 {
                break;
            }
        }
        ensure!(
            of_vfio > 0 && of_iommu > 0,
            "Of {TRIES} stops {of_vfio} were in vfio_iommu_type1 and {of_iommu} in intel_iommu"
        );
        let answered = |guest: &mut _| number(guest, "grep -c 'bytes from' /run/pings || true");
        let before = answered(guest)?;
        guest.sh("sleep 5")?;
        let after = answered(guest)?;
        ensure!(after > before, "Pings stopped after {before} answers");
        guest.sh("kill $(pidof ping)")?;
        lab.eth0().ping(guest)?;
        lab.eth0().fetch(guest)?;
        guest.leave()
    })
}

/// The functions whose names gdb shows for addresses, as in `<vfio_pin_map_dma+123>`.
fn functions(said: &str) -> Vec<&str> {
    let shown = said.split('<').skip(1).filter_map(|rest| rest.split_once('>'));
    let near = shown.filter_map(|(name, _)| {
        let (name, offset) = name.split_once('+').unwrap_or((name, "0"));
        offset.parse::<u64>().is_ok_and(|offset| offset < FUNCTION_LEN).then_some(name)
    });
    near.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_a_name_is_that_function() {
        let said = "0xffffc90000003d10:\t0xffffffffc0123456 <vfio_pin_map_dma+86>\t0x0\n\
                    0xffffc90000003d20:\t0xffffffff81aaaaaa <qi_submit_sync+123456>\n\
                    => 0xffffffff81000000 <intel_iommu_map_pages>:\tnop\n";
        assert_eq!(functions(said), ["vfio_pin_map_dma", "intel_iommu_map_pages"]);
    }
}

//! CPUID of one vCPU: what the host supports, with the guest's own topology and clock.
//!
//! Leaf numbers are those of the Intel SDM vol. 2 (CPUID) and the AMD APM vol. 3, appendix E.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// What makes one vCPU's CPUID its own.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// APIC id, the vCPU's number.
    pub apic_id: u32,
    /// vCPUs in the guest, all cores of one package.
    pub cpus: u32,
    /// Frequency of the time stamp counter in kHz.
    pub tsc_khz: u32,
}

/// Local APIC timer frequency of KVM in kHz (APIC_BUS_FREQUENCY, arch/x86/kvm/lapic.h).
const APIC_BUS_KHZ: u32 = 1_000_000;
/// Base of the hypervisor's leaves; KVM puts its signature here.
const HYPERVISOR: u32 = 0x4000_0000;
/// Frequencies of TSC and local APIC timer in kHz, in EAX and EBX.
const TIMING: u32 = HYPERVISOR + 0x10;
/// VMX in leaf 1, SVM in leaf 0x8000_0001.
const ECX_VMX: u32 = 1 << 5;
const ECX_SVM: u32 = 1 << 2;
/// What SVM can do (AMD APM vol. 3, E.4.9).
const SVM_FEATURES: u32 = 0x8000_000a;
const ECX_X2APIC: u32 = 1 << 21;
const ECX_TSC_DEADLINE: u32 = 1 << 24;
const ECX_HYPERVISOR: u32 = 1 << 31;
const EDX_HTT: u32 = 1 << 28;
/// Level types of leaf 0xB.
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// The host's `supported` leaves made into those of the vCPU `identity`.
///
/// # Errors
/// When the leaves do not fit KVM's table.
pub fn for_vcpu(supported: &CpuId, identity: Identity) -> Result<CpuId, vmm_sys_util::fam::Error> {
    let mut leaves = supported.as_slice().to_vec();
    let topology = [0xb, 0x1f];
    leaves.retain(|leaf| !topology.contains(&leaf.function) && leaf.function != TIMING);
    for leaf in &mut leaves {
        adapt(leaf, identity);
    }
    leaves.extend(extended_topology(identity));
    leaves.push(timing(identity));
    CpuId::from_entries(&leaves)
}

/// Bits of a guest physical address (leaf 0x8000_0008); 36 where the CPU does not tell, as the manuals say.
pub fn address_bits(cpuid: &CpuId) -> u8 {
    let leaf = cpuid.as_slice().iter().find(|leaf| leaf.function == 0x8000_0008);
    leaf.map_or(36, |leaf| leaf.eax as u8)
}

/// Whether a guest that sees these leaves can be a hypervisor itself.
pub fn offers_nesting(cpuid: &CpuId) -> bool {
    cpuid.as_slice().iter().any(|leaf| match leaf.function {
        0x1 => leaf.ecx & ECX_VMX != 0,
        0x8000_0001 => leaf.ecx & ECX_SVM != 0,
        _ => false,
    })
}

/// Takes SVM and VMX away. KVM then refuses their instructions and registers too.
pub fn hide_nesting(cpuid: &mut CpuId) {
    for leaf in cpuid.as_mut_slice() {
        match leaf.function {
            0x1 => leaf.ecx &= !ECX_VMX,
            0x8000_0001 => leaf.ecx &= !ECX_SVM,
            SVM_FEATURES => (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (0, 0, 0, 0),
            _ => {}
        }
    }
}

fn adapt(leaf: &mut kvm_cpuid_entry2, identity: Identity) {
    let Identity { apic_id, cpus, .. } = identity;
    match leaf.function {
        0x1 => {
            leaf.ebx = leaf.ebx & 0xffff | cpus.min(255) << 16 | (apic_id & 0xff) << 24;
            leaf.ecx |= ECX_X2APIC | ECX_TSC_DEADLINE | ECX_HYPERVISOR;
            leaf.edx = if cpus > 1 {
                leaf.edx | EDX_HTT
            } else {
                leaf.edx & !EDX_HTT
            };
        }
        // Intel, caches: cores in the package in bits 31:26, and no cache shared between cores.
        0x4 => leaf.eax = leaf.eax & 0x3fff | (cpus.min(64) - 1) << 26,
        HYPERVISOR => leaf.eax = leaf.eax.max(TIMING),
        // AMD, cores in the package less one, and how many bits of the APIC id they take.
        0x8000_0008 => leaf.ecx = core_bits(cpus) << 12 | (cpus - 1).min(255),
        // AMD, caches: shared by no other core.
        0x8000_001d => leaf.eax &= 0x3fff,
        // AMD, extended APIC id, one thread a core, one node.
        0x8000_001e => (leaf.eax, leaf.ebx, leaf.ecx) = (apic_id, apic_id & 0xff, 0),
        _ => {}
    }
}

/// Bits of an APIC id that tell cores of a package apart.
fn core_bits(cpus: u32) -> u32 {
    cpus.next_power_of_two().trailing_zeros()
}

/// Leaf 0xB: one thread a core, all cores in one package.
fn extended_topology(Identity { apic_id, cpus, .. }: Identity) -> [kvm_cpuid_entry2; 3] {
    let level = |index, shift, count, kind: u32| kvm_cpuid_entry2 {
        function: 0xb,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: kind << 8 | index,
        edx: apic_id,
        ..Default::default()
    };
    [
        level(0, 0, 1, LEVEL_THREAD),
        level(1, core_bits(cpus), cpus, LEVEL_CORE),
        level(2, 0, 0, 0),
    ]
}

fn timing(Identity { tsc_khz, .. }: Identity) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function: TIMING,
        eax: tsc_khz,
        ebx: APIC_BUS_KHZ,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        let found = cpuid
            .as_slice()
            .iter()
            .find(|leaf| (leaf.function, leaf.index) == (function, index));
        *found.expect("the leaf exists")
    }

    #[test]
    fn each_vcpu_sees_its_own_apic_id_and_all_its_siblings() {
        let host = [0x1, 0xb, 0x8000_0008, 0x8000_001e].map(|function| kvm_cpuid_entry2 {
            function,
            ebx: 0x1200_0800,
            ..Default::default()
        });
        let supported = CpuId::from_entries(&host).expect("four leaves fit");
        let identity = Identity {
            apic_id: 5,
            cpus: 6,
            tsc_khz: 2_000_000,
        };
        let cpuid = for_vcpu(&supported, identity).expect("few leaves fit");
        assert_eq!(leaf(&cpuid, 0x1, 0).ebx, 5 << 24 | 6 << 16 | 0x0800);
        assert_eq!(leaf(&cpuid, 0xb, 1).edx, 5);
        assert_eq!(leaf(&cpuid, 0xb, 1).eax, 3, "six cores take three bits");
        assert_eq!(leaf(&cpuid, 0x8000_0008, 0).ecx, 3 << 12 | 5);
        assert_eq!(leaf(&cpuid, TIMING, 0).eax, 2_000_000);
    }

    #[test]
    fn hidden_nesting_leaves_every_other_feature() {
        let host = [0x1, 0x8000_0001, SVM_FEATURES].map(|function| kvm_cpuid_entry2 {
            function,
            eax: 1,
            ecx: u32::MAX,
            ..Default::default()
        });
        let mut cpuid = CpuId::from_entries(&host).expect("three leaves fit");
        assert!(offers_nesting(&cpuid));
        hide_nesting(&mut cpuid);
        assert!(!offers_nesting(&cpuid));
        assert_eq!(leaf(&cpuid, 0x1, 0).ecx, !ECX_VMX);
        assert_eq!(leaf(&cpuid, 0x8000_0001, 0).ecx, !ECX_SVM);
        assert_eq!(leaf(&cpuid, SVM_FEATURES, 0).eax, 0);
    }

    #[test]
    fn either_vendors_extension_offers_nesting() {
        let with = |function, ecx| {
            let entry = kvm_cpuid_entry2 {
                function,
                ecx,
                ..Default::default()
            };
            offers_nesting(&CpuId::from_entries(&[entry]).expect("one leaf fits"))
        };
        assert!(with(0x1, ECX_VMX) && with(0x8000_0001, ECX_SVM));
        assert!(!with(0x1, ECX_SVM) && !with(0x8000_0001, ECX_VMX));
    }
}

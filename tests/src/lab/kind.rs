//! The kinds of machine that the lab can be.

use clap::ValueEnum;

use super::devices::Device;

/// What kind of machine the lab is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// With all that passthrough needs.
    Whole,
    /// As a user finds a machine whose IOMMU is off.
    WithoutIommu,
    /// With an IOMMU that has fewer address bits than the CPU, as desktop processors have.
    Narrow,
    /// With an IOMMU that does not remap interrupts.
    WithoutRemapping,
    /// Whose kernel has page tables of four levels, with CPUs that have five and 52 address bits.
    FourLevels,
    /// With CPUs whose XSAVE is off.
    WithoutXsave,
    /// Whose own drivers never had the devices: they are as the machine's reset left them.
    Undriven,
    /// With an AMD IOMMU.
    AmdIommu,
    /// With an AMD IOMMU, and firmware whose table has too little for interrupts to be remapped.
    AmdWithoutRemapping,
    /// With an AMD IOMMU that the kernel is told not to use.
    AmdIommuOff,
    /// With an AMD CPU, and firmware that offers no IOMMU.
    NoIommu,
    /// With one of each device that QEMU has, never driven.
    Zoo,
    /// With some of them, one for each kind of interrupts that they have, never driven.
    HandOver,
    /// With an Intel CPU, and without an IOMMU.
    Haswell,
    /// With an Intel CPU that has no XSAVE and whose guests need paging, and without an IOMMU.
    Lynnfield,
}

/// A machine that a person may want everything tested on, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lane {
    /// A host with an AMD IOMMU.
    AmdIommu,
    /// One of each device that QEMU has.
    Zoo,
    /// A host with an Intel CPU.
    Intel,
}

impl Kind {
    /// All kinds, the usual one first.
    pub(crate) const ALL: [Self; 15] = [
        Self::Whole,
        Self::WithoutIommu,
        Self::Narrow,
        Self::WithoutRemapping,
        Self::FourLevels,
        Self::WithoutXsave,
        Self::Undriven,
        Self::AmdIommu,
        Self::AmdWithoutRemapping,
        Self::AmdIommuOff,
        Self::NoIommu,
        Self::Zoo,
        Self::HandOver,
        Self::Haswell,
        Self::Lynnfield,
    ];

    /// The lane that this machine is.
    pub(crate) fn lane(self) -> Option<Lane> {
        match self {
            Self::AmdIommu | Self::AmdWithoutRemapping | Self::AmdIommuOff | Self::NoIommu => {
                Some(Lane::AmdIommu)
            }
            Self::Zoo | Self::HandOver => Some(Lane::Zoo),
            Self::Haswell | Self::Lynnfield => Some(Lane::Intel),
            _ => None,
        }
    }

    /// The model of its CPU, if it is an Intel one.
    pub(super) fn intel_model(self) -> Option<&'static str> {
        match self {
            Self::Haswell => Some("corei7_haswell_4770"),
            Self::Lynnfield => Some("corei5_lynnfield_750"),
            _ => None,
        }
    }

    /// QEMU's CPU.
    pub(super) fn cpu(self) -> &'static str {
        match self {
            Self::FourLevels => "max,phys-bits=52",
            _ => "max",
        }
    }

    fn has_amd_iommu(self) -> bool {
        matches!(
            self,
            Self::AmdIommu | Self::AmdWithoutRemapping | Self::AmdIommuOff
        )
    }

    /// Whether a device comes only when the lab host runs, by this option. QEMU's AMD IOMMU keeps for good the number
    /// that a device's bus had when the device was made (10.0, `amdvi_host_dma_iommu` in hw/i386/amd_iommu.c), which
    /// before the firmware ran is 0 for all: devices behind others would be translated as the host bridge is, or
    /// not at all.
    pub(super) fn plugs(self, device: &Device, option: &str) -> bool {
        let is_bridge = option.starts_with("device pcie-");
        self.has_amd_iommu() && device.is_behind_port() && option.starts_with("device ") && !is_bridge
    }

    /// Interrupts of the lab host are remapped to x2APIC where there is one: the agent can then see which are in
    /// service. From QEMU 9.2 on an AMD IOMMU translates nothing unless it is denied to let DMA pass through (`pt=off`).
    pub(super) fn iommu_device(self, has_x2apic: bool) -> Option<String> {
        let (extended, extended_amd) = if has_x2apic {
            (",eim=on", ",xtsup=on")
        } else {
            ("", "")
        };
        let remapping = match self {
            Self::NoIommu => return None,
            Self::AmdIommu | Self::AmdIommuOff => {
                return Some(format!("amd-iommu,pt=off,intremap=on{extended_amd}"));
            }
            Self::AmdWithoutRemapping => return Some("amd-iommu,pt=off,intremap=off".to_owned()),
            Self::Narrow => format!("intremap=on{extended},aw-bits=39"),
            Self::WithoutRemapping => "intremap=off".to_owned(),
            _ => format!("intremap=on{extended}"),
        };
        Some(format!("intel-iommu,{remapping},caching-mode=on"))
    }

    pub(super) fn kernel_options(self) -> &'static str {
        match self {
            Self::WithoutIommu => "intel_iommu=off",
            Self::FourLevels => "intel_iommu=on iommu=pt no5lvl",
            Self::WithoutXsave => "intel_iommu=on iommu=pt noxsave",
            Self::Undriven | Self::Zoo | Self::HandOver => "intel_iommu=on iommu=pt lab.undriven",
            Self::AmdIommu | Self::AmdWithoutRemapping => "iommu=pt",
            Self::AmdIommuOff => "amd_iommu=off",
            Self::NoIommu => "",
            _ => "intel_iommu=on iommu=pt",
        }
    }
}

//! The kinds of machine that the lab can be.

use clap::ValueEnum;

/// What kind of machine the lab is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// With an AMD IOMMU, and devices as of the zoo.
    AmdIommu,
    /// With one of each device that QEMU has, never driven.
    Zoo,
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
    pub(crate) const ALL: [Self; 11] = [
        Self::Whole,
        Self::WithoutIommu,
        Self::Narrow,
        Self::WithoutRemapping,
        Self::FourLevels,
        Self::WithoutXsave,
        Self::Undriven,
        Self::AmdIommu,
        Self::Zoo,
        Self::Haswell,
        Self::Lynnfield,
    ];

    /// The lane that this machine is.
    pub(crate) fn lane(self) -> Option<Lane> {
        match self {
            Self::AmdIommu => Some(Lane::AmdIommu),
            Self::Zoo => Some(Lane::Zoo),
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

    /// Interrupts of the lab host are remapped to x2APIC where there is one: the agent can then see which are in
    /// service.
    pub(super) fn iommu_device(self, has_x2apic: bool) -> String {
        let extended = if has_x2apic { ",eim=on" } else { "" };
        let remapping = match self {
            Self::AmdIommu => return "amd-iommu,pt=off,intremap=off".to_owned(),
            Self::Narrow => format!("intremap=on{extended},aw-bits=39"),
            Self::WithoutRemapping => "intremap=off".to_owned(),
            _ => format!("intremap=on{extended}"),
        };
        format!("intel-iommu,{remapping},caching-mode=on")
    }

    pub(super) fn kernel_options(self) -> &'static str {
        match self {
            Self::WithoutIommu => "intel_iommu=off",
            Self::FourLevels => "intel_iommu=on iommu=pt no5lvl",
            Self::WithoutXsave => "intel_iommu=on iommu=pt noxsave",
            Self::Undriven | Self::Zoo => "intel_iommu=on iommu=pt lab.undriven",
            Self::AmdIommu => "iommu=pt lab.undriven",
            _ => "intel_iommu=on iommu=pt",
        }
    }
}

//! Which of the two a machine has, decided once.

use strait_devices::iommu::vtd::AddressWidth;

use super::direct::Direct;
use super::seam::{Iommu, Surroundings};
use super::viommu::Viommu;
use crate::config::{Config, ViommuConfig};
use crate::layout::Range;
use crate::machine::error::RunError;
use crate::machine::passthrough::{Opened, Passed};
use crate::placement::IovaRanges;

/// A width that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(in crate::machine) enum WidthError {
    #[error("--viommu: aw-bits={wanted} is wider than the {has} bits of the host's IOMMU; give less")]
    TooWide { wanted: u8, has: u8 },
    #[error("--viommu: the host's IOMMU has {0} bits; at least 39 are needed")]
    TooNarrow(u8),
}

/// What is decided before RAM has its place.
pub(in crate::machine) enum Plan {
    /// Devices reach all RAM at the guest's own addresses.
    Direct,
    /// Devices reach what the guest maps for them.
    Virtual(ViommuConfig, AddressWidth),
}

impl Plan {
    /// What `config` asks for, where the host lets devices reach `iovas` and CPUs have `cpu_bits` of address.
    ///
    /// # Errors
    /// When the host's IOMMU is narrower than was asked for, or than any unit.
    pub(in crate::machine) fn new(
        config: &Config,
        iovas: &IovaRanges,
        cpu_bits: u8,
    ) -> Result<Self, WidthError> {
        let Some(viommu) = config.viommu else {
            return Ok(Plan::Direct);
        };
        let width = width(viommu.width, iovas.bits(), iovas.usable_bits(cpu_bits))?;
        Ok(Plan::Virtual(viommu, width))
    }

    /// Bits of guest physical address that CPUs with `cpu_bits` and devices have in common.
    pub(in crate::machine) fn address_bits(&self, cpu_bits: u8) -> u8 {
        match self {
            Plan::Direct => cpu_bits,
            Plan::Virtual(_, width) => cpu_bits.min(width.bits()),
        }
    }

    /// What the guest could ask to be mapped, and the host cannot. Where it maps nothing, RAM is placed around
    /// that instead.
    pub(in crate::machine) fn unmappable(&self, iovas: &IovaRanges, mmio_32: Range) -> Vec<Range> {
        match self {
            Plan::Direct => Vec::new(),
            Plan::Virtual(_, width) => iovas.windows(width.bits(), mmio_32),
        }
    }

    /// Lets the devices reach RAM, or whoever decides on their DMA hear of the memory map.
    ///
    /// # Errors
    /// When RAM cannot be mapped, a signal ends the start, or the host gives no more threads.
    pub(in crate::machine) fn connect(
        self,
        config: &Config,
        opened: Vec<Opened>,
        surroundings: &Surroundings<'_>,
    ) -> Result<(Box<dyn Iommu>, Vec<Passed>), RunError> {
        match self {
            Plan::Direct => {
                let (direct, passed) = Direct::connect_all(opened, surroundings)?;
                Ok((Box::new(direct), passed))
            }
            Plan::Virtual(viommu, width) => {
                let (viommu, passed) = Viommu::connect_all(config, viommu, width, opened, surroundings)?;
                Ok((Box::new(viommu), passed))
            }
        }
    }
}

/// The width asked for, else the widest of which all addresses can be mapped, by a guest whose CPUs see windows over
/// the others.
fn width(wanted: Option<AddressWidth>, has: u8, usable: u8) -> Result<AddressWidth, WidthError> {
    let widest = AddressWidth::within(has).ok_or(WidthError::TooNarrow(has))?;
    match wanted {
        Some(wanted) if wanted > widest => {
            let wanted = wanted.bits();
            Err(WidthError::TooWide { wanted, has })
        }
        Some(wanted) => Ok(wanted),
        // Refused maps are counted and told of.
        None => Ok(AddressWidth::within(usable).unwrap_or(AddressWidth::Bits39)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_width_is_the_default_and_the_limit() {
        let error = |wanted, has| width(wanted, has, has).expect_err("no such width").to_string();
        assert!(matches!(width(None, 48, 48), Ok(AddressWidth::Bits48)));
        assert!(matches!(width(None, 48, 47), Ok(AddressWidth::Bits39)));
        assert!(matches!(width(None, 39, 39), Ok(AddressWidth::Bits39)));
        assert!(matches!(
            width(Some(AddressWidth::Bits48), 48, 47),
            Ok(AddressWidth::Bits48)
        ));
        assert!(matches!(
            width(Some(AddressWidth::Bits39), 57, 57),
            Ok(AddressWidth::Bits39)
        ));
        assert_eq!(
            error(Some(AddressWidth::Bits48), 39),
            "--viommu: aw-bits=48 is wider than the 39 bits of the host's IOMMU; give less"
        );
        assert!(error(None, 36).contains("36 bits; at least 39"));
    }
}

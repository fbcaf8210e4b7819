//! The value of `--viommu`.

use std::str::FromStr;

use strait_devices::iommu::vtd::AddressWidth;

use super::keys::{KeyError, set, set_switch};

/// A virtual IOMMU; keys are QEMU's, and without any all is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViommuConfig {
    /// `caching-mode`: the guest tells of pages that it maps, not only of those that it unmaps (CAP.CM).
    pub caching_mode: bool,
    /// `intremap`: interrupts of devices pass through a table of the guest's (ECAP.IR).
    pub interrupt_remapping: bool,
    /// `eim`: that table holds APIC ids of 32 bits (ECAP.EIM).
    pub extended_interrupts: bool,
    /// `aw-bits`; the host's width if it is not given.
    pub width: Option<AddressWidth>,
}

/// A value that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViommuConfigError {
    /// Another kind of IOMMU.
    #[error("{0:?} is not a kind of IOMMU; the one kind is intel, as in --viommu intel,aw-bits=39")]
    Kind(String),
    /// A key that this IOMMU does not have.
    #[error("{0:?} is not a key of --viommu; the keys are caching-mode, intremap, eim and aw-bits")]
    UnknownKey(String),
    /// A key twice, or a value that is neither on nor off.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A width for which VT-d has no tables of three or four levels.
    #[error("aw-bits={0} is not a width; the widths are 39 and 48")]
    Width(String),
    /// Long APIC ids without the table that would hold them.
    #[error("eim=on needs intremap=on")]
    ExtendedAlone,
}

impl FromStr for ViommuConfig {
    type Err = ViommuConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(',');
        let kind = parts.next().unwrap_or_default();
        if !matches!(kind, "intel" | "intel-iommu") {
            return Err(ViommuConfigError::Kind(kind.to_owned()));
        }
        let (mut caching_mode, mut intremap, mut eim, mut aw_bits) = (None, None, None, None);
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match key {
                "caching-mode" => set_switch(&mut caching_mode, "caching-mode", value)?,
                "intremap" => set_switch(&mut intremap, "intremap", value)?,
                "eim" => set_switch(&mut eim, "eim", value)?,
                "aw-bits" => set(&mut aw_bits, "aw-bits", width(value)?)?,
                _ => return Err(ViommuConfigError::UnknownKey(key.to_owned())),
            }
        }
        let interrupt_remapping = intremap.unwrap_or(true);
        if eim == Some(true) && !interrupt_remapping {
            return Err(ViommuConfigError::ExtendedAlone);
        }
        Ok(Self {
            caching_mode: caching_mode.unwrap_or(true),
            interrupt_remapping,
            extended_interrupts: eim.unwrap_or(true),
            width: aw_bits,
        })
    }
}

fn width(value: &str) -> Result<AddressWidth, ViommuConfigError> {
    match value {
        "39" => Ok(AddressWidth::Bits39),
        "48" => Ok(AddressWidth::Bits48),
        _ => Err(ViommuConfigError::Width(value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<ViommuConfig>()
            .expect_err("not understood")
            .to_string()
    }

    #[test]
    fn everything_is_on_by_default() {
        let config: ViommuConfig = "intel".parse().expect("the whole value");
        assert!(config.caching_mode && config.interrupt_remapping && config.extended_interrupts);
        assert_eq!(config.width, None);
    }

    #[test]
    fn keys_are_qemus() {
        let text = "intel,caching-mode=on,intremap=off,aw-bits=39,eim=off";
        let config: ViommuConfig = text.parse().expect("known keys");
        assert!(!config.interrupt_remapping && !config.extended_interrupts);
        assert_eq!(config.width, Some(AddressWidth::Bits39));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(error("amd").contains("\"amd\""));
        assert!(error("intel,device-iotlb=on").contains("device-iotlb"));
        assert!(error("intel,eim").contains("neither on nor off"));
        assert!(error("intel,aw-bits=57").contains("39 and 48"));
        assert_eq!(error("intel,intremap=off,eim=on"), "eim=on needs intremap=on");
    }
}

//! The form that the values of --cpu, --device and --viommu share: `key=value` after commas, as in QEMU.

/// A key whose value cannot be used. Messages name the key only, for the caller names the option.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The same key again: which of the two is meant cannot be told.
    #[error("the key {0:?} is given twice")]
    Repeated(&'static str),
    /// A value that `set_switch` does not know, with its key.
    #[error("{0}={1:?} is neither on nor off")]
    Switch(&'static str, String),
}

/// Notes the value of a key that may be given once.
pub(super) fn set<T>(to: &mut Option<T>, key: &'static str, value: T) -> Result<(), KeyError> {
    match to.replace(value) {
        None => Ok(()),
        Some(_) => Err(KeyError::Repeated(key)),
    }
}

/// Bytes as QEMU reads them: a number with K, M, G or T, of MiB without; more than there are is `Some(None)`.
pub(super) fn bytes(text: &str) -> Option<Option<u64>> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "K" | "KB" | "KIB" => 10,
        "" | "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return None,
    };
    // `parse` would take a plus sign, too.
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift)))
}

/// Notes a key that is on or off, in any of the words that QEMU takes.
pub(super) fn set_switch(to: &mut Option<bool>, key: &'static str, value: &str) -> Result<(), KeyError> {
    let is_on = match value {
        "on" | "yes" | "true" | "1" => true,
        "off" | "no" | "false" | "0" => false,
        _ => return Err(KeyError::Switch(key, value.to_owned())),
    };
    set(to, key, is_on)
}

#[cfg(test)]
mod tests {
    use std::fmt::Display;

    use strait_vfio::host::Root;

    use crate::config::{CpuConfig, DeviceConfig, ViommuConfig};

    /// What each option that has switches says to a switch with this value, if it refuses it.
    fn refusals(value: &str) -> [Option<String>; 3] {
        let device = format!("01:00.0,managed={value}");
        [
            refusal(format!("host,nested={value}").parse::<CpuConfig>()),
            refusal(format!("intel,intremap={value}").parse::<ViommuConfig>()),
            refusal(DeviceConfig::read(&device, &Root::at("/nonexistent"))),
        ]
    }

    fn refusal<T, E: Display>(read: Result<T, E>) -> Option<String> {
        read.err().map(|refused| refused.to_string())
    }

    #[test]
    fn every_option_takes_the_same_words_for_on_and_off() {
        for word in ["on", "yes", "true", "1", "off", "no", "false", "0"] {
            assert_eq!(refusals(word), [None, None, None], "{word}");
        }
        for refused in refusals("maybe") {
            let text = refused.expect("maybe is neither");
            assert!(text.ends_with("=\"maybe\" is neither on nor off"), "{text}");
        }
    }

    #[test]
    fn no_option_takes_a_key_twice() {
        let cpu = refusal("host,nested=on,nested=on".parse::<CpuConfig>());
        assert_eq!(cpu.as_deref(), Some("the key \"nested\" is given twice"));
        let device = DeviceConfig::read("01:00.0,msix=off,msix=on", &Root::at("/nonexistent"));
        assert_eq!(
            refusal(device).as_deref(),
            Some("the key \"msix\" is given twice")
        );
        for keys in [
            "aw-bits=39,aw-bits=48",
            "intremap=on,intremap=off",
            "eim=on,eim=on",
        ] {
            let viommu = refusal(format!("intel,{keys}").parse::<ViommuConfig>());
            assert!(viommu.is_some_and(|text| text.contains("given twice")), "{keys}");
        }
    }
}

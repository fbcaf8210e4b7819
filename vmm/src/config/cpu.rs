//! The value of `--cpu`.

use std::str::FromStr;

use super::keys::{KeyError, set_switch};

/// The features of the host's CPU that the guest sees: all that KVM supports, but for the keys below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuConfig {
    /// Whether the guest can be a hypervisor itself. If nothing is said, it can where KVM offers SVM or VMX.
    pub nested: Option<bool>,
}

/// A value that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuConfigError {
    /// A model of CPU by name, as other VMMs have them: there is only the host's.
    #[error("{0:?} is not a CPU model; the one model is host, as in --cpu host,nested=off")]
    Model(String),
    /// Any key but `nested`.
    #[error("{0:?} is not a key of --cpu; the one key is nested, as in --cpu host,nested=off")]
    UnknownKey(String),
    /// A key twice, or a value that is neither on nor off.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl FromStr for CpuConfig {
    type Err = CpuConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(',');
        let model = parts.next().unwrap_or_default();
        if model != "host" {
            return Err(CpuConfigError::Model(model.to_owned()));
        }
        let mut config = Self::default();
        for part in parts {
            let Some(value) = part.strip_prefix("nested=") else {
                return Err(CpuConfigError::UnknownKey(part.to_owned()));
            };
            set_switch(&mut config.nested, "nested", value)?;
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<CpuConfig>().expect_err("not understood").to_string()
    }

    #[test]
    fn host_is_the_default() {
        assert_eq!("host".parse(), Ok(CpuConfig::default()));
    }

    #[test]
    fn nesting_is_hidden_or_asked_for() {
        let nested = |text: &str| text.parse().map(|config: CpuConfig| config.nested);
        assert_eq!(nested("host,nested=off"), Ok(Some(false)));
        assert_eq!(nested("host,nested=on"), Ok(Some(true)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(error("qemu64").starts_with("\"qemu64\" is not a CPU model"));
        assert!(error("").contains("host,nested=off"));
        assert!(error("host,-svm").starts_with("\"-svm\" is not a key of --cpu"));
        assert!(error("host,nested").starts_with("\"nested\" is not a key"));
        assert_eq!(
            error("host,nested=maybe"),
            "nested=\"maybe\" is neither on nor off"
        );
        assert!(error("host,nested=on,nested=off").contains("twice"));
    }
}

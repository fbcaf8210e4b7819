//! Which Debian this machine runs.

use std::fs;

use anyhow::{Context, Result, bail};

/// The release as /etc/os-release names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Release {
    /// `12`, `13`
    pub(crate) version: String,
    /// `bookworm`, `trixie`
    pub(crate) codename: String,
}

impl Release {
    /// Reads the running system's release.
    pub(crate) fn of_this_machine() -> Result<Self> {
        let text = fs::read_to_string("/etc/os-release").context("Cannot read /etc/os-release")?;
        Self::parse(&text)
    }

    /// The release to take the lab's tree from, where it is not this one. Debian 12 has a QEMU
    /// without `igb`, and in the QEMU of its backports the registers of virtual functions do not
    /// answer.
    pub(crate) fn newer(&self) -> Option<&'static str> {
        (self.version == "12").then_some("trixie")
    }

    fn parse(text: &str) -> Result<Self> {
        let value = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.trim_matches('"').to_owned())
        };
        if value("ID").as_deref() != Some("debian") {
            let name = value("PRETTY_NAME").unwrap_or_else(|| "an unnamed system".to_owned());
            bail!("The lab takes its packages from Debian 12 or 13, this machine runs {name}");
        }
        match (value("VERSION_ID"), value("VERSION_CODENAME")) {
            (Some(version), Some(codename)) => Ok(Self { version, codename }),
            _ => bail!("/etc/os-release names no VERSION_ID and VERSION_CODENAME"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOKWORM: &str = "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n";

    #[test]
    fn only_debian_12_takes_the_tree_from_a_newer_release() {
        let twelve = Release::parse(BOOKWORM).expect("a Debian release");
        let thirteen = Release {
            version: "13".to_owned(),
            codename: "trixie".to_owned(),
        };
        assert_eq!(twelve.newer(), Some("trixie"));
        assert_eq!(thirteen.newer(), None);
    }

    #[test]
    fn another_distribution_is_named_in_the_refusal() {
        let error = Release::parse("ID=fedora\nPRETTY_NAME=\"Fedora 42\"\n").expect_err("not Debian");
        assert!(error.to_string().contains("Fedora 42"));
    }
}

//! Everything that passthrough needs, asked one by one: what is the case, whether that will do, and what to
//! do if not.

mod device;
mod machine;
mod memory;

use std::ops::Range;

use super::HostBdf;
use super::refusal::CheckError;
use super::usage::Usage;
use crate::host::access::Host;

/// How an answer is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing stands in the way.
    Pass,
    /// The host does not tell.
    Unknown,
    /// It will do, but not for everything.
    Warn,
    /// It will not work.
    Fail,
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A name for programs.
    pub check: &'static str,
    /// The device that was asked about; `None` for the machine.
    pub device: Option<HostBdf>,
    /// The question, as words before a colon.
    pub question: &'static str,
    /// What was found on this host.
    pub evidence: String,
    /// Whether it will do.
    pub verdict: Verdict,
    /// What to do about it, if something is known.
    pub remedy: Option<String>,
}

/// The guest that is to be run.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Memory of the guest that is planned, in bytes.
    pub memory_bytes: u64,
    /// Address spaces that it will have: one, or with an IOMMU of its own one for each device.
    pub address_spaces: u64,
    /// It will have an IOMMU of its own.
    pub has_viommu: bool,
    /// Where BARs below 4 GiB go: into the first of these that they fit into.
    pub low_windows: Vec<Range<u64>>,
    /// Where 64-bit BARs go.
    pub high_window: Range<u64>,
}

/// Asks everything about the machine and then about each of `devices`.
pub fn examine(host: Host<'_>, devices: &[HostBdf], wishes: &Wishes) -> Vec<Finding> {
    let mut findings = machine::examine(host.root, wishes);
    findings.extend(memory::examine(host.root, wishes));
    let usage = Usage::late(host.root);
    for &bdf in devices {
        findings.extend(device::examine(host, &usage, bdf, wishes));
    }
    findings
}

impl Finding {
    /// That all is well.
    pub fn pass(check: &'static str, question: &'static str, evidence: impl Into<String>) -> Self {
        Self {
            check,
            device: None,
            question,
            evidence: evidence.into(),
            verdict: Verdict::Pass,
            remedy: None,
        }
    }

    /// That the host does not tell, and what does.
    #[must_use]
    pub fn unknown(self, remedy: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Unknown,
            remedy: Some(remedy.into()),
            ..self
        }
    }

    /// That it will not work.
    #[must_use]
    pub fn fail(self, remedy: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            remedy: Some(remedy.into()),
            ..self
        }
    }

    /// That it will not do for everything.
    #[must_use]
    pub fn warn(self, remedy: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warn,
            remedy: Some(remedy.into()),
            ..self
        }
    }

    fn about(self, bdf: HostBdf) -> Self {
        Self {
            device: Some(bdf),
            ..self
        }
    }

    /// The result of a check of `strait run`, in the same words.
    fn of<T>(
        check: &'static str,
        question: &'static str,
        result: &Result<T, CheckError>,
        evidence: impl FnOnce(&T) -> String,
    ) -> Self {
        match result {
            Ok(found) => Self::pass(check, question, evidence(found)),
            Err(error) => Self {
                verdict: Verdict::Fail,
                remedy: error.remedy(),
                ..Self::pass(check, question, error.fact())
            },
        }
    }
}

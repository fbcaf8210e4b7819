//! `strait host doctor`.

use std::fs::File;
use std::io;

use clap::Args;
use serde::Serialize;
use strait_vfio::host::doctor::{self, Finding, Verdict, Wishes};
use strait_vfio::host::{Host, HostBdf, Root};

use super::find::find_all;
use crate::cli::failure::Failure;
use crate::cli::screen::{Screen, Tone};
use crate::config::MemorySize;
use crate::kvm::SystemError;
use crate::layout::{self, Range};
use crate::placement::{self, IovaRanges};

/// Physical address bits of a CPU that does not tell (Intel SDM, CPUID.80000008H).
const DEFAULT_ADDRESS_BITS: u8 = 36;

/// Say what keeps devices from being passed, and what to do about it.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 nothing is known that would keep it from working, 1 it would not work, 2 wrong usage."
)]
pub(super) struct DoctorArgs {
    /// Devices to look at; without any only the machine is looked at.
    #[arg(value_name = "DEVICE")]
    devices: Vec<String>,
    /// Show only what is not as it should be.
    #[arg(long, short)]
    quiet: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
    /// The memory of the guest to come.
    #[arg(long, short, value_name = "SIZE", default_value = "512M")]
    memory: MemorySize,
    /// Address spaces its devices will have: with an IOMMU of its own, up to one each.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    address_spaces: u64,
    /// The guest will have an IOMMU of its own.
    #[arg(long)]
    viommu: bool,
}

#[derive(Serialize)]
struct Reported<'a> {
    check: &'a str,
    device: Option<String>,
    question: &'a str,
    verdict: &'static str,
    evidence: &'a str,
    remedy: Option<&'a str>,
}

impl DoctorArgs {
    pub(super) fn run(self, host: Host<'_>, screen: &mut Screen<'_>) -> Result<u8, Failure> {
        let devices = find_all(host.root, &self.devices)?;
        let mut findings = doctor::examine(host, &devices, &self.wishes(host.root));
        // Behind the question about the CPU.
        findings.insert(1, kvm(host.root));
        let works = findings.iter().all(|finding| finding.verdict != Verdict::Fail);
        if self.quiet {
            findings.retain(|finding| finding.verdict != Verdict::Pass);
        }
        match self.json {
            true => print_json(screen, &findings)?,
            false => print(screen, &findings)?,
        }
        Ok(u8::from(!works))
    }

    fn wishes(&self, root: &Root) -> Wishes {
        let memory_bytes = self.memory.bytes();
        let placed = placement::place(
            memory_bytes,
            layout::MMIO_32[0],
            &IovaRanges::everything(),
            address_bits(root),
        );
        let high = placed.ok().and_then(|placed| placed.mmio_64);
        let addresses = |range: Range| range.start.0..range.end().0;
        Wishes {
            memory_bytes,
            address_spaces: self.address_spaces,
            has_viommu: self.viommu || self.address_spaces > 1,
            low_windows: layout::MMIO_32.map(addresses).to_vec(),
            high_window: high.map_or(0..0, addresses),
        }
    }
}

/// `address sizes : 48 bits physical, 48 bits virtual`.
fn address_bits(root: &Root) -> u8 {
    let text = root.text("proc/cpuinfo").unwrap_or_default();
    let bits = text.lines().find_map(|line| {
        let (_, sizes) = line.strip_prefix("address sizes")?.split_once(':')?;
        sizes.split_whitespace().next()?.parse().ok()
    });
    bits.unwrap_or(DEFAULT_ADDRESS_BITS)
}

/// In the words in which `strait run` refuses.
fn kvm(root: &Root) -> Finding {
    let (check, question) = ("kvm", "Can /dev/kvm be opened?");
    let opened = File::options().read(true).write(true).open(root.path("dev/kvm"));
    let error = match opened {
        Ok(_) => return Finding::pass(check, question, "yes, for reading and writing"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => SystemError::Missing,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            SystemError::permission(&root.path(""))
        }
        Err(error) => SystemError::Unusable(error),
    };
    let says = error.to_string();
    let (fact, remedy) = says.split_once(": ").unwrap_or((&says, "see the kernel's log"));
    Finding::pass(check, question, fact).fail(remedy)
}

fn print(screen: &mut Screen<'_>, findings: &[Finding]) -> Result<(), Failure> {
    let mut about: Option<HostBdf> = None;
    for finding in findings {
        if finding.device != about {
            about = finding.device;
            let heading = about.map(|bdf| bdf.to_string()).unwrap_or_default();
            screen.line(screen.paint(Tone::Heading, &heading))?;
        }
        let verdict = screen.paint(tone(finding.verdict), name(finding.verdict));
        screen.line(format!("{verdict}  {}", finding.question))?;
        screen.wrapped("      ", &finding.evidence)?;
        if let Some(remedy) = &finding.remedy {
            screen.wrapped("      ", &format!("-> {remedy}"))?;
        }
    }
    Ok(())
}

fn print_json(screen: &mut Screen<'_>, findings: &[Finding]) -> Result<(), Failure> {
    let reported = |finding: &Finding| -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(Reported {
            check: finding.check,
            device: finding.device.map(|bdf| bdf.to_string()),
            question: finding.question,
            verdict: name(finding.verdict),
            evidence: &finding.evidence,
            remedy: finding.remedy.as_deref(),
        })
    };
    let values = findings
        .iter()
        .map(reported)
        .collect::<serde_json::Result<Vec<_>>>()?;
    Ok(screen.line(serde_json::to_string_pretty(&values)?)?)
}

fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "PASS",
        Verdict::Unknown => "UNKNOWN",
        Verdict::Warn => "WARN",
        Verdict::Fail => "FAIL",
    }
}

fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Pass => Tone::Good,
        Verdict::Warn | Verdict::Unknown => Tone::Warning,
        Verdict::Fail => Tone::Bad,
    }
}

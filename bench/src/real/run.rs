//! A run: every VMM in rounds, and the report of it.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};

use super::at_work::{self, Found};
use super::device::Device;
use super::guest::{Ended, Moment, Trouble, run};
use super::image::Image;
use super::vmms::{MEMORY_MIB, Peer, on_path};
use super::work::Work;
use crate::counting::{
    BOOT, Boot, FLOOR, Figures, Launch, MAPPINGS, Probe, Process, Runs, Sheet, StartTrace, Trace, svm_exit,
    vmx_exit,
};
use crate::host::Look;
use crate::order::Order;
use crate::report::{Metric, Report};
use crate::shell::ThisHost;

const BASELINE: &str = "qemu";

/// What every guest's kernel is told.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1";

/// What is to be measured, as the command line says it.
#[derive(Debug)]
pub struct Options {
    /// Address or network interface of the device.
    pub device: String,
    /// VMMs beside this host's strait and QEMU, or in their place.
    pub peers: Vec<Peer>,
    /// Rounds of each, at least 1.
    pub rounds: u32,
    /// The one VMM that is measured, where it is one.
    pub only: Option<String>,
    /// Kernel and initial file system, where they are not this host's.
    pub image: Option<(PathBuf, PathBuf)>,
    /// What a guest may take before it counts as hung.
    pub limit: Duration,
    /// An iperf3 server that a guest with a NIC streams to.
    pub net_peer: Option<SocketAddrV4>,
    /// Whether the drive that is passed may be written to.
    pub destroys_data: bool,
}

/// Measures, and gives the device back whatever happens. A report that is not complete was interrupted.
///
/// # Errors
/// When nothing can be measured: the device is in use or not there, or a guest cannot be made.
pub fn measure(options: &Options, interrupted: &AtomicBool) -> Result<Report> {
    let strait = beside_or_on_path("strait").context("strait is neither beside strait-bench nor on PATH")?;
    let device = Device::find(&options.device, Path::new("/sys"))?;
    let work = Work::of(&device, options.net_peer, options.destroys_data).map_err(Error::msg)?;
    let vmms = chosen(options, strait.clone())?;
    let image = match &options.image {
        Some((kernel, initrd)) => Image::given(kernel, initrd),
        None => Image::of_this_host(&device, None)?,
    };
    image.check()?;
    let work = work.map(|work| (work, image_for(options, &device, &work)));
    let look = Look::before(|file| fs::read_to_string(file).ok());
    let mut bench = Bench {
        options,
        device,
        image,
        vmms,
        interrupted,
        work,
        figures: Figures::default(),
        found: Vec::new(),
        failed: BTreeMap::new(),
        doubts: Vec::new(),
    };
    let taken = bench.device.take(&strait)?;
    let outcome = bench.rounds();
    drop(taken);
    let mut report = bench.report();
    report.is_complete = outcome.is_ok();
    look.tell(&mut report);
    Ok(report)
}

fn beside_or_on_path(program: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok();
    let beside = own.and_then(|own| Some(own.parent()?.join(program)));
    beside
        .filter(|beside| beside.is_file())
        .or_else(|| on_path(program))
}

/// This host's strait and QEMU, and the named ones, which take the place of one of the same name.
fn chosen(options: &Options, strait: PathBuf) -> Result<Vec<Peer>> {
    let mut vmms: Vec<Peer> = [Some(Peer::strait(strait)), Peer::qemu()]
        .into_iter()
        .flatten()
        .collect();
    for peer in &options.peers {
        vmms.retain(|known| known.name() != peer.name());
        vmms.push(peer.clone());
    }
    if let Some(only) = &options.only {
        let names: Vec<_> = vmms.iter().map(Peer::name).collect();
        ensure!(
            names.contains(&only.as_str()),
            "--only {only}: what can be measured is {}",
            names.join(", ")
        );
        vmms.retain(|vmm| vmm.name() == only);
    }
    Ok(vmms)
}

/// The guest that works has its program with it, so that the others start as small as ever.
fn image_for(options: &Options, device: &Device, work: &Work) -> Result<Image, String> {
    let program = work.program();
    if options.image.is_some() {
        return Err("a guest of --kernel and --initrd is only started; leave them out".to_owned());
    }
    if on_path(program).is_none() {
        return Err(format!("{program} is not on this host's PATH; install it"));
    }
    Image::of_this_host(device, Some(program)).map_err(|error| format!("{error:#}"))
}

struct Bench<'a> {
    options: &'a Options,
    device: Device,
    image: Image,
    vmms: Vec<Peer>,
    interrupted: &'a AtomicBool,
    /// What guests do with the device, and what they are started from then, or why they are not.
    work: Option<(Work, Result<Image, String>)>,
    figures: Figures<Runs>,
    /// What guests at work told, each with its VMM.
    found: Vec<(&'static str, Found)>,
    /// Why a VMM is not measured any more.
    failed: BTreeMap<&'static str, Failure>,
    doubts: Vec<String>,
}

/// What went wrong with a VMM.
struct Failure {
    why: String,
    /// It was started well before; the chapter is the work's.
    at_work: Option<&'static str>,
}

impl Failure {
    fn concerns(&self, metric: &Metric) -> bool {
        self.at_work.is_none_or(|chapter| chapter == metric.chapter())
    }
}

/// The user wants to end.
struct Interrupted;

impl Bench<'_> {
    /// Looks at each VMM's process, which is the warm-up too, and then starts each in turn.
    fn rounds(&mut self) -> Result<(), Interrupted> {
        for vmm in self.vmms.clone() {
            let looked = self.look(&vmm);
            self.note(vmm.name(), "warm-up", None, looked)?;
        }
        for (round, subject) in Order::abba(self.vmms.len(), self.options.rounds).turns() {
            let vmm = self.vmms[subject].clone();
            if !self.failed.contains_key(vmm.name()) {
                self.floor(&vmm);
                let started = self.start(&vmm);
                self.note(
                    vmm.name(),
                    &format!("round {round} of {}", self.options.rounds),
                    None,
                    started,
                )?;
            }
        }
        self.work()
    }

    /// What a start takes at best, in each round of Strait's.
    fn floor(&mut self, vmm: &Peer) {
        if vmm.name() != "strait" {
            return;
        }
        let Some(program) = beside_or_on_path(FLOOR) else {
            return self.doubt(format!(
                "There is no floor of a start: {FLOOR} is neither beside strait-bench nor on PATH; \
                 `cargo build --release -p {FLOOR}` makes it."
            ));
        };
        let launch = Launch {
            memory_mib: MEMORY_MIB,
            files: [&self.image.kernel, &self.image.initrd].map(|path| path.display().to_string()),
            device: self.device.address.clone(),
        };
        let program = program.display().to_string();
        let floors = &mut self.figures.of(vmm.name()).floors;
        if let Err(error) = floors.measure(&Probe::new(&ThisHost, &program), &launch) {
            self.doubt(format!("The floor of a start cannot be measured: {error:#}."));
        }
    }

    /// Lets each VMM's guest work in turn.
    fn work(&mut self) -> Result<(), Interrupted> {
        let Some((work, Ok(_))) = self.work else {
            return Ok(());
        };
        for (round, subject) in Order::abba(self.vmms.len(), self.options.rounds).turns() {
            let vmm = self.vmms[subject].clone();
            if self.failed.contains_key(vmm.name()) {
                continue;
            }
            let words = self.words_at_work(&vmm);
            let done = at_work::measure(&work, &words, self.options.limit, self.interrupted);
            let done = done.map(|(found, seconds)| {
                self.found
                    .extend(found.into_iter().map(|found| (vmm.name(), found)));
                seconds
            });
            let what = format!("{}, round {round} of {}", work.name(), self.options.rounds);
            self.note(vmm.name(), &what, Some(work.name()), done)?;
        }
        Ok(())
    }

    /// Shows how it went. A VMM that failed is not started again.
    fn note(
        &mut self,
        vmm: &'static str,
        what: &str,
        at_work: Option<&'static str>,
        outcome: Result<f64, Trouble>,
    ) -> Result<(), Interrupted> {
        match outcome {
            Ok(seconds) => eprintln!("  {what}, {vmm}: {seconds:.2} s"),
            Err(Trouble::Failed(why)) => {
                eprintln!("  {what}, {vmm}: {why}");
                let why = format!("{what}: {why}");
                self.failed.insert(vmm, Failure { why, at_work });
            }
            Err(Trouble::Interrupted) => return Err(Interrupted),
        }
        Ok(())
    }

    fn words(&self, vmm: &Peer, more: &str) -> Vec<String> {
        let cmdline = format!("{CMDLINE} bench_device={}{more}", self.device.ids);
        vmm.command(&self.image, &self.device, &cmdline)
    }

    fn words_at_work(&self, vmm: &Peer) -> Vec<String> {
        let Some((work, Ok(image))) = &self.work else {
            return Vec::new();
        };
        let cmdline = format!("{CMDLINE} bench_device={}{}", self.device.ids, work.words());
        vmm.command(image, &self.device, &cmdline)
    }

    /// One guest that waits until its VMM's process was looked at.
    fn look(&mut self, vmm: &Peer) -> Result<f64, Trouble> {
        let mut trace = Trace::start(&ThisHost, MAPPINGS).ok();
        let mut process = None;
        let words = self.words(vmm, " bench_waits=1");
        let ended = run(&words, self.options.limit, self.interrupted, |moment, pid| {
            if moment != Moment::Waits {
                return;
            }
            let ram = 0..MEMORY_MIB << 20;
            let maps = trace
                .take()
                .and_then(|trace| trace.finish().ok())
                .map(|counts| counts.within("mappings", &ram));
            let program = vmm.path().to_string_lossy();
            process = Some(Process::sample(
                &ThisHost,
                &program,
                pid,
                MEMORY_MIB,
                maps.unwrap_or_default(),
            ));
        })?;
        match process {
            Some(Ok(process)) => self.figures.of(vmm.name()).process = Some(process),
            Some(Err(error)) => self.doubt(format!(
                "The process of {} cannot be looked at: {error:#}.",
                vmm.name()
            )),
            None => {}
        }
        Ok(ended.wall_s)
    }

    /// One guest that is left alone, but for the kernel's own counting.
    fn start(&mut self, vmm: &Peer) -> Result<f64, Trouble> {
        let words = self.words(vmm, "");
        let traces =
            Trace::start(&ThisHost, BOOT).and_then(|trace| Ok((trace, StartTrace::start(&ThisHost)?)));
        let ended = run(&words, self.options.limit, self.interrupted, |_, _| {})?;
        let noted = traces.and_then(|(trace, start)| Ok((trace.finish()?, start.finish()?)));
        let Ended {
            wall_s,
            ready_s,
            init_s,
            ..
        } = ended;
        let (counts, phases) = match noted {
            Ok((counts, moments)) => (Some(counts), Some(moments.phases(ready_s, wall_s))),
            Err(error) => {
                self.doubt(format!(
                    "Exits and the parts of a start cannot be counted: {error:#}."
                ));
                (None, None)
            }
        };
        let boot = Boot {
            wall_s,
            init_s,
            phases,
            counts,
        };
        self.figures.of(vmm.name()).boots.push(boot);
        Ok(wall_s)
    }

    fn doubt(&mut self, doubt: String) {
        if !self.doubts.contains(&doubt) {
            self.doubts.push(doubt);
        }
    }

    fn report(self) -> Report {
        let mut report = Report::new(BASELINE);
        let is_intel = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("GenuineIntel"));
        let kvm_exit = if is_intel { vmx_exit } else { svm_exit };
        for vmm in &self.vmms {
            let words = self.words(vmm, "");
            report.commands.insert(vmm.name().to_owned(), words.join(" "));
        }
        Runs::fill(&mut Sheet::new(&mut report, &self.figures), |runs| runs, kvm_exit);
        if let Some((work, image)) = &self.work {
            for part in work.parts() {
                let metric = report.metric((part.metric)());
                for vmm in self.vmms.iter().filter(|_| image.is_err()) {
                    metric.fail(vmm.name(), image.as_ref().err().map_or("", String::as_str));
                }
            }
        }
        for (vmm, (metric, figure)) in self.found {
            let metric = report.metric(metric);
            match figure {
                Ok(value) => metric.add(vmm, value),
                Err(why) => metric.fail(vmm, &why),
            }
        }
        for metric in &mut report.metrics {
            for (vmm, failure) in &self.failed {
                if failure.concerns(metric) {
                    metric.fail(vmm, &failure.why);
                }
            }
        }
        if !self.vmms.iter().any(|vmm| vmm.name() == BASELINE) {
            report
                .warnings
                .push("QEMU was not measured: there is nothing to compare with.".to_owned());
        }
        report.warnings.extend(self.doubts);
        report
    }
}

//! A guest from its start to its end, and its VMM's process meanwhile.

use super::counts::Counts;
use super::floors::Floors;
use super::names;
use super::phases::{COUNT as PHASE_COUNT, FIRST_INSTRUCTION, PHASES};
use super::process::Process;
use super::sheet::{Sheet, less};

/// One start of one VMM.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Start of the process to its end.
    pub wall_s: f64,
    /// The guest's uptime when its first program runs.
    pub init_s: f64,
    /// What the time was spent on, in seconds, where it could be noted down.
    pub phases: Option<[f64; PHASE_COUNT]>,
    /// What was counted, where it could be.
    pub counts: Option<Counts>,
}

/// Starts of one VMM, and its process.
#[derive(Debug, Default)]
pub struct Runs {
    /// As it was while a guest waited.
    pub process: Option<Process>,
    /// One start for each round, in the order of the rounds.
    pub boots: Vec<Boot>,
    /// What a start takes at best; in the same rounds, of Strait alone.
    pub floors: Floors,
}

impl Runs {
    /// Makes metrics of the runs of all VMMs; `of` finds them in what was measured, `kvm_exit` names KVM's exits as
    /// the CPU has them.
    pub fn fill<R>(sheet: &mut Sheet<'_, R>, of: fn(&R) -> &Runs, kvm_exit: fn(u64) -> String) {
        let wall = less("start.wall", "start of the VMM to the end of its guest", "s");
        sheet.row(wall, |runs| of(runs).boot(|boot| Some(boot.wall_s)));
        for (index, phase) in PHASES.into_iter().enumerate() {
            let part = less(&format!("start.wall.{}", phase.id), phase.title, "s").part_of("start.wall");
            sheet.row(part, |runs| of(runs).boot(|boot| Some(boot.phases?[index])));
        }
        let first = less(
            "start.first",
            "start of the VMM to the guest's first instruction",
            "s",
        );
        sheet.row(first, |runs| {
            of(runs).boot(|boot| Some(boot.phases?[..FIRST_INSTRUCTION].iter().sum()))
        });
        let init = less("start.init", "guest's uptime at its first program", "s");
        sheet.row(init, |runs| of(runs).boot(|boot| Some(boot.init_s)));
        Self::fill_exits(sheet, of, kvm_exit);
        Floors::fill(sheet, |runs| &of(runs).floors);
        Self::fill_process(sheet, of);
    }

    fn fill_exits<R>(sheet: &mut Sheet<'_, R>, of: fn(&R) -> &Runs, kvm_exit: fn(u64) -> String) {
        let whole = |name: &str, title: &str| less(&format!("exits.{name}"), title, "");
        let userspace = whole("userspace", "exits to user space, start to end");
        sheet.histogram(userspace, "userspace_exits", names::userspace_exit, |runs| {
            of(runs).counts()
        });
        let ports = whole("ports", "accesses to ports");
        sheet.histogram(ports, "pio_ports", names::port, |runs| of(runs).counts());
        let kvm = whole("kvm", "exits to KVM");
        sheet.histogram(kvm, "kvm_exits", kvm_exit, |runs| of(runs).counts());
        let ioctls = whole("ioctls", "ioctls of KVM and VFIO");
        sheet.histogram(ioctls, "ioctls", names::ioctl, |runs| of(runs).counts());
    }

    fn fill_process<R>(sheet: &mut Sheet<'_, R>, of: fn(&R) -> &Runs) {
        let mut row = |id: &str, title: &str, unit: &str, figure: fn(&Process) -> f64| {
            let metric = less(&format!("process.{id}"), title, unit);
            sheet.row(metric, |runs| {
                of(runs).process.iter().map(figure).collect::<Vec<_>>()
            });
        };
        let private = "private memory beyond guest RAM";
        row("private", private, "KiB", |process| process.private_kib as f64);
        row("threads", "threads", "", |process| process.threads as f64);
        row("descriptors", "descriptors", "", |process| {
            process.descriptors as f64
        });
        row("binary", "the VMM's own file", "KiB", |process| {
            process.binary_bytes as f64 / 1024.0
        });
        let one = "DMA map ioctls for the one region of RAM";
        row("ram-maps", one, "", |process| process.ram_maps as f64);
    }

    fn boot(&self, figure: impl Fn(&Boot) -> Option<f64>) -> Vec<f64> {
        self.boots.iter().filter_map(figure).collect()
    }

    fn counts(&self) -> Vec<&Counts> {
        self.boots
            .iter()
            .filter_map(|boot| boot.counts.as_ref())
            .collect()
    }
}

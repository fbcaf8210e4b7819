//! From nothing to a guest's first instruction.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use kvm_ioctls::VcpuExit;
use serde::Serialize;

use crate::device::Device;
use crate::guest::{CODE, Guest, virtual_machine};
use crate::ram::{Pages, Ram};

/// A virtual machine with memory, the files that a kernel starts with in it, and one CPU that executes HLT. Without CPUID,
/// interrupt controllers, devices of its own, or anything else that a guest looks for.
#[derive(Debug, Args)]
pub struct Launch {
    /// Memory in MiB.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    memory: u32,
    /// The pages that memory is made of.
    #[arg(long, value_enum, default_value_t = Pages::Ordinary)]
    pages: Pages,
    /// Files to read into memory.
    #[arg(long)]
    file: Vec<PathBuf>,
    /// Address of a function to open, which vfio-pci has.
    #[arg(long)]
    device: Option<String>,
    /// Take all memory from the host and map it for the device's DMA, before the guest starts.
    #[arg(long, requires = "device")]
    dma: bool,
}

/// What each step took, in nanoseconds.
#[derive(Debug, Default, Serialize)]
pub struct Took {
    device: u64,
    populate: u64,
    map: u64,
    files: u64,
}

/// Where memory ends below 4 GiB, for what the chipset has there; the rest is at 4 GiB.
const LOW_END: usize = 3 << 30;
const HIGH: u64 = 4 << 30;

/// Where the first file is.
const FILES: usize = 16 << 20;
const HLT: u8 = 0xf4;

/// Files begin at pages.
const PAGE: usize = 4096;

impl Launch {
    /// Starts the guest, and waits for its one instruction.
    ///
    /// # Errors
    /// When the kernel refuses something, or the files are more than the memory.
    pub fn run(&self) -> Result<Took> {
        let mut took = Took::default();
        let (_kvm, vm) = virtual_machine()?;
        let len = (self.memory as usize) << 20;
        let mut ram = Ram::new(len, self.pages).with_context(|| self.no_memory())?;
        let device = timed(&mut took.device, || {
            self.device.as_deref().map(Device::open).transpose()
        })?;
        if let Some(device) = device.as_ref().filter(|_| self.dma) {
            timed(&mut took.populate, || ram.populate()).context("cannot take memory from the host")?;
            timed(&mut took.map, || {
                halves(len).try_for_each(|(offset, len, guest)| device.map(ram.mapping(), offset, len, guest))
            })
            .context("cannot map memory for DMA")?;
        }
        timed(&mut took.files, || load(&self.file, ram.bytes()))?;
        ram.bytes()[CODE] = HLT;
        match Guest::new(vm, &Arc::new(ram), halves(len))?.run()? {
            VcpuExit::Hlt => Ok(took),
            exit => bail!("the guest left with {exit:?}, not with HLT"),
        }
    }

    fn no_memory(&self) -> String {
        let memory = self.memory;
        match self.pages {
            Pages::Ordinary => format!("cannot get {memory} MiB of memory"),
            Pages::TwoMib => format!(
                "cannot get {memory} MiB of the host's pool, which must have {0} free pages; `echo {0} > \
                 /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages` as root makes so many where none is in use",
                memory.div_ceil(2)
            ),
        }
    }
}

/// Memory below the chipset's and above: offset, bytes, guest address.
fn halves(len: usize) -> impl Iterator<Item = (usize, usize, u64)> {
    let low = len.min(LOW_END);
    let high = (len > low).then_some((low, len - low, HIGH));
    [(0, low, 0)].into_iter().chain(high)
}

fn load(files: &[PathBuf], ram: &mut [u8]) -> Result<()> {
    let mut at = FILES;
    for path in files {
        at += read(path, ram.get_mut(at..).unwrap_or_default())
            .with_context(|| format!("cannot read {}", path.display()))?
            .next_multiple_of(PAGE);
    }
    Ok(())
}

fn read(path: &Path, room: &mut [u8]) -> Result<usize> {
    let mut file = File::open(path)?;
    let len = usize::try_from(file.metadata()?.len())?;
    ensure!(len <= room.len(), "it is larger than the memory that is left");
    file.read_exact(&mut room[..len])?;
    Ok(len)
}

/// Adds the nanoseconds that `work` takes.
fn timed<T>(total: &mut u64, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let done = work();
    *total += u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_leaves_the_chipsets_addresses_free() {
        let all = |len| halves(len).collect::<Vec<_>>();
        assert_eq!(all(512 << 20), [(0, 512 << 20, 0)]);
        assert_eq!(all(4 << 30), [(0, 3 << 30, 0), (3 << 30, 1 << 30, 4 << 30)]);
    }

    #[test]
    fn a_guest_of_one_instruction_ends() {
        if File::options().read(true).write(true).open("/dev/kvm").is_err() {
            eprintln!("skipped: /dev/kvm cannot be opened");
            return;
        }
        let launch = Launch {
            memory: 64,
            pages: Pages::Ordinary,
            file: vec!["/proc/self/exe".into()],
            device: None,
            dma: false,
        };
        let took = launch.run().expect("a guest");
        assert!(took.files > 0 && took.populate == 0, "{took:?}");
    }
}

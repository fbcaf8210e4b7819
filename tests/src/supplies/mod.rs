//! Everything the lab is built from, downloaded and unpacked once.

mod apt;
pub(crate) mod cache;
pub(crate) mod command;
pub(crate) mod debug_kernel;
mod emulator;
pub(crate) mod fio;
pub(crate) mod further;
pub(crate) mod guests;
pub(crate) mod initramfs;
pub(crate) mod kernel;
mod modules;
mod needs;
pub(crate) mod progress;
pub(crate) mod qmp_client;
pub(crate) mod root;
mod valgrind;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use apt::{Apt, Package, Release};
use cache::Cache;
use emulator::Emulator;
use kernel::Kernel;
use root::Root;

/// Raise this when the way the tree is made changes, so that old caches are rebuilt.
const RECIPE: u32 = 2;

/// What the lab host runs, and what prepares it. QEMU is the lab machine, and inside the lab Strait's peer.
const PACKAGES: [&str; 32] = [
    "bash",
    "bochs",
    "bochs-term",
    "busybox-static",
    "coreutils",
    "dash",
    "ethtool",
    "findutils",
    "gdb",
    "grep",
    "hostname",
    "iperf3",
    "iproute2",
    "isolinux",
    "kexec-tools",
    "kmod",
    "lz4",
    "mawk",
    "memtest86+",
    "mount",
    "ncurses-base",
    "pciutils",
    "procps",
    "python3-pip",
    "qemu-system-x86",
    "sed",
    "strace",
    "syslinux-common",
    "util-linux",
    "xorriso",
    "xz-utils",
    "zstd",
];

/// The lab host's kernel, which is the default guest kernel too.
pub(crate) const HOST_SERIES: &str = "6.12";

/// An older kernel for guests. Debian 13 has none.
pub(crate) const OLD_SERIES: &str = "6.1";

/// Stamps of what joins the tree when it is wanted.
const FURTHER: &str = "kernels";
const DEBUG: &str = "debug-kernel";
const FIO: &str = "fio";
/// Stamp of what stands beside it.
const VALGRIND: &str = "valgrind";

/// The prepared tree.
pub(crate) struct Supplies {
    /// The root filesystem of the lab host, kernels and modules included.
    pub(crate) root: Root,
    /// What runs it.
    pub(crate) emulator: Emulator,
    /// RAM of the lab machine.
    pub(crate) memory_mib: u64,
    kernels: Vec<Kernel>,
    release: Release,
    cache: Cache,
}

impl Supplies {
    /// Downloads, verifies and unpacks on the first run; afterwards only looks at a stamp. Asks for all that the
    /// lab needs of this machine before anything takes time.
    pub(crate) fn prepare() -> Result<Self> {
        let release = Release::of_this_machine()?;
        let memory_mib = needs::memory_mib()?;
        needs::to_run()?;
        let cache = Cache::open()?;
        let recipe = format!("{RECIPE} {} {}\n", release.codename, PACKAGES.join(" "));
        let root = Root::new(cache.path("root"));
        if !cache.is_stamped("root", &recipe) {
            cache.take_alone()?;
            // Another lab may have prepared it while this one waited.
            if !cache.is_stamped("root", &recipe) {
                needs::to_fill(&cache.path(""))?;
                eprintln!("Preparing the lab in {}, once:", cache.path("").display());
                cache.remove_stamp("qmp-client")?;
                cache.remove_stamp(FURTHER)?;
                cache.remove_stamp(DEBUG)?;
                cache.remove_stamp(FIO)?;
                build(&cache, &release)?;
                cache.write_stamp("root", &recipe)?;
            }
            cache.share()?;
        }
        let mut supplies = Self {
            emulator: Emulator::of(&root)?,
            kernels: Vec::new(),
            memory_mib,
            root,
            release,
            cache,
        };
        supplies.find_kernels()?;
        Ok(supplies)
    }

    /// The same for the kernels that few scenarios want.
    pub(crate) fn add_further_kernels(&mut self) -> Result<()> {
        self.add(
            FURTHER,
            &further::recipe(&self.release),
            "Adding kernels for guests",
            further::build,
        )
    }

    /// The same for the kernel with debug information, which is built here.
    pub(crate) fn add_debug_kernel(&mut self) -> Result<()> {
        let recipe = debug_kernel::recipe(&self.release);
        self.add(
            DEBUG,
            &recipe,
            "Adding a kernel for debuggers",
            debug_kernel::build,
        )
    }

    /// Adds what the stamp of this name does not say to be there.
    fn add(
        &mut self,
        stamp: &str,
        recipe: &str,
        what: &str,
        build: fn(&Cache, &Release, &Root) -> Result<()>,
    ) -> Result<()> {
        let cache = &self.cache;
        if !cache.is_stamped(stamp, recipe) {
            cache.take_alone()?;
            if !cache.is_stamped(stamp, recipe) {
                needs::to_fill(&cache.path(""))?;
                eprintln!("{what}, once:");
                build(cache, &self.release, &self.root)?;
                cache.write_stamp(stamp, recipe)?;
            }
            cache.share()?;
        }
        self.find_kernels()
    }

    /// The same for QEMU's client of QMP.
    pub(crate) fn add_qmp_client(&self) -> Result<()> {
        let (cache, recipe) = (&self.cache, qmp_client::recipe());
        if !cache.is_stamped("qmp-client", recipe) {
            cache.take_alone()?;
            if !cache.is_stamped("qmp-client", recipe) {
                qmp_client::build(cache, &self.root)?;
                cache.write_stamp("qmp-client", recipe)?;
            }
            cache.share()?;
        }
        Ok(())
    }

    /// The same for fio.
    pub(crate) fn add_fio(&mut self) -> Result<()> {
        self.add(FIO, &fio::recipe(&self.release), "Adding fio", fio::build)
    }

    /// The same for valgrind, which stands beside the tree.
    pub(crate) fn add_valgrind(&mut self) -> Result<()> {
        let recipe = valgrind::recipe(&self.release);
        self.add(VALGRIND, &recipe, "Adding valgrind", |cache, release, _| {
            valgrind::build(cache, release)
        })
    }

    /// The program that counts instructions of what is named behind it, where it was added.
    pub(crate) fn callgrind(&self) -> Option<Command> {
        let recipe = valgrind::recipe(&self.release);
        let is_there = self.cache.is_stamped(VALGRIND, &recipe);
        is_there.then(|| valgrind::callgrind(&self.cache))
    }

    /// Those that are complete.
    fn find_kernels(&mut self) -> Result<()> {
        let mut complete = vec![HOST_SERIES, OLD_SERIES];
        if self.cache.is_stamped(FURTHER, &further::recipe(&self.release)) {
            complete.extend(further::ALL.map(|further| further.series));
        }
        if self.cache.is_stamped(DEBUG, &debug_kernel::recipe(&self.release)) {
            complete.push(debug_kernel::SERIES);
        }
        self.kernels = Kernel::all_in(&self.root)?;
        self.kernels
            .retain(|kernel| complete.iter().any(|series| kernel.is_of(series)));
        Ok(())
    }

    /// The newest kernel of a series, if there is one.
    pub(crate) fn kernel(&self, series: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.is_of(series))
    }

    /// The kernel of the lab host.
    pub(crate) fn host_kernel(&self) -> Result<&Kernel> {
        self.kernel(HOST_SERIES).with_context(|| {
            format!("There is no {HOST_SERIES} kernel in the lab's tree, run `cargo lab clean`")
        })
    }
}

fn build(cache: &Cache, release: &Release) -> Result<()> {
    let apt = Apt::new(cache, release)?;
    let files = apt.fetch(choose)?;

    let (fresh, root) = (cache.path("root.new"), cache.path("root"));
    remove(&fresh)?;
    Apt::unpack(&files, &fresh)?;
    finish_tree(&Root::new(fresh.clone()))?;
    remove(&root)?;
    fs::rename(&fresh, &root).with_context(|| format!("Cannot move {}", fresh.display()))
}

/// What the lab is made of, in the newest versions of the package lists.
fn choose(apt: &Apt) -> Result<Vec<Package>> {
    let mut packages = apt.with_dependencies(&PACKAGES)?;
    let kernel = apt.kernel(HOST_SERIES)?;
    if kernel.is_empty() {
        bail!("The configured Debian sources have no {HOST_SERIES} kernel");
    }
    packages.extend(kernel);
    packages.extend(apt.kernel(OLD_SERIES)?);
    Ok(packages)
}

/// What package scripts would do: module indexes, and beside each bzImage its vmlinux.
fn finish_tree(root: &Root) -> Result<()> {
    for kernel in Kernel::all_in(root)? {
        finish_kernel(root, &kernel.version, guests::NIC_DRIVERS)?;
        progress::step(&format!("Extracting vmlinux of {}", kernel.version), || {
            kernel.extract_vmlinux(root)
        })?;
    }
    Ok(())
}

/// Indexes its modules, and makes those that guests often load plain.
fn finish_kernel(root: &Root, version: &str, drivers: &[&str]) -> Result<()> {
    progress::step(&format!("Indexing the modules of {version}"), || {
        modules::index(root, version)?;
        modules::decompress(root, version, drivers)
    })
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("Cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// Moves a file or folder to where an interrupted run may have left one.
fn replace(from: &Path, to: &Path) -> Result<()> {
    if to.is_dir() {
        remove(to)?;
    }
    fs::rename(from, to).with_context(|| format!("Cannot create {}", to.display()))
}

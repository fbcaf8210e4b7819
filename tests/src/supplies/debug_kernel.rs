//! A kernel with types and lines for a debugger, built once from Debian's source: the debug information of Debian's own
//! kernel is a gigabyte of packages. It joins the tree, its debug information where a `-dbg` package would have it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};

use super::apt::{Apt, Release};
use super::cache::Cache;
use super::root::Root;
use super::{HOST_SERIES, command, finish_kernel, needs, progress, remove, replace};

/// What guests call it.
pub(crate) const SERIES: &str = "6.12-debug";

/// A module that greets when it is loaded (lib/test_module.c), and one with a function.
pub(crate) const DRIVERS: &[&str] = &["test_module", "crc7"];

/// What builds it: the release's compiler for the release's kernel, whatever the build machine has.
const TOOLS: [&str; 19] = [
    "bash",
    "bc",
    "bison",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "flex",
    "gcc",
    "grep",
    "gzip",
    "libc6-dev",
    "libelf-dev",
    "make",
    "mawk",
    "sed",
    "tar",
    "xz-utils",
    "zlib1g-dev",
];

/// All that is switched on: a guest of the lab without devices, its IOMMU, and what a debugger wants to know.
const CONFIG: &str = "\
CONFIG_LOCALVERSION=\"-debug\"
CONFIG_64BIT=y
CONFIG_SMP=y
CONFIG_NR_CPUS=8
CONFIG_PRINTK=y
CONFIG_BUG=y
CONFIG_MULTIUSER=y
CONFIG_FUTEX=y
CONFIG_EPOLL=y
CONFIG_POSIX_TIMERS=y
CONFIG_HIGH_RES_TIMERS=y
CONFIG_FILE_LOCKING=y
CONFIG_BINFMT_ELF=y
CONFIG_BINFMT_SCRIPT=y
CONFIG_BLK_DEV_INITRD=y
CONFIG_PROC_FS=y
CONFIG_PROC_SYSCTL=y
CONFIG_SYSFS=y
CONFIG_DEVTMPFS=y
CONFIG_SHMEM=y
CONFIG_TMPFS=y
CONFIG_TTY=y
CONFIG_SERIAL_8250=y
CONFIG_SERIAL_8250_CONSOLE=y
CONFIG_HYPERVISOR_GUEST=y
CONFIG_PARAVIRT=y
CONFIG_KVM_GUEST=y
CONFIG_PVH=y
CONFIG_ACPI=y
CONFIG_PCI=y
CONFIG_PCI_MSI=y
CONFIG_X86_X2APIC=y
CONFIG_IOMMU_SUPPORT=y
CONFIG_INTEL_IOMMU=y
CONFIG_IRQ_REMAP=y
CONFIG_MODULES=y
CONFIG_MODULE_UNLOAD=y
CONFIG_RUNTIME_TESTING_MENU=y
CONFIG_TEST_LKM=m
CONFIG_CRC7=m
CONFIG_KALLSYMS=y
CONFIG_KALLSYMS_ALL=y
CONFIG_DEBUG_KERNEL=y
CONFIG_DEBUG_INFO_DWARF5=y
CONFIG_GDB_SCRIPTS=y
CONFIG_FRAME_POINTER=y
CONFIG_UNWINDER_FRAME_POINTER=y
";

/// Where the workshop has the source, and what it makes.
const SOURCE: &str = "kernel";
const RESULT: &str = "result";

/// What the stamp says of it.
pub(super) fn recipe(release: &Release) -> String {
    format!("{} {}\n{CONFIG}", release.codename, TOOLS.join(" "))
}

/// Where debug information of a kernel is: the file, and beside it the kernel's own commands for gdb.
fn debug_folder(version: &str) -> String {
    format!("usr/lib/debug/lib/modules/{version}")
}

/// Builds it in a tree that has what it takes, and moves it into the lab's.
pub(super) fn build(cache: &Cache, release: &Release, root: &Root) -> Result<()> {
    needs::to_build(&cache.path(""))?;
    let apt = Apt::new(cache, release)?;
    let source = format!("linux-source-{HOST_SERIES}");
    let packages = [&TOOLS[..], &[&source]].concat();
    let files = apt.fetch(|apt| apt.with_dependencies(&packages))?;
    let workshop = Root::new(cache.path("workshop"));
    remove(workshop.folder())?;
    Apt::unpack(&files, workshop.folder())?;
    // As its package's script would.
    symlink("mawk", workshop.path("usr/bin/awk")).context("Cannot create a link in the workshop")?;
    progress::step("Building a kernel with debug information", || {
        make(&workshop, &source)
    })?;
    take(&workshop, root)?;
    remove(workshop.folder())
}

fn make(workshop: &Root, source: &str) -> Result<()> {
    fs::create_dir(workshop.path(SOURCE)).context("Cannot create a folder for the kernel's source")?;
    let archive = format!("/usr/src/{source}.tar.xz");
    let unpack = [
        "tar",
        "--no-same-owner",
        "--strip-components=1",
        "-C",
        SOURCE,
        "-xf",
        &archive,
    ];
    command::run(&mut inside(workshop, &unpack))?;
    let config = workshop.path(SOURCE).join("lab.config");
    fs::write(&config, CONFIG).with_context(|| format!("Cannot write {}", config.display()))?;
    let jobs = format!("-j{}", thread::available_parallelism().map_or(1, usize::from));
    let result = format!("INSTALL_MOD_PATH=/{RESULT}");
    let targets: [&[&str]; 3] = [
        &["KCONFIG_ALLCONFIG=lab.config", "allnoconfig"],
        &[&jobs, "bzImage", "modules", "scripts_gdb"],
        // They are indexed once they are in the lab's tree.
        &[&result, "DEPMOD=true", "modules_install"],
    ];
    targets.iter().try_for_each(|target| {
        let words = [&["make", "-s", "-C", SOURCE], *target].concat();
        command::run(&mut inside(workshop, &words)).map(drop)
    })
}

/// A program of a tree with the tree as its root: a compiler starts others by their paths. A namespace of its own lets
/// any user do that.
fn inside(tree: &Root, words: &[&str]) -> Command {
    let enter = "mount --rbind /dev \"$0/dev\" && exec chroot \"$0\" \"$@\"";
    let mut unshare = command::program("unshare");
    unshare
        .args(["--map-root-user", "--mount", "sh", "-c", enter])
        .arg(tree.folder())
        .args(words);
    let mut tied = command::tied(&unshare);
    tied.env("PATH", "/usr/sbin:/usr/bin").env_remove("TMPDIR");
    tied
}

/// Moves what was made into the lab's tree.
fn take(workshop: &Root, root: &Root) -> Result<()> {
    let release = workshop.path(SOURCE).join("include/config/kernel.release");
    let release =
        fs::read_to_string(&release).with_context(|| format!("Cannot read {}", release.display()))?;
    let version = release.trim();
    let debug = debug_folder(version);
    let modules = format!("usr/lib/modules/{version}");
    let folder = root.path(&debug);
    remove(&folder)?;
    fs::create_dir_all(folder.join("scripts"))
        .with_context(|| format!("Cannot create {}", folder.display()))?;
    let own = |name: &str| workshop.path(SOURCE).join(name);
    replace(
        &own("arch/x86/boot/bzImage"),
        &root.path(&format!("boot/vmlinuz-{version}")),
    )?;
    replace(&own("vmlinux"), &folder.join("vmlinux"))?;
    replace(&own("scripts/gdb/vmlinux-gdb.py"), &folder.join("vmlinux-gdb.py"))?;
    replace(&own("scripts/gdb"), &folder.join("scripts/gdb"))?;
    replace(
        &workshop.path(&format!("{RESULT}/lib/modules/{version}")),
        &root.path(&modules),
    )?;
    link(
        &format!("../{debug}/vmlinux"),
        root.path(&format!("boot/vmlinux-{version}")),
    )?;
    finish_kernel(root, version, DRIVERS)
}

/// A link in the place of one that an interrupted run left.
fn link(target: &str, at: PathBuf) -> Result<()> {
    let _ = fs::remove_file(&at);
    symlink(target, &at).with_context(|| format!("Cannot create {}", at.display()))
}

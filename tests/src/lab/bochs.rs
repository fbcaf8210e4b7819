//! Bochs: a machine with an Intel CPU, whose VT-x QEMU cannot emulate. It has no IOMMU. It starts from a disc that its
//! own BIOS reads; what it is asked comes over a serial line.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::share::Share;
use crate::supplies::debug_kernel::SERIES;
use crate::supplies::initramfs::{self, Contents};
use crate::supplies::root::LIBRARIES;
use crate::supplies::{HOST_SERIES, Supplies, command};

const INIT: &str = include_str!("../../../resources/lab/intel-init.sh");

/// Virtualization, and what it takes to read the disc.
const DRIVERS: [&str; 4] = ["kvm_intel", "ata_piix", "sr_mod", "isofs"];

/// Where it places the program that loads the kernel, a file that this changes (xorrisofs(1), `-boot-info-table`).
const LOADER: &str = "isolinux/isolinux.bin";

const GDB: &str = "usr/bin/gdb";

/// RAM of the machine, MiB.
const MEMORY_MIB: u32 = 1024;

/// Instructions in a second of its clock. It does about as many in a second of the build machine's, and skips what it
/// sleeps.
const SPEED: u32 = 50_000_000;

/// The command that starts it, and the harness's end of its serial line.
pub(super) fn command(
    supplies: &Supplies,
    share: &Share,
    model: &str,
    console: &Path,
    log: &Path,
) -> Result<(Command, OwnedFd)> {
    let disc = write_disc(supplies, share)?;
    let (line, terminal) = open_line().context("Cannot make a serial line for the lab machine")?;
    let settings = share.path("bochsrc");
    let text = settings_text(supplies, model, &disc, console, &terminal);
    fs::write(&settings, text).context("Cannot write the settings of the lab machine")?;
    let log = File::create(log).with_context(|| format!("Cannot create {}", log.display()))?;
    let mut command = command::tied(&supplies.root.command("usr/bin/bochs-bin"));
    command.args(["-q", "-f"]).arg(&settings);
    command.env(
        "LTDL_LIBRARY_PATH",
        supplies.root.path(LIBRARIES).join("bochs/plugins"),
    );
    // Its screen is a text screen; the least of terminals will do, nobody looks.
    command.env("TERM", "dumb");
    command.env("TERMINFO", supplies.root.path("usr/share/terminfo"));
    command
        .stdin(Stdio::null())
        .stderr(log.try_clone().context("Cannot share a log")?);
    command.stdout(log);
    Ok((command, line))
}

/// A terminal that passes on every byte as it is: the end for the harness, and the name of the machine's.
fn open_line() -> Result<(OwnedFd, String)> {
    let line = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&line)?;
    unlockpt(&line)?;
    let mut settings = tcgetattr(&line)?;
    settings.make_raw();
    tcsetattr(&line, OptionalActions::Now, &settings)?;
    let name = ptsname(&line, Vec::new())?.into_string()?;
    Ok((line, name))
}

/// The lab host's kernel and initial file system, and beside them what its /lab has.
fn write_disc(supplies: &Supplies, share: &Share) -> Result<PathBuf> {
    let kernel = supplies.host_kernel()?;
    let initrd = share.path("intel.cpio");
    let contents = Contents {
        drivers: &DRIVERS,
        choices: &[],
        programs: &["usr/bin/bash"],
        files: &[],
        script: INIT,
    };
    initramfs::write(&supplies.root, &kernel.version, &contents, &initrd)?;
    let menu = share.path("isolinux.cfg");
    let words = "console=ttyS0 panic=-1 quiet tsc=reliable";
    let text = format!("default lab\nlabel lab\n kernel /vmlinuz\n initrd /initrd\n append {words}\n");
    fs::write(&menu, text).context("Cannot write the menu of the lab machine's disc")?;
    let of_guest = |name: &str| format!("guest/{name}-{HOST_SERIES}");
    let files = [
        (
            LOADER.to_owned(),
            supplies.root.path("usr/lib/ISOLINUX/isolinux.bin"),
        ),
        (
            "isolinux/ldlinux.c32".to_owned(),
            supplies.root.path("usr/lib/syslinux/modules/bios/ldlinux.c32"),
        ),
        ("isolinux/isolinux.cfg".to_owned(), menu),
        ("vmlinuz".to_owned(), kernel.bzimage.clone()),
        ("initrd".to_owned(), initrd),
        ("bin".to_owned(), share.path("bin")),
        (of_guest("vmlinuz"), kernel.bzimage.clone()),
        (of_guest("initramfs"), share.path(&of_guest("initramfs"))),
    ];
    let files = files
        .into_iter()
        .chain(debugger(supplies)?)
        .chain(debug_kernel(supplies, share));
    let disc = share.path("disc.iso");
    let mut mkisofs = supplies.root.command("usr/bin/xorriso");
    mkisofs.args(["-as", "mkisofs", "-quiet", "-R", "-o"]).arg(&disc);
    mkisofs.args(["-b", LOADER, "-c", "isolinux/boot.cat", "-no-emul-boot"]);
    mkisofs.args(["-boot-load-size", "4", "-boot-info-table", "-graft-points"]);
    mkisofs.args(files.map(|(name, path)| format!("{name}={}", path.display())));
    command::run(&mut mkisofs).context("Cannot make the disc of the lab machine")?;
    Ok(disc)
}

/// gdb and its libraries: the files themselves, for a name among them is mostly a link to another. It goes without those
/// that Python is written in, which would take a minute to start with.
fn debugger(supplies: &Supplies) -> Result<Vec<(String, PathBuf)>> {
    let mut files = vec![("bin/gdb".to_owned(), supplies.root.path(GDB))];
    for library in supplies.root.libraries(GDB)? {
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        let file = library
            .canonicalize()
            .with_context(|| format!("Cannot find {}", library.display()))?;
        files.push((format!("lib/{name}"), file));
    }
    Ok(files)
}

/// The kernel with debug information, if there is one: as guests start it, and as gdb reads it.
fn debug_kernel(supplies: &Supplies, share: &Share) -> Vec<(String, PathBuf)> {
    let Some(kernel) = supplies.kernel(SERIES) else {
        return Vec::new();
    };
    let name = |of: &str| format!("guest/{of}-{SERIES}");
    vec![
        (name("vmlinuz"), kernel.bzimage.clone()),
        (name("vmlinux"), kernel.vmlinux.clone()),
        (name("initramfs"), share.path(&name("initramfs"))),
    ]
}

/// The reference of these is bochsrc(5).
fn settings_text(supplies: &Supplies, model: &str, disc: &Path, console: &Path, terminal: &str) -> String {
    let root = &supplies.root;
    let bios = root.path("usr/share/bochs/BIOS-bochs-latest");
    let video = root.path("usr/share/vgabios/vgabios.bin");
    let (bios, video, disc, console) = (bios.display(), video.display(), disc.display(), console.display());
    format!(
        "config_interface: textconfig
display_library: term
cpu: model={model}, count=1, ips={SPEED}, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest={MEMORY_MIB}, host={MEMORY_MIB}
romimage: file=\"{bios}\", options=fastboot
vgaromimage: file=\"{video}\"
pci: enabled=1, chipset=i440fx
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=\"{disc}\", status=inserted
boot: cdrom
clock: sync=none, time0=local
com1: enabled=1, mode=file, dev=\"{console}\"
com2: enabled=1, mode=term, dev=\"{terminal}\"
speaker: enabled=0
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
"
    )
}

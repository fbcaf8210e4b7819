//! The commands on a host made of files, with a kernel that does what Linux does.

mod bind;
mod mistakes;
mod odd;
mod pending;
mod remedies;
mod show;
mod unknown;
mod used;
mod vf;

use strait_vfio::host::Host;
use strait_vfio::host::testing::{FakeFunction, FakeHost};

use crate::cli::failure::Failure;
use crate::cli::screen::Screen;
use crate::cli::{Command, parse_from};

const NIC: &str = "0000:01:00.0";
const NVME: &str = "0000:02:00.0";
const RTL: &str = "0000:04:01.0";
const GPU: &str = "0000:05:00.0";
const SOUND: &str = "0000:05:00.1";

const NIC_PATH: &str = "0000:00:01.0/0000:01:00.0";
const NVME_PATH: &str = "0000:00:02.0/0000:02:00.0";
const GPU_PATH: &str = "0000:00:04.0/0000:05:00.0";

/// Path from the root bus, class, device id, group and driver.
const FUNCTIONS: [(&str, u32, u16, u32, Option<&str>); 12] = [
    ("0000:00:00.0", 0x06_0000, 0x29c0, 0, None),
    ("0000:00:01.0", 0x06_0400, 0x3420, 1, Some("pcieport")),
    (NIC_PATH, 0x02_0000, 0x10c9, 14, Some("igb")),
    ("0000:00:02.0", 0x06_0400, 0x3420, 2, Some("pcieport")),
    (NVME_PATH, 0x01_0802, 0x5845, 15, Some("nvme")),
    ("0000:00:03.0", 0x06_0400, 0x3420, 3, Some("pcieport")),
    ("0000:00:03.0/0000:03:00.0", 0x06_0400, 0x000e, 16, None),
    (
        "0000:00:03.0/0000:03:00.0/0000:04:01.0",
        0x02_0000,
        0x8139,
        16,
        Some("8139cp"),
    ),
    ("0000:00:04.0", 0x06_0400, 0x3420, 4, Some("pcieport")),
    (GPU_PATH, 0x03_0000, 0x1b06, 17, Some("nouveau")),
    (
        "0000:00:04.0/0000:05:00.1",
        0x04_0300,
        0x10ef,
        17,
        Some("snd_hda_intel"),
    ),
    ("0000:00:05.0", 0x0c_0330, 0x1e31, 18, None),
];

/// A NIC with SR-IOV, an NVMe disk, an old NIC behind a bridge, a graphics card with sound, and a USB
/// controller without a driver.
fn host() -> FakeHost {
    let host = FakeHost::new();
    for (path, class, device, group, driver) in FUNCTIONS {
        host.add(FakeFunction {
            path,
            class,
            ids: (0x8086, device),
            group: Some(group),
            driver,
        });
    }
    host.add_interface(NIC_PATH, "eth0").add_sriov(NIC_PATH, 7);
    host.add_interface("0000:00:03.0/0000:03:00.0/0000:04:01.0", "eth1");
    host.add_disk(NVME_PATH, "nvme0n1", "259:1");
    host.file("sys/class/tty/console/active", "tty0 ttyS0\n");
    host.file("sys/devices/pnp0/tty/ttyS0/dev", "4:64\n");
    host.link("sys/class/tty/ttyS0", "sys/devices/pnp0/tty/ttyS0");
    host.file(&format!("sys/devices/pci0000:00/{GPU_PATH}/boot_vga"), "1\n");
    host
}

/// What `strait words` prints and its exit code, or the one line it ends with.
fn run(host: &FakeHost, words: &str) -> Result<(String, u8), Failure> {
    let cli =
        parse_from(format!("strait {words}").split_whitespace()).map_err(|(message, code)| Failure {
            message: message.trim_start_matches("strait: ").to_owned(),
            code,
        })?;
    let Command::Host(args) = cli.command else {
        panic!("{words} is no command about the host");
    };
    let mut out = Vec::new();
    let code = args.run(Host::new(&host.root(), host), &mut Screen::plain(&mut out))?;
    Ok((String::from_utf8(out).expect("text"), code))
}

/// The same where all goes well.
fn done(host: &FakeHost, words: &str) -> String {
    match run(host, words) {
        Ok((text, 0)) => text,
        other => panic!("{words}: {other:?}"),
    }
}

/// Driver and override.
fn binding(host: &FakeHost, bdf: &str) -> String {
    let (driver, override_driver) = host.binding(bdf);
    format!("{driver} {override_driver}")
}

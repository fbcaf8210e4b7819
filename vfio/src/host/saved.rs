//! Bindings that are made again at each boot: a line for systemd-modules-load and a udev rule a device.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::HostBdf;
use super::error::BindError;
use super::journal::write_whole;
use super::sysfs::Root;

/// Where udev's rules of this host are, and what stands around the device's name in the names of ours.
const RULES: &str = "etc/udev/rules.d";
const RULE: (&str, &str) = ("10-strait-", ".rules");

/// Makes udev and systemd bind `devices` to `driver` at boot; all or none.
pub(super) fn save(root: &Root, devices: &[HostBdf], driver: &str) -> Result<(), BindError> {
    let mut former: Vec<(PathBuf, Option<String>)> = Vec::new();
    for &bdf in devices {
        for (path, content) in files(bdf, driver) {
            let file = root.path(&path);
            let written = text(&file).and_then(|before| {
                former.push((file.clone(), before));
                write_whole(&file, &content)
            });
            if let Err(source) = written {
                put_back(&former);
                let path = format!("/{path}");
                return Err(BindError::Save { bdf, path, source });
            }
        }
    }
    Ok(())
}

/// What stands in `file`, `None` if it is not there.
fn text(file: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Has `files` as they were, as far as that goes: the first failure is the one to tell.
fn put_back(files: &[(PathBuf, Option<String>)]) {
    for (file, before) in files {
        let _ = match before {
            Some(content) => write_whole(file, content),
            None => fs::remove_file(file),
        };
    }
}

/// Takes the files of `bdf` away; says whether there were any.
///
/// # Errors
/// When one stays.
pub(super) fn forget(root: &Root, bdf: HostBdf) -> io::Result<bool> {
    let mut found = false;
    for (path, _) in files(bdf, "") {
        match fs::remove_file(root.path(path)) {
            Ok(()) => found = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Whether `bdf` is bound at boot.
pub(super) fn is_saved(root: &Root, bdf: HostBdf) -> bool {
    root.path(rule_path(bdf)).exists()
}

/// The devices that are bound at boot, whether they are there or not.
pub(super) fn devices(root: &Root) -> Vec<HostBdf> {
    let device = |name: &String| name.strip_prefix(RULE.0)?.strip_suffix(RULE.1)?.parse().ok();
    root.names(RULES).iter().filter_map(device).collect()
}

fn rule_path(bdf: HostBdf) -> String {
    let (start, end) = RULE;
    format!("{RULES}/{start}{bdf}{end}")
}

/// Paths below the root, and what stands there. The rule runs before udev loads the modules that know the
/// device (80-drivers.rules), so that the override is there first; the driver is probed for in case it was
/// loaded earlier. Where a driver of the initramfs has the device by then, strait takes it, unless it is in use.
fn files(bdf: HostBdf, driver: &str) -> [(String, String); 2] {
    let mut rule = format!(
        "# Written by `strait host bind --save`; `strait host restore {bdf}` takes it away.\n\
         ACTION==\"add\", SUBSYSTEM==\"pci\", KERNEL==\"{bdf}\", ATTR{{driver_override}}=\"{driver}\", \
         RUN{{builtin}}+=\"kmod load {driver}\", \
         RUN+=\"/bin/sh -c 'echo $kernel > /sys/bus/pci/drivers_probe'\""
    );
    if let Some(strait) = this_program() {
        rule += &format!(", RUN+=\"{strait} host bind --driver {driver} {bdf}\"");
    }
    let modules = format!("# Written by `strait host bind --save` for {bdf}.\n{driver}\n");
    [
        (rule_path(bdf), rule + "\n"),
        (format!("etc/modules-load.d/strait-{bdf}.conf"), modules),
    ]
}

/// The path of strait, if it needs no quoting in a rule.
fn this_program() -> Option<String> {
    let path = env::current_exe().ok()?.into_os_string().into_string().ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._+-".contains(&byte);
    path.bytes().all(plain).then_some(path)
}

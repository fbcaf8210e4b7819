//! Processes that have a device's files open.

use std::fs;
use std::path::Path;

use super::Use;
use crate::host::HostBdf;
use crate::host::sysfs::{Root, names_in, read_text};

/// How far below a function its device files are looked for: an input device on USB is eight deep.
const MAX_DEPTH: u32 = 10;
/// Most folders looked into for one function.
const MAX_FOLDERS: usize = 4000;

/// A device file that a process has open.
#[derive(Clone, Debug)]
struct Opened {
    pid: u32,
    process: String,
    file: String,
}

/// All open files below /dev, as far as procfs shows them to this user.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenFiles(Vec<Opened>);

impl OpenFiles {
    pub(super) fn read(root: &Root) -> Self {
        let mut opened = Vec::new();
        for pid in root.names("proc").iter().filter_map(|name| name.parse().ok()) {
            let folder = root.path(format!("proc/{pid}"));
            let Ok(files) = fs::read_dir(folder.join("fd")) else {
                continue;
            };
            let mut targets: Vec<String> = files
                .flatten()
                .filter_map(|file| Some(fs::read_link(file.path()).ok()?.to_str()?.to_owned()))
                .filter(|target| target.starts_with("/dev/"))
                .collect();
            targets.sort();
            targets.dedup();
            let process = read_text(&folder.join("comm")).unwrap_or_default();
            opened.extend(targets.into_iter().map(|file| Opened {
                pid,
                process: process.clone(),
                file,
            }));
        }
        Self(opened)
    }

    pub(super) fn uses(&self, root: &Root, bdf: HostBdf) -> Vec<Use> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let files = device_files(root, bdf);
        let mut uses: Vec<Use> = Vec::new();
        for opened in self.0.iter().filter(|opened| files.contains(&opened.file)) {
            let known = |one: &Use| matches!(one, Use::Process { pid, .. } if *pid == opened.pid);
            if !uses.iter().any(known) {
                uses.push(Use::Process {
                    pid: opened.pid,
                    name: opened.process.clone(),
                    file: opened.file.clone(),
                });
            }
        }
        uses
    }
}

/// The device files of `bdf`: what its driver made below its folder, and VFIO's file of its group.
fn device_files(root: &Root, bdf: HostBdf) -> Vec<String> {
    let folder = root.function(bdf);
    let mut files = Vec::new();
    let mut folders = MAX_FOLDERS;
    collect_files(&folder, 0, &mut folders, &mut files);
    if let Ok(Some(device)) = root.device(bdf)
        && let Some(group) = device.group
    {
        files.push(format!("/dev/vfio/{group}"));
    }
    files
}

fn collect_files(folder: &Path, depth: u32, folders: &mut usize, files: &mut Vec<String>) {
    if depth > MAX_DEPTH || *folders == 0 {
        return;
    }
    *folders -= 1;
    let event = read_text(&folder.join("uevent")).unwrap_or_default();
    let name = event.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    files.extend(name.map(|name| format!("/dev/{}", name.trim_start_matches("/dev/"))));
    for name in names_in(folder) {
        let path = folder.join(&name);
        let is_folder = fs::symlink_metadata(&path).is_ok_and(|data| data.is_dir());
        // Behind a bridge are functions of their own.
        if is_folder && name.parse::<HostBdf>().is_err() {
            collect_files(&path, depth + 1, folders, files);
        }
    }
}

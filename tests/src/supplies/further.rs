//! Kernels for guests that few scenarios want: they are fetched when one does, and join the tree.

use std::fs;

use anyhow::{Context, Result};

use super::apt::{Apt, Release};
use super::cache::Cache;
use super::guests::NIC_DRIVERS;
use super::kernel::Kernel;
use super::root::Root;
use super::{finish_kernel, remove, replace};

/// One of them.
pub(crate) struct Further {
    /// What Debian calls it: its series, and behind a dash the flavour.
    pub(crate) series: &'static str,
    /// Modules for the NIC of its guests.
    pub(crate) drivers: &'static [&'static str],
}

/// All of them; the newest comes from the backports.
pub(crate) const ALL: [Further; 3] = [
    Further {
        series: "7",
        drivers: NIC_DRIVERS,
    },
    Further {
        series: "6.12-rt",
        drivers: NIC_DRIVERS,
    },
    // It has no driver for Intel's NICs.
    Further {
        series: "6.12-cloud",
        drivers: &["virtio_pci", "virtio_net"],
    },
];

const MODULES: &str = "usr/lib/modules";

/// What the stamp says of them.
pub(super) fn recipe(release: &Release) -> String {
    let names = ALL.map(|further| further.series).join(" ");
    format!("{} {names}\n", release.codename)
}

/// Downloads, verifies and unpacks those that this Debian has, and moves them into the tree.
pub(super) fn build(cache: &Cache, release: &Release, root: &Root) -> Result<()> {
    let apt = Apt::new(cache, release)?;
    apt.add_backports()?;
    let files = apt.fetch(|apt| {
        let found = ALL.iter().map(|further| apt.kernel(further.series));
        Ok(found.collect::<Result<Vec<_>>>()?.concat())
    })?;
    let fresh = Root::new(cache.path("kernels.new"));
    remove(fresh.folder())?;
    Apt::unpack(&files, fresh.folder())?;
    take_images(&fresh)?;
    for kernel in Kernel::all_in(&fresh)? {
        let version = &kernel.version;
        for name in [format!("{MODULES}/{version}"), format!("boot/vmlinuz-{version}")] {
            replace(&fresh.path(&name), &root.path(&name))?;
        }
        finish_kernel(root, version, drivers_of(&kernel))?;
    }
    remove(fresh.folder())
}

fn drivers_of(kernel: &Kernel) -> &'static [&'static str] {
    let found = ALL.iter().find(|further| kernel.is_of(further.series));
    found.map_or(&[], |further| further.drivers)
}

/// From 7.0 on Debian has the image beside the modules; its kernel package's script copies it.
fn take_images(tree: &Root) -> Result<()> {
    let boot = tree.path("boot");
    fs::create_dir_all(&boot).with_context(|| format!("Cannot create {}", boot.display()))?;
    let folder = tree.path(MODULES);
    let entries = fs::read_dir(&folder).with_context(|| format!("Cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("Cannot read {}", folder.display()))?;
        let image = entry.path().join("vmlinuz");
        if image.exists() {
            let version = entry.file_name();
            let to = boot.join(format!("vmlinuz-{}", version.display()));
            fs::rename(&image, &to).with_context(|| format!("Cannot move {}", image.display()))?;
        }
    }
    Ok(())
}

//! Kernels of the tree, and the ELF image inside a bzImage.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;

use anyhow::{Context, Result, bail};

use crate::supplies::root::Root;

/// Offsets in the setup header: Documentation/arch/x86/boot.rst, "The real-mode kernel header".
const SETUP_SECTS: usize = 0x1f1;
const HEADER_MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// What Debian builds besides the plain kernel, and what the lab does.
const FLAVOURS: [&str; 3] = ["cloud", "debug", "rt"];

/// `6.12-rt` is the flavour `rt` of the series `6.12`; the plain kernel's is empty.
pub(crate) fn series_and_flavour(name: &str) -> (&str, &str) {
    name.split_once('-').unwrap_or((name, ""))
}

/// One installed kernel.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// As `uname -r` prints it.
    pub(crate) version: String,
    /// The compressed image.
    pub(crate) bzimage: PathBuf,
    /// The ELF image with the PVH note.
    pub(crate) vmlinux: PathBuf,
}

impl Kernel {
    /// All kernels of the tree.
    pub(crate) fn all_in(root: &Root) -> Result<Vec<Self>> {
        let boot = root.path("boot");
        let entries = fs::read_dir(&boot).with_context(|| format!("Cannot read {}", boot.display()))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut kernels: Vec<Self> = names
            .filter_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned))
            .map(|version| Self {
                bzimage: boot.join(format!("vmlinuz-{version}")),
                vmlinux: boot.join(format!("vmlinux-{version}")),
                version,
            })
            .collect();
        kernels.sort_by(|a, b| a.version.cmp(&b.version));
        Ok(kernels)
    }

    /// Whether this is `6.12.something-amd64` for the series `6.12`, and `6.12.something-rt-amd64` for its flavour
    /// `6.12-rt`.
    pub(crate) fn is_of(&self, series: &str) -> bool {
        let (series, flavour) = series_and_flavour(series);
        let own = self.version.strip_suffix("-amd64").unwrap_or(&self.version);
        let own_flavour = FLAVOURS
            .into_iter()
            .find(|flavour| own.ends_with(&format!("-{flavour}")));
        own_flavour.unwrap_or_default() == flavour
            && own.strip_prefix(series).is_some_and(|rest| rest.starts_with('.'))
    }

    /// Writes the vmlinux beside the bzImage.
    pub(crate) fn extract_vmlinux(&self, root: &Root) -> Result<()> {
        let image =
            fs::read(&self.bzimage).with_context(|| format!("Cannot read {}", self.bzimage.display()))?;
        let payload =
            payload(&image).with_context(|| format!("{} is not a bzImage", self.bzimage.display()))?;
        let elf = decompress(root, payload)
            .with_context(|| format!("Cannot extract the vmlinux of {}", self.version))?;
        if !elf.starts_with(b"\x7fELF") {
            bail!("The payload of {} is not an ELF file", self.bzimage.display());
        }
        fs::write(&self.vmlinux, elf).with_context(|| format!("Cannot write {}", self.vmlinux.display()))
    }
}

/// The compressed payload, as the setup header places it.
fn payload(image: &[u8]) -> Option<&[u8]> {
    if image.get(HEADER_MAGIC..HEADER_MAGIC + 4)? != b"HdrS" {
        return None;
    }
    let protected_mode = (usize::from(*image.get(SETUP_SECTS)?) + 1) * 512;
    let start = protected_mode.checked_add(word(image, PAYLOAD_OFFSET)?)?;
    image.get(start..start.checked_add(word(image, PAYLOAD_LENGTH)?)?)
}

fn word(image: &[u8], offset: usize) -> Option<usize> {
    let bytes = image.get(offset..offset + 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(bytes) as usize)
}

/// Decompresses by the tree's own tools. All formats but gzip are followed by the size of the
/// uncompressed kernel, four bytes that the tools take for garbage.
fn decompress(root: &Root, payload: &[u8]) -> Result<Vec<u8>> {
    let sized = &payload[..payload.len().saturating_sub(4)];
    match payload {
        [0x1f, 0x8b, ..] => filter(root, "usr/bin/busybox", &["gunzip", "-c"], payload),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => filter(root, "usr/bin/xz", &["-dc"], sized),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => filter(root, "usr/bin/zstd", &["-dc"], sized),
        [0x02, 0x21, 0x4c, 0x18, ..] => filter(root, "usr/bin/lz4", &["-dc"], sized),
        _ => bail!("The kernel is compressed in a way that the lab does not know"),
    }
}

/// Sends `input` through a program of the tree.
pub(crate) fn filter(root: &Root, program: &str, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let mut child = root
        .command(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("Cannot start {program}"))?;
    let mut stdin = child
        .stdin
        .take()
        .with_context(|| format!("{program} has no input"))?;
    let output = thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output()
    })
    .with_context(|| format!("Cannot wait for {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_is_found_behind_the_setup_sectors() {
        let mut image = vec![0; 2048];
        image[SETUP_SECTS] = 1;
        image[HEADER_MAGIC..HEADER_MAGIC + 4].copy_from_slice(b"HdrS");
        image[PAYLOAD_OFFSET] = 8;
        image[PAYLOAD_LENGTH] = 3;
        image[1032..1035].copy_from_slice(b"xyz");
        assert_eq!(payload(&image), Some(&b"xyz"[..]));
    }

    #[test]
    fn payload_beyond_the_file_is_no_payload() {
        let mut image = vec![0; 1024];
        image[HEADER_MAGIC..HEADER_MAGIC + 4].copy_from_slice(b"HdrS");
        image[PAYLOAD_LENGTH + 3] = 0xff;
        assert_eq!(payload(&image), None);
    }

    #[test]
    fn a_kernel_is_of_one_series_and_one_flavour() {
        let series = |version: &str| {
            let kernel = Kernel {
                version: version.to_owned(),
                bzimage: PathBuf::new(),
                vmlinux: PathBuf::new(),
            };
            ["6.1", "6.12", "6.12-rt", "6.12-cloud", "6.12-debug", "7"]
                .into_iter()
                .filter(|series| kernel.is_of(series))
                .collect::<Vec<_>>()
        };
        assert_eq!(series("6.12.95+deb13-amd64"), ["6.12"]);
        assert_eq!(series("6.1.0-56-amd64"), ["6.1"]);
        assert_eq!(series("6.12.95+deb13-rt-amd64"), ["6.12-rt"]);
        assert_eq!(series("6.12.95+deb13-cloud-amd64"), ["6.12-cloud"]);
        assert_eq!(series("6.12.95-debug"), ["6.12-debug"]);
        assert_eq!(series("7.3.4+deb13-amd64"), ["7"]);
    }
}

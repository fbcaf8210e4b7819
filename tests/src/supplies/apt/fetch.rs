//! Choosing, downloading and verifying packages.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Apt;
use crate::supplies::command;
use crate::supplies::kernel::series_and_flavour;
use crate::supplies::progress::{self, Counter};

/// A mirror has a bad minute now and then.
const TRIES: u32 = 3;

/// One package file as the signed package lists describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    /// `NAME_VERSION_ARCH.deb`, the colon of an epoch written as `%3a`.
    file: String,
    size: u64,
    sha256: String,
}

impl Apt {
    /// Fetches the package lists. apt checks their signatures.
    pub(super) fn update(&self) -> Result<()> {
        progress::step("Reading the package lists", || {
            retry(|| command::run(self.command("apt-get").args(["-q", "update"])).map(drop))
        })
        .context(
            "Cannot read the package lists of the configured Debian sources; the lab's first run needs their mirror",
        )
    }

    /// The newest of these packages, and everything they depend on.
    pub(crate) fn with_dependencies(&self, names: &[&str]) -> Result<Vec<Package>> {
        let mut install = self.command("apt-get");
        install.args(["-y", "--print-uris"]);
        let listing = command::output(install.arg("install").args(names))
            .context("Cannot find the lab's packages in the configured Debian sources")?;
        Ok(listing.lines().filter_map(Package::parse).collect())
    }

    /// The newest of this package without what it depends on.
    pub(crate) fn alone(&self, name: &str) -> Result<Vec<Package>> {
        let mut download = self.command("apt-get");
        let listing = command::output(download.args(["--print-uris", "download", name]))
            .with_context(|| format!("Cannot find {name} in the configured Debian sources"))?;
        Ok(listing.lines().filter_map(Package::parse).collect())
    }

    /// The packages of the newest kernel of a series such as `6.12`, or of its flavour as `6.12-rt`: none if this Debian
    /// has no such kernel.
    pub(crate) fn kernel(&self, series: &str) -> Result<Vec<Package>> {
        let (series, flavour) = series_and_flavour(series);
        let dash = if flavour.is_empty() { "" } else { "-" };
        let meta = format!("linux-image-{flavour}{dash}amd64");
        let versions = command::output(self.command("apt-cache").args(["madison", &meta]))?;
        let newest = versions
            .lines()
            .filter_map(|line| line.split('|').nth(1).map(str::trim))
            .find(|version| version.starts_with(&format!("{series}.")));
        let Some(version) = newest else {
            return Ok(Vec::new());
        };
        let is_image = |name: &&String| name.starts_with("linux-image-");
        let depends = self.depends(&format!("{meta}={version}"))?;
        let image = depends
            .iter()
            .find(is_image)
            .with_context(|| format!("{meta} of {version} names no kernel image"))?;
        let mut names = vec![image.clone()];
        // From 7.0 on it is in parts, of which this one only has the scripts.
        let own = image.trim_start_matches("linux-image");
        let parts = self.depends(&format!("{image}={version}"))?;
        names.extend(parts.into_iter().filter(|part| part.ends_with(own)));
        let wanted = names.iter().map(|name| format!("{name}={version}"));
        let mut download = self.command("apt-get");
        let listing = command::output(download.args(["--print-uris", "download"]).args(wanted))?;
        Ok(listing.lines().filter_map(Package::parse).collect())
    }

    /// The names of what a package depends on.
    fn depends(&self, package: &str) -> Result<Vec<String>> {
        let shown = command::output(self.command("apt-cache").args(["show", package]))?;
        let line = shown.lines().find_map(|line| line.strip_prefix("Depends: "));
        let names = line.unwrap_or_default().split(',');
        let first_word = |entry: &str| entry.split_whitespace().next().map(str::to_owned);
        Ok(names.filter_map(first_word).collect())
    }

    /// Chooses packages and downloads them. Lists of an earlier run, or of a proxy, may name versions that the mirror
    /// has no more: then once more with new ones.
    pub(crate) fn fetch(&self, choose: impl Fn(&Self) -> Result<Vec<Package>>) -> Result<Vec<PathBuf>> {
        let attempt = || self.download(&choose(self)?);
        attempt().or_else(|error| {
            eprintln!("  {error:#}; once more, with new package lists");
            fs::remove_dir_all(&self.lists)
                .with_context(|| format!("Cannot remove {}", self.lists.display()))?;
            self.update()?;
            attempt()
        })
    }

    /// Downloads what is not there yet and verifies every file.
    fn download(&self, packages: &[Package]) -> Result<Vec<PathBuf>> {
        let missing: Vec<&Package> = packages
            .iter()
            .filter(|package| !self.has_size(package))
            .collect();
        if !missing.is_empty() {
            retry(|| self.download_missing(&missing)).context("Cannot download the lab's packages")?;
        }
        self.verify(packages)?;
        Ok(packages
            .iter()
            .map(|package| self.archives.join(&package.file))
            .collect())
    }

    fn download_missing(&self, missing: &[&Package]) -> Result<()> {
        let total: u64 = missing.iter().map(|package| package.size).sum();
        let mut counter = Counter::new("Downloading", total >> 20, "MiB");
        let mut child = self
            .command("apt-get")
            .args(["-q", "download"])
            .args(missing.iter().map(|package| package.wanted()))
            .current_dir(&self.archives)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("Cannot start apt-get")?;
        while child.try_wait().context("Cannot wait for apt-get")?.is_none() {
            let have: u64 = missing.iter().map(|package| self.size_on_disk(package)).sum();
            counter.show(have >> 20);
            sleep(Duration::from_millis(200));
        }
        let output = child.wait_with_output().context("Cannot wait for apt-get")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("apt-get download failed: {}", command::last_line(&said));
        }
        counter.finish();
        Ok(())
    }

    /// apt has verified what it downloaded; this verifies what lies in the cache now.
    fn verify(&self, packages: &[Package]) -> Result<()> {
        let sums: BTreeMap<&str, &Package> = packages.iter().map(|p| (p.file.as_str(), p)).collect();
        let list: String = sums
            .values()
            .map(|package| format!("{}  {}\n", package.sha256, package.file))
            .collect();
        progress::step("Verifying SHA-256 of every package", || {
            let bad = failed_sums(&self.archives, &list)?;
            for file in &bad {
                let _ = fs::remove_file(self.archives.join(file));
            }
            if !bad.is_empty() {
                bail!(
                    "The SHA-256 of {} is wrong, it was removed: run again",
                    bad.join(", ")
                );
            }
            Ok(())
        })
    }

    fn has_size(&self, package: &Package) -> bool {
        self.size_on_disk(package) == package.size
    }

    fn size_on_disk(&self, package: &Package) -> u64 {
        fs::metadata(self.archives.join(&package.file)).map_or(0, |metadata| metadata.len())
    }
}

impl Package {
    /// A line of `apt-get --print-uris`: `'URI' FILE SIZE SHA256:HASH`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix('\'')?.split_whitespace();
        let _uri = words.next()?;
        Some(Self {
            file: words.next()?.to_owned(),
            size: words.next()?.parse().ok()?,
            sha256: words.next()?.strip_prefix("SHA256:")?.to_owned(),
        })
    }

    /// `NAME=VERSION`, as `apt-get download` takes it.
    fn wanted(&self) -> String {
        let mut parts = self.file.split('_');
        let name = parts.next().unwrap_or_default();
        let version = parts.next().unwrap_or_default().replace("%3a", ":");
        format!("{name}={version}")
    }
}

/// The files that `sha256sum` finds changed.
fn failed_sums(folder: &Path, list: &str) -> Result<Vec<String>> {
    let mut child = command::program("sha256sum")
        .args(["--check", "-"])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("Cannot start sha256sum")?;
    // The answer is shorter than a pipe holds only for few files: write from a thread.
    let mut stdin = child.stdin.take().context("sha256sum has no input")?;
    let list = list.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(list.as_bytes()));
    let output = child.wait_with_output().context("Cannot wait for sha256sum")?;
    let _ = writer.join();
    let report = String::from_utf8_lossy(&output.stdout);
    let bad: Vec<String> = report
        .lines()
        .filter_map(|line| line.split_once(": FAILED"))
        .map(|(file, _)| file.to_owned())
        .collect();
    if bad.is_empty() && !output.status.success() {
        bail!("sha256sum could not check the packages in {}", folder.display());
    }
    Ok(bad)
}

fn retry(mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
    let mut tries = 1;
    loop {
        match attempt() {
            Err(error) if tries < TRIES => {
                eprintln!("\n  {error:#}; trying again ({tries} of {})", TRIES - 1);
                sleep(Duration::from_secs(2));
                tries += 1;
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn print_uris_line_gives_name_version_and_hash() {
        let line = "'http://mirror.example/q_10%2bds_amd64.deb' qemu_1%3a10.0+ds_amd64.deb 123 SHA256:abcd";
        let package = Package::parse(line).expect("a package line");
        assert_eq!(package.wanted(), "qemu=1:10.0+ds");
        assert_eq!((package.size, package.sha256.as_str()), (123, "abcd"));
    }

    #[test]
    fn chatter_of_apt_is_no_package() {
        assert_eq!(Package::parse("Reading package lists..."), None);
        assert_eq!(
            Package::parse("'http://mirror.example/x' x.deb 1 MD5Sum:abcd"),
            None
        );
    }

    #[test]
    fn a_changed_file_fails_its_sum() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("a.deb"), "changed").expect("a file");
        let list = format!("{}  a.deb\n", "0".repeat(64));
        assert_eq!(failed_sums(folder.path(), &list).expect("a verdict"), ["a.deb"]);
    }
}

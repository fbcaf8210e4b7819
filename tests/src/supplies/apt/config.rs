//! The private apt configuration: nothing of the system is written, and of what is read only the
//! sources, the keys, the credentials and the network settings.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::Release;
use super::sources::{self, Source};
use crate::supplies::cache::Cache;
use crate::supplies::command;

/// Where the release's own keyring package keeps the keys of all releases.
const KEYRING: &str = "usr/share/keyrings/debian-archive-keyring.gpg";

/// apt with folders of its own.
pub(crate) struct Apt {
    pub(super) config: PathBuf,
    pub(super) archives: PathBuf,
    pub(super) lists: PathBuf,
    sources: PathBuf,
    /// The archives of the release that the tree is of, and its name.
    release: (Vec<Source>, String),
    /// Keys of a newer release, outside the cache: apt takes a space in their path for its end.
    keys: TempDir,
}

impl Apt {
    /// Writes the configuration into the cache folder and reads the package lists.
    pub(crate) fn new(cache: &Cache, release: &Release) -> Result<Self> {
        let folder = cache.make_folder("apt")?;
        for name in ["etc/none", "etc/sources", "cache/archives/partial", "state"] {
            cache.make_folder(&format!("apt/{name}"))?;
        }
        let own = sources::collect(Path::new("/etc/apt"), release)?;
        let mut apt = Self {
            config: folder.join("etc/apt.conf"),
            archives: cache.make_folder("apt/archives")?,
            lists: cache.make_folder("apt/lists")?,
            sources: folder.join("etc/sources/lab.sources"),
            release: (own.clone(), release.codename.clone()),
            keys: tempfile::tempdir().context("Cannot create a temporary folder")?,
        };
        // An empty list of installed packages: apt then resolves a dependency tree from nothing.
        write(&folder.join("state/status"), "")?;
        write(&apt.config, &(own_settings(&folder) + &network_settings()?))?;

        write(&apt.sources, &sources::render(&own))?;
        apt.update()?;
        if let Some(newer) = release.newer() {
            apt.add_release(&own, &release.codename, newer)?;
        }
        Ok(apt)
    }

    /// Adds a newer release from the same archives. Its keys come with the running release's own
    /// keyring package, which the running release's keys vouch for.
    fn add_release(&mut self, own: &[Source], from: &str, to: &str) -> Result<()> {
        let keyring = self.fetch(|apt| apt.with_dependencies(&["debian-archive-keyring"]))?;
        Self::unpack(&keyring, self.keys.path())?;
        let keys = self.keys.path().join(KEYRING);
        let newer: Vec<Source> = own
            .iter()
            .map(|source| source.of_release(from, to, &keys))
            .collect();
        write(&self.sources, &(sources::render(own) + &sources::render(&newer)))?;
        self.release = (newer, to.to_owned());
        self.update()
    }

    /// Adds the backports of the tree's release, from the same archives. Of what is in both, apt keeps to the release.
    /// A mirror without them is left as it is.
    pub(crate) fn add_backports(&self) -> Result<()> {
        let (archives, codename) = &self.release;
        let backports: Vec<Source> = archives
            .iter()
            .filter_map(|source| source.backports_of(codename))
            .collect();
        let before = fs::read_to_string(&self.sources).context("Cannot read the list of sources")?;
        write(&self.sources, &(before.clone() + &sources::render(&backports)))?;
        self.update().or_else(|error| {
            eprintln!("  No backports: {error:#}");
            write(&self.sources, &before)?;
            self.update()
        })
    }

    /// A command of apt's family under the private configuration.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = command::program(program);
        command
            .env("APT_CONFIG", &self.config)
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

fn own_settings(folder: &Path) -> String {
    let at = |name: &str| folder.join(name).display().to_string();
    let settings = [
        ("Dir::Etc::main", "/dev/null".to_owned()),
        ("Dir::Etc::parts", at("etc/none")),
        ("Dir::Etc::sourcelist", "/dev/null".to_owned()),
        ("Dir::Etc::sourceparts", at("etc/sources")),
        ("Dir::Etc::preferences", "/dev/null".to_owned()),
        ("Dir::Etc::preferencesparts", at("etc/none")),
        ("Dir::Etc::netrc", "/etc/apt/auth.conf".to_owned()),
        ("Dir::Etc::netrcparts", "/etc/apt/auth.conf.d".to_owned()),
        ("Dir::Etc::trusted", "/etc/apt/trusted.gpg".to_owned()),
        ("Dir::Etc::trustedparts", "/etc/apt/trusted.gpg.d".to_owned()),
        ("Dir::State", at("state")),
        ("Dir::State::Lists", at("lists")),
        ("Dir::State::status", at("state/status")),
        ("Dir::Cache", at("cache")),
        // The cache may lie in a home folder that apt's own user cannot enter.
        ("APT::Sandbox::User", "root".to_owned()),
        ("APT::Architecture", "amd64".to_owned()),
        ("APT::Install-Recommends", "false".to_owned()),
        ("Acquire::Languages", "none".to_owned()),
        // By default apt takes old lists for an update whose mirror it did not reach.
        ("APT::Update::Error-Mode", "any".to_owned()),
        ("Acquire::ForceHash", "SHA256".to_owned()),
        ("Acquire::Retries", "3".to_owned()),
    ];
    settings
        .iter()
        .map(|(key, value)| format!("{key} \"{value}\";\n"))
        .collect()
}

/// Proxies, timeouts and clock tolerance as the machine's owner set them.
fn network_settings() -> Result<String> {
    let dump = command::output(command::program("apt-config").arg("dump"))
        .context("The lab needs apt, as on Debian 12 and 13")?;
    let carried = |line: &&str| {
        let prefixes = [
            "Acquire::http",
            "Acquire::Check-",
            "Acquire::Max-",
            "Acquire::ForceIPv",
        ];
        prefixes.iter().any(|prefix| line.starts_with(prefix)) && !line.ends_with("\"\";")
    };
    Ok(dump
        .lines()
        .filter(carried)
        .map(|line| format!("{line}\n"))
        .collect())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("Cannot write {}", path.display()))
}

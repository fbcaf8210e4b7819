//! Where consoles and error output of a run are kept for the reader: STRAIT_LAB_LOGS, or `.lab/` in
//! the checkout.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The log folder, emptied at the start of each run.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    folder: PathBuf,
}

impl Logs {
    /// Empties and opens the folder.
    pub(crate) fn open() -> Result<Self> {
        let folder = match env::var_os("STRAIT_LAB_LOGS").filter(|value| !value.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => workspace().join(".lab"),
        };
        let logs = Self { folder };
        logs.make_room().with_context(|| {
            let folder = logs.folder.display();
            format!("Cannot write logs in {folder}, set STRAIT_LAB_LOGS to a folder for them")
        })?;
        logs.remove_old()?;
        Ok(logs)
    }

    /// A folder that files can be made in.
    fn make_room(&self) -> std::io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let probe = self.path("lab.log");
        File::create(&probe).map(drop)
    }

    /// Only what the lab writes: a mistyped folder must not cost anyone their files.
    fn remove_old(&self) -> Result<()> {
        let entries =
            fs::read_dir(&self.folder).with_context(|| format!("Cannot read {}", self.folder.display()))?;
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.extension().is_some_and(|extension| extension == "log") {
                fs::remove_file(&path).with_context(|| format!("Cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// The path of one log.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A log that is not there yet: NAME.log, then NAME-2.log and so on.
    pub(crate) fn fresh(&self, name: &str) -> PathBuf {
        let numbered = (2..).map(|number| format!("{name}-{number}.log"));
        let mut paths = std::iter::once(format!("{name}.log"))
            .chain(numbered)
            .map(|name| self.path(&name));
        paths
            .find(|path| !path.exists())
            .unwrap_or_else(|| self.path(name))
    }

    /// Adds to one log. A full disk must not turn a verdict, so failure is only said.
    pub(crate) fn append(&self, name: &str, text: &str) {
        let path = self.path(name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        if let Err(error) = file.and_then(|mut file| writeln!(file, "{text}")) {
            eprintln!("Cannot write {}: {error}", path.display());
        }
    }
}

/// The checkout that this program was built from.
pub(crate) fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

//! `strait symbols`: a file of symbols for gdb.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::gdb::{SymbolsError, symbols};

/// Bytes of the longest copy; that of a distribution's kernel with its modules has 20 MiB.
const LONGEST: u64 = 512 << 20;

/// A file that cannot be read or written, or has no symbols.
#[derive(Debug, thiserror::Error)]
pub enum SymbolsFailure {
    /// The copy of kallsyms.
    #[error("{}: cannot be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// What is in it.
    #[error("{}", path.display())]
    Content {
        /// The copy.
        path: PathBuf,
        /// What is wrong with it.
        source: SymbolsError,
    },
    /// There is no end of it.
    #[error("{}: it has more than {} MiB, which no /proc/kallsyms has", .0.display(), LONGEST >> 20)]
    Long(PathBuf),
    /// The file for gdb is the copy.
    #[error("{}: it would be overwritten by what is made of it; name another file", .0.display())]
    Same(PathBuf),
    /// The file for gdb.
    #[error("{}: cannot be written", .0.display())]
    Write(PathBuf, #[source] io::Error),
}

/// Make a file of symbols for gdb from a guest's /proc/kallsyms, where the kernel's debug information is not at hand.
#[derive(Debug, Args)]
#[command(after_help = "\
In the guest, as root:  cat /proc/kallsyms > kallsyms
Here, with that file:   strait symbols kallsyms guest.sym
                        gdb guest.sym -ex 'target remote :1234'")]
pub struct SymbolsArgs {
    /// A copy of the guest's /proc/kallsyms.
    #[arg(value_name = "KALLSYMS")]
    from: PathBuf,
    /// The file to write.
    #[arg(value_name = "FILE")]
    to: PathBuf,
}

impl SymbolsArgs {
    /// Writes the file.
    ///
    /// # Errors
    /// When one of the files cannot be used, or the first has no symbols.
    pub fn write(&self) -> Result<(), SymbolsFailure> {
        let text = self.read()?;
        if is_same(&self.from, &self.to) {
            return Err(SymbolsFailure::Same(self.from.clone()));
        }
        let file = symbols(&String::from_utf8_lossy(&text)).map_err(|source| SymbolsFailure::Content {
            path: self.from.clone(),
            source,
        })?;
        fs::write(&self.to, file).map_err(|source| SymbolsFailure::Write(self.to.clone(), source))
    }

    fn read(&self) -> Result<Vec<u8>, SymbolsFailure> {
        let mut text = Vec::new();
        File::open(&self.from)
            .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut text))
            .map_err(|source| SymbolsFailure::Read(self.from.clone(), source))?;
        match text.len() as u64 > LONGEST {
            true => Err(SymbolsFailure::Long(self.from.clone())),
            false => Ok(text),
        }
    }
}

/// Two names of one file.
fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| fs::metadata(path).map(|data| (data.dev(), data.ino())).ok();
    place(one).is_some_and(|one| Some(one) == place(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let (copy, link) = (folder.path().join("kallsyms"), folder.path().join("link"));
        let text = "ffffffff81000000 T _text\n";
        fs::write(&copy, text).expect("a file");
        std::os::unix::fs::symlink(&copy, &link).expect("a link");
        for to in [&copy, &link] {
            let args = SymbolsArgs {
                from: copy.clone(),
                to: to.clone(),
            };
            assert!(matches!(args.write(), Err(SymbolsFailure::Same(_))));
        }
        assert_eq!(fs::read_to_string(&copy).expect("there"), text);
    }
}

//! `strait bench`: starts the program that measures, which is one of its own.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process;
use std::{env, io};

use clap::Args;

/// What `strait bench` starts, beside strait itself or on PATH.
const PROGRAM: &str = "strait-bench";

/// Why nothing is measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The program is not there.
    #[error(
        "{PROGRAM} is neither beside {} nor on PATH; build it with `cargo build --release -p {PROGRAM}` and put it there",
        .0.display()
    )]
    Missing(PathBuf),
    /// It is there, and does not start.
    #[error("{}: cannot be started", .0.display())]
    Start(PathBuf, #[source] io::Error),
}

/// Measure guests beside QEMU's, show and compare what was measured: what stands behind it is for strait-bench.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct BenchArgs {
    /// Arguments of strait-bench; --help lists them.
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl BenchArgs {
    /// Becomes strait-bench: the one beside this program, or the first on PATH. Returns where it cannot.
    pub fn exec(self) -> BenchError {
        let own = env::current_exe().unwrap_or_default();
        let path = env::var_os("PATH").unwrap_or_default();
        let Some(program) = find(&own, &path) else {
            return BenchError::Missing(own);
        };
        let error = process::Command::new(&program).args(self.arguments).exec();
        BenchError::Start(program, error)
    }
}

fn find(own: &Path, path: &OsString) -> Option<PathBuf> {
    let beside = own.parent().map(Path::to_owned);
    let folders = beside.into_iter().chain(env::split_paths(path));
    folders
        .map(|folder| folder.join(PROGRAM))
        .find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse_from};

    #[test]
    fn the_one_beside_strait_comes_before_those_on_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = |name: &str| {
            let place = folder.path().join(name);
            std::fs::create_dir(&place).expect("a folder");
            std::fs::write(place.join(PROGRAM), "").expect("a file");
            place
        };
        let (beside, on_path) = (program("beside"), program("path"));
        let path = OsString::from(format!("/nowhere:{}", on_path.display()));
        assert_eq!(find(&beside.join("strait"), &path), Some(beside.join(PROGRAM)));
        assert_eq!(
            find(Path::new("/nowhere/strait"), &path),
            Some(on_path.join(PROGRAM))
        );
        assert_eq!(find(Path::new("/nowhere/strait"), &OsString::new()), None);
    }

    #[test]
    fn whatever_stands_behind_it_is_for_the_other_program() {
        let words = ["strait", "bench", "--help", "--device", "01:00.0", "-x"];
        let cli = parse_from(words).expect("nothing of it is strait's");
        let Command::Bench(args) = cli.command else {
            panic!("bench was typed");
        };
        assert_eq!(args.arguments, &words[2..]);
    }
}

//! Running a program of the build machine or of the lab's tree, and turning its failure into one sentence.

use std::env;
use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// What programs are told of the environment that the lab itself runs in: where programs are, where temporary
/// files go, and the way to the network. Nothing else: LD_LIBRARY_PATH, TAR_OPTIONS, APT_CONFIG, QEMU_MODULE_DIR
/// or the dot files of a home folder would change what the lab is made of.
const CARRIED: [&str; 11] = [
    "PATH",
    "TMPDIR",
    "TERM",
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "no_proxy",
    "NO_PROXY",
    "all_proxy",
    "ALL_PROXY",
];

/// A program in an environment of its own, the same for every program but cargo.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    let carried = CARRIED.iter().filter_map(|name| Some((name, env::var_os(name)?)));
    command
        .env_clear()
        .envs(carried)
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C.UTF-8");
    command
}

/// The same command, whose life is tied to this process: nothing stays behind when it is killed.
pub(crate) fn tied(command: &Command) -> Command {
    let mut tied = program("setpriv");
    tied.args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    tied
}

/// Runs a command, which must succeed, and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = run(command)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command, which must succeed.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("Cannot start {name}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{name} failed ({}): {}", output.status, last_line(&stderr));
    }
    Ok(output)
}

/// The last line that is not empty: where programs say what went wrong.
pub(crate) fn last_line(text: &str) -> &str {
    text.lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or("it said nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cargo itself runs this test with a dozen variables and the user's home.
    #[test]
    fn a_program_sees_nothing_of_the_users_environment() {
        let seen = output(program("sh").args(["-c", "env"])).expect("an environment");
        let names = seen.lines().filter_map(|line| Some(line.split_once('=')?.0));
        let strange: Vec<&str> = names
            .filter(|name| !CARRIED.contains(name))
            .filter(|name| !["HOME", "LC_ALL", "PWD", "OLDPWD", "SHLVL", "_"].contains(name))
            .collect();
        assert_eq!(strange, [""; 0]);
        assert!(seen.lines().any(|line| line == "HOME=/nonexistent"), "{seen}");
    }

    #[test]
    fn a_tied_program_sees_the_same() {
        let seen = output(&mut tied(program("sh").args(["-c", "echo $HOME"]))).expect("an answer");
        assert_eq!(seen, "/nonexistent\n");
    }
}

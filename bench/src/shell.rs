//! Scripts on the host where guests run, wherever that is.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Runs scripts on a host as root.
pub trait Shell {
    /// Runs a script, which must succeed, and returns its output.
    ///
    /// # Errors
    /// When it cannot be run or fails, with the last thing that it said.
    fn sh(&self, script: &str) -> Result<String>;
}

/// The host that this program runs on.
#[derive(Debug, Clone, Copy)]
pub struct ThisHost;

impl Shell for ThisHost {
    fn sh(&self, script: &str) -> Result<String> {
        let output = Command::new("/bin/sh").args(["-c", script]).output();
        let output = output.context("cannot start /bin/sh")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        ensure!(output.status.success(), "`{script}` failed: {last}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_fails_tells_its_last_words() {
        assert_eq!(ThisHost.sh("echo a; echo b").expect("it succeeds"), "a\nb\n");
        let error = ThisHost
            .sh("echo first >&2; echo last >&2; exit 3")
            .expect_err("it fails");
        assert!(error.to_string().ends_with("failed: last"), "{error}");
    }
}

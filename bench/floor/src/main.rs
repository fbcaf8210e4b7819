//! `strait-floor`: one probe for each run, told as JSON. It is started by those who measure VMMs.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;
use strait_floor::Floor;

fn main() -> ExitCode {
    match Floor::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strait-floor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

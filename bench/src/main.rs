//! `strait-bench`: shows and compares reports of measurements.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser};
use strait_bench::{Report, compare, comparison_table, table};

/// Show and compare reports of what VMMs were measured at.
#[derive(Debug, Parser)]
#[command(name = "strait-bench", version, about)]
struct Arguments {
    #[command(flatten)]
    work: Work,
    /// Write the report that is shown into this folder too, as bench.json and as a page, bench.html.
    #[arg(long, value_name = "DIR", requires = "show")]
    report: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Work {
    /// Say for each metric whether NEW is better than OLD.
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"])]
    compare: Vec<PathBuf>,
    /// Show what a report says, as a table on standard output.
    #[arg(long, value_name = "REPORT")]
    show: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // That nobody reads it is no reason to fail in another way.
            let _ = writeln!(io::stderr(), "strait-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let work = &arguments.work;
    let text = match (work.compare.as_slice(), &work.show) {
        ([old, new], _) => comparison_table(&compare(&Report::read(old)?, &Report::read(new)?)),
        (_, Some(path)) => {
            let report = Report::read(path)?;
            if let Some(folder) = &arguments.report {
                report.write(&folder.join("bench.json"))?;
            }
            table(&report)
        }
        _ => String::new(),
    };
    let written = io::stdout().write_all(text.as_bytes());
    written.context("cannot write the table")
}

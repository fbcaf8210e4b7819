//! The `strait` command.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use env_logger::Target;
use strait::cli::host::{Screen, give_back_orphans};
use strait::cli::{self, Cli, Command, HostArgs, RunArgs};
use strait::machine::{self, Outcome};
use strait::messages;
use strait::output::{Outputs, Writer};
use strait_vfio::host::{Root, RunningKernel};

/// Wrong usage, as clap has it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let Cli { command, verbose } = match cli::parse() {
        Ok(cli) => cli,
        Err((message, code)) => return say(&message, code),
    };
    match command {
        Command::Run(args) => run(args, verbose),
        Command::Host(args) => {
            messages::start(verbose, Target::Stderr);
            let code = host(args);
            log::logger().flush();
            code
        }
        Command::Completions(args) => say(&args.script(), 0),
        Command::Man(args) => match args.write() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => say(&format!("strait: cannot write the manual pages: {error}"), 1),
        },
    }
}

fn host(args: HostArgs) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match args.run(&Root::real(), &RunningKernel, &mut Screen::standard(&mut out)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => say(&format!("strait: {}", failure.message), failure.code),
    }
}

fn run(args: RunArgs, verbose: u8) -> ExitCode {
    if args.wants_device_help() {
        return say(&RunArgs::device_help(), 0);
    }
    let outputs = match Outputs::standard() {
        Ok(outputs) => Arc::new(outputs),
        Err(error) => return say(&format!("strait: cannot use its own standard output: {error}"), 1),
    };
    messages::start(verbose, Target::Pipe(Box::new(Writer(outputs.messages.clone()))));
    let (last_words, code) = match run_guest(args, outputs.clone()) {
        Ok(code) => (String::new(), code),
        Err((message, code)) => (format!("strait: {message}\n"), code),
    };
    log::logger().flush();
    outputs.messages.put(last_words.as_bytes());
    outputs.finish();
    ExitCode::from(code)
}

/// The exit code, with a message where something went wrong.
fn run_guest(args: RunArgs, outputs: Arc<Outputs>) -> Result<u8, (String, u8)> {
    let config = args.config(&Root::real()).map_err(|message| (message, USAGE))?;
    give_back_orphans(&Root::real(), &RunningKernel);
    match machine::run(&config, outputs) {
        Ok(Outcome::Failed(why)) => Err((why, 1)),
        Ok(outcome) => Ok(outcome.exit_code()),
        Err(error) => Err((chain(&*error), 1)),
    }
}

/// Prints on standard output what was asked for, on standard error what went wrong.
fn say(message: &str, code: u8) -> ExitCode {
    let message = message.trim_end();
    // A closed standard stream is no reason to fail in another way.
    let _ = if code == 0 {
        writeln!(std::io::stdout(), "{message}")
    } else {
        writeln!(std::io::stderr(), "{message}")
    };
    ExitCode::from(code)
}

/// An error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}

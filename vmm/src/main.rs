//! The `strait` command: what is typed, printed and returned. All else is in the library.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::Arc;

use env_logger::Target;
use strait::cli::host::give_back_orphans;
use strait::cli::{self, Cli, Command, CtlArgs, HostArgs, RunArgs, Screen, USAGE};
use strait::guests::Guests;
use strait::machine::{self, Outcome};
use strait::messages;
use strait::output::{Outputs, Writer};
use strait_devices::Chain;
use strait_vfio::host::{Host, Root, RunningKernel};

fn main() -> ExitCode {
    let Cli { command, verbose } = match cli::parse() {
        Ok(cli) => cli,
        Err((help, 0)) => return print(&help),
        Err((message, code)) => return refuse(&message, code),
    };
    match command {
        Command::Run(args) => run(*args, verbose),
        Command::Host(args) => {
            messages::start(verbose, Target::Stderr);
            let code = host(args);
            // Lines that were left out for their number are told at the end.
            log::logger().flush();
            code
        }
        Command::Ctl(args) => ctl(args),
        Command::Bench(args) => refuse(&format!("strait: {}", Chain(&args.exec())), 1),
        Command::Symbols(args) => match args.write() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => refuse(&format!("strait: {}", Chain(&error)), 1),
        },
        Command::Completions(args) => print(&args.script(cli::command())),
        Command::Man(args) => match args.write(cli::command()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => refuse(&format!("strait: {}", Chain(&error)), 1),
        },
    }
}

fn host(args: HostArgs) -> ExitCode {
    let mut out = io::stdout().lock();
    match args.run(
        Host::new(&Root::real(), &RunningKernel),
        &mut Screen::standard(&mut out),
    ) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => refuse(&format!("strait: {}", failure.message), failure.code),
    }
}

fn ctl(args: CtlArgs) -> ExitCode {
    let mut out = io::stdout().lock();
    let mut screen = Screen::standard(&mut out);
    match args.run(&Guests::of_this_user(), &Root::real(), &mut screen) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => refuse(&format!("strait: {}", failure.message), failure.code),
    }
}

fn run(args: RunArgs, verbose: u8) -> ExitCode {
    if args.wants_device_help() {
        return print(&RunArgs::device_help());
    }
    let outputs = match Outputs::standard() {
        Ok(outputs) => Arc::new(outputs),
        Err(error) => {
            let text = format!("strait: cannot use standard output and standard error: {error}");
            return refuse(&text, 1);
        }
    };
    messages::start(verbose, Target::Pipe(Box::new(Writer(outputs.messages.clone()))));
    let (last_words, code) = match run_guest(args, outputs.clone()) {
        Ok(code) => (String::new(), code),
        Err((message, code)) => (format!("strait: {message}\n"), code),
    };
    log::logger().flush();
    // Behind the log's last lines, so that the reason stands last on the screen.
    outputs.messages.put(last_words.as_bytes());
    outputs.finish();
    ExitCode::from(code)
}

/// Runs a guest to its end. The exit code comes with a message where something went wrong.
fn run_guest(args: RunArgs, outputs: Arc<Outputs>) -> Result<u8, (String, u8)> {
    let config = args.config(&Root::real()).map_err(|message| (message, USAGE))?;
    // A device that a killed run left on vfio-pci may be the one that this run wants to take.
    give_back_orphans(Host::new(&Root::real(), &RunningKernel));
    match machine::run(&config, outputs) {
        Ok(Outcome::Failed(why)) => Err((why, 1)),
        Ok(outcome) => Ok(outcome.exit_code()),
        Err(error) => Err((Chain(&*error).to_string(), 1)),
    }
}

/// Prints what was asked for. A reader that has seen enough, as `head` has, is no failure; a full disk is one.
fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    let printed = writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush());
    match printed {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            refuse(&format!("strait: cannot write to standard output: {error}"), 1)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Says on standard error what went wrong.
fn refuse(message: &str, code: u8) -> ExitCode {
    // That nobody reads it is no reason to fail in another way.
    let _ = writeln!(io::stderr(), "{}", message.trim_end());
    ExitCode::from(code)
}

//! The lab: `cargo lab`. It boots a QEMU machine with an IOMMU, KVM and a NIC in software, and in
//! it runs Strait as on real hardware. Nothing is mocked, and nothing of the build machine is
//! changed outside the cache folder and the checkout's `.lab` folder.

mod agent;
mod bench;
mod cli;
mod demo;
mod guest;
#[cfg(test)]
mod house;
mod lab;
mod probe;
mod scenario;
mod shell;
mod supplies;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

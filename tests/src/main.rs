//! The lab: `cargo lab`. It boots a QEMU machine with an IOMMU, KVM and a NIC in software, and in
//! it runs Strait as on real hardware. Nothing is mocked, and nothing of the build machine is
//! changed outside the cache folder and the checkout's `.lab` folder.

mod agent;
mod apt;
#[cfg(test)]
mod architecture;
mod bench;
mod cache;
#[cfg(test)]
mod circles;
mod cli;
mod command;
mod demo;
mod emulator;
mod guest;
mod initramfs;
mod kernel;
mod lab;
mod modules;
mod needs;
mod outside;
mod probe;
mod progress;
mod root;
mod scenario;
mod shell;
mod supplies;
#[cfg(test)]
mod threads_and_locks;
mod tiny;
mod vmm;

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

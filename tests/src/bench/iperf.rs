//! The other end of a guest's streams: iperf3 on the build machine's loopback, which guests reach as
//! 10.0.2.2 through the lab machine's user network.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::root::Root;
use crate::supplies::STREAM_PROGRAM;

/// A server, killed with this value.
pub(super) struct Iperf {
    /// The TCP port.
    pub(super) port: u16,
    server: Child,
}

impl Iperf {
    /// Starts the one of the lab's tree on a free port.
    pub(super) fn start(root: &Root) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("Cannot listen on the loopback")?;
        let port = listener
            .local_addr()
            .context("The listener has no address")?
            .port();
        drop(listener);
        let program = root.command(STREAM_PROGRAM);
        // The wrapper ties its life to this process.
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program.get_program())
            .args(program.get_args())
            .args(["-s", "-B", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("Cannot start iperf3")?;
        Ok(Self { port, server })
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

//! The other end of a guest's streams: iperf3 on the build machine's loopback, which guests reach as
//! 10.0.2.2 through the lab machine's user network.

use std::net::TcpListener;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use crate::supplies::command;
use crate::supplies::guests::STREAM_PROGRAM;
use crate::supplies::root::Root;

/// A server, killed with this value.
pub(crate) struct Iperf {
    /// The TCP port.
    pub(crate) port: u16,
    server: Child,
}

impl Iperf {
    /// Starts the one of the lab's tree on a free port.
    pub(crate) fn start(root: &Root) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("Cannot listen on the loopback")?;
        let port = listener
            .local_addr()
            .context("The listener has no address")?
            .port();
        drop(listener);
        let server = command::tied(&root.command(STREAM_PROGRAM))
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

//! What a guest tells of itself, gathered from the answers to several questions.

use serde::Serialize;
use serde_json::Value;

use super::connection::Connection;
use super::trouble::Trouble;

/// A guest as `info --json` shows it.
#[derive(Debug, Serialize)]
pub(super) struct Description {
    /// Its name, if it has one.
    pub(super) name: Option<String>,
    /// `running`, `paused` by a client, or `debug` while a debugger alone holds it.
    pub(super) status: String,
    pub(super) pid: Option<u64>,
    /// The program that runs it.
    pub(super) version: String,
    pub(super) memory_bytes: Option<u64>,
    /// The size of its pages, where they are of the host's pool of large pages.
    pub(super) memory_pages: Option<String>,
    /// The host's nodes that its memory is of, where they were chosen.
    pub(super) memory_nodes: Option<String>,
    pub(super) locked_bytes: Option<u64>,
    pub(super) uptime_seconds: Option<u64>,
    /// The thread of each vCPU.
    pub(super) cpu_threads: Vec<u64>,
    pub(super) devices: Vec<Device>,
}

/// A passed device: its names on the host, in the guest and of the user's.
#[derive(Debug, Serialize)]
pub(super) struct Device {
    /// The user's name for it.
    pub(super) id: Option<String>,
    /// Its address on the host.
    pub(super) host: Option<String>,
    /// Its address in the guest.
    pub(super) guest: Option<String>,
}

impl Description {
    /// Asks the guest for all of it, by three commands.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) fn ask(guest: &mut Connection) -> Result<Self, Trouble> {
        let status = guest.execute("query-status", Value::Null)?;
        let cpus = guest.execute("query-cpus-fast", Value::Null)?;
        let strait = guest.execute("x-query-strait", Value::Null)?;
        let threads = cpus.as_array().into_iter().flatten();
        Ok(Self {
            name: text(&strait["name"]),
            status: text(&status["status"]).unwrap_or_else(|| "unknown".to_owned()),
            pid: strait["pid"].as_u64(),
            version: version(&guest.version),
            memory_bytes: strait["memory-bytes"].as_u64(),
            memory_pages: text(&strait["memory"]["pages"]),
            memory_nodes: text(&strait["memory"]["nodes"]),
            locked_bytes: strait["locked-bytes"].as_u64(),
            uptime_seconds: strait["uptime-seconds"].as_u64(),
            cpu_threads: threads.filter_map(|cpu| cpu["thread-id"].as_u64()).collect(),
            devices: devices(&strait),
        })
    }

    /// How much memory it has, and of what.
    pub(super) fn memory(&self) -> Option<String> {
        let pages = self
            .memory_pages
            .as_ref()
            .map(|pages| format!(", in pages of {pages}"));
        let nodes = self
            .memory_nodes
            .as_ref()
            .map(|nodes| format!(", host-nodes {nodes}"));
        let size = bytes(self.memory_bytes?);
        Some(size + &pages.unwrap_or_default() + &nodes.unwrap_or_default())
    }
}

impl Device {
    /// In a few words. One without a name of its own has its address for one.
    pub(super) fn short(&self) -> String {
        let host = self.host.as_deref().unwrap_or("?");
        match self.id.as_deref().filter(|id| *id != host) {
            Some(id) => format!("{id} ({host})"),
            None => host.to_owned(),
        }
    }
}

/// The passed devices of an answer to `x-query-strait`.
pub(super) fn devices(strait: &Value) -> Vec<Device> {
    let listed = strait["devices"].as_array().into_iter().flatten();
    let device = |device: &Value| Device {
        id: text(&device["id"]),
        host: text(&device["host"]),
        guest: text(&device["path"]),
    };
    listed.map(device).collect()
}

/// The name of the program as it greets, else QEMU's with its numbers.
fn version(version: &Value) -> String {
    match text(&version["package"]).filter(|package| package.starts_with("strait ")) {
        Some(package) => package,
        None => {
            let part = |name: &str| version["qemu"][name].as_u64().unwrap_or(0);
            format!("QEMU {}.{}.{}", part("major"), part("minor"), part("micro"))
        }
    }
}

/// A string, without what would steer a terminal.
pub(super) fn text(value: &Value) -> Option<String> {
    Some(value.as_str()?.replace(char::is_control, " "))
}

/// Bytes as a person reads them.
pub(super) fn bytes(count: u64) -> String {
    match count {
        0..0x10_0000 => format!("{} KiB", count >> 10),
        0x10_0000..0x100_0000_0000 => format!("{} MiB", count >> 20),
        _ => format!("{} GiB", count >> 30),
    }
}

/// Seconds as a person reads them.
pub(super) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match () {
        () if days > 0 => format!("{days} d {hours} h"),
        () if hours > 0 => format!("{hours} h {minutes} min"),
        () if minutes > 0 => format!("{minutes} min {} s", seconds % 60),
        () => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_rounded_down_to_what_is_read() {
        assert_eq!(bytes(4 << 30), "4096 MiB");
        assert_eq!(bytes(20_000), "19 KiB");
        assert_eq!(bytes(3 << 40), "3072 GiB");
        for (seconds, said) in [
            (7, "7 s"),
            (61, "1 min 1 s"),
            (7_300, "2 h 1 min"),
            (200_000, "2 d 7 h"),
        ] {
            assert_eq!(duration(seconds), said);
        }
    }

    #[test]
    fn a_program_is_called_by_its_own_name() {
        let strait = json!({"qemu": {"major": 0, "minor": 1, "micro": 0}, "package": "strait 0.1.0"});
        assert_eq!(version(&strait), "strait 0.1.0");
        let qemu = json!({"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": "Debian"});
        assert_eq!(version(&qemu), "QEMU 10.0.2");
    }

    #[test]
    fn what_a_guest_calls_itself_does_not_steer_the_terminal() {
        assert_eq!(text(&json!("a\u{1b}[2Jb")).as_deref(), Some("a [2Jb"));
    }
}

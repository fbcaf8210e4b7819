//! What a guest is asked to do with its device, beyond driving it.

use std::net::SocketAddrV4;

use super::device::Device;
use crate::counting::{less, more};
use crate::report::Metric;

/// Seconds that each part of the work takes.
pub(super) const PART_S: u32 = 6;

/// One kind of work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Work {
    /// Streams and requests over a NIC, to an iperf3 server.
    Network(SocketAddrV4),
    /// Reads from an NVMe drive, and writes where they may destroy what is on it.
    Disk { writes: bool },
}

/// A part of the work, of which a guest tells one figure.
pub(super) struct Part {
    /// As the guest calls it.
    pub(super) name: &'static str,
    /// What becomes of its figure.
    pub(super) metric: fn() -> Metric,
    /// The host looks at the VMM meanwhile.
    pub(super) is_stream: bool,
}

const fn part(name: &'static str, metric: fn() -> Metric) -> Part {
    Part {
        name,
        metric,
        is_stream: false,
    }
}

const fn stream(name: &'static str, metric: fn() -> Metric) -> Part {
    Part {
        is_stream: true,
        ..part(name, metric)
    }
}

const NETWORK: [Part; 3] = [
    stream("sent", || {
        more("network.sent", "guest sends to the peer by iperf3", "Mbit/s")
    }),
    stream("received", || {
        more(
            "network.received",
            "guest receives from the peer by iperf3",
            "Mbit/s",
        )
    }),
    part("answer", || {
        less(
            "network.answer",
            "request of the guest to the peer's answer, by ping",
            "us",
        )
    }),
];

const READS: [Part; 3] = [
    part("read-1", || {
        more("disk.read-1", "random reads of 4 KiB, one at a time", "a second")
    }),
    part("read-32", || {
        more("disk.read-32", "random reads of 4 KiB, 32 at a time", "a second")
    }),
    part("read-through", || {
        more("disk.read-through", "reads one after the other", "MiB/s")
    }),
];

const WRITES: [Part; 2] = [
    part("write-32", || {
        more(
            "disk.write-32",
            "random writes of 4 KiB, 32 at a time",
            "a second",
        )
    }),
    part("write-through", || {
        more("disk.write-through", "writes one after the other", "MiB/s")
    }),
];

impl Work {
    /// What there is to do with a device; an error names the option that does not go with it.
    pub(super) fn of(
        device: &Device,
        peer: Option<SocketAddrV4>,
        destroys: bool,
    ) -> Result<Option<Self>, String> {
        let (name, class) = (&device.address, device.class);
        if destroys && !device.is_nvme() {
            return Err(format!(
                "--destroy-data: {name} is no NVMe drive (class {class:#08x}); leave the option out"
            ));
        }
        match peer {
            Some(peer) if device.is_nic() => Ok(Some(Self::Network(peer))),
            Some(peer) => Err(format!(
                "--net-peer {peer}: {name} is no NIC (class {class:#08x}); leave the option out"
            )),
            None if device.is_nvme() => Ok(Some(Self::Disk { writes: destroys })),
            None => Ok(None),
        }
    }

    /// The program that the guest does it with.
    pub(super) fn program(&self) -> &'static str {
        match self {
            Self::Network(_) => "iperf3",
            Self::Disk { .. } => "fio",
        }
    }

    /// For the terminal, and the chapter of its metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Network(_) => "network",
            Self::Disk { .. } => "disk",
        }
    }

    /// What the guest's kernel is told of it.
    pub(super) fn words(&self) -> String {
        let kind = match self {
            Self::Network(peer) => format!("bench_peer={} bench_port={}", peer.ip(), peer.port()),
            Self::Disk { writes: false } => "bench_disk=read".to_owned(),
            Self::Disk { writes: true } => "bench_disk=write".to_owned(),
        };
        format!(" bench_seconds={PART_S} {kind}")
    }

    /// The parts of it, in their order.
    pub(super) fn parts(&self) -> impl Iterator<Item = &'static Part> {
        let (first, second): (&[Part], &[Part]) = match self {
            Self::Network(_) => (&NETWORK, &[]),
            Self::Disk { writes: false } => (&READS, &[]),
            Self::Disk { writes: true } => (&READS, &WRITES),
        };
        first.iter().chain(second)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 2), 5201);

    fn device(class: u32) -> Device {
        Device {
            address: "0000:01:00.0".to_owned(),
            ids: String::new(),
            class,
        }
    }

    #[test]
    fn a_nic_has_a_peer_and_a_drive_is_only_read_unless_it_may_be_destroyed() {
        let (nic, drive) = (device(0x02_0000), device(0x01_0802));
        assert_eq!(Work::of(&nic, Some(PEER), false), Ok(Some(Work::Network(PEER))));
        assert_eq!(Work::of(&nic, None, false), Ok(None));
        for writes in [false, true] {
            let work = Work::of(&drive, None, writes)
                .expect("a drive")
                .expect("work for it");
            assert_eq!(work, Work::Disk { writes });
            assert_eq!(work.words().contains("bench_disk=write"), writes);
            assert_eq!(work.parts().any(|part| part.name.starts_with("write")), writes);
        }
    }

    #[test]
    fn an_option_that_does_not_go_with_the_device_is_refused() {
        let sata = device(0x01_0601);
        let peer = Work::of(&sata, Some(PEER), false).expect_err("no NIC");
        assert_eq!(
            peer,
            "--net-peer 10.0.2.2:5201: 0000:01:00.0 is no NIC (class 0x010601); leave the option out"
        );
        let destroys = Work::of(&sata, None, true).expect_err("no drive");
        assert!(
            destroys.starts_with("--destroy-data: 0000:01:00.0 is no NVMe drive"),
            "{destroys}"
        );
        for peer in [None, Some(PEER)] {
            assert!(Work::of(&device(0x02_0000), peer, true).is_err(), "{peer:?}");
        }
    }
}

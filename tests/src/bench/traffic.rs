//! A NIC under full load: what goes through, and what the VMM has to do with it meanwhile.

use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use strait_bench::counting::{Counts, Cpu, Stopwatch, Trace, WORK, locked_kib};

use super::Bench;
use crate::agent::Agent;
use crate::guest::{Guest, GuestConfig, Vmm};

/// How long each stream lasts.
const STREAM_S: u32 = 12;
/// A stream's first part, in which nothing is counted.
const SETTLE: Duration = Duration::from_secs(2);
/// The part in which everything is counted, and, behind an IOMMU, the part in which times are taken.
const WINDOW: Duration = Duration::from_secs(3);

/// A write to the tail of the invalidation queue of the unit that both VMMs have at 0xfed90000 (§11.4.23).
const QUEUE_TAIL: &str = "fed90088";

/// A stream in one direction.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    pub(super) mbit_s: f64,
    /// The same for each second of CPU time that the lab machine used.
    pub(super) mbit_cpu_s: f64,
    /// Of both directions, a second.
    pub(super) packets_s: f64,
    /// How long it was counted.
    pub(super) window_s: f64,
    pub(super) counts: Counts,
    /// What the VMM used meanwhile.
    pub(super) cpu: Cpu,
    /// From leaving the guest for an access that the VMM answers until the guest goes on, in microseconds.
    pub(super) exit_us: f64,
}

/// What one guest did.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    pub(super) sent: Stream,
    pub(super) received: Stream,
    /// Locked or pinned memory of the VMM while the guest sends.
    pub(super) locked_kib: u64,
}

impl Stream {
    /// Pairs of map and unmap that the guest made in the window: behind a strict IOMMU each of both is one
    /// write to the tail of the invalidation queue.
    pub(super) fn pairs(&self) -> f64 {
        self.counts.of("writes", QUEUE_TAIL) as f64 / 2.0
    }

    /// What falls to each pair.
    pub(super) fn a_pair(&self, all: f64) -> f64 {
        all / self.pairs().max(1.0)
    }

    /// Packets in the window, as the whole stream had them.
    pub(super) fn packets(&self) -> f64 {
        self.packets_s * self.window_s
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, received) = (self.sent.mbit_s, self.received.mbit_s);
        write!(f, "sent {sent:.0}, received {received:.0} Mbit/s")
    }
}

/// Runs one guest that sends, then receives. With an IOMMU for the guest, `iommu` is what its kernel is told.
pub(super) fn measure(bench: &Bench<'_>, vmm: Vmm, nic: &str, iommu: Option<&str>) -> Result<Traffic> {
    let mut config = GuestConfig {
        initrd: "bench",
        ..GuestConfig::with(&[nic])
    };
    if let Some(words) = iommu {
        config = config.behind_iommu(words);
    }
    bench.with_guest(vmm, &config, |guest| {
        guest.ready()?;
        guest.sh("net eth0 10.0.2.15")?;
        let sent = stream(bench, guest, "")?;
        let locked_kib = locked_kib(bench.agent, guest.pid)?;
        let received = stream(bench, guest, "-R")?;
        guest.power_off()?;
        Ok(Traffic {
            sent,
            received,
            locked_kib,
        })
    })
}

/// Two streams, with an option for the direction: one that nothing disturbs has the rate, one that is traced has the
/// counts and times.
fn stream(bench: &Bench<'_>, guest: &mut Guest<'_>, option: &str) -> Result<Stream> {
    let (rate, ()) = run(bench, guest, option, |_| Ok(()))?;
    let (traced, window) = run(bench, guest, option, |pid| Window::take(bench.agent, pid))?;
    Ok(Stream {
        mbit_s: rate.mbit_s,
        mbit_cpu_s: rate.mbit_cpu_s,
        packets_s: traced.packets_s,
        window_s: window.seconds,
        counts: window.counts,
        cpu: window.cpu,
        exit_us: window.exit_us,
    })
}

/// What a stream had when it was over.
struct Rate {
    mbit_s: f64,
    mbit_cpu_s: f64,
    packets_s: f64,
}

/// Lets the guest stream, does `meanwhile` with the VMM's process beside it, and waits for the end. Nothing is said
/// meanwhile; the program wants a folder for what it sends from.
fn run<T>(
    bench: &Bench<'_>,
    guest: &mut Guest<'_>,
    option: &str,
    meanwhile: impl FnOnce(u32) -> Result<T>,
) -> Result<(Rate, T)> {
    let packets =
        "packets() { cd /sys/class/net/eth0/statistics; echo $(($(cat rx_packets) + $(cat tx_packets))); }
        before=$(packets)";
    let script = format!(
        "{packets}
         iperf3 -c 10.0.2.2 -p {} -t {STREAM_S} -f m {option} > /run/iperf 2>&1 || fail $(tail -n 1 /run/iperf)
         sed -n 's/.* \\([0-9.]*\\) Mbits.*receiver.*/\\1/p' /run/iperf; echo $(($(packets) - before))",
        bench.iperf.port
    );
    let cpu_before = bench.host.cpu_time()?;
    guest.type_script(&script)?;
    let seen = meanwhile(guest.pid)?;
    let said = guest.answer("iperf3")?;
    let machine = bench.host.cpu_time()?.saturating_sub(cpu_before);
    let numbers = said.split_once('\n').and_then(|(rate, packets)| {
        let packets = packets.trim().parse::<u64>().ok()?;
        Some((rate.trim().parse::<f64>().ok()?, packets))
    });
    let (mbit_s, packets) =
        numbers.with_context(|| format!("The guest says {said}, not a rate and a number of packets"))?;
    ensure!(packets > 0, "The guest's NIC counted no packets");
    let rate = Rate {
        mbit_s,
        mbit_cpu_s: mbit_s * f64::from(STREAM_S) / machine.as_secs_f64().max(0.01),
        packets_s: packets as f64 / f64::from(STREAM_S),
    };
    Ok((rate, seen))
}

/// What was counted and timed within a stream.
struct Window {
    seconds: f64,
    counts: Counts,
    cpu: Cpu,
    exit_us: f64,
}

impl Window {
    fn take(agent: &Agent, pid: u32) -> Result<Self> {
        sleep(SETTLE);
        let trace = Trace::start(agent, WORK)?;
        let (start, used) = (Instant::now(), Cpu::sample(agent, pid)?);
        sleep(WINDOW);
        let cpu = Cpu::sample(agent, pid)?.since(used);
        let seconds = start.elapsed().as_secs_f64();
        let counts = trace.finish()?;
        let stopwatch = Stopwatch::start(agent)?;
        sleep(WINDOW);
        let exit_us = stopwatch.finish()?;
        Ok(Self {
            seconds,
            counts,
            cpu,
            exit_us,
        })
    }
}

//! `strait bench` as the owner of a host uses it: on the lab's host, with its NIC and its drive.

use anyhow::{Result, ensure};
use strait_bench::counting::FLOOR;

use super::{Lab, Scenario, Skip};
use crate::bench::iperf::Iperf;
use crate::supplies::command::last_line;
use crate::supplies::fio::FOLDER;

/// What the scripts share.
const START: &str = r#"set -e
fail() { echo "$*" >&2; exit 1; }
driver() { basename $(readlink /sys/bus/pci/devices/$1/driver); }
is() { [ "$(driver $1)" = $2 ] || fail "$1 is on $(driver $1), not on $2"; }
says() { grep -q -e "$2" $1 || fail "$1 does not say \"$2\", but: $(cat $1)"; }
# code CODE COMMAND...: output and errors are in /tmp/out and /tmp/err.
code() {
    wanted=$1 found=0; shift
    "$@" > /tmp/out 2> /tmp/err || found=$?
    [ $found = $wanted ] || fail "$* ended with $found, not $wanted: $(tail -n 3 /tmp/err)"
}
printf '#!/bin/sh\necho no room >&2\nexit 3\n' > /tmp/crash
printf '#!/bin/sh\nsleep 1000\n' > /tmp/hang
chmod 755 /tmp/crash /tmp/hang
"#;

/// One that is in use; VMMs that crash, hang or are not there; a full disk; a report of another version.
const BAD_INPUT: &str = r#"
nic=$(ls /sys/bus/pci/devices/0000:01:00.0/net)
ip address add 10.0.2.15/24 dev $nic; ip link set $nic up; ip route add default via 10.0.2.2 dev $nic
code 1 strait bench --device 01:00.0 --rounds 1
says /tmp/err '0000:01:00.0.* failed: .*default route'
is 0000:01:00.0 igb
ip route del default; ip address flush dev $nic; ip link set $nic down
code 1 strait bench --device 02:00.0 --net-peer 10.0.2.2
says /tmp/err '0000:02:00.0 is no NIC'
code 1 strait bench --device 01:00.0 --destroy-data
says /tmp/err '0000:01:00.0 is no NVMe drive'

fakes="--peer strait=/tmp/hang --peer qemu=/tmp/crash --peer crosvm=/nowhere"
code 0 strait bench --device 01:00.0 --rounds 1 --limit 3 $fakes --report /tmp/report
says /tmp/out 'strait .*did not come to its end in 3 s'
says /tmp/out 'qemu .*ended with exit code 3: no room'
says /tmp/out 'crosvm .*cannot be started'
is 0000:01:00.0 igb

sed -i 's/"schema": 1/"schema": 9/' /tmp/report/bench.json
code 1 strait bench --show /tmp/report
says /tmp/err 'has version 9 of the schema, not 1'

mkdir -p /tmp/small; mount -t tmpfs -o size=64k tmpfs /tmp/small
dd if=/dev/zero of=/tmp/small/fill bs=1k count=100 2> /dev/null || true
code 1 strait bench --device 01:00.0 --rounds 1 --limit 3 $fakes --report /tmp/small
says /tmp/err 'No space left on device.*make room, or choose another folder'
says /tmp/out 'ended with exit code 3'
[ "$(ls /tmp/small)" = fill ] || fail "on the full disk is $(ls /tmp/small)"
umount /tmp/small
is 0000:01:00.0 igb
echo all is refused
"#;

/// Signals in the middle of a guest.
const INTERRUPTED: &str = r#"
for signal in INT TERM; do
    rm -rf /tmp/part
    strait-bench --device 01:00.0 --rounds 9 --limit 3000 --only strait --report /tmp/part > /tmp/out 2> /tmp/err & bench=$!
    until grep -q 'round 1 of 9, strait' /tmp/err; do kill -0 $bench || fail "it ended: $(cat /tmp/err)"; sleep 0.2; done
    kill -$signal $bench
    found=0; wait $bench || found=$?
    [ $found = 130 ] || fail "it ended with $found: $(cat /tmp/err)"
    is 0000:01:00.0 igb
    says /tmp/part/bench.json '"is_complete": false'
    says /tmp/out 'did not come to its end'
    ! pgrep -x strait || fail "a guest is left"
done
code 0 strait bench --compare /tmp/part /tmp/part
says /tmp/out 'OLD is a part'
echo it was interrupted
"#;

/// The NIC under load, beside a VMM that crashes.
const NIC: &str = r#"
code 0 strait bench --device 01:00.0 --rounds 1 --limit 3000 --peer cloud-hypervisor=/tmp/crash \
    --net-peer 10.0.2.2:$PORT --report /tmp/nic
cat /tmp/err; cat /tmp/out
is 0000:01:00.0 igb
says /tmp/out '^guest sends to the peer by iperf3, Mbit/s'
says /tmp/out 'cloud-hypervisor .*ended with exit code 3'
says /tmp/out '^  strait .* of its floor'
! grep -q 'floor of a start' /tmp/out || fail "a floor is missing: $(grep 'floor of a start' /tmp/out)"
code 0 strait bench --show /tmp/nic
code 0 strait bench --compare /tmp/nic /tmp/nic
"#;

/// The drive by fio: read without a change, then written.
const DRIVE: &str = r#"
export PATH=/$FIO/usr/bin:$PATH LD_LIBRARY_PATH=/$FIO/usr/lib/x86_64-linux-gnu:/$FIO/usr/lib/x86_64-linux-gnu/ceph
noise() { dd if=/dev/urandom of=/dev/nvme0n1 bs=1M count=8 oflag=direct 2> /dev/null; }
hash() { dd if=/dev/nvme0n1 bs=1M count=8 iflag=direct 2> /dev/null | sha256sum; }
until [ -b /dev/nvme0n1 ]; do sleep 0.1; done
noise; before=$(hash)
code 0 strait bench --device 02:00.0 --rounds 1 --limit 3000 --report /tmp/drive
cat /tmp/err; cat /tmp/out
is 0000:02:00.0 nvme
until [ -b /dev/nvme0n1 ]; do sleep 0.1; done
[ "$(hash)" = "$before" ] || fail "the drive was written to"
! grep -q 'writes' /tmp/out || fail "there are rows of writes: $(cat /tmp/out)"
code 0 strait bench --device 02:00.0 --rounds 1 --limit 3000 --only strait --destroy-data
cat /tmp/out
until [ -b /dev/nvme0n1 ]; do sleep 0.1; done
[ "$(hash)" != "$before" ] || fail "the drive was not written to"
"#;

/// Rows of which both VMMs have a figure.
const OF_THE_NIC: [&str; 10] = [
    "start of the VMM to the end of its guest, s",
    "exits to user space, start to end",
    "guest sends to the peer by iperf3, Mbit/s",
    "guest receives from the peer by iperf3, Mbit/s",
    "request of the guest to the peer's answer, by ping, us",
    "exits to user space a packet, sent",
    "exits to KVM a packet, sent",
    "CPU time of the VMM and of the kernel for it a packet, sent, us",
    "exits to user space a packet, received",
    "exits to KVM a packet, received",
];

const READS: [&str; 3] = [
    "random reads of 4 KiB, one at a time, a second",
    "random reads of 4 KiB, 32 at a time, a second",
    "reads one after the other, MiB/s",
];

const WRITES: [&str; 2] = [
    "random writes of 4 KiB, 32 at a time, a second",
    "writes one after the other, MiB/s",
];

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenarios = vec![
        Scenario::new(
            "bench-host",
            "`strait bench` says what is wrong, and gives a NIC back when it is interrupted",
            600,
            |lab| {
                take_programs(lab)?;
                run(lab, BAD_INPUT)?;
                run(lab, INTERRUPTED).map(drop)
            },
        ),
        Scenario::new(
            "bench-host-nic",
            "`strait bench --net-peer` measures a NIC under load, beside a VMM that crashes",
            600,
            |lab| {
                take_programs(lab)?;
                let iperf = Iperf::start(lab.root)?;
                let said = run(lab, &format!("PORT={}\n{NIC}", iperf.port))?;
                figures(&said, &OF_THE_NIC, &["strait", "qemu"])
            },
        ),
        Scenario::new(
            "bench-host-nvme",
            "`strait bench` reads a drive by fio, and writes to it only with --destroy-data",
            600,
            drive,
        )
        .with_fio(),
    ];
    let scenarios = scenarios.into_iter();
    scenarios.map(|scenario| scenario.full().strait_only()).collect()
}

fn drive(lab: &Lab<'_>) -> Result<()> {
    let has_fio = lab.agent.sh(&format!("[ -x /{FOLDER}/usr/bin/fio ]")).is_ok();
    ensure!(has_fio, Skip("the lab has no fio".to_owned()));
    take_programs(lab)?;
    let said = run(lab, &format!("FIO={FOLDER}\n{DRIVE}"))?;
    figures(&said, &READS, &["strait", "qemu"])?;
    figures(&said, &WRITES, &["strait"])
}

/// The benchmark, and what finds its floors.
fn take_programs(lab: &Lab<'_>) -> Result<()> {
    lab.host.take_program("strait-bench")?;
    lab.host.take_program(FLOOR)
}

fn run(lab: &Lab<'_>, script: &str) -> Result<String> {
    let finished = lab.script(&format!("{START}{script}"))?;
    ensure!(
        finished.code == 0,
        "A script ended with code {}: {}",
        finished.code,
        last_line(&finished.errors)
    );
    Ok(finished.output)
}

/// Each of these rows has a number for each of these VMMs.
fn figures(table: &str, rows: &[&str], vmms: &[&str]) -> Result<()> {
    for row in rows {
        let mut lines = table
            .lines()
            .skip_while(|line| line.split("  (asked").next() != Some(*row));
        ensure!(lines.next().is_some(), "There is no row `{row}`");
        let of_it: Vec<&str> = lines.take_while(|line| line.starts_with("  ")).collect();
        for vmm in vmms {
            let figure = of_it
                .iter()
                .find_map(|line| line.trim_start().strip_prefix(vmm)?.split_whitespace().next());
            let number = figure.and_then(|figure| figure.trim_end_matches(',').parse::<f64>().ok());
            ensure!(
                number.is_some(),
                "{vmm} has no figure in the row `{row}`: {}",
                of_it.join("; ")
            );
        }
    }
    Ok(())
}

//! Devices that no driver knows, driven by hand: every kind of BAR, the wire, DMA to RAM and to a peer.

use anyhow::{Context as _, Result, ensure};

use super::{controller_of, take};
use crate::guest::{Guest, number, says};
use crate::lab::devices::{EDU, SHARED_MEMORY, TESTDEV};
use crate::scenario::{Lab, Scenario};

/// Length of the shared memory.
const BAR_LEN: u64 = 4 << 20;

/// What a page table entry of the second level maps.
const LARGE_PAGE: u64 = 2 << 20;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "edu",
            "three groups: memory, small and port BARs, ten interrupts by wire, DMA to RAM and to a peer's BAR",
            240,
            edu,
        ),
        Scenario::new(
            "wire-left-raised",
            "a guest ends while a device that cannot be reset raises its wire: it is silent, until the next guest has it",
            120,
            left_raised,
        )
        .strait_only(),
    ]
}

/// The teaching device (qemu: docs/specs/edu) and its registers.
const AT: &str = "edu=$(function_of 0x1234:0x11e8); use $edu; at=$(bar $edu 0)
    is_idle() { [ $(($(devmem $((at + $1)) 32) & 1)) = 0 ]; }";

/// A program of the guest waits for its wire.
const LISTEN: &str = "load uio_pci_generic; echo 1234 11e8 > /sys/bus/pci/drivers/uio_pci_generic/new_id
    wait_until 10 test -c /dev/uio0 || fail no driver takes it";

/// Each interrupt is raised, taken, acknowledged and switched on again: the driver sets the interrupt disable bit.
const INTERRUPTS: &str = "exec 3< /dev/uio0
    for count in $(seq 10); do
        devmem $((at + 0x60)) 32 $count
        taken=$(timeout 20 dd bs=4 count=1 <&3 2> /dev/null | od -A n -t d4 | tr -d ' ')
        [ \"$taken\" = $count ] || fail interrupt $count arrived as \"'$taken'\"
        [ $(($(devmem $((at + 0x24)) 32))) = $count ] || fail interrupt status is not $count
        devmem $((at + 0x64)) 32 $count
        printf '\\000' | dd of=$edu/config bs=1 seek=5 conv=notrunc 2> /dev/null
    done
    echo $taken";

/// A word goes from one place to another through the device's buffer, by its own DMA.
const MOVE: &str = "copy() {
        devmem $((at + 0x80)) 64 $(($1)); devmem $((at + 0x88)) 64 $(($2))
        devmem $((at + 0x90)) 64 8; devmem $((at + 0x98)) 64 $3
        wait_until 20 is_idle 0x98 || fail the DMA takes forever
    }
    move() {
        devmem $(($1)) 64 $3; devmem $(($2)) 64 0
        copy $1 0x40000 1; copy 0x40000 $2 3; devmem $(($2)) 64
    }
    ram=0x8000000; shared=$(function_of 0x1af4:0x1110); use $shared; peer=$(bar $shared 2)";

/// A page of RAM at `ram` is kept free of the kernel.
fn edu(lab: &Lab<'_>) -> Result<()> {
    let config = take(lab, &[EDU.at(), TESTDEV.at(), SHARED_MEMORY.at()])?;
    lab.run(&config.told("memmap=64K$0x8000000"), |guest| {
        guest.sh(LISTEN)?;
        registers(guest)?;
        says(guest, &format!("{AT}\n{INTERRUPTS}"), "10")?;
        says(guest, &controller_of("uio_pci_generic"), "IO-APIC")?;
        dma(guest)?;
        counters(guest)?;
        check_alignment(&lab.agent.sh(&format!("cat /proc/{}/maps", guest.pid))?)
    })
}

/// The host's kernel gives up a line that is raised for ever, and with it every device that shares it.
fn left_raised(lab: &Lab<'_>) -> Result<()> {
    let config = take(lab, &[EDU.at()])?;
    lab.run(&config, |guest| guest.sh(&format!("{AT}\ndevmem $((at + 0x60)) 32 1")).map(drop))?;
    let register = |name: &str| -> Result<u16> {
        let said = lab.agent.sh(&format!("setpci -s {} {name}", EDU.at()))?;
        u16::from_str_radix(said.trim(), 16).with_context(|| format!("`{said}` is no number"))
    };
    let is_silent = |when: &str| -> Result<()> {
        let (command, status) = (register("COMMAND")?, register("STATUS")?);
        ensure!(status & 1 << 3 != 0, "{when}: nothing is raised: the status is {status:#06x}");
        ensure!(command & 1 << 10 != 0, "{when}: the wire is not silent: the command register is {command:#06x}");
        Ok(())
    };
    let driver = |verb: &str| lab.agent.sh(&format!("echo {} > /sys/bus/pci/drivers/vfio-pci/{verb}", EDU.at()));
    is_silent("The guest has ended")?;
    driver("unbind")?;
    is_silent("vfio-pci has given it up")?;
    driver("bind")?;
    lab.run(&config, |guest| {
        guest.sh(&format!("{AT}\ndevmem $((at + 0x64)) 32 1\n{LISTEN}"))?;
        says(guest, &format!("{AT}\n{INTERRUPTS}"), "10")
    })
}

fn registers(guest: &mut Guest<'_>) -> Result<()> {
    has(guest, AT, "devmem $((at)) 32", 0x0100_00ed)?;
    has(
        guest,
        AT,
        "devmem $((at + 4)) 32 0x12345678; devmem $((at + 4)) 32",
        0xedcb_a987,
    )?;
    let factorial = "devmem $((at + 8)) 32 12
         wait_until 10 is_idle 0x20 || fail the factorial takes forever
         devmem $((at + 8)) 32";
    has(guest, AT, factorial, 479_001_600)
}

/// To RAM, and to the memory of another device.
fn dma(guest: &mut Guest<'_>) -> Result<()> {
    let with = format!("{AT}\n{MOVE}");
    let mask = "at=$(bar $shared 0); devmem $((at)) 32 0x5a5; devmem $((at)) 32";
    has(guest, &with, mask, 0x5a5)?;
    let moves = [
        ("move $ram $((ram + 0x1000))", 0x1122_3344_5566_7788),
        ("move $peer $((peer + 0x3ff000))", 0x99aa_bbcc_ddee_ff00),
        ("move $ram $((peer + 0x200000))", 0x0123_4567_89ab_cdef),
    ];
    moves
        .into_iter()
        .try_for_each(|(script, word)| has(guest, &with, &format!("{script} {word:#x}"), word))
}

/// Registers of 1 byte, in memory less than a page and in ports: a test writes to the place it names and
/// counts the writes (qemu: docs/specs/pci-testdev).
fn counters(guest: &mut Guest<'_>) -> Result<()> {
    let find = "test=$(function_of 0x1b36:0x0005); use $test";
    let memory = "at=$(bar $test 0); devmem $((at)) 8 0; target=$(devmem $((at + 4)) 32)
         for n in 1 2 3; do devmem $((at + target)) 8 $(devmem $((at + 8)) 8); done
         devmem $((at + 12)) 32";
    has(guest, find, memory, 3)?;
    let ports = "at=$(bar $test 1)
         get() { dd if=/dev/port bs=1 skip=$((at + $1)) count=1 2> /dev/null | od -A n -t u1 | tr -d ' '; }
         put() { printf \"\\\\$(printf %03o $2)\" | dd of=/dev/port bs=1 seek=$((at + $1)) conv=notrunc 2> /dev/null; }
         put 0 0; target=$(get 4)
         for n in 1 2 3 4 5; do put $target $(get 8); done
         get 12";
    has(guest, find, ports, 5)
}

/// The guest answers with this number.
fn has(guest: &mut Guest<'_>, first: &str, script: &str, value: u64) -> Result<()> {
    let found = number(guest, &format!("{first}\n{script}"))?;
    ensure!(
        found == value,
        "`{script}` prints {found:#x}, expected {value:#x}"
    );
    Ok(())
}

/// The shared memory's BAR, the only one of its length, is mapped where the host can use large pages.
fn check_alignment(maps: &str) -> Result<()> {
    let range = |line: &str| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        let address = |digits| u64::from_str_radix(digits, 16).ok();
        Some((address(start)?, address(end)?))
    };
    let bars = maps.lines().filter(|line| line.contains("vfio-device"));
    let shared = bars.filter_map(range).find(|(start, end)| end - start == BAR_LEN);
    let (start, _) = shared.context("The VMM maps no BAR of 4 MiB")?;
    ensure!(
        start.is_multiple_of(LARGE_PAGE),
        "The BAR of 4 MiB is mapped at {start:#x}, which is not congruent to it"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_large_bar_is_looked_at() {
        let maps = |range: &str| {
            format!(
                "7f0000001000-7f0000002000 rw-s 0 00:0f 1 anon_inode:[vfio-device]\n\
                 {range} rw-s 0 00:0f 1 anon_inode:[vfio-device]\n"
            )
        };
        assert!(check_alignment(&maps("7f0000800000-7f0000c00000")).is_ok());
        assert!(check_alignment(&maps("7f0000900000-7f0000d00000")).is_err());
        assert!(check_alignment("").is_err());
    }
}

//! A guest that writes every register of real functions, in every width: only what a guest is allowed to
//! change changes in the hardware.

use anyhow::{Context as _, Result, ensure};

use super::take;
use crate::guest::{Guest, kept, number, says};
use crate::lab::devices::{NIC, NVME};
use crate::scenario::{Lab, Scenario};

/// Bytes of configuration space, and of the part that capabilities of the first kind are in.
const LEN: usize = 4096;
const FIRST_LEN: usize = 256;

/// Capability ids (PCI Code and ID Assignment §2).
const POWER: u8 = 0x01;
const VPD: u8 = 0x03;
const MSI: u8 = 0x05;
const VENDOR: u8 = 0x09;
const EXPRESS: u8 = 0x10;
const MSIX: u8 = 0x11;

/// The command register (PCIe §7.5.1.1.3): DMA follows the guest. The host's kernel disables INTx while it
/// delivers messages, and while it holds the wire masked.
const COMMAND: usize = 0x04;
const COMMAND_ALLOWED: [u8; 2] = (1_u16 << 2 | 1 << 10).to_le_bytes();
const STATUS: usize = 0x06;

/// The second byte of device control in the Express capability; its top bit resets the function (PCIe
/// §7.5.3.4).
const DEVICE_CONTROL_HIGH: usize = 9;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "config-sweep",
            "a guest writes every register of a NIC and a drive in every width: only allowed bits change",
            300,
            sweep,
        )
        .strait_only(),
        Scenario::new(
            "bar-places",
            "a NIC's registers in D3hot, with decoding off and after a move; then its driver takes it",
            240,
            places,
        )
        .strait_only(),
    ]
}

/// What nobody answers for reads as ones, as from a PCI Express root; QEMU's machine gives zeros.
const NOBODY: u64 = 0xffff_ffff;

/// The low half of the NIC's address, 52:54:00:11:22:33.
const ADDRESS: u64 = 0x1100_5452;

/// What is done to the NIC's function with the tools of a shell: `poke REGISTER BYTES...` is one write.
const NIC_AT: &str = "nic=$(function_of 0x8086:0x10c9); config=$nic/config; at=$(($(bar $nic 0)))
    byte() { od -A n -t u1 -j $1 -N 1 $config | tr -d ' '; }
    capability() {
        found=$(byte 52)
        until [ $found = 0 ] || [ $(byte $found) = $1 ]; do found=$(byte $((found + 1))); done
        echo $found
    }
    poke() {
        register=$1; shift
        printf \"$(printf '\\\\%03o' $@)\" | dd of=$config bs=$# seek=$((register / $#)) conv=notrunc 2> /dev/null
    }
    power=$(($(capability 1) + 4))
    window=$(sed -n 's/^0x[0-9a-f]* \\(0x[0-9a-f]*\\) .*/\\1/;15p' $nic/../resource)
    to=$((window + 1 - 0x20000)); [ $to != $at ] || fail there is no other place at $to
    bar0() { poke 16 0 0 $(($1 >> 16 & 255)) $(($1 >> 24)); }";

/// The low half of the NIC's own address (82576 data sheet, RAL0), from one place or the other.
const HERE: &str = "devmem $((at + 0x5400)) 32";
const THERE: &str = "devmem $((to + 0x5400)) 32";

/// The second of a bridge's windows is for memory; BAR 0 has 128 KiB.
fn places(lab: &Lab<'_>) -> Result<()> {
    lab.run(&take(lab, &[NIC.at()])?, |guest| {
        let steps = [
            ("at home", "use $nic", HERE, ADDRESS),
            ("in D3hot", "poke $power 3 0", HERE, NOBODY),
            ("in D0", "poke $power 0 0", HERE, ADDRESS),
            ("with decoding off", "poke 4 4 0", HERE, NOBODY),
            ("at its new place", "bar0 $to; poke 4 6 0", THERE, ADDRESS),
            ("at its old one", ":", HERE, NOBODY),
            ("back", "poke 4 4 0; bar0 $at; poke 4 6 0", HERE, ADDRESS),
        ];
        // The guest's kernel keeps the first address in its files whatever is written.
        for (place, change, look, expected) in steps {
            let found = number(guest, &format!("{NIC_AT}\n{change}\n{look}"))?;
            ensure!(
                found == expected,
                "The NIC {place} answers {found:#x}, expected {expected:#x}"
            );
        }
        guest.sh(&format!("{NIC_AT}\necho 0 > $nic/enable; load igb"))?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)
    })
}

/// Both still work afterwards.
fn sweep(lab: &Lab<'_>) -> Result<()> {
    let functions = [NIC.at(), NVME.at()];
    let config = take(lab, &functions)?;
    lab.run(&config, |guest| {
        for (bus, function) in (1..).zip(functions) {
            sweep_one(lab, guest, &format!("0000:{bus:02x}:00.0"), function)?;
        }
        guest.sh("load igb nvme")?;
        lab.eth0().up(guest, "igb")?;
        lab.eth0().ping(guest)?;
        kept(guest, "/dev/nvme0n1", 8)
    })
}

/// Writes every register inverted and back, byte by byte, word by word and by double words, with a look at the
/// hardware after each. The bit that resets the function is spared.
fn sweep_one(lab: &Lab<'_>, guest: &mut Guest<'_>, seen: &str, function: &str) -> Result<()> {
    let fresh = hardware(lab, function)?;
    let allowed = allowed(&fresh);
    let invert = format!(
        "cd /sys/bus/pci/devices/{seen}; cat config > /run/before
         hexdump -v -e '1/1 \"%u\\n\"' /run/before |
             awk '{{ v = 255 - $1; if (NR == {} + 1) v %= 128; printf \"\\\\%03o\", v }}' > /run/octal
         printf \"$(cat /run/octal)\" > /run/inverted; wc -c < /run/inverted",
        reset_bit(&fresh)?
    );
    says(guest, &invert, &LEN.to_string())?;
    for width in [1, 2, 4] {
        for state in ["inverted", "before"] {
            let changed = number(
                guest,
                &format!(
                    "cd /sys/bus/pci/devices/{seen}; dd if=/run/{state} of=config bs={width} conv=notrunc 2> /dev/null
                     cmp -l /run/before config | wc -l"
                ),
            )?;
            ensure!(
                if state == "before" { changed == 0 } else { changed > 16 },
                "{changed} bytes of what the guest sees of {function} are not as before"
            );
            check(&fresh, &hardware(lab, function)?, &allowed)
                .with_context(|| format!("{state} by writes of {width} bytes to {function}"))?;
        }
    }
    Ok(())
}

/// The place of the byte that the guest must not write in full.
fn reset_bit(config: &[u8]) -> Result<String> {
    let found = capabilities(config);
    let express = found.iter().find(|(id, _)| *id == EXPRESS);
    let (_, express) = express.context("There is no Express capability")?;
    Ok((express + DEVICE_CONTROL_HIGH).to_string())
}

/// A function's configuration space, as its hardware has it.
fn hardware(lab: &Lab<'_>, function: &str) -> Result<Vec<u8>> {
    let path = format!("/sys/bus/pci/devices/{function}/config");
    let text = lab.agent.sh(&format!("od -A n -v -t x1 {path}"))?;
    let bytes = text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16));
    let bytes = bytes
        .collect::<Result<Vec<_>, _>>()
        .context("od prints bytes in hexadecimal")?;
    let len = bytes.len();
    ensure!(
        len == LEN,
        "The host sees {len} bytes of config space of {function}"
    );
    Ok(bytes)
}

fn check(before: &[u8], now: &[u8], allowed: &[u8]) -> Result<()> {
    let messages = capabilities(now).into_iter().find(|(id, _)| *id == MSI);
    let top = messages.map_or(0, |(_, at)| u16::from_le_bytes([now[at + 6], now[at + 7]]) >> 4);
    ensure!(
        matches!(top, 0 | 0xfee),
        "The hardware would send messages to {top:#x}00000"
    );
    let is_wrong = |at: &usize| (before[*at] ^ now[*at]) & !allowed[*at] != 0;
    let show = |at: usize| format!("{at:#x}: {:#04x} -> {:#04x}", before[at], now[at]);
    let wrong: Vec<_> = (0..LEN).filter(is_wrong).map(show).collect();
    ensure!(wrong.is_empty(), "The hardware has changed: {}", wrong.join(", "));
    Ok(())
}

/// Ids and places of the capabilities in the first 256 bytes.
fn capabilities(config: &[u8]) -> Vec<(u8, usize)> {
    let place = |pointer: u8| Some(usize::from(pointer & !3)).filter(|at| *at >= 0x40);
    std::iter::successors(place(config[0x34]), |at| place(config[at + 1]))
        .take(48)
        .map(|at| (config[at], at))
        .collect()
}

/// The bits that may change: by the guest's will, or by the hardware's own.
fn allowed(config: &[u8]) -> Vec<u8> {
    let found = capabilities(config);
    let mut allowed = vec![0; LEN];
    // What no capability claims is the device's own and its driver's.
    allowed[0x40..FIRST_LEN].fill(0xff);
    for (id, at) in &found {
        let end = (at + length(config, *id, *at)).min(FIRST_LEN);
        allowed[*at..end].fill(0);
    }
    let mut allow = |at: usize, bits: &[u8]| allowed[at..][..bits.len()].copy_from_slice(bits);
    allow(COMMAND, &COMMAND_ALLOWED);
    allow(STATUS, &[0xff, 0xff]);
    for (id, at) in found {
        match id {
            // Relaxed ordering, no snoop, read request size (PCIe §7.5.3.4); device and link status; completion
            // timeouts (§7.5.3.16).
            EXPRESS => {
                allow(at + 0x08, &[0x10, 0x78, 0xff, 0xff]);
                allow(at + 0x12, &[0xff, 0xff]);
                allow(at + 0x28, &[0x1f]);
            }
            // Where the guest enables messages, the host's kernel enables its own; see `check`.
            MSI => {
                allow(at + 2, &[0x71, 0]);
                allow(at + 4, &[0xff; 10]);
            }
            MSIX => allow(at + 3, &[0xc0]),
            VPD => allow(at + 2, &[0xff; 6]),
            VENDOR => allow(at + 3, &vec![0xff; usize::from(config[at + 2]).saturating_sub(3)]),
            _ => {}
        }
    }
    allowed
}

/// Bytes of a capability.
fn length(config: &[u8], id: u8, at: usize) -> usize {
    match id {
        POWER | VPD => 8,
        MSI if config[at + 2] & 0x80 != 0 => 0x18,
        MSI => 0x14,
        VENDOR => usize::from(config[at + 2]),
        EXPRESS => 0x3c,
        MSIX => 12,
        _ => 2,
    }
}

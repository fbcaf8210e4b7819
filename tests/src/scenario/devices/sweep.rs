//! A guest that writes every register of real functions, in every width: only what a guest is allowed to
//! change changes in the hardware.

use anyhow::{Context as _, Result, ensure};

use super::{config, run, says, says_number, says_the_same, with_words};
use crate::guest::Guest;
use crate::lab::{NIC, NVME};
use crate::scenario::{Context, Scenario, Verdict};

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

fn places(lab: &Context) -> Result<Verdict> {
    let config = config(lab, &[NIC], "igb", "places,net,ping3");
    run(lab, &[NIC], &config, |guest| {
        let expected = [
            ("home", ADDRESS),
            ("asleep", NOBODY),
            ("awake", ADDRESS),
            ("off", NOBODY),
            ("moved", ADDRESS),
            ("left", NOBODY),
            ("back", ADDRESS),
        ];
        for (place, value) in expected {
            says_number(guest, place, value)?;
        }
        says(guest, "ping", "3")
    })
}

/// Both still work afterwards.
fn sweep(lab: &Context) -> Result<Verdict> {
    let functions = [NIC, NVME];
    let spare = functions.map(|function| reset_bit(&hardware(lab, function)?));
    let spare = spare.into_iter().collect::<Result<Vec<_>>>()?.join(",");
    let config = config(lab, &functions, "igb,nvme", "sweep,net,ping3,little");
    run(
        lab,
        &functions,
        &with_words(config, &format!("lab.spare={spare}")),
        |guest| {
            for function in functions {
                sweep_one(lab, guest, function)?;
            }
            says(guest, "ping", "3")?;
            says_the_same(guest)
        },
    )
}

/// What the guest's step does, with a look at the hardware at each stop.
fn sweep_one(lab: &Context<'_>, guest: &mut Guest<'_>, function: &str) -> Result<()> {
    says(guest, "bytes", &LEN.to_string())?;
    let fresh = hardware(lab, function)?;
    let allowed = allowed(&fresh);
    guest.type_line("go on")?;
    for width in [1, 2, 4] {
        let changed: u32 = guest.expect("inverted")?.parse()?;
        ensure!(
            changed > 16,
            "Only {changed} bytes of what the guest sees of {function} changed"
        );
        check(&fresh, &hardware(lab, function)?, &allowed)
            .with_context(|| format!("Inverted by writes of {width} bytes to {function}"))?;
        guest.type_line("go on")?;
        says(guest, "before", "0")?;
        check(&fresh, &hardware(lab, function)?, &allowed)
            .with_context(|| format!("Restored by writes of {width} bytes to {function}"))?;
        guest.type_line("go on")?;
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
fn hardware(lab: &Context<'_>, function: &str) -> Result<Vec<u8>> {
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

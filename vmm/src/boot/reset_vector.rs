//! The one piece of firmware: what runs when a guest jumps to the reset vector in real mode.
//!
//! Linux does that to reset a hardware-reduced machine that has no EFI (`machine_real_restart`,
//! arch/x86/kernel/reboot.c).

use vm_memory::{Bytes, GuestMemoryMmap};

use super::error::BootError;
use crate::layout;

/// `mov al, 0xfe; out 0x64, al; hlt; jmp $-1`: the keyboard controller's reset command.
const RESET: [u8; 7] = [
    0xb0,
    0xfe,
    0xe6,
    layout::KEYBOARD_CONTROLLER as u8,
    0xf4,
    0xeb,
    0xfd,
];

pub(super) fn load(memory: &GuestMemoryMmap) -> Result<(), BootError> {
    let failed = |source| BootError::Copy {
        what: "reset vector",
        source,
    };
    memory
        .write_slice(&RESET, layout::RESET_VECTOR.start)
        .map_err(failed)
}

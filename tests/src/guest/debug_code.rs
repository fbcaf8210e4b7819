//! Guests of a few instructions for a debugger, as in [`machine_code`](super::machine_code): both serve a breakpoint
//! exception (#BP) of their own, and look whether it came once. What goes wrong in one is an undefined instruction,
//! for which it has no handler: a triple fault.

use super::machine_code::{ENTRY, POWER_OFF, SAY_K, store};
use super::vmx_code::{ENTER_VMX, MAKE_GUEST, write};

/// Where in the guest things are that gdb is told of. The function: `nop; ret`.
pub(crate) const FUNCTION: u32 = ENTRY + 0x10;
/// The guest's handler of #BP, which counts in [`TAKEN`].
pub(crate) const HANDLER: u32 = ENTRY + 0x20;
/// Behind the tables, where the guest goes from its entry.
pub(crate) const MAIN: u32 = ENTRY + 0x90;
/// A thousand instructions of a byte, `inc edx`.
pub(crate) const BLOCK: u32 = ENTRY + 0x200;
pub(crate) const BLOCK_LEN: u32 = 1000;
/// What a guest of the guest runs.
const INNER: u32 = ENTRY + 0x100;
/// Where the guest goes on when that one has left.
pub(crate) const OUTER: u32 = ENTRY + 0x140;

/// How often the function was called, in RAM that is zero at first.
pub(crate) const COUNT: u32 = 0x31_0000;
/// Calls of it before the guest comes to its own INT3.
pub(crate) const CALLS: u32 = 20;
/// How often #BP was served.
pub(crate) const TAKEN: u32 = 0x31_0004;
/// 1 once the guest of the guest has left.
pub(crate) const HAS_LEFT: u32 = 0x31_0008;

/// Stacks, of the guest and of its guest.
const STACK: u32 = 0x18_0000;
const INNER_STACK: u32 = 0x17_0000;

/// Selectors of flat code and data, as the guest starts with.
const CODE: u8 = 0x10;

/// Where its descriptors are, and the pointers that LGDT and LIDT read.
const GDT: u32 = ENTRY + 0x40;
const GDT_POINTER: u32 = ENTRY + 0x60;
const IDT_POINTER: u32 = ENTRY + 0x68;
const IDT: u32 = ENTRY + 0x70;
const GDT_LIMIT: u32 = 31;
const IDT_LIMIT: u32 = 31;

/// `jne fail`, with the undefined instruction behind it.
const MUST_BE_EQUAL: [u8; 4] = [0x74, 0x02, 0x0f, 0x0b]; // je over; ud2; over:

/// The guest calls its function [`CALLS`] times, comes to an INT3 of its own, runs through the thousand, and adds their
/// bytes up: a debugger must have left each as it was. It says K and powers off.
pub(crate) fn stops() -> Vec<u8> {
    let again = [
        &[0x31, 0xc9][..], // xor ecx, ecx
        &[0x41],           // again: inc ecx
        &[0x89, 0x0d],
        &COUNT.to_le_bytes(), // mov [COUNT], ecx
        &[0xb8],
        &FUNCTION.to_le_bytes(),
        &[0xff, 0xd0],                                     // mov eax, FUNCTION; call eax
        &[0x83, 0xf9, CALLS.to_le_bytes()[0], 0x75, 0xed], // cmp ecx, CALLS; jne again
        &[0xcc],                                           // int3
        &is_taken_once(),
        &[0x31, 0xd2, 0xb8],
        &BLOCK.to_le_bytes(),
        &[0xff, 0xe0], // xor edx, edx; mov eax, BLOCK; jmp eax
    ];
    let main = [START, &again.concat()].concat();
    let sum = BLOCK_LEN * 0x42;
    let behind = [
        &[0x81, 0xfa][..],
        &BLOCK_LEN.to_le_bytes(), // cmp edx, BLOCK_LEN
        &MUST_BE_EQUAL,
        &[0xbe],
        &BLOCK.to_le_bytes(), // mov esi, BLOCK
        &[0xb9],
        &BLOCK_LEN.to_le_bytes(),                    // mov ecx, BLOCK_LEN
        &[0x31, 0xdb, 0x31, 0xc0],                   // xor ebx, ebx; xor eax, eax
        &[0xac, 0x01, 0xc3, 0xe2, 0xfb, 0x81, 0xfb], // next: lodsb; add ebx, eax; loop next
        &sum.to_le_bytes(),                          // cmp ebx, sum
        &MUST_BE_EQUAL,
        SAY_K,
        POWER_OFF,
    ];
    let block = vec![0x42; BLOCK_LEN as usize];
    laid(&[(MAIN, &main), (BLOCK, &[block, behind.concat()].concat())])
}

/// The guest enters VMX operation and a guest of its own, which comes to an INT3 that is its own and calls the function;
/// it leaves by VMCALL, and the outer one calls the function too, says K and powers off.
pub(crate) fn launches() -> Vec<u8> {
    let inner = [
        &[0xcc, 0xb8][..], // int3
        &FUNCTION.to_le_bytes(),
        &[0xff, 0xd0, 0x0f, 0x01, 0xc1], // mov eax, FUNCTION; call eax; vmcall
    ];
    let outer = [
        &store(HAS_LEFT, 1)[..],
        &[0xb8],
        &FUNCTION.to_le_bytes(),
        &[0xff, 0xd0], // mov eax, FUNCTION; call eax
        &is_taken_once(),
        SAY_K,
        POWER_OFF,
    ];
    let fields = [
        write(0x6816, GDT),
        write(0x4810, GDT_LIMIT),
        write(0x6818, IDT),
        write(0x4812, IDT_LIMIT),
        write(0x681c, INNER_STACK),
        write(0x681e, INNER),
        write(0x6c0c, GDT),
        write(0x6c0e, IDT),
        write(0x6c14, STACK),
        write(0x6c16, OUTER),
    ];
    // It is longer than the place at MAIN.
    let far = ENTRY + 0x180;
    let to_far = [&[0xb8][..], &far.to_le_bytes(), &[0xff, 0xe0]].concat(); // mov eax, far; jmp eax
    let work = [
        START,
        &ENTER_VMX.concat(),
        &MAKE_GUEST.concat(),
        &fields.concat(),
        LAUNCH,
    ]
    .concat();
    laid(&[
        (MAIN, &to_far),
        (INNER, &inner.concat()),
        (OUTER, &outer.concat()),
        (far, &work),
    ])
}

/// `vmlaunch; ud2`
const LAUNCH: &[u8] = &[0x0f, 0x01, 0xc2, 0x0f, 0x0b];

/// Where [`launches`] has VMLAUNCH.
pub(crate) fn launch_at() -> u32 {
    let program = launches();
    let at = program.windows(LAUNCH.len()).position(|bytes| bytes == LAUNCH);
    ENTRY + at.map_or(0, |at| u32::try_from(at).unwrap_or_default())
}

/// Where the stack and the page tables are, bytes from the first of guest memory.
const START: &[u8] = &[
    0xbc, 0x00, 0x00, 0x18, 0x00, // mov esp, STACK
    0x0f, 0x01, 0x15, 0x60, 0x00, 0x10, 0x00, // lgdt [GDT_POINTER]
    0x0f, 0x01, 0x1d, 0x68, 0x00, 0x10, 0x00, // lidt [IDT_POINTER]
];

/// `cmp dword [TAKEN], 1`, or it fails.
fn is_taken_once() -> Vec<u8> {
    [&[0x83, 0x3d][..], &TAKEN.to_le_bytes(), &[1], &MUST_BE_EQUAL].concat()
}

/// A program of pieces at their addresses, with the entry, the function, the handler and the tables in front.
fn laid(pieces: &[(u32, &[u8])]) -> Vec<u8> {
    let pointer = |limit: u32, base: u32| [&limit.to_le_bytes()[..2], &base.to_le_bytes()].concat();
    let handler = [&[0xff, 0x05][..], &TAKEN.to_le_bytes(), &[0xcf]].concat(); // inc dword [TAKEN]; iret
    let descriptors = [0, 0, 0x00cf_9b00_0000_ffff_u64, 0x00cf_9300_0000_ffff];
    let [low, high, ..] = HANDLER.to_le_bytes();
    let gate = [low, high, CODE, 0, 0, 0x8e, 0x10, 0]; // a 32-bit interrupt gate
    let front = [
        (ENTRY, vec![0xe9, 0x8b, 0, 0, 0]), // jmp MAIN
        (FUNCTION, vec![0x90, 0xc3]),
        (HANDLER, handler),
        (GDT, descriptors.map(u64::to_le_bytes).concat()),
        (GDT_POINTER, pointer(GDT_LIMIT, GDT)),
        (IDT_POINTER, pointer(IDT_LIMIT, IDT)),
        (IDT, [[0; 8], [0; 8], [0; 8], gate].concat()),
    ];
    let mut program = Vec::new();
    let front = front.iter().map(|(at, bytes)| (*at, &bytes[..]));
    for (at, bytes) in front.chain(pieces.iter().copied()) {
        program.resize((at - ENTRY) as usize, 0);
        program.extend(bytes);
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_lies_on_anything_else() {
        for program in [stops(), launches()] {
            let at = |address: u32| program[(address - ENTRY) as usize..].to_vec();
            assert!(at(FUNCTION).starts_with(&[0x90, 0xc3]));
            assert!(at(IDT_POINTER).starts_with(&[31, 0, 0x70, 0, 0x10, 0]));
            assert_eq!(at(IDT)[24..32], [0x20, 0, CODE, 0, 0, 0x8e, 0x10, 0]);
        }
        assert_eq!(stops()[0x200..0x200 + 1000], [0x42; 1000]);
        assert!(launches()[0x100..].starts_with(&[0xcc, 0xb8]));
        assert!(launches()[(launch_at() - ENTRY) as usize..].starts_with(LAUNCH));
    }
}

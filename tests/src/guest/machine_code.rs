//! Guests of a few instructions: an ELF file with a PVH note that starts in 32-bit protected mode and does
//! one thing a kernel never would. Instructions are machine code, with the assembler beside it.

use std::fmt::Write;

/// Where the program is loaded and starts.
pub(super) const ENTRY: u32 = 0x10_0000;
/// Offsets in the file: two program headers behind the ELF header, the note, the program.
const NOTE: usize = 64 + 2 * 56;
const PROGRAM: usize = 0x100;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// XEN_ELFNOTE_PHYS32_ENTRY.
const PHYS32_ENTRY: u32 = 18;

/// `mov dx, 0x600; mov al, 0x34; out dx, al; hlt`: ACPI's soft off.
pub(crate) const POWER_OFF: &[u8] = &[0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee, 0xf4];

/// `mov dx, 0x3f8; mov al, 'K'; out dx, al`: the sign that the program got this far.
pub(crate) const SAY_K: &[u8] = &[0x66, 0xba, 0xf8, 0x03, 0xb0, b'K', 0xee];

/// Reads every port below 0x1100 by 1 and 4 bytes, and writes zeros by 2, over all neighbours' borders.
pub(crate) const SWEEP_PORTS: &[u8] = &[
    0x31, 0xd2, // xor edx, edx
    0xec, 0xed, // next: in al, dx; in eax, dx
    0x31, 0xc0, 0x66, 0xef, // xor eax, eax; out dx, ax
    0x42, // inc edx
    0x81, 0xfa, 0x00, 0x11, 0x00, 0x00, // cmp edx, 0x1100
    0x75, 0xf1, // jne next
];

/// Reads and writes memory from ECAM up to the local APIC at odd addresses, by 1, 2 and 4 bytes.
pub(crate) const SWEEP_MEMORY: &[u8] = &[
    0xbb, 0x01, 0x00, 0x00, 0xe0, // mov ebx, 0xe0000001
    0x8a, 0x03, 0x66, 0x8b, 0x03, 0x8b, 0x03, // next: mov al, [ebx]; mov ax, [ebx]; mov eax, [ebx]
    0x31, 0xc0, // xor eax, eax
    0x88, 0x03, 0x66, 0x89, 0x03, 0x89, 0x03, // mov [ebx], al; mov [ebx], ax; mov [ebx], eax
    0x81, 0xc3, 0xfd, 0xff, 0x03, 0x00, // add ebx, 0x3fffd
    0x81, 0xfb, 0x00, 0x00, 0xee, 0xfe, // cmp ebx, 0xfeee0000
    0x72, 0xe2, // jb next
];

/// Writes ones, then zeros, to every register of the device on bus 1, then of its root port and the host
/// bridge, and reads each back.
pub(crate) const SWEEP_CONFIG: &[u8] = &[
    0xbb, 0x00, 0x00, 0x01, 0x80, // mov ebx, 0x80010000
    0x66, 0xba, 0xf8, 0x0c, 0x89, 0xd8, 0xef, // next: mov dx, 0xcf8; mov eax, ebx; out dx, eax
    0x66, 0xba, 0xfc, 0x0c, // mov dx, 0xcfc
    0x83, 0xc8, 0xff, 0xef, // or eax, -1; out dx, eax
    0x31, 0xc0, 0xef, 0xed, // xor eax, eax; out dx, eax; in eax, dx
    0x83, 0xc3, 0x04, // add ebx, 4
    0x81, 0xfb, 0x00, 0x10, 0x01, 0x80, // cmp ebx, 0x80011000
    0x75, 0x05, // jne below
    0xbb, 0x00, 0x00, 0x00, 0x80, // mov ebx, 0x80000000
    0x81, 0xfb, 0x00, 0x10, 0x00, 0x80, // below: cmp ebx, 0x80001000
    0x75, 0xd5, // jne next
];

/// String instructions: `HELLO` to the serial port, nothing at all, and 32 KiB from a port nobody owns.
pub(crate) const STRINGS: &[u8] = &[
    0xfc, // cld
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xe8, 0x05, 0x00, 0x00, 0x00, b'H', b'E', b'L', b'L', b'O', // call over; "HELLO"
    0x5e, // over: pop esi
    0xb9, 0x05, 0x00, 0x00, 0x00, 0xf3, 0x6e, // mov ecx, 5; rep outsb
    0x31, 0xc9, 0xf3, 0x6e, // xor ecx, ecx; rep outsb
    0x66, 0xba, 0x44, 0x44, // mov dx, 0x4444
    0xbf, 0x00, 0x00, 0x20, 0x00, // mov edi, 0x200000
    0xb9, 0x00, 0x20, 0x00, 0x00, 0xf3, 0x6d, // mov ecx, 0x2000; rep insd
];

/// `mov dx, 0x3f8; mov al, '.'; next: out dx, al; jmp next`: a character a time.
pub(crate) const SAY_WITHOUT_END: &[u8] = &[0x66, 0xba, 0xf8, 0x03, 0xb0, b'.', 0xee, 0xeb, 0xfd];

/// `mov dx, 0xcf9; mov al, 6; out dx, al; cli; hlt`: the chipset's reset, and nothing after it.
pub(crate) const CHIPSET_RESET: &[u8] = &[0x66, 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xfa, 0xf4];

/// `mov al, 0xfe; out 0x64, al; hlt`: the keyboard controller's reset.
pub(crate) const KEYBOARD_RESET: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64, 0xf4];

/// `mov dx, 0x505; mov al, 1; out dx, al; hlt`: pvpanic.
pub(crate) const PANIC: &[u8] = &[0x66, 0xba, 0x05, 0x05, 0xb0, 0x01, 0xee, 0xf4];

/// `lidt [0]; int3`: a breakpoint without an interrupt table.
pub(crate) const TRIPLE_FAULT: &[u8] = &[0x0f, 0x01, 0x1d, 0x00, 0x00, 0x00, 0x00, 0xcc];

/// Starts the second CPU by INIT and SIPI, in real mode; that says A, and when it has done so the first one says K and
/// powers off. That is all it asks of its local APIC, which is as after power-on. The first one waits by reading a port: a loop without any exit would keep the emulated machine from its
/// own work.
pub(crate) fn second_cpu() -> Vec<u8> {
    // mov dx, 0x3f8; mov al, 'A'; out dx, al; mov byte [0x9000], 1; hlt
    let second: [u8; 12] = [
        0xba, 0xf8, 0x03, 0xb0, b'A', 0xee, 0xc6, 0x06, 0x00, 0x90, 0x01, 0xf4,
    ];
    let copied = second
        .chunks(4)
        .zip((0x8000..).step_by(4))
        .flat_map(|(bytes, to)| {
            let word = bytes.try_into().map_or(0, u32::from_le_bytes);
            store(to, word)
        });
    let mut program: Vec<u8> = copied.collect();
    program.extend(store(0xfee0_0310, 1 << 24)); // to the CPU with the id 1
    program.extend(store(0xfee0_0300, 0x0000_c500)); // INIT
    program.extend(store(0xfee0_0300, 0x0000_4608)); // SIPI: start at 0x8000
    // next: in al, 0x80; cmp byte [0x9000], 0; je next
    program.extend([0xe4, 0x80, 0x80, 0x3d, 0x00, 0x90, 0x00, 0x00, 0x00, 0x74, 0xf5]);
    [&program, SAY_K, POWER_OFF].concat()
}

/// `ud2`: without a handler a triple fault.
pub(super) const FAIL: [u8; 2] = [0x0f, 0x0b];

/// `mov dword [address], value`
pub(super) const fn store(address: u32, value: u32) -> [u8; 10] {
    let ([a, b, c, d], [e, f, g, h]) = (address.to_le_bytes(), value.to_le_bytes());
    [0xc7, 0x05, a, b, c, d, e, f, g, h]
}

/// An ELF file with this program.
pub(crate) fn elf(program: &[u8]) -> Vec<u8> {
    let len = program.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]); // an x86-64 program
    file.extend(u64::from(ENTRY).to_le_bytes());
    file.extend(64u64.to_le_bytes()); // program headers
    file.extend([0; 12]); // no sections, no flags
    file.extend([64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]); // sizes and counts
    file.extend(header(PT_LOAD, PROGRAM as u64, ENTRY.into(), len));
    file.extend(header(PT_NOTE, NOTE as u64, 0, 20));
    for word in [4, 4, PHYS32_ENTRY, u32::from_le_bytes(*b"Xen\0"), ENTRY] {
        file.extend(word.to_le_bytes());
    }
    file.resize(PROGRAM, 0);
    file.extend(program);
    file
}

/// Bytes as printf takes them.
pub(crate) fn octal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "\\{byte:03o}");
        text
    })
}

fn header(kind: u32, offset: u64, address: u64, len: u64) -> Vec<u8> {
    let mut header = [kind.to_le_bytes(), 7u32.to_le_bytes()].concat();
    for value in [offset, address, address, len, len, 4] {
        header.extend(value.to_le_bytes());
    }
    header
}

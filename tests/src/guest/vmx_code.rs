//! Guests of a few instructions for an Intel CPU, as in [`machine_code`](super::machine_code). What goes wrong in one is
//! an undefined instruction, which without an interrupt table is a triple fault.

use super::machine_code::{CHIPSET_RESET, ENTRY, FAIL, POWER_OFF, SAY_K, store};

/// Data, in RAM that is zero at first and stays as it is through a reset. Not zero in the second start:
const STARTED: u32 = 0x30_0000;
/// A page directory with one page: VMX operation needs paging in its root (SDM vol. 3 §25.8).
const PAGE_DIRECTORY: u32 = 0x30_1000;
/// The region of VMXON, the control structure (VMCS), and where the instructions find either.
const VMXON_REGION: u32 = 0x30_2000;
const VMCS: u32 = 0x30_3000;
const VMXON_POINTER: u32 = 0x30_0010;
const VMCS_POINTER: u32 = 0x30_0018;

/// Paging, numeric errors, protected mode.
const CR0: u32 = 0x8000_0031;
/// 4 MiB pages, VMX.
const CR4: u32 = 0x2010;

/// `jne over; ...` for what is only done in the second start.
const IF_STARTED_AGAIN: [u8; 7] = [0x83, 0x3d, 0x00, 0x00, 0x30, 0x00, 0x00]; // cmp dword [STARTED], 0
/// `ja over; ud2; over:`: carry or zero tell that a VMX instruction failed.
const MUST_SUCCEED: [u8; 4] = [0x77, 0x02, 0x0f, 0x0b];

/// Control registers as after power-on (SDM vol. 3, table 11-1), or it fails.
const IS_FRESH: &[u8] = &[
    0x0f, 0x20, 0xe0, // mov eax, cr4
    0x85, 0xc0, 0x74, 0x02, 0x0f, 0x0b, // test eax, eax; je over; ud2
    0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, // mov ecx, EFER; rdmsr
    0x85, 0xc0, 0x74, 0x02, 0x0f, 0x0b, // test eax, eax; je over; ud2
];

/// Switches paging on and enters VMX operation: the feature's MSR is locked first unless it is, both regions get the
/// revision that the CPU asks for.
pub(super) const ENTER_VMX: &[&[u8]] = &[
    &store(PAGE_DIRECTORY, 0x83), // 4 MiB, present and writable
    &[0xb8],
    &CR4.to_le_bytes(),
    &[0x0f, 0x22, 0xe0], // mov eax, CR4; mov cr4, eax
    &[0xb8],
    &PAGE_DIRECTORY.to_le_bytes(),
    &[0x0f, 0x22, 0xd8], // mov eax, PAGE_DIRECTORY; mov cr3, eax
    &[0xb8],
    &CR0.to_le_bytes(),
    &[0x0f, 0x22, 0xc0],                               // mov eax, CR0; mov cr0, eax
    &[0xb9, 0x3a, 0x00, 0x00, 0x00, 0x0f, 0x32],       // mov ecx, IA32_FEATURE_CONTROL; rdmsr
    &[0xa8, 0x01, 0x75, 0x04, 0x0c, 0x05, 0x0f, 0x30], // test al, 1; jne locked; or al, 5; wrmsr
    &[0xb9, 0x80, 0x04, 0x00, 0x00, 0x0f, 0x32],       // locked: mov ecx, IA32_VMX_BASIC; rdmsr
    &[0xa3],
    &VMXON_REGION.to_le_bytes(), // mov [VMXON_REGION], eax
    &[0xa3],
    &VMCS.to_le_bytes(), // mov [VMCS], eax
    &store(VMXON_POINTER, VMXON_REGION),
    &store(VMCS_POINTER, VMCS),
    &[0xf3, 0x0f, 0xc7, 0x35],
    &VMXON_POINTER.to_le_bytes(), // vmxon [VMXON_POINTER]
    &MUST_SUCCEED,
];

/// Makes a flat 32-bit guest that has what its host has, two bytes behind the entry. Its controls are those that must be
/// there and no more, so that ports are the outer machine's. Fields: SDM vol. 3, appendix B.
pub(super) const MAKE_GUEST: &[&[u8]] = &[
    &[0x66, 0x0f, 0xc7, 0x35],
    &VMCS_POINTER.to_le_bytes(), // vmclear [VMCS_POINTER]
    &MUST_SUCCEED,
    &[0x0f, 0xc7, 0x35],
    &VMCS_POINTER.to_le_bytes(), // vmptrld [VMCS_POINTER]
    &MUST_SUCCEED,
    &control(0x4000, 0x481), // pins
    &control(0x4002, 0x482), // processor
    &control(0x400c, 0x483), // exit
    &control(0x4012, 0x484), // entry
    &write(0x2800, !0),
    &write(0x2801, !0), // no shadow
    &write(0x6800, CR0),
    &write(0x6802, PAGE_DIRECTORY),
    &write(0x6804, CR4),
    &write(0x802, 0x10),
    &write(0x4802, !0),
    &write(0x4816, 0xc09b), // CS
    &write(0x800, 0x18),
    &write(0x4800, !0),
    &write(0x4814, 0xc093), // ES
    &write(0x804, 0x18),
    &write(0x4804, !0),
    &write(0x4818, 0xc093), // SS
    &write(0x806, 0x18),
    &write(0x4806, !0),
    &write(0x481a, 0xc093), // DS
    &write(0x481c, 0x1_0000),
    &write(0x481e, 0x1_0000),
    &write(0x4820, 0x1_0000), // no FS, GS, LDTR
    &write(0x480e, 0x67),
    &write(0x4822, 0x8b), // TR, busy
    &write(0x681a, 0x400),
    &write(0x6820, 2),
    &write(0x681e, ENTRY + 2), // DR7, RFLAGS, RIP
    &write(0x6c00, CR0),
    &write(0x6c02, PAGE_DIRECTORY),
    &write(0x6c04, CR4), // the host's
    &write(0xc00, 0x18),
    &write(0xc02, 0x10),
    &write(0xc04, 0x18),
    &write(0xc06, 0x18),
    &write(0xc0c, 0x20),
];

/// `vmlaunch`
const LAUNCH: [u8; 3] = [0x0f, 0x01, 0xc2];

/// What is vital of CPUID and MSRs: an Intel CPU that offers VMX under KVM, and registers as after power-on.
const SANE: &[&[u8]] = &[
    &[0x31, 0xc0, 0x0f, 0xa2],                                     // xor eax, eax; cpuid
    &[0x81, 0xfb, b'G', b'e', b'n', b'u', 0x74, 0x02, 0x0f, 0x0b], // cmp ebx, "Genu"; je over; ud2
    &[0xb8, 1, 0, 0, 0, 0x0f, 0xa2],                               // mov eax, 1; cpuid
    &has(5),                                                       // VMX
    &has(31),                                                      // a hypervisor
    &[0xb8, 0x00, 0x00, 0x00, 0x40, 0x0f, 0xa2],                   // mov eax, 0x40000000; cpuid
    &[0x81, 0xfb, b'K', b'V', b'M', b'K', 0x74, 0x02, 0x0f, 0x0b], // cmp ebx, "KVMK"; je over; ud2
    &[0xb8, 0x08, 0x00, 0x00, 0x80, 0x0f, 0xa2],                   // mov eax, 0x80000008; cpuid
    &[0x3c, 36, 0x73, 0x02, 0x0f, 0x0b], // cmp al, 36; jae over; ud2: bits of a physical address
    &reads(0x1b, 0xfee0_0900),           // IA32_APIC_BASE: enabled, the first CPU
    &reads(0x277, 0x0007_0406),          // IA32_PAT
    &reads(0xc000_0080, 0),              // EFER
    &[0xb9, 0xfe, 0x00, 0x00, 0x00, 0x0f, 0x32], // mov ecx, IA32_MTRRCAP; rdmsr
    &[0xb9, 0xa0, 0x01, 0x00, 0x00, 0x0f, 0x32], // mov ecx, IA32_MISC_ENABLE; rdmsr
];

/// Looks at CPUID and MSRs, resets, looks again, says K and powers off.
pub(crate) fn sane() -> Vec<u8> {
    twice(&SANE.concat(), CHIPSET_RESET)
}

/// The same where XSAVE must not be offered: setting CR4.OSXSAVE would be a fault.
pub(crate) fn sane_without_xsave() -> Vec<u8> {
    let has_none = [
        0xb8, 1, 0, 0, 0, 0x0f, 0xa2, 0x0f, 0xba, 0xe1, 26, 0x73, 0x02, 0x0f, 0x0b,
    ];
    twice(&[SANE.concat(), has_none.to_vec()].concat(), CHIPSET_RESET)
}

/// Enters VMX operation and resets; does it again, says K and powers off.
pub(crate) fn reset_in_vmx_operation() -> Vec<u8> {
    twice(&ENTER_VMX.concat(), CHIPSET_RESET)
}

/// Enters VMX operation, and a guest of its own whose reset is the machine's; started again it enters VMX operation
/// once more, says K and powers off.
pub(crate) fn reset_from_a_guest() -> Vec<u8> {
    let enter = [&MAKE_GUEST.concat(), &LAUNCH[..], &FAIL].concat();
    let program = twice(&ENTER_VMX.concat(), &enter);
    let over = [0xeb, u8::try_from(CHIPSET_RESET.len()).unwrap_or_default()];
    [&over, CHIPSET_RESET, &program].concat()
}

/// Does `work` and ends by `reset`, the first time; started again it must be as after power-on, does the work once
/// more, says K and powers off.
fn twice(work: &[u8], reset: &[u8]) -> Vec<u8> {
    let again = [IS_FRESH, work, SAY_K, POWER_OFF].concat();
    let len = u32::try_from(again.len()).unwrap_or_default().to_le_bytes();
    let skip = [&[0x0f, 0x84], &len[..]].concat(); // je first
    [
        &IF_STARTED_AGAIN[..],
        &skip,
        &again,
        &store(STARTED, 1),
        work,
        reset,
    ]
    .concat()
}

/// `mov eax, field; mov ecx, value; vmwrite eax, ecx`
pub(super) const fn write(field: u32, value: u32) -> [u8; 13] {
    let ([a, b, c, d], [e, f, g, h]) = (field.to_le_bytes(), value.to_le_bytes());
    [0xb8, a, b, c, d, 0xb9, e, f, g, h, 0x0f, 0x79, 0xc1]
}

/// Controls that must be set, as their MSR says: `mov ecx, msr; rdmsr; mov ecx, field; vmwrite ecx, eax`
const fn control(field: u32, msr: u32) -> [u8; 15] {
    let ([a, b, c, d], [e, f, g, h]) = (msr.to_le_bytes(), field.to_le_bytes());
    [0xb9, a, b, c, d, 0x0f, 0x32, 0xb9, e, f, g, h, 0x0f, 0x79, 0xc8]
}

/// `bt ecx, bit; jc over; ud2`
const fn has(bit: u8) -> [u8; 8] {
    [0x0f, 0xba, 0xe1, bit, 0x72, 0x02, 0x0f, 0x0b]
}

/// `mov ecx, msr; rdmsr; cmp eax, value; je over; ud2`
const fn reads(msr: u32, value: u32) -> [u8; 16] {
    let ([a, b, c, d], [e, f, g, h]) = (msr.to_le_bytes(), value.to_le_bytes());
    [
        0xb9, a, b, c, d, 0x0f, 0x32, 0x3d, e, f, g, h, 0x74, 0x02, 0x0f, 0x0b,
    ]
}

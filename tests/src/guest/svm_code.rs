//! Guests of a few instructions for an AMD CPU, as in [`machine_code`](super::machine_code). What goes wrong in one is an
//! undefined instruction, which without an interrupt table is a triple fault.

use super::machine_code::{CHIPSET_RESET, ENTRY, FAIL, POWER_OFF, SAY_K, store};

/// What SVM needs in memory, in RAM that is zero at first and stays as it is through a reset: a page directory, as
/// KVM takes VMRUN with paging only, and the control block (AMD APM vol. 2 §15.5, appendix B) before the page
/// in which a CPU keeps its own state meanwhile.
const PAGE_DIRECTORY: u32 = 0x30_3000;
const VMCB: u32 = 0x30_1000;
/// Not zero in the second start.
const STARTED: u32 = 0x30_0000;

/// What a guest of the guest leaves by, and where it starts.
const INTERCEPTS: u32 = VMCB + 0x10;
const VMRUN: u32 = 1 << 0;
const VMMCALL: u32 = 1 << 1;
const RIP: u32 = VMCB + 0x578;

/// How often the guest of the guest has left, and a word that ends the guest when it is not zero.
pub(crate) const COUNT: u32 = 0x31_0000;
pub(crate) const ENOUGH: u32 = 0x31_0004;

/// Two bytes behind the entry.
const INNER: u32 = ENTRY + 2;

/// Switches paging on, and SVM.
const ENTER_SVM: &[&[u8]] = &[
    &store(PAGE_DIRECTORY, 0x83),                      // 4 MiB, present and writable
    &[0xb8, 0x10, 0x00, 0x00, 0x00, 0x0f, 0x22, 0xe0], // mov eax, PSE; mov cr4, eax
    &[0xb8, 0x00, 0x30, 0x30, 0x00, 0x0f, 0x22, 0xd8], // mov eax, PAGE_DIRECTORY; mov cr3, eax
    &[0xb8, 0x11, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0], // mov eax, PG | ET | PE; mov cr0, eax
    &[0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32],       // mov ecx, EFER; rdmsr
    &[0x0d, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x30],       // or eax, SVME; wrmsr
    &[0xb9, 0x17, 0x01, 0x01, 0xc0, 0x31, 0xd2],       // mov ecx, VM_HSAVE_PA; xor edx, edx
    &[0xb8, 0x00, 0x20, 0x30, 0x00, 0x0f, 0x30],       // mov eax, VMCB + 0x1000; wrmsr
];

/// Makes a flat 32-bit guest that starts at [`INNER`].
const MAKE_GUEST: &[&[u8]] = &[
    &store(VMCB + 0x58, 1),            // ASID
    &store(VMCB + 0x400, 0x0c93_0018), // ES, SS and DS: flat data
    &store(VMCB + 0x404, 0xffff_ffff),
    &store(VMCB + 0x420, 0x0c93_0018),
    &store(VMCB + 0x424, 0xffff_ffff),
    &store(VMCB + 0x430, 0x0c93_0018),
    &store(VMCB + 0x434, 0xffff_ffff),
    &store(VMCB + 0x410, 0x0c9b_0010), // CS: flat code
    &store(VMCB + 0x414, 0xffff_ffff),
    &store(VMCB + 0x4d0, 1 << 12), // EFER.SVME
    &store(VMCB + 0x558, 0x11),    // CR0: protected mode
    &store(VMCB + 0x570, 2),       // RFLAGS
    &store(RIP, INNER),
];

/// `mov eax, VMCB; vmrun`
const RUN: &[u8] = &[0xb8, 0x00, 0x10, 0x30, 0x00, 0x0f, 0x01, 0xd8];
/// Bytes of VMRUN.
pub(crate) const VMRUN_LEN: u32 = 3;

/// A guest that resets the machine from within a guest of its own: switches SVM on, makes a guest without any exit but
/// VMRUN, which it must have, and enters it; the chipset's reset is that guest's. Started again, it looks whether EFER is
/// as after power-on, says K and powers off.
pub(crate) fn reset_from_a_guest() -> Vec<u8> {
    let first = [
        &store(STARTED, 1)[..],
        &ENTER_SVM.concat(),
        &store(INTERCEPTS, VMRUN),
        &MAKE_GUEST.concat(),
        RUN,
        &FAIL,
    ]
    .concat();
    let over = u32::try_from(first.len()).unwrap_or_default().to_le_bytes();
    let again = [
        &[0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32][..], // mov ecx, EFER; rdmsr
        &[0x85, 0xc0, 0x74, 0x02],                       // test eax, eax; je clean
        &FAIL,
        SAY_K, // clean:
        POWER_OFF,
    ];
    let start = [
        &[0x83, 0x3d, 0x00, 0x00, 0x30, 0x00, 0x00, 0x0f, 0x85][..], // cmp dword [STARTED], 0; jne again
        &over,
    ];
    [jump_over(CHIPSET_RESET), start.concat(), first, again.concat()].concat()
}

/// A guest that enters a guest of its own again and again, which leaves at once; told that it is enough, it says K and
/// powers off.
pub(crate) fn runs_again_and_again() -> Vec<u8> {
    let vmmcall = &[0x0f, 0x01, 0xd9];
    let begin = [
        &jump_over(vmmcall)[..],
        &ENTER_SVM.concat(),
        &store(INTERCEPTS, VMRUN | VMMCALL),
    ];
    let again = [
        &MAKE_GUEST.concat()[..],
        RUN,
        &[0xff, 0x05],
        &COUNT.to_le_bytes(), // inc dword [COUNT]
        &[0x83, 0x3d],
        &ENOUGH.to_le_bytes(),
        &[0x00], // cmp dword [ENOUGH], 0
    ]
    .concat();
    // `je again`, which is 6 bytes itself.
    let back = i32::try_from(again.len() + 6).unwrap_or_default();
    let repeat = [&[0x0f, 0x84][..], &(-back).to_le_bytes()].concat();
    [&begin.concat(), &again, &repeat, SAY_K, POWER_OFF].concat()
}

/// Where [`runs_again_and_again`] has VMRUN.
pub(crate) fn vmrun_at() -> u32 {
    let program = runs_again_and_again();
    let at = program.windows(RUN.len()).position(|bytes| bytes == RUN);
    let behind = at.map_or(0, |at| at + RUN.len() - VMRUN_LEN as usize);
    ENTRY + u32::try_from(behind).unwrap_or_default()
}

/// `jmp over`, with what is at [`INNER`] behind it.
fn jump_over(inner: &[u8]) -> Vec<u8> {
    let len = u8::try_from(inner.len()).unwrap_or_default();
    [&[0xeb, len][..], inner].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_lead_where_they_should() {
        let program = reset_from_a_guest();
        assert!(program[2..].starts_with(CHIPSET_RESET));
        let jump = 2 + CHIPSET_RESET.len() + 9;
        let over = u32::from_le_bytes(program[jump..jump + 4].try_into().expect("4 bytes"));
        assert!(program[jump + 4 + over as usize..].starts_with(&[0xb9, 0x80]));

        let program = runs_again_and_again();
        let vmrun = (vmrun_at() - ENTRY) as usize;
        assert_eq!(program[vmrun..vmrun + VMRUN_LEN as usize], [0x0f, 0x01, 0xd8]);
        let end = program.len() - SAY_K.len() - POWER_OFF.len();
        let back = i32::from_le_bytes(program[end - 4..end].try_into().expect("4 bytes"));
        let again = end.checked_add_signed(back as isize).expect("inside");
        assert!(program[again..].starts_with(&store(VMCB + 0x58, 1)));
    }
}

//! Kernels of both formats, good and bad, from files into guest RAM.

use std::path::PathBuf;

use linux_loader::bootparam::boot_params;
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::Bytes;

use super::*;
use crate::boot::testing::{bytes_at, bzimage, file_with, memory, put, vmlinux};
use crate::layout::MMIO_32;

const MIB: u64 = 1 << 20;
const RSDP: GuestAddress = GuestAddress(0xe_0000);

fn open(image: &[u8], initrd: Option<&[u8]>, memory_bytes: u64) -> Result<GuestKernel, BootError> {
    let file = file_with(image);
    let initrd = initrd.map(file_with);
    let initrd = initrd.as_ref().map(|file| file.path());
    GuestKernel::open(
        &Source {
            kernel: file.path(),
            initrd,
            cmdline: "console=ttyS0",
        },
        memory_bytes,
        MMIO_32[0],
    )
}

/// The error's text without the name of the temporary file.
fn refusal(image: &[u8], initrd: Option<&[u8]>, memory_bytes: u64) -> String {
    let text = open(image, initrd, memory_bytes)
        .expect_err("must be refused")
        .to_string();
    text.split(' ')
        .map(|word| if word.starts_with('/') { "FILE" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn bzimage_goes_where_it_prefers_and_starts_in_long_mode() {
    let memory = memory(64 << 20);
    let kernel = open(&bzimage(), None, 64 * MIB).expect("a good kernel");
    let entry = kernel.load(&memory, RSDP).expect("it fits");
    assert_eq!(bytes_at(&memory, 16 << 20, 8192), [0xc5; 8192]);
    assert_eq!((entry.regs().rip, entry.regs().rsi), ((16 << 20) + 0x200, 0x7000));
    assert_eq!(bytes_at(&memory, 0x2_0000, 14), b"console=ttyS0\0");
}

#[test]
fn zero_page_describes_the_machine() {
    let memory = memory(64 << 20);
    let kernel = open(&bzimage(), Some(&[0x77; 5000]), 64 * MIB).expect("a good kernel");
    kernel.load(&memory, RSDP).expect("it fits");
    let params: boot_params = memory.read_obj(layout::ZERO_PAGE.start).expect("inside RAM");
    let header = params.hdr;
    let initrd = (64 << 20) - 0x2000;
    assert_eq!({ header.header }, 0x5372_6448);
    assert_eq!({ header.version }, 0x020f);
    assert_eq!(header.type_of_loader, 0xff);
    assert_eq!({ header.cmd_line_ptr }, 0x2_0000);
    assert_eq!(
        ({ header.ramdisk_image }, { header.ramdisk_size }),
        (initrd as u32, 5000)
    );
    assert_eq!({ params.acpi_rsdp_addr }, 0xe_0000);
    assert_eq!(params.e820_entries, 5);
    assert_eq!(params.sentinel, 0, "else Linux takes the page for garbage");
    assert_eq!(bytes_at(&memory, initrd, 5000), [0x77; 5000]);
}

#[test]
fn initrd_stays_below_the_address_the_kernel_names() {
    let mut image = bzimage();
    put(&mut image, 0x22c, &0x1ff_ffffu32.to_le_bytes());
    let kernel = open(&image, Some(&[1; 4096]), 64 * MIB).expect("a good kernel");
    assert_eq!(kernel.initrd.map(|initrd| initrd.range.end().0), Some(0x200_0000));
}

#[test]
fn header_fields_newer_than_the_kernel_are_zero() {
    let mut image = bzimage();
    // The header ends behind init_size; what follows is code.
    put(&mut image, 0x201, &[0x62]);
    put(&mut image, 0x264, &[0xff; 8]);
    let memory = memory(64 << 20);
    open(&image, None, 64 * MIB)
        .expect("a good kernel")
        .load(&memory, RSDP)
        .expect("it fits");
    let params: boot_params = memory.read_obj(layout::ZERO_PAGE.start).expect("inside RAM");
    assert_eq!({ params.hdr.handover_offset }, 0);
}

#[test]
fn vmlinux_starts_by_pvh() {
    let memory = memory(64 << 20);
    let kernel = open(&vmlinux(), Some(&[0x77; 10]), 64 * MIB).expect("a good kernel");
    let entry = kernel.load(&memory, RSDP).expect("it fits");
    assert_eq!((entry.regs().rip, entry.regs().rbx), (0x100_0040, 0x6000));
    let info: hvm_start_info = memory.read_obj(GuestAddress(0x6000)).expect("inside RAM");
    assert_eq!((info.magic, info.version, info.nr_modules), (0x336e_c578, 1, 1));
    assert_eq!(
        (info.cmdline_paddr, info.rsdp_paddr, info.memmap_entries),
        (0x2_0000, 0xe_0000, 5)
    );
    let module: hvm_modlist_entry = memory
        .read_obj(GuestAddress(info.modlist_paddr))
        .expect("inside RAM");
    assert_eq!((module.paddr, module.size), ((64 << 20) - 4096, 10));
    let first: hvm_memmap_table_entry = memory
        .read_obj(GuestAddress(info.memmap_paddr))
        .expect("inside RAM");
    assert_eq!((first.addr, first.size, first.type_), (0, 0x9_fc00, 1));
}

#[test]
fn a_program_is_called_a_program_and_a_module_a_module() {
    let what = "give a bzImage (/boot/vmlinuz-*), or a vmlinux built with CONFIG_PVH=y";
    let source = Source {
        kernel: Path::new("/proc/self/exe"),
        initrd: None,
        cmdline: "",
    };
    let refused = GuestKernel::open(&source, 64 * MIB, MMIO_32[0]).expect_err("this test");
    assert_eq!(
        refused.to_string(),
        format!("/proc/self/exe is a program or a library, not a kernel; {what}")
    );
    let mut module = vmlinux();
    put(&mut module, 16, &[1]);
    put(&mut module, 54, &[0; 4]);
    assert_eq!(
        refusal(&module, None, 64 * MIB),
        format!("FILE is a kernel module or an object file, not a kernel; {what}")
    );
}

#[test]
fn a_kernel_that_is_linked_like_a_program_starts_by_its_note() {
    let mut image = vmlinux();
    // A third program header, PT_INTERP, as FreeBSD's kernel has one.
    put(&mut image, 56, &[3]);
    put(&mut image, 64 + 2 * 56, &3u32.to_le_bytes());
    assert!(open(&image, None, 64 * MIB).is_ok());
}

#[test]
fn loading_again_restores_what_the_guest_overwrote() {
    let memory = memory(64 << 20);
    let kernel = open(&vmlinux(), None, 64 * MIB).expect("a good kernel");
    let first = kernel.load(&memory, RSDP).expect("it fits");
    memory
        .write_slice(&[0xee; 0x2000], GuestAddress(16 << 20))
        .expect("inside RAM");
    assert_eq!(kernel.load(&memory, RSDP).expect("it fits"), first);
    assert_eq!(bytes_at(&memory, 16 << 20, 0x1000), [0xc6; 0x1000]);
    assert_eq!(bytes_at(&memory, (16 << 20) + 0x1000, 0x1000), [0; 0x1000]);
}

#[test]
fn missing_file_is_named() {
    let path = PathBuf::from("/nonexistent/vmlinuz");
    let error = GuestKernel::open(
        &Source {
            kernel: &path,
            initrd: None,
            cmdline: "",
        },
        64 * MIB,
        MMIO_32[0],
    )
    .expect_err("no such file");
    assert_eq!(error.to_string(), "cannot read the kernel /nonexistent/vmlinuz");
}

#[test]
fn folder_is_refused() {
    let source = Source {
        kernel: Path::new("/"),
        initrd: None,
        cmdline: "",
    };
    let error = GuestKernel::open(&source, 64 * MIB, MMIO_32[0]).expect_err("a folder");
    assert_eq!(error.to_string(), "the kernel / is not a regular file");
}

#[test]
fn empty_file_is_refused() {
    assert_eq!(refusal(&[], None, 64 * MIB), "the kernel FILE is empty");
}

#[test]
fn other_files_are_refused() {
    let text = "FILE is not a kernel: it is neither a bzImage nor an ELF file";
    assert_eq!(refusal(b"#!/bin/sh\n", None, 64 * MIB), text);
    assert_eq!(refusal(&[0; 4096], None, 64 * MIB), text);
}

#[test]
fn truncated_bzimage_is_refused_at_any_length() {
    let whole = bzimage();
    assert!((0x206..whole.len() - 15).step_by(97).all(|len| {
        matches!(
            open(&whole[..len], None, 64 * MIB),
            Err(BootError::Truncated { .. })
        )
    }));
    let text = "the kernel FILE is truncated: it has 5000 bytes and its header describes 9201";
    assert_eq!(refusal(&whole[..5000], None, 64 * MIB), text);
}

#[test]
fn truncated_vmlinux_is_refused_at_any_length() {
    let whole = vmlinux();
    assert!((4..whole.len()).step_by(31).all(|len| {
        matches!(
            open(&whole[..len], None, 64 * MIB),
            Err(BootError::Truncated { .. })
        )
    }));
}

#[test]
fn kernels_for_32_bits_are_refused() {
    let (mut bz, mut elf) = (bzimage(), vmlinux());
    put(&mut bz, 0x236, &[0, 0]);
    put(&mut elf, 4, &[1]);
    let text = "FILE is a 32-bit kernel; give one built for x86-64";
    assert_eq!(refusal(&bz, None, 64 * MIB), text);
    assert_eq!(refusal(&elf, None, 64 * MIB), text);
}

#[test]
fn kernel_for_another_machine_is_refused() {
    let mut image = vmlinux();
    put(&mut image, 18, &[183, 0]);
    let text = "FILE is an ELF file for machine type 183; give a kernel for x86-64 (62)";
    assert_eq!(refusal(&image, None, 64 * MIB), text);
}

#[test]
fn elf_file_without_pvh_note_is_refused() {
    let mut image = vmlinux();
    put(&mut image, 0x214 + 12, b"Xeo\0");
    let text = "FILE has no PVH entry point; give a bzImage, or a vmlinux built with CONFIG_PVH=y";
    assert_eq!(refusal(&image, None, 64 * MIB), text);
}

#[test]
fn old_boot_protocol_is_refused() {
    let mut image = bzimage();
    put(&mut image, 0x206, &[0x09, 0x02]);
    let text = refusal(&image, None, 64 * MIB);
    assert!(
        text.starts_with("the kernel FILE speaks boot protocol 2.09;"),
        "{text}"
    );
}

#[test]
fn kernel_that_does_not_fit_is_refused_with_the_size_it_needs() {
    let text =
        "the kernel FILE needs at least 20 MiB of memory and the guest has 19 MiB; give a larger --memory";
    assert_eq!(refusal(&bzimage(), None, 19 * MIB), text);
    assert!(open(&bzimage(), None, 20 * MIB).is_ok());
}

#[test]
fn initrd_that_does_not_fit_is_refused_with_the_size_both_need() {
    let initrd = vec![1; 3 << 20];
    let text = "the kernel FILE with its initrd needs at least 23 MiB of memory and the guest has 22 MiB; give a larger --memory";
    assert_eq!(refusal(&bzimage(), Some(&initrd), 22 * MIB), text);
    assert!(open(&bzimage(), Some(&initrd), 23 * MIB).is_ok());
}

#[test]
fn initrd_above_what_the_kernel_can_reach_is_refused() {
    let mut image = bzimage();
    put(&mut image, 0x22c, &((21u32 << 20) - 1).to_le_bytes());
    let text = refusal(&image, Some(&vec![1; 2 << 20]), 64 * MIB);
    assert_eq!(
        text,
        "the initrd FILE has 2 MiB and only 1 MiB are left for it behind the kernel and below 0x1500000"
    );
}

#[test]
fn command_line_longer_than_the_kernel_takes_is_refused() {
    let file = file_with(&bzimage());
    let cmdline = "x".repeat(2048);
    let source = Source {
        kernel: file.path(),
        initrd: None,
        cmdline: &cmdline,
    };
    assert!(matches!(
        GuestKernel::open(&source, 64 * MIB, MMIO_32[0]),
        Err(BootError::CmdlineTooLong { len: 2048, max: 2047 })
    ));
}

#[test]
fn senseless_fields_are_refused() {
    let damaged = |image: &[u8]| matches!(open(image, None, 64 * MIB), Err(BootError::Damaged { .. }));
    let mut low = bzimage();
    put(&mut low, 0x258, &0x8000u64.to_le_bytes());
    assert!(
        damaged(&low),
        "a kernel below 1 MiB would overwrite the boot structures"
    );
    let mut none = bzimage();
    put(&mut none, 0x1f4, &[0; 4]);
    assert!(damaged(&none), "no kernel behind the setup");
    let mut wrapping = vmlinux();
    put(&mut wrapping, 64 + 24, &u64::MAX.to_le_bytes());
    assert!(
        damaged(&wrapping),
        "a segment around the end of the address space"
    );
    let mut outside = vmlinux();
    put(&mut outside, 0x224, &[0, 0, 0, 2]);
    assert!(damaged(&outside), "an entry point outside the kernel");
}

#[test]
fn any_damaged_byte_is_survived() {
    let ram = memory(64 << 20);
    for whole in [bzimage(), vmlinux()] {
        for offset in 0..0x300.min(whole.len()) {
            let mut image = whole.clone();
            image[offset] ^= 0xff;
            if let Ok(kernel) = open(&image, Some(&[1; 100]), 64 * MIB) {
                let _ = kernel.load(&ram, RSDP);
            }
        }
    }
}

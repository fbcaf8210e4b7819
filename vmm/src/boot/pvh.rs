//! ELF kernels that start by the PVH protocol (Xen docs/misc/pvh.pandoc): 32-bit mode without paging, all
//! about the machine in one structure that EBX points at.

use std::fs::File;
use std::mem::size_of;

use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryMmap};

use super::cmdline;
use super::e820;
use super::elf::{Elf, Segment};
use super::entry::EntryState;
use super::error::BootError;
use super::image::{Demands, Handover, ImageFile, copy_file};
use crate::layout::{self, Range};

/// The note with the 32-bit entry point (Xen public/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY).
const NOTE_OWNER: &[u8] = b"Xen\0";
const NOTE_PHYS32_ENTRY: u32 = 18;

/// Start of day structure (Xen public/arch-x86/hvm/start_info.h): magic, and the version with a memory map.
const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;

/// The structure's parts within their page.
const MODULES: GuestAddress = GuestAddress(layout::START_INFO.start.0 + 0x40);
const MEMORY_MAP: GuestAddress = GuestAddress(layout::START_INFO.start.0 + 0x80);

/// A kernel with a PVH entry point.
#[derive(Debug)]
pub(super) struct PvhImage {
    segments: Vec<Segment>,
    entry: GuestAddress,
    end: GuestAddress,
}

impl PvhImage {
    /// `None` if it is another format.
    pub(super) fn parse(image: &ImageFile<'_>) -> Result<Option<Self>, BootError> {
        let Some(elf) = Elf::parse(image)? else {
            return Ok(None);
        };
        let note = elf
            .note(NOTE_OWNER, NOTE_PHYS32_ENTRY)
            .and_then(<[u8]>::first_chunk);
        let entry = match note {
            Some(bytes) => u64::from(u32::from_le_bytes(*bytes)),
            None if elf.is_program() => {
                let what = "a program or a library";
                return Err(BootError::OtherElf(image.path.to_owned(), what));
            }
            None => return Err(BootError::NoPvhNote(image.path.to_owned())),
        };
        let segments = elf.segments(image)?;
        let holds = |range: &Range| range.start.0 <= entry && entry < range.end().0;
        if !segments.iter().any(|segment| holds(&segment.target)) {
            return Err(image.damaged("PVH entry point", entry));
        }
        let end = segments
            .iter()
            .map(|segment| segment.target.end())
            .max()
            .unwrap_or(layout::HIGH_MEMORY);
        Ok(Some(Self {
            segments,
            entry: GuestAddress(entry),
            end,
        }))
    }

    pub(super) fn demands(&self) -> Demands {
        Demands {
            end: self.end,
            initrd_limit: layout::LOW_RAM_MAX,
            cmdline_max: cmdline::LINUX_MAX,
        }
    }

    pub(super) fn load(&self, file: &File, handover: &Handover<'_>) -> Result<EntryState, BootError> {
        for segment in &self.segments {
            let target = Range {
                len: segment.file_len,
                ..segment.target
            };
            copy_file("kernel", file, segment.file_offset, handover.memory, target)?;
            clear(
                handover.memory,
                Range {
                    start: target.end(),
                    len: segment.target.len - target.len,
                },
            )?;
        }
        write_start_info(handover)?;
        Ok(EntryState::protected_mode(self.entry, layout::START_INFO.start))
    }
}

/// Zeros the rest of a segment, which the file does not fill: an earlier boot may have left something there.
fn clear(memory: &GuestMemoryMmap, range: Range) -> Result<(), BootError> {
    let zeros = [0; 64 << 10];
    let (mut at, mut left) = (range.start, range.len as usize);
    while left > 0 {
        let len = left.min(zeros.len());
        write(memory, &zeros[..len], at, "kernel")?;
        at = GuestAddress(at.0 + len as u64);
        left -= len;
    }
    Ok(())
}

fn write_start_info(handover: &Handover<'_>) -> Result<(), BootError> {
    let memory = handover.memory;
    let map = e820::memory_map(handover.memory);
    for (number, entry) in (0..).zip(&map) {
        let entry = hvm_memmap_table_entry::from(*entry);
        let at = GuestAddress(MEMORY_MAP.0 + number * size_of::<hvm_memmap_table_entry>() as u64);
        write(memory, entry.as_slice(), at, "memory map")?;
    }
    if let Some(initrd) = handover.initrd {
        let module = hvm_modlist_entry {
            paddr: initrd.start.0,
            size: initrd.len,
            ..Default::default()
        };
        write(memory, module.as_slice(), MODULES, "module list")?;
    }
    let info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        nr_modules: u32::from(handover.initrd.is_some()),
        modlist_paddr: if handover.initrd.is_some() { MODULES.0 } else { 0 },
        cmdline_paddr: layout::CMDLINE.start.0,
        rsdp_paddr: handover.rsdp.0,
        memmap_paddr: MEMORY_MAP.0,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    write(memory, info.as_slice(), layout::START_INFO.start, "start info")
}

fn write(
    memory: &GuestMemoryMmap,
    bytes: &[u8],
    at: GuestAddress,
    what: &'static str,
) -> Result<(), BootError> {
    memory
        .write_slice(bytes, at)
        .map_err(|source| BootError::Copy { what, source })
}

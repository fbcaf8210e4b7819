//! The bzImage format and its 64-bit entry (Linux Documentation/arch/x86/boot.rst).
//!
//! The compressed kernel goes to the address it prefers: from a lower one it would move itself there
//! anyway, so a lower address needs no less memory.

use std::fs::File;
use std::mem::size_of;

use linux_loader::bootparam::{boot_params, setup_header};
use vm_memory::{ByteValued, Bytes, GuestAddress};

use super::e820;
use super::entry::EntryState;
use super::error::BootError;
use super::image::{Demands, Handover, ImageFile, copy_file};
use crate::layout::{self, Range};

/// The setup header's offset, the same in the file and in the zero page.
const HEADER_OFFSET: u64 = 0x1f1;
/// "HdrS", and where it is.
const MAGIC: [u8; 4] = *b"HdrS";
const MAGIC_OFFSET: u64 = 0x202;
/// The header's length byte counts from here; it is the operand of the jump across the header.
const LENGTH_ORIGIN: u64 = 0x202;
const LENGTH_OFFSET: u64 = 0x201;
/// The first protocol that says whether there is a 64-bit entry point.
const OLDEST_PROTOCOL: u16 = 0x020c;
/// loadflags: the kernel belongs at 1 MiB or above.
const LOADED_HIGH: u8 = 1 << 0;
/// xloadflags: there is a 64-bit entry point ...
const KERNEL_64: u16 = 1 << 0;
/// ... at this offset.
const ENTRY_64: u64 = 0x200;
/// Set-up sectors if the header says 0.
const DEFAULT_SETUP_SECTS: u8 = 4;
const SECTOR: u64 = 512;
/// syssize counts units of 16 bytes.
const PARAGRAPH: u64 = 16;
/// A loader without a number of its own. 0 would be LILO's.
const LOADER_OTHER: u8 = 0xff;

/// A kernel whose header makes sense.
#[derive(Debug)]
pub(super) struct BzImage {
    header: setup_header,
    /// The offset in the file of the part for protected mode, behind the code for real mode, which never runs here.
    payload_offset: u64,
    /// The place in guest memory that this part prefers.
    payload: Range,
    end: GuestAddress,
}

impl BzImage {
    /// `None` if it is another format.
    pub(super) fn parse(image: &ImageFile<'_>) -> Result<Option<Self>, BootError> {
        let mut magic = [0; 4];
        if image.len_bytes < MAGIC_OFFSET + 4 {
            return Ok(None);
        }
        image.read(MAGIC_OFFSET, &mut magic)?;
        if magic != MAGIC {
            return Ok(None);
        }
        let header = read_header(image)?;
        check_header(image, &header)?;
        let (payload_offset, payload_len) = find_payload(image, &header)?;
        let (load, init_size) = (header.pref_address, u64::from(header.init_size));
        // Until it has read the memory map, a kernel uses init_size bytes from there on without asking (boot.rst).
        let end = load
            .checked_add(init_size.max(payload_len))
            .ok_or_else(|| image.damaged("init_size", init_size))?;
        let payload = Range {
            start: GuestAddress(load),
            len: payload_len,
        };
        Ok(Some(Self {
            header,
            payload_offset,
            payload,
            end: GuestAddress(end),
        }))
    }

    pub(super) fn demands(&self) -> Demands {
        Demands {
            end: self.end,
            initrd_limit: GuestAddress(u64::from(self.header.initrd_addr_max) + 1),
            cmdline_max: self.header.cmdline_size as usize,
        }
    }

    pub(super) fn load(&self, file: &File, handover: &Handover<'_>) -> Result<EntryState, BootError> {
        copy_file("kernel", file, self.payload_offset, handover.memory, self.payload)?;
        let zero_page = self.zero_page(handover);
        let written = handover.memory.write_obj(zero_page, layout::ZERO_PAGE.start);
        written.map_err(|source| BootError::Copy {
            what: "zero page",
            source,
        })?;
        Ok(EntryState::long_mode(
            GuestAddress(self.payload.start.0 + ENTRY_64),
            layout::ZERO_PAGE.start,
        ))
    }

    fn zero_page(&self, handover: &Handover<'_>) -> boot_params {
        let mut params = boot_params {
            hdr: self.header,
            ..Default::default()
        };
        params.hdr.type_of_loader = LOADER_OTHER;
        params.hdr.code32_start = self.payload.start.0 as u32;
        params.hdr.cmd_line_ptr = layout::CMDLINE.start.0 as u32;
        if let Some(initrd) = handover.initrd {
            params.hdr.ramdisk_image = initrd.start.0 as u32;
            params.hdr.ramdisk_size = initrd.len as u32;
        }
        // Linux before 5.0 does not look here, and searches the place below 1 MiB where the tables are anyway.
        params.acpi_rsdp_addr = handover.rsdp.0;
        // By way of a copy: the structure is packed, so no reference may point into it.
        let mut table = params.e820_table;
        for (slot, entry) in table.iter_mut().zip(e820::memory_map(handover.memory)) {
            *slot = entry.into();
            params.e820_entries += 1;
        }
        params.e820_table = table;
        params
    }
}

/// The header, with zeros for the fields that are newer than the kernel.
fn read_header(image: &ImageFile<'_>) -> Result<setup_header, BootError> {
    let mut length = [0];
    image.read(LENGTH_OFFSET, &mut length)?;
    let known = (LENGTH_ORIGIN + u64::from(length[0]) - HEADER_OFFSET) as usize;
    let mut header = setup_header::default();
    let bytes = header.as_mut_slice();
    let known = known.min(bytes.len());
    image.read(HEADER_OFFSET, &mut bytes[..known])?;
    Ok(header)
}

fn check_header(image: &ImageFile<'_>, header: &setup_header) -> Result<(), BootError> {
    let (version, load) = (header.version, header.pref_address);
    if version < OLDEST_PROTOCOL {
        return Err(BootError::OldProtocol {
            path: image.path.to_owned(),
            version,
        });
    }
    if header.xloadflags & KERNEL_64 == 0 {
        return Err(BootError::Bits32(image.path.to_owned()));
    }
    // A zImage, which would belong at 64 KiB, between our own tables.
    if header.loadflags & LOADED_HIGH == 0 {
        return Err(image.damaged("loadflags", u64::from(header.loadflags)));
    }
    if !(layout::HIGH_MEMORY.0..layout::LOW_RAM_MAX.0).contains(&load) {
        return Err(image.damaged("pref_address", load));
    }
    Ok(())
}

/// Offset and length of the part for protected mode. What follows it in the file (a signature) stays there.
fn find_payload(image: &ImageFile<'_>, header: &setup_header) -> Result<(u64, u64), BootError> {
    let sectors = if header.setup_sects == 0 {
        DEFAULT_SETUP_SECTS
    } else {
        header.setup_sects
    };
    let offset = (u64::from(sectors) + 1) * SECTOR;
    let len = u64::from(header.syssize) * PARAGRAPH;
    if len <= ENTRY_64 {
        return Err(image.damaged("syssize", u64::from(header.syssize)));
    }
    // The last paragraph may be a part of one.
    image.check_len(offset + len - (PARAGRAPH - 1))?;
    Ok((offset, len.min(image.len_bytes - offset)))
}

const _: () = assert!(size_of::<boot_params>() as u64 == layout::ZERO_PAGE.len);

//! 64-bit ELF files, as far as a kernel needs them: segments to load, and notes.

use std::mem::size_of;

use linux_loader::elf::{Elf64_Ehdr, Elf64_Nhdr, Elf64_Phdr};
use vm_memory::{ByteValued, GuestAddress};

use super::error::BootError;
use super::image::ImageFile;
use crate::layout::{self, Range};

const MAGIC: [u8; 4] = *b"\x7fELF";
/// Index and value in e_ident: 64-bit, little-endian.
const CLASS: (usize, u8) = (4, 2);
const DATA: (usize, u8) = (5, 1);
const MACHINE_X86_64: u16 = 62;
const TYPE_LOAD: u32 = 1;
const TYPE_NOTE: u32 = 4;
/// Program headers for whoever loads programs: every program and library has one of these, and Linux none of them
/// (arch/x86/kernel/vmlinux.lds.S, PHDRS). FreeBSD's kernel has them beside its PVH note, so the note is asked first.
const TYPE_DYNAMIC: u32 = 2;
const TYPE_INTERPRETER: u32 = 3;
const TYPE_TLS: u32 = 7;
const TYPE_GNU_STACK: u32 = 0x6474_e551;
/// e_type of what is still to be linked (ET_REL).
const FILE_RELOCATABLE: u16 = 1;
/// Kernels have a handful of segments and a page of notes.
const MAX_SEGMENTS: u16 = 64;
const MAX_NOTES_BYTES: u64 = 64 << 10;

/// A part of the file and its place in memory; the rest of the place is zeros.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file_offset: u64,
    pub(super) file_len: u64,
    pub(super) target: Range,
}

/// An ELF file, as far as a kernel needs it.
pub(super) struct Elf {
    headers: Vec<Elf64_Phdr>,
    notes: Vec<Vec<u8>>,
}

impl Elf {
    /// `None` if it is another format.
    pub(super) fn parse(image: &ImageFile<'_>) -> Result<Option<Self>, BootError> {
        let mut magic = [0; 4];
        if image.len_bytes < 4 {
            return Ok(None);
        }
        image.read(0, &mut magic)?;
        if magic != MAGIC {
            return Ok(None);
        }
        let mut header = Elf64_Ehdr::default();
        image.read(0, header.as_mut_slice())?;
        check_header(image, &header)?;
        let headers = (0..header.e_phnum)
            .map(|number| read_program_header(image, &header, number))
            .collect::<Result<Vec<_>, _>>()?;
        let notes = headers.iter().filter(|program| program.p_type == TYPE_NOTE);
        let notes = notes
            .map(|program| read_notes(image, program))
            .collect::<Result<_, _>>()?;
        Ok(Some(Self { headers, notes }))
    }

    /// The segments to load, in the order of the file.
    ///
    /// # Errors
    /// When a segment does not lie where a kernel may be, or not in the file.
    pub(super) fn segments(&self, image: &ImageFile<'_>) -> Result<Vec<Segment>, BootError> {
        let loaded = |program: &&Elf64_Phdr| program.p_type == TYPE_LOAD && program.p_memsz > 0;
        let segments = self.headers.iter().filter(loaded);
        segments.map(|program| segment(image, program)).collect()
    }

    /// Whether the file is made for a loader of programs.
    pub(super) fn is_program(&self) -> bool {
        let for_loader = [TYPE_DYNAMIC, TYPE_INTERPRETER, TYPE_TLS, TYPE_GNU_STACK];
        self.headers
            .iter()
            .any(|program| for_loader.contains(&program.p_type))
    }

    /// The contents of the first note with this owner and type.
    pub(super) fn note(&self, owner: &[u8], kind: u32) -> Option<&[u8]> {
        self.notes
            .iter()
            .flat_map(|bytes| Notes(bytes))
            .find_map(|note| (note.owner == owner && note.kind == kind).then_some(note.contents))
    }
}

fn check_header(image: &ImageFile<'_>, header: &Elf64_Ehdr) -> Result<(), BootError> {
    // First, since the program headers have another form in a file of 32 bits.
    if header.e_ident[CLASS.0] != CLASS.1 {
        return Err(BootError::Bits32(image.path.to_owned()));
    }
    let machine = header.e_machine;
    if header.e_ident[DATA.0] != DATA.1 || machine != MACHINE_X86_64 {
        return Err(BootError::OtherMachine(image.path.to_owned(), machine));
    }
    if header.e_type == FILE_RELOCATABLE {
        let what = "a kernel module or an object file";
        return Err(BootError::OtherElf(image.path.to_owned(), what));
    }
    if usize::from(header.e_phentsize) != size_of::<Elf64_Phdr>() {
        return Err(image.damaged("e_phentsize", u64::from(header.e_phentsize)));
    }
    if header.e_phnum > MAX_SEGMENTS {
        return Err(image.damaged("e_phnum", u64::from(header.e_phnum)));
    }
    Ok(())
}

fn read_program_header(
    image: &ImageFile<'_>,
    header: &Elf64_Ehdr,
    number: u16,
) -> Result<Elf64_Phdr, BootError> {
    let offset = header
        .e_phoff
        .saturating_add(u64::from(number) * u64::from(header.e_phentsize));
    let mut program = Elf64_Phdr::default();
    image.read(offset, program.as_mut_slice())?;
    Ok(program)
}

fn segment(image: &ImageFile<'_>, program: &Elf64_Phdr) -> Result<Segment, BootError> {
    if program.p_filesz > program.p_memsz {
        return Err(image.damaged("p_filesz", program.p_filesz));
    }
    let fits = program
        .p_paddr
        .checked_add(program.p_memsz)
        .is_some_and(|end| end <= layout::LOW_RAM_MAX.0);
    if program.p_paddr < layout::HIGH_MEMORY.0 || !fits {
        return Err(image.damaged("p_paddr", program.p_paddr));
    }
    image.check_len(program.p_offset.saturating_add(program.p_filesz))?;
    Ok(Segment {
        file_offset: program.p_offset,
        file_len: program.p_filesz,
        target: Range {
            start: GuestAddress(program.p_paddr),
            len: program.p_memsz,
        },
    })
}

fn read_notes(image: &ImageFile<'_>, program: &Elf64_Phdr) -> Result<Vec<u8>, BootError> {
    // Read into memory at once, so the file must not say how much that may be.
    if program.p_filesz > MAX_NOTES_BYTES {
        return Err(image.damaged("p_filesz", program.p_filesz));
    }
    let mut notes = vec![0; program.p_filesz as usize];
    image.read(program.p_offset, &mut notes)?;
    Ok(notes)
}

struct Note<'a> {
    owner: &'a [u8],
    kind: u32,
    contents: &'a [u8],
}

/// Walks the notes of a segment; ends at the first that does not fit. Each step consumes a header at least.
struct Notes<'a>(&'a [u8]);

impl<'a> Notes<'a> {
    /// Cuts `len` bytes off, and the padding to a multiple of 4 behind them if it is there.
    fn take(&mut self, len: u32) -> Option<&'a [u8]> {
        let (len, padded) = (len as usize, (len as usize).next_multiple_of(4));
        let taken = self.0.get(..len)?;
        self.0 = self.0.get(padded..).unwrap_or_default();
        Some(taken)
    }
}

impl<'a> Iterator for Notes<'a> {
    type Item = Note<'a>;

    fn next(&mut self) -> Option<Note<'a>> {
        let mut header = Elf64_Nhdr::default();
        let bytes = self.take(size_of::<Elf64_Nhdr>() as u32)?;
        header.as_mut_slice().copy_from_slice(bytes);
        let owner = self.take(header.n_namesz)?;
        let contents = self.take(header.n_descsz)?;
        Some(Note {
            owner,
            kind: header.n_type,
            contents,
        })
    }
}

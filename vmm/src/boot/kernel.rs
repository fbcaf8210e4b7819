//! A kernel with all it starts with: checked once, loaded at each start.

use std::fs::File;
use std::path::Path;

use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::bzimage::BzImage;
use super::cmdline::Cmdline;
use super::entry::EntryState;
use super::error::BootError;
use super::image::{Demands, Handover, ImageFile, open_regular};
use super::initramfs::{Initramfs, PAGE_BYTES, Unplaced};
use super::pvh::PvhImage;
use super::reset_vector;
use crate::layout::{self, Range};

/// The files and the text that a guest starts from, as the user gave them.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// A bzImage, or an ELF file with a PVH note.
    pub kernel: &'a Path,
    /// The initial file system.
    pub initrd: Option<&'a Path>,
    /// The kernel's command line, without a terminator.
    pub cmdline: &'a str,
}

/// A kernel, initrd and command line that fit together and into memory.
#[derive(Debug)]
pub struct GuestKernel {
    file: File,
    format: Format,
    initrd: Option<Initramfs>,
    cmdline: Cmdline,
}

#[derive(Debug)]
enum Format {
    BzImage(BzImage),
    Pvh(PvhImage),
}

impl GuestKernel {
    /// Opens the files and checks that a guest with `memory_bytes` of RAM around `mmio_32` can start from them. They
    /// stay open, so that a guest reset starts the same kernel even if the files were replaced meanwhile.
    ///
    /// # Errors
    /// One sentence that says what is wrong with which file.
    pub fn open(source: &Source<'_>, memory_bytes: u64, mmio_32: Range) -> Result<Self, BootError> {
        let (file, len_bytes) = open_regular("kernel", source.kernel)?;
        let image = ImageFile {
            path: source.kernel,
            file: &file,
            len_bytes,
        };
        let format = Format::detect(&image)?;
        let demands = format.demands();
        let cmdline = Cmdline::new(source.cmdline, demands.cmdline_max)?;
        let initrd = source.initrd.map(Unplaced::open).transpose()?;
        let initrd_bytes = initrd.as_ref().map_or(0, |initrd| initrd.len_bytes);
        check_size(source.kernel, demands.end, initrd_bytes, memory_bytes, mmio_32)?;
        // Below 4 GiB, for ramdisk_image in the zero page has 32 bits.
        let limit = demands
            .initrd_limit
            .min(layout::low_ram_end(memory_bytes, mmio_32));
        let initrd = initrd
            .map(|initrd| initrd.place(demands.end, limit))
            .transpose()?;
        Ok(Self {
            file,
            format,
            initrd,
            cmdline,
        })
    }

    /// Copies everything into guest RAM; `rsdp` is where the ACPI tables start. May be called again after
    /// the guest ran, with the vCPUs stopped.
    ///
    /// # Errors
    /// When RAM is not where the layout says, or a file became shorter since it was opened.
    pub fn load(&self, memory: &GuestMemoryMmap, rsdp: GuestAddress) -> Result<EntryState, BootError> {
        // All of it at each start: the guest before this one may have written anywhere.
        reset_vector::load(memory)?;
        self.cmdline.load(memory)?;
        if let Some(initrd) = &self.initrd {
            initrd.load(memory)?;
        }
        let handover = Handover {
            memory,
            initrd: self.initrd.as_ref().map(|initrd| initrd.range),
            rsdp,
        };
        let entry = match &self.format {
            Format::BzImage(image) => image.load(&self.file, &handover)?,
            Format::Pvh(image) => image.load(&self.file, &handover)?,
        };
        entry.load_tables(memory)?;
        Ok(entry)
    }
}

impl Format {
    fn detect(image: &ImageFile<'_>) -> Result<Self, BootError> {
        if let Some(kernel) = BzImage::parse(image)? {
            return Ok(Self::BzImage(kernel));
        }
        if let Some(kernel) = PvhImage::parse(image)? {
            return Ok(Self::Pvh(kernel));
        }
        Err(BootError::NotAKernel(image.path.to_owned()))
    }

    fn demands(&self) -> Demands {
        match self {
            Self::BzImage(image) => image.demands(),
            Self::Pvh(image) => image.demands(),
        }
    }
}

fn check_size(
    path: &Path,
    end: GuestAddress,
    initrd_bytes: u64,
    memory_bytes: u64,
    mmio_32: Range,
) -> Result<(), BootError> {
    let too_big = |with_initrd, needed_bytes| BootError::TooBig {
        path: path.to_owned(),
        with_initrd,
        needed_bytes,
        available_bytes: memory_bytes,
    };
    let room = layout::low_ram_end(memory_bytes, mmio_32).0;
    if end.0 > room {
        return Err(too_big(false, end.0));
    }
    // Beyond the low RAM there is, more --memory does not help; then placing the initrd says what is wrong.
    let both = end.0.next_multiple_of(PAGE_BYTES).saturating_add(initrd_bytes);
    if both > room && room < mmio_32.start.0 {
        return Err(too_big(true, both));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

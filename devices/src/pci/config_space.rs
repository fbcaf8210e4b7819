//! Configuration space as bytes with two masks: what may be written, and what a written 1 clears.

use std::sync::Arc;

use crate::pci::image::Image;
use crate::pci::spec::CONFIG_SPACE_SIZE;

/// An emulated configuration space. Odd registers are small overrides around it.
///
/// Accesses beyond the 4 KiB read as ones and write nothing.
#[derive(Clone)]
pub struct ConfigSpace {
    bytes: Box<[u8; CONFIG_SPACE_SIZE]>,
    writable: Box<[u8; CONFIG_SPACE_SIZE]>,
    write_1_clears: Box<[u8; CONFIG_SPACE_SIZE]>,
    /// Where a guest reads it without a trap.
    image: Option<Arc<Image>>,
}

impl ConfigSpace {
    /// All zero and read-only.
    pub fn new() -> Self {
        let zero = || Box::new([0; CONFIG_SPACE_SIZE]);
        Self {
            bytes: zero(),
            writable: zero(),
            write_1_clears: zero(),
            image: None,
        }
    }

    /// The same, which from now on `image` shows.
    pub(crate) fn shown_by(mut self, image: Option<Arc<Image>>) -> Self {
        self.image = image;
        self.show(0, CONFIG_SPACE_SIZE);
        self
    }

    /// The page in which a guest reads it without a trap, if there is one.
    pub(crate) fn image(&self) -> Option<&Arc<Image>> {
        self.image.as_ref()
    }

    fn show(&self, register: usize, len: usize) {
        if let Some(image) = &self.image {
            image.show(&self.bytes, register, len);
        }
    }

    /// Sets bytes whatever the masks say: reset values, and what the device itself changes.
    ///
    /// # Panics
    /// When the bytes reach past the end: registers are constants of the caller.
    pub fn set(&mut self, register: u16, bytes: &[u8]) {
        self.bytes[usize::from(register)..][..bytes.len()].copy_from_slice(bytes);
        self.show(register.into(), bytes.len());
    }

    /// Lets a guest write the bits that are 1 in `mask`, a little-endian value of any width.
    ///
    /// # Panics
    /// When the mask reaches past the end.
    pub fn allow_write(&mut self, register: u16, mask: &[u8]) {
        self.writable[usize::from(register)..][..mask.len()].copy_from_slice(mask);
    }

    /// Makes the bits that are 1 in `mask` clear when a 1 is written to them.
    ///
    /// # Panics
    /// When the mask reaches past the end.
    pub fn allow_clear(&mut self, register: u16, mask: &[u8]) {
        self.write_1_clears[usize::from(register)..][..mask.len()].copy_from_slice(mask);
    }

    /// What the guest reads from `register` on.
    pub fn read(&self, register: u16, data: &mut [u8]) {
        for (at, byte) in (usize::from(register)..).zip(data) {
            *byte = self.bytes.get(at).copied().unwrap_or(0xff);
        }
    }

    /// A guest write, through both masks.
    pub fn write(&mut self, register: u16, data: &[u8]) {
        for (at, &new) in (usize::from(register)..CONFIG_SPACE_SIZE).zip(data) {
            let kept = self.bytes[at] & !self.writable[at] & !(self.write_1_clears[at] & new);
            self.bytes[at] = kept | new & self.writable[at];
        }
        self.show(register.into(), data.len());
    }

    /// The byte at `register`.
    ///
    /// # Panics
    /// Beyond the end, as all typed reads: registers are constants of the caller.
    pub fn u8(&self, register: u16) -> u8 {
        self.bytes[usize::from(register)]
    }

    /// The 16-bit value at `register`.
    pub fn u16(&self, register: u16) -> u16 {
        u16::from_le_bytes([self.u8(register), self.u8(register + 1)])
    }

    /// The 32-bit value at `register`.
    pub fn u32(&self, register: u16) -> u32 {
        u32::from(self.u16(register)) | u32::from(self.u16(register + 2)) << 16
    }
}

impl Default for ConfigSpace {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_write_changes_only_writable_bits() {
        let mut space = ConfigSpace::new();
        space.set(4, &[0x10, 0xff]);
        space.allow_write(4, &[0x07, 0x00]);
        space.write(4, &[0xff, 0x00]);
        assert_eq!(space.u16(4), 0xff17);
    }

    #[test]
    fn a_written_1_clears_and_a_0_does_not() {
        let mut space = ConfigSpace::new();
        space.set(6, &[0xf0]);
        space.allow_clear(6, &[0x30]);
        space.write(6, &[0x10]);
        assert_eq!(space.u8(6), 0xe0);
    }

    #[test]
    fn an_image_follows_every_change() {
        let mut before = ConfigSpace::new();
        before.set(0, &[1, 2, 3]);
        let mut space = before.shown_by(Image::new());
        let shown = |space: &ConfigSpace| space.image().expect("memory").bytes();
        assert_eq!(shown(&space)[..4], [1, 2, 3, 0]);
        space.allow_write(6, &[0xff, 0x0f]);
        space.write(5, &[0xff, 0xff, 0xff]);
        space.write(4094, &[0xff; 4]);
        space.set(4095, &[9]);
        assert_eq!(shown(&space)[4..8], [0, 0, 0xff, 0x0f]);
        assert_eq!(shown(&space), *space.bytes);
    }

    #[test]
    fn beyond_the_end_reads_ones() {
        let mut data = [0; 4];
        let mut space = ConfigSpace::new();
        space.write(4094, &[0xff; 4]);
        space.read(4094, &mut data);
        assert_eq!(data, [0, 0, 0xff, 0xff]);
    }

    proptest! {
        #[test]
        fn bits_outside_both_masks_never_change(register in 0u16..4096, data in any::<[u8; 4]>(), mask: u8, clear: u8) {
            let mut space = ConfigSpace::new();
            for at in 0..4096 { space.set(at, &[0x5a]); space.allow_write(at, &[mask]); space.allow_clear(at, &[clear & !mask]); }
            space.write(register, &data);
            for at in 0..4096 {
                prop_assert_eq!((space.u8(at) ^ 0x5a) & !(mask | clear), 0);
            }
        }
    }
}

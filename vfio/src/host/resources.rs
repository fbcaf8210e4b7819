//! What a function decodes, by its file `resource`: which of its BARs a guest must have below 4 GiB, and how much.

use std::path::Path;

use super::HostBdf;
use super::sysfs::{Root, read_text};

/// `IORESOURCE_MEM`, `IORESOURCE_PREFETCH`, `IORESOURCE_MEM_64` (linux/ioport.h).
const MEM: u64 = 0x200;
const PREFETCH: u64 = 0x2000;
const MEM_64: u64 = 0x10_0000;
/// BARs come first in the file, then the ROM.
const BARS: usize = 6;

/// First address, last address and flags.
#[derive(Clone, Copy, Debug)]
struct Resource(u64, u64, u64);

impl Resource {
    fn size(self) -> u64 {
        match self {
            Self(_, 0, _) => 0,
            Self(first, last, _) => last.saturating_sub(first).saturating_add(1),
        }
    }
}

/// Sizes of the memory that a function decodes, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// BARs that go below 4 GiB: a port's window for memory with side effects has 32 bits (PCIe §7.5.1.3.8), so one
    /// with a 64-bit register that is not prefetchable is among them.
    pub low: Vec<u64>,
    /// BARs that go above.
    pub high: Vec<u64>,
    /// The expansion ROM, which goes below; 0 for none.
    pub rom: u64,
}

impl Decoded {
    /// What `bdf` decodes; `None` where sysfs does not show it.
    pub fn read(root: &Root, bdf: HostBdf) -> Option<Self> {
        Self::of(&root.function(bdf))
    }

    pub(super) fn of(folder: &Path) -> Option<Self> {
        let resources = resources(folder);
        let mut decoded = Self::default();
        for bar in resources
            .iter()
            .take(BARS)
            .filter(|bar| bar.2 & MEM != 0 && bar.size() > 0)
        {
            let is_high = bar.2 & (MEM_64 | PREFETCH) == MEM_64 | PREFETCH;
            let sizes = if is_high {
                &mut decoded.high
            } else {
                &mut decoded.low
            };
            sizes.push(bar.size());
        }
        decoded.rom = resources.get(BARS).map_or(0, |rom| rom.size());
        (!resources.is_empty()).then_some(decoded)
    }

    /// All that goes below 4 GiB.
    pub fn below_4_gib(&self) -> Vec<u64> {
        let rom = Some(self.rom).filter(|bytes| *bytes > 0);
        self.low.iter().copied().chain(rom).collect()
    }
}

fn resources(folder: &Path) -> Vec<Resource> {
    let text = read_text(&folder.join("resource")).unwrap_or_default();
    let resource = |line: &str| {
        let mut words = line.split_whitespace();
        let mut number = || u64::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok();
        Some(Resource(number()?, number()?, number()?))
    };
    text.lines().take(BARS + 1).map_while(resource).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_64_bits_wide_and_prefetchable_goes_above_4_gib() {
        let folder = tempfile::tempdir().expect("a folder");
        let lines = "0xfe000000 0xfe01ffff 0x0000000000040200\n\
                     0x380000000000 0x38003fffffff 0x0000000000140204\n\
                     0x0 0x0 0x0\n\
                     0x381000000000 0x3810ffffffff 0x000000000014220c\n\
                     0x0 0x0 0x0\n\
                     0xe000 0xe01f 0x0000000000040101\n\
                     0xfe100000 0xfe10ffff 0x0000000000046200\n";
        std::fs::write(folder.path().join("resource"), lines).expect("written");
        let decoded = Decoded::of(folder.path()).expect("it is shown");
        assert_eq!(decoded.low, [0x2_0000, 1 << 30]);
        assert_eq!(decoded.high, [4 << 30]);
        assert_eq!(decoded.below_4_gib(), [0x2_0000, 1 << 30, 0x1_0000]);
    }

    #[test]
    fn what_sysfs_does_not_show_is_unknown() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(Decoded::of(folder.path()), None);
    }
}

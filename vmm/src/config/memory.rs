//! The value of `--memory`.

use std::fmt;
use std::str::FromStr;

use super::keys::bytes;

/// Bytes of the smallest guest a Debian kernel boots in.
pub const MIN_MEMORY: u64 = 64 << 20;

/// RAM in bytes, a multiple of 4 KiB, at least [`MIN_MEMORY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize(u64);

impl MemorySize {
    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.0 >> 20)
    }
}

/// A size that is no size, or not one of RAM.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemorySizeError {
    /// Not a number with a unit.
    #[error("{0:?} is not a size; write a number and M or G, as in 512M or 4G")]
    Syntax(String),
    /// Too small to boot anything.
    #[error("{0:?} is too little memory; the least is {min}M", min = MIN_MEMORY >> 20)]
    TooSmall(String),
    /// More than any address bus.
    #[error("{0:?} is more memory than a CPU can address")]
    TooBig(String),
    /// Not a multiple of 4 KiB: KVM and VFIO map whole pages only.
    #[error("{0:?} is not a whole number of 4 KiB pages")]
    Pages(String),
}

impl FromStr for MemorySize {
    type Err = MemorySizeError;

    /// A number with K, M, G or T; MiB without, as QEMU has it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = bytes(text).ok_or_else(|| MemorySizeError::Syntax(text.to_owned()))?;
        // 64 TiB: what Linux manages with four levels of page tables (Documentation/arch/x86/x86_64/mm.rst).
        match bytes.filter(|bytes| *bytes <= 1 << 46) {
            None => Err(MemorySizeError::TooBig(text.to_owned())),
            Some(bytes) if bytes < MIN_MEMORY => Err(MemorySizeError::TooSmall(text.to_owned())),
            Some(bytes) if bytes % 4096 != 0 => Err(MemorySizeError::Pages(text.to_owned())),
            Some(bytes) => Ok(Self(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_qemu_reads_them() {
        let bytes = |text: &str| text.parse().map(MemorySize::bytes);
        assert_eq!(bytes("512"), Ok(512 << 20));
        assert_eq!(bytes("512M"), Ok(512 << 20));
        assert_eq!(bytes("4g"), Ok(4 << 30));
        assert_eq!(bytes("65536K"), Ok(64 << 20));
    }

    #[test]
    fn sizes_that_cannot_be_say_why() {
        let error = |text: &str| {
            text.parse::<MemorySize>()
                .expect_err("no size of RAM")
                .to_string()
        };
        assert_eq!(error("0"), "\"0\" is too little memory; the least is 64M");
        assert_eq!(error("63M"), "\"63M\" is too little memory; the least is 64M");
        assert!(error("-4G").contains("not a size"));
        assert!(error("four").contains("not a size"));
        assert!(error("").contains("not a size"));
        assert!(error("99999999T").contains("more memory"));
        assert!(error("18446744073709551616").contains("more memory"));
        assert!(error("65537K").contains("4 KiB"));
    }
}

//! Nodes of a host's memory (NUMA).

use std::fmt;
use std::str::FromStr;

/// One node, or several that follow each other, of the first 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nodes {
    first: u8,
    last: u8,
}

impl Nodes {
    /// A bit for each.
    pub fn mask(self) -> u64 {
        (self.first..=self.last).fold(0, |mask, node| mask | 1 << node)
    }

    /// The number of each, in ascending order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        self.first..=self.last
    }
}

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl FromStr for Nodes {
    type Err = ();

    /// As the kernel and QEMU write them: `0`, or `0-3`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|node| digits && *node < 64)
        };
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_a_bit_each() {
        let mask = |text: &str| text.parse().map(Nodes::mask);
        assert_eq!(mask("3"), Ok(8));
        assert_eq!(mask("0-3"), Ok(15));
        assert_eq!(mask("63"), Ok(1 << 63));
        for wrong in ["", "-1", "+1", "64", "2-1", "0-", "0-1-2"] {
            assert_eq!(mask(wrong), Err(()), "{wrong}");
        }
    }
}

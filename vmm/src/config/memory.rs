//! The value of `--memory`.

use std::fmt;
use std::str::FromStr;

use super::keys::{KeyError, bytes, set, set_switch};
use super::nodes::Nodes;

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

/// A large page of the host's, of which the kernel keeps a pool (hugetlbfs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 2 MiB, a level of x86-64's page tables above 4 KiB.
    TwoMib,
    /// 1 GiB, the level above that, where the CPU has it.
    OneGib,
}

impl PageSize {
    /// Its size in bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::TwoMib => 2 << 20,
            Self::OneGib => 1 << 30,
        }
    }

    fn of(bytes: u64) -> Option<Self> {
        [Self::TwoMib, Self::OneGib]
            .into_iter()
            .find(|page| page.bytes() == bytes)
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoMib => "2M",
            Self::OneGib => "1G",
        })
    }
}

/// Which pages RAM is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// What the kernel makes of memory that huge pages are advised for.
    #[default]
    Transparent,
    /// The largest of the host's pools that has enough, or what the kernel makes of it.
    Auto,
    /// These, or the guest does not start.
    Of(PageSize),
}

/// RAM: how much, and of which memory of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryConfig {
    /// How much the guest has in all, in bytes.
    pub size: MemorySize,
    /// Which of the host's pages it is made of.
    pub pages: HugePages,
    /// It is a file that other processes could map.
    pub is_shared: bool,
    /// It is taken from the host before the guest starts, even where no device needs that.
    pub is_taken_first: bool,
    /// The host's nodes of memory that it is of; `None` for all.
    pub nodes: Option<Nodes>,
}

/// A value that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryConfigError {
    /// No size of RAM.
    #[error(transparent)]
    Size(#[from] MemorySizeError),
    /// None of the keys.
    #[error(
        "{0:?} is not a key of --memory; the keys are hugepages=2M|1G|auto|off, shared=on|off, prealloc=on|off, host-nodes=N"
    )]
    UnknownKey(String),
    /// A page that no CPU has, or that strait does not use.
    #[error("hugepages={0:?} is none of 2M, 1G, auto and off")]
    Page(String),
    /// RAM that is no whole number of them.
    #[error("{size} is no whole number of pages of {page}; give a multiple of {page}")]
    Whole {
        /// How much the guest has in all.
        size: MemorySize,
        /// The pages of which that is no multiple.
        page: PageSize,
    },
    /// Neither a number nor a range.
    #[error("host-nodes={0:?} is not a node of memory; write a number or a range, as in 0 or 0-1")]
    Nodes(String),
    /// How memory is spread over nodes is the kernel's affair.
    #[error("policy={0:?} is not to be had; the one policy is bind, and only with host-nodes=N")]
    Policy(String),
    /// QEMU's words beside our own: which of the two is meant cannot be told.
    #[error("hugepages= and QEMU's hugetlb= or hugetlbsize= say the same; give the one or the others")]
    TwoWords,
    /// A size of pages that are not wanted.
    #[error("hugetlb=off and hugetlbsize= contradict each other; leave one out")]
    Unwanted,
    /// A key twice, or a value that is neither on nor off.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl From<MemorySize> for MemoryConfig {
    fn from(size: MemorySize) -> Self {
        Self {
            size,
            pages: HugePages::default(),
            is_shared: false,
            is_taken_first: false,
            nodes: None,
        }
    }
}

/// Keys as they are given.
#[derive(Default)]
struct Keys {
    pages: Option<HugePages>,
    /// QEMU's two ways to say it: that there are huge pages, and which.
    is_huge: Option<bool>,
    huge: Option<PageSize>,
    shared: Option<bool>,
    taken_first: Option<bool>,
    nodes: Option<Nodes>,
    policy: Option<String>,
}

impl Keys {
    fn read(&mut self, part: &str) -> Result<(), MemoryConfigError> {
        let unknown = || MemoryConfigError::UnknownKey(part.to_owned());
        let (key, value) = part.split_once('=').ok_or_else(unknown)?;
        let page = || bytes(value).flatten().and_then(PageSize::of);
        let wrong = || MemoryConfigError::Page(value.to_owned());
        match key {
            "hugepages" => {
                let pages = match value {
                    "auto" => HugePages::Auto,
                    "off" => HugePages::Transparent,
                    _ => HugePages::Of(page().ok_or_else(wrong)?),
                };
                set(&mut self.pages, "hugepages", pages)?;
            }
            "hugetlb" => set_switch(&mut self.is_huge, "hugetlb", value)?,
            "hugetlbsize" => set(&mut self.huge, "hugetlbsize", page().ok_or_else(wrong)?)?,
            "shared" | "share" => set_switch(&mut self.shared, "shared", value)?,
            "prealloc" => set_switch(&mut self.taken_first, "prealloc", value)?,
            "host-nodes" => {
                let nodes = value
                    .parse()
                    .map_err(|()| MemoryConfigError::Nodes(value.to_owned()))?;
                set(&mut self.nodes, "host-nodes", nodes)?;
            }
            "policy" => set(&mut self.policy, "policy", value.to_owned())?,
            _ => return Err(unknown()),
        }
        Ok(())
    }

    fn pages(&self) -> Result<HugePages, MemoryConfigError> {
        match (self.pages, self.is_huge, self.huge) {
            (Some(pages), None, None) => Ok(pages),
            (Some(_), ..) => Err(MemoryConfigError::TwoWords),
            (None, Some(false), Some(_)) => Err(MemoryConfigError::Unwanted),
            (None, Some(false) | None, None) => Ok(HugePages::Transparent),
            (None, Some(true) | None, size) => Ok(HugePages::Of(size.unwrap_or(PageSize::TwoMib))),
        }
    }
}

impl FromStr for MemoryConfig {
    type Err = MemoryConfigError;

    /// A size and keys behind commas, or QEMU's `size=4G`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(',');
        let size = parts.next().unwrap_or_default();
        let size: MemorySize = size.strip_prefix("size=").unwrap_or(size).parse()?;
        let mut keys = Keys::default();
        parts.try_for_each(|part| keys.read(part))?;
        if let Some(policy) = keys
            .policy
            .take_if(|policy| policy != "bind" || keys.nodes.is_none())
        {
            return Err(MemoryConfigError::Policy(policy));
        }
        let pages = keys.pages()?;
        if let HugePages::Of(page) = pages
            && !size.bytes().is_multiple_of(page.bytes())
        {
            return Err(MemoryConfigError::Whole { size, page });
        }
        // The kernel reserves large pages on any node: whether these have them is seen when they are taken.
        let is_of_nodes = keys.nodes.is_some() && pages != HugePages::Transparent;
        Ok(Self {
            size,
            pages,
            is_shared: keys.shared.unwrap_or(false),
            is_taken_first: keys.taken_first.unwrap_or(false) || is_of_nodes,
            nodes: keys.nodes,
        })
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

    #[test]
    fn keys_say_which_memory_it_is() {
        let config = |text: &str| text.parse::<MemoryConfig>();
        let size: MemorySize = "4G".parse().expect("a size");
        assert_eq!(config("size=4G"), Ok(size.into()));
        let wanted = MemoryConfig {
            pages: HugePages::Of(PageSize::OneGib),
            is_shared: true,
            is_taken_first: true,
            nodes: "0-1".parse().ok(),
            ..size.into()
        };
        assert_eq!(config("4G,hugepages=1G,shared=on,host-nodes=0-1"), Ok(wanted));
        assert_eq!(
            config("4096,hugetlb=on,hugetlbsize=1G,share=on,prealloc=yes,host-nodes=0-1,policy=bind"),
            Ok(wanted)
        );
        let pages = |text| config(text).map(|config| config.pages);
        assert_eq!(pages("64M,hugepages=auto"), Ok(HugePages::Auto));
        assert_eq!(pages("64M,hugetlb=on"), Ok(HugePages::Of(PageSize::TwoMib)));
        assert_eq!(pages("64M,hugetlb=off"), Ok(HugePages::Transparent));
        assert_eq!(pages("64M,hugetlbsize=2M"), Ok(HugePages::Of(PageSize::TwoMib)));
    }

    #[test]
    fn keys_that_cannot_be_say_why() {
        let error = |text: &str| {
            let refused = text.parse::<MemoryConfig>();
            refused.expect_err("not understood").to_string()
        };
        assert!(error("4G,hugepages").starts_with("\"hugepages\" is not a key of --memory"));
        assert!(error("4G,mem-path=/x").contains("the keys are hugepages="));
        assert_eq!(
            error("4G,hugepages=4M"),
            "hugepages=\"4M\" is none of 2M, 1G, auto and off"
        );
        assert!(error("512M,hugepages=1G").starts_with("512M is no whole number of pages of 1G"));
        assert!(error("4G,host-nodes=0,2").contains("\"2\" is not a key"));
        assert!(error("4G,host-nodes=64").contains("not a node"));
        assert!(error("4G,host-nodes=1-0").contains("not a node"));
        assert!(error("4G,policy=bind").contains("only with host-nodes"));
        assert!(error("4G,host-nodes=0,policy=interleave").contains("the one policy is bind"));
        assert!(error("4G,hugepages=2M,hugetlb=off").contains("say the same"));
        assert!(error("4G,hugetlb=off,hugetlbsize=2M").contains("contradict"));
        assert!(error("4G,shared=on,share=on").contains("given twice"));
        assert!(error("1M,shared=on").contains("too little memory"));
    }
}

//! Bounded walks over the capability lists of a function that may lie.
//!
//! A walk follows at most as many entries as there is room for, never visits one twice and never reads
//! outside the space; what it returns is disjoint. The caller walks a copy, so that two looks at one
//! register agree.

use strait_devices::pci::spec::{header, status};

use super::spec::{capability, extended};

/// As many capabilities of 4 bytes as fit between header and end.
const MAX_CAPABILITIES: usize = 48;

/// As many extended capabilities of 8 bytes as fit; one of 4 bytes would have nothing but its header.
const MAX_EXTENDED_CAPABILITIES: usize = 480;

/// A configuration space that can be read without consequences.
pub(crate) trait ConfigRead {
    /// The byte at `register`, ones where there is none.
    fn u8(&self, register: u16) -> u8;

    /// The 16-bit value at `register`.
    fn u16(&self, register: u16) -> u16 {
        u16::from_le_bytes([self.u8(register), self.u8(register.saturating_add(1))])
    }

    /// The 32-bit value at `register`.
    fn u32(&self, register: u16) -> u32 {
        u32::from(self.u16(register)) | u32::from(self.u16(register.saturating_add(2))) << 16
    }
}

impl ConfigRead for [u8] {
    fn u8(&self, register: u16) -> u8 {
        self.get(usize::from(register)).copied().unwrap_or(0xff)
    }
}

/// A capability in the first 256 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capability {
    pub(crate) id: u8,
    pub(crate) offset: u16,
    /// Its bytes as far as its id says and the next capability lets it; only the header for an unknown id.
    pub(crate) len: u16,
    /// It has room for all that its id needs.
    pub(crate) is_whole: bool,
}

/// A capability beyond them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExtendedCapability {
    pub(crate) id: u16,
    pub(crate) version: u8,
    pub(crate) offset: u16,
}

/// What a walk found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Walk<T> {
    pub(crate) found: Vec<T>,
    /// False when the list loops or leaves its space, the rest of it left out, or when it runs through the
    /// middle of a capability.
    pub(crate) is_sound: bool,
}

/// How long a capability with this id and offset is: bytes that it needs, and those it takes where there is room.
pub(crate) type Length = fn(&[u8], u8, u16) -> (u16, u16);

/// Walks the list that starts at the capabilities pointer.
pub(crate) fn capabilities(config: &[u8], length: Length) -> Walk<Capability> {
    let (offsets, is_complete) = offsets(config);
    let measure = |&offset: &u16| {
        let id = config.u8(offset);
        let next = offsets.iter().copied().filter(|&other| other > offset).min();
        let room = next.unwrap_or(capability::END) - offset;
        let (needed, wanted) = length(config, id, offset);
        Capability {
            id,
            offset,
            len: wanted.min(room),
            is_whole: needed <= room,
        }
    };
    let found: Vec<Capability> = offsets.iter().map(measure).collect();
    let is_sound = is_complete && found.iter().all(|found| found.is_whole);
    Walk { found, is_sound }
}

/// Where capabilities stand, at least two bytes each and none twice, and whether the list came to its end.
fn offsets(config: &[u8]) -> (Vec<u16>, bool) {
    let mut offsets = Vec::new();
    if config.u16(header::STATUS) & status::CAPABILITIES == 0 {
        return (offsets, true);
    }
    let mut pointer = config.u8(header::CAPABILITIES);
    while pointer != 0 {
        let offset = u16::from(pointer & !0x3);
        if offset < capability::FIRST || offsets.contains(&offset) || offsets.len() == MAX_CAPABILITIES {
            return (offsets, false);
        }
        offsets.push(offset);
        pointer = config.u8(offset + capability::NEXT);
    }
    (offsets, true)
}

/// Walks the list that starts at the end of the first 256 bytes.
pub(crate) fn extended_capabilities(config: &[u8]) -> Walk<ExtendedCapability> {
    let mut walk = Walk {
        found: Vec::<ExtendedCapability>::new(),
        is_sound: true,
    };
    let mut offset = extended::FIRST;
    while offset != 0 {
        let value = config.u32(offset);
        if offset == extended::FIRST && (value == 0 || value == u32::MAX) {
            break;
        }
        let is_new = walk.found.iter().all(|other| other.offset != offset);
        let is_inside = (extended::FIRST..=extended::END - extended::HEADER_LEN).contains(&offset);
        if !is_new || !is_inside || value == u32::MAX || walk.found.len() == MAX_EXTENDED_CAPABILITIES {
            walk.is_sound = false;
            break;
        }
        let found = ExtendedCapability {
            id: value as u16,
            version: (value >> 16) as u8 & 0xf,
            offset,
        };
        walk.found.push(found);
        offset = (value >> 20) as u16 & !0x3;
    }
    walk
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pci::capability::length;

    fn space(bytes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut space = vec![0; 4096];
        space[usize::from(header::STATUS)] = 0x10;
        for (at, value) in bytes {
            space[usize::from(*at)..][..value.len()].copy_from_slice(value);
        }
        space
    }

    fn found(config: &[u8]) -> Vec<(u8, u16)> {
        capabilities(config, length)
            .found
            .iter()
            .map(|found| (found.id, found.offset))
            .collect()
    }

    #[test]
    fn follows_the_list_in_its_order() {
        let config = space(&[(0x34, &[0x80]), (0x80, &[0x05, 0x40]), (0x40, &[0x01, 0x00])]);
        assert_eq!(found(&config), [(0x05, 0x80), (0x01, 0x40)]);
        assert!(capabilities(&config[..], length).is_sound);
    }

    #[test]
    fn a_function_without_a_list_has_none() {
        let mut config = space(&[(0x34, &[0x40]), (0x40, &[0x01, 0x00])]);
        config[6] = 0;
        assert!(found(&config).is_empty());
    }

    #[test]
    fn a_loop_ends_the_walk() {
        let config = space(&[
            (0x34, &[0x40]),
            (0x40, &[0x09, 0x50, 4]),
            (0x50, &[0x09, 0x40, 4]),
        ]);
        let walk = capabilities(&config[..], length);
        assert_eq!(walk.found.len(), 2);
        assert!(!walk.is_sound);
    }

    #[test]
    fn pointers_into_the_header_are_not_followed() {
        for pointer in [0x04, 0x3c, 0x01] {
            let walk = capabilities(&space(&[(0x34, &[pointer])])[..], length);
            assert!(walk.found.is_empty() && !walk.is_sound, "{pointer:#x}");
        }
    }

    #[test]
    fn a_capability_without_room_is_not_whole() {
        let inside = space(&[(0x34, &[0x40]), (0x40, &[0x11, 0x44]), (0x44, &[0x05, 0x00])]);
        let at_the_end = space(&[(0x34, &[0xfc]), (0xfc, &[0x10, 0x00])]);
        let whole = |config: &[u8]| {
            capabilities(config, length)
                .found
                .iter()
                .map(|found| found.is_whole)
                .collect::<Vec<_>>()
        };
        assert_eq!(whole(&inside), [false, true]);
        assert_eq!(whole(&at_the_end), [false]);
        assert!(!capabilities(&inside[..], length).is_sound);
    }

    #[test]
    fn a_vendor_capability_ends_where_the_next_begins() {
        let config = space(&[
            (0x34, &[0x40]),
            (0x40, &[0x09, 0x50, 0xff]),
            (0x50, &[0x01, 0x00]),
        ]);
        let walk = capabilities(&config[..], length);
        assert_eq!(walk.found[0].len, 0x10);
        assert!(walk.is_sound);
    }

    #[test]
    fn a_dead_function_has_no_capabilities_beyond_reason() {
        let config = vec![0xff; 4096];
        assert!(capabilities(&config[..], length).found.len() <= 1);
        assert!(extended_capabilities(&config[..]).found.is_empty());
    }

    #[test]
    fn extended_capabilities_are_followed_and_loops_end() {
        let link = |id: u32, next: u32| (id | 1 << 16 | next << 20).to_le_bytes();
        let config = space(&[(0x100, &link(0x01, 0x150)), (0x150, &link(0x0e, 0x100))]);
        let walk = extended_capabilities(&config[..]);
        let ids: Vec<_> = walk.found.iter().map(|found| found.id).collect();
        assert_eq!(ids, [0x01, 0x0e]);
        assert!(!walk.is_sound);
    }

    #[test]
    fn a_space_without_extended_capabilities_is_sound() {
        let walk = extended_capabilities(&space(&[])[..]);
        assert!(walk.found.is_empty() && walk.is_sound);
    }

    proptest! {
        #[test]
        fn any_bytes_give_disjoint_capabilities_inside_the_space(seed in prop::collection::vec(any::<u8>(), 4096)) {
            let mut config = seed;
            config[usize::from(header::STATUS)] |= 0x10;
            let walk = capabilities(&config[..], length);
            prop_assert!(walk.found.len() <= MAX_CAPABILITIES);
            let mut owned = [false; 256];
            for found in walk.found {
                for at in found.offset..found.offset + found.len {
                    prop_assert!(!std::mem::replace(&mut owned[usize::from(at)], true));
                }
            }
            prop_assert!(extended_capabilities(&config[..]).found.len() <= MAX_EXTENDED_CAPABILITIES);
        }
    }
}

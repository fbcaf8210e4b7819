//! The value of `--hotplug-slots`.

use std::str::FromStr;

use strait_devices::pci::firmware::Room;

use super::MAX_DEVICES;
use super::keys::{KeyError, bytes, set};

/// What a slot has without keys: room for what most NICs and disks have below 4 GiB, and for a small graphics card above.
const USUAL: Room = Room {
    io: IO_BYTES,
    memory_32: 16 << 20,
    memory_64: 1 << 30,
};

/// A bridge's smallest window for ports, and for memory (PCIe §7.5.1.3.6, §7.5.1.3.8).
const IO_BYTES: u64 = 4 << 10;
const SMALLEST: u64 = 1 << 20;

/// Empty slots, into which devices may be plugged while the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotplugConfig {
    /// How many, 1 to [`MAX_DEVICES`].
    pub slots: u8,
    /// What each has for the BARs of a device; `None` for as much as any device of this host could want.
    pub room: Option<Room>,
}

/// A value that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HotplugConfigError {
    /// No number from 1 to [`MAX_DEVICES`].
    #[error("{0:?} is not a number of slots, 1 to {MAX_DEVICES}")]
    Slots(String),
    /// Neither `mem` nor `pref`, nor `auto` alone.
    #[error("{0:?} is not a key of --hotplug-slots; the keys are mem=SIZE and pref=SIZE, or auto alone")]
    UnknownKey(String),
    /// No power of two from 1 MiB on.
    #[error("{0}={1:?} is not a size; write a number and K, M or G, as in 64M, a power of two from 1M on")]
    Size(&'static str, String),
    /// A key twice: which of its values is meant cannot be told.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl FromStr for HotplugConfig {
    type Err = HotplugConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (slots, keys) = text
            .split_once(',')
            .map_or((text, None), |(n, keys)| (n, Some(keys)));
        let number = slots
            .parse()
            .ok()
            .filter(|n| (1..=MAX_DEVICES).contains(&usize::from(*n)));
        let slots = number.ok_or_else(|| HotplugConfigError::Slots(slots.to_owned()))?;
        let room = match keys {
            None => Some(USUAL),
            Some("auto") => None,
            Some(keys) => Some(room(keys)?),
        };
        Ok(Self { slots, room })
    }
}

fn room(keys: &str) -> Result<Room, HotplugConfigError> {
    let (mut memory_32, mut memory_64) = (None, None);
    for part in keys.split(',') {
        match part.split_once('=') {
            Some(("mem", value)) => set(&mut memory_32, "mem", size("mem", value)?)?,
            Some(("pref", value)) => set(&mut memory_64, "pref", size("pref", value)?)?,
            _ => return Err(HotplugConfigError::UnknownKey(part.to_owned())),
        }
    }
    Ok(Room {
        io: IO_BYTES,
        memory_32: memory_32.unwrap_or(USUAL.memory_32),
        memory_64: memory_64.unwrap_or(USUAL.memory_64),
    })
}

/// A window begins where the biggest BAR in it may, so that only powers of two can be kept free without waste.
fn size(key: &'static str, text: &str) -> Result<u64, HotplugConfigError> {
    let size = bytes(text)
        .flatten()
        .filter(|bytes| bytes.is_power_of_two() && *bytes >= SMALLEST);
    size.ok_or_else(|| HotplugConfigError::Size(key, text.to_owned()))
}

impl HotplugConfig {
    /// The room of each slot; where it is to be for any device of the host, `sizes` tells what BARs of each take in bytes,
    /// below 4 GiB and above.
    pub fn room_for<S: IntoIterator<Item = (u64, u64)>>(&self, sizes: impl FnOnce() -> S) -> Room {
        let rounded = |bytes: u64| bytes.checked_next_power_of_two().unwrap_or(1 << 63);
        self.room.unwrap_or_else(|| {
            let least = (SMALLEST, SMALLEST);
            let wider = |most: (u64, u64), size: (u64, u64)| (most.0.max(size.0), most.1.max(size.1));
            let most = sizes().into_iter().fold(least, wider);
            Room {
                io: IO_BYTES,
                memory_32: rounded(most.0),
                memory_64: rounded(most.1),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let refused = text.parse::<HotplugConfig>().expect_err("not understood");
        refused.to_string()
    }

    #[test]
    fn slots_have_the_usual_room_or_what_is_said() {
        let config: HotplugConfig = "2".parse().expect("a number");
        assert_eq!((config.slots, config.room), (2, Some(USUAL)));
        let config: HotplugConfig = "31,pref=64G,mem=128M".parse().expect("keys");
        let room = config.room.expect("said");
        assert_eq!((room.memory_32, room.memory_64), (128 << 20, 64 << 30));
    }

    #[test]
    fn auto_is_what_the_biggest_device_of_the_host_wants() {
        let config: HotplugConfig = "1,auto".parse().expect("understood");
        let room = config.room_for(|| [(0x2_4000, 0), (0x1000, 0x3_0000_0000)]);
        assert_eq!((room.memory_32, room.memory_64), (1 << 20, 16 << 30));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(error("0"), "\"0\" is not a number of slots, 1 to 31");
        assert!(error("32").contains("1 to 31"));
        assert!(error("many").contains("\"many\""));
        assert!(error("1,io=4K").contains("mem=SIZE and pref=SIZE"));
        assert!(error("1,auto,mem=1M").contains("\"auto\""));
        assert!(error("1,mem=3M").contains("a power of two"));
        assert!(error("1,mem=64K").contains("from 1M on"));
        assert!(error("1,mem=1M,mem=1M").contains("given twice"));
    }
}

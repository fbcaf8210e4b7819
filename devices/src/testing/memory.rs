//! Fakes of what is in the memory map, and of who hears of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::lock;
use crate::address_space::{MapError, MapListener, Mapping};
use crate::region::{Device, Effect};
use crate::region::{HostAddress, HostBacking};

/// What a [`FakeListener`] heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A piece appeared at this guest address, this long.
    Map(u64, u64),
    /// A piece went away.
    Unmap(u64, u64),
}

/// A listener that keeps what it hears.
#[derive(Default)]
pub struct FakeListener {
    heard: Mutex<Vec<Heard>>,
    refused: AtomicBool,
    images: AtomicBool,
}

impl FakeListener {
    /// A listener that accepts everything.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Refuses (`true`) or accepts what comes.
    pub fn set_refused(&self, refused: bool) {
        self.refused.store(refused, Ordering::Relaxed);
    }

    /// Hears of images, too.
    pub fn hear_of_images(&self) {
        self.images.store(true, Ordering::Relaxed);
    }

    /// The calls so far.
    pub fn heard(&self) -> Vec<Heard> {
        lock(&self.heard).clone()
    }
}

impl MapListener for FakeListener {
    fn map(&self, mapping: &Mapping) -> Result<(), MapError> {
        if self.refused.load(Ordering::Relaxed) {
            return Err("the listener refuses to map".into());
        }
        lock(&self.heard).push(Heard::Map(mapping.at.0, mapping.backing.len_bytes()));
        Ok(())
    }

    fn unmap(&self, mapping: &Mapping) {
        lock(&self.heard).push(Heard::Unmap(mapping.at.0, mapping.backing.len_bytes()));
    }

    fn hears_of_images(&self) -> bool {
        self.images.load(Ordering::Relaxed)
    }
}

/// A backing that promises an address nobody may touch.
#[derive(Clone, Copy, Debug)]
pub struct FakeBacking {
    /// The address it claims.
    pub host: HostAddress,
    /// The length it claims.
    pub len_bytes: u64,
}

impl HostBacking for FakeBacking {
    fn host_address(&self) -> HostAddress {
        self.host
    }

    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }
}

/// A device that is nothing but bytes, and remembers each write.
pub struct RamDevice {
    name: String,
    bytes: Mutex<Vec<u8>>,
    writes: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl RamDevice {
    /// `len` zero bytes.
    pub fn new(name: &str, len: usize) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            bytes: Mutex::new(vec![0; len]),
            writes: Mutex::default(),
        })
    }

    /// The writes so far: offset and data.
    pub fn writes(&self) -> Vec<(u64, Vec<u8>)> {
        lock(&self.writes).clone()
    }
}

impl Device for RamDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let start = usize::try_from(offset).expect("tests stay small");
        data.copy_from_slice(&lock(&self.bytes)[start..][..data.len()]);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let start = usize::try_from(offset).expect("tests stay small");
        lock(&self.bytes)[start..][..data.len()].copy_from_slice(data);
        lock(&self.writes).push((offset, data.to_vec()));
        Effect::None
    }
}

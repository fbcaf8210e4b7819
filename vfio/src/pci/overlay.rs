//! Configuration space as the hardware's with a table of patches: which bits the guest sees from a copy,
//! and which of the bits it writes reach the hardware.

use strait_devices::pci::config_space::ConfigSpace;
use strait_devices::pci::spec::CONFIG_SPACE_SIZE;

use crate::hardware::{Hardware, HardwareRegion};
use strait_devices::warning::FirstOnly;

/// The overlay. Without a patch a bit is read from the hardware, and written nowhere.
pub(crate) struct Overlay {
    /// What the guest sees where it does not see the hardware.
    copy: ConfigSpace,
    /// [`Overlay::copy`] as it is after a reset.
    power_on: ConfigSpace,
    /// Bits that come from the copy.
    patched: Box<[u8; CONFIG_SPACE_SIZE]>,
    /// Bits whose writes reach the hardware.
    forwarded: Box<[u8; CONFIG_SPACE_SIZE]>,
    failed: FirstOnly,
}

impl Overlay {
    /// No patches; the copy holds `snapshot`, and zero beyond its end.
    pub(crate) fn new(snapshot: &[u8]) -> Self {
        let mut copy = ConfigSpace::new();
        copy.set(0, &snapshot[..snapshot.len().min(CONFIG_SPACE_SIZE)]);
        let zero = || Box::new([0; CONFIG_SPACE_SIZE]);
        let (patched, forwarded) = (zero(), zero());
        Self {
            power_on: copy.clone(),
            copy,
            patched,
            forwarded,
            failed: FirstOnly::default(),
        }
    }

    /// The guest sees the `len` bytes at `register` as the snapshot has them, whatever the hardware does.
    pub(crate) fn freeze(&mut self, register: u16, len: u16) {
        self.patched[usize::from(register)..][..usize::from(len)].fill(0xff);
    }

    /// The guest sees the bits that are 1 in `mask` as they are in `value`.
    pub(crate) fn patch(&mut self, register: u16, mask: &[u8], value: &[u8]) {
        for ((at, mask), value) in (register..).zip(mask).zip(value) {
            let byte = self.power_on.u8(at) & !mask | value & mask;
            self.power_on.set(at, &[byte]);
            self.copy.set(at, &[byte]);
            self.patched[usize::from(at)] |= mask;
        }
    }

    /// The guest sees these bytes.
    pub(crate) fn replace(&mut self, register: u16, value: &[u8]) {
        self.patch(register, &vec![0xff; value.len()], value);
    }

    /// The guest may change these patched bits of the copy.
    pub(crate) fn allow_write(&mut self, register: u16, mask: &[u8]) {
        self.power_on.allow_write(register, mask);
        self.copy.allow_write(register, mask);
    }

    /// Writes to these bits reach the hardware.
    pub(crate) fn forward(&mut self, register: u16, mask: &[u8]) {
        self.forwarded[usize::from(register)..][..mask.len()].copy_from_slice(mask);
    }

    /// What the guest sees in the copy.
    pub(crate) fn copy(&self) -> &ConfigSpace {
        &self.copy
    }

    /// Changes the copy behind the guest's back.
    pub(crate) fn set(&mut self, register: u16, value: &[u8]) {
        self.copy.set(register, value);
    }

    /// The copy back to the state after power-on.
    pub(crate) fn reset(&mut self) {
        self.copy = self.power_on.clone();
    }

    /// A guest read: one read of the hardware, none where all bits are patched.
    pub(crate) fn read(&self, hardware: &dyn Hardware, register: u16, data: &mut [u8]) {
        let patched = self
            .patched
            .iter()
            .skip(usize::from(register))
            .chain(std::iter::repeat(&0));
        if patched.clone().zip(&*data).any(|(mask, _)| *mask != 0xff)
            && let Err(error) = hardware.read(HardwareRegion::Config, u64::from(register), data)
        {
            self.report(hardware, "read", register, &error);
            data.fill(0xff);
        }
        let mut copy = vec![0; data.len()];
        self.copy.read(register, &mut copy);
        for ((byte, copy), mask) in data.iter_mut().zip(copy).zip(patched) {
            *byte = *byte & !mask | copy & mask;
        }
    }

    /// A guest write: to the copy, and to the hardware each run of bytes that is forwarded, once.
    pub(crate) fn write(&mut self, hardware: &dyn Hardware, register: u16, data: &[u8]) {
        self.copy.write(register, data);
        let masks = &self.forwarded[usize::from(register).min(CONFIG_SPACE_SIZE)..];
        let bytes: Vec<(u16, u8, u8)> = (register..)
            .zip(data)
            .zip(masks)
            .map(|((at, byte), mask)| (at, *byte, *mask))
            .collect();
        for run in bytes.chunk_by(|before, after| (before.2 == 0) == (after.2 == 0)) {
            if run[0].2 != 0
                && let Err(error) = forward_run(hardware, run)
            {
                self.report(hardware, "write", run[0].0, &error);
            }
        }
    }

    fn report(&self, hardware: &dyn Hardware, what: &str, register: u16, error: &std::io::Error) {
        if self.failed.pass() {
            log::warn!(
                "{}: cannot {what} config space at {register:#x}: {error}",
                hardware.name()
            );
        }
    }
}

/// Writes bytes with their masks; bits that are not forwarded keep what the hardware has.
fn forward_run(hardware: &dyn Hardware, run: &[(u16, u8, u8)]) -> std::io::Result<()> {
    let register = u64::from(run[0].0);
    let mut bytes = vec![0; run.len()];
    if run.iter().any(|(_, _, mask)| *mask != 0xff) {
        hardware.read(HardwareRegion::Config, register, &mut bytes)?;
    }
    for (byte, (_, new, mask)) in bytes.iter_mut().zip(run) {
        *byte = *byte & !mask | new & mask;
    }
    hardware.write(HardwareRegion::Config, register, &bytes)
}

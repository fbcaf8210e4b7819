//! A physical function in memory that does what a test tells it to, lies included.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use strait_devices::region::{HostAddress, HostBacking};
use strait_devices::testing::FakeBacking;

use crate::hardware::{Hardware, HardwareRegion, InterruptInfo, InterruptKind, RegionInfo};
use strait_devices::lock;

/// What reached the hardware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Write(HardwareRegion, u64, Vec<u8>),
    SetInterrupts(InterruptKind, u16, Vec<Option<RawFd>>),
    DisableInterrupts(InterruptKind),
    UnmaskIntx,
    Reset,
}

/// What can be asked of the host's driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Read(HardwareRegion),
    Write(HardwareRegion),
    Map,
    SetInterrupts,
    DisableInterrupts,
    UnmaskIntx,
    Reset,
    Prepare,
}

/// The function. Fields are set before it is used.
pub(crate) struct MockHardware {
    pub(crate) config: Mutex<Vec<u8>>,
    pub(crate) config_len: u64,
    /// 0 without a ROM.
    pub(crate) rom_len: u64,
    pub(crate) regions: HashMap<u8, RegionInfo>,
    pub(crate) interrupts: HashMap<InterruptKind, InterruptInfo>,
    /// The most vectors the host has to give.
    pub(crate) vectors: u32,
    pub(crate) is_resettable: bool,
    /// Reads and writes fail.
    pub(crate) is_dead: AtomicBool,
    /// Operations that fail from now on.
    pub(crate) broken: HashSet<Operation>,
    /// Every other read of configuration space gives the bits inverted.
    pub(crate) flips: AtomicBool,
    pub(crate) calls: Mutex<Vec<Call>>,
    pub(crate) reads: Mutex<Vec<(HardwareRegion, u64, usize)>>,
    pub(crate) mapped: Mutex<Vec<(HardwareRegion, u64, u64)>>,
}

impl MockHardware {
    /// An endpoint without capabilities or BARs.
    pub(crate) fn new() -> Self {
        let mut config = vec![0; 4096];
        config[..4].copy_from_slice(&[0x86, 0x80, 0xc9, 0x10]);
        Self {
            config: Mutex::new(config),
            config_len: 4096,
            rom_len: 0,
            regions: HashMap::new(),
            interrupts: HashMap::new(),
            vectors: 2048,
            is_resettable: true,
            is_dead: AtomicBool::new(false),
            broken: HashSet::new(),
            flips: AtomicBool::new(false),
            calls: Mutex::default(),
            reads: Mutex::default(),
            mapped: Mutex::default(),
        }
    }

    /// Sets bytes of configuration space.
    pub(crate) fn with_config(self, register: u16, bytes: &[u8]) -> Self {
        self.set_config(register, bytes);
        self
    }

    /// Adds a BAR of which all can be mapped.
    pub(crate) fn with_bar(mut self, index: u8, register: u32, len_bytes: u64) -> Self {
        self.regions.insert(
            index,
            RegionInfo {
                len_bytes,
                mappable: true,
                sparse: None,
            },
        );
        self.with_config(0x10 + 4 * u16::from(index), &register.to_le_bytes())
    }

    /// Adds vectors of one kind.
    pub(crate) fn with_interrupts(mut self, kind: InterruptKind, count: u32, resizable: bool) -> Self {
        self.interrupts.insert(kind, InterruptInfo { count, resizable });
        self
    }

    /// Links capabilities, each id with the bytes after the next pointer, at their offsets.
    pub(crate) fn with_capabilities(mut self, capabilities: &[(u8, u8, &[u8])]) -> Self {
        let mut link = 0x34;
        self = self.with_config(0x06, &[0x10]);
        for (offset, id, body) in capabilities {
            let at = u16::from(*offset);
            self = self
                .with_config(link, &[*offset])
                .with_config(at, &[*id, 0])
                .with_config(at + 2, body);
            link = at + 1;
        }
        self
    }

    /// Links extended capabilities, each id with its version 1 header, at their offsets.
    pub(crate) fn with_extended(mut self, capabilities: &[(u16, u16)]) -> Self {
        let next = capabilities.iter().skip(1).map(|(offset, _)| *offset).chain([0]);
        for ((offset, id), next) in capabilities.iter().zip(next) {
            let header = u32::from(*id) | 1 << 16 | u32::from(next) << 20;
            self = self.with_config(*offset, &header.to_le_bytes());
        }
        self
    }

    pub(crate) fn set_config(&self, register: u16, bytes: &[u8]) {
        lock(&self.config)[usize::from(register)..][..bytes.len()].copy_from_slice(bytes);
    }

    /// What reached the hardware since the last call.
    pub(crate) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut lock(&self.calls))
    }

    pub(crate) fn kill(&self) {
        self.is_dead.store(true, Ordering::Relaxed);
    }

    /// Makes an operation fail.
    pub(crate) fn with_broken(mut self, operation: Operation) -> Self {
        self.broken.insert(operation);
        self
    }

    fn attempt(&self, operation: Operation) -> io::Result<()> {
        match self.broken.contains(&operation) {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => Ok(()),
        }
    }

    fn check(&self, region: HardwareRegion, offset: u64, len: usize) -> io::Result<()> {
        let end = offset.checked_add(len as u64).expect("a sane range");
        assert!(
            end <= self.region(region).len_bytes,
            "{len} bytes at {offset:#x} of {region}"
        );
        if self.is_dead.load(Ordering::Relaxed) {
            Err(io::Error::from_raw_os_error(libc::EIO))
        } else {
            Ok(())
        }
    }
}

impl Hardware for MockHardware {
    fn name(&self) -> &str {
        "0000:01:00.0"
    }

    fn region(&self, region: HardwareRegion) -> RegionInfo {
        match region {
            HardwareRegion::Bar(bar) => self.regions.get(&bar).cloned().unwrap_or_default(),
            HardwareRegion::Rom => RegionInfo {
                len_bytes: self.rom_len,
                ..RegionInfo::default()
            },
            HardwareRegion::Config => RegionInfo {
                len_bytes: self.config_len,
                ..RegionInfo::default()
            },
        }
    }

    fn read(&self, region: HardwareRegion, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.check(region, offset, data.len())?;
        self.attempt(Operation::Read(region))?;
        lock(&self.reads).push((region, offset, data.len()));
        match region {
            HardwareRegion::Config => {
                data.copy_from_slice(&lock(&self.config)[offset as usize..][..data.len()]);
                let flips = &self.flips;
                if lock(&self.reads).len().is_multiple_of(2) && flips.load(Ordering::Relaxed) {
                    data.iter_mut().for_each(|byte| *byte = !*byte);
                }
            }
            HardwareRegion::Bar(_) | HardwareRegion::Rom => data.fill(0x5a),
        }
        Ok(())
    }

    fn write(&self, region: HardwareRegion, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check(region, offset, data.len())?;
        self.attempt(Operation::Write(region))?;
        if region == HardwareRegion::Config {
            lock(&self.config)[offset as usize..][..data.len()].copy_from_slice(data);
        }
        lock(&self.calls).push(Call::Write(region, offset, data.to_vec()));
        Ok(())
    }

    fn map(&self, region: HardwareRegion, offset: u64, len_bytes: u64) -> io::Result<Arc<dyn HostBacking>> {
        let end = offset.checked_add(len_bytes).expect("a sane range");
        assert!(
            end <= self.region(region).len_bytes
                && offset.is_multiple_of(4096)
                && len_bytes.is_multiple_of(4096)
        );
        self.attempt(Operation::Map)?;
        lock(&self.mapped).push((region, offset, len_bytes));
        Ok(Arc::new(FakeBacking {
            host: HostAddress(0x7f00_0000_0000 + offset),
            len_bytes,
        }))
    }

    fn interrupt(&self, kind: InterruptKind) -> InterruptInfo {
        self.interrupts.get(&kind).copied().unwrap_or_default()
    }

    fn set_interrupts(
        &self,
        kind: InterruptKind,
        start: u16,
        events: &[Option<BorrowedFd<'_>>],
    ) -> io::Result<u32> {
        assert!(usize::from(start) + events.len() <= self.interrupt(kind).count as usize);
        if self.is_dead.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        self.attempt(Operation::SetInterrupts)?;
        let fds = events
            .iter()
            .map(|event| event.map(|event| event.as_raw_fd()))
            .collect();
        lock(&self.calls).push(Call::SetInterrupts(kind, start, fds));
        let wanted = u32::from(start) + events.len() as u32;
        Ok(if wanted > self.vectors { self.vectors } else { 0 })
    }

    fn disable_interrupts(&self, kind: InterruptKind) -> io::Result<()> {
        lock(&self.calls).push(Call::DisableInterrupts(kind));
        self.attempt(Operation::DisableInterrupts)?;
        Ok(())
    }

    fn unmask_intx(&self) -> io::Result<()> {
        lock(&self.calls).push(Call::UnmaskIntx);
        self.attempt(Operation::UnmaskIntx)
    }

    fn reset(&self) -> io::Result<()> {
        lock(&self.calls).push(Call::Reset);
        self.attempt(Operation::Reset)?;
        if self.is_resettable {
            Ok(())
        } else {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    fn prepare(&self) -> io::Result<()> {
        self.attempt(Operation::Prepare)?;
        if self.is_resettable { Ok(()) } else { self.reset() }
    }

    fn retire(&self) {}
}

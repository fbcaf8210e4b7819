//! The teaching device of QEMU (docs/specs/edu.rst): one page of memory of its own, and a DMA engine that
//! carries data between it and the machine.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use strait_vfio::{Device, Hardware, HardwareRegion};

use super::pages::PAGE;

const REGISTERS: HardwareRegion = HardwareRegion::Bar(0);
const IDENTIFICATION: u64 = 0x00;
const DMA_SOURCE: u64 = 0x80;
const DMA_DESTINATION: u64 = 0x88;
const DMA_COUNT: u64 = 0x90;
const DMA_COMMAND: u64 = 0x98;
const START: u64 = 1;
const TO_MEMORY: u64 = 2;

/// The low byte of the identification; the rest is the version.
const SIGNATURE: u32 = 0xed;
/// Where the device's own page is, as its DMA engine counts.
const BUFFER: u64 = 0x4_0000;

/// Offset of the command register in configuration space, and its memory and bus master bits.
const COMMAND: u64 = 4;
const MEMORY_AND_MASTER: u16 = 0b110;

/// A transfer takes a tenth of a second of the lab machine's time.
const LIMIT: Duration = Duration::from_secs(60);

/// The device, let at the bus. Its engine obeys any address in memory, but only this page of its own.
pub(super) struct Edu(Arc<Device>);

impl Edu {
    pub(super) fn new(device: Arc<Device>) -> Result<Self> {
        device.write(HardwareRegion::Config, COMMAND, &MEMORY_AND_MASTER.to_le_bytes())?;
        let mut identification = [0; 4];
        device.read(REGISTERS, IDENTIFICATION, &mut identification)?;
        let identification = u32::from_le_bytes(identification);
        ensure!(
            identification & 0xff == SIGNATURE,
            "{} identifies itself as {identification:#x}, not as the teaching device",
            device.name()
        );
        Ok(Self(device))
    }

    /// Carries a page from the device's memory to `iova`.
    pub(super) fn write(&self, iova: u64) -> Result<()> {
        self.transfer(BUFFER, iova, START | TO_MEMORY)
    }

    /// Carries a page from `iova` to the device's memory.
    pub(super) fn read(&self, iova: u64) -> Result<()> {
        self.transfer(iova, BUFFER, START)
    }

    fn transfer(&self, from: u64, to: u64, command: u64) -> Result<()> {
        let registers = [
            (DMA_SOURCE, from),
            (DMA_DESTINATION, to),
            (DMA_COUNT, PAGE),
            (DMA_COMMAND, command),
        ];
        for (register, value) in registers {
            self.0.write(REGISTERS, register, &value.to_le_bytes())?;
        }
        let deadline = Instant::now() + LIMIT;
        while self.command()? & START != 0 {
            if Instant::now() > deadline {
                bail!("The device did not end its DMA in {} s", LIMIT.as_secs());
            }
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn command(&self) -> Result<u64> {
        let mut value = [0; 8];
        self.0.read(REGISTERS, DMA_COMMAND, &mut value)?;
        Ok(u64::from_le_bytes(value))
    }
}

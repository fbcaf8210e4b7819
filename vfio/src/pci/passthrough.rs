//! The function a guest drives, in front of the physical one.

use std::io;
use std::sync::{Arc, Mutex};

use strait_devices::dma::BusMaster;
use strait_devices::irq::{MsiRouter, SharedLine};
use strait_devices::pci::Function;
use strait_devices::pci::bar::{self, BAR_COUNT, BAR_REGISTERS_LEN, Bar, Bars, Places};
use strait_devices::pci::capability::msi::{MESSAGE_CONTROL as MSI_CONTROL, MsiShape};
use strait_devices::pci::capability::msix::MESSAGE_CONTROL as MSIX_CONTROL;
use strait_devices::pci::capability::{Msi, Msix};
use strait_devices::pci::rom_bar::{ROM_BAR_LEN, RomBar};
use strait_devices::pci::spec::{command, header};
use strait_devices::region::Region;
use strait_devices::{Effect, Place, Remap};

use super::appearance::Appearance;
use super::bars;
use super::config::Overlay;
use super::discover::ConfigRead;
use super::field::{part, part_mut, with_bytes};
use super::layout::{self, Layout};
use super::msix::MsixLayout;
use super::rom;
use super::spec::{self, capability, extended, power, vpd};
use super::wire;
use crate::hardware::{Hardware, HardwareRegion, InterruptKind};
use crate::interrupt::VectorSet;
use crate::intx::Intx;
use crate::lock::lock;
use crate::warning::FirstOnly;

/// A physical function that cannot be passed through.
#[derive(Debug, thiserror::Error)]
pub enum PassthroughError {
    /// Its configuration space cannot be read.
    #[error("cannot read the configuration space of {device}")]
    ReadConfig {
        /// Which function.
        device: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its configuration space cannot be written.
    #[error("cannot turn on memory decoding of {device}")]
    Enable {
        /// Which function.
        device: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no event for its interrupt wire.
    #[error("cannot make an event for INTx of {device}")]
    Event {
        /// Which function.
        device: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It answers nothing but ones: unplugged, powered off, or dead.
    #[error("{device} does not answer; is it powered off or dead? A cold boot of the host may revive it")]
    Dead {
        /// Which function.
        device: String,
    },
    /// It is no endpoint.
    #[error("{device} has header type {header_type}, only endpoints (type 0) can be passed through")]
    Header {
        /// Which function.
        device: String,
        /// What it says.
        header_type: u8,
    },
}

/// A physical function as the guest sees it.
///
/// The hardware decodes memory and ports and stays in D0 for as long as this lives; whether the guest can
/// reach a BAR is decided by where the BAR's region is. So a region always leaves the guest before the
/// hardware could stop to answer for it, and sizing BARs does not tear down the host's mappings.
///
/// Lock order: `state`, then the MSI-X model or the wire.
pub struct Passthrough {
    pub(super) hardware: Arc<dyn Hardware>,
    pub(super) layout: Layout,
    pub(super) intx: Option<Arc<Intx>>,
    pub(super) msix: Option<Arc<Mutex<Msix>>>,
    regions: [Option<Arc<Region>>; BAR_COUNT],
    rom: Option<Arc<Region>>,
    /// Hears of bus mastering before the hardware does.
    gate: Arc<dyn BusMaster>,
    state: Mutex<State>,
    failed: FirstOnly,
}

pub(super) struct State {
    pub(super) config: Overlay,
    pub(super) bars: Bars,
    pub(super) rom: Option<RomBar>,
    pub(super) msi: Option<Msi>,
    /// The command register of the hardware without DMA, and with the wire silent if there is one.
    idle_command: u16,
    /// What it holds now.
    hardware_command: u16,
    /// Somebody serves the wire.
    pub(super) is_heard: bool,
    /// The guest has MSI or MSI-X enabled.
    pub(super) has_messages: bool,
    /// It left the machine. A vCPU that found it before may still come with a write.
    is_gone: bool,
}

impl State {
    pub(super) fn command(&self) -> u16 {
        self.config.copy().u16(header::COMMAND)
    }

    pub(super) fn is_powered(&self, layout: &Layout) -> bool {
        layout
            .power
            .is_none_or(|at| self.config.copy().u16(at + power::CONTROL) & power::STATE == 0)
    }

    /// Nothing is decoded in the low-power states (PCI Power Management 1.2 §5.4.1).
    fn places(&self, layout: &Layout) -> (Places, Option<Place>) {
        let command = if self.is_powered(layout) {
            self.command()
        } else {
            0
        };
        let rom = self.rom.as_ref().and_then(|rom| rom.place(command));
        (self.bars.places(command), rom)
    }
}

impl Passthrough {
    /// Takes the function into use: resets it unless it is fresh, and reads what it is made of. `wires` are
    /// INTA to INTD of its slot.
    ///
    /// # Errors
    /// When the function does not answer or is no endpoint. What is wrong with parts of it is a warning, and
    /// the guest does not see the part.
    pub fn new(
        hardware: Arc<dyn Hardware>,
        router: Arc<dyn MsiRouter>,
        wires: &[Arc<SharedLine>; 4],
        appearance: Appearance,
    ) -> Result<Arc<Self>, PassthroughError> {
        Self::behind(hardware, router, wires, appearance, Arc::new(Ungated))
    }

    /// The same for a function whose DMA is mapped when it becomes bus master, and not before.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn behind(
        hardware: Arc<dyn Hardware>,
        router: Arc<dyn MsiRouter>,
        wires: &[Arc<SharedLine>; 4],
        appearance: Appearance,
        gate: Arc<dyn BusMaster>,
    ) -> Result<Arc<Self>, PassthroughError> {
        let name = hardware.name();
        if let Err(error) = hardware.prepare()
            && error.kind() != io::ErrorKind::Unsupported
        {
            log::warn!("{name}: cannot be reset, and starts in the state it was left in: {error}");
        }
        let snapshot = snapshot(&*hardware)?;
        let bars = bars::declared(&*hardware, &snapshot[..]);
        let (mut layout, walk) = layout::find(&*hardware, &snapshot);
        let msix = msix_layout(&*hardware, &snapshot, &mut layout, &bars);
        if appearance.hides_msix {
            // The model stays behind the hidden table, so that the guest cannot reach the real one.
            layout.msix = None;
        }
        let config = layout::overlay(&snapshot, &mut layout, &walk, appearance.is_multi_function);
        if !layout.is_sound {
            log::warn!("{name}: a capability list is broken; what is wrong in it is left out");
        }
        let model = msix
            .as_ref()
            .map(|msix| msix.model(&hardware, Arc::clone(&router)));
        let regions = std::array::from_fn(|index| {
            let declared = bars.declared()[index]?;
            let window = msix
                .as_ref()
                .zip(model.as_ref())
                .and_then(|(msix, model)| msix.window(index as u8, model));
            Some(bars::region(&hardware, index as u8, declared, window))
        });
        let msi = layout
            .msi
            .map(|at| msi_model(&hardware, router, snapshot.u16(at.offset + MSI_CONTROL)));
        let (rom_bar, rom) = rom::rom(&hardware, appearance.rom).unzip();
        let intx = wire::intx(&hardware, &layout, wires)?;
        let idle_command = idle_command(snapshot.u16(header::COMMAND), intx.is_some());
        write_command(&*hardware, idle_command).map_err(|source| PassthroughError::Enable {
            device: name.to_owned(),
            source,
        })?;
        let state = Mutex::new(State {
            config,
            bars,
            rom: rom_bar,
            msi,
            idle_command,
            hardware_command: idle_command,
            is_heard: false,
            has_messages: false,
            is_gone: false,
        });
        Ok(Arc::new(Self {
            hardware,
            layout,
            intx,
            msix: model,
            regions,
            rom,
            gate,
            state,
            failed: FirstOnly::default(),
        }))
    }

    /// The BARs the guest will find, for the windows of the bridge above.
    pub fn bars(&self) -> [Option<Bar>; BAR_COUNT] {
        *lock(&self.state).bars.declared()
    }

    /// Follows the guest's command and power registers with what the hardware needs of them: DMA while the
    /// guest wants it, and no signal on the wire while the guest wants none or nobody hears it.
    pub(super) fn update_command(&self, state: &mut State) {
        let (command, before) = (state.command(), state.hardware_command);
        let mut value = state.idle_command;
        if state.is_heard {
            value &= !command::INTX_DISABLE;
        }
        value |= command & command::INTX_DISABLE;
        if state.is_powered(&self.layout) {
            value |= command & command::BUS_MASTER;
        }
        let changes_to =
            |on: u16| (value ^ before) & command::BUS_MASTER != 0 && value & command::BUS_MASTER == on;
        if value == before {
            return;
        }
        if changes_to(command::BUS_MASTER) {
            self.gate.set_bus_master(true);
        }
        match write_command(&*self.hardware, value) {
            Ok(()) => state.hardware_command = value,
            Err(error) => return self.report("write the command register", &error),
        }
        if changes_to(0) {
            self.gate.set_bus_master(false);
        }
    }

    /// The registers that are more than bytes.
    fn write_special(&self, state: &mut State, register: u16, data: &[u8]) {
        if let Some((at, bytes)) = part(register, data, header::BAR0, BAR_REGISTERS_LEN) {
            state.bars.write(at, bytes);
        }
        if let Some((at, bytes)) = part(register, data, header::ROM_BAR, ROM_BAR_LEN)
            && let Some(rom) = &mut state.rom
        {
            rom.write(at, bytes);
        }
        if let Some(at) = self.layout.msi
            && let Some((at, bytes)) = part(register, data, at.offset, at.len)
            && let Some(msi) = &mut state.msi
        {
            msi.write(at, bytes);
        }
        if let Some(at) = self.layout.msix
            && let Some((at, bytes)) = part(register, data, at.offset + MSIX_CONTROL, 2)
            && let Some(msix) = &self.msix
        {
            let mut msix = lock(msix);
            let control = with_bytes(msix.control(), at, bytes);
            msix.set_control(control);
        }
        if let Some(at) = self.layout.vpd
            && let Some((0, &[low, high])) = part(register, data, at + vpd::ADDRESS, 2)
        {
            self.read_vpd(at, u16::from_le_bytes([low, high]));
        }
    }

    /// Starts a read of the device's storage; a write would outlive the guest.
    fn read_vpd(&self, at: u16, address: u16) {
        if address & vpd::WRITE != 0 {
            return;
        }
        let register = u64::from(at + vpd::ADDRESS);
        if let Err(error) = self
            .hardware
            .write(HardwareRegion::Config, register, &address.to_le_bytes())
        {
            self.report("read vital product data", &error);
        }
    }

    /// A state the function does not have is not entered.
    fn check_power(&self, state: &mut State, before: u16) {
        let Some(at) = self.layout.power else { return };
        let copy = state.config.copy();
        let (capabilities, control) = (copy.u16(at + power::CAPABILITIES), copy.u16(at + power::CONTROL));
        let exists = match control & power::STATE {
            1 => capabilities & power::D1_SUPPORT != 0,
            2 => capabilities & power::D2_SUPPORT != 0,
            _ => true,
        };
        if !exists {
            state.config.set(at + power::CONTROL, &before.to_le_bytes());
        }
    }

    /// What brings the regions from where they were to where they are.
    fn effect(&self, before: &(Places, Option<Place>), state: &State) -> Effect {
        let (from, to) = (before, state.places(&self.layout));
        let mut remaps = bar::remaps(&from.0, &to.0, &self.regions);
        if let Some(region) = self.rom.clone().filter(|_| from.1 != to.1) {
            let (from, to) = (from.1, to.1);
            remaps.push(Remap::new(region, from, to));
        }
        if remaps.is_empty() {
            Effect::None
        } else {
            Effect::Remap(remaps)
        }
    }

    pub(super) fn report(&self, what: &str, error: &io::Error) {
        if self.failed.pass() {
            log::warn!("{}: cannot {what}: {error}", self.hardware.name());
        }
    }
}

impl Function for Passthrough {
    fn name(&self) -> &str {
        self.hardware.name()
    }

    fn read_config(&self, register: u16, data: &mut [u8]) {
        let state = lock(&self.state);
        if state.is_gone {
            return data.fill(0xff);
        }
        state.config.read(&*self.hardware, register, data);
        if let Some((at, bytes)) = part_mut(register, data, header::BAR0, BAR_REGISTERS_LEN) {
            state.bars.read(at, bytes);
        }
        if let Some((at, bytes)) = part_mut(register, data, header::ROM_BAR, ROM_BAR_LEN)
            && let Some(rom) = &state.rom
        {
            rom.read(at, bytes);
        }
        if let (Some(at), Some(msi)) = (self.layout.msi, &state.msi)
            && let Some((skip, bytes)) =
                part_mut(register, data, at.offset + capability::HEADER_LEN, at.len - 2)
        {
            msi.read(skip + capability::HEADER_LEN, bytes);
        }
        if let (Some(at), Some(msix)) = (self.layout.msix, &self.msix)
            && let Some((at, bytes)) = part_mut(register, data, at.offset + MSIX_CONTROL, 2)
        {
            let control = lock(msix).control().to_le_bytes();
            bytes.copy_from_slice(&control[usize::from(at)..][..bytes.len()]);
        }
    }

    fn write_config(&self, register: u16, data: &[u8]) -> Effect {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if state.is_gone {
            return Effect::None;
        }
        let before = state.places(&self.layout);
        let power_before = self
            .layout
            .power
            .map_or(0, |at| state.config.copy().u16(at + power::CONTROL));
        state.config.write(&*self.hardware, register, data);
        self.check_power(state, power_before);
        if self.enables_messages(register, data) {
            self.stop_hearing(state);
        }
        self.write_special(state, register, data);
        if self.asks_for_reset(register, data) {
            log::info!("{}: the guest resets the function", self.name());
            self.reset_function(state);
        }
        self.update_interrupts(state);
        self.effect(&before, state)
    }

    fn reset(&self) -> Effect {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if state.is_gone {
            return Effect::None;
        }
        let before = state.places(&self.layout);
        self.reset_function(state);
        self.hardware.retire();
        self.effect(&before, state)
    }

    /// The hardware is not reset: the kernel does that when the device is closed, and one that broke may take
    /// a minute for it.
    fn unplug(&self) -> Effect {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let (places, rom_place) = state.places(&self.layout);
        state.is_gone = true;
        self.reset_registers(state);
        let bars = self.regions.iter().zip(places);
        let regions = bars.chain([(&self.rom, rom_place)]);
        Effect::Remap(
            regions
                .filter_map(|(region, place)| Some(Remap::last(region.clone()?, place)))
                .collect(),
        )
    }
}

impl Drop for Passthrough {
    /// No DMA once the guest is gone, and no signal on the wire before nobody hears it; the vectors untie
    /// themselves.
    fn drop(&mut self) {
        let state = lock(&self.state);
        if state.hardware_command != state.idle_command
            && let Err(error) = write_command(&*self.hardware, state.idle_command)
        {
            log::warn!("{}: cannot turn off DMA: {error}", self.hardware.name());
        }
    }
}

/// For functions whose memory is mapped all the time.
struct Ungated;

impl BusMaster for Ungated {
    fn set_bus_master(&self, _on: bool) {}
}

/// The configuration space, read once.
fn snapshot(hardware: &dyn Hardware) -> Result<Vec<u8>, PassthroughError> {
    let device = hardware.name().to_owned();
    let len = hardware
        .region(HardwareRegion::Config)
        .len_bytes
        .min(u64::from(extended::END));
    if len < u64::from(capability::END) {
        let source = io::Error::other(format!("the host shows only {len} bytes of it"));
        return Err(PassthroughError::ReadConfig { device, source });
    }
    let mut bytes = vec![0xff; len as usize];
    if let Err(source) = hardware.read(HardwareRegion::Config, 0, &mut bytes) {
        return Err(PassthroughError::ReadConfig { device, source });
    }
    if bytes.u16(header::VENDOR_ID) == u16::MAX {
        return Err(PassthroughError::Dead { device });
    }
    match bytes.u8(header::HEADER_TYPE) & spec::header::TYPE {
        0 => Ok(bytes),
        header_type => Err(PassthroughError::Header { device, header_type }),
    }
}

/// The MSI-X structures, if they are where the capability says; else the guest sees no MSI-X.
fn msix_layout(
    hardware: &dyn Hardware,
    snapshot: &[u8],
    layout: &mut Layout,
    bars: &Bars,
) -> Option<MsixLayout> {
    match MsixLayout::new(hardware, snapshot, layout.msix?, bars) {
        Ok(msix) => {
            layout.msix_pending = msix.pending_register();
            Some(msix)
        }
        Err(error) => {
            log::warn!("{}: {error}; the guest will not see MSI-X", hardware.name());
            layout.msix = None;
            None
        }
    }
}

fn msi_model(hardware: &Arc<dyn Hardware>, router: Arc<dyn MsiRouter>, control: u16) -> Msi {
    let available = hardware.interrupt(InterruptKind::Msi).count.max(1).ilog2() as u16;
    let shape = MsiShape::from_control(control);
    let shape = MsiShape {
        log2_vectors: shape.log2_vectors.min(available),
        ..shape
    };
    Msi::new(
        shape,
        router,
        Arc::new(VectorSet::new(Arc::clone(hardware), InterruptKind::Msi)),
    )
}

/// Decoding on, DMA off and the wire silent; how errors are reported stays as the host has it.
fn idle_command(host: u16, has_wire: bool) -> u16 {
    let silent = if has_wire { command::INTX_DISABLE } else { 0 };
    host & (command::PARITY | command::SERR) | command::IO | command::MEMORY | silent
}

fn write_command(hardware: &dyn Hardware, value: u16) -> io::Result<()> {
    hardware.write(
        HardwareRegion::Config,
        header::COMMAND.into(),
        &value.to_le_bytes(),
    )
}

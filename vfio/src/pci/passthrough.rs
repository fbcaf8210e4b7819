//! The function a guest drives, in front of the physical one.

use std::io;
use std::sync::{Arc, Mutex, Weak};

use strait_devices::dma::BusMaster;
use strait_devices::irq::{MsiRouter, SharedLine};
use strait_devices::pci::Function;
#[cfg(test)]
use strait_devices::pci::bar::Bar;
use strait_devices::pci::bar::{self, BAR_COUNT, Places};
use strait_devices::pci::spec::{command, header};
use strait_devices::region::Region;
use strait_devices::{Effect, Place, Remap, Unfinished};

use super::appearance::Appearance;
use super::area::Request;
use super::bars;
use super::configuration::{Configuration, Parts};
use super::decoder::{self, Decoder};
use super::discover::ConfigRead;
use super::header::intx_pin;
use super::rom;
use super::spec::{self, capability, extended};
use super::wire::Wire;
use crate::hardware::{Hardware, HardwareRegion};
use crate::intx::Intx;
use strait_devices::lock;
use strait_devices::warning::FirstOnly;

/// A physical function that cannot be passed through.
#[derive(Debug, thiserror::Error)]
pub enum PassthroughError {
    /// Its configuration space cannot be read.
    #[error("cannot read the configuration space of {device}")]
    ReadConfig {
        /// The function's name on the host.
        device: String,
        /// The cause, as the kernel tells it.
        #[source]
        source: io::Error,
    },
    /// Its configuration space cannot be written.
    #[error("cannot turn on memory decoding of {device}")]
    Enable {
        /// The function's name on the host.
        device: String,
        /// The cause, as the kernel tells it.
        #[source]
        source: io::Error,
    },
    /// There is no event for its interrupt wire.
    #[error("cannot make an event for INTx of {device}")]
    Event {
        /// The function's name on the host.
        device: String,
        /// The cause, as the kernel tells it.
        #[source]
        source: io::Error,
    },
    /// It answers nothing but ones: unplugged, powered off, or dead.
    #[error("{device} does not answer; is it powered off or dead? A cold boot of the host may revive it")]
    Dead {
        /// The function's name on the host.
        device: String,
    },
    /// It is no endpoint.
    #[error("{device} has header type {header_type}, only endpoints (type 0) can be passed through")]
    Header {
        /// The function's name on the host.
        device: String,
        /// The type that its header tells.
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
    intx: Option<Arc<Intx>>,
    regions: [Option<Arc<Region>>; BAR_COUNT],
    rom: Option<Arc<Region>>,
    /// Hears of bus mastering before the hardware does.
    gate: Arc<dyn BusMaster>,
    /// Itself, for who goes on with a write.
    this: Weak<Self>,
    state: Mutex<State>,
    failed: FirstOnly,
}

pub(super) struct State {
    pub(super) config: Configuration,
    /// The command register of the hardware without DMA, and with the wire silent if there is one.
    idle_command: u16,
    /// What it holds now.
    hardware_command: u16,
    /// The guest wants DMA, and not all that it may reach is mapped yet.
    is_opening: bool,
    pub(super) wire: Wire,
    /// It left the machine. A vCPU that found it before may still come with a write.
    is_gone: bool,
}

impl Passthrough {
    /// Takes the function into use: resets it unless it is fresh, and reads what it is made of. `wires` are
    /// INTA to INTD of its slot; `gate` hears when it becomes bus master.
    ///
    /// # Errors
    /// When the function does not answer or is no endpoint. What is wrong with parts of it is a warning, and
    /// the guest does not see the part.
    pub fn new(
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
        let pin = intx_pin(&*hardware, &snapshot);
        let (rom_bar, rom) = rom::rom(&hardware, appearance.rom).unzip();
        let config = Configuration::new(Parts {
            hardware: &hardware,
            router: &router,
            snapshot: &snapshot,
            bars,
            rom: rom_bar,
            intx_pin: pin,
            is_multi_function: appearance.is_multi_function,
            hides_msix: appearance.hides_msix,
        });
        let regions = std::array::from_fn(|index| {
            let declared = config.bars().declared()[index]?;
            let window = config.window(index as u8);
            Some(bars::region(&hardware, index as u8, declared, window))
        });
        let wire = Wire::new(&hardware, pin, wires).map_err(|source| PassthroughError::Event {
            device: name.to_owned(),
            source,
        })?;
        let intx = wire.intx().cloned();
        let idle_command = idle_command(snapshot.u16(header::COMMAND), intx.is_some());
        write_command(&*hardware, idle_command).map_err(|source| PassthroughError::Enable {
            device: name.to_owned(),
            source,
        })?;
        let state = Mutex::new(State {
            config,
            idle_command,
            hardware_command: idle_command,
            is_opening: false,
            wire,
            is_gone: false,
        });
        Ok(Arc::new_cyclic(|this| Self {
            hardware,
            intx,
            regions,
            rom,
            gate,
            this: this.clone(),
            state,
            failed: FirstOnly::default(),
        }))
    }

    /// The BARs the guest will find.
    #[cfg(test)]
    pub(super) fn bars(&self) -> [Option<Bar>; BAR_COUNT] {
        *lock(&self.state).config.bars().declared()
    }

    /// What it decodes, as the guest has it now.
    pub fn decoders(&self) -> Vec<Decoder> {
        let (bars, (places, rom_place)) = {
            let state = lock(&self.state);
            (*state.config.bars().declared(), state.config.places())
        };
        decoder::all(&self.regions, &bars, &places, self.rom.as_ref(), rom_place)
    }

    /// The wire, for whoever serves its signals.
    pub fn intx(&self) -> Option<&Arc<Intx>> {
        self.intx.as_ref()
    }

    /// Follows the guest's registers with the wire and the command register. A function with messages enabled
    /// does not use its wire (PCIe §7.7.1.2, §7.7.2.2), and one that decodes nothing has no driver yet that
    /// could be told anything.
    pub(super) fn update_interrupts(&self, state: &mut State) {
        let (command, has_messages) = (state.config.command(), state.config.has_messages());
        let decodes = command & (command::IO | command::MEMORY) != 0 && state.config.is_awake();
        state
            .wire
            .follow(command & command::INTX_DISABLE != 0, has_messages);
        match decodes && !has_messages {
            true => {
                state.wire.hear();
                self.update_command(state);
            }
            false => self.stop_hearing(state),
        }
    }

    /// The function is silent before nobody is there: on a line that it shares on the host, the kernel would
    /// give up the line, and with it the devices that it is shared with (`note_interrupt`,
    /// kernel/irq/spurious.c).
    pub(super) fn stop_hearing(&self, state: &mut State) {
        state.wire.silence();
        self.update_command(state);
        state.wire.leave();
    }

    /// Follows the guest's command and power registers with what the hardware needs of them: DMA while the
    /// guest wants it, and no signal on the wire while the guest wants none or nobody hears it.
    pub(super) fn update_command(&self, state: &mut State) {
        let (command, before) = (state.config.command(), state.hardware_command);
        let mut value = state.idle_command;
        if state.wire.is_heard() {
            value &= !command::INTX_DISABLE;
        }
        value |= command & command::INTX_DISABLE;
        if state.config.is_awake() {
            value |= command & command::BUS_MASTER;
        }
        let wants = value & command::BUS_MASTER != 0;
        let closes = !wants && (before & command::BUS_MASTER != 0 || state.is_opening);
        state.is_opening = wants && before & command::BUS_MASTER == 0 && !self.gate.set_bus_master(true);
        if state.is_opening {
            value &= !command::BUS_MASTER;
        }
        if value != before {
            match write_command(&*self.hardware, value) {
                Ok(()) => state.hardware_command = value,
                Err(error) => {
                    if wants && before & command::BUS_MASTER == 0 {
                        let _kept = self.gate.set_bus_master(false);
                        state.is_opening = false;
                    }
                    return self.report("write the command register", &error);
                }
            }
        }
        if closes {
            let _kept = self.gate.set_bus_master(false);
        }
    }

    /// What brings the regions from where they were to where they are.
    fn effect(&self, before: &(Places, Option<Place>), state: &State) -> Effect {
        let (from, to) = (before, state.config.places());
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

    /// The effect, with more to do for the guest's CPU while the function is not yet bus master.
    fn with_rest(&self, effect: Effect, state: &State) -> Effect {
        match (self.this.upgrade().filter(|_| state.is_opening), effect) {
            (Some(rest), Effect::Remap(remaps)) => Effect::More(remaps, rest),
            (Some(rest), _) => Effect::More(Vec::new(), rest),
            (None, effect) => effect,
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
    }

    fn write_config(&self, register: u16, data: &[u8]) -> Effect {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if state.is_gone {
            return Effect::None;
        }
        let before = state.config.places();
        state.config.write_bytes(&*self.hardware, register, data);
        if state.config.turns_messages_on(register, data) {
            self.stop_hearing(state);
        }
        if state.config.write_areas(register, data) == Request::Reset {
            log::info!("{}: the guest resets the function", self.name());
            self.reset_function(state);
        }
        self.update_interrupts(state);
        let effect = self.effect(&before, state);
        self.with_rest(effect, state)
    }

    fn reset(&self) -> Effect {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if state.is_gone {
            return Effect::None;
        }
        let before = state.config.places();
        self.reset_function(state);
        self.hardware.retire();
        self.effect(&before, state)
    }

    /// The hardware is not reset: the kernel does that when the device is closed, and one that broke may take
    /// a minute for it.
    fn unplug(&self) -> Effect {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let (places, rom_place) = state.config.places();
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

/// The function is not yet bus master.
impl Unfinished for Passthrough {
    fn go_on(&self) -> Effect {
        self.gate.wait_a_turn();
        let mut state = lock(&self.state);
        if state.is_gone {
            return Effect::None;
        }
        self.update_command(&mut state);
        self.with_rest(Effect::None, &state)
    }
}

impl Drop for Passthrough {
    /// No DMA once the guest is gone, and no signal on the wire when nobody hears it: also where the guest had
    /// messages to the end, whose going lets the function use its wire again.
    fn drop(&mut self) {
        let mut guard = lock(&self.state);
        if !guard.is_gone {
            self.reset_registers(&mut guard);
        }
    }
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

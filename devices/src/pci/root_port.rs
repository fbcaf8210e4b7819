//! A root port: the PCI-to-PCI bridge that gives each passed device a bus, and an IOMMU group, of its own.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::dma::{LiveBus, Renumbered};
use crate::irq::MsiRouter;
use crate::lock::lock;
use crate::pci::address::DevFn;
use crate::pci::capability::slot::{Power, Slot};
use crate::pci::capability::{acs, express, one_message};
use crate::pci::config_space::ConfigSpace;
use crate::pci::function::Function;
use crate::pci::image::Image;
use crate::pci::spec::{bridge, command, header, status};
use crate::region::{Effect, Remap};

/// Red Hat's id for a PCI Express root port.
const VENDOR_DEVICE: [u8; 4] = [0x36, 0x1b, 0x0c, 0x00];
/// Class 06, subclass 04: PCI-to-PCI bridge.
const CLASS: [u8; 3] = [0x00, 0x04, 0x06];
const EXPRESS_OFFSET: u16 = 0x40;
const MSI_OFFSET: u16 = 0x80;
const ACS_OFFSET: u16 = 0x100;

/// A root port with the functions of the one device behind it, which can be unplugged, and another plugged in.
///
/// The port forwards what its bus numbers say. It does not filter by its memory windows: the address space
/// answers at the BARs, as on a machine whose windows are set up right.
pub struct RootPort {
    name: String,
    number: u8,
    upstream: Upstream,
    state: Mutex<State>,
}

/// What a root port reports to.
pub struct Upstream {
    /// Holds the number of the port's secondary bus, for whoever names requests by it.
    pub bus: Arc<LiveBus>,
    /// Hears that the number changed.
    pub listener: Arc<dyn Renumbered>,
    /// Where the port's own interrupts go.
    pub router: Arc<dyn MsiRouter>,
}

impl Upstream {
    /// For a machine that names nothing by the bus number: without an IOMMU of the guest's.
    pub fn plain(router: Arc<dyn MsiRouter>) -> Self {
        Self {
            bus: Arc::default(),
            listener: Arc::new(Nobody),
            router,
        }
    }
}

struct State {
    config: ConfigSpace,
    slot: Slot,
    functions: Vec<(u8, Arc<dyn Function>)>,
    /// The host wants the device back: it is out when the guest switches the slot off.
    is_leaving: bool,
    /// The device came while the guest ran, which has not switched the slot on since.
    is_new: bool,
}

impl RootPort {
    /// Port `number` (1 to 31, also its device number on bus 0), with `functions` as the functions of
    /// device 0 behind it, or with an empty slot.
    pub fn new(number: u8, functions: Vec<(u8, Arc<dyn Function>)>, upstream: Upstream) -> Self {
        let (config, slot) = power_on(number, !functions.is_empty());
        upstream.bus.set(0);
        Self {
            name: format!("root port {number}"),
            number,
            upstream,
            state: Mutex::new(State {
                config: config.shown_by(Image::new()),
                slot,
                functions,
                is_leaving: false,
                is_new: false,
            }),
        }
    }

    /// Its number, from 1 on, which is also its device number on bus 0.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Where the port stands on bus 0.
    pub fn devfn(&self) -> DevFn {
        DevFn::new(self.number, 0)
    }

    /// The bus the guest (or the firmware) gave to the port's link; 0 before that.
    pub fn secondary_bus(&self) -> u8 {
        self.upstream.bus.get()
    }

    /// The function of device 0 on the secondary bus. A link has one device, which answers while its slot
    /// has power.
    pub fn function(&self, devfn: DevFn) -> Option<Arc<dyn Function>> {
        let wanted = (devfn.device() == 0).then(|| devfn.function())?;
        let state = self.lock();
        let mut functions = state.functions.iter();
        let (_, function) = functions.find(|(number, _)| *number == wanted)?;
        state.slot.is_on(&state.config).then(|| function.clone())
    }

    /// Puts a device into the empty slot. The guest finds it once it switches the slot's power on. False if it does not
    /// listen: then it finds the device when its driver of the slot starts.
    pub fn plug(&self, functions: Vec<(u8, Arc<dyn Function>)>) -> bool {
        let mut state = self.lock();
        state.functions = functions;
        state.is_leaving = false;
        state.is_new = true;
        self.tell(&mut state, |state| {
            state.slot.insert(&mut state.config);
            state.slot.asks_for_interrupt(&state.config)
        })
    }

    /// Whether a device is in the slot that the guest has not switched on, or has switched off: it does not use it.
    pub fn is_idle(&self) -> bool {
        let state = self.lock();
        state.slot.is_occupied(&state.config) && state.slot.is_off(&state.config)
    }

    /// The guest keeps its device, though it was asked for: switching the slot off is a reset again.
    pub fn keep(&self) {
        self.lock().is_leaving = false;
    }

    /// Asks the guest to let go of the device. False if it does not listen, or has no device. When it has
    /// let go, a write of its hands back [`Effect::Eject`].
    pub fn ask_to_unplug(&self) -> bool {
        let mut state = self.lock();
        let is_heard = self.tell(&mut state, |state| state.slot.press_button(&mut state.config));
        state.is_leaving |= is_heard;
        is_heard
    }

    /// Takes the device out, whether the guest let go of it or not; the effect takes its BARs from the map.
    pub fn unplug(&self) -> Effect {
        let functions = {
            let mut state = self.lock();
            state.is_leaving = false;
            state.is_new = false;
            if state.slot.is_occupied(&state.config) {
                self.tell(&mut state, |state| state.slot.remove(&mut state.config));
            }
            std::mem::take(&mut state.functions)
        };
        Effect::Remap(remaps(&functions, |function| function.unplug()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Changes the state, and interrupts the guest if it now asks for that and did not before (§6.7.3.4).
    fn tell<T>(&self, state: &mut State, change: impl FnOnce(&mut State) -> T) -> T {
        let before = state.slot.asks_for_interrupt(&state.config);
        let result = change(state);
        if !before
            && state.slot.asks_for_interrupt(&state.config)
            && let Some(message) = one_message::message(&state.config, MSI_OFFSET)
        {
            self.upstream.router.send(message);
        }
        result
    }

    fn write(&self, register: u16, data: &[u8]) -> Follows {
        let mut state = self.lock();
        self.tell(&mut state, |state| {
            let was_off = state.slot.is_off(&state.config);
            let was_lit = state.slot.is_lit(&state.config);
            let control = state.config.u16(bridge::BRIDGE_CONTROL);
            state.config.write(register, data);
            let is_renumbered = self.upstream.bus.set(state.config.u8(bridge::SECONDARY_BUS));
            let resets =
                state.config.u16(bridge::BRIDGE_CONTROL) & !control & bridge::SECONDARY_BUS_RESET != 0;
            // Linux forgets what it hears in the second behind switching power off, and then puts out the light
            // (`remove_board`, drivers/pci/hotplug/pciehp_ctrl.c): a device that came in that second is told again.
            if state.is_new && was_lit && !state.slot.is_lit(&state.config) {
                state.slot.insert(&mut state.config);
            }
            let power = state.slot.follow(&mut state.config, was_off);
            state.is_new &= power != Power::On;
            match power {
                Power::Off if state.is_leaving => Follows::Eject,
                Power::Off => Follows::Reset,
                Power::On | Power::Same if resets => Follows::Reset,
                Power::On | Power::Same if is_renumbered => Follows::Renumber,
                Power::On | Power::Same => Follows::Nothing,
            }
        })
    }

    /// Resets what is behind the port, with its lock dropped.
    fn reset_secondary(&self) -> Effect {
        let functions = self.lock().functions.clone();
        Effect::Remap(remaps(&functions, |function| function.reset()))
    }
}

/// What a write of the guest asks for beyond the port.
enum Follows {
    Nothing,
    /// The device is reset.
    Reset,
    /// Its bus has another number.
    Renumber,
    /// The device is out.
    Eject,
}

/// For ports whose functions nobody knows by their ids.
struct Nobody;

impl Renumbered for Nobody {
    fn renumbered(&self) -> Effect {
        Effect::None
    }
}

fn remaps(functions: &[(u8, Arc<dyn Function>)], work: impl Fn(&dyn Function) -> Effect) -> Vec<Remap> {
    let of = |(_, function): &(u8, Arc<dyn Function>)| match work(&**function) {
        Effect::Remap(remaps) => remaps,
        _ => Vec::new(),
    };
    functions.iter().flat_map(of).collect()
}

impl Function for RootPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn read_config(&self, register: u16, data: &mut [u8]) {
        self.lock().config.read(register, data);
    }

    fn write_config(&self, register: u16, data: &[u8]) -> Effect {
        match self.write(register, data) {
            Follows::Nothing => Effect::None,
            Follows::Reset => self.reset_secondary(),
            Follows::Renumber => self.upstream.listener.renumbered(),
            Follows::Eject => Effect::Eject(self.number),
        }
    }

    fn reset(&self) -> Effect {
        {
            let mut state = self.lock();
            let (config, slot) = power_on(self.number, !state.functions.is_empty());
            let image = state.config.image().cloned();
            (state.config, state.slot) = (config.shown_by(image), slot);
            (state.is_leaving, state.is_new) = (false, false);
        }
        self.upstream.bus.set(0);
        self.reset_secondary()
    }

    fn image(&self) -> Option<Arc<Image>> {
        self.lock().config.image().cloned()
    }
}

fn power_on(number: u8, is_occupied: bool) -> (ConfigSpace, Slot) {
    let mut config = ConfigSpace::new();
    config.set(header::VENDOR_ID, &VENDOR_DEVICE);
    config.set(header::CLASS_CODE, &CLASS);
    config.set(header::STATUS, &status::CAPABILITIES.to_le_bytes());
    config.set(header::HEADER_TYPE, &[1]);
    config.set(header::CAPABILITIES, &[EXPRESS_OFFSET as u8]);
    let commands = command::IO | command::MEMORY | command::BUS_MASTER | command::PARITY | command::SERR;
    config.allow_write(header::COMMAND, &(commands | command::INTX_DISABLE).to_le_bytes());
    config.allow_write(header::CACHE_LINE_SIZE, &[0xff]);
    config.allow_write(header::INTERRUPT_LINE, &[0xff]);
    config.allow_write(bridge::PRIMARY_BUS, &[0xff, 0xff, 0xff]);
    add_windows(&mut config);
    let control = 0x0003 | bridge::SECONDARY_BUS_RESET;
    config.allow_write(bridge::BRIDGE_CONTROL, &control.to_le_bytes());
    express::add_root_port(&mut config, EXPRESS_OFFSET, MSI_OFFSET as u8, number);
    let slot = Slot::add(&mut config, EXPRESS_OFFSET, number, is_occupied);
    one_message::add(&mut config, MSI_OFFSET, 0);
    acs::add(&mut config, ACS_OFFSET);
    (config, slot)
}

/// The three windows (PCIe §7.5.1.3.6 to .9): I/O of 32 bits, memory, prefetchable memory of 64 bits; all
/// closed, that is with the base above the limit.
fn add_windows(config: &mut ConfigSpace) {
    config.set(bridge::IO_BASE, &[0xf1, 0x01]);
    config.allow_write(bridge::IO_BASE, &[0xf0, 0xf0]);
    config.allow_write(bridge::IO_BASE_UPPER, &[0xff; 4]);
    config.set(bridge::MEMORY_BASE, &[0xf0, 0xff, 0x00, 0x00]);
    config.allow_write(bridge::MEMORY_BASE, &[0xf0, 0xff, 0xf0, 0xff]);
    config.set(bridge::PREFETCH_BASE, &[0xf1, 0xff, 0x01, 0x00]);
    config.allow_write(bridge::PREFETCH_BASE, &[0xf0, 0xff, 0xf0, 0xff]);
    config.allow_write(bridge::PREFETCH_BASE_UPPER, &[0xff; 8]);
}

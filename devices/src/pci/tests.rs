//! The bus as a guest finds it: a root complex with a port and a device, driven by configuration cycles.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::bar::{Bar, BarKind, Bars};
use super::config_space::ConfigSpace;
use super::ecam::Ecam;
use super::firmware::{Room, Windows, check, configure};
use super::spec::{bridge, command, header};
use super::*;
use crate::dma::{LiveBus, Renumbered};
use crate::region::{Device, Effect};
use crate::testing::FakeRouter;

/// A device with a 128 KiB BAR, a 16 KiB 64-bit prefetchable BAR, 32 ports and a 64 KiB ROM.
struct Card {
    config: Mutex<ConfigSpace>,
    bars: Mutex<Bars>,
    resets: Mutex<u32>,
}

impl Card {
    fn new() -> Arc<Self> {
        let mut config = ConfigSpace::new();
        config.set(header::VENDOR_ID, &[0x86, 0x80, 0xc9, 0x10]);
        config.allow_write(header::COMMAND, &[0x07, 0x04]);
        config.allow_write(header::ROM_BAR, &[0x01, 0x00, 0xff, 0xff]);
        let bar = |kind, len_bytes| Some(Bar { kind, len_bytes });
        let memory = BarKind::Memory32 { prefetchable: false };
        let wide = BarKind::Memory64 { prefetchable: true };
        let bars = [
            bar(memory, 0x20000),
            None,
            bar(BarKind::Io, 32),
            bar(wide, 0x4000),
            None,
            None,
        ];
        let bars = Mutex::new(Bars::new(bars).expect("sound sizes"));
        Arc::new(Self {
            config: Mutex::new(config),
            bars,
            resets: Mutex::new(0),
        })
    }
}

impl Function for Card {
    fn name(&self) -> &str {
        "card"
    }

    fn read_config(&self, register: u16, data: &mut [u8]) {
        match register.checked_sub(header::BAR0) {
            Some(offset @ 0..24) => self.bars.lock().expect("sound").read(offset, data),
            _ => self.config.lock().expect("sound").read(register, data),
        }
    }

    fn write_config(&self, register: u16, data: &[u8]) -> Effect {
        match register.checked_sub(header::BAR0) {
            Some(offset @ 0..24) => self.bars.lock().expect("sound").write(offset, data),
            _ => self.config.lock().expect("sound").write(register, data),
        }
        Effect::None
    }

    fn reset(&self) -> Effect {
        *self.resets.lock().expect("sound") += 1;
        Effect::None
    }
}

fn machine() -> (Arc<RootComplex>, Arc<Card>) {
    let (root, card, _) = machine_with_router();
    (root, card)
}

fn machine_with_router() -> (Arc<RootComplex>, Arc<Card>, Arc<FakeRouter>) {
    let (card, router) = (Card::new(), FakeRouter::new());
    let functions = vec![(0, card.clone() as Arc<dyn Function>)];
    let port = RootPort::new(1, functions, Upstream::plain(router.clone()));
    (Arc::new(RootComplex::new(vec![Arc::new(port)])), card, router)
}

fn windows() -> Windows {
    Windows {
        io: 0x1000..0x1_0000,
        memory_32: 0xc000_0000..0xe000_0000,
        memory_64: 1 << 36..1 << 37,
    }
}

fn bdf(bus: u8, device: u8) -> Bdf {
    Bdf {
        bus,
        devfn: DevFn::new(device, 0),
    }
}

/// Counts.
#[derive(Default)]
struct Listener(AtomicU32);

impl Renumbered for Listener {
    fn renumbered(&self) -> Effect {
        self.0.fetch_add(1, Ordering::Relaxed);
        Effect::None
    }
}

#[test]
fn a_port_tells_when_its_bus_gets_another_number() {
    let (listener, bus) = (Arc::<Listener>::default(), Arc::<LiveBus>::default());
    let upstream = Upstream {
        bus: bus.clone(),
        listener: listener.clone(),
        router: FakeRouter::new(),
    };
    let port = RootPort::new(1, Vec::new(), upstream);
    let told = || listener.0.load(Ordering::Relaxed);
    let _none = port.write_config(0x18, &[0, 5, 5, 0]);
    assert_eq!((bus.get(), told()), (5, 1));
    let _none = port.write_config(0x18, &[0, 5, 9, 0]);
    assert_eq!(told(), 1, "only the subordinate number changed");
    let _none = port.write_config(0x19, &[6]);
    assert_eq!((bus.get(), told()), (6, 2));
}

#[test]
fn only_what_is_there_answers() {
    let (root, _) = machine();
    assert_eq!(root.register(bdf(0, 0), 0), 0x0008_1b36);
    assert_eq!(root.register(bdf(0, 1), 0), 0x000c_1b36);
    assert_eq!(root.register(bdf(0, 2), 0), u32::MAX);
    assert_eq!(
        root.register(bdf(1, 0), 0),
        u32::MAX,
        "the port has no bus number yet"
    );
}

#[test]
fn the_bus_number_in_the_port_routes() {
    let (root, _) = machine();
    let _none = root.write_config(bdf(0, 1), bridge::SECONDARY_BUS, &[7]);
    assert_eq!(root.register(bdf(7, 0), 0), 0x10c9_8086);
    assert_eq!(root.register(bdf(7, 1), 0), u32::MAX, "a link has one device");
    let _none = root.write_config(bdf(0, 1), bridge::SECONDARY_BUS, &[8]);
    assert_eq!(root.register(bdf(7, 0), 0), u32::MAX);
}

#[test]
fn firmware_places_every_bar_in_its_window() {
    let (root, _) = machine();
    configure(&root, windows(), &|_| Room::default(), &mut |_| {}).expect("plenty of room");
    assert_eq!(root.register(bdf(1, 0), header::BAR0), 0xc000_0000);
    assert_eq!(root.register(bdf(1, 0), header::BAR0 + 8), 0x1001);
    assert_eq!(root.register(bdf(1, 0), header::BAR0 + 12), 0xc);
    assert_eq!(root.register(bdf(1, 0), header::BAR0 + 16), 0x10);
    let rom = root.register(bdf(1, 0), header::ROM_BAR);
    assert_eq!(rom, 0xc002_0000, "behind BAR 0, and not enabled");
    let port = bdf(0, 1);
    assert_eq!(root.register(port, bridge::PRIMARY_BUS), 0x0001_0100);
    assert_eq!(root.register(port, bridge::IO_BASE) & 0xffff, 0x1111);
    assert_eq!(root.register(port, bridge::MEMORY_BASE), 0xc000_c000);
    assert_eq!(root.register(port, bridge::PREFETCH_BASE), 0x0001_0001);
    assert_eq!(root.register(port, bridge::PREFETCH_BASE_UPPER), 0x10);
    assert_eq!(root.register(port, bridge::PREFETCH_BASE_UPPER + 4), 0x10);
}

#[test]
fn firmware_leaves_decoding_to_the_guest() {
    let (root, _) = machine();
    configure(&root, windows(), &|_| Room::default(), &mut |_| {}).expect("plenty of room");
    assert_eq!(
        root.register(bdf(1, 0), header::COMMAND) as u16 & command::MEMORY,
        0
    );
    assert_eq!(root.register(bdf(0, 1), header::COMMAND) as u16 & 7, 7);
}

#[test]
fn too_small_a_window_names_the_device() {
    let (root, _) = machine();
    let small = Windows {
        memory_32: 0xc000_0000..0xc001_0000,
        ..windows()
    };
    let error = configure(&root, small, &|_| Room::default(), &mut |_| {})
        .expect_err("no room")
        .to_string();
    assert!(
        error.starts_with("BAR 0 of the device behind root port 1 needs 0x20000 bytes"),
        "{error}"
    );
}

#[test]
fn an_empty_port_has_room_for_a_device_to_come() {
    let card = Card::new();
    let functions = vec![(0, card as Arc<dyn Function>)];
    let ports = [(1, functions.clone()), (2, Vec::new())].map(|(number, functions)| {
        let upstream = Upstream::plain(FakeRouter::new());
        Arc::new(RootPort::new(number, functions, upstream))
    });
    let root = RootComplex::new(ports.to_vec());
    let least = Room {
        io: 0x1000,
        memory_32: 16 << 20,
        memory_64: 1 << 30,
    };
    let wants = |port: &RootPort| match port.number() {
        1 => Room::default(),
        _ => least,
    };
    let rooms = configure(&root, windows(), &wants, &mut |_| {}).expect("plenty of room");
    assert_eq!(rooms[0].memory_32, 1 << 20);
    assert_eq!(rooms[1], least);
    assert_eq!(root.register(bdf(0, 2), bridge::MEMORY_BASE), 0xc0f0_c000);
    let small = Room {
        memory_32: 64 << 10,
        ..least
    };
    assert!(check(&functions, &ports[1], rooms[1]).is_ok());
    let refused = check(&functions, &ports[1], small).expect_err("a BAR of 128 KiB");
    assert_eq!(
        refused.to_string(),
        "BAR 0 of the device behind root port 2 needs 0x20000 bytes of memory below 4 GiB and 0x10000 are left; start \
         the guest with more room for devices to come"
    );
    let huge = |_: &RootPort| Room {
        memory_32: 1 << 30,
        ..least
    };
    let refused = configure(&root, windows(), &huge, &mut |_| {}).expect_err("two of a GiB");
    assert!(
        refused
            .to_string()
            .starts_with("a device to come behind root port 2")
    );
}

#[test]
fn a_secondary_bus_reset_resets_the_device_once() {
    let (root, card) = machine();
    let _none = root.write_config(bdf(0, 1), bridge::BRIDGE_CONTROL, &[0x40, 0]);
    let _none = root.write_config(bdf(0, 1), bridge::BRIDGE_CONTROL, &[0x40, 0]);
    let _none = root.write_config(bdf(0, 1), bridge::BRIDGE_CONTROL, &[0x00, 0]);
    assert_eq!(*card.resets.lock().expect("sound"), 1);
}

#[test]
fn acs_offers_what_makes_a_group_of_its_own() {
    let (root, _) = machine();
    assert_eq!(root.register(bdf(0, 1), 0x100), 0x0001_000d);
    assert_eq!(root.register(bdf(0, 1), 0x104) & 0x1d, 0x1d, "SV, RR, CR and UF");
}

#[test]
fn ecam_and_ports_show_the_same_registers() {
    let (root, _) = machine();
    let (ecam, cam) = (Ecam::new(root.clone()), cam::Cam::new(root));
    let mut data = [0; 4];
    ecam.read(1 << 15, &mut data);
    assert_eq!(u32::from_le_bytes(data), 0x000c_1b36);
    let _none = cam.write(0, &(1u32 << 31 | 1 << 11).to_le_bytes());
    cam.read(6, &mut data[..2]);
    assert_eq!(data[..2], [0x0c, 0x00]);
}

#[test]
fn any_shape_of_configuration_access_is_survived() {
    let (root, _) = machine();
    let (ecam, cam) = (Ecam::new(root.clone()), cam::Cam::new(root));
    for offset in (0..0x1_0010u64).step_by(3) {
        for len in 1..=8 {
            let mut data = [0; 8];
            ecam.read(offset, &mut data[..len]);
            let _any = ecam.write(offset, &data[..len]);
            cam.read(offset % 8, &mut data[..len.min(8 - (offset % 8) as usize)]);
            let _any = cam.write(offset % 8, &data[..len.min(8 - (offset % 8) as usize)]);
        }
    }
}

/// What a guest's hot-plug driver writes to listen: a message, then the enables of slot control.
fn listen(root: &RootComplex) {
    let port = bdf(0, 1);
    let _none = root.write_config(port, bridge::SECONDARY_BUS, &[7]);
    let _none = root.write_config(port, 0x84, &0xfee0_1000u32.to_le_bytes());
    let _none = root.write_config(port, 0x8c, &0x0041u16.to_le_bytes());
    let _none = root.write_config(port, 0x82, &[0x01, 0x00]);
    let _none = root.write_config(port, 0x58, &0x11e9u16.to_le_bytes());
}

#[test]
fn a_guest_that_lets_go_ejects_the_device() {
    let (root, card, router) = machine_with_router();
    listen(&root);
    assert!(root.ports()[0].ask_to_unplug());
    let sent: Vec<_> = router.sent();
    assert_eq!(
        (sent.len(), sent[0].address, sent[0].data),
        (1, 0xfee0_1000, 0x41)
    );
    assert_eq!(root.register(bdf(7, 0), 0), 0x10c9_8086, "it answers until then");
    let effect = root.write_config(bdf(0, 1), 0x58, &0x17e9u16.to_le_bytes());
    assert!(matches!(effect, Effect::Eject(1)), "{effect:?}");
    assert_eq!(root.register(bdf(7, 0), 0), u32::MAX);
    let _none = root.ports()[0].unplug();
    assert_eq!(Arc::strong_count(&card), 1, "the port kept nothing of it");
    assert!(root.ports()[0].function(DevFn::new(0, 0)).is_none());
    assert!(!root.ports()[0].ask_to_unplug());
}

#[test]
fn a_slot_the_guest_switches_off_by_itself_keeps_its_device() {
    let (root, card, _) = machine_with_router();
    listen(&root);
    let _none = root.write_config(bdf(0, 1), 0x58, &0x17e9u16.to_le_bytes());
    assert_eq!(*card.resets.lock().expect("sound"), 1);
    assert_eq!(root.register(bdf(7, 0), 0), u32::MAX);
    let _none = root.write_config(bdf(0, 1), 0x58, &0x11e9u16.to_le_bytes());
    assert_eq!(root.register(bdf(7, 0), 0), 0x10c9_8086);
}

/// Slot control of a guest that hears the button and the link, with power off and on.
const OFF: u16 = 0x17e1;
const ON: u16 = 0x11e1;

#[test]
fn a_device_comes_into_a_slot_that_the_guest_switches_on() {
    let (root, _, router) = machine_with_router();
    listen(&root);
    let port = &root.ports()[0];
    let _none = port.unplug();
    let _none = root.write_config(bdf(0, 1), 0x58, &OFF.to_le_bytes());
    let _none = root.write_config(bdf(0, 1), 0x5a, &[0x09, 0x01]);
    let sent = router.sent().len();
    let card = Card::new();
    assert!(port.plug(vec![(0, card.clone() as Arc<dyn Function>)]));
    assert_eq!(router.sent().len(), sent + 1);
    assert_eq!(root.register(bdf(7, 0), 0), u32::MAX, "it has no power");
    assert!(port.is_idle());
    let _none = root.write_config(bdf(0, 1), 0x58, &ON.to_le_bytes());
    assert_eq!(root.register(bdf(7, 0), 0), 0x10c9_8086);
    assert!(!port.is_idle());
    assert_eq!(*card.resets.lock().expect("sound"), 0, "it came fresh");
}

/// As Linux does it: power off, a second in which it forgets what it hears, the light out.
#[test]
fn a_device_that_comes_while_the_slot_goes_off_is_told_again_behind_it() {
    let (root, _, router) = machine_with_router();
    listen(&root);
    let port = &root.ports()[0];
    let control = |value: u16| root.write_config(bdf(0, 1), 0x58, &value.to_le_bytes());
    let clear = || root.write_config(bdf(0, 1), 0x5a, &[0x09, 0x01]);
    assert!(port.ask_to_unplug());
    assert!(matches!(control(OFF & !0x300 | 0x100), Effect::Eject(1)));
    let _none = port.unplug();
    let _none = port.plug(vec![(0, Card::new() as Arc<dyn Function>)]);
    let _none = clear();
    let sent = router.sent().len();
    let _none = control(OFF | 0x300);
    assert_eq!(router.sent().len(), sent + 1, "told again");
    let _none = clear();
    let _none = control(ON & !0x300 | 0x100);
    let _none = clear();
    assert_eq!(root.register(bdf(7, 0), 0), 0x10c9_8086);
    let sent = router.sent().len();
    let _none = control(OFF & !0x300 | 0x100);
    let _none = clear();
    let _none = control(OFF | 0x300);
    assert_eq!(
        router.sent().len(),
        sent + 1,
        "by the link alone: the guest wants it off"
    );
}

#[test]
fn a_guest_that_kept_its_device_may_switch_it_off_and_on() {
    let (root, card, _) = machine_with_router();
    listen(&root);
    assert!(root.ports()[0].ask_to_unplug());
    root.ports()[0].keep();
    let effect = root.write_config(bdf(0, 1), 0x58, &OFF.to_le_bytes());
    assert!(matches!(effect, Effect::Remap(_)), "{effect:?}");
    let _none = root.write_config(bdf(0, 1), 0x58, &ON.to_le_bytes());
    assert_eq!(root.register(bdf(7, 0), 0), 0x10c9_8086);
    assert_eq!(*card.resets.lock().expect("sound"), 1);
}

#[test]
fn a_device_is_pulled_from_a_guest_that_does_not_listen() {
    let (root, _, router) = machine_with_router();
    let _none = root.write_config(bdf(0, 1), bridge::SECONDARY_BUS, &[7]);
    assert!(!root.ports()[0].ask_to_unplug());
    let _none = root.ports()[0].unplug();
    assert_eq!(root.register(bdf(7, 0), 0), u32::MAX);
    assert!(router.sent().is_empty());
    assert!(matches!(root.ports()[0].reset(), Effect::Remap(remaps) if remaps.is_empty()));
    assert_eq!(
        root.register(bdf(0, 1), 0x58) >> 22 & 1,
        0,
        "the slot stays empty"
    );
}

#[test]
fn images_are_what_a_trap_would_read() {
    let (root, _) = machine();
    let trapped = |devfn| -> Vec<u8> {
        let registers = (0..4096).step_by(4);
        let bytes = registers.map(|register| root.register(Bdf { bus: 0, devfn }, register).to_le_bytes());
        bytes.flatten().collect()
    };
    let is_exact = || {
        let images = root.images();
        images.len() == 2
            && images
                .iter()
                .all(|(devfn, image)| image.bytes() == trapped(*devfn))
    };
    assert!(is_exact());
    for register in (0..4096).step_by(4) {
        let _effect = root.write_config(bdf(0, 1), register, &[0xff; 4]);
        let _effect = root.write_config(bdf(0, 0), register, &[0xff; 4]);
    }
    assert!(is_exact());
    assert!(!root.ports()[0].ask_to_unplug() && is_exact(), "it is off");
    let _effect = root.ports()[0].unplug();
    assert!(is_exact());
    let _effect = root.ports()[0].reset();
    assert!(is_exact());
    let nobody = root.images_of_nobody();
    assert!(
        nobody
            .iter()
            .all(|(devfn, image)| image.bytes() == trapped(*devfn))
    );
}

#[test]
fn every_device_of_bus_0_is_an_image_and_no_other() {
    let (root, _) = machine();
    let region = Ecam::region(root.clone(), 2, true);
    let mut offsets: Vec<u64> = region.pieces().iter().map(|piece| piece.offset).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (0..32).map(|device| device << 15).collect::<Vec<u64>>());
    assert_eq!(Ecam::region(root, 2, false).pieces().len(), 2);
}

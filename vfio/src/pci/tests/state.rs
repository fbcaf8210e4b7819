//! Bus mastering, power states and resets.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use strait_devices::Effect;
use strait_devices::dma::BusMaster;

use super::*;

#[test]
fn at_the_start_the_hardware_decodes_and_does_no_dma() {
    let hardware = Arc::new(nic().with_config(0x04, &[0x44, 0x01]));
    let _function = opened(hardware.clone()).expect("an endpoint");
    assert_eq!(hardware.take_calls(), [config_write(0x04, &[0x43, 0x01])]);
}

#[test]
fn bus_mastering_is_the_guests() {
    let guest = guest(nic());
    guest.write(0x04, &[0x06, 0x04]);
    guest.write(0x04, &[0x06, 0x00]);
    guest.write(0x04, &[0x02]);
    assert_eq!(
        guest.hardware.take_calls(),
        [
            config_write(0x04, &[0x07, 0x05]),
            config_write(0x04, &[0x07, 0x01]),
            config_write(0x04, &[0x03, 0x01])
        ]
    );
    assert_eq!(guest.u16(0x04), 0x0002);
}

/// Notes what had reached the hardware whenever the gate is told.
struct Gate {
    hardware: Arc<MockHardware>,
    told: Mutex<Vec<(bool, Vec<Call>)>>,
    /// Calls that it takes to map everything.
    parts: AtomicU32,
}

fn gated(parts: u32) -> (Arc<MockHardware>, Arc<Gate>, Arc<Passthrough>) {
    let hardware = Arc::new(nic());
    let gate = Arc::new(Gate {
        hardware: hardware.clone(),
        told: Mutex::default(),
        parts: parts.into(),
    });
    let wires = std::array::from_fn(|_| SharedLine::new(FakeLine::new()));
    let appearance = Appearance::default();
    let router = FakeRouter::new();
    let function = Passthrough::new(hardware.clone(), router, &wires, appearance, gate.clone());
    hardware.take_calls();
    (hardware, gate, function.expect("an endpoint"))
}

impl BusMaster for Gate {
    fn set_bus_master(&self, on: bool) -> bool {
        lock(&self.told).push((on, self.hardware.take_calls()));
        !on || self.parts.fetch_sub(1, Ordering::Relaxed) <= 1
    }

    fn leave(&self) {}
}

/// What untranslated DMA may reach is mapped before the write arrives that allows it.
#[test]
fn the_gate_opens_before_and_closes_behind_the_hardware() {
    let (_, gate, function) = gated(1);
    let _ = function.write_config(0x04, &[0x04]);
    let _ = function.write_config(0x04, &[0x00]);
    let on_and_off = vec![
        config_write(0x04, &[0x07, 0x01]),
        config_write(0x04, &[0x03, 0x01]),
    ];
    assert_eq!(*lock(&gate.told), [(true, vec![]), (false, on_and_off)]);
}

#[test]
fn a_gate_that_opens_slowly_holds_the_hardware_back_and_not_the_guests_cpu() {
    let (hardware, gate, function) = gated(3);
    let Effect::More(_, rest) = function.write_config(0x04, &[0x04]) else {
        panic!("there is more to map");
    };
    assert!(matches!(rest.go_on(), Effect::More(..)));
    assert_eq!(hardware.take_calls(), []);
    assert!(matches!(rest.go_on(), Effect::None));
    assert_eq!(hardware.take_calls(), [config_write(0x04, &[0x07, 0x01])]);
    assert_eq!(lock(&gate.told).len(), 3);
}

#[test]
fn a_gate_that_opens_closes_when_the_guest_changes_its_mind() {
    let (_, gate, function) = gated(3);
    let _more = function.write_config(0x04, &[0x04]);
    let _none = function.write_config(0x04, &[0x00]);
    assert!(lock(&gate.told).last().is_some_and(|(on, _)| !on));
}

#[test]
fn no_dma_goes_on_after_the_function_is_dropped() {
    let Guest {
        hardware, function, ..
    } = guest(nic());
    let _ = function.write_config(0x04, &[0x04]);
    hardware.take_calls();
    drop(function);
    assert_eq!(hardware.take_calls(), [config_write(0x04, &[0x03, 0x01])]);
}

#[test]
fn a_function_level_reset_takes_the_bars_away_first() {
    let guest = guest(nic());
    guest.enable();
    guest.write(0x04, &[0x06]);
    guest.write(MSIX + 2, &[0x00, 0x80]);
    guest.hardware.take_calls();
    let gone = guest.write(EXPRESS + 8, &[0x10, 0xa8]);
    assert_eq!(
        gone.iter().map(|remap| remap.to).collect::<Vec<_>>(),
        [None, None]
    );
    let calls = guest.hardware.take_calls();
    assert_eq!(calls.last(), Some(&Call::Reset));
    assert!(
        calls.contains(&config_write(0x04, &[0x03, 0x01])),
        "no DMA over the reset"
    );
    assert!(
        calls
            .iter()
            .all(|call| !matches!(call, Call::Write(_, 0xa8, data) if data[1] & 0x80 != 0))
    );
    assert_eq!(
        (guest.u16(0x04), guest.u32(0x10), guest.u16(MSIX + 2)),
        (0, 0, 0x0009)
    );
    assert_eq!(guest.u16(EXPRESS + 8) & 0x8000, 0);
    assert_eq!(guest.enable().len(), 2, "the guest's driver puts everything back");
}

#[test]
fn a_function_that_cannot_reset_itself_is_not_reset_by_the_guest() {
    let guest = guest(nic().with_config(EXPRESS + 4, &[0; 4]));
    guest.write(EXPRESS + 8, &[0x00, 0x80]);
    assert!(!guest.hardware.take_calls().contains(&Call::Reset));
}

#[test]
fn advanced_features_reset_too() {
    let hardware = MockHardware::new().with_capabilities(&[(0x40, 0x13, &[0x06, 0x03, 0xff, 0xff])]);
    let guest = guest(hardware);
    guest.write(0x44, &[0x01]);
    assert_eq!(guest.hardware.take_calls(), [Call::Reset]);
    assert_eq!(guest.u16(0x44), 0);
}

#[test]
fn low_power_takes_bars_and_dma_away_and_never_reaches_the_hardware() {
    let guest = guest(nic());
    guest.enable();
    guest.write(0x04, &[0x06]);
    guest.hardware.take_calls();
    let gone = guest.write(POWER + 4, &[0x03, 0x00]);
    assert_eq!(gone.len(), 2);
    assert_eq!(guest.hardware.take_calls(), [config_write(0x04, &[0x03, 0x01])]);
    let back = guest.write(POWER + 4, &[0x00, 0x00]);
    assert_eq!(back[0].to, memory(0xfe00_0000));
    assert_eq!(guest.hardware.take_calls(), [config_write(0x04, &[0x07, 0x01])]);
    assert_eq!(guest.u16(POWER + 4), 0x0008, "nothing was lost on the way");
}

#[test]
fn a_power_state_that_does_not_exist_is_not_entered() {
    let guest = guest(nic());
    guest.write(POWER + 4, &[0x02]);
    assert_eq!(guest.u16(POWER + 4), 0x0008);
    assert_eq!(guest.u16(POWER + 2) & 0xf800, 0, "no wake-up events");
}

#[test]
fn a_host_reset_undoes_all_the_guest_set() {
    let guest = guest(nic());
    guest.enable();
    guest.write(MSI + 2, &[0x01]);
    guest.write(0x3c, &[0x0b]);
    guest.hardware.take_calls();
    let gone = remaps(guest.function.reset());
    assert_eq!(gone.len(), 2);
    assert_eq!(
        guest.hardware.take_calls(),
        [Call::DisableInterrupts(InterruptKind::Msi), Call::Reset]
    );
    assert_eq!(
        (
            guest.u16(0x04),
            guest.u32(0x10),
            guest.u8(0x3c),
            guest.u16(MSI + 2)
        ),
        (0, 0, 0, 0x0180)
    );
}

#[test]
fn a_second_function_on_the_same_hardware_works_like_the_first() {
    let first = guest(nic());
    first.enable();
    let _ = first.function.reset();
    let again = opened(first.hardware.clone()).expect("still an endpoint");
    let second = Guest {
        hardware: first.hardware.clone(),
        function: again,
        ..first
    };
    assert_eq!(second.enable().len(), 2);
}

#[test]
fn a_function_without_a_reset_starts_all_the_same() {
    let guest = guest(MockHardware {
        is_resettable: false,
        ..nic()
    });
    let _ = guest.function.reset();
    assert_eq!(guest.enable().len(), 2);
}

#[test]
fn unplugging_takes_everything_away_and_resets_nothing() {
    let guest = guest(nic());
    guest.enable();
    guest.write(0x04, &[0x06]);
    guest.write(MSI + 2, &[0x01]);
    guest.hardware.take_calls();
    let gone = remaps(guest.function.unplug());
    assert_eq!(
        gone.iter().map(|remap| remap.to).collect::<Vec<_>>(),
        [None; 3],
        "all regions, also the ports that nothing decodes"
    );
    let calls = guest.hardware.take_calls();
    assert!(
        calls.contains(&Call::DisableInterrupts(InterruptKind::Msi)),
        "{calls:?}"
    );
    assert!(
        calls.contains(&config_write(0x04, &[0x03, 0x01])),
        "no DMA: {calls:?}"
    );
    assert!(!calls.contains(&Call::Reset), "{calls:?}");
}

#[test]
fn the_gate_closes_again_where_the_hardware_does_not_follow() {
    let (hardware, gate, function) = gated(1);
    hardware.kill();
    let effect = function.write_config(0x04, &[0x04]);
    assert!(matches!(effect, Effect::None), "there is nothing to go on with");
    let told: Vec<_> = lock(&gate.told).iter().map(|(on, _)| *on).collect();
    assert_eq!(told, [true, false]);
}

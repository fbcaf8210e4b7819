//! The wire, and the way from it to messages and back.

use super::*;

const INTX: InterruptKind = InterruptKind::Intx;

/// The wire is taken away, silenced first.
const OFF: [Call; 2] = [Call::MaskIntx, Call::DisableInterrupts(INTX)];

fn wired() -> MockHardware {
    nic().with_interrupts(INTX, 1, false)
}

/// The wire is tied to an event, whichever.
fn is_intx_on(call: &Call) -> bool {
    matches!(call, Call::SetInterrupts(INTX, 0, events) if matches!(events[..], [Some(_)]))
}

#[test]
fn the_pin_is_the_hardwares_and_leads_to_its_wire() {
    let guest = guest(wired().with_config(0x3d, &[0x03]));
    assert_eq!(guest.u8(0x3d), 3);
    guest.enable();
    let intx = guest.function.intx().expect("INTC");
    assert!(guest.wires.iter().all(|wire| !wire.is_high()));
    intx.raise();
    assert!(guest.wires[2].is_high());
}

#[test]
fn a_pin_that_does_not_exist_is_none() {
    let guest = guest(wired().with_config(0x3d, &[0x05]));
    assert_eq!(guest.u8(0x3d), 0);
    assert!(guest.function.intx().is_none());
}

#[test]
fn the_wire_is_on_while_the_function_decodes_anything() {
    let guest = guest(wired());
    guest.enable();
    let calls = guest.hardware.take_calls();
    assert!(matches!(&calls[..], [on] if is_intx_on(on)), "{calls:?}");
    guest.write(0x04, &[0]);
    assert_eq!(guest.hardware.take_calls(), OFF);
}

#[test]
fn the_interrupt_disable_bit_lowers_the_line_and_costs_no_call() {
    let guest = guest(wired());
    guest.enable();
    guest.hardware.take_calls();
    guest.function.intx().expect("INTA").raise();
    guest.write(0x04, &[0x02, 0x04]);
    assert!(!guest.wires[0].is_high());
    assert!(guest.hardware.take_calls().is_empty());
    guest.write(0x04, &[0x02, 0x00]);
    assert_eq!(guest.hardware.take_calls(), [Call::UnmaskIntx]);
}

#[test]
fn messages_replace_the_wire_and_give_it_back() {
    for (control, on, off, kind) in [
        (MSIX + 2, [0x00, 0x80], [0x00, 0x00], InterruptKind::Msix),
        (MSI + 2, [0x01, 0x00], [0x00, 0x00], InterruptKind::Msi),
    ] {
        let guest = guest(wired());
        let regions = guest.enable();
        guest.hardware.take_calls();
        guest.write(control, &on);
        let _ = regions[1].region.device().write(12, &[0; 4]);
        let calls = guest.hardware.take_calls();
        assert_eq!(calls[..2], OFF);
        assert!(
            matches!(&calls[2], Call::SetInterrupts(now, ..) if *now == kind),
            "{calls:?}"
        );
        guest.write(control, &off);
        let calls = guest.hardware.take_calls();
        assert_eq!(calls[0], Call::DisableInterrupts(kind));
        assert!(matches!(&calls[1..], [on] if is_intx_on(on)), "{calls:?}");
    }
}

#[test]
fn a_function_that_decodes_nothing_is_silent_when_its_messages_go() {
    let guest = guest(wired());
    guest.enable();
    guest.write(MSI + 2, &[0x01, 0x00]);
    guest.write(0x04, &[0]);
    guest.hardware.take_calls();
    guest.write(MSI + 2, &[0x00, 0x00]);
    let calls = guest.hardware.take_calls();
    let (on, off) = (&calls[calls.len() - 3], &calls[calls.len() - 2..]);
    assert!(is_intx_on(on), "{calls:?}");
    assert_eq!(off, OFF);
    guest.write(0x04, &[0]);
    assert!(guest.hardware.take_calls().is_empty(), "once is enough");
}

#[test]
fn a_reset_takes_the_wire_away() {
    let guest = guest(wired());
    guest.enable();
    guest.function.intx().expect("INTA").raise();
    guest.hardware.take_calls();
    let _ = guest.function.reset();
    assert_eq!(
        guest.hardware.take_calls(),
        [OFF[0].clone(), OFF[1].clone(), Call::Reset]
    );
    assert!(!guest.wires[0].is_high());
}

#[test]
fn the_wire_is_off_in_low_power() {
    let guest = guest(wired());
    guest.enable();
    guest.hardware.take_calls();
    guest.write(POWER + 4, &[0x03, 0x00]);
    assert_eq!(guest.hardware.take_calls(), OFF);
}

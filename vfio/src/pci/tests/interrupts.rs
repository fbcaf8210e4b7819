//! The wire, and the way from it to messages and back.

use super::*;

const INTX: InterruptKind = InterruptKind::Intx;

/// The wire is taken away, silenced first.
fn off() -> [Call; 2] {
    [command(0x0503), Call::DisableInterrupts(INTX)]
}

/// The command register of [`nic`]: decoding and SERR on, and the wire silent (0x0400) or not.
fn command(value: u16) -> Call {
    config_write(0x04, &value.to_le_bytes())
}

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
    assert!(is_intx_on(&calls[0]), "heard before it may signal");
    assert_eq!(calls[1..], [command(0x0103)]);
    guest.write(0x04, &[0]);
    assert_eq!(guest.hardware.take_calls(), off());
}

#[test]
fn the_interrupt_disable_bit_lowers_the_line_and_reaches_the_function() {
    let guest = guest(wired());
    guest.enable();
    guest.hardware.take_calls();
    guest.function.intx().expect("INTA").raise();
    guest.write(0x04, &[0x02, 0x04]);
    assert!(!guest.wires[0].is_high());
    assert_eq!(guest.hardware.take_calls(), [command(0x0503)]);
    guest.write(0x04, &[0x02, 0x00]);
    assert_eq!(guest.hardware.take_calls(), [command(0x0103)]);
    assert!(
        !guest.wires[0].is_high(),
        "the host signals again if the function still asks"
    );
}

#[test]
fn a_function_without_a_pin_has_the_guests_interrupt_disable_bit() {
    let guest = guest(nic().with_config(0x3d, &[0x00]));
    guest.write(0x04, &[0x06, 0x04]);
    guest.write(0x04, &[0x06, 0x00]);
    assert_eq!(guest.hardware.take_calls(), [command(0x0507), command(0x0107)]);
}

#[test]
fn messages_replace_the_wire_and_give_it_back() {
    for (control, on, none, kind) in [
        (MSIX + 2, [0x00, 0x80], [0x00, 0x00], InterruptKind::Msix),
        (MSI + 2, [0x01, 0x00], [0x00, 0x00], InterruptKind::Msi),
    ] {
        let guest = guest(wired());
        guest.enable();
        guest.hardware.take_calls();
        guest.write(control, &on);
        let calls = guest.hardware.take_calls();
        assert_eq!(calls[..2], off());
        assert!(
            matches!(&calls[2], Call::SetInterrupts(now, ..) if *now == kind),
            "{calls:?}"
        );
        guest.write(control, &none);
        let calls = guest.hardware.take_calls();
        assert_eq!(calls[0], Call::DisableInterrupts(kind));
        assert!(is_intx_on(&calls[1]), "{calls:?}");
        assert_eq!(calls[2..], [command(0x0103)]);
    }
}

/// What a driver does to MSI-X at its start: on with all masked, then one vector after the other.
#[test]
fn msix_is_on_when_the_guests_write_returns_and_costs_a_call_for_each_vector_and_two() {
    let guest = guest(wired());
    let table = guest.enable()[1].region.device().clone();
    for _load_of_the_driver in 0..2 {
        guest.hardware.take_calls();
        guest.write(MSIX + 2, &[0x00, 0xc0]);
        let calls = guest.hardware.take_calls();
        assert_eq!(calls[..2], off());
        assert_eq!(
            calls[2..],
            [Call::SetInterrupts(InterruptKind::Msix, 0, vec![None])],
            "vector 0 without an event: enabled, and nothing can arrive"
        );
        guest.write(MSIX + 2, &[0x00, 0x80]);
        for n in 0..10 {
            let _ = table.write(16 * n + 12, &[0; 4]);
        }
        let calls = guest.hardware.take_calls();
        let bound = |(n, call): (usize, &Call)| {
            matches!(call, Call::SetInterrupts(InterruptKind::Msix, start, events)
                if usize::from(*start) == n && matches!(events[..], [Some(_)]))
        };
        assert!(
            calls.len() == 10 && calls.iter().enumerate().all(bound),
            "{calls:?}"
        );
        for n in 0..10 {
            let _ = table.write(16 * n + 12, &[1, 0, 0, 0]);
        }
        guest.write(MSIX + 2, &[0x00, 0x00]);
        assert_eq!(
            guest.hardware.take_calls()[0],
            Call::DisableInterrupts(InterruptKind::Msix)
        );
    }
}

#[test]
fn where_vectors_cannot_be_added_the_table_is_set_up_once_when_msix_is_enabled() {
    let guest = guest(wired().with_interrupts(InterruptKind::Msix, 10, false));
    let table = guest.enable()[1].region.device().clone();
    guest.hardware.take_calls();
    guest.write(MSIX + 2, &[0x00, 0xc0]);
    let calls = guest.hardware.take_calls();
    assert_eq!(
        calls[2..],
        [Call::SetInterrupts(InterruptKind::Msix, 0, vec![None; 10])]
    );
    guest.write(MSIX + 2, &[0x00, 0x80]);
    let _ = table.write(16 * 7 + 12, &[0; 4]);
    let calls = guest.hardware.take_calls();
    assert!(
        matches!(&calls[..], [Call::SetInterrupts(InterruptKind::Msix, 7, events)] if matches!(events[..], [Some(_)])),
        "{calls:?}"
    );
}

#[test]
fn msi_with_its_only_vector_masked_is_on_when_the_guests_write_returns() {
    let guest = guest(wired());
    guest.enable();
    guest.write(MSI + 0x10, &[0x01]);
    guest.hardware.take_calls();
    guest.write(MSI + 2, &[0x01, 0x00]);
    let calls = guest.hardware.take_calls();
    assert_eq!(calls[..2], off());
    assert_eq!(
        calls[2..],
        [Call::SetInterrupts(InterruptKind::Msi, 0, vec![None])]
    );
    guest.write(MSI + 2, &[0x00, 0x00]);
    assert_eq!(
        guest.hardware.take_calls()[0],
        Call::DisableInterrupts(InterruptKind::Msi)
    );
}

#[test]
fn a_reset_takes_masked_messages_back() {
    let guest = guest(nic());
    guest.write(MSIX + 2, &[0x00, 0xc0]);
    guest.hardware.take_calls();
    let _ = guest.function.reset();
    let calls = guest.hardware.take_calls();
    assert_eq!(calls[0], Call::DisableInterrupts(InterruptKind::Msix));
    assert_eq!(calls.last(), Some(&Call::Reset));
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
    let (on, disabled) = (&calls[calls.len() - 2], &calls[calls.len() - 1]);
    assert!(is_intx_on(on), "{calls:?}");
    assert_eq!(*disabled, Call::DisableInterrupts(INTX));
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
    let [silent, disabled] = off();
    assert_eq!(guest.hardware.take_calls(), [silent, disabled, Call::Reset]);
    assert!(!guest.wires[0].is_high());
}

#[test]
fn the_wire_is_off_in_low_power() {
    let guest = guest(wired());
    guest.enable();
    guest.hardware.take_calls();
    guest.write(POWER + 4, &[0x03, 0x00]);
    assert_eq!(guest.hardware.take_calls(), off());
}

#[test]
fn a_guest_that_ends_with_messages_on_leaves_a_silent_wire() {
    let guest = guest(wired());
    guest.enable();
    guest.write(MSIX + 2, &[0x00, 0x80]);
    guest.hardware.take_calls();
    let Guest {
        hardware, function, ..
    } = guest;
    drop(function);
    let calls = hardware.take_calls();
    assert_eq!(calls[0], Call::DisableInterrupts(InterruptKind::Msix));
    assert!(is_intx_on(&calls[1]), "{calls:?}");
    assert_eq!(calls[2..], [Call::DisableInterrupts(INTX)]);
}

#[test]
fn a_wire_that_the_host_refuses_stays_silent() {
    let guest = guest(wired().with_broken(crate::mock::Operation::SetInterrupts));
    guest.enable();
    assert!(guest.hardware.take_calls().is_empty(), "0x0503 is what it had");
}

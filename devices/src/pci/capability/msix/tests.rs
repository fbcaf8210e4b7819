use proptest::prelude::*;

use super::*;
use crate::testing::{Binding, FakeBinder, FakeRouter};

struct Fixture {
    msix: Msix,
    router: Arc<FakeRouter>,
    binder: Arc<FakeBinder>,
}

fn fixture(count: u16) -> Fixture {
    let (router, binder) = (FakeRouter::new(), FakeBinder::new());
    let msix = Msix::new(count, router.clone(), binder.clone()).expect("a legal count");
    Fixture { msix, router, binder }
}

fn message(data: u32) -> MsiMessage {
    MsiMessage {
        address: 0xfee0_1000,
        data,
    }
}

/// Fills an entry in the order Linux does, and leaves it masked or not.
fn program(msix: &mut Msix, n: u64, data: u32, mask: u32) {
    msix.write_table(16 * n, &0xfee0_1000u32.to_le_bytes());
    msix.write_table(16 * n + 4, &[0; 4]);
    msix.write_table(16 * n + 8, &data.to_le_bytes());
    msix.write_table(16 * n + 12, &mask.to_le_bytes());
}

fn bind(span: u16, vectors: &[u16]) -> Binding {
    Binding::Bind {
        span,
        vectors: vectors.to_vec(),
    }
}

fn read_u32(msix: &Msix, offset: u64) -> u32 {
    let mut data = [0; 4];
    msix.read_table(offset, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn counts_are_1_to_2048() {
    let new = |count| Msix::new(count, FakeRouter::new(), FakeBinder::new()).map(|msix| msix.control());
    assert_eq!(new(0), Err(VectorCountError(0)));
    assert_eq!(new(2049), Err(VectorCountError(2049)));
    assert_eq!(new(1), Ok(0));
    assert_eq!(new(2048), Ok(2047));
}

#[test]
fn vectors_begin_masked_and_control_bits_read_back() {
    let Fixture { mut msix, .. } = fixture(3);
    assert_eq!(read_u32(&msix, 12), 1);
    msix.set_control(0xffff);
    assert_eq!(msix.control(), 0xc002);
}

#[test]
fn what_linux_does_at_start_binds_each_vector_as_it_is_unmasked() {
    let Fixture {
        mut msix,
        router,
        binder,
    } = fixture(10);
    msix.set_control(ENABLE | FUNCTION_MASK);
    (0..10).for_each(|n| program(&mut msix, n, 0, 1));
    msix.set_control(ENABLE);
    assert!(router.routes().is_empty());
    assert_eq!(
        binder.calls(),
        [bind(10, &[])],
        "the function knows at once, and once"
    );
    program(&mut msix, 0, 0x41, 0);
    program(&mut msix, 3, 0x42, 0);
    assert_eq!(binder.calls()[1..], [bind(10, &[0]), bind(10, &[3])]);
    let settings: Vec<_> = router.routes().iter().map(|route| route.settings()).collect();
    assert_eq!(settings, [vec![Some(message(0x41))], vec![Some(message(0x42))]]);
}

#[test]
fn a_programmed_table_is_one_change_and_one_binding() {
    let Fixture {
        mut msix,
        router,
        binder,
    } = fixture(64);
    (0..64).for_each(|n| program(&mut msix, n, 0x40 + n as u32, 0));
    msix.set_control(ENABLE);
    let all: Vec<u16> = (0..64).collect();
    assert_eq!(binder.calls(), [bind(64, &all)]);
    assert_eq!(router.changes(), 1);
    msix.set_control(ENABLE | FUNCTION_MASK);
    msix.set_control(ENABLE);
    assert_eq!((binder.calls().len(), router.changes()), (1, 3));
}

#[test]
fn masking_keeps_route_and_binding() {
    let Fixture {
        mut msix,
        router,
        binder,
    } = fixture(2);
    msix.set_control(ENABLE);
    program(&mut msix, 1, 0x41, 0);
    msix.write_table(28, &1u32.to_le_bytes());
    msix.write_table(28, &0u32.to_le_bytes());
    assert_eq!(binder.calls(), [bind(2, &[]), bind(2, &[1])]);
    assert_eq!(router.routes().len(), 1);
    assert_eq!(
        router.routes()[0].settings(),
        [Some(message(0x41)), None, Some(message(0x41))]
    );
}

#[test]
fn a_message_changed_while_masked_is_set_once_and_whole() {
    let Fixture { mut msix, router, .. } = fixture(1);
    msix.set_control(ENABLE);
    program(&mut msix, 0, 0x41, 0);
    msix.write_table(12, &1u32.to_le_bytes());
    msix.write_table(0, &0xfee0_3000u32.to_le_bytes());
    msix.write_table(8, &0x55u32.to_le_bytes());
    msix.write_table(12, &0u32.to_le_bytes());
    let moved = MsiMessage {
        address: 0xfee0_3000,
        data: 0x55,
    };
    assert_eq!(
        router.routes()[0].settings(),
        [Some(message(0x41)), None, Some(moved)]
    );
}

#[test]
fn a_quadword_write_is_one_change() {
    let Fixture { mut msix, router, .. } = fixture(1);
    msix.set_control(ENABLE);
    program(&mut msix, 0, 0x41, 0);
    msix.write_table(0, &0x1_fee0_2000u64.to_le_bytes());
    let settings = router.routes()[0].settings();
    assert_eq!(
        settings[1..],
        [Some(MsiMessage {
            address: 0x1_fee0_2000,
            data: 0x41
        })]
    );
}

#[test]
fn the_function_mask_silences_all_and_costs_the_hardware_nothing() {
    let Fixture {
        mut msix,
        router,
        binder,
    } = fixture(2);
    msix.set_control(ENABLE | FUNCTION_MASK);
    program(&mut msix, 0, 0x41, 0);
    program(&mut msix, 1, 0x42, 0);
    msix.set_control(ENABLE);
    msix.set_control(ENABLE | FUNCTION_MASK);
    msix.set_control(ENABLE);
    assert_eq!(
        binder.calls(),
        [bind(2, &[]), bind(2, &[0, 1])],
        "both in one call"
    );
    assert_eq!(
        router.routes()[1].settings(),
        [Some(message(0x42)), None, Some(message(0x42))]
    );
}

#[test]
fn disabling_gives_routes_and_vectors_back() {
    let Fixture {
        mut msix,
        router,
        binder,
    } = fixture(2);
    msix.set_control(ENABLE);
    program(&mut msix, 0, 0x41, 0);
    msix.set_control(0);
    assert_eq!(binder.calls(), [bind(2, &[]), bind(2, &[0]), Binding::Release]);
    assert_eq!(
        Arc::strong_count(&router.routes()[0]),
        2,
        "the fake's own and this one"
    );
    msix.set_control(ENABLE);
    assert_eq!(router.routes().len(), 2, "the entry is still unmasked");
}

#[test]
fn reset_masks_the_table() {
    let Fixture { mut msix, binder, .. } = fixture(2);
    msix.set_control(ENABLE);
    program(&mut msix, 1, 0x41, 0);
    msix.reset();
    assert_eq!(
        (msix.control(), read_u32(&msix, 16), read_u32(&msix, 28)),
        (1, 0, 1)
    );
    assert_eq!(binder.calls().last(), Some(&Binding::Release));
}

#[test]
fn a_vector_that_could_not_be_bound_is_tried_again_when_unmasked_again() {
    let Fixture { mut msix, binder, .. } = fixture(1);
    binder.set_broken(true);
    msix.set_control(ENABLE);
    program(&mut msix, 0, 0x41, 0);
    binder.set_broken(false);
    msix.write_table(12, &1u32.to_le_bytes());
    msix.write_table(12, &0u32.to_le_bytes());
    assert_eq!(binder.calls(), [bind(1, &[0])]);
}

#[test]
fn a_router_without_routes_leaves_the_vector_silent() {
    let Fixture {
        mut msix,
        router,
        binder,
    } = fixture(1);
    router.exhaust();
    msix.set_control(ENABLE);
    program(&mut msix, 0, 0x41, 0);
    assert_eq!(binder.calls(), [bind(1, &[])]);
}

#[test]
fn enabled_and_disabled_with_every_vector_masked_the_hardware_follows() {
    let Fixture {
        mut msix,
        router,
        binder,
    } = fixture(2);
    for _ in 0..2 {
        msix.set_control(ENABLE | FUNCTION_MASK);
        msix.set_control(FUNCTION_MASK);
    }
    msix.set_control(ENABLE);
    msix.reset();
    let twice = [bind(2, &[]), Binding::Release, bind(2, &[]), Binding::Release];
    assert_eq!(binder.calls()[..4], twice);
    assert_eq!(binder.calls()[4..], [bind(2, &[]), Binding::Release]);
    assert!(router.routes().is_empty());
}

#[test]
fn hardware_that_refuses_the_mode_is_not_asked_again_for_masked_vectors() {
    let Fixture { mut msix, binder, .. } = fixture(2);
    binder.set_broken(true);
    msix.set_control(ENABLE);
    binder.set_broken(false);
    program(&mut msix, 1, 0x41, 1);
    assert!(binder.calls().is_empty());
    program(&mut msix, 1, 0x41, 0);
    assert_eq!(binder.calls(), [bind(2, &[1])]);
}

#[test]
fn pending_bits_come_from_the_routes() {
    let Fixture { mut msix, router, .. } = fixture(70);
    msix.set_control(ENABLE);
    program(&mut msix, 65, 0x41, 0);
    msix.write_table(16 * 65 + 12, &1u32.to_le_bytes());
    router.routes()[0].set_pending(true);
    let mut data = [0; 8];
    msix.read_pending(8, &mut data);
    assert_eq!(u64::from_le_bytes(data), 1 << 1);
}

#[test]
fn other_shapes_read_ones_and_write_nothing() {
    let Fixture { mut msix, .. } = fixture(1);
    for (offset, len) in [
        (0, 1),
        (0, 2),
        (2, 4),
        (4, 8),
        (0, 3),
        (0, 16),
        (16, 4),
        (u64::MAX - 3, 4),
    ] {
        let mut data = vec![0; len];
        msix.write_table(offset, &data);
        msix.read_table(offset, &mut data);
        assert!(
            data.iter().all(|byte| *byte == 0xff),
            "{len} bytes at {offset:#x}"
        );
    }
    assert_eq!(read_u32(&msix, 12), 1);
}

#[test]
fn the_last_of_2048_vectors_works() {
    let Fixture { mut msix, binder, .. } = fixture(2048);
    msix.set_control(ENABLE);
    program(&mut msix, 2047, 0x41, 0);
    assert_eq!(binder.calls(), [bind(2048, &[]), bind(2048, &[2047])]);
}

#[derive(Clone, Debug)]
enum Op {
    Control(u16),
    Table(u64, u64),
    Wide(u64, u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        any::<u16>().prop_map(Op::Control),
        (0u64..16, any::<u64>()).prop_map(|(at, value)| Op::Table(4 * at, value & 0x3)),
        (0u64..8, any::<u64>()).prop_map(|(at, value)| Op::Wide(8 * at, value & 0x1_0000_0003)),
    ]
}

proptest! {
    /// After any history the routes send exactly what the registers say.
    #[test]
    fn routes_follow_the_registers(ops in prop::collection::vec(op(), 1..60)) {
        let Fixture { mut msix, .. } = fixture(4);
        for op in ops {
            match op {
                Op::Control(control) => msix.set_control(control),
                Op::Table(at, value) => msix.write_table(at, &(value as u32).to_le_bytes()),
                Op::Wide(at, value) => msix.write_table(at, &value.to_le_bytes()),
            }
            for n in 0..4u16 {
                let registers: [u32; 4] = std::array::from_fn(|at| read_u32(&msix, 16 * u64::from(n) + 4 * at as u64));
                let sends = msix.control() & 0xc000 == 0x8000 && registers[3] & 1 == 0;
                let expected = sends.then_some(MsiMessage {
                    address: u64::from(registers[0]) | u64::from(registers[1]) << 32,
                    data: registers[2],
                });
                prop_assert_eq!(msix.vectors.message(n), expected);
            }
        }
    }
}

#[test]
fn a_vector_whose_message_is_refused_is_silent_and_tried_again_with_the_next_write() {
    let Fixture { mut msix, router, .. } = fixture(2);
    msix.set_control(ENABLE);
    program(&mut msix, 0, 0x41, 0);
    let route = router.routes()[0].clone();
    route.set_broken(true);
    program(&mut msix, 0, 0x42, 0);
    assert_eq!((route.message(), msix.vectors().message(0)), (None, None));
    route.set_broken(false);
    program(&mut msix, 0, 0x42, 0);
    assert_eq!(route.message(), Some(message(0x42)));
}

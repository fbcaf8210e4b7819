//! vCPUs that write at once, and while the function is reset or leaves.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use strait_devices::address_space::AddressSpace;
use strait_devices::pci::spec::command;
use strait_devices::pci::{Bdf, DevFn};
use strait_devices::pci::{RootComplex, RootPort, Upstream};

use super::*;

const ROUNDS: u32 = 300;
const BUS: u8 = 1;
const BAR0: u64 = 0xfe00_0000;

/// A function behind a port, and where its BARs show.
struct Machine {
    hardware: Arc<MockHardware>,
    function: Arc<Passthrough>,
    port: Arc<RootPort>,
    root: RootComplex,
    space: AddressSpace,
}

fn machine() -> Machine {
    let Guest {
        hardware,
        router,
        function,
        ..
    } = guest(nic());
    let port = Arc::new(RootPort::new(
        1,
        vec![(0, function.clone())],
        Upstream::plain(router),
    ));
    let _ = port.write_config(0x18, &[0, BUS, BUS, 0]);
    let root = RootComplex::new(vec![port.clone()]);
    let space = AddressSpace::new();
    Machine {
        hardware,
        function,
        port,
        root,
        space,
    }
}

impl Machine {
    fn write(&self, register: u16, data: &[u8]) {
        let bdf = Bdf {
            bus: BUS,
            devfn: DevFn::new(0, 0),
        };
        let _only_maps = self.space.apply(self.root.write_config(bdf, register, data));
    }

    /// What a driver does: its BARs somewhere, decoding and DMA on.
    fn drive(&self, address: u64) {
        self.write(0x04, &[0]);
        self.write(0x10, &(address as u32).to_le_bytes());
        self.write(0x04, &[0x06]);
    }

    /// The hardware of BAR 0 answers at `address`: it reads as 0x5a.
    fn answers(&self, address: u64) -> bool {
        let mut data = [0; 2];
        self.space.read(GuestAddress(address), &mut data);
        data == [0x5a; 2]
    }

    fn is_master(&self) -> bool {
        let config = lock(&self.hardware.config);
        u16::from_le_bytes([config[4], config[5]]) & command::BUS_MASTER != 0
    }
}

#[test]
fn what_left_the_machine_does_not_come_back() {
    for round in 0..ROUNDS {
        let machine = machine();
        let (ready, has_left) = (Barrier::new(3), AtomicBool::new(false));
        thread::scope(|scope| {
            for vcpu in 0..2 {
                let (machine, ready, has_left) = (&machine, &ready, &has_left);
                scope.spawn(move || {
                    ready.wait();
                    while !has_left.load(Ordering::Relaxed) {
                        machine.drive(BAR0 + vcpu * 0x10_0000);
                    }
                });
            }
            scope.spawn(|| {
                ready.wait();
                let _only_maps = machine.space.apply(machine.port.unplug());
                has_left.store(true, Ordering::Relaxed);
            });
        });
        let Machine {
            hardware,
            function,
            port,
            root,
            space,
        } = machine;
        assert!(
            !space.to_string().contains("0000:01:00.0"),
            "round {round}: {space}"
        );
        let command = lock(&hardware.config)[4];
        assert_eq!(command & 0x04, 0, "round {round}: it may do DMA");
        drop((function, port, root));
        assert_eq!(
            Arc::strong_count(&hardware),
            1,
            "round {round}: somebody has it open"
        );
        drop(space);
    }
}

#[test]
fn after_a_reset_beside_writes_the_map_is_what_the_registers_say() {
    for round in 0..10 * ROUNDS {
        let machine = machine();
        let ready = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                ready.wait();
                (0..2).for_each(|step| machine.drive(BAR0 + step * 0x10_0000));
            });
            scope.spawn(|| {
                ready.wait();
                let _only_maps = machine.space.apply(machine.function.reset());
            });
        });
        let mut config = [0; 4];
        machine.function.read_config(0x10, &mut config);
        let address = u64::from(u32::from_le_bytes(config) & !0xf);
        machine.function.read_config(0x04, &mut config[..2]);
        let decodes = config[0] & 0x02 != 0 && address != 0;
        for place in [BAR0, BAR0 + 0x10_0000] {
            let expected = decodes && place == address;
            assert_eq!(
                machine.answers(place),
                expected,
                "round {round}: {}",
                machine.space
            );
        }
        assert_eq!(machine.is_master(), config[0] & 0x04 != 0, "round {round}");
    }
}

#[test]
fn a_function_that_left_answers_with_ones_and_takes_nothing() {
    let machine = machine();
    machine.drive(BAR0);
    let _only_maps = machine.space.apply(machine.port.unplug());
    machine.hardware.take_calls();
    let late = machine.function.write_config(0x04, &[0x06]);
    assert!(matches!(late, Effect::None));
    assert!(matches!(machine.function.reset(), Effect::None));
    let mut id = [0; 4];
    machine.function.read_config(0x00, &mut id);
    assert_eq!(id, [0xff; 4]);
    assert!(machine.hardware.take_calls().is_empty());
}

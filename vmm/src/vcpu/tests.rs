//! On the real KVM, with guests of a few instructions.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, Weak};
use std::time::Duration;

use strait_devices::irq::ioapic::Ioapic;
use strait_devices::region::Region;
use strait_devices::testing::FakeRouter;
use strait_devices::{Device, Effect, GuestAddress, Place};

use super::*;
use crate::kvm::testing::{TinyMachine, entry};

/// Where the slow device is, and how long it is: two pages.
const DEVICE: GuestAddress = GuestAddress(0xd000_0000);
const DEVICE_LEN: u64 = 0x2000;
/// What every guest is reset to: `mov al, 2; out 0x10, al; hlt`.
const AFTER_RESET: u64 = 0x2000;
const SAY_2: &[u8] = &[0xb0, 0x02, 0xe6, 0x10, 0xf4];

/// A device whose reads wait until they may answer, so that a guest can be stopped meanwhile.
struct Slow {
    asked: Mutex<Sender<u64>>,
    answer: Mutex<Receiver<()>>,
    writes: Mutex<Vec<u64>>,
}

impl Device for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let asked = self.asked.lock().expect("no panic");
        asked.send(offset).expect("the test listens");
        self.answer
            .lock()
            .expect("no panic")
            .recv()
            .expect("the test answers");
        data.fill(0x5a);
    }

    fn write(&self, offset: u64, _data: &[u8]) -> Effect {
        self.writes.lock().expect("no panic").push(offset);
        Effect::None
    }
}

/// Stops the guest `code` while it waits for the device, resets it, and checks that it goes on where the
/// reset put it. Gives back the offsets that were read and written.
fn reset_in_the_middle_of(code: &[u8]) -> Option<(Vec<u64>, Vec<u64>)> {
    let machine = TinyMachine::new()?;
    let (asked, questions) = channel();
    let (answers, answer) = channel();
    let device = Arc::new(Slow {
        asked: Mutex::new(asked),
        answer: Mutex::new(answer),
        writes: Mutex::default(),
    });
    let region = Region::trapped(device.clone(), DEVICE_LEN);
    machine
        .space
        .add(Place::Memory(DEVICE), region)
        .expect("a free place");
    machine.load(0x1000, code);
    machine.load(AFTER_RESET, SAY_2);
    install_kick().expect("a handler");

    let mut vcpu = machine.vcpu;
    vcpu.reset(&entry(0x1000)).expect("a first state");
    let thread = VcpuThread::start(vcpu, surroundings(machine.space.clone())).expect("a thread");
    let mut read = vec![questions.recv().expect("a read")];
    thread.ask_to_stop(false);
    answers.send(()).expect("it waits");
    let mut vcpu = thread.join().expect("no panic");
    read.extend(questions.try_iter());
    vcpu.reset(&entry(AFTER_RESET)).expect("a state that KVM takes");
    match vcpu.run(&mut |_, _| {}) {
        Exit::PortWrite { port: 0x10, data, .. } => assert_eq!(data, [2], "it went on elsewhere"),
        other => panic!("{other:?}"),
    }
    let written = device.writes.lock().expect("no panic").clone();
    Some((read, written))
}

fn surroundings(space: Arc<AddressSpace>) -> Surroundings {
    Surroundings {
        space,
        ioapic: Ioapic::new(Arc::new(FakeRouter::default())),
        events: Arc::new(Events::new().expect("an eventfd")),
    }
}

/// `mov al, 1; out 0x10, al; hlt`: what stands behind the interrupted instruction.
const SAY_1: &[u8] = &[0xb0, 0x01, 0xe6, 0x10, 0xf4];

#[test]
fn a_read_that_a_reset_interrupts_is_not_finished_after_it() {
    let read = [0xa1, 0x00, 0x00, 0x00, 0xd0]; // mov eax, [0xd0000000]
    if let Some((read, written)) = reset_in_the_middle_of(&[&read, SAY_1].concat()) {
        assert_eq!((read, written), (vec![0], vec![]));
    }
}

#[test]
fn the_rest_of_an_interrupted_instruction_reaches_no_device() {
    let two_pages = [0xa1, 0xfe, 0x0f, 0x00, 0xd0]; // mov eax, [0xd0000ffe]
    if let Some((read, written)) = reset_in_the_middle_of(&[&two_pages, SAY_1].concat()) {
        assert_eq!((read, written), (vec![0xffe], vec![]));
    }
    let copy = [
        0xbe, 0x00, 0x00, 0x00, 0xd0, // mov esi, 0xd0000000
        0xbf, 0x00, 0x10, 0x00, 0xd0, // mov edi, 0xd0001000
        0xa5, // movsd
    ];
    if let Some((read, written)) = reset_in_the_middle_of(&[&copy, SAY_1].concat()) {
        assert_eq!((read, written), (vec![0], vec![]));
    }
}

#[test]
fn one_signal_is_enough_to_stop_a_vcpu() {
    let Some(machine) = TinyMachine::new() else { return };
    machine.load(0x1000, &[0xeb, 0xfe]); // here: jmp here
    install_kick().expect("a handler");
    let mut vcpu = machine.vcpu;
    for _ in 0..500 {
        vcpu.reset(&entry(0x1000)).expect("a state that KVM takes");
        let thread = VcpuThread::start(vcpu, surroundings(machine.space.clone())).expect("a thread");
        thread.ask_to_stop(false);
        vcpu = thread.join().expect("no panic");
    }
}

/// A device whose writes ask for work that is not done before it may be.
#[derive(Default)]
struct Endless {
    may_end: AtomicBool,
    this: Weak<Self>,
}

impl Device for Endless {
    fn name(&self) -> &str {
        "endless"
    }

    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, _offset: u64, _data: &[u8]) -> Effect {
        self.go_on()
    }
}

impl Unfinished for Endless {
    fn go_on(&self) -> Effect {
        match (self.may_end.load(Ordering::Relaxed), self.this.upgrade()) {
            (false, Some(this)) => Effect::More(Vec::new(), this),
            _ => Effect::None,
        }
    }
}

#[test]
fn work_that_a_hold_interrupts_is_gone_on_with_before_the_next_instruction() {
    let Some(machine) = TinyMachine::new() else { return };
    let device = Arc::new_cyclic(|this| Endless {
        this: this.clone(),
        ..Endless::default()
    });
    let (asked, questions) = channel();
    let (answers, answer) = channel();
    answers.send(()).expect("it listens");
    let slow = Arc::new(Slow {
        asked: Mutex::new(asked),
        answer: Mutex::new(answer),
        writes: Mutex::default(),
    });
    let space = machine.space.clone();
    let endless = Region::trapped(device.clone(), DEVICE_LEN);
    space.add(Place::Memory(DEVICE), endless).expect("a free place");
    let slow = Region::trapped(slow, DEVICE_LEN);
    let behind = GuestAddress(DEVICE.0 + DEVICE_LEN);
    space.add(Place::Memory(behind), slow).expect("a free place");
    let code = [
        0xa3, 0x00, 0x00, 0x00, 0xd0, // mov [0xd0000000], eax
        0xa1, 0x00, 0x20, 0x00, 0xd0, // mov eax, [0xd0002000]
        0xf4, // hlt
    ];
    machine.load(0x1000, &code);
    install_kick().expect("a handler");
    let mut vcpu = machine.vcpu;
    vcpu.reset(&entry(0x1000)).expect("a first state");
    let start = |vcpu| VcpuThread::start(vcpu, surroundings(space.clone())).expect("a thread");
    for _ in 0..2 {
        let thread = start(vcpu);
        thread::sleep(Duration::from_millis(20));
        thread.ask_to_stop(true);
        vcpu = thread.join().expect("it does not wait for the end of the work");
        assert!(questions.try_recv().is_err(), "the next instruction");
    }
    let thread = start(vcpu);
    device.may_end.store(true, Ordering::Relaxed);
    assert_eq!(questions.recv(), Ok(0), "the next instruction");
    thread.ask_to_stop(false);
    thread.join().expect("no panic");
}

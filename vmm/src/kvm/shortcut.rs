//! Fewer exits: writes that the kernel notes down instead of leaving the guest.
//!
//! An index register only says what the next access to its data register means. KVM can keep such writes in
//! a ring (coalesced MMIO, virt/kvm/coalesced_mmio.c) and hand them over with the next exit, which halves
//! the exits of PCI configuration, the I/O APIC and the clock.

use kvm_ioctls::IoEventAddress;
use strait_devices::Place;

use super::vm::{Vm, VmError, failed};
use crate::layout;

/// Ports end here; nothing in memory below is ever noted.
const PORTS_END: u64 = 1 << 16;

/// Where nobody answers and Linux writes many times all the same: it looks for super I/O chips there
/// (drivers/tty/serial/8250/8250_fintek.c).
const NOBODY: [u16; 2] = [0x2e, 0x4e];

/// How often the place of PCI's index register is registered again with no length: more often than there are
/// zones at lower ports, which are the clock's and [`NOBODY`]'s.
const SIGNPOSTS: usize = NOBODY.len() + 2;

impl Vm {
    /// Notes down writes to index registers, and to nobody; they arrive with the next exit. The reset register lies
    /// within PCI's index register, as its second byte, and must act at once.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn note_index_writes(&self) -> Result<(), VmError> {
        for port in NOBODY {
            self.note_writes(Place::Port(port), 1)?;
        }
        self.note_writes(Place::Port(layout::RTC), 1)?;
        self.note_writes(Place::Memory(layout::IOAPIC.start), 4)?;
        self.note_writes(Place::Port(layout::PCI_CONFIG), 4)?;
        self.lead_past(layout::PCI_CONFIG)
    }

    /// Keeps the zone at `port` to accesses that start there; those that start at its later bytes exit.
    ///
    /// A zone takes every access that lies within it, so that is done where the kernel looks for the zone: by
    /// halving a list that is sorted by address (`kvm_io_bus_get_first_dev`). An entry without a length takes
    /// nothing. To an access at its very address it is equal, and the zone is found beside it; one that starts
    /// later is sent on past it (`kvm_io_bus_cmp`). With enough of them behind the zone, the middle of the
    /// list is always one. A kernel that looks otherwise would note a reset down until the next exit, and no
    /// write of the index would exit for it.
    fn lead_past(&self, port: u16) -> Result<(), VmError> {
        (0..SIGNPOSTS).try_for_each(|_| self.note_writes(Place::Port(port), 0))
    }

    /// Notes down writes that lie within `len_bytes` at `place`.
    fn note_writes(&self, place: Place, len_bytes: u32) -> Result<(), VmError> {
        let address = match place {
            Place::Port(port) => IoEventAddress::Pio(u64::from(port)),
            Place::Memory(at) => {
                debug_assert!(at.0 >= PORTS_END);
                IoEventAddress::Mmio(at.0)
            }
        };
        self.fd()
            .register_coalesced_mmio(address, len_bytes)
            .map_err(failed("note writes of an index register"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::testing::{TinyMachine, entry};
    use crate::kvm::vcpu::Exit;

    const INDEX: u16 = layout::PCI_CONFIG;

    /// Runs `code` until its first exit, which must be a write of a port; that port, and the ports whose
    /// writes came with it.
    fn first_exit(code: &[u8]) -> Option<(u16, Vec<u16>)> {
        let mut machine = TinyMachine::new()?;
        machine.vm().note_index_writes().expect("zones");
        machine.load(0x1000, code);
        machine.vcpu.reset(&entry(0x1000)).expect("a first state");
        let mut noted = Vec::new();
        let mut note = |place, _: &[u8]| match place {
            Place::Port(port) => noted.push(port),
            Place::Memory(_) => {}
        };
        match machine.vcpu.run(&mut note) {
            Exit::PortWrite { port, .. } => Some((port, noted)),
            other => panic!("{other:?}"),
        }
    }

    /// `out 0x10, al; hlt`: an exit that notes nothing.
    const END: &[u8] = &[0xe6, 0x10, 0xf4];

    #[test]
    fn the_reset_register_exits_at_once() {
        let code = [
            0x66, 0xba, 0xf8, 0x0c, 0xef, 0xef, // mov dx, 0xcf8; out dx, eax; out dx, eax
            0x66, 0xba, 0xf9, 0x0c, 0xee, // mov dx, 0xcf9; out dx, al
        ];
        if let Some(exit) = first_exit(&[&code, END].concat()) {
            assert_eq!(exit, (INDEX + 1, vec![INDEX; 2]));
        }
    }

    #[test]
    fn writes_of_an_index_do_not_exit() {
        let code = [
            0x66, 0xba, 0xf8, 0x0c, 0xef, 0x66, 0xef, 0xee, // mov dx, 0xcf8; out dx, eax, ax and al
            0xe6, 0x70, 0xe6, 0x4e, // out 0x70, al; out 0x4e, al
        ];
        if let Some(exit) = first_exit(&[&code, END].concat()) {
            assert_eq!(exit, (0x10, vec![INDEX, INDEX, INDEX, layout::RTC, 0x4e]));
        }
    }
}

//! MSI (PCIe §7.7.1): up to 32 vectors from one message, with a 32- or 64-bit address and maybe a mask bit
//! for each vector.

use std::sync::Arc;

use super::vectors::{VectorBinder, Vectors};
use crate::irq::{MsiMessage, MsiRouter};

/// Message control, 16 bits, bytes from the capability's start.
pub const MESSAGE_CONTROL: u16 = 0x02;

/// Message control: MSI is in use.
pub const ENABLE: u16 = 1 << 0;

/// Message control: log2 of how many vectors the function can use.
pub const MULTIPLE_MESSAGE_CAPABLE: u16 = 0x7 << 1;

/// Message control: log2 of how many vectors software granted.
pub const MULTIPLE_MESSAGE_ENABLE: u16 = 0x7 << 4;

/// Message control: the address has 64 bits.
pub const ADDRESS_64: u16 = 1 << 7;

/// Message control: there are mask and pending bits for each vector.
pub const PER_VECTOR_MASKING: u16 = 1 << 8;

/// 32 vectors at most (log2); the values above are reserved.
const MAX_LOG2_VECTORS: u16 = 5;

/// Message address, 32 bits; its low two bits are zero.
const ADDRESS: u16 = 0x04;

/// What a function's MSI capability can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiShape {
    /// log2 of the vectors it can use, 0 to 5.
    pub log2_vectors: u16,
    /// It takes 64-bit addresses.
    pub address_64: bool,
    /// It has mask and pending bits.
    pub per_vector_masking: bool,
}

impl MsiShape {
    /// What a message control register says; a reserved vector count becomes the largest legal one.
    pub fn from_control(control: u16) -> Self {
        Self {
            log2_vectors: ((control & MULTIPLE_MESSAGE_CAPABLE) >> 1).min(MAX_LOG2_VECTORS),
            address_64: control & ADDRESS_64 != 0,
            per_vector_masking: control & PER_VECTOR_MASKING != 0,
        }
    }

    /// Bytes of the capability in configuration space.
    pub const fn len_bytes(self) -> u16 {
        match (self.address_64, self.per_vector_masking) {
            (false, false) => 0x0a,
            (true, false) => 0x0e,
            (false, true) => 0x14,
            (true, true) => 0x18,
        }
    }

    const fn control(self) -> u16 {
        let address_64 = if self.address_64 { ADDRESS_64 } else { 0 };
        let masking = if self.per_vector_masking {
            PER_VECTOR_MASKING
        } else {
            0
        };
        self.log2_vectors << 1 | address_64 | masking
    }

    /// Message data, 16 bits.
    const fn data(self) -> u16 {
        if self.address_64 { 0x0c } else { 0x08 }
    }

    /// Mask bits, 32 bits; the pending bits follow.
    const fn mask(self) -> u16 {
        self.data() + 4
    }
}

/// The MSI registers of one function.
pub struct Msi {
    shape: MsiShape,
    registers: Registers,
    vectors: Vectors,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Registers {
    /// Enable and multiple message enable.
    control: u16,
    address: u64,
    data: u16,
    mask: u32,
}

impl Registers {
    fn is_enabled(&self) -> bool {
        self.control & ENABLE != 0
    }

    /// log2 of the vectors in use: what software granted, as far as the function can use it.
    fn log2_vectors(&self, shape: MsiShape) -> u16 {
        ((self.control & MULTIPLE_MESSAGE_ENABLE) >> 4).min(shape.log2_vectors)
    }

    /// Vector `n` puts its number into the low bits of the data (PCIe §6.1.4.3).
    fn message(&self, shape: MsiShape, n: u16) -> Option<MsiMessage> {
        let span = 1 << self.log2_vectors(shape);
        let sends = self.is_enabled() && n < span && self.mask >> n & 1 == 0;
        let data = self.data & !(span - 1) | n;
        sends.then_some(MsiMessage {
            address: self.address,
            data: u32::from(data),
        })
    }
}

impl Msi {
    /// Disabled, all registers zero.
    pub fn new(shape: MsiShape, router: Arc<dyn MsiRouter>, binder: Arc<dyn VectorBinder>) -> Self {
        let shape = MsiShape {
            log2_vectors: shape.log2_vectors.min(MAX_LOG2_VECTORS),
            ..shape
        };
        let vectors = Vectors::new(1 << shape.log2_vectors, router, binder);
        Self {
            shape,
            registers: Registers::default(),
            vectors,
        }
    }

    /// Bytes of the capability in configuration space.
    pub fn len_bytes(&self) -> u16 {
        self.shape.len_bytes()
    }

    /// True while the guest has MSI enabled.
    pub fn is_enabled(&self) -> bool {
        self.registers.is_enabled()
    }

    /// Reads at `offset` bytes from the capability's start. The first two bytes, id and next pointer, are
    /// not the model's: they read as zero.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = self.byte(at);
        }
    }

    /// Writes at `offset` bytes from the capability's start, any width; each route changes at most once.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        let before = self.registers;
        for (at, &byte) in (offset..).zip(data) {
            self.set_byte(at, byte);
        }
        if self.registers != before {
            self.apply(before);
        }
    }

    /// The vectors' routes, for an emulated function to signal.
    pub fn vectors(&self) -> &Vectors {
        &self.vectors
    }

    /// The state after a reset of the function: disabled, all vectors given back.
    pub fn reset(&mut self) {
        self.registers = Registers::default();
        self.vectors.release();
    }

    /// The hardware learns how many vectors there are when MSI is enabled, so another number of them, which
    /// software may only set while MSI is disabled, starts over.
    fn apply(&mut self, before: Registers) {
        let (shape, now) = (self.shape, self.registers);
        if !now.is_enabled() || before.log2_vectors(shape) != now.log2_vectors(shape) {
            self.vectors.release();
        }
        if now.is_enabled() {
            self.vectors
                .update(1 << now.log2_vectors(shape), |n| now.message(shape, n));
        }
    }

    fn byte(&self, at: u16) -> u8 {
        let (control, address, data, mask) = self.layout();
        let registers = &self.registers;
        pick(at, control, u64::from(registers.control | self.shape.control()))
            .or_else(|| pick(at, address, registers.address))
            .or_else(|| pick(at, data, u64::from(registers.data)))
            .or_else(|| pick(at, mask, u64::from(registers.mask)))
            .or_else(|| pick(at, (mask.0 + mask.1, mask.1), u64::from(self.pending_bits())))
            .unwrap_or(0)
    }

    fn set_byte(&mut self, at: u16, byte: u8) {
        let (control, address, data, mask) = self.layout();
        let span_bits = u32::MAX >> (32 - (1 << self.shape.log2_vectors));
        let registers = &mut self.registers;
        if let Some(value) = place(at, control, u64::from(registers.control), byte) {
            registers.control = value as u16 & (ENABLE | MULTIPLE_MESSAGE_ENABLE);
        } else if let Some(value) = place(at, address, registers.address, byte) {
            registers.address = value & !0x3;
        } else if let Some(value) = place(at, data, u64::from(registers.data), byte) {
            registers.data = value as u16;
        } else if let Some(value) = place(at, mask, u64::from(registers.mask), byte) {
            registers.mask = value as u32 & span_bits;
        }
    }

    /// Start and length of control, address, data and mask bits; a register that does not exist has length 0.
    fn layout(&self) -> (Field, Field, Field, Field) {
        let address_len = if self.shape.address_64 { 8 } else { 4 };
        let mask_len = if self.shape.per_vector_masking { 4 } else { 0 };
        (
            (MESSAGE_CONTROL, 2),
            (ADDRESS, address_len),
            (self.shape.data(), 2),
            (self.shape.mask(), mask_len),
        )
    }

    fn pending_bits(&self) -> u32 {
        let pending = (0..1u16 << self.shape.log2_vectors).filter(|&n| self.vectors.pending(n));
        pending.fold(0, |bits, n| bits | 1 << n)
    }
}

/// Start and length in bytes.
type Field = (u16, u16);

fn pick(at: u16, (start, len): Field, value: u64) -> Option<u8> {
    let index = at.checked_sub(start).filter(|&index| index < len)?;
    Some(value.to_le_bytes()[usize::from(index)])
}

fn place(at: u16, (start, len): Field, value: u64, byte: u8) -> Option<u64> {
    let index = at.checked_sub(start).filter(|&index| index < len)?;
    let mut bytes = value.to_le_bytes();
    bytes[usize::from(index)] = byte;
    Some(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Binding, FakeBinder, FakeRouter};

    struct Fixture {
        msi: Msi,
        router: Arc<FakeRouter>,
        binder: Arc<FakeBinder>,
    }

    fn fixture(log2_vectors: u16, address_64: bool, per_vector_masking: bool) -> Fixture {
        let (router, binder) = (FakeRouter::new(), FakeBinder::new());
        let shape = MsiShape {
            log2_vectors,
            address_64,
            per_vector_masking,
        };
        Fixture {
            msi: Msi::new(shape, router.clone(), binder.clone()),
            router,
            binder,
        }
    }

    fn bind(span: u16, vectors: &[u16]) -> Binding {
        Binding::Bind {
            span,
            vectors: vectors.to_vec(),
        }
    }

    fn read<const N: usize>(msi: &Msi, offset: u16) -> [u8; N] {
        let mut data = [0; N];
        msi.read(offset, &mut data);
        data
    }

    #[test]
    fn lengths_and_control_follow_the_shape() {
        let shapes = [
            (false, false, 0x0a),
            (true, false, 0x0e),
            (false, true, 0x14),
            (true, true, 0x18),
        ];
        for (address_64, masking, len) in shapes {
            let Fixture { msi, .. } = fixture(5, address_64, masking);
            assert_eq!(msi.len_bytes(), len);
            let shape = MsiShape::from_control(u16::from_le_bytes(read(&msi, MESSAGE_CONTROL)));
            assert_eq!(
                shape,
                MsiShape {
                    log2_vectors: 5,
                    address_64,
                    per_vector_masking: masking
                }
            );
        }
    }

    #[test]
    fn reserved_vector_counts_are_cut_to_32() {
        assert_eq!(MsiShape::from_control(0x7 << 1).log2_vectors, 5);
        let Fixture { msi, .. } = fixture(9, false, false);
        assert_eq!(u16::from_le_bytes(read(&msi, MESSAGE_CONTROL)), 5 << 1);
    }

    #[test]
    fn one_vector_is_unmasked_as_soon_as_it_is_enabled() {
        let Fixture {
            mut msi,
            router,
            binder,
        } = fixture(0, true, false);
        msi.write(ADDRESS, &0xfee0_1003u32.to_le_bytes());
        msi.write(ADDRESS + 4, &0x1u32.to_le_bytes());
        msi.write(0x0c, &0x41u16.to_le_bytes());
        msi.write(MESSAGE_CONTROL, &ENABLE.to_le_bytes());
        let message = MsiMessage {
            address: 0x1_fee0_1000,
            data: 0x41,
        };
        assert_eq!(router.routes()[0].settings(), [Some(message)]);
        assert_eq!(binder.calls(), [bind(1, &[0])]);
    }

    #[test]
    fn enabling_is_seen_in_a_doubleword_write_and_in_a_byte() {
        let Fixture { mut msi, .. } = fixture(0, false, false);
        msi.write(0, &(u32::from(ENABLE) << 16).to_le_bytes());
        assert!(msi.is_enabled());
        msi.write(MESSAGE_CONTROL, &[0]);
        assert!(!msi.is_enabled());
    }

    #[test]
    fn several_messages_differ_in_the_low_bits_of_the_data() {
        let Fixture {
            mut msi,
            router,
            binder,
        } = fixture(5, false, false);
        msi.write(ADDRESS, &0xfee0_0000u32.to_le_bytes());
        msi.write(0x08, &0x4f7fu16.to_le_bytes());
        msi.write(MESSAGE_CONTROL, &(ENABLE | 2 << 4).to_le_bytes());
        let data: Vec<_> = router
            .routes()
            .iter()
            .map(|route| route.message().map(|m| m.data))
            .collect();
        assert_eq!(data, [0x4f7c, 0x4f7d, 0x4f7e, 0x4f7f].map(Some));
        assert_eq!(binder.calls(), [bind(4, &[0, 1, 2, 3])], "all in one call");
    }

    #[test]
    fn more_messages_than_the_function_has_are_not_granted() {
        let Fixture { mut msi, router, .. } = fixture(1, false, false);
        msi.write(MESSAGE_CONTROL, &(ENABLE | 7 << 4).to_le_bytes());
        assert_eq!(router.routes().len(), 2);
    }

    #[test]
    fn another_number_of_messages_starts_over() {
        let Fixture { mut msi, binder, .. } = fixture(2, false, false);
        msi.write(MESSAGE_CONTROL, &(ENABLE | 2 << 4).to_le_bytes());
        msi.write(MESSAGE_CONTROL, &(ENABLE | 1 << 4).to_le_bytes());
        assert_eq!(
            binder.calls(),
            [bind(4, &[0, 1, 2, 3]), Binding::Release, bind(2, &[0, 1])]
        );
    }

    #[test]
    fn mask_bits_hold_single_vectors_back() {
        let Fixture {
            mut msi,
            router,
            binder,
        } = fixture(1, true, true);
        msi.write(0x10, &u32::MAX.to_le_bytes());
        assert_eq!(
            read(&msi, 0x10),
            [0x3, 0, 0, 0],
            "only the bits of vectors that exist"
        );
        msi.write(MESSAGE_CONTROL, &(ENABLE | 1 << 4).to_le_bytes());
        assert_eq!(binder.calls(), [bind(2, &[])], "the function knows at once");
        msi.write(0x10, &[0x1]);
        msi.write(0x10, &[0x3]);
        msi.write(0x10, &[0x0]);
        assert_eq!(binder.calls()[1..], [bind(2, &[1]), bind(2, &[0])]);
        let data = |route: usize| {
            router.routes()[route]
                .settings()
                .iter()
                .map(|m| m.map(|m| m.data))
                .collect::<Vec<_>>()
        };
        assert_eq!(data(0), [Some(1), None, Some(1)]);
        router.routes()[0].set_pending(true);
        assert_eq!(read(&msi, 0x14), [0x2, 0, 0, 0]);
    }

    #[test]
    fn pending_bits_and_reserved_bytes_are_read_only() {
        let Fixture { mut msi, .. } = fixture(1, true, true);
        msi.write(0x14, &[0xff; 4]);
        msi.write(0x0e, &[0xff; 2]);
        assert_eq!(read(&msi, 0x14), [0; 4]);
        assert_eq!(read(&msi, 0x0e), [0; 2]);
    }

    #[test]
    fn disabling_and_reset_give_everything_back() {
        let Fixture { mut msi, binder, .. } = fixture(0, false, false);
        msi.write(MESSAGE_CONTROL, &ENABLE.to_le_bytes());
        msi.write(MESSAGE_CONTROL, &[0, 0]);
        msi.write(MESSAGE_CONTROL, &ENABLE.to_le_bytes());
        msi.reset();
        assert_eq!(
            binder.calls(),
            [bind(1, &[0]), Binding::Release, bind(1, &[0]), Binding::Release]
        );
        assert_eq!(read(&msi, MESSAGE_CONTROL), [0, 0]);
    }

    proptest! {
        #[test]
        fn routes_follow_the_registers(
            log2_vectors in 0u16..6,
            address_64: bool,
            masking: bool,
            writes in prop::collection::vec((0u16..0x20, prop::collection::vec(any::<u8>(), 1..5)), 1..40),
        ) {
            let Fixture { mut msi, .. } = fixture(log2_vectors, address_64, masking);
            for (at, data) in writes {
                msi.write(at, &data);
                for n in 0..1u16 << log2_vectors {
                    prop_assert_eq!(msi.vectors.message(n), msi.registers.message(msi.shape, n));
                }
            }
        }
    }
}

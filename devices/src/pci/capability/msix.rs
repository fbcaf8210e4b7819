//! MSI-X (PCIe §7.7.2): message control, the vector table and the pending bit array.

use std::sync::Arc;

use super::vectors::{VectorBinder, Vectors};
use crate::irq::{MsiMessage, MsiRouter};

/// Bytes of the capability in configuration space.
pub const CAPABILITY_LEN: u16 = 12;

/// Message control, 16 bits, bytes from the capability's start.
pub const MESSAGE_CONTROL: u16 = 0x02;

/// Table offset and BAR indicator, 32 bits, bytes from the capability's start.
pub const TABLE: u16 = 0x04;

/// Pending bit array offset and BAR indicator, 32 bits, bytes from the capability's start.
pub const PENDING: u16 = 0x08;

/// The bits of [`TABLE`] and [`PENDING`] that name a BAR; the rest is an offset in it.
pub const BAR_INDICATOR: u32 = 0x7;

/// Bits of message control that hold the table size minus one.
pub const TABLE_SIZE: u16 = 0x07ff;

/// Message control: all vectors are masked.
pub const FUNCTION_MASK: u16 = 1 << 14;

/// Message control: MSI-X is in use.
pub const ENABLE: u16 = 1 << 15;

/// Bytes of a table entry.
pub const ENTRY_LEN: u64 = 16;

/// Vector control, the last doubleword of an entry: the vector is masked.
const VECTOR_MASK: u32 = 1 << 0;

/// Most vectors that a table has.
pub const MAX_VECTORS: u16 = 2048;

/// A table size that no message control can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an MSI-X table has 1 to {MAX_VECTORS} vectors, not {0}")]
pub struct VectorCountError(pub u16);

/// The MSI-X registers of one function.
pub struct Msix {
    control: u16,
    table: Vec<TableEntry>,
    vectors: Vectors,
}

/// The four doublewords of a table entry: address, upper address, data, vector control.
#[derive(Clone, Copy)]
struct TableEntry([u32; 4]);

/// A vector is masked after reset (PCIe §7.7.2.9).
const RESET_ENTRY: TableEntry = TableEntry([0, 0, 0, VECTOR_MASK]);

impl TableEntry {
    fn message(&self) -> Option<MsiMessage> {
        let [low, high, data, control] = self.0;
        let address = u64::from(low) | u64::from(high) << 32;
        (control & VECTOR_MASK == 0).then_some(MsiMessage { address, data })
    }
}

impl Msix {
    /// Disabled, with `count` masked vectors.
    ///
    /// # Errors
    /// When `count` is 0 or above [`MAX_VECTORS`].
    pub fn new(
        count: u16,
        router: Arc<dyn MsiRouter>,
        binder: Arc<dyn VectorBinder>,
    ) -> Result<Self, VectorCountError> {
        if !(1..=MAX_VECTORS).contains(&count) {
            return Err(VectorCountError(count));
        }
        let table = vec![RESET_ENTRY; usize::from(count)];
        Ok(Self {
            control: 0,
            table,
            vectors: Vectors::new(count, router, binder),
        })
    }

    /// Vectors in the table.
    pub fn count(&self) -> u16 {
        u16::try_from(self.table.len()).unwrap_or(MAX_VECTORS)
    }

    /// The message control register.
    pub fn control(&self) -> u16 {
        self.control | (self.count() - 1)
    }

    /// True while the guest has MSI-X enabled, masked or not.
    pub fn is_enabled(&self) -> bool {
        self.control & ENABLE != 0
    }

    /// Writes message control. A function that is disabled gives its vectors back.
    pub fn set_control(&mut self, control: u16) {
        let new = control & (ENABLE | FUNCTION_MASK);
        if new == self.control {
            return;
        }
        self.control = new;
        if !self.is_enabled() {
            self.vectors.release();
            return;
        }
        let Self {
            control,
            table,
            vectors,
        } = self;
        let span = u16::try_from(table.len()).unwrap_or(MAX_VECTORS);
        vectors.update(span, |n| {
            if *control & FUNCTION_MASK == 0 {
                table[usize::from(n)].message()
            } else {
                None
            }
        });
    }

    /// Reads `data.len()` bytes of the table at `offset`: aligned 4 and 8 bytes, all ones otherwise.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        let entries = &self.table;
        read_doublewords(offset, data, |n| entries.get(n / 4).map(|entry| entry.0[n % 4]));
    }

    /// Writes the table at `offset`: aligned 4 and 8 bytes, ignored otherwise. The vector's route changes at
    /// most once, when all bytes of the write are in.
    pub fn write_table(&mut self, offset: u64, data: &[u8]) {
        let Some(first) = doubleword_index(offset, data.len()) else {
            return;
        };
        let Some(entry) = self.table.get_mut(first / 4) else {
            return;
        };
        for (n, bytes) in (first % 4..).zip(data.chunks_exact(4)) {
            let value = u32::from_le_bytes(bytes.try_into().expect("a chunk of 4 bytes"));
            // The rest of vector control is reserved and reads as zero.
            entry.0[n] = if n == 3 { value & VECTOR_MASK } else { value };
        }
        let message = entry.message();
        if self.control & (ENABLE | FUNCTION_MASK) == ENABLE {
            let n = u16::try_from(first / 4).unwrap_or(u16::MAX);
            self.vectors.set(self.count(), n, message);
        }
    }

    /// Reads the pending bit array at `offset`: aligned 4 and 8 bytes, all ones otherwise. The array is
    /// read-only.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        read_doublewords(offset, data, |n| Some(self.pending_bits(n)));
    }

    /// The vectors' routes, for an emulated function to signal.
    pub fn vectors(&self) -> &Vectors {
        &self.vectors
    }

    /// The state after a reset of the function: disabled, all vectors masked and given back.
    pub fn reset(&mut self) {
        self.control = 0;
        self.table.fill(RESET_ENTRY);
        self.vectors.release();
    }

    fn pending_bits(&self, doubleword: usize) -> u32 {
        let first = doubleword.saturating_mul(32);
        let bits = (0..32).filter(|bit| {
            let n = first.saturating_add(*bit);
            n < self.table.len() && u16::try_from(n).is_ok_and(|n| self.vectors.pending(n))
        });
        bits.fold(0, |value, bit| value | 1 << bit)
    }
}

/// Which doubleword an access starts at, when it has a shape that software may use (PCIe §7.7.2: aligned
/// doublewords and quadwords).
fn doubleword_index(offset: u64, len: usize) -> Option<usize> {
    let aligned = matches!(len, 4 | 8) && offset.is_multiple_of(len as u64);
    aligned.then(|| usize::try_from(offset / 4).ok())?
}

fn read_doublewords(offset: u64, data: &mut [u8], register: impl Fn(usize) -> Option<u32>) {
    match doubleword_index(offset, data.len()) {
        Some(first) => {
            for (n, bytes) in (first..).zip(data.chunks_exact_mut(4)) {
                bytes.copy_from_slice(&register(n).unwrap_or(u32::MAX).to_le_bytes());
            }
        }
        None => data.fill(0xff),
    }
}

#[cfg(test)]
mod tests;

//! Binding of a function's interrupt vectors to events, vector by vector.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use strait_devices::pci::capability::{BindError, VectorBinder};

use crate::hardware::{Hardware, InterruptKind};
use crate::lock::lock;

/// The vectors of one interrupt type of a physical function.
///
/// Vectors are added to the live ones with one `VFIO_DEVICE_SET_IRQS` for each contiguous run. Where the
/// host cannot add vectors later, the first call sets up the whole table and leaves the unused ones silent:
/// disabling and enabling again would lose interrupts of vectors that are live.
pub struct VectorSet {
    hardware: Arc<dyn Hardware>,
    kind: InterruptKind,
    /// Vectors the host has set up, 0 while the type is disabled.
    ready: Mutex<u16>,
}

/// A vector that could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindVectorsError {
    /// The host's driver refused.
    #[error("cannot bind {kind} vector {first} and up of {device} to an event")]
    Refused {
        /// Which device.
        device: String,
        /// Which type.
        kind: InterruptKind,
        /// The first of the vectors.
        first: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host has fewer vectors than the guest uses.
    #[error("the host gives {device} only {available} {kind} vectors, the guest uses vector {wanted}")]
    TooFew {
        /// Which device.
        device: String,
        /// Which type.
        kind: InterruptKind,
        /// How many there are.
        available: u32,
        /// The guest's vector.
        wanted: u16,
    },
}

impl VectorSet {
    /// Nothing bound.
    pub fn new(hardware: Arc<dyn Hardware>, kind: InterruptKind) -> Self {
        Self {
            hardware,
            kind,
            ready: Mutex::new(0),
        }
    }

    /// The first vectors in use: enables the type. Returns how many vectors the host has set up.
    fn enable(&self, span: u16, events: &[(u16, BorrowedFd<'_>)]) -> Result<u16, BindVectorsError> {
        let info = self.hardware.interrupt(self.kind);
        let (first, last) = bounds(events);
        let all = u16::try_from(info.count).unwrap_or(u16::MAX).min(span);
        if last >= all {
            return Err(self.too_few(info.count, last));
        }
        let (start, end) = if info.resizable {
            (first, last + 1)
        } else {
            (0, all)
        };
        match self.call(start, end, events)? {
            0 => Ok(end),
            // The host is short of vectors; what it has may be enough for those in use.
            fewer => match u16::try_from(fewer) {
                Ok(end) if end > last && self.call(start, end, events)? == 0 => Ok(end),
                _ => Err(self.too_few(fewer, last)),
            },
        }
    }

    /// Further vectors beside live ones.
    fn add(&self, ready: u16, events: &[(u16, BorrowedFd<'_>)]) -> Result<u16, BindVectorsError> {
        let (_, last) = bounds(events);
        if last >= ready && !self.hardware.interrupt(self.kind).resizable {
            return Err(self.too_few(u32::from(ready), last));
        }
        for run in events.chunk_by(|before, after| before.0 + 1 == after.0) {
            let (first, last) = bounds(run);
            let fewer = self.call(first, last + 1, run)?;
            if fewer != 0 {
                return Err(self.too_few(fewer, last));
            }
        }
        Ok(ready.max(last + 1))
    }

    /// One call for vectors `start..end`, with those silent that have no event.
    fn call(&self, start: u16, end: u16, events: &[(u16, BorrowedFd<'_>)]) -> Result<u32, BindVectorsError> {
        let mut table = vec![None; usize::from(end.saturating_sub(start))];
        for &(vector, event) in events {
            if let Some(slot) = vector
                .checked_sub(start)
                .and_then(|at| table.get_mut(usize::from(at)))
            {
                *slot = Some(event);
            }
        }
        let refused = |source| BindVectorsError::Refused {
            device: self.hardware.name().to_owned(),
            kind: self.kind,
            first: bounds(events).0,
            source,
        };
        self.hardware
            .set_interrupts(self.kind, start, &table)
            .map_err(refused)
    }

    fn too_few(&self, available: u32, wanted: u16) -> BindVectorsError {
        BindVectorsError::TooFew {
            device: self.hardware.name().to_owned(),
            kind: self.kind,
            available,
            wanted,
        }
    }
}

impl VectorBinder for VectorSet {
    fn bind(&self, span: u16, events: &[(u16, BorrowedFd<'_>)]) -> Result<(), BindError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut ready = lock(&self.ready);
        *ready = if *ready == 0 {
            self.enable(span, events)?
        } else {
            self.add(*ready, events)?
        };
        Ok(())
    }

    fn release(&self) {
        let mut ready = lock(&self.ready);
        if *ready != 0
            && let Err(error) = self.hardware.disable_interrupts(self.kind)
        {
            log::warn!("{}: cannot disable {}: {error}", self.hardware.name(), self.kind);
        }
        *ready = 0;
    }
}

impl Drop for VectorSet {
    fn drop(&mut self) {
        self.release();
    }
}

/// First and last vector of a list in ascending order.
fn bounds(events: &[(u16, BorrowedFd<'_>)]) -> (u16, u16) {
    let vector = |event: Option<&(u16, BorrowedFd<'_>)>| event.map_or(0, |event| event.0);
    (vector(events.first()), vector(events.last()))
}

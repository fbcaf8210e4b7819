//! Binding of a function's interrupt vectors to events, vector by vector.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use strait_devices::pci::capability::{BindError, VectorBinder};

use crate::hardware::{Hardware, InterruptKind};
use strait_devices::lock;
use strait_devices::warning::FirstOnly;

/// The vectors of one interrupt type of a physical function.
///
/// The first call enables the type on the hardware, if need be with a vector 0 that has no event: the host's
/// driver enables MSI-X with the first vector that it sets up (`vfio_msi_enable`,
/// drivers/vfio/pci/vfio_pci_intrs.c). Vectors are added to the live ones with one `VFIO_DEVICE_SET_IRQS` for
/// each contiguous run. Where the host cannot add vectors later, the first call sets up the whole table and
/// leaves the unused ones silent: disabling and enabling again would lose interrupts of vectors that are live.
pub struct VectorSet {
    hardware: Arc<dyn Hardware>,
    kind: InterruptKind,
    /// Vectors the host has set up, 0 while the type is disabled.
    ready: Mutex<u16>,
    failed: FirstOnly,
}

/// A vector that could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindVectorsError {
    /// The host's driver refused.
    #[error("cannot bind {kind} vector {first} and up of {device} to an event")]
    Refused {
        /// The function's name on the host.
        device: String,
        /// INTx, MSI or MSI-X.
        kind: InterruptKind,
        /// The first of the vectors.
        first: u16,
        /// The cause, as the kernel tells it.
        #[source]
        source: io::Error,
    },
    /// The host has fewer vectors than the guest uses.
    #[error("the host gives {device} only {available} {kind} vectors, the guest uses vector {wanted}")]
    TooFew {
        /// The function's name on the host.
        device: String,
        /// INTx, MSI or MSI-X.
        kind: InterruptKind,
        /// How many there are.
        available: u32,
        /// The vector that the guest uses, from 0 on.
        wanted: u16,
    },
}

impl VectorSet {
    /// The vectors, none of them bound.
    pub fn new(hardware: Arc<dyn Hardware>, kind: InterruptKind) -> Self {
        Self {
            hardware,
            kind,
            ready: Mutex::new(0),
            failed: FirstOnly::default(),
        }
    }

    /// Enables the type with the first vectors in use, if any. Returns how many vectors the host has set up.
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
        let info = self.hardware.interrupt(self.kind);
        let available = if info.resizable { info.count } else { ready.into() };
        if u32::from(last) >= available {
            return Err(self.too_few(available, last));
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
        let mut ready = lock(&self.ready);
        *ready = match *ready {
            0 => self.enable(span, events)?,
            ready if events.is_empty() => ready,
            ready => self.add(ready, events)?,
        };
        Ok(())
    }

    fn release(&self) {
        let mut ready = lock(&self.ready);
        if *ready != 0
            && let Err(error) = self.hardware.disable_interrupts(self.kind)
            && self.failed.pass()
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd, RawFd};

    use super::*;
    use crate::mock::{Call, MockHardware};

    const MSIX: InterruptKind = InterruptKind::Msix;

    fn hardware(resizable: bool) -> MockHardware {
        MockHardware::new().with_interrupts(MSIX, 10, resizable)
    }

    struct Fixture {
        hardware: Arc<MockHardware>,
        vectors: VectorSet,
        event: File,
    }

    fn fixture(hardware: MockHardware) -> Fixture {
        let hardware = Arc::new(hardware);
        let vectors = VectorSet::new(hardware.clone(), MSIX);
        Fixture {
            hardware,
            vectors,
            event: tempfile::tempfile().expect("a temporary file"),
        }
    }

    impl Fixture {
        fn bind(&self, vectors: &[u16]) -> Result<(), BindError> {
            let events: Vec<_> = vectors
                .iter()
                .map(|&vector| (vector, self.event.as_fd()))
                .collect();
            self.vectors.bind(10, &events)
        }

        /// A call for vectors from `start`, `true` for those with an event.
        fn set(&self, start: u16, live: &[bool]) -> Call {
            let fd: RawFd = self.event.as_raw_fd();
            Call::SetInterrupts(MSIX, start, live.iter().map(|live| live.then_some(fd)).collect())
        }
    }

    #[test]
    fn without_dynamic_vectors_the_whole_table_is_set_up_first_and_then_single_vectors() {
        let f = fixture(hardware(false));
        f.bind(&[1]).expect("bound");
        f.bind(&[9]).expect("bound");
        let mut table = [false; 10];
        table[1] = true;
        assert_eq!(f.hardware.take_calls(), [f.set(0, &table), f.set(9, &[true])]);
    }

    #[test]
    fn with_dynamic_vectors_only_those_in_use_are_set_up() {
        let f = fixture(hardware(true));
        f.bind(&[1]).expect("bound");
        f.bind(&[9]).expect("bound");
        f.bind(&[0]).expect("bound");
        assert_eq!(
            f.hardware.take_calls(),
            [f.set(1, &[true]), f.set(9, &[true]), f.set(0, &[true])]
        );
    }

    #[test]
    fn several_vectors_are_one_call_for_each_run() {
        let f = fixture(hardware(true));
        f.bind(&[0, 2]).expect("bound");
        f.bind(&[3, 4, 6]).expect("bound");
        let calls = [
            f.set(0, &[true, false, true]),
            f.set(3, &[true, true]),
            f.set(6, &[true]),
        ];
        assert_eq!(f.hardware.take_calls(), calls);
    }

    #[test]
    fn a_host_short_of_vectors_gives_what_it_has() {
        let f = fixture(MockHardware {
            vectors: 4,
            ..hardware(false)
        });
        f.bind(&[0]).expect("the host has four");
        let error = f.bind(&[4]).expect_err("beyond the fourth");
        assert_eq!(
            error.to_string(),
            "the host gives 0000:01:00.0 only 4 MSI-X vectors, the guest uses vector 4"
        );
        f.bind(&[3]).expect("the fourth");
    }

    #[test]
    fn a_vector_beyond_those_of_the_device_never_reaches_the_kernel() {
        let f = fixture(hardware(true));
        f.bind(&[10]).expect_err("there are ten");
        assert!(f.hardware.take_calls().is_empty());
    }

    #[test]
    fn a_vector_beyond_those_of_the_device_is_refused_beside_live_ones_too() {
        let f = fixture(hardware(true));
        f.bind(&[]).expect("enabled");
        f.bind(&[10]).expect_err("there are ten");
        assert_eq!(f.hardware.take_calls(), [f.set(0, &[false])]);
    }

    #[test]
    fn the_type_is_enabled_with_no_vector_in_use() {
        let dynamic = fixture(hardware(true));
        dynamic.bind(&[]).expect("enabled");
        dynamic.bind(&[]).expect("enabled before");
        dynamic.bind(&[0]).expect("bound");
        let calls = [dynamic.set(0, &[false]), dynamic.set(0, &[true])];
        assert_eq!(dynamic.hardware.take_calls(), calls);

        let whole = fixture(hardware(false));
        whole.bind(&[]).expect("enabled");
        whole.bind(&[9]).expect("bound");
        let calls = [whole.set(0, &[false; 10]), whole.set(9, &[true])];
        assert_eq!(whole.hardware.take_calls(), calls);
    }

    #[test]
    fn a_host_short_of_vectors_enables_what_it_has() {
        let f = fixture(MockHardware {
            vectors: 4,
            ..hardware(false)
        });
        f.bind(&[]).expect("the host has four");
        assert_eq!(f.hardware.take_calls().last(), Some(&f.set(0, &[false; 4])));
        f.bind(&[3]).expect("the fourth");
        f.bind(&[4]).expect_err("beyond the fourth");
    }

    #[test]
    fn release_disables_once_and_a_later_bind_starts_over() {
        let f = fixture(hardware(true));
        f.vectors.release();
        f.bind(&[0]).expect("bound");
        f.vectors.release();
        f.vectors.release();
        f.bind(&[2]).expect("bound");
        let calls = [
            f.set(0, &[true]),
            Call::DisableInterrupts(MSIX),
            f.set(2, &[true]),
        ];
        assert_eq!(f.hardware.take_calls(), calls);
    }

    #[test]
    fn a_refusal_keeps_its_errno_and_the_type_disabled() {
        let f = fixture(hardware(true));
        f.hardware.kill();
        let error = f.bind(&[0]).expect_err("the device is gone");
        let source = error
            .source()
            .and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(source.and_then(io::Error::raw_os_error), Some(libc::ENODEV));
        f.vectors.release();
        assert!(f.hardware.take_calls().is_empty());
    }
}

//! A host that does all it is asked at once.

use std::io::{PipeReader, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use strait_devices::dma::{Access, Domain, DomainError, Iova};
use strait_devices::irq::{MsiMessage, MsiRoute, MsiRouter, RouteError};
use strait_devices::pci::capability::{BindError, VectorBinder};
use strait_devices::region::{HostAddress, HostBacking};

/// RAM of the guest, in bytes.
pub(crate) const RAM: u64 = 64 << 20;

/// Every seam at once.
#[derive(Debug)]
pub(crate) struct Host;

impl Domain for Host {
    fn map(&self, _: Iova, _: HostAddress, _: u64, _: Access) -> Result<(), DomainError> {
        Ok(())
    }

    fn unmap(&self, _: Iova, _: u64) -> Result<(), DomainError> {
        Ok(())
    }

    fn unmap_all(&self, _: Iova, _: u64) -> Result<(), DomainError> {
        Ok(())
    }
}

impl HostBacking for Host {
    fn host_address(&self) -> HostAddress {
        HostAddress(0x7f00_0000_0000)
    }

    fn len_bytes(&self) -> u64 {
        RAM
    }
}

impl MsiRouter for Host {
    fn send(&self, _: MsiMessage) {}

    fn set_pin(&self, _: u8, _: Option<MsiMessage>) {}

    fn commit(&self) -> Result<(), RouteError> {
        Ok(())
    }

    fn route(&self) -> Result<Arc<dyn MsiRoute>, RouteError> {
        let (event, _) = pipe()?;
        Ok(Arc::new(Route(event)))
    }
}

impl VectorBinder for Host {
    fn bind(&self, _: u16, _: &[(u16, BorrowedFd<'_>)]) -> Result<(), BindError> {
        Ok(())
    }

    fn release(&self) {}
}

/// A route that leads nowhere; its event is any file.
struct Route(PipeReader);

impl MsiRoute for Route {
    fn set(&self, _: Option<MsiMessage>) {}

    fn commit(&self) -> Result<(), RouteError> {
        Ok(())
    }

    fn event(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn pending(&self) -> bool {
        false
    }

    fn discard(&self) -> bool {
        false
    }
}

//! The unit as a router that stands in front of the machine's.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::device::Vtd;
use super::interrupts::{Source, Way};
use crate::irq::{MsiMessage, MsiRoute, MsiRouter, RouteError};

/// A router for one source, with the unit in front of the machine's.
pub struct RemappingRouter {
    vtd: Arc<Vtd>,
    source: Source,
}

impl RemappingRouter {
    /// What `source` sends goes through `vtd`.
    pub fn new(vtd: Arc<Vtd>, source: Source) -> Arc<Self> {
        Arc::new(Self { vtd, source })
    }
}

impl MsiRouter for RemappingRouter {
    fn send(&self, message: MsiMessage) {
        self.vtd.lock().send(&self.source, message);
    }

    fn set_pin(&self, pin: u8, message: Option<MsiMessage>) {
        self.vtd.lock().interrupts.set_pin(pin, &self.source, message);
    }

    fn commit(&self) -> Result<(), RouteError> {
        self.vtd.lock().interrupts.commit()
    }

    fn route(&self) -> Result<Arc<dyn MsiRoute>, RouteError> {
        let way = self.vtd.lock().interrupts.route(&self.source)?;
        Ok(Arc::new(RemappedRoute {
            vtd: self.vtd.clone(),
            way,
        }))
    }
}

/// A route as its function sees it.
struct RemappedRoute {
    vtd: Arc<Vtd>,
    way: Arc<Way>,
}

impl MsiRoute for RemappedRoute {
    fn set(&self, message: Option<MsiMessage>) {
        self.vtd.lock().set_route(&self.way, message);
    }

    // Without the unit's lock: whoever translates the route again meanwhile commits it, too.
    fn commit(&self) -> Result<(), RouteError> {
        self.way.commit()
    }

    fn event(&self) -> BorrowedFd<'_> {
        self.way.event()
    }

    fn pending(&self) -> bool {
        self.way.pending()
    }

    fn discard(&self) -> bool {
        self.way.discard()
    }
}

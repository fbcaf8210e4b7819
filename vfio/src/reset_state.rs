//! What is known of a function's resets: how it is reset, and whether it needs to be.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::host::HostBdf;
use crate::reset::ResetMethod;
use crate::sys;

/// Of one open function.
pub(crate) struct ResetState {
    /// `VFIO_DEVICE_RESET` exists for it.
    is_resettable: bool,
    /// What sysfs says of that, the kernel's first choice first.
    kernel_methods: Vec<String>,
    /// Chosen when all devices are open, for some are reset together.
    method: OnceLock<ResetMethod>,
    /// The last reset worked.
    was_reset: AtomicBool,
    /// Nothing touched the function since then.
    is_fresh: AtomicBool,
}

impl ResetState {
    /// Of a function that was just opened: the kernel reset it (`vfio_pci_core_enable`), which a visit to D3hot does
    /// not do well enough.
    pub(crate) fn new(is_resettable: bool, kernel_methods: Vec<String>) -> Self {
        let is_fresh = is_resettable && kernel_methods.first().is_none_or(|method| method != "pm");
        Self {
            is_resettable,
            kernel_methods,
            method: OnceLock::new(),
            was_reset: AtomicBool::new(is_resettable),
            is_fresh: AtomicBool::new(is_fresh),
        }
    }

    /// How `bdf`, open as `device`, is reset, chosen and said at the first call. `groups` are ours.
    pub(crate) fn method(
        &self,
        bdf: HostBdf,
        device: BorrowedFd<'_>,
        groups: &BTreeSet<u32>,
    ) -> &ResetMethod {
        self.method.get_or_init(|| {
            let with_bus = sys::hot_reset_info(device).unwrap_or_default();
            let method = ResetMethod::choose(self.is_resettable, &self.kernel_methods, &with_bus, groups);
            match method {
                ResetMethod::Nothing(_) => {
                    log::warn!("{bdf} {method}: the guest gets it as it was left, and so does the next one");
                }
                _ => log::info!("{bdf} {method}"),
            }
            method
        })
    }

    /// A reset was tried.
    pub(crate) fn note(&self, worked: bool) {
        self.was_reset.store(worked, Ordering::Relaxed);
    }

    /// Whether nothing touched the function since its last reset.
    pub(crate) fn is_fresh(&self) -> bool {
        self.is_fresh.load(Ordering::Relaxed)
    }

    /// The same, and somebody is about to touch it.
    pub(crate) fn take_fresh(&self) -> bool {
        self.is_fresh.swap(false, Ordering::Relaxed)
    }

    /// The function's bus was reset, as far as it can be.
    pub(crate) fn set_fresh(&self, fresh: bool) {
        self.is_fresh.store(fresh, Ordering::Relaxed);
    }

    /// Its guest is gone: it is fresh if its last reset worked.
    pub(crate) fn retire(&self) {
        self.set_fresh(self.was_reset.load(Ordering::Relaxed));
    }
}

//! Drivers that the kernel treats apart when it looks whether a group may be given away.

/// Drivers whose devices the kernel lets be beside a user's: they do no DMA of their own
/// (`driver_managed_dma` since Linux 5.18, a list in `vfio_dev_driver_allowed` before).
const QUIET_DRIVERS: [&str; 2] = ["pci-stub", "pcieport"];

/// Whether a device of `driver` may stay beside those that are given away.
pub(crate) fn is_quiet_driver(driver: &str) -> bool {
    QUIET_DRIVERS.contains(&driver)
}

/// vfio-pci, and the drivers that are vfio-pci with something added (mlx5_vfio_pci, nvgrace-gpu-vfio-pci).
pub(crate) fn is_vfio_driver(driver: &str) -> bool {
    driver == "vfio-pci" || driver.ends_with("vfio_pci") || driver.ends_with("-vfio-pci")
}

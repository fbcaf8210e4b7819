//! The hot paths, each as something that can be done again and again: what a trapped access, an interrupt that is
//! masked, and a change of the guest's tables cost, with neither KVM nor VFIO behind them.
//!
//! [`ALL`] is gone through by `cargo bench -p strait-paths`, which takes the time, and by the program, whose
//! instructions `cargo lab test instruction-counts` holds against `counts.txt`.

#![forbid(unsafe_code)]

mod bus;
mod host;
mod messages;
mod unit;

/// One way through the code, and how it is made ready.
pub struct Path {
    /// Stays the same from version to version.
    pub name: &'static str,
    /// Builds what is gone through, which is not counted, and returns one pass of it.
    pub make: fn() -> Box<dyn FnMut()>,
}

/// All of them.
pub const ALL: [Path; 9] = [
    Path {
        name: "bus-lookup",
        make: bus::look_up,
    },
    Path {
        name: "config-read",
        make: bus::read_configuration,
    },
    Path {
        name: "config-write",
        make: bus::write_configuration,
    },
    Path {
        name: "msix-mask",
        make: messages::mask_and_unmask,
    },
    Path {
        name: "vtd-walk",
        make: || unit::walk(0),
    },
    Path {
        name: "vtd-walk-512",
        make: || unit::walk(9),
    },
    Path {
        name: "shadow-diff",
        make: || unit::map_and_unmap(0),
    },
    Path {
        name: "shadow-diff-512",
        make: || unit::map_and_unmap(9),
    },
    Path {
        name: "invalidation-batch",
        make: unit::batch,
    },
];

//! Measuring on a real host, as its owner does: the device goes to vfio-pci and comes back by `strait host`, the guest
//! is made of the host's own kernel, busybox and modules, and each VMM starts it by its own best command line.

mod at_work;
mod device;
mod guest;
mod image;
mod run;
mod vmms;
mod window;
mod work;

pub use run::{Options, measure};
pub use vmms::Peer;

//! What a host does wrong when it is written to.

/// Something that goes wrong at the `nth` write (from 0) to a file whose path ends in `file`.
pub struct Fault {
    /// End of the path.
    pub file: &'static str,
    /// How many such writes go well before.
    pub nth: u32,
    /// What happens instead of the write.
    pub does: Does,
}

/// How a write goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Does {
    /// The write fails with this errno.
    Fails(i32),
    /// The kernel does not come back, until [`super::FakeHost::finish_writes`].
    Hangs,
    /// The same, and the link to the driver is gone already (`__device_release_driver`).
    HangsHalfway(&'static str),
    /// The kernel needs so many seconds.
    Takes(u64),
    /// The write succeeds and nothing happens.
    Nothing,
    /// The device is pulled out.
    Unplugs(&'static str),
    /// Another program writes this into the file first.
    ComesSecond(&'static str),
    /// Another program binds the device to this driver first.
    Steals(&'static str, &'static str),
}

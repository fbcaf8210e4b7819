//! The value of `--status`.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::str::FromStr;

use rustix::fs::{OFlags, fcntl_getfl};

use crate::private_socket;

/// Where lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusTarget {
    /// A descriptor that this process was started with.
    Inherited(RawFd),
    /// A file, or a pipe that has a name.
    File(PathBuf),
}

impl FromStr for StatusTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true if text.is_empty() => {
                Err("the file has no name; give a path, or the number of a descriptor".to_owned())
            }
            true => match text.parse() {
                Ok(number) => private_socket::was_given(number).map(Self::Inherited),
                Err(_) => Err(format!(
                    "{text} is no descriptor; a file of that name is ./{text}"
                )),
            },
            false => Ok(Self::File(text.into())),
        }
    }
}

impl fmt::Display for StatusTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inherited(number) => number.fmt(f),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl StatusTarget {
    /// Opens it to be written.
    ///
    /// # Errors
    /// When it cannot be.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Inherited(number) => {
                let inherited = private_socket::inherited(*number)?;
                match fcntl_getfl(&inherited)? & OFlags::ACCMODE {
                    OFlags::RDONLY => Err(io::Error::other("this descriptor is open to be read only")),
                    _ => Ok(inherited),
                }
            }
            Self::File(path) => {
                let mut options = OpenOptions::new();
                options.write(true).create(true).truncate(true);
                options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
                let opened = match options.open(path) {
                    // A pipe that nobody reads yet (fifo(7)): what is written waits in it for who does.
                    Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                        options.truncate(false).create(false).read(true).open(path)
                    }
                    opened => opened,
                };
                Ok(opened?.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_descriptor_and_all_else_a_path() {
        assert_eq!("1".parse(), Ok(StatusTarget::Inherited(1)));
        assert_eq!("./3".parse(), Ok(StatusTarget::File("./3".into())));
        assert_eq!("/run/s".parse(), Ok(StatusTarget::File("/run/s".into())));
        assert!("".parse::<StatusTarget>().is_err());
        let refused = "99999999999".parse::<StatusTarget>().expect_err("no descriptor");
        assert!(
            refused.ends_with("a file of that name is ./99999999999"),
            "{refused}"
        );
    }

    #[test]
    fn a_descriptor_that_is_not_open_or_cannot_be_written_is_refused() {
        use std::os::fd::AsRawFd as _;
        assert!(StatusTarget::Inherited(98_765).open().is_err());
        let (reader, writer) = io::pipe().expect("a pipe");
        let refused = StatusTarget::Inherited(reader.as_raw_fd())
            .open()
            .expect_err("a reader");
        assert!(refused.to_string().contains("to be read only"));
        StatusTarget::Inherited(writer.as_raw_fd())
            .open()
            .expect("a writer");
    }
}

//! Writing to a descriptor without waiting for whoever reads it.
//!
//! The descriptor is shared with the shell that started us and with the other programs of a pipeline:
//! `O_NONBLOCK` on it would be theirs too, so it is never set there.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;

/// The bytes that a pipe takes at least when poll calls it ready: one page (Linux, fs/pipe.c: `pipe_poll`).
const PIPE_ROOM: usize = 4096;
/// The bytes that anything else takes at least when poll calls it ready.
const ROOM: usize = 1;

/// A file, pipe, terminal or socket with the way to write to it without waiting.
pub(crate) struct Target {
    fd: OwnedFd,
    way: Way,
}

/// The means by which a write to a descriptor never waits.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// A plain write: the file never makes anyone wait, or has O_NONBLOCK on a description of our own.
    Write,
    /// MSG_DONTWAIT with every message, which a socket takes.
    Send,
    /// A poll before every write, which is then not longer than this: the file cannot be opened a second time.
    Ask(usize),
}

impl Target {
    /// The file behind `shared`, written without ever waiting. A pipe or a terminal is opened a second time, for
    /// a description of our own; where that is refused (the terminal of another user after `su`, no /proc) it
    /// is asked first whether it has room. A regular file keeps the offset that others share.
    ///
    /// # Errors
    /// When the host gives no more descriptors.
    pub(crate) fn unwaiting(shared: BorrowedFd<'_>) -> io::Result<Self> {
        let file = File::from(shared.try_clone_to_owned()?);
        let kind = file.metadata()?.file_type();
        let (fd, way) = match () {
            () if kind.is_file() || kind.is_block_device() => (file.into(), Way::Write),
            () if kind.is_socket() => (file.into(), Way::Send),
            () => match open_again(shared) {
                Ok(own) => (own.into(), Way::Write),
                Err(_) if kind.is_fifo() => (file.into(), Way::Ask(PIPE_ROOM)),
                Err(_) => (file.into(), Way::Ask(ROOM)),
            },
        };
        Ok(Self { fd, way })
    }

    /// Writes as much of `bytes` as there is room for now, and says how much that was.
    ///
    /// # Errors
    /// When the file refuses them for another reason than a lack of room.
    pub(crate) fn offer(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.write(&bytes[taken..]) {
                Ok(0) => return Err(Errno::IO),
                Ok(len) => taken += len,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) if taken == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(taken)
    }

    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match self.way {
            Way::Write => rustix::io::write(&self.fd, bytes),
            Way::Send => rustix::net::send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Way::Ask(room) => match self.has_room()? {
                true => rustix::io::write(&self.fd, &bytes[..bytes.len().min(room)]),
                false => Err(Errno::AGAIN),
            },
        }
    }

    /// An error is room too: the write then says which.
    fn has_room(&self) -> Result<bool, Errno> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        Ok(poll(&mut fds, Some(&Timespec::default()))? > 0)
    }
}

impl AsFd for Target {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open_again(shared: BorrowedFd<'_>) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", shared.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    const LOTS: &[u8] = &[b'x'; 1 << 20];

    /// Fills it to the brim twice, and says how much the first time took.
    fn fill(target: &Target) -> usize {
        let taken = target.offer(LOTS).expect("open");
        assert_eq!(target.offer(LOTS), Ok(0), "it was full");
        taken
    }

    #[test]
    fn a_full_pipe_takes_what_fits_and_stays_blocking_for_others() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let target = Target::unwaiting(writer.as_fd()).expect("a descriptor");
        assert_eq!(target.way, Way::Write);
        let taken = fill(&target);
        reader.read_exact(&mut vec![0; taken]).expect("all of it");
        assert_eq!(target.offer(b"more"), Ok(4));
        // Theirs is still one that waits: a flag set there would be seen here.
        let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", writer.as_raw_fd()))
            .expect("the descriptor's flags");
        let flags = flags
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .expect("flags");
        let flags = i32::from_str_radix(flags.trim(), 8).expect("octal");
        assert_eq!(flags & libc::O_NONBLOCK, 0);
    }

    #[test]
    fn a_pipe_that_cannot_be_opened_again_is_asked_for_room() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let target = Target {
            fd: writer.into(),
            way: Way::Ask(PIPE_ROOM),
        };
        let taken = fill(&target);
        reader.read_exact(&mut vec![0; taken]).expect("all of it");
        assert_eq!(target.offer(b"more"), Ok(4));
    }

    #[test]
    fn a_socket_takes_what_fits() {
        let (mut reader, writer) = UnixStream::pair().expect("sockets");
        let target = Target::unwaiting(writer.as_fd()).expect("a descriptor");
        assert_eq!(target.way, Way::Send);
        let taken = fill(&target);
        reader.read_exact(&mut vec![0; taken]).expect("all of it");
        assert_eq!(target.offer(b"more"), Ok(4));
    }

    #[test]
    fn a_file_keeps_the_offset_that_others_share() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"before ").expect("written");
        let target = Target::unwaiting(file.as_fd()).expect("a descriptor");
        assert_eq!(target.offer(b"ours "), Ok(5));
        file.write_all(b"after").expect("written");
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).expect("the start");
        file.read_to_string(&mut text).expect("text");
        assert_eq!(text, "before ours after");
    }

    #[test]
    fn a_closed_reader_is_an_error() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let target = Target::unwaiting(writer.as_fd()).expect("a descriptor");
        drop(reader);
        assert_eq!(target.offer(b"x"), Err(Errno::PIPE));
    }
}

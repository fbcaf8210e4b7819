//! The limit of files that this process may open. Each interrupt vector of a passed device is an event of its own, and
//! an event is an open file: a few devices with hundreds of vectors need more than the usual soft limit of 1,024.

use std::{fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are opened for each device beside its vectors: the wire's event.
const FILES_PER_DEVICE: u64 = 1;

/// The soft limit raised to the hard one. Dropped, it puts the former limit back: a program that this one starts
/// before and after may be an old one that cannot cope with numbers above 1,024 (select(2)).
#[derive(Debug)]
pub struct OpenFiles {
    former: Rlimit,
}

impl OpenFiles {
    /// Raises the soft limit to the hard one; where the kernel refuses, a warning says so and the limit stays.
    pub fn raise() -> Self {
        let former = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: former.maximum,
            ..former
        };
        if let Err(errno) = setrlimit(Resource::Nofile, raised) {
            log::warn!(
                "The limit of open files stays at {}: {errno}",
                number(former.current)
            );
        }
        Self { former }
    }
}

/// Warns if devices with these numbers of interrupt vectors, none of which is in use, may need more files than are left to
/// open.
pub fn check(vectors: &[u32]) {
    // What cannot be counted is told by the vector that finds no room.
    let open = fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64);
    if let Some(text) = shortage(getrlimit(Resource::Nofile).current, open, vectors) {
        log::warn!("{text}");
    }
}

impl Drop for OpenFiles {
    fn drop(&mut self) {
        // Nothing was raised then, or somebody lowered the hard limit meanwhile.
        let _ = setrlimit(Resource::Nofile, self.former);
    }
}

fn shortage(limit: Option<u64>, open: u64, vectors: &[u32]) -> Option<String> {
    let limit = limit?;
    let wanted: u64 = vectors
        .iter()
        .map(|count| u64::from(*count) + FILES_PER_DEVICE)
        .sum();
    let needed = open + wanted;
    (needed > limit).then(|| {
        format!(
            "The interrupts of {} passed devices may take {wanted} open files beside {open} others, and {limit} are \
             allowed; vectors beyond that will not work. Raise the hard limit to {needed} (ulimit -Hn, LimitNOFILE= \
             of the service)",
            vectors.len()
        )
    })
}

/// A hint for `error`, empty unless it says that no more files can be opened.
pub(crate) fn hint(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EMFILE) => format!(
            ", for all {} files that this process may open are open; raise the hard limit (ulimit -Hn, LimitNOFILE= of \
             the service)",
            number(getrlimit(Resource::Nofile).current)
        ),
        _ => String::new(),
    }
}

fn number(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_the_hard_one_while_it_lasts() {
        let before = getrlimit(Resource::Nofile);
        let low = Rlimit {
            current: Some(512),
            maximum: before.maximum,
        };
        setrlimit(Resource::Nofile, low).expect("lowered");
        let raised = OpenFiles::raise();
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
        drop(raised);
        assert_eq!(getrlimit(Resource::Nofile), low);
        setrlimit(Resource::Nofile, before).expect("raised");
    }

    #[test]
    fn what_is_not_enough_is_said_with_the_number_that_is() {
        let text = shortage(Some(1024), 40, &[1025, 129]).expect("1196 are more than 1024");
        assert!(
            text.contains("may take 1156 open files beside 40 others, and 1024 are allowed"),
            "{text}"
        );
        assert!(text.contains("Raise the hard limit to 1196"), "{text}");
        assert_eq!(shortage(Some(1196), 40, &[1025, 129]), None);
        assert_eq!(shortage(None, 40, &[u32::MAX]), None);
    }

    #[test]
    fn a_full_table_is_explained_and_nothing_else() {
        let hint = |number| hint(&io::Error::from_raw_os_error(number));
        assert!(hint(libc::EMFILE).contains("raise the hard limit"));
        assert_eq!(hint(libc::ENOMEM), "");
    }
}

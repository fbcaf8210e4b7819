//! How a function is reset: by itself, or with its whole bus.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use crate::host::HostBdf;
use crate::sys::{self, Dependent};

/// What resets a function, the most thorough way there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ResetMethod {
    /// `VFIO_DEVICE_RESET`, for which the kernel uses this of its methods (`reset_method` in sysfs).
    Function(String),
    /// A reset of its bus, and of these functions with it, of which this process has the groups.
    Bus(Vec<HostBdf>),
    /// There is none, and the bus is not ours because of these functions.
    Nothing(Vec<HostBdf>),
}

impl ResetMethod {
    /// Chooses for a function. `is_resettable` and `methods` are what kernel and sysfs say of it, `with_bus`
    /// are the functions that a bus reset takes along, where one exists, `groups` the groups that are ours.
    ///
    /// The kernel's method `pm`, a visit to D3hot, comes last: it leaves much as it was in many devices.
    pub(crate) fn choose(
        is_resettable: bool,
        methods: &[String],
        with_bus: &[Dependent],
        groups: &BTreeSet<u32>,
    ) -> Self {
        let foreign: Vec<HostBdf> = with_bus
            .iter()
            .filter(|function| !groups.contains(&function.group))
            .map(name)
            .collect();
        let owns_bus = !with_bus.is_empty() && foreign.is_empty();
        let method = methods
            .first()
            .map_or("a method it does not name", String::as_str);
        match is_resettable {
            true if method == "pm" && owns_bus => Self::Bus(with_bus.iter().map(name).collect()),
            true => Self::Function(method.to_owned()),
            false if owns_bus => Self::Bus(with_bus.iter().map(name).collect()),
            false => Self::Nothing(foreign),
        }
    }

    /// True where a reset concerns no function but `bdf`.
    pub(crate) fn is_alone(&self, bdf: HostBdf) -> bool {
        match self {
            Self::Function(_) => true,
            Self::Bus(functions) => functions.iter().all(|other| *other == bdf),
            Self::Nothing(_) => false,
        }
    }
}

impl fmt::Display for ResetMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |functions: &[HostBdf]| {
            let names: Vec<String> = functions.iter().map(HostBdf::to_string).collect();
            names.join(", ")
        };
        match self {
            Self::Function(method) => write!(f, "is reset by the kernel with {method}"),
            Self::Bus(functions) => write!(f, "is reset with its bus, that is {}", list(functions)),
            Self::Nothing(foreign) if foreign.is_empty() => f.write_str("has no way to be reset"),
            Self::Nothing(foreign) => write!(
                f,
                "can be reset only with its bus, which it shares with {}; give these to vfio-pci and pass them too",
                list(foreign)
            ),
        }
    }
}

fn name(function: &Dependent) -> HostBdf {
    HostBdf {
        domain: function.segment.into(),
        bus: function.bus,
        device: function.devfn >> 3,
        function: function.devfn & 7,
    }
}

/// Resets the bus of `device`. The kernel wants the files of all groups on it, each once, as the proof that
/// they are ours; `groups` may name one more than once.
pub(crate) fn reset_bus(device: BorrowedFd<'_>, groups: &[BorrowedFd<'_>]) -> io::Result<()> {
    let files: BTreeSet<RawFd> = groups.iter().map(AsRawFd::as_raw_fd).collect();
    sys::hot_reset(device, &files.into_iter().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dependent(group: u32, devfn: u8) -> Dependent {
        Dependent {
            group,
            segment: 0,
            bus: 5,
            devfn,
        }
    }

    fn choose(is_resettable: bool, method: &str, with_bus: &[Dependent]) -> ResetMethod {
        let methods: Vec<String> = method.split_whitespace().map(str::to_owned).collect();
        ResetMethod::choose(is_resettable, &methods, with_bus, &BTreeSet::from([7]))
    }

    #[test]
    fn a_reset_of_the_function_alone_comes_first() {
        let chosen = choose(true, "flr pm bus", &[dependent(7, 0), dependent(7, 1)]);
        assert_eq!(chosen, ResetMethod::Function("flr".to_owned()));
        assert_eq!(chosen.to_string(), "is reset by the kernel with flr");
    }

    #[test]
    fn a_bus_that_is_ours_is_better_than_a_power_state() {
        let chosen = choose(true, "pm", &[dependent(7, 0), dependent(7, 1)]);
        assert_eq!(
            chosen.to_string(),
            "is reset with its bus, that is 0000:05:00.0, 0000:05:00.1"
        );
        assert!(!chosen.is_alone("05:00.0".parse().expect("a name")));
        assert_eq!(
            choose(true, "pm", &[dependent(7, 0), dependent(8, 1)]),
            ResetMethod::Function("pm".to_owned())
        );
    }

    #[test]
    fn without_a_reset_of_its_own_the_bus_must_be_ours() {
        let chosen = choose(false, "", &[dependent(7, 0)]);
        assert!(chosen.is_alone("05:00.0".parse().expect("a name")));
        let chosen = choose(false, "", &[dependent(7, 0), dependent(8, 8)]);
        assert_eq!(
            chosen.to_string(),
            "can be reset only with its bus, which it shares with 0000:05:01.0; give these to vfio-pci and pass \
             them too"
        );
        assert_eq!(choose(false, "", &[]).to_string(), "has no way to be reset");
    }

    #[test]
    fn a_host_that_does_not_name_its_methods_is_believed() {
        assert!(matches!(choose(true, "", &[]), ResetMethod::Function(_)));
    }
}

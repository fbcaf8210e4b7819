//! Which root port each passed device stands behind, and as which function.

use std::io;

use strait_vfio::host::{HostBdf, Root};

use crate::config::DeviceConfig;

/// The place of a passed function in the guest: device 0 behind a root port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    /// Number of the root port, from 1 on.
    pub(super) port: u8,
    /// Number of the function behind its port, 0 to 7.
    pub(super) function: u8,
    /// Other functions sit behind the same port.
    pub(super) is_shared: bool,
}

/// Where one device comes from.
#[derive(Clone, Copy, Debug)]
struct Origin {
    /// The function on the host.
    bdf: HostBdf,
    /// It is a virtual function: a device of its own, whatever its number looks like.
    is_virtual: bool,
}

impl Origin {
    fn slot(self) -> (u32, u8, u8) {
        (self.bdf.domain, self.bdf.bus, self.bdf.device)
    }

    fn is_beside(self, other: Self) -> bool {
        self.slot() == other.slot() && !self.is_virtual && !other.is_virtual
    }
}

/// Where each device will sit.
///
/// # Errors
/// When the host cannot be asked which of them are virtual functions.
pub(super) fn seated(configs: &[DeviceConfig]) -> io::Result<Vec<(&DeviceConfig, Seat)>> {
    let root = Root::real();
    let origin = |config: &DeviceConfig| {
        let device = root.device(config.host)?;
        Ok(Origin {
            bdf: config.host,
            is_virtual: device.is_some_and(|device| device.is_virtual),
        })
    };
    let origins: Vec<_> = configs.iter().map(origin).collect::<io::Result<_>>()?;
    Ok(configs.iter().zip(seats(&origins)).collect())
}

/// Functions of one device keep together, behind one port and with their numbers, as drivers of graphics
/// cards with sound expect. That needs function 0, without which a guest looks for no other (PCIe §7.5.1.1.9);
/// where it is not passed, each of them is function 0 behind a port of its own.
fn seats(origins: &[Origin]) -> Vec<Seat> {
    let keeps_together = |origin: Origin| {
        let others = || origins.iter().filter(|other| origin.is_beside(**other));
        others().count() > 1 && others().any(|other| other.bdf.function == 0)
    };
    let mut ports: Vec<Origin> = Vec::new();
    let mut seats = Vec::new();
    for &origin in origins {
        let is_shared = keeps_together(origin);
        let known = ports
            .iter()
            .position(|other| is_shared && other.is_beside(origin));
        let port = known.unwrap_or_else(|| {
            ports.push(origin);
            ports.len() - 1
        });
        seats.push(Seat {
            port: port as u8 + 1,
            function: if is_shared { origin.bdf.function } else { 0 },
            is_shared,
        });
    }
    seats
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(name: &str) -> Origin {
        Origin {
            bdf: name.parse().expect("a name"),
            is_virtual: false,
        }
    }

    /// Port and function of each.
    fn places(names: &[&str]) -> Vec<(u8, u8)> {
        let origins: Vec<_> = names.iter().map(|name| origin(name)).collect();
        let seats = seats(&origins);
        seats.iter().map(|seat| (seat.port, seat.function)).collect()
    }

    #[test]
    fn devices_of_their_own_have_ports_of_their_own() {
        assert_eq!(
            places(&["01:00.0", "02:00.0", "1:01:00.0"]),
            [(1, 0), (2, 0), (3, 0)]
        );
    }

    #[test]
    fn functions_of_a_device_keep_together_in_any_order() {
        let seats = places(&["05:00.1", "01:00.0", "05:00.0", "05:00.3"]);
        assert_eq!(seats, [(1, 1), (2, 0), (1, 0), (1, 3)]);
    }

    #[test]
    fn without_function_0_each_is_one() {
        assert_eq!(places(&["05:00.1", "05:00.2"]), [(1, 0), (2, 0)]);
        assert_eq!(places(&["05:00.1"]), [(1, 0)]);
    }

    #[test]
    fn virtual_functions_are_devices_of_their_own() {
        let virtual_function = |name| Origin {
            is_virtual: true,
            ..origin(name)
        };
        let origins = [virtual_function("01:10.0"), virtual_function("01:10.2")];
        let seats = seats(&origins);
        assert!(seats.iter().all(|seat| seat.function == 0 && !seat.is_shared));
        assert_eq!(seats[1].port, 2);
    }
}

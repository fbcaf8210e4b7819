//! Values that are typed.

use std::net::{SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::ops::RangeInclusive;

/// Where iperf3 listens unless it is told.
const IPERF_PORT: u16 = 5201;

/// How often each VMM is started.
pub(crate) fn rounds(text: &str) -> Result<u32, String> {
    number(text, 1..=1000).map(|rounds| rounds as u32)
}

/// What a guest may take, up to a day.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    number(text, 1..=86_400)
}

/// A server by its address or name, perhaps with a port. A guest is given an IPv4 address, and has no names.
pub(crate) fn server(text: &str) -> Result<SocketAddrV4, String> {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => {
            let port = port.parse().ok().filter(|port| *port != 0);
            (host, port.ok_or("is not HOST or HOST:PORT")?)
        }
        None => (text, IPERF_PORT),
    };
    let found = (host, port).to_socket_addrs();
    let mut found = found.map_err(|error| format!("is not found: {error}"))?;
    let address = found.find_map(|address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    });
    address.ok_or_else(|| "has no IPv4 address".to_owned())
}

fn number(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("is not a whole number from {} to {}", range.start(), range.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_with_or_without_a_port() {
        let at = |text: &str| server(text).map(|address| address.to_string());
        assert_eq!(at("10.0.2.2"), Ok("10.0.2.2:5201".to_owned()));
        assert_eq!(at("10.0.2.2:80"), Ok("10.0.2.2:80".to_owned()));
        for text in ["10.0.2.2:", "10.0.2.2:0", "10.0.2.2:x", "::1"] {
            assert_eq!(at(text), Err("is not HOST or HOST:PORT".to_owned()));
        }
        assert!(at("").is_err());
    }

    #[test]
    fn what_is_no_number_of_the_range_is_told_the_range() {
        assert_eq!((rounds("1000"), seconds("86400")), (Ok(1000), Ok(86_400)));
        for text in ["0", "1001", "-1", "x", "", "1.5", "99999999999999999999"] {
            assert_eq!(
                rounds(text),
                Err("is not a whole number from 1 to 1000".to_owned()),
                "{text}"
            );
        }
    }
}

//! Names of the host's PCI functions, in every form that tools print them.

use std::fmt;
use std::str::FromStr;

/// Domain, bus, device and function on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostBdf {
    /// PCI domain. Above 16 bits for the buses behind Intel VMD.
    pub domain: u32,
    /// Number of the bus in its domain.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

/// A text that names no PCI function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a PCI device; it looks like 0000:01:00.0, 01:00.0, pci_0000_01_00_0, or a path below \
     /sys/bus/pci/devices"
)]
pub struct ParseBdfError(pub String);

impl fmt::Display for HostBdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

impl FromStr for HostBdf {
    type Err = ParseBdfError;

    /// Takes `0000:01:00.0`, `01:00.0`, libvirt's `pci_0000_01_00_0`, and a sysfs path that ends in one.
    fn from_str(text: &str) -> Result<Self, ParseBdfError> {
        let name = text.trim_end_matches('/').rsplit('/').next().unwrap_or(text);
        let fields: Vec<&str> = match name.strip_prefix("pci_") {
            Some(rest) => rest.split('_').collect(),
            None => split(name).ok_or_else(|| ParseBdfError(text.to_owned()))?,
        };
        from_fields(&fields).ok_or_else(|| ParseBdfError(text.to_owned()))
    }
}

/// Domain if there is one, bus, device, function.
fn split(name: &str) -> Option<Vec<&str>> {
    let (address, function) = name.rsplit_once('.')?;
    let mut fields: Vec<&str> = address.split(':').collect();
    fields.push(function);
    Some(fields)
}

fn from_fields(fields: &[&str]) -> Option<HostBdf> {
    let (domain, bus, device, function) = match fields {
        [bus, device, function] => ("0", bus, device, function),
        [domain, bus, device, function] => (*domain, bus, device, function),
        _ => return None,
    };
    let bdf = HostBdf {
        domain: hex(domain, 8)?,
        bus: u8::try_from(hex(bus, 2)?).ok()?,
        device: u8::try_from(hex(device, 2)?).ok()?,
        function: u8::try_from(hex(function, 1)?).ok()?,
    };
    (bdf.device < 32 && bdf.function < 8).then_some(bdf)
}

/// One to `max` hexadecimal digits and nothing else; `from_str_radix` alone would take a sign.
fn hex(text: &str, max: usize) -> Option<u32> {
    let plain = (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NIC: HostBdf = HostBdf {
        domain: 0,
        bus: 1,
        device: 0,
        function: 0,
    };

    #[test]
    fn takes_every_usual_form() {
        let forms = [
            "0000:01:00.0",
            "01:00.0",
            "1:0.0",
            "pci_0000_01_00_0",
            "/sys/bus/pci/devices/0000:01:00.0",
            "/sys/bus/pci/devices/0000:01:00.0/",
            "/sys/devices/pci0000:00/0000:00:1c.0/0000:01:00.0",
        ];
        let parsed: Vec<_> = forms.iter().map(|form| form.parse()).collect();
        assert_eq!(parsed, vec![Ok(NIC); forms.len()]);
    }

    #[test]
    fn takes_large_domains_and_upper_case() {
        let expected = HostBdf {
            domain: 0x10000,
            bus: 0xe1,
            device: 0x1f,
            function: 7,
        };
        assert_eq!("10000:E1:1F.7".parse(), Ok(expected));
        assert_eq!(expected.to_string(), "10000:e1:1f.7");
    }

    #[test]
    fn refuses_what_is_no_device() {
        let wrong = [
            "",
            "/",
            "01",
            "01:00",
            "01:00.8",
            "01:20.0",
            "100:00.0",
            "0000:01:00.0.0",
            "a:b:01:00.0",
            "eth0",
            "+1:00.0",
            "-1:00.0",
            "01:00.0 ",
            "pci_0000_01_00",
            "pci_",
            "0000:01:00.",
            "::.",
            "01:00.10",
        ];
        let accepted: Vec<_> = wrong
            .iter()
            .filter(|text| text.parse::<HostBdf>().is_ok())
            .collect();
        assert!(accepted.is_empty(), "{accepted:?}");
    }

    proptest! {
        #[test]
        fn prints_what_it_parses(domain: u32, bus: u8, device in 0u8..32, function in 0u8..8) {
            let bdf = HostBdf { domain, bus, device, function };
            prop_assert_eq!(bdf.to_string().parse(), Ok(bdf));
        }

        #[test]
        fn never_panics(text in ".*") {
            let _ = text.parse::<HostBdf>();
        }
    }
}

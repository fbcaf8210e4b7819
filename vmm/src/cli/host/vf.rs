//! `strait host vf`.

use std::time::Duration;
use strait_vfio::host::Host;

use clap::Args;
use strait_vfio::host::{
    self, HostBdf, Inventory, Request, SriovError, Use, VfLink, VirtualFunction, set_links,
    set_virtual_functions,
};

use super::find::find_all;
use crate::cli::failure::Failure;
use crate::cli::screen::{Screen, Tone};

/// How often it is told how far a slow driver is.
const PROGRESS_SECONDS: u64 = 5;

/// Largest VLAN; 4095 is reserved (IEEE 802.1Q §9.6).
const MAX_VLAN: i64 = 4094;

/// Set the number of a device's virtual functions and show them.
#[derive(Debug, Args)]
#[command(after_help = "Virtual functions of a NIC work only while the NIC itself is up on the host.")]
pub(super) struct VfArgs {
    /// The physical function: an address, vendor:device or a network interface.
    #[arg(value_name = "DEVICE")]
    device: String,
    /// How many virtual functions; 0 takes them away.
    #[arg(value_name = "N")]
    count: u32,
    /// Give them to vfio-pci.
    #[arg(long)]
    bind: bool,
    /// Their addresses, the first function's first.
    #[arg(long, value_name = "MAC,...", value_delimiter = ',', value_parser = mac)]
    mac: Vec<[u8; 6]>,
    /// Their VLANs, the first function's first; 0 for none.
    #[arg(long, value_name = "ID,...", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(0..=MAX_VLAN))]
    vlan: Vec<u16>,
    /// Take away virtual functions that the host uses; those of guests stay.
    #[arg(long)]
    force: bool,
}

impl VfArgs {
    pub(super) fn run(self, host: Host<'_>, screen: &mut Screen<'_>) -> Result<u8, Failure> {
        let links = self.links()?;
        let devices = find_all(host.root, std::slice::from_ref(&self.device))?;
        let [physical] = devices[..] else {
            return Err(Failure::usage("exactly one physical function is needed"));
        };
        let mut progress = |there: u32, waited: Duration| {
            let (seconds, wanted) = (waited.as_secs(), self.count);
            if seconds % PROGRESS_SECONDS == 0 {
                let text =
                    format!("after {seconds} s there are {there} virtual functions, {wanted} are wanted");
                // Who has gone away does not miss it.
                let _ = screen.line(text);
            }
        };
        let made = set_virtual_functions(host, physical, self.count, self.force, &mut progress);
        let made = made.map_err(|error| match error {
            SriovError::TooMany { .. } => Failure::usage(error.to_string()),
            error => error.into(),
        })?;
        set_links(host, physical, &links)?;
        if self.bind && !made.is_empty() {
            bind(host, &made)?;
        }
        for (index, function) in made.iter().enumerate() {
            let link = links.get(index).copied().unwrap_or_default();
            screen.line(self.describe(screen, index, function, link))?;
        }
        if made.is_empty() {
            screen.line(format!("{physical} has no virtual functions now"))?;
        } else {
            warn_if_down(host, screen, physical)?;
        }
        Ok(0)
    }

    /// The n-th address with the n-th VLAN.
    fn links(&self) -> Result<Vec<VfLink>, Failure> {
        let given = self.mac.len().max(self.vlan.len());
        if given > self.count as usize {
            let message = format!(
                "{given} addresses or VLANs are given for {} virtual functions; leave some out",
                self.count
            );
            return Err(Failure::usage(message));
        }
        let link = |index| VfLink {
            mac: self.mac.get(index).copied(),
            vlan: self.vlan.get(index).copied(),
        };
        Ok((0..given).map(link).collect())
    }

    fn describe(
        &self,
        screen: &Screen<'_>,
        index: usize,
        function: &VirtualFunction,
        link: VfLink,
    ) -> String {
        let set = link
            .mac
            .map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
        let mac = set
            .or_else(|| function.mac.clone())
            .unwrap_or_else(|| "not shown".to_owned());
        let group = function
            .group
            .map_or_else(|| "no group".to_owned(), |group| format!("group {group}"));
        let driver = match self.bind {
            true => "vfio-pci",
            false => function.driver.as_deref().unwrap_or("no driver"),
        };
        let bdf = screen.paint(Tone::Heading, &function.bdf.to_string());
        let mut text = format!("VF {index}  {bdf}  {group}  MAC {mac}  {driver}");
        if let Some(vlan) = link.vlan {
            text += &format!("  VLAN {vlan}");
        }
        if let (Some(interface), false) = (&function.interface, self.bind) {
            text += &format!("  {interface}");
        }
        text
    }
}

/// New functions are in no use that would matter, but udev may have brought their interfaces up.
fn bind(host: Host<'_>, functions: &[VirtualFunction]) -> Result<(), Failure> {
    let request = Request {
        devices: functions.iter().map(|function| function.bdf).collect(),
        group: false,
        driver: "vfio-pci".to_owned(),
        force: false,
        save: false,
        dma_entries: None,
        owner: None,
    };
    let plan = host::plan(host, request)?;
    Ok(host::bind(host, &plan)?)
}

fn warn_if_down(host: Host<'_>, screen: &mut Screen<'_>, physical: HostBdf) -> Result<(), Failure> {
    let functions = Inventory::read(host)?.functions;
    let Some(function) = functions.iter().find(|function| function.pci.bdf == physical) else {
        return Ok(());
    };
    let up = function.uses.iter().any(|one| {
        matches!(
            one,
            Use::InterfaceUp { .. } | Use::Address { .. } | Use::DefaultRoute { .. }
        )
    });
    if let (Some(interface), false) = (function.interfaces.first(), up) {
        let text = format!("{interface} is down, so they do not work yet: ip link set {interface} up");
        screen.line(screen.paint(Tone::Warning, &text))?;
    }
    Ok(())
}

/// Six bytes with colons; the lowest bit of the first one marks groups, which no device may have.
fn mac(text: &str) -> Result<[u8; 6], String> {
    let digits = |part: &str| match part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => u8::from_str_radix(part, 16).ok(),
        false => None,
    };
    let bytes: Option<Vec<u8>> = text.split(':').map(digits).collect();
    let bytes: Option<[u8; 6]> = bytes.and_then(|bytes| bytes.try_into().ok());
    match bytes {
        None => Err("an address is written 52:54:00:12:34:56".to_owned()),
        Some(bytes) if bytes[0] & 1 == 1 => Err("it is the address of a group, not of a device".to_owned()),
        Some([0, 0, 0, 0, 0, 0]) => Err("it is no address".to_owned()),
        Some(bytes) => Ok(bytes),
    }
}

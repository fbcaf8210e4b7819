//! How often passed devices signalled. Their interrupts run no line of this program: the host's kernel counts them, and is asked
//! when somebody wants to know.

use std::fs;

use serde_json::{Value, json};
use strait_vfio::host::HostBdf;

/// /proc/interrupts at a moment: a line for each interrupt of the host, with a count for each CPU.
pub(in crate::machine) struct Interrupts(String);

impl Interrupts {
    /// What the kernel counted until now, if it tells.
    pub(in crate::machine) fn read() -> Option<Self> {
        fs::read_to_string("/proc/interrupts").ok().map(Self)
    }

    /// Those of one function since each was set up, in the order of their vectors.
    pub(in crate::machine) fn of(&self, device: HostBdf) -> Value {
        let name = format!("({device})");
        let mut found: Vec<_> = self.0.lines().filter_map(|line| parse(line, &name)).collect();
        found.sort_unstable();
        let told = found.into_iter();
        told.map(|(kind, vector, count)| json!({"kind": kind, "vector": vector, "count": count}))
            .collect()
    }
}

/// ` 45:  12  0  PCI-MSIX-0000:01:00.0  3-edge  vfio-msix[3](0000:01:00.0)`; a wire has no number, and may have other
/// names beside its own, with which it is shared (drivers/vfio/pci/vfio_pci_intrs.c).
fn parse<'a>(line: &'a str, device: &str) -> Option<(&'a str, u32, u64)> {
    let (_, rest) = line.split_once(':')?;
    let counts = rest.split_whitespace().map_while(|word| word.parse::<u64>().ok());
    let mut names = rest.split_whitespace().map(|word| word.trim_end_matches(','));
    let name = names.find_map(|name| name.strip_prefix("vfio-")?.strip_suffix(device))?;
    let (kind, vector) = match name.split_once('[') {
        Some((kind, vector)) => (kind, vector.strip_suffix(']')?.parse().ok()?),
        None => (name, 0),
    };
    Some((kind, vector, counts.sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "            CPU0       CPU1
   1:          9          0   IO-APIC    1-edge      i8042
  16:        100         11   IO-APIC   16-fasteoi   ehci_hcd:usb1, vfio-intx(0000:00:1f.3)
  45:          1          0   PCI-MSIX-0000:01:00.0  10-edge   vfio-msix[10](0000:01:00.0)
  46:         12         30   PCI-MSIX-0000:01:00.0   2-edge   vfio-msix[2](0000:01:00.0)
  47:          7          7   PCI-MSI-0000:01:00.1    0-edge   vfio-msi[0](0000:01:00.1)
 NMI:          3          4   Non-maskable interrupts
";

    fn of(device: &str) -> Value {
        Interrupts(TEXT.to_owned()).of(device.parse().expect("an address"))
    }

    #[test]
    fn vectors_are_summed_over_the_cpus_and_in_their_order() {
        assert_eq!(
            of("0000:01:00.0"),
            json!([{"kind": "msix", "vector": 2, "count": 42}, {"kind": "msix", "vector": 10, "count": 1}])
        );
        assert_eq!(
            of("0000:01:00.1"),
            json!([{"kind": "msi", "vector": 0, "count": 14}])
        );
        assert_eq!(of("0000:01:00.2"), json!([]));
    }

    #[test]
    fn a_wire_is_found_among_those_that_share_it() {
        assert_eq!(
            of("0000:00:1f.3"),
            json!([{"kind": "intx", "vector": 0, "count": 111}])
        );
    }
}

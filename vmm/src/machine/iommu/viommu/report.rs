//! What the virtual IOMMU did, for people and for scripts: `name: value` lines.

use std::collections::BTreeSet;

use strait_devices::iommu::vtd::{DeviceStats, Latency, Translation, VtdStats};

/// All numbers. Those of one device begin with its address in the guest.
pub(super) fn report(stats: &VtdStats) -> String {
    let asked = stats.invalidations;
    let domains: BTreeSet<u16> = stats.devices.iter().filter_map(domain).collect();
    let sum = |number: fn(&DeviceStats) -> u64| stats.devices.iter().map(number).sum::<u64>();
    let numbers = [
        ("context invalidations", asked.contexts),
        ("domain invalidations", asked.domains),
        ("page invalidations", asked.pages),
        ("interrupt entry invalidations", asked.interrupt_entries),
        ("waits", asked.waits),
        ("interrupt routes", stats.routes),
        ("domains", domains.len() as u64),
        ("mappings", sum(|device| device.shadow.mappings)),
        ("pinned bytes", sum(|device| device.shadow.bytes)),
        ("ioctls", sum(|device| device.shadow.maps + device.shadow.unmaps)),
    ];
    let mut text: String = numbers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect();
    text.extend(stats.devices.iter().map(of_device));
    text
}

/// One sentence for each device that did not get all its guest mapped for it.
pub(super) fn refusals(stats: &VtdStats) -> Vec<String> {
    let refused = |device: &&DeviceStats| device.shadow.failed_maps > 0;
    let line = |device: &DeviceStats| {
        format!(
            "{}: {} maps of the guest were refused: DMA there failed. The host's IOMMU reserves ranges of \
             addresses, limits mappings (strait host bind --dma-entries raises that) and locked memory (ulimit -l)",
            device.requester, device.shadow.failed_maps
        )
    };
    stats.devices.iter().filter(refused).map(line).collect()
}

fn domain(device: &DeviceStats) -> Option<u16> {
    match device.translation {
        Translation::Domain(domain) => Some(domain),
        Translation::Blocked | Translation::PassThrough => None,
    }
}

fn of_device(device: &DeviceStats) -> String {
    let shadow = device.shadow;
    let reach = match device.translation {
        Translation::Blocked => "nothing".to_owned(),
        Translation::PassThrough => "all memory".to_owned(),
        Translation::Domain(domain) => format!("domain {domain}"),
    };
    let lines = [
        ("reaches", reach),
        ("map ioctls", shadow.maps.to_string()),
        ("unmap ioctls", shadow.unmaps.to_string()),
        ("failed maps", shadow.failed_maps.to_string()),
        ("short walks", shadow.short_walks.to_string()),
        ("failed unmaps", shadow.failed_unmaps.to_string()),
        ("splits", shadow.splits.to_string()),
        ("split microseconds", histogram(&shadow.split_latency)),
        ("mappings", shadow.mappings.to_string()),
        ("most mappings", shadow.most_mappings.to_string()),
        ("pinned bytes", shadow.bytes.to_string()),
        ("map microseconds", histogram(&shadow.map_latency)),
        ("unmap microseconds", histogram(&shadow.unmap_latency)),
    ];
    let requester = device.requester;
    lines
        .iter()
        .map(|(name, value)| format!("{requester} {name}: {value}\n"))
        .collect()
}

/// `<16 204, <32 11`: 204 calls took less than 16 microseconds, but not less than 8.
fn histogram(latency: &Latency) -> String {
    let bucket = |(end, count): (Option<u64>, u64)| match end {
        Some(end) => format!("<{end} {count}"),
        None => format!("more {count}"),
    };
    latency.buckets().map(bucket).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use strait_devices::dma::RequesterId;
    use strait_devices::iommu::vtd::{InvalidationStats, ShadowStats};

    use super::*;

    #[test]
    fn only_devices_that_were_refused_something_are_told_of() {
        let device = |id, failed_maps| DeviceStats {
            requester: RequesterId(id),
            translation: Translation::Blocked,
            shadow: ShadowStats {
                failed_maps,
                ..ShadowStats::default()
            },
        };
        let stats = VtdStats {
            devices: vec![device(0x100, 0), device(0x200, 7)],
            ..VtdStats::default()
        };
        let lines = refusals(&stats);
        assert!(
            lines.len() == 1 && lines[0].starts_with("02:00.0: 7 maps"),
            "{lines:?}"
        );
    }

    #[test]
    fn every_number_has_a_line_of_its_own() {
        let device = |id, reach| DeviceStats {
            requester: RequesterId(id),
            translation: reach,
            shadow: ShadowStats {
                maps: 3,
                unmaps: 2,
                mappings: 1,
                bytes: 4096,
                ..ShadowStats::default()
            },
        };
        let stats = VtdStats {
            invalidations: InvalidationStats {
                pages: 7,
                ..InvalidationStats::default()
            },
            devices: vec![
                device(0x100, Translation::Domain(5)),
                device(0x200, Translation::Domain(5)),
                device(0x300, Translation::PassThrough),
            ],
            routes: 4,
        };
        let text = report(&stats);
        for line in [
            "page invalidations: 7",
            "interrupt routes: 4",
            "domains: 1",
            "mappings: 3",
            "pinned bytes: 12288",
            "ioctls: 15",
            "01:00.0 reaches: domain 5",
            "02:00.0 map ioctls: 3",
            "03:00.0 reaches: all memory",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}

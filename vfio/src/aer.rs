//! The errors that a device reported, as the host counts them in sysfs (Advanced Error Reporting, PCIe §6.2;
//! Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Files with a name and a number on each line, and what their errors are called.
const FILES: [(&str, &str); 2] = [("aer_dev_fatal", "fatal"), ("aer_dev_nonfatal", "non-fatal")];

/// The sum over all kinds, beside the kinds.
const TOTAL: &str = "TOTAL_";

/// Uncorrectable errors by their names, such as `fatal TLP`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ErrorCounts(BTreeMap<String, u64>);

impl ErrorCounts {
    /// Reads the counts of the device with this folder; none where the host does not count.
    pub(crate) fn read(folder: &Path) -> Self {
        let counts = FILES.iter().flat_map(|(file, kind)| {
            let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
            let count = |line: &str| {
                let (name, count) = line.split_once(' ')?;
                let is_kind = !name.starts_with(TOTAL);
                Some((format!("{kind} {name}"), count.trim().parse().ok()?)).filter(|_| is_kind)
            };
            text.lines().filter_map(count).collect::<Vec<_>>()
        });
        Self(counts.collect())
    }

    /// The errors that were counted since `before`.
    pub(crate) fn since(&self, before: &Self) -> Vec<&str> {
        let is_new = |(name, count): &(&String, &u64)| before.0.get(*name).is_none_or(|was| was < count);
        let new = self.0.iter().filter(|(_, count)| **count != 0).filter(is_new);
        new.map(|(name, _)| name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_since_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |fatal: &str, nonfatal: &str| {
            fs::write(folder.path().join("aer_dev_fatal"), fatal).expect("written");
            fs::write(folder.path().join("aer_dev_nonfatal"), nonfatal).expect("written");
            ErrorCounts::read(folder.path())
        };
        let before = write(
            "DLP 1\nTLP 0\nTOTAL_ERR_FATAL 1\n",
            "CmpltTO 0\nTOTAL_ERR_NONFATAL 0\n",
        );
        let after = write(
            "DLP 1\nTLP 2\nTOTAL_ERR_FATAL 3\n",
            "CmpltTO 1\nTOTAL_ERR_NONFATAL 1\n",
        );
        assert_eq!(after.since(&before), ["fatal TLP", "non-fatal CmpltTO"]);
        assert!(after.since(&after).is_empty());
    }

    #[test]
    fn a_host_that_does_not_count_names_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let counts = ErrorCounts::read(folder.path());
        assert!(counts.since(&ErrorCounts::default()).is_empty());
    }
}

//! A guest at work: what it does with its device, and what its VMM has to do meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::guest::{Ended, Moment, Trouble, run};
use super::window::Window;
use super::work::{PART_S, Part, Work};
use crate::counting::less;
use crate::report::Metric;

/// A figure, or why there is none.
pub(super) type Found = (Metric, Result<f64, String>);

/// Runs a guest that does all parts of the work. Returns what was found, and how long the guest took in seconds.
pub(super) fn measure(
    work: &Work,
    words: &[String],
    limit: Duration,
    interrupted: &AtomicBool,
) -> Result<(Vec<Found>, f64), Trouble> {
    let mut windows = BTreeMap::new();
    let ended = run(words, limit, interrupted, |moment, pid| {
        if let Moment::Works(part) = moment {
            windows.insert(
                part.to_owned(),
                Window::take(pid).map_err(|error| format!("{error:#}")),
            );
        }
    })?;
    let found = work.parts().flat_map(|part| figures(part, &ended, &windows));
    Ok((found.collect(), ended.wall_s))
}

/// The figure of a part, and of a stream what falls to a packet.
fn figures(part: &Part, ended: &Ended, windows: &BTreeMap<String, Result<Window, String>>) -> Vec<Found> {
    let mut told = ended
        .parts
        .iter()
        .filter(|(name, _)| name == part.name || name == "all");
    let told = told.next().map_or_else(
        || Err("the guest said nothing of it".to_owned()),
        |(_, told)| told.clone(),
    );
    let number = |index: usize| {
        let number = told.clone()?.get(index).copied();
        number.ok_or_else(|| "the guest told no number".to_owned())
    };
    let mut found = vec![((part.metric)(), number(0))];
    if part.is_stream {
        let window = windows
            .get(part.name)
            .cloned()
            .unwrap_or_else(|| Err("it was not looked at".to_owned()));
        let all = number(1).and_then(|packets| Ok(window?.a_packet(packets, f64::from(PART_S))));
        for (index, metric) in a_packet(part.name).into_iter().enumerate() {
            found.push((metric, all.clone().map(|all| all[index])));
        }
    }
    found
}

/// In the order of [`Window::a_packet`].
fn a_packet(stream: &str) -> [Metric; 3] {
    [
        ("exits", "exits to user space", ""),
        ("kvm-exits", "exits to KVM", ""),
        ("cpu", "CPU time of the VMM and of the kernel for it", "us"),
    ]
    .map(|(id, title, unit)| {
        less(
            &format!("network.{stream}-{id}"),
            &format!("{title} a packet, {stream}"),
            unit,
        )
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use super::*;

    #[test]
    fn each_part_has_its_figure_or_its_reason() {
        let work = Work::Disk { writes: false };
        let script = "echo BENCH init 1; echo BENCH driver nvme; echo BENCH did read-1 500; \
                      echo BENCH failed read-32 io_uring is not there; echo BENCH did read-through";
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        let (found, _) =
            measure(&work, &words, Duration::from_secs(600), &AtomicBool::new(false)).expect("an end");
        let figures: Vec<_> = found.into_iter().map(|(_, figure)| figure).collect();
        assert_eq!(
            figures,
            [
                Ok(500.0),
                Err("io_uring is not there".to_owned()),
                Err("the guest told no number".to_owned())
            ]
        );
    }

    #[test]
    fn a_reason_for_all_is_the_reason_of_each() {
        let work = Work::Network(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5201));
        let script = "echo BENCH init 1; echo BENCH driver igb; echo BENCH failed all no address";
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        let (found, _) =
            measure(&work, &words, Duration::from_secs(600), &AtomicBool::new(false)).expect("an end");
        assert_eq!(found.len(), 9);
        assert!(
            found
                .iter()
                .all(|(_, figure)| figure == &Err("no address".to_owned())),
            "{found:?}"
        );
    }
}

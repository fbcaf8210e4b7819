//! How fast the lab host is. Limits are written for a quiet machine, are there for what hangs, and must not strike
//! on one that is slow or has other work.

use std::fmt;
use std::time::Duration;

use anyhow::Result;

use crate::agent::Agent;

/// Work for one CPU of the lab host, and what it takes on a quiet machine with two cores.
const WORK: &str = "i=0; while [ $i -lt 10000 ]; do i=$((i + 1)); done";
const QUIET: Duration = Duration::from_millis(500);

/// The work that the machine has beside the lab comes and goes.
const MARGIN: f64 = 2.0;

/// How often the time of a quiet machine this one needs, at least once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace(f64);

impl Pace {
    /// Lets the lab host work for a moment.
    pub(crate) fn measure(agent: &Agent) -> Result<Self> {
        let finished = agent.exec(WORK, Duration::from_secs(300))?;
        Ok(Self::of(Duration::from_millis(finished.elapsed_ms)))
    }

    fn of(taken: Duration) -> Self {
        Self(taken.div_duration_f64(QUIET).max(1.0))
    }

    /// How long something may take here that may take `limit` on a quiet machine.
    pub(crate) fn stretch(self, limit: Duration) -> Duration {
        limit.mul_f64(self.0 * MARGIN)
    }

    /// The same as a whole factor, for the limits in a guest.
    pub(crate) fn factor(self) -> u64 {
        self.stretch(Duration::from_millis(999)).as_secs() + 1
    }

    /// What is added to the failure of something that went past its limit.
    pub(crate) fn explain(self, limit: Duration) -> String {
        format!(
            "It went past its limit of {} s, which is {} s for a lab host {self}, with a margin",
            self.stretch(limit).as_secs(),
            limit.as_secs(),
        )
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} times as slow as on a quiet machine", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_machine_has_more_time_and_a_fast_one_no_less() {
        let limit = Duration::from_secs(100);
        assert_eq!(Pace::of(QUIET / 3).stretch(limit), Duration::from_secs(200));
        assert_eq!(Pace::of(QUIET * 3).stretch(limit), Duration::from_secs(600));
    }

    #[test]
    fn the_guests_factor_is_whole() {
        assert_eq!(Pace::of(QUIET).factor(), 2);
        assert_eq!(Pace::of(QUIET * 5 / 4).factor(), 3);
    }

    #[test]
    fn a_limit_that_strikes_is_said_with_its_parts() {
        let said = Pace::of(QUIET * 3).explain(Duration::from_secs(90));
        assert!(
            said.contains("540 s, which is 90 s for a lab host 3.0 times as slow"),
            "{said}"
        );
    }
}

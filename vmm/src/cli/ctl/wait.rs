//! How long to wait, as it is typed.

use std::str::FromStr;
use std::time::Duration;

/// The longest time that can be meant.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A time: `10`, `10s`, `500ms`, `2m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit(pub(super) Duration);

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let milliseconds = match unit {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            _ => 0,
        };
        let time = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(milliseconds));
        match time.map(Duration::from_millis) {
            Some(time) if milliseconds > 0 && time <= LONGEST => Ok(Self(time)),
            _ => Err("it is no time up to 24h; write 10s, 500ms, 2m or 1h".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_typed_with_or_without_a_unit() {
        let seconds = |text: &str| text.parse::<Limit>().map(|limit| limit.0.as_secs_f64());
        assert_eq!(seconds("10"), Ok(10.0));
        assert_eq!(seconds("10s"), Ok(10.0));
        assert_eq!(seconds("500ms"), Ok(0.5));
        assert_eq!(seconds("2m"), Ok(120.0));
        assert_eq!(seconds("24h"), Ok(86_400.0));
        for wrong in ["", "s", "-1", "1.5", "25h", "99999999999999999999", "3 s", "1d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}

//! Numbers that are typed.

use std::ops::RangeInclusive;

/// How often each VMM is started.
pub(crate) fn rounds(text: &str) -> Result<u32, String> {
    number(text, 1..=1000).map(|rounds| rounds as u32)
}

/// What a guest may take, up to a day.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    number(text, 1..=86_400)
}

fn number(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("is not a whole number from {} to {}", range.start(), range.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

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

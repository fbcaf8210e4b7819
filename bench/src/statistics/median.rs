//! The middle of several rounds, which one bad round does not move.

/// The middle of some values, of an even number the one between. `None` where there are none, or one is not a number.
pub fn median(values: &[f64]) -> Option<f64> {
    if values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_round_does_not_move_it() {
        assert_eq!(median(&[9.0, 30.0, 8.0]), Some(9.0));
        assert_eq!(median(&[2.0, 4.0]), Some(3.0));
    }

    #[test]
    fn nothing_and_what_is_no_number_have_none() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[1.0, f64::NAN]), None);
    }
}

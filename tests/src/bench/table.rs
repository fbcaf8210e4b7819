//! The table for people: what was measured of both, their ratio, and what was asked for.

/// The results of both VMMs, as far as they ran.
pub(super) struct Table<'a, T> {
    strait: Option<&'a T>,
    qemu: Option<&'a T>,
}

/// What a figure must be.
#[derive(Clone, Copy)]
pub(super) enum Asked {
    /// Nothing: it is only shown.
    Shown,
    /// Strait's is no more than this.
    AtMost(f64),
    /// Strait's is no more than this part of QEMU's.
    RatioAtMost(f64),
    /// Strait's is at least so many times QEMU's.
    RatioAtLeast(f64),
}

impl Asked {
    fn verdict(self, strait: Option<f64>, ratio: Option<f64>) -> String {
        let (text, is_met) = match self {
            Asked::Shown => return String::new(),
            Asked::AtMost(limit) => (format!("<= {limit}"), strait.map(|value| value <= limit)),
            Asked::RatioAtMost(limit) => (format!("x <= {limit}"), ratio.map(|value| value <= limit)),
            Asked::RatioAtLeast(limit) => (format!("x >= {limit}"), ratio.map(|value| value >= limit)),
        };
        match is_met {
            Some(true) => format!("{text}  met"),
            Some(false) => format!("{text}  MISSED"),
            None => text,
        }
    }
}

impl<'a, T> Table<'a, T> {
    /// Prints the heading.
    pub(super) fn begin(title: &str, strait: Option<&'a T>, qemu: Option<&'a T>) -> Self {
        println!("\n{title}\n");
        println!("{:42} {:>12} {:>12} {:>8}  asked", "", "strait", "qemu", "ratio");
        Self { strait, qemu }
    }

    /// A figure that is only shown.
    pub(super) fn row(&self, title: &str, digits: usize, figure: impl Fn(&T) -> f64) {
        self.asked(title, digits, Asked::Shown, figure);
    }

    /// A figure with a requirement.
    pub(super) fn asked(&self, title: &str, digits: usize, asked: Asked, figure: impl Fn(&T) -> f64) {
        // What was not measured is not a number.
        let measured = |runs: Option<&'a T>| runs.map(&figure).filter(|value| value.is_finite());
        let (strait, qemu) = (measured(self.strait), measured(self.qemu));
        let show =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"));
        let ratio = match (strait, qemu) {
            (Some(strait), Some(qemu)) if qemu > 0.0 => Some(strait / qemu),
            _ => None,
        };
        let shown = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let verdict = asked.verdict(strait, ratio);
        let line = format!(
            "{title:42} {:>12} {:>12} {shown:>8}  {verdict}",
            show(strait),
            show(qemu)
        );
        println!("{}", line.trim_end());
    }

    /// Both, without those that did not run.
    pub(super) fn both(&self) -> impl Iterator<Item = &'a T> + Clone {
        self.strait.into_iter().chain(self.qemu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requirement_on_a_ratio_needs_both() {
        assert_eq!(Asked::RatioAtMost(0.5).verdict(Some(1.0), None), "x <= 0.5");
        assert_eq!(
            Asked::RatioAtMost(0.5).verdict(Some(1.0), Some(0.6)),
            "x <= 0.5  MISSED"
        );
        assert_eq!(
            Asked::RatioAtLeast(1.5).verdict(Some(1.0), Some(1.6)),
            "x >= 1.5  met"
        );
        assert_eq!(Asked::AtMost(0.0).verdict(Some(0.0), None), "<= 0  met");
    }
}

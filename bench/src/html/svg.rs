//! Shapes and words as SVG, with what a report says escaped.

use std::fmt::{self, Display, Write};

/// Text as it stands in HTML and in SVG, whatever is in it.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            '\t' | '\n' => f.write_char(character),
            control if control.is_control() => f.write_char(char::REPLACEMENT_CHARACTER),
            other => f.write_char(other),
        })
    }
}

/// A picture as wide as its place: what stands across is in per cent of that, what stands down in pixels.
pub(super) struct Svg {
    text: String,
}

/// Where a label is held.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    /// An empty picture, with the words that stand for it where it is not seen.
    pub(super) fn new(height: u32, words: &str) -> Self {
        let words = Escaped(words);
        Self {
            text: format!(r#"<svg width="100%" height="{height}" role="img" aria-label="{words}">"#),
        }
    }

    /// A box of this class from one place to another.
    pub(super) fn bar(&mut self, class: &str, [from, to]: [f64; 2], top: u32, height: u32) {
        let (left, width) = (from.min(to), (to - from).abs());
        self.write(format_args!(
            r#"<rect class="{class}" x="{left:.2}%" y="{top}" width="{width:.2}%" height="{height}"/>"#
        ));
    }

    /// A horizontal line at this height.
    pub(super) fn across(&mut self, class: &str, [from, to]: [f64; 2], at: u32) {
        self.write(format_args!(
            r#"<line class="{class}" x1="{from:.2}%" x2="{to:.2}%" y1="{at}" y2="{at}"/>"#
        ));
    }

    /// A vertical line at this place.
    pub(super) fn down(&mut self, class: &str, at: f64, [from, to]: [u32; 2]) {
        self.write(format_args!(
            r#"<line class="{class}" x1="{at:.2}%" x2="{at:.2}%" y1="{from}" y2="{to}"/>"#
        ));
    }

    /// A small circle around this point.
    pub(super) fn dot(&mut self, class: &str, across: f64, down: u32) {
        self.write(format_args!(
            r#"<circle class="{class}" cx="{across:.2}%" cy="{down}" r="3.5"/>"#
        ));
    }

    /// A label, on this base line.
    pub(super) fn label(&mut self, across: f64, base: u32, anchor: Anchor, words: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let words = Escaped(words);
        self.write(format_args!(
            r#"<text x="{across:.2}%" y="{base}" text-anchor="{anchor}">{words}</text>"#
        ));
    }

    /// Closes the picture, and returns the element as it stands in the page.
    pub(super) fn finish(mut self) -> String {
        self.text.push_str("</svg>");
        self.text
    }

    fn write(&mut self, element: fmt::Arguments<'_>) {
        // A string takes all that is written.
        let _ = self.text.write_fmt(element);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_report_says_is_never_markup() {
        let shown = Escaped("<b a=\"1\" c='2'>&\u{1b}\u{0}").to_string();
        assert_eq!(
            shown,
            "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn a_bar_may_go_to_the_left() {
        let mut svg = Svg::new(10, "words");
        svg.bar("better", [50.0, 20.0], 1, 8);
        let text = svg.finish();
        assert!(text.contains(r#"x="20.00%" y="1" width="30.00%""#), "{text}");
        assert!(text.ends_with("</svg>"), "{text}");
    }
}

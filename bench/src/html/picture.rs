//! What pictures have in common.

use super::scale::Scale;
use super::svg::{Anchor, Svg};
use crate::words::number;

/// Height of one VMM's part of a picture, in pixels: as a line of text.
pub(super) const LINE: u32 = 22;

/// From a line's top to its middle, in units of the picture.
pub(super) const MIDDLE: u32 = LINE / 2;

/// Height of the numbers below a picture, in pixels.
const NUMBERS: u32 = 16;

/// The class of the colour that a VMM or a part has, by its place. There are eight; further ones begin again.
pub(super) fn colour(place: usize) -> String {
    format!("c{}", place % 8)
}

/// A line of numbers below a picture.
pub(super) fn axis(scale: Scale, unit: &str) -> String {
    let marks = scale.marks();
    let labels = marks.iter().map(|mark| (scale.place(*mark), number(*mark)));
    labelled(labels.collect(), &format!("scale, {unit}"))
}

/// Labels in a line, those at the edges held so that they stay within.
pub(super) fn labelled(labels: Vec<(f64, String)>, words: &str) -> String {
    let mut svg = Svg::new(NUMBERS, words);
    for (place, label) in labels {
        svg.down("grid", place, [0, 3]);
        let anchor = match place {
            ..8.0 => Anchor::Start,
            92.0.. => Anchor::End,
            _ => Anchor::Middle,
        };
        svg.label(place, NUMBERS - 3, anchor, &label);
    }
    svg.finish()
}

//! A report as one page of HTML, with pictures in SVG: no script, nothing from the network, nothing beside the file.
//!
//! The pictures are written by hand, not by a crate for plots such as plotters. What stands across is in per cent of
//! the picture's width and what stands down in pixels, so that a picture fits a wide screen, a phone and paper while
//! its text keeps its size; colours are the page's own, so that they follow the reader's light or dark; text is text,
//! to be searched and selected. Plotters knows pixels of one size and one colour for each thing, and the three
//! pictures here need bars, lines, dots and labels, no more.

mod chapter;
mod page;
mod picture;
mod ratios;
mod rounds;
mod scale;
mod stack;
mod svg;

pub use page::html;

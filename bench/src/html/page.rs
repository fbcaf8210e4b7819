//! The page that a report becomes: its head, its chapters, and what they are drawn with, in one file.

use std::fmt::Write;

use super::chapter::chapter;
use super::svg::Escaped;
use crate::file::SCHEMA;
use crate::report::Report;

const STYLE: &str = include_str!("style.css");

/// The whole report as one page.
pub fn html(report: &Report) -> String {
    let baseline = Escaped(&report.baseline);
    let mut text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Strait beside {baseline}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Strait beside {baseline}</h1>\n{}",
        doubts(report)
    );
    let _ = writeln!(
        text,
        "<p>Each figure is the median of its rounds, with the interval that holds the true one by 95 % where the rounds \
         are enough to say so. A bar is the ratio to {baseline}, and goes from 1 as far as there are doublings; blue is \
         better, orange worse. A dot is a round, the line between them their median.</p>"
    );
    for name in chapters(report) {
        text.push_str(&chapter(report, name));
    }
    text.push_str(&origin(report));
    text.push_str("</body>\n</html>\n");
    text
}

/// Chapters in the order in which their first metrics came.
fn chapters(report: &Report) -> Vec<&str> {
    let mut names = Vec::new();
    for metric in &report.metrics {
        if !names.contains(&metric.chapter()) {
            names.push(metric.chapter());
        }
    }
    names
}

/// What a reader must know before any figure.
fn doubts(report: &Report) -> String {
    let mut text = String::new();
    let mut doubt = |words: &str| {
        let _ = writeln!(text, "<p class=\"doubt\">{}</p>", Escaped(words));
    };
    if !report.is_complete {
        doubt("This run did not come to its end: what follows is a part.");
    }
    for broken in report.broken() {
        doubt(&broken.to_string());
    }
    for warning in &report.warnings {
        doubt(warning);
    }
    text
}

/// Where the figures are from: the host, and how each VMM was started.
fn origin(report: &Report) -> String {
    let mut text = String::from("<section><h2>Where this is from</h2>\n");
    let rows = report.host.iter().map(|(what, value)| (what, value));
    for (title, rows) in [
        ("The host", rows.collect::<Vec<_>>()),
        ("How each was started", report.commands.iter().collect()),
    ] {
        if rows.is_empty() {
            continue;
        }
        let _ = write!(text, "<h3>{title}</h3>\n<dl>");
        for (what, value) in rows {
            let _ = write!(text, "<dt>{}</dt><dd>{}</dd>", Escaped(what), Escaped(value));
        }
        text.push_str("</dl>\n");
    }
    let _ = writeln!(
        text,
        "<p>Written by strait-bench {}, schema {SCHEMA}. The file of JSON beside this one has every round.</p></section>",
        env!("CARGO_PKG_VERSION")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Better, Metric};

    fn report() -> Report {
        let mut report = Report::new("qemu");
        for id in ["start.wall", "exits.all", "start.init"] {
            let metric = report.metric(Metric::new(id, id, "", Better::Lower));
            metric.add("strait", 1.0);
            metric.add("qemu", 2.0);
        }
        report
    }

    #[test]
    fn the_page_runs_nothing_and_asks_nobody() {
        let mut report = report();
        report
            .host
            .push(("CPU".to_owned(), "<script src=\"http://x\">".to_owned()));
        let text = html(&report);
        for word in ["<script", "src=\"", "href=", "url(", "@import", "<link"] {
            assert!(!text.contains(word), "{word}");
        }
    }

    #[test]
    fn chapters_come_once_in_their_first_order() {
        assert_eq!(chapters(&report()), ["start", "exits"]);
    }

    #[test]
    fn a_part_of_a_run_and_doubts_stand_in_front() {
        let mut report = report();
        report.warnings.push("the governor is powersave".to_owned());
        report.metrics[0].floor = Some(crate::report::Floor {
            probe: "a launcher".to_owned(),
            value: 1.5,
        });
        let text = html(&report);
        let place = |words: &str| text.find(words).expect(words);
        assert!(place("did not come to its end") < place("<h2>"));
        assert!(place("the governor is powersave") < place("<h2>"));
        assert!(place("broken measurement") < place("<h2>"));
    }
}

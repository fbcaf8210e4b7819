//! The line that a user sees while RAM is prepared for DMA: none if it takes less than a second, else how far it
//! is, and at the end what it cost and why.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};
use std::{env, fmt, fs};

/// Work that is done sooner is not worth a line.
const QUIET: Duration = Duration::from_secs(1);

/// How often a line is drawn anew on a terminal, and how often a new one is written into a log.
const REDRAW: Duration = Duration::from_millis(500);
const NEW_LINE: Duration = Duration::from_secs(10);

/// The kernel's switch for transparent huge pages: always, on request (madvise, as guest RAM asks), or never.
const HUGE_PAGES_SWITCH: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
/// The same for memory in files: never by itself.
const SHARED_PAGES_SWITCH: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// What turns them on.
const SWITCH_ON: &str = "allow huge pages with: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled";
const SWITCH_SHARED_ON: &str =
    "allow huge pages in files with: echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled";

const MIB: u64 = 1 << 20;
const GIANT_PAGE: u64 = 1 << 30;

/// The way in which lines follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// The next is drawn over it.
    Redraw,
    /// Each stays, and the next is a new one: a log has no cursor to move.
    Lines,
}

impl Style {
    /// What suits standard error as it is now.
    pub fn of_stderr() -> Self {
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let term = env::var("TERM").ok();
        Self::of(io::stderr().is_terminal(), no_color, term.as_deref())
    }

    /// NO_COLOR and a dumb terminal ask for text without control sequences.
    fn of(is_terminal: bool, no_color: bool, term: Option<&str>) -> Self {
        match is_terminal && !no_color && term != Some("dumb") {
            true => Self::Redraw,
            false => Self::Lines,
        }
    }
}

/// The progress of one piece of work.
pub struct Progress<W> {
    out: W,
    style: Style,
    start: Instant,
    shown: Option<Instant>,
    total_bytes: u64,
    done_bytes: u64,
}

impl<W: Write> Progress<W> {
    /// Work on `total_bytes` that starts `now`.
    pub fn new(out: W, style: Style, total_bytes: u64, now: Instant) -> Self {
        Self {
            out,
            style,
            start: now,
            shown: None,
            total_bytes,
            done_bytes: 0,
        }
    }

    /// Another `bytes` are done.
    pub fn advance(&mut self, bytes: u64, now: Instant) {
        self.done_bytes += bytes;
        let pause = match self.style {
            Style::Redraw => REDRAW,
            Style::Lines => NEW_LINE,
        };
        let is_due = self.shown.is_none_or(|shown| now - shown >= pause);
        // The last piece is left to `finish`, which has more to say.
        if now - self.start < QUIET || !is_due || self.done_bytes >= self.total_bytes {
            return;
        }
        self.shown = Some(now);
        let (done, total) = (self.done_bytes / MIB, self.total_bytes / MIB);
        let seconds = (now - self.start).as_secs();
        self.draw(
            &format!("taking memory: {done} of {total} MiB in {seconds} s"),
            false,
        );
    }

    /// All is done; `pages` is asked only if it is worth telling.
    pub fn finish(mut self, now: Instant, pages: impl FnOnce() -> Pages) {
        let took = now - self.start;
        if took < QUIET {
            return;
        }
        let (total, seconds, pages) = (self.total_bytes / MIB, took.as_secs_f64(), pages());
        self.draw(
            &format!("{total} MiB of memory are there after {seconds:.1} s, {pages}"),
            true,
        );
        if let Some(hint) = pages.hint() {
            self.draw(&hint, true);
        }
    }

    /// A standard error that is closed is no reason to fail.
    fn draw(&mut self, text: &str, is_last: bool) {
        // EL, erase to the end of the line (ECMA-48 §8.3.41), for the line before may have been longer.
        let line = match (self.style, is_last) {
            (Style::Redraw, true) => format!("\r\x1b[Kstrait: {text}\r\n"),
            (Style::Redraw, false) => format!("\r\x1b[Kstrait: {text}"),
            (Style::Lines, _) => format!("strait: {text}\n"),
        };
        let _ = self.out.write_all(line.as_bytes());
    }
}

/// In which sizes of pages memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    giant_bytes: u64,
    huge_bytes: u64,
    all_bytes: u64,
    /// The command that lets the kernel give huge pages, where it gives none.
    switch_on: Option<&'static str>,
}

impl Pages {
    /// Counts the pages in ranges of addresses of this process, each with its first address and the one behind.
    pub fn of(ranges: &[(u64, u64)]) -> Self {
        // smaps walks page tables of all mappings, which takes a while with much RAM: asked once, after the work.
        let maps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        let read = |switch| fs::read_to_string(switch).unwrap_or_default();
        Self::parse(
            &maps,
            [&read(HUGE_PAGES_SWITCH), &read(SHARED_PAGES_SWITCH)],
            ranges,
        )
    }

    /// `switches` are that of this process's own memory, and that of memory in files.
    fn parse(maps: &str, switches: [&str; 2], ranges: &[(u64, u64)]) -> Self {
        let [own, shared] =
            switches.map(|switch| ["[never]", "[deny]"].iter().any(|off| switch.contains(off)));
        let mut pages = Self::default();
        let (mut counts, mut is_giant) = (false, false);
        for line in maps.lines() {
            if let Some((start, end)) = mapping(line) {
                counts = ranges.iter().any(|range| start < range.1 && range.0 < end);
                let is_shared = line.split(' ').nth(1).is_some_and(|rights| rights.ends_with('s'));
                pages.switch_on = match (counts, is_shared) {
                    (true, false) if own => Some(SWITCH_ON),
                    (true, true) if shared => Some(SWITCH_SHARED_ON),
                    _ => pages.switch_on,
                };
            } else if counts {
                if line.starts_with("KernelPageSize:") {
                    is_giant = kib(line, "KernelPageSize:") << 10 == GIANT_PAGE;
                }
                // Pages of a pool (hugetlbfs) are counted apart from all others.
                let pool = (kib(line, "Shared_Hugetlb:") + kib(line, "Private_Hugetlb:")) << 10;
                let huge = (kib(line, "AnonHugePages:") + kib(line, "ShmemPmdMapped:")) << 10;
                pages.all_bytes += (kib(line, "Rss:") << 10) + pool;
                match is_giant {
                    true => pages.giant_bytes += pool,
                    false => pages.huge_bytes += huge + pool,
                }
            }
        }
        pages
    }

    /// The reason why it took long and its cure, if small pages are the reason.
    fn hint(&self) -> Option<String> {
        if self.giant_bytes + self.huge_bytes >= self.all_bytes / 2 {
            return None;
        }
        let fragmented = "the host's memory is fragmented, try: echo 1 > /proc/sys/vm/compact_memory";
        let remedy = self.switch_on.unwrap_or(fragmented);
        Some(format!(
            "pages of 4 KiB take about ten times as long as huge ones; {remedy}"
        ))
    }
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [giant, huge, all] = [self.giant_bytes, self.huge_bytes, self.all_bytes].map(|bytes| bytes / MIB);
        if giant > 0 {
            write!(f, "{giant} MiB in pages of 1 GiB, ")?;
        }
        write!(
            f,
            "{huge} MiB in pages of 2 MiB, {} MiB in pages of 4 KiB",
            all.saturating_sub(giant + huge)
        )
    }
}

/// The first line of a mapping: `7f0000000000-7f0000200000 rw-p ...`.
fn mapping(line: &str) -> Option<(u64, u64)> {
    let (range, _) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    Some((address(start)?, address(end)?))
}

/// The number of a line such as `AnonHugePages:    2048 kB`, 0 for any other line (proc_pid_smaps(5)).
fn kib(line: &str, name: &str) -> u64 {
    let rest = line.strip_prefix(name).unwrap_or_default();
    rest.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Pages = Pages {
        giant_bytes: 0,
        huge_bytes: 0,
        all_bytes: 64 << 30,
        switch_on: Some(SWITCH_ON),
    };

    /// What is written when a quarter of 64 GiB is done at each of the times, in milliseconds.
    fn shown(style: Style, times: [u64; 4], pages: Pages) -> String {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut text = Vec::new();
        let mut progress = Progress::new(&mut text, style, 64 << 30, start);
        for time in times {
            progress.advance(16 << 30, at(time));
        }
        progress.finish(at(times[3]), || pages);
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn less_than_a_second_is_not_worth_a_line() {
        assert_eq!(shown(Style::Redraw, [100, 200, 300, 999], SMALL), "");
    }

    #[test]
    fn a_log_gets_few_lines_and_a_terminal_one_that_moves() {
        let text = shown(Style::Lines, [1000, 2000, 11000, 12000], SMALL);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "strait: taking memory: 16384 of 65536 MiB in 1 s");
        assert_eq!(lines[1], "strait: taking memory: 49152 of 65536 MiB in 11 s");
        assert!(
            lines[2]
                .starts_with("strait: 65536 MiB of memory are there after 12.0 s, 0 MiB in pages of 2 MiB")
        );
        let text = shown(Style::Redraw, [1000, 1100, 2000, 3000], SMALL);
        assert_eq!(text.matches("\r\x1b[K").count(), 4, "{text:?}");
        assert_eq!(text.matches('\n').count(), 2, "{text:?}");
    }

    #[test]
    fn small_pages_get_a_hint_with_the_reason() {
        let text = shown(Style::Lines, [0, 0, 0, 5000], SMALL);
        assert!(
            text.contains("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"),
            "{text}"
        );
        let fragmented = Pages {
            switch_on: None,
            ..SMALL
        };
        assert!(shown(Style::Lines, [0, 0, 0, 5000], fragmented).contains("compact_memory"));
        let huge = Pages {
            huge_bytes: 60 << 30,
            ..SMALL
        };
        assert_eq!(shown(Style::Lines, [0, 0, 0, 5000], huge).lines().count(), 1);
    }

    #[test]
    fn only_the_mappings_of_ram_count() {
        let maps = "7f0000000000-7f0000400000 rw-p 00000000 00:00 0 \n\
                    Size:               4096 kB\nRss:                4096 kB\nAnonHugePages:      2048 kB\n\
                    VmFlags: rd wr mr mw me ac sd hg \n\
                    7f0000400000-7f0000800000 rw-p 00000000 00:00 0 \nRss:                4096 kB\n";
        let pages = Pages::parse(
            maps,
            ["always [madvise] never", "always [never]"],
            &[(0x7f00_0000_0000, 0x7f00_0040_0000)],
        );
        assert_eq!((pages.huge_bytes, pages.all_bytes), (2 << 20, 4 << 20));
        assert_eq!(
            pages.to_string(),
            "2 MiB in pages of 2 MiB, 2 MiB in pages of 4 KiB"
        );
    }

    #[test]
    fn pages_of_pools_are_told_by_their_size() {
        let maps = "7f0040000000-7f0080000000 rw-s 00000000 00:0f 1  /memfd:guest-ram (deleted)\n\
                    Rss:                   0 kB\nKernelPageSize:  1048576 kB\nShared_Hugetlb:  1048576 kB\n\
                    7f0080000000-7f0080400000 rw-s 40000000 00:0f 1  /memfd:guest-ram (deleted)\n\
                    KernelPageSize:     2048 kB\nRss:   0 kB\nShared_Hugetlb:     4096 kB\n";
        let pages = Pages::parse(
            maps,
            ["always [madvise] never", "always [never]"],
            &[(0x7f00_4000_0000, 0x7f00_8040_0000)],
        );
        assert_eq!(
            pages.to_string(),
            "1024 MiB in pages of 1 GiB, 4 MiB in pages of 2 MiB, 0 MiB in pages of 4 KiB"
        );
        assert_eq!(pages.hint(), None);
    }

    #[test]
    fn control_sequences_are_for_terminals_that_take_them() {
        assert_eq!(Style::of(true, false, Some("xterm")), Style::Redraw);
        assert_eq!(Style::of(true, true, Some("xterm")), Style::Lines);
        assert_eq!(Style::of(true, false, Some("dumb")), Style::Lines);
        assert_eq!(Style::of(false, false, Some("xterm")), Style::Lines);
    }

    #[test]
    fn this_process_has_memory_in_some_pages() {
        let bytes = vec![1u8; 1 << 20];
        let start = bytes.as_ptr().addr() as u64;
        assert!(Pages::of(&[(start, start + (1 << 20))]).all_bytes >= 1 << 20);
    }
}

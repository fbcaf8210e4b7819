//! The machine's own Debian sources, read from both formats apt knows and written again for the
//! private configuration.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Release;

/// One archive: an address, the suites taken from it, and the key that signs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    uri: String,
    suites: Vec<String>,
    /// The value of `Signed-By`, which may be a whole key on several lines.
    signed_by: Option<String>,
    trusted: bool,
}

/// Collects the Debian archives configured under `etc` (`/etc/apt`).
pub(crate) fn collect(etc: &Path, release: &Release) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in source_files(etc)? {
        let text = fs::read_to_string(&path).with_context(|| format!("Cannot read {}", path.display()))?;
        if path.extension().is_some_and(|extension| extension == "sources") {
            sources.extend(parse_deb822(&text));
        } else {
            sources.extend(text.lines().filter_map(parse_one_line));
        }
    }
    let debian = keep_debian(sources, release);
    if debian.is_empty() {
        let codename = &release.codename;
        bail!(
            "No source for Debian {codename} is configured under {}",
            etc.display()
        );
    }
    Ok(debian)
}

/// The stanzas to write into a `.sources` file.
pub(crate) fn render(sources: &[Source]) -> String {
    let mut text = String::new();
    for source in sources {
        text += "Types: deb\n";
        text += &format!("URIs: {}\n", source.uri);
        text += &format!("Suites: {}\n", source.suites.join(" "));
        text += "Components: main\nArchitectures: amd64\n";
        if let Some(key) = &source.signed_by {
            text += &format!("Signed-By: {key}\n");
        }
        if source.trusted {
            text += "Trusted: yes\n";
        }
        text.push('\n');
    }
    text
}

fn source_files(etc: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = vec![etc.join("sources.list")];
    if let Ok(entries) = fs::read_dir(etc.join("sources.list.d")) {
        for entry in entries {
            files.push(entry.context("Cannot read the folder of apt sources")?.path());
        }
    }
    files.retain(|path| {
        path.is_file()
            && path
                .extension()
                .is_some_and(|extension| extension == "list" || extension == "sources")
    });
    files.sort();
    Ok(files)
}

/// `deb [signed-by=…] URI SUITE COMPONENT…`
fn parse_one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t']) {
        return None;
    }
    let rest = rest.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inside) => inside.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    if !words.any(|component| component == "main") {
        return None;
    }
    let option = |name: &str| {
        options
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_owned())
    };
    Some(Source {
        uri: uri.to_owned(),
        suites: vec![suite.to_owned()],
        signed_by: option("signed-by"),
        trusted: option("trusted").as_deref() == Some("yes"),
    })
}

fn parse_deb822(text: &str) -> Vec<Source> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines
        .split(|line| line.trim().is_empty())
        .flat_map(parse_stanza)
        .collect()
}

fn parse_stanza(lines: &[&str]) -> Vec<Source> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        match (line.starts_with([' ', '\t']), fields.last_mut()) {
            (true, Some((_, value))) => *value += &format!("\n{line}"),
            _ => fields.extend(
                line.split_once(':')
                    .map(|(key, value)| (key.trim().to_lowercase(), value.trim().to_owned())),
            ),
        }
    }
    let field = |name: &str| {
        fields
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let has = |name: &str, word: &str| {
        field(name).is_some_and(|value| value.split_whitespace().any(|found| found == word))
    };
    if !has("types", "deb") || !has("components", "main") || has("enabled", "no") {
        return Vec::new();
    }
    let words = |name: &str| {
        field(name)
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
    };
    words("uris")
        .map(|uri| Source {
            uri,
            suites: words("suites").collect(),
            signed_by: field("signed-by").map(str::to_owned),
            trusted: has("trusted", "yes"),
        })
        .collect()
}

/// Drops other vendors' archives.
fn keep_debian(sources: Vec<Source>, release: &Release) -> Vec<Source> {
    let mut kept = Vec::new();
    for mut source in sources {
        let others_key = source
            .signed_by
            .as_ref()
            .is_some_and(|key| key.starts_with('/') && !key.contains("debian"));
        source
            .suites
            .retain(|suite| is_release_suite(suite, &release.codename));
        if !others_key
            && !source.suites.is_empty()
            && !source.uri.starts_with("cdrom:")
            && !kept.contains(&source)
        {
            kept.push(source);
        }
    }
    kept
}

impl Source {
    /// The same archive's suites of another release, signed by the keys in `keyring` too.
    pub(super) fn of_release(&self, from: &str, to: &str, keyring: &Path) -> Self {
        let keyring = keyring.display();
        let suites = self.suites.iter().filter_map(|suite| suite.strip_prefix(from));
        Self {
            suites: suites.map(|rest| format!("{to}{rest}")).collect(),
            signed_by: match &self.signed_by {
                Some(path) if path.starts_with('/') => Some(format!("{path}, {keyring}")),
                Some(key) => Some(key.clone()),
                None => Some(keyring.to_string()),
            },
            ..self.clone()
        }
    }

    /// The backports of a release that is in this archive.
    pub(super) fn backports_of(&self, codename: &str) -> Option<Self> {
        let has_release = self.suites.iter().any(|suite| suite == codename);
        has_release.then(|| Self {
            suites: vec![format!("{codename}-backports")],
            ..self.clone()
        })
    }
}

fn is_release_suite(suite: &str, codename: &str) -> bool {
    let rest = suite.strip_prefix(codename);
    rest.is_some_and(|rest| matches!(rest, "" | "-updates" | "-security"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bookworm() -> Release {
        Release {
            version: "12".to_owned(),
            codename: "bookworm".to_owned(),
        }
    }

    #[test]
    fn another_release_comes_from_the_same_archive() {
        let line = "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian bookworm main contrib";
        let own = keep_debian(parse_one_line(line).into_iter().collect(), &bookworm());
        let newer = own[0].of_release("bookworm", "trixie", Path::new("/cache/keys.gpg"));
        assert_eq!(
            render(&[newer]),
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie\n\
             Components: main\nArchitectures: amd64\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg, /cache/keys.gpg\n\n"
        );
    }

    #[test]
    fn backports_are_where_the_release_is() {
        let archive = "deb http://mirror.example/debian bookworm main";
        let security = "deb http://security.example/debian-security bookworm-security main";
        let [archive, security] = [archive, security].map(|line| parse_one_line(line).expect("a source"));
        let found = archive.backports_of("bookworm").expect("the release's archive");
        assert_eq!(found.suites, ["bookworm-backports"]);
        assert_eq!(security.backports_of("bookworm"), None);
    }

    #[test]
    fn deb822_stanza_with_an_inline_key_is_carried_whole() {
        let text = "# comment\nTypes: deb deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
                    Components: main\nSigned-By:\n -----BEGIN\n .\n -----END\n";
        let sources = parse_deb822(text);
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(
            sources[0].signed_by.as_deref(),
            Some("\n -----BEGIN\n .\n -----END")
        );
    }

    #[test]
    fn other_vendors_and_disabled_stanzas_are_left_out() {
        let vendor = "deb https://packages.example/apt vendor-bookworm main";
        let own_key =
            "deb [signed-by=/usr/share/keyrings/vendor.gpg] https://packages.example/apt bookworm main";
        let disabled = "Enabled: no\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n";
        let mut sources: Vec<Source> = [vendor, own_key].into_iter().filter_map(parse_one_line).collect();
        sources.extend(parse_deb822(disabled));
        assert_eq!(keep_debian(sources, &bookworm()), []);
    }

    #[test]
    fn commented_and_source_lines_are_no_sources() {
        assert_eq!(
            parse_one_line("# deb http://mirror.example/debian bookworm main"),
            None
        );
        assert_eq!(
            parse_one_line("deb-src http://mirror.example/debian bookworm main"),
            None
        );
    }
}

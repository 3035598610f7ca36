//! Lines of logs.

use regex::bytes::{CaptureLocations, Regex, RegexBuilder};

/// The Common Log Format; what follows, as in the Combined Log Format, is not read.
const LOG: &str = r#"^(?P<host>\S+) \S+ (?P<user>.+?) \[(?P<time>[^\]]*)\] "(?:(?P<method>[A-Za-z]+) )?(?P<path>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) (?P<bytes>\d+|-)(?: .*)?$"#;

/// The largest compiled pattern, in bytes.
const LARGEST: usize = 10 << 20;

/// A regular expression, with the parts of the last line that it matched.
#[derive(Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    found: CaptureLocations,
    /// The groups that have names, and these.
    groups: Vec<(usize, String)>,
    is_own: bool,
}

impl Pattern {
    /// The format of web servers.
    pub(crate) fn log() -> Result<Self, String> {
        Ok(Self {
            is_own: false,
            ..Self::new(LOG)?
        })
    }

    /// A pattern of the user.
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        let regex = RegexBuilder::new(pattern)
            .unicode(false)
            .size_limit(LARGEST)
            .build()
            .map_err(|err| format!("--pattern is not a regular expression: {err}"))?;
        let named = regex.capture_names().enumerate();
        let groups: Vec<_> = named
            .filter_map(|(index, name)| Some((index, name?.to_owned())))
            .collect();
        if groups.is_empty() {
            return Err(
                "--pattern has no named groups; name those of the time and the entity, as in \
                 '(?P<time>\\S+) (?P<entity>\\S+)'"
                    .to_owned(),
            );
        }
        Ok(Self {
            found: regex.capture_locations(),
            regex,
            groups,
            is_own: true,
        })
    }

    /// The names of the groups.
    pub(crate) fn names(&self) -> Vec<String> {
        self.groups.iter().map(|(_, name)| name.clone()).collect()
    }

    /// Whether the line is as the pattern says.
    pub(crate) fn matches(&mut self, line: &[u8]) -> bool {
        self.regex.captures_read(&mut self.found, line).is_some()
    }

    /// A group of the line that was matched.
    pub(crate) fn part<'a>(&self, line: &'a [u8], group: usize) -> Option<&'a [u8]> {
        let (index, _) = self.groups.get(group)?;
        let (begin, end) = self.found.get(*index)?;
        line.get(begin..end)
    }

    /// What a line must be, for messages.
    pub(crate) fn expected(&self) -> &'static str {
        if self.is_own {
            "does not match --pattern"
        } else {
            "is not a line of the Common or Combined Log Format, such as \
             192.0.2.1 - alice [15/Jan/2026:09:30:00 +0000] \"GET / HTTP/1.1\" 200 512"
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Option<[Option<&str>; 7]>) {
        let mut pattern = Pattern::log().unwrap();
        assert_eq!(pattern.matches(line.as_bytes()), expected.is_some(), "{line}");
        if let Some(expected) = expected {
            let parts: Vec<_> = (0..7)
                .map(|group| {
                    pattern
                        .part(line.as_bytes(), group)
                        .map(|part| str::from_utf8(part).unwrap())
                })
                .collect();
            assert_eq!(parts, expected);
        }
    }

    #[test]
    fn both_formats_of_web_servers() {
        let time = Some("10/Oct/2000:13:55:36 -0700");
        let expected = [
            Some("127.0.0.1"),
            Some("frank"),
            time,
            Some("GET"),
            Some("/a.gif HTTP/1.0"),
            Some("200"),
            Some("2326"),
        ];
        let common = r#"127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a.gif HTTP/1.0" 200 2326"#;
        check(common, Some(expected));
        check(
            &format!(r#"{common} "http://example.com/" "Mozilla/4.08 [en] (Win98; I ;Nav)""#),
            Some(expected),
        );
        // What scanners send, a quote in the path, and an address of IPv6.
        let hostile = r#"2001:db8::1 - - [10/Oct/2000:13:55:36 -0700] "\x16\x03\"]" 400 -"#;
        let expected = [
            Some("2001:db8::1"),
            Some("-"),
            time,
            None,
            Some(r#"\x16\x03\"]"#),
            Some("400"),
            Some("-"),
        ];
        check(hostile, Some(expected));
    }

    #[test]
    fn what_is_not_a_line_of_a_log() {
        for line in [
            "",
            "timestamp,entity",
            "127.0.0.1 - - [] GET 200 1",
            r#"a - - [b] "GET /" 20 1"#,
        ] {
            check(line, None);
        }
    }

    #[test]
    fn patterns_of_users_are_checked() {
        let err = Pattern::new("(").unwrap_err();
        assert!(
            err.starts_with("--pattern is not a regular expression: "),
            "{err}"
        );
        assert!(Pattern::new(r"\d+").unwrap_err().contains("has no named groups"));
        assert!(Pattern::new(r"(?P<a>x{1000}{1000}{1000})").is_err());
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200), text in "[-a0 \"\\[\\]\\\\]{0,80}") {
            let mut pattern = Pattern::log().unwrap();
            pattern.matches(&line);
            pattern.matches(text.as_bytes());
        }
    }
}

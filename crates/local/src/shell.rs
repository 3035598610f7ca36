//! The environment variables that point AWS clients at a local server, in the syntax of a shell.
//!
//! [`Variables`] holds the four values, [`Variables::render`] writes them for a [`Format`]. No server is asked.

use std::fmt;
use std::str::FromStr;

/// The syntax of the variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `eval` of bash, zsh and other POSIX shells: lines of `export NAME=value`.
    #[default]
    Eval,
    /// A file of direnv, the same lines.
    Direnv,
    /// `PowerShell`: lines of `$env:NAME = "value"`.
    PowerShell,
}

impl Format {
    /// Every format, in the order in which they are listed.
    pub const ALL: [Self; 3] = [Self::Eval, Self::Direnv, Self::PowerShell];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eval => "eval",
            Self::Direnv => "direnv",
            Self::PowerShell => "powershell",
        }
    }

    fn line(self, name: &str, value: &str) -> String {
        match self {
            // direnv hands on what its file exports, and that alone.
            Self::Eval | Self::Direnv => format!("export {name}={}", posix(value)),
            Self::PowerShell => format!("$env:{name} = {}", powershell(value)),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A format that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not one of 'eval', 'direnv', 'powershell'")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    /// Reads a name in upper or lower case.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|format| format.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnknownFormat(name.to_owned()))
    }
}

/// The environment variables that AWS clients read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variables {
    /// `AWS_ENDPOINT_URL`.
    pub endpoint_url: String,
    /// `AWS_ACCESS_KEY_ID`. A server on the own machine takes any.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`. A server on the own machine takes any.
    pub secret_access_key: String,
    /// `AWS_DEFAULT_REGION`.
    pub region: String,
}

impl Variables {
    /// Leads to this machine's port, with the credentials `test` in the region `us-east-1`.
    pub fn of_port(port: u16) -> Self {
        Self::of_url(format!("http://localhost:{port}"))
    }

    /// Leads to a server at a URL, with the same credentials and region.
    pub fn of_url(url: impl Into<String>) -> Self {
        Self {
            endpoint_url: url.into(),
            access_key_id: "test".to_owned(),
            secret_access_key: "test".to_owned(),
            region: "us-east-1".to_owned(),
        }
    }

    /// One line for each variable, each with its end of line, always in the same order.
    pub fn render(&self, format: Format) -> String {
        [
            ("AWS_ENDPOINT_URL", &self.endpoint_url),
            ("AWS_ACCESS_KEY_ID", &self.access_key_id),
            ("AWS_SECRET_ACCESS_KEY", &self.secret_access_key),
            ("AWS_DEFAULT_REGION", &self.region),
        ]
        .into_iter()
        .map(|(name, value)| format.line(name, value) + "\n")
        .collect()
    }
}

/// A word that a POSIX shell reads as the value: bare if nothing in it means anything to a shell, else in single quotes.
fn posix(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        value.to_owned()
    } else {
        // Within single quotes only the single quote ends anything: end, an escaped one, begin again.
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

/// A string that `PowerShell` reads as the value: always in double quotes. It takes typographic quotes for straight ones.
fn powershell(value: &str) -> String {
    let mut quoted = String::from('"');
    for c in value.chars() {
        match c {
            '\n' => quoted.push_str("`n"),
            '\r' => quoted.push_str("`r"),
            '`' | '$' | '"' | '\u{201c}' | '\u{201d}' | '\u{201e}' => quoted.extend(['`', c]),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eval_exports() {
        let want = "export AWS_ENDPOINT_URL=http://localhost:4566\n\
                    export AWS_ACCESS_KEY_ID=test\n\
                    export AWS_SECRET_ACCESS_KEY=test\n\
                    export AWS_DEFAULT_REGION=us-east-1\n";
        assert_eq!(Variables::of_port(4566).render(Format::Eval), want);
        assert_eq!(Variables::of_port(4566).render(Format::default()), want);
    }

    #[test]
    fn direnv_needs_the_export() {
        let want = "export AWS_ENDPOINT_URL=http://localhost:4567\n\
                    export AWS_ACCESS_KEY_ID=test\n\
                    export AWS_SECRET_ACCESS_KEY=test\n\
                    export AWS_DEFAULT_REGION=us-east-1\n";
        assert_eq!(Variables::of_port(4567).render(Format::Direnv), want);
    }

    #[test]
    fn powershell_always_quotes() {
        let want = "$env:AWS_ENDPOINT_URL = \"http://localhost:4566\"\n\
                    $env:AWS_ACCESS_KEY_ID = \"test\"\n\
                    $env:AWS_SECRET_ACCESS_KEY = \"test\"\n\
                    $env:AWS_DEFAULT_REGION = \"us-east-1\"\n";
        assert_eq!(Variables::of_port(4566).render(Format::PowerShell), want);
    }

    #[test]
    fn names_are_read_in_any_case() {
        for format in Format::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
            assert_eq!(format.name().to_uppercase().parse(), Ok(format));
        }
        assert_eq!("PowerShell".parse(), Ok(Format::PowerShell));
        let err = "fish".parse::<Format>().unwrap_err();
        assert_eq!(
            err.to_string(),
            "'fish' is not one of 'eval', 'direnv', 'powershell'"
        );
    }

    #[test]
    fn powershell_escapes_what_it_would_expand() {
        assert_eq!(powershell("$(x) `y \"z\""), "\"`$(x) ``y `\"z`\"\"");
        assert_eq!(powershell("\u{201d}; x \u{201c}"), "\"`\u{201d}; x `\u{201c}\"");
        assert_eq!(powershell("a\r\nb"), "\"a`r`nb\"");
        assert_eq!(powershell(""), "\"\"");
    }

    #[test]
    fn a_posix_word_is_bare_only_if_it_may_be() {
        assert_eq!(posix("http://[::1]:1"), "'http://[::1]:1'");
        assert_eq!(posix("~"), "'~'");
        assert_eq!(posix(""), "''");
        assert_eq!(posix("it's"), r"'it'\''s'");
    }

    #[test]
    #[cfg(unix)]
    fn a_shell_reads_back_what_was_written() {
        use std::process::Command;

        for value in [
            "test",
            "a b",
            "it's",
            "$(echo no)`echo no`",
            "\"",
            "a\nb",
            "",
            "\\",
            "!#&|;<>*?",
            "ü",
        ] {
            for format in [Format::Eval, Format::Direnv] {
                let variables = Variables {
                    secret_access_key: value.to_owned(),
                    ..Variables::of_port(1)
                };
                let script = "eval \"$1\"\nprintf '%s|%s' \"$AWS_SECRET_ACCESS_KEY\" \"$AWS_DEFAULT_REGION\"";
                let output = Command::new("sh")
                    .args(["-c", script, "sh", &variables.render(format)])
                    .env_clear()
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{value:?}: {output:?}");
                assert_eq!(
                    String::from_utf8_lossy(&output.stdout),
                    format!("{value}|us-east-1")
                );
            }
        }
    }
}

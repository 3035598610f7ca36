//! What a running endpoint keeps, though a second start asked for something else.

use std::path::{Path, PathBuf};

use zae_limiter_local::lambda::Python;
use zae_limiter_local::state::Running;

use crate::args::local::Up;

/// The differences from the options, if there are any.
pub(super) fn note(args: &Up, running: &Running) -> Option<String> {
    let kept = differences(args, running);
    if kept.is_empty() {
        return None;
    }
    Some(format!(
        "Note: The running endpoint keeps {}; run 'zae-limiter local down' first to change that.",
        kept.join(", ")
    ))
}

/// Only what was said is compared, not what is so without being said.
fn differences(args: &Up, running: &Running) -> Vec<String> {
    let mut kept = Vec::new();
    if let Some(port) = args.port.filter(|port| ![0, running.port].contains(port)) {
        kept.push(format!("its port {} (not {port})", running.port));
    }
    if let Some(host) = args.host.filter(|host| running.bound() != Some(*host)) {
        kept.push(format!("its address {} (not {host})", running.host));
    }
    match (&running.data, &args.data_dir) {
        (Some(data), _) if args.ephemeral => {
            kept.push(format!("its data in {} (not in memory)", data.display()));
        }
        (Some(data), Some(wanted)) if whole(data) != whole(wanted) => {
            kept.push(format!(
                "its data in {} (not in {})",
                data.display(),
                wanted.display()
            ));
        }
        (None, Some(wanted)) => kept.push(format!("its data in memory (not in {})", wanted.display())),
        _ => {}
    }
    if args.verbose && running.verbose == Some(false) {
        kept.push("its log without requests (no --verbose)".to_owned());
    }
    if let Some(wanted) = &args.python
        && let Ok(wanted) = Python::find(Some(wanted))
        && wanted.path() != running.python.as_deref()
    {
        let shown = |path: Option<&Path>| path.map_or("none".to_owned(), |path| path.display().to_string());
        kept.push(format!(
            "its Python interpreter {} (not {})",
            shown(running.python.as_deref()),
            shown(wanted.path())
        ));
    }
    kept
}

/// The path by which a directory is the same as itself.
fn whole(path: &Path) -> PathBuf {
    std::fs::canonicalize(path)
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::local::LocalCommand;
    use crate::args::{Cli, Command};

    fn noted(words: &str, data: Option<&str>) -> Option<String> {
        let words = format!("zae-limiter local up {words}");
        let Command::Local(LocalCommand::Up(args)) = Cli::read(words.split_whitespace()).unwrap().command
        else {
            panic!("{words}");
        };
        let running = Running {
            pid: 1,
            port: 5000,
            host: "127.0.0.1".into(),
            data: data.map(PathBuf::from),
            version: "0".into(),
            started: 0,
            logs: true,
            verbose: Some(false),
            born: None,
            python: None,
        };
        note(&args, &running)
    }

    #[test]
    fn what_is_asked_for_and_is_not_so_is_named() {
        let told = |words, data| noted(words, data).unwrap();
        assert_eq!(
            told("--host 0.0.0.0 --ephemeral", Some("/data")),
            "Note: The running endpoint keeps its address 127.0.0.1 (not 0.0.0.0), its data in /data (not in memory); \
             run 'zae-limiter local down' first to change that."
        );
        assert!(told("--port 5001", None).contains("its port 5000 (not 5001)"));
        assert!(told("--data-dir /other", Some("/data")).contains("in /data (not in /other)"));
        assert!(told("--data-dir /other", None).contains("in memory (not in /other)"));
        assert!(told("--verbose", None).contains("--verbose"));
        let python = std::env::current_exe().unwrap();
        let asked = format!("--python {}", python.display());
        let said = format!("its Python interpreter none (not {})", python.display());
        assert!(told(&asked, None).contains(&said));
    }

    #[test]
    fn what_is_so_is_not_named() {
        for (words, data) in [
            ("--port 0", None),
            ("--port 5000 --host 127.0.0.1 --ephemeral", None),
            ("--port 5000 --data-dir /.", Some("/")),
            ("--data-dir /no/such/directory", Some("/no/such/directory")),
        ] {
            assert_eq!(noted(words, data), None, "{words}");
        }
    }
}

//! The limits of a command line as a whole: each once, with their schedules.

use zae_limiter_core::schedule::Zone;
use zae_limiter_core::{Limit, LimitBuilder};

use super::shape::{self, Scheduled};
use super::{Named, plain};
use crate::args::WrittenLimits;
use crate::text::table::printable;

/// The zone of schedules for which none is given.
const UTC: &str = "UTC";

/// A limit, and what it was read from.
struct Described {
    name: String,
    builder: LimitBuilder,
    is_reset: bool,
}

/// Reads limits as they were written; the first bad one ends it. The error is a sentence for the user.
pub(crate) fn read(written: &WrittenLimits) -> Result<Vec<Limit>, String> {
    let zone = written.tz.as_deref().unwrap_or(UTC);
    if written.tz.is_some() {
        Zone::named(zone).map_err(|err| invalid("--tz", zone, err.reason()))?;
        if written.quotas.is_empty() && written.schedules.is_empty() {
            return Err(invalid(
                "--tz",
                zone,
                "it has no effect without --quota or --schedule; leave it out",
            ));
        }
    }
    let mut limits: Vec<Described> = Vec::new();
    for text in &written.limits {
        let named = plain(text).map_err(|why| of_limit(text, &why))?;
        add(&mut limits, "limit", text, named, false)?;
    }
    for text in &written.quotas {
        let named = shape::quota(text, zone).map_err(|why| invalid("--quota", text, &why))?;
        add(&mut limits, "--quota", text, named, true)?;
    }
    for text in &written.sessions {
        let named = shape::session(text).map_err(|why| invalid("--session", text, &why))?;
        add(&mut limits, "--session", text, named, true)?;
    }
    let mut entries: Vec<Scheduled> = Vec::new();
    for text in &written.schedules {
        let wrong = |why: &str| invalid("--schedule", text, why);
        let entry = shape::entry(text, zone).map_err(|why| wrong(&why))?;
        let limit = find(&mut limits, &entry.name).map_err(|why| wrong(&why))?;
        if limit.is_reset && entry.refills() {
            let why = format!(
                "'{}' is not refilled over time, so that 'refill' and 'every' cannot be given; give a factor or a capacity",
                entry.name
            );
            return Err(wrong(&why));
        }
        entries.push(entry);
    }
    let mut soft: Vec<&str> = Vec::new();
    for name in &written.soft {
        let limit = find(&mut limits, name).map_err(|why| invalid("--soft", name, &why))?;
        if !soft.contains(&&**name) {
            limit.builder = limit.builder.clone().soft();
            soft.push(name);
        }
    }
    let built = limits.into_iter().map(|limit| {
        let own = entries.iter().filter(|entry| entry.name == limit.name);
        let builder = limit.builder.scheduled(own.map(|entry| entry.entry.clone()));
        builder
            .build()
            .map_err(|err| invalid("limit", &limit.name, &format!("{} {}", err.field(), err.reason())))
    });
    built.collect()
}

fn add(
    limits: &mut Vec<Described>,
    option: &str,
    text: &str,
    (name, builder): Named,
    is_reset: bool,
) -> Result<(), String> {
    if limits.iter().any(|other| other.name == name) {
        let why = format!("'{name}' is given twice. Give each limit once.");
        return Err(invalid(option, text, &why));
    }
    limits.push(Described {
        name,
        builder,
        is_reset,
    });
    Ok(())
}

/// The limit of this name, or why there is none.
fn find<'l>(limits: &'l mut [Described], name: &str) -> Result<&'l mut Described, String> {
    let mut names: Vec<&str> = limits.iter().map(|limit| limit.name.as_str()).collect();
    names.sort_unstable();
    let why = format!(
        "no limit '{}' is given with --limit, --quota or --session; given: {}",
        printable(name),
        names.join(", ")
    );
    limits.iter_mut().find(|limit| limit.name == name).ok_or(why)
}

fn invalid(option: &str, text: &str, why: &str) -> String {
    format!("Invalid {option} '{}': {why}", printable(text))
}

/// The text about a limit of `--limit`.
fn of_limit(text: &str, why: &str) -> String {
    // The Python tool's texts; some of them do not show what they are about.
    if why.contains(text) {
        return why.to_owned();
    }
    invalid("limit", text, why.strip_prefix("Invalid ").unwrap_or(why))
}

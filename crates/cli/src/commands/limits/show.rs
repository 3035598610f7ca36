//! Plans, applies and differences, as they are printed.

use serde_json::{Map, Value as Json, json};
use zae_limiter_core::manifest::Target;

use super::answer::{Answer, Change};
use crate::args::Format;
use crate::args::limits::Shown;
use crate::commands::Outcome;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;
use crate::say;
use crate::text::table::printable;

const NO_CHANGES: &str = "No changes. Infrastructure is up-to-date.";

/// The common part of the JSON output.
type Common = Map<String, Json>;

/// Prints a plan.
pub(super) fn planned(
    answer: &Answer,
    shown: &Shown,
    format: &Format,
    common: Common,
) -> Result<(), Failure> {
    let quiet = shown.quiet.quiet;
    let mut out = Out::to_the_end(format);
    if out.is_json() {
        let mut json = with_changes(common, answer, quiet);
        json.insert("resumed".into(), json!(answer.resumed));
        out.json(&json.into())?;
        return out.flush();
    }
    if answer.changes.is_empty() {
        out.line(nothing_to_change(answer))?;
        if !quiet {
            further_notes(&mut out, answer, Tense::Future)?;
        }
        return out.flush();
    }
    out.line(format_args!(
        "Plan: {} change(s){}",
        answer.changes.len(),
        unchanged(answer)
    ))?;
    if !quiet {
        out.line("")?;
        for change in &answer.changes {
            out.line(with_verb(change))?;
            values(&mut out, change, shown.verbose)?;
        }
        notes(&mut out, answer)?;
        further_notes(&mut out, answer, Tense::Future)?;
        tell_of_missing_values(answer, shown.verbose);
    }
    out.flush()
}

/// Prints an apply, and how it ends.
pub(super) fn applied(answer: &Answer, quiet: bool, format: &Format, common: &Common) -> Outcome {
    let mut out = Out::to_the_end(format);
    let has_failed = !answer.errors.is_empty();
    if out.is_json() {
        let mut json = with_changes(common.clone(), answer, quiet);
        json.insert("resumed".into(), json!(answer.resumed));
        json.insert("created".into(), json!(answer.created));
        json.insert("updated".into(), json!(answer.updated));
        json.insert("deleted".into(), json!(answer.deleted));
        json.insert("errors".into(), json!(answer.errors));
        out.json(&json.into())?;
        out.flush()?;
        return Ok(if has_failed { Exit::Failure } else { Exit::Success });
    }
    if answer.changes.is_empty() {
        out.line(if has_failed {
            "No config changes; retried fan-outs did not finish (see errors).".to_owned()
        } else {
            nothing_to_change(answer)
        })?;
    } else {
        if !quiet {
            for change in &answer.changes {
                out.line(with_verb(change))?;
            }
            out.line("")?;
        }
        out.line(format_args!(
            "Applied: {} created, {} updated, {} deleted{}.",
            answer.created,
            answer.updated,
            answer.deleted,
            unchanged(answer)
        ))?;
    }
    if !quiet {
        if !answer.changes.is_empty() {
            notes(&mut out, answer)?;
        }
        further_notes(&mut out, answer, Tense::Past)?;
        if answer.resumed {
            out.line(
                "Note: resumed the fan-outs an earlier full apply did not finish, instead of starting over.",
            )?;
        }
    }
    out.flush()?;
    if has_failed {
        let lines: Vec<String> = answer
            .errors
            .iter()
            .map(|error| format!("\n  - {}", printable(error)))
            .collect();
        return Err(Failure::bare(
            format!("\nErrors ({}):{}", answer.errors.len(), lines.concat()),
            Exit::Failure,
        ));
    }
    Ok(Exit::Success)
}

/// Prints differences, and what was set by hand if that is known.
pub(super) fn differing(
    answer: &Answer,
    by_hand: Option<&[Target]>,
    shown: &Shown,
    format: &Format,
    common: Common,
) -> Result<(), Failure> {
    let quiet = shown.quiet.quiet;
    let mut out = Out::to_the_end(format);
    if out.is_json() {
        let mut json = with_changes(common, answer, quiet);
        if !quiet {
            json.insert("set_by_hand".into(), by_hand.map(targets).into());
        }
        out.json(&json.into())?;
        return out.flush();
    }
    if answer.changes.is_empty() {
        out.line("No drift detected. Live state matches YAML.")?;
    } else {
        out.line(format_args!(
            "Drift detected: {} difference(s){}",
            answer.changes.len(),
            unchanged(answer)
        ))?;
    }
    if quiet {
        return out.flush();
    }
    let by_hand = by_hand.unwrap_or_default();
    if !answer.changes.is_empty() || !by_hand.is_empty() {
        out.line("")?;
    }
    for change in &answer.changes {
        out.line(without_verb(change))?;
        values(&mut out, change, shown.verbose)?;
    }
    for target in by_hand {
        let name = target.to_string();
        out.line(format_args!(
            "  ? {}: {} (set by hand, left alone)",
            target.level(),
            printable(&name)
        ))?;
    }
    notes(&mut out, answer)?;
    further_notes(&mut out, answer, Tense::Future)?;
    tell_of_missing_values(answer, shown.verbose);
    out.flush()
}

/// ` (3 unchanged)`, if there are any.
fn unchanged(answer: &Answer) -> String {
    match answer.unchanged {
        Some(0) | None => String::new(),
        Some(number) => format!(" ({number} unchanged)"),
    }
}

fn nothing_to_change(answer: &Answer) -> String {
    match answer.retried() {
        0 if answer.adopted == 0 => NO_CHANGES.to_owned(),
        0 => "No config changes.".to_owned(),
        pending => format!(
            "No config changes; {pending} bucket fan-out(s) an earlier apply did not finish will be retried by the next \
             apply."
        ),
    }
}

fn notes(out: &mut Out, answer: &Answer) -> Result<(), Failure> {
    match answer.retried() {
        0 => Ok(()),
        pending => out.line(format_args!(
            "Note: {pending} bucket fan-out(s) an earlier apply did not finish; the next apply retries them."
        )),
    }
}

/// Whether an apply will be, or has been.
#[derive(Clone, Copy)]
enum Tense {
    Past,
    Future,
}

/// The line of a flag among the values of a level.
fn flag<'a>(lines: &'a [String], name: &str) -> Option<&'a String> {
    lines.iter().find(|line| line.starts_with(name))
}

/// Flags that a level loses: what was switched off by hand is switched on.
fn lost_flags(out: &mut Out, change: &Change, tense: Tense) -> Result<(), Failure> {
    let Some(values) = &change.values else {
        return Ok(());
    };
    for name in ["disabled: ", "cascade: "] {
        let (Some(old), new) = (flag(&values.old, name), flag(&values.new, name)) else {
            continue;
        };
        if new == Some(old) {
            continue;
        }
        let fate = match (tense, new) {
            (Tense::Future, None) => "is taken away".to_owned(),
            (Tense::Past, None) => "was taken away".to_owned(),
            (Tense::Future, Some(new)) => format!("becomes '{new}'"),
            (Tense::Past, Some(new)) => format!("became '{new}'"),
        };
        let note = format!("Note: {} {}: '{old}' {fate}.", change.level, change.target());
        out.line(printable(&note))?;
    }
    Ok(())
}

/// Flags that go, and levels that are neither changed nor retried.
fn further_notes(out: &mut Out, answer: &Answer, tense: Tense) -> Result<(), Failure> {
    for change in &answer.changes {
        lost_flags(out, change, tense)?;
    }
    let replaced = answer.changes.iter().filter(|change| change.replaces()).count();
    if replaced > 0 {
        out.line(match tense {
            Tense::Future => {
                format!("Note: {replaced} level(s) set by hand hold other limits or flags, and are replaced.")
            }
            Tense::Past => {
                format!("Note: {replaced} level(s) that were set by hand held other limits or flags.")
            }
        })?;
    }
    if answer.adopted > 0 {
        let number = answer.adopted;
        out.line(match tense {
            Tense::Future => format!(
                "Note: {number} level(s) set by hand have the declared limits; the next apply makes them managed."
            ),
            Tense::Past => {
                format!("Note: {number} level(s) set by hand had the declared limits, and are managed now.")
            }
        })?;
    }
    if answer.of_others > 0 {
        out.line(format_args!(
            "Note: {} bucket fan-out(s) are left to another apply, which may still be running, or to a newer release.",
            answer.of_others
        ))?;
    }
    Ok(())
}

fn with_verb(change: &Change) -> String {
    printable(&format!(
        "  {} {} {}: {}",
        change.symbol(),
        change.action,
        change.what(),
        change.target()
    ))
    .into_owned()
}

fn without_verb(change: &Change) -> String {
    printable(&format!(
        "  {} {}: {}",
        change.symbol(),
        change.what(),
        change.target()
    ))
    .into_owned()
}

/// The values that differ.
fn values(out: &mut Out, change: &Change, verbose: bool) -> Result<(), Failure> {
    let Some(values) = change.values.as_ref().filter(|_| verbose) else {
        return Ok(());
    };
    let without = |lines: &[String], others: &[String]| -> Vec<String> {
        lines
            .iter()
            .filter(|line| !others.contains(line))
            .cloned()
            .collect()
    };
    for line in without(&values.old, &values.new) {
        out.line(format_args!("      - {}", printable(&line)))?;
    }
    for line in without(&values.new, &values.old) {
        out.line(format_args!("      + {}", printable(&line)))?;
    }
    Ok(())
}

fn tell_of_missing_values(answer: &Answer, verbose: bool) {
    if verbose && answer.changes.iter().any(|change| change.values.is_none()) {
        say(
            "Note: some old and new limits are not shown, since the answer does not contain them (an old limits \
             provisioner, or very many changes).",
        );
    }
}

fn with_changes(mut json: Common, answer: &Answer, quiet: bool) -> Common {
    if !quiet {
        let changes = answer.changes.iter().map(|change| change.json.clone());
        json.insert("changes".into(), changes.collect());
    }
    json.insert("change_count".into(), json!(answer.changes.len()));
    json.insert("unchanged".into(), json!(answer.unchanged));
    json.insert("adopted".into(), json!(answer.adopted));
    json.insert("pending".into(), json!(answer.pending));
    json.insert("of_others".into(), json!(answer.of_others));
    json
}

fn targets(targets: &[Target]) -> Json {
    let target = |target: &Target| json!({ "level": target.level(), "target": target.name() });
    targets.iter().map(target).collect()
}

//! `check` and `version`: the table as a whole.

use serde_json::json;
use zae_limiter::{Compatibility, Error, VersionRecord};
use zae_limiter_core::schema::SCHEMA_VERSION;
use zae_limiter_core::version::FEATURE_LEVEL;

use super::Outcome;
use crate::args::table::{Check, Version};
use crate::args::{Connection, PROGRAM};
use crate::connect::stack;
use crate::exit::Exit;
use crate::failure::{Doing, Failure, marked, place_options};
use crate::out::Out;
use crate::text::table::printable;
use crate::text::time;

/// The version of a table.
enum Found {
    NoTable,
    NoRecord,
    Record(VersionRecord),
}

async fn found(at: &Connection) -> Result<Found, Failure> {
    let stack = match stack(at, "").await {
        Err(Failure::Message {
            exit: Exit::NoStack, ..
        }) => return Ok(Found::NoTable),
        other => other?,
    };
    match stack.version().await {
        Ok(Some(record)) => Ok(Found::Record(record)),
        Ok(None) => Ok(Found::NoRecord),
        Err(Error::InfrastructureNotFound { .. }) => Ok(Found::NoTable),
        Err(err) => Err(Doing { at, what: "" }.failed(&err)),
    }
}

fn deploy_command(at: &Connection) -> String {
    let name = match &*at.name {
        PROGRAM => String::new(),
        name => format!(" --name {name}"),
    };
    format!("zae-limiter deploy{name}{}", place_options(at))
}

fn json_of(found: &Found) -> serde_json::Value {
    let (state, record) = match found {
        Found::NoTable => ("not_deployed", None),
        Found::NoRecord => ("not_initialized", None),
        Found::Record(record) => (
            match record.compatibility() {
                Compatibility::Compatible => "compatible",
                Compatibility::FunctionsOutdated(_) => "lambda_outdated",
                Compatibility::ClientTooOld(_) => "client_too_old",
                Compatibility::Schema(_) => "schema_mismatch",
                Compatibility::Unreadable(_) => "unreadable",
            },
            Some(record),
        ),
    };
    json!({
        "state": state,
        "program_version": env!("CARGO_PKG_VERSION"),
        "client_version": FEATURE_LEVEL.to_string(),
        "client_schema_version": SCHEMA_VERSION,
        "schema_version": record.map(|record| &record.schema),
        "lambda_version": record.and_then(|record| record.functions.as_ref()),
        "client_min_version": record.map(|record| &record.client_minimum),
        "updated_at": record.and_then(|record| record.updated_at).map(time::stored),
        "updated_by": record.and_then(|record| record.updated_by.as_ref()),
        "reason": record.and_then(|record| record.compatibility().refusal()),
    })
}

pub(crate) async fn version(args: Version) -> Outcome {
    crate::names::stack(&args.common.at.name)?;
    let mut out = Out::to_the_end(&args.common.format);
    if !out.is_json() {
        out.line("\nzae-limiter Infrastructure Version")?;
        out.line("====================================\n")?;
        out.line(format_args!("Client Version:     {FEATURE_LEVEL}"))?;
        out.line(format_args!("Schema Version:     {SCHEMA_VERSION}\n"))?;
        out.flush()?;
    }
    let found = found(&args.common.at)
        .await
        .map_err(|failure| marked(failure, "Failed to get version info"))?;
    if out.is_json() {
        out.json(&json_of(&found))?;
        out.flush()?;
        return Ok(version_exit(&found));
    }
    match &found {
        Found::NoTable | Found::NoRecord => {
            out.line("Infrastructure:     Not initialized\n")?;
            out.line(format_args!(
                "Run '{}' to initialize infrastructure.",
                deploy_command(&args.common.at)
            ))?;
        }
        Found::Record(record) => {
            out.line(format_args!("Infra Schema:       {}", printable(&record.schema)))?;
            out.line(format_args!("Lambda Version:     {}", functions(record)))?;
            out.line(format_args!(
                "Min Client Version: {}\n",
                printable(&record.client_minimum)
            ))?;
            match record.compatibility() {
                Compatibility::Compatible => out.line("Status: COMPATIBLE")?,
                Compatibility::FunctionsOutdated(old) => {
                    out.line("Status: COMPATIBLE (Lambda update available)\n")?;
                    out.line(format_args!(
                        "  Lambda update available: {} -> {FEATURE_LEVEL}\n",
                        printable(&old)
                    ))?;
                    out.line("Run 'zae-limiter upgrade' to update Lambda.")?;
                }
                refused => {
                    let migrate = matches!(refused, Compatibility::Schema(_));
                    let what = if migrate {
                        " (Schema migration required)"
                    } else {
                        ""
                    };
                    out.flush()?;
                    return incompatible(&mut out, &format!("Status: INCOMPATIBLE{what}"), "  ", &refused);
                }
            }
        }
    }
    out.flush()?;
    Ok(version_exit(&found))
}

fn version_exit(found: &Found) -> Exit {
    match found {
        Found::NoTable => Exit::NoStack,
        Found::Record(record) if record.compatibility().refusal().is_some() => Exit::Failure,
        Found::NoRecord | Found::Record(_) => Exit::Success,
    }
}

pub(crate) async fn check(args: Check) -> Outcome {
    crate::names::stack(&args.common.at.name)?;
    let mut out = Out::to_the_end(&args.common.format);
    if !out.is_json() {
        out.line("\nCompatibility Check\n====================\n")?;
        out.flush()?;
    }
    let found = found(&args.common.at)
        .await
        .map_err(|failure| marked(failure, "Check failed"))?;
    if out.is_json() {
        out.json(&json_of(&found))?;
        out.flush()?;
        return Ok(check_exit(&found));
    }
    match &found {
        Found::NoTable | Found::NoRecord => {
            out.line("Result: NOT INITIALIZED\n")?;
            out.line("Infrastructure has not been deployed yet.")?;
            out.line(format_args!(
                "Run '{}' to initialize.",
                deploy_command(&args.common.at)
            ))?;
        }
        Found::Record(record) => {
            out.line(format_args!("Client:      {FEATURE_LEVEL}"))?;
            out.line(format_args!("Schema:      {}", printable(&record.schema)))?;
            out.line(format_args!("Lambda:      {}\n", functions(record)))?;
            match record.compatibility() {
                Compatibility::Compatible => {
                    out.line("Result: COMPATIBLE\n")?;
                    out.line("Client and infrastructure are fully compatible.")?;
                }
                Compatibility::FunctionsOutdated(old) => {
                    out.line("Result: COMPATIBLE (update available)\n")?;
                    out.line(format_args!(
                        "Lambda update available: {} -> {FEATURE_LEVEL}\n",
                        printable(&old)
                    ))?;
                    out.line("Run 'zae-limiter upgrade' to update.")?;
                }
                refused => {
                    out.flush()?;
                    return incompatible(&mut out, "Result: INCOMPATIBLE", "", &refused);
                }
            }
        }
    }
    out.flush()?;
    Ok(check_exit(&found))
}

fn check_exit(found: &Found) -> Exit {
    match found {
        Found::NoTable => Exit::NoStack,
        Found::Record(record) if record.compatibility().refusal().is_none() => Exit::Success,
        Found::NoRecord | Found::Record(_) => Exit::Failure,
    }
}

/// The verdict goes to standard error, the explanation to standard output.
fn incompatible(out: &mut Out, verdict: &str, indent: &str, why: &Compatibility) -> Outcome {
    crate::say(verdict);
    if let Some(reason) = why.refusal() {
        out.line(format_args!("\n{indent}{}", printable(&reason)))?;
    }
    out.flush()?;
    Ok(Exit::Failure)
}

fn functions(record: &VersionRecord) -> String {
    let version = record.functions.as_deref().unwrap_or("unknown");
    printable(version).into_owned()
}

//! `status`.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use zae_limiter::VersionRecord;
use zae_limiter::table::failure::Access;
use zae_limiter::table::{DynamoClient, EmbeddedEngine};
use zae_limiter_core::table::{Applied, FailureKind, TableError};
use zae_limiter_core::version::FEATURE_LEVEL;
use zae_limiter_infra::StackSummary;

use crate::args::Connection;
use crate::args::stack::Status;
use crate::commands::Outcome;
use crate::connect::{Opening, check_directory, client, embedded, exists, manager, stack, unlocked};
use crate::exit::Exit;
use crate::failure::{Failure, marked, of_stack, options, table_failure};
use crate::out::Out;
use crate::text::number::{self, grouped};
use crate::text::table::printable;

/// The outputs that hold the roles' ARNs.
const ROLES: [(&str, &str); 3] = [
    ("App", "AppRoleArn"),
    ("Admin", "AdminRoleArn"),
    ("ReadOnly", "ReadOnlyRoleArn"),
];

/// The outputs that exist if the functions do.
const AGGREGATOR: &str = "AggregatorFunctionName";
const PROVISIONER: &str = "ProvisionerFunctionName";

/// The last line if the stack cannot be used.
const NOT_AVAILABLE: &str = "Infrastructure is not available";

/// DynamoDB's description of the table.
struct TableState {
    status: String,
    items: Option<i64>,
    bytes: Option<i64>,
    latency: Duration,
}

/// All that could be learnt; what could not is missing.
struct Found {
    table: Result<TableState, Missing>,
    stack: Result<Option<StackSummary>, Failure>,
    record: Record,
}

/// What the table says of the releases that use it.
enum Record {
    There(Box<VersionRecord>),
    /// The table has none: `deploy` did not come to its end.
    Absent,
    /// It could not be read.
    Unknown,
}

impl Record {
    fn get(&self) -> Option<&VersionRecord> {
        match self {
            Self::There(record) => Some(record),
            Self::Absent | Self::Unknown => None,
        }
    }
}

/// Why there is no table.
enum Missing {
    /// It does not exist.
    Absent,
    /// The question failed.
    Failed(Failure),
}

pub(crate) async fn status(args: Status) -> Outcome {
    let at = &args.common.at.connection();
    crate::names::stack(&at.name)?;
    let found = find(at)
        .await
        .map_err(|failure| marked(failure, "Failed to get status"))?;
    let mut out = Out::to_the_end(&args.common.format);
    let verdict = verdict(at, &found);
    if out.is_json() {
        out.json(&json_of(at, &found))?;
    } else {
        print(&mut out, at, &found)?;
        match &verdict {
            Verdict::Ready => out.line("✓ Infrastructure is ready")?,
            Verdict::Busy => out.line("⏳ Operation in progress...")?,
            Verdict::Odd | Verdict::Bad(..) => {}
        }
    }
    out.flush()?;
    match verdict {
        Verdict::Bad(text, exit) => Err(Failure::bare(format!("✗ {text}"), exit)),
        _ => Ok(Exit::Success),
    }
}

async fn find(at: &Connection) -> Result<Found, Failure> {
    let (table, stack_found) = if let Some(path) = embedded(at) {
        check_directory(&path)?;
        if !exists(&path) {
            return Err(crate::failure::no_stack(at));
        }
        let opened = unlocked(|| async {
            let engine = EmbeddedEngine::open(&path);
            engine.map_err(|err| Opening::Failed(zae_limiter::Error::Embedded(std::sync::Arc::new(err))))
        });
        let engine = opened.await.map_err(|err| err.into_failure(at, ""))?;
        (describe(&engine.client(), at).await, Ok(None))
    } else {
        // At the same time: a server that does not answer lets both wait.
        let (client, manager) = (client(at).await?, manager(at).await?);
        let found = Box::pin(manager.existing(&at.name));
        let (table, found) = tokio::join!(Box::pin(describe(&client, at)), found);
        (table, found.map_err(|err| of_stack(&err, at)))
    };
    let record = match &table {
        Ok(_) => match stack(at, "").await {
            Ok(handle) => match handle.version().await {
                Ok(Some(record)) => Record::There(Box::new(record)),
                Ok(None) => Record::Absent,
                Err(_) => Record::Unknown,
            },
            Err(_) => Record::Unknown,
        },
        Err(_) => Record::Unknown,
    };
    Ok(Found {
        table,
        stack: stack_found,
        record,
    })
}

/// Asks DynamoDB about the table.
async fn describe(client: &DynamoClient, at: &Connection) -> Result<TableState, Missing> {
    let begin = Instant::now();
    let request = json!({"TableName": at.name});
    let answer = client.request("DescribeTable", Access::Read, &request).await;
    let latency = begin.elapsed();
    match answer {
        Ok(answer) => {
            let table = &answer["Table"];
            if !table.is_object() {
                let reason = "the answer does not describe a table, so it is not DynamoDB's; check the endpoint and proxies";
                let err = TableError::new(FailureKind::Internal, Applied::No, reason);
                return Err(Missing::Failed(table_failure(&err, at)));
            }
            Ok(TableState {
                status: table["TableStatus"].as_str().unwrap_or("N/A").to_owned(),
                items: table["ItemCount"].as_i64(),
                bytes: table["TableSizeBytes"].as_i64(),
                latency,
            })
        }
        Err(err) if err.kind == FailureKind::TableMissing => Err(Missing::Absent),
        Err(err) => Err(Missing::Failed(table_failure(&err, at))),
    }
}

/// The last lines of the page.
enum Verdict {
    Ready,
    Busy,
    /// Neither: the last change was undone, say.
    Odd,
    Bad(String, Exit),
}

fn verdict(at: &Connection, found: &Found) -> Verdict {
    let stack = found.stack.as_ref().ok().and_then(Option::as_ref);
    match &found.table {
        Err(Missing::Failed(Failure::Message { text, exit })) => {
            let why = text.strip_prefix("Error: ").unwrap_or(text);
            return Verdict::Bad(format!("Infrastructure is not available: {why}"), *exit);
        }
        Err(_) if stack.is_some_and(StackSummary::is_in_progress) => return Verdict::Busy,
        Err(_) if stack.is_none() => return Verdict::Bad(NOT_AVAILABLE.into(), Exit::NoStack),
        Err(_) if stack.is_none_or(|stack| !stack.is_failed()) => {
            return Verdict::Bad(NOT_AVAILABLE.into(), Exit::Failure);
        }
        Ok(_) | Err(_) => {}
    }
    match stack {
        Some(stack) if stack.is_in_progress() => Verdict::Busy,
        Some(stack) if stack.is_failed() => {
            let why = stack
                .reason
                .as_deref()
                .map(|why| format!(": {why}"))
                .unwrap_or_default();
            Verdict::Bad(format!("Stack is in failed state{why}"), Exit::Failure)
        }
        // Clients would refuse it, or write with no release to compare with.
        _ if found.table.is_ok() && matches!(found.record, Record::Absent) => Verdict::Bad(
            format!(
                "Infrastructure is not initialized: the table has no version record. Run 'zae-limiter deploy{}'.",
                options(at)
            ),
            Exit::Failure,
        ),
        Some(stack) if stack.is_healthy() => Verdict::Ready,
        // A table without a stack serves as well.
        None if found.table.as_ref().is_ok_and(|table| table.status == "ACTIVE") => Verdict::Ready,
        Some(_) | None => Verdict::Odd,
    }
}

/// Whether a function is part of the stack, by its output.
fn function(found: &Found, output: &str) -> &'static str {
    match &found.stack {
        Err(_) => "Unknown",
        Ok(Some(stack)) if stack.outputs.contains_key(output) => "Enabled",
        Ok(_) => "Disabled",
    }
}

fn print(out: &mut Out, at: &Connection, found: &Found) -> Result<(), Failure> {
    let table = found.table.as_ref().ok();
    let region = at.region.as_deref().unwrap_or("default");
    let missing = || "N/A".to_owned();
    let mut section = |title: &str, lines: &[(&str, String)]| -> Result<(), Failure> {
        out.line(title)?;
        for (name, value) in lines {
            out.line(format_args!("  {:<15}{}", format!("{name}:"), printable(value)))?;
        }
        out.line("")
    };
    let rule = "=".repeat(50);
    section(
        &format!("\nStatus: {}\n{rule}\n\nConnectivity", at.name),
        &[
            (
                "Available",
                if table.is_some() { "✓ Yes" } else { "✗ No" }.to_owned(),
            ),
            (
                "Latency",
                table.map_or_else(missing, |table| format!("{}ms", table.latency.as_millis())),
            ),
            ("Region", region.to_owned()),
        ],
    )?;
    let stack = match &found.stack {
        Ok(Some(stack)) => stack.status.clone(),
        Ok(None) => "Not found".to_owned(),
        Err(_) => "Unknown".to_owned(),
    };
    section(
        "Infrastructure",
        &[
            ("Stack", stack),
            (
                "Table",
                match &found.table {
                    Ok(table) => table.status.clone(),
                    Err(Missing::Absent) => "Not found".to_owned(),
                    Err(Missing::Failed(_)) => "Unknown".to_owned(),
                },
            ),
            ("Aggregator", function(found, AGGREGATOR).to_owned()),
            ("Provisioner", function(found, PROVISIONER).to_owned()),
        ],
    )?;
    let record = found.record.get();
    section(
        "Versions",
        &[
            ("Client", FEATURE_LEVEL.to_string()),
            (
                "Schema",
                record.map_or_else(missing, |record| record.schema.clone()),
            ),
            (
                "Lambda",
                record
                    .and_then(|record| record.functions.clone())
                    .unwrap_or_else(missing),
            ),
        ],
    )?;
    let count = |number: Option<i64>| number.map_or_else(missing, |number| grouped(number.into()));
    let size = |bytes: Option<i64>| {
        bytes
            .and_then(|bytes| u64::try_from(bytes).ok())
            .map_or_else(missing, number::size)
    };
    section(
        "Table Metrics",
        &[
            ("Items", count(table.and_then(|table| table.items))),
            ("Size", size(table.and_then(|table| table.bytes))),
        ],
    )?;
    let roles = roles(found);
    if !roles.is_empty() {
        section("IAM Roles", &roles)?;
    }
    if let Err(failure) = &found.stack
        && let Failure::Message { text, .. } = failure
        && table.is_some()
    {
        out.line(format_args!("Note: the stack cannot be read. {text}\n"))?;
    }
    Ok(())
}

fn roles(found: &Found) -> Vec<(&'static str, String)> {
    let Ok(Some(stack)) = &found.stack else {
        return Vec::new();
    };
    if !stack.status.contains("COMPLETE") {
        return Vec::new();
    }
    ROLES
        .iter()
        .filter_map(|(name, output)| Some((*name, stack.outputs.get(*output)?.clone())))
        .collect()
}

fn json_of(at: &Connection, found: &Found) -> serde_json::Value {
    let table = found.table.as_ref().ok();
    let stack = found.stack.as_ref().ok().and_then(Option::as_ref);
    let record = found.record.get();
    json!({
        "name": at.name,
        "available": table.is_some(),
        "latency_ms": table.and_then(|table| u64::try_from(table.latency.as_millis()).ok()),
        "region": at.region,
        "stack_id": stack.map(|stack| &stack.id),
        "stack_status": stack.map(|stack| &stack.status),
        "stack_status_reason": stack.and_then(|stack| stack.reason.as_ref()),
        "table_status": table.map(|table| &table.status),
        "aggregator": function(found, AGGREGATOR).to_lowercase(),
        "provisioner": function(found, PROVISIONER).to_lowercase(),
        "client_version": FEATURE_LEVEL.to_string(),
        "schema_version": record.map(|record| &record.schema),
        "lambda_version": record.and_then(|record| record.functions.as_ref()),
        "items": table.and_then(|table| table.items),
        "size_bytes": table.and_then(|table| table.bytes),
        "roles": roles(found).into_iter().map(|(name, arn)| (name.to_lowercase(), json!(arn))).collect::<serde_json::Map<_, _>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(table: Option<&str>, stack: Option<&str>) -> Found {
        let state = |status: &str| TableState {
            status: status.into(),
            items: Some(1234),
            bytes: Some(262_144),
            latency: Duration::from_millis(42),
        };
        Found {
            table: table.map(state).ok_or(Missing::Absent),
            stack: Ok(stack.map(|status| StackSummary {
                status: status.into(),
                ..StackSummary::default()
            })),
            record: Record::Unknown,
        }
    }

    #[test]
    fn how_the_page_ends() {
        let at = Connection {
            name: "app".into(),
            region: None,
            endpoint_url: None,
        };
        let check = |table, stack, expected: &str| {
            let text = match verdict(&at, &found(table, stack)) {
                Verdict::Ready => "ready".to_owned(),
                Verdict::Busy => "busy".to_owned(),
                Verdict::Odd => "odd".to_owned(),
                Verdict::Bad(text, exit) => format!("{text} ({})", exit.code()),
            };
            assert_eq!(text, expected, "{table:?} {stack:?}");
        };
        let active = Some("ACTIVE");
        check(active, Some("CREATE_COMPLETE"), "ready");
        check(active, Some("UPDATE_COMPLETE"), "ready");
        check(active, Some("UPDATE_IN_PROGRESS"), "busy");
        check(active, Some("UPDATE_ROLLBACK_IN_PROGRESS"), "busy");
        check(
            active,
            Some("UPDATE_ROLLBACK_COMPLETE"),
            "Stack is in failed state (1)",
        );
        check(active, Some("DELETE_FAILED"), "Stack is in failed state (1)");
        check(active, Some("REVIEW_IN_PROGRESS"), "odd");
        check(active, None, "ready");
        check(Some("CREATING"), None, "odd");
        check(None, Some("CREATE_IN_PROGRESS"), "busy");
        check(None, Some("ROLLBACK_COMPLETE"), "Stack is in failed state (1)");
        check(
            None,
            Some("CREATE_COMPLETE"),
            "Infrastructure is not available (1)",
        );
        check(None, None, "Infrastructure is not available (4)");
        for status in [Some("CREATE_COMPLETE"), None] {
            let mut found = found(active, status);
            found.record = Record::Absent;
            assert!(
                matches!(verdict(&at, &found), Verdict::Bad(text, Exit::Failure) if text.contains("no version record. Run 'zae-limiter deploy -n app'."))
            );
        }
    }
}

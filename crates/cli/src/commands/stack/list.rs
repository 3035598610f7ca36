//! `list`.

use serde_json::json;
use zae_limiter_infra::{FoundStack, StackSummary};

use crate::args::stack::List;
use crate::commands::Outcome;
use crate::connect::{manager, needs_stack};
use crate::exit::Exit;
use crate::failure::{marked, of_stack};
use crate::out::Out;
use crate::text::table::{Column, Table};

pub(crate) async fn list(args: List) -> Outcome {
    let at = &args.common.at.connection();
    needs_stack(at, "'zae-limiter namespace list' shows what it holds.")?;
    let failed = |failure| marked(failure, "Failed to list limiters");
    let manager = manager(at).await.map_err(failed)?;
    let found = manager.list().await.map_err(|err| failed(of_stack(&err, at)))?;
    let mut out = Out::new(&args.common.format);
    let region = at.region.as_deref().unwrap_or("default");
    if out.is_json() {
        out.values(found.iter().map(json_of))?;
        return Ok(Exit::Success);
    }
    if found.is_empty() {
        out.line("\nNo rate limiter instances found in region.")?;
        out.line(format_args!("  Region: {region}\n"))?;
        out.line("Deploy a new instance with:\n  zae-limiter deploy --name my-app")?;
    } else {
        out.line(format_args!("\nRate Limiter Instances ({region})\n"))?;
        out.line(table(&found))?;
        out.line(format_args!("\nTotal: {} instance(s)", found.len()))?;
        let count = |what: fn(&FoundStack) -> bool| found.iter().filter(|one| what(one)).count();
        for (count, what) in [
            (count(|one| one.stack.is_failed()), "failed"),
            (
                count(|one| one.stack.status.contains("IN_PROGRESS")),
                "in progress",
            ),
        ] {
            if count > 0 {
                out.line(format_args!("  {count} {what}"))?;
            }
        }
        out.line("")?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

fn table(found: &[FoundStack]) -> Table {
    let mut table = Table::ruled(&[
        Column::left("Name", 10),
        Column::left("Status", 17),
        Column::left("Version", 8),
        Column::left("Created", 10),
    ]);
    for one in found {
        table.row([
            one.user_name.as_str(),
            &one.stack.status,
            one.version.as_deref().unwrap_or("-"),
            day_of_creation(&one.stack),
        ]);
    }
    table
}

/// The day on which a stack was created.
pub(crate) fn day_of_creation(stack: &StackSummary) -> &str {
    let day = stack.created.as_deref().and_then(|instant| instant.get(..10));
    day.unwrap_or("unknown")
}

fn json_of(found: &FoundStack) -> serde_json::Value {
    json!({
        "stack_name": found.stack.name,
        "user_name": found.user_name,
        "status": found.stack.status,
        "created": found.stack.created,
        "last_updated": found.stack.updated,
        "version": found.version,
        "lambda_version": found.functions,
        "schema_version": found.schema,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, status: &str, version: Option<&str>, created: Option<&str>) -> FoundStack {
        FoundStack {
            user_name: name.into(),
            kind: "limiter".into(),
            version: version.map(str::to_owned),
            functions: None,
            schema: None,
            stack: StackSummary {
                name: name.into(),
                status: status.into(),
                created: created.map(str::to_owned),
                ..StackSummary::default()
            },
        }
    }

    #[test]
    fn the_sample_of_the_reference_page() {
        let stacks = [
            found(
                "my-app",
                "CREATE_COMPLETE",
                Some("0.6.0"),
                Some("2026-01-15T09:00:00Z"),
            ),
            found(
                "prod-api",
                "UPDATE_COMPLETE",
                Some("0.6.0"),
                Some("2026-01-10T00:00:00Z"),
            ),
        ];
        let expected = "\
Name        Status             Version   Created
──────────  ─────────────────  ────────  ──────────
my-app      CREATE_COMPLETE    0.6.0     2026-01-15
prod-api    UPDATE_COMPLETE    0.6.0     2026-01-10";
        assert_eq!(table(&stacks).to_string(), expected);
    }

    #[test]
    fn what_is_not_known() {
        let text = table(&[found("a", "CREATE_FAILED", None, None)]).to_string();
        let row: Vec<&str> = text
            .lines()
            .last()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        assert_eq!(row, ["a", "CREATE_FAILED", "-", "unknown"]);
    }
}

//! `usage`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};
use zae_limiter::{UsageQuery, UsageSnapshot, UsageSummary, Window as Kind};

use super::{Outcome, failed};
use crate::args::OutputFormat;
use crate::args::usage::{List, Selection, Summary, UsageCommand, Window};
use crate::connect::{Access, namespace};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;
use crate::text::number::{average, grouped};
use crate::text::plot::{Point, Title, plot};
use crate::text::table::{Column, Table, printable};
use crate::text::time;
use crate::{json, names};

const SNAPSHOTS: [Column; 6] = [
    Column::left("Window Start", 20),
    Column::left("Type", 6),
    Column::left("Resource", 8),
    Column::left("Entity", 8),
    Column::left("Events", 6),
    Column::left("Counters", 16),
];

const TOTALS: [Column; 3] = [
    Column::left("Limit", 5),
    Column::right("Total", 8),
    Column::right("Average", 9),
];

pub(crate) async fn run(command: UsageCommand) -> Outcome {
    match command {
        UsageCommand::List(args) => list(args).await,
        UsageCommand::Summary(args) => summary(args).await,
    }
}

/// The query for the library.
fn query(selection: &Selection) -> Result<UsageQuery, Failure> {
    let mut query = match (&selection.entity_id, &selection.resource) {
        (None, None) => UsageQuery::all(),
        (Some(entity), _) => {
            names::entity("entity_id", entity)?;
            UsageQuery::entity(entity)
        }
        (None, Some(resource)) => UsageQuery::of_resource(resource),
    };
    if let Some(resource) = &selection.resource {
        names::resource(resource)?;
        query = query.resource(resource);
    }
    if let Some(window) = selection.window {
        query = query.window(kind(window));
    }
    let start = selection
        .start
        .as_deref()
        .map(time::parse_start)
        .transpose()
        .map_err(Failure::usage)?;
    let end = selection
        .end
        .as_deref()
        .map(time::parse_end)
        .transpose()
        .map_err(Failure::usage)?;
    let (start, end) = (start.as_deref().map(instant), end.as_deref().map(instant));
    if start.zip(end).is_some_and(|(start, end)| start > end) {
        return Err(Failure::usage(format!(
            "--start {} is after --end {}",
            selection.start.as_deref().unwrap_or_default(),
            selection.end.as_deref().unwrap_or_default()
        )));
    }
    if let Some(start) = start {
        query = query.from(start);
    }
    if let Some(end) = end {
        query = query.until(end);
    }
    Ok(query)
}

fn kind(window: Window) -> Kind {
    match window {
        Window::Hourly => Kind::Hourly,
        Window::Daily => Kind::Daily,
        Window::Monthly => Kind::Monthly,
    }
}

/// An instant from its stored form. Those at the very end of time count as the last there is.
fn instant(stored: &str) -> SystemTime {
    stored.parse().unwrap_or(Timestamp::MAX).into()
}

async fn list(args: List) -> Outcome {
    const WHAT: &str = "list usage snapshots";
    if args.plot && args.common.format.output == OutputFormat::Json {
        return Err(Failure::usage(
            "--plot draws text and cannot be combined with --output json.",
        ));
    }
    let query = query(&args.selection)?;
    let repo = namespace(&args.common.at, Access::Read, WHAT).await?;
    let failed = failed(&args.common.at.connection, WHAT);
    let limit = args.limit as usize;
    // One more than asked for tells whether there are more.
    let snapshots = repo.admin().latest_usage(query, limit.saturating_add(1)).await;
    let mut snapshots = snapshots.map_err(failed)?;
    let more = snapshots.len() > limit;
    snapshots.truncate(limit);
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        let snapshots: Vec<_> = snapshots.iter().map(json::snapshot).collect();
        out.json(&json!({ "snapshots": snapshots, "more": more }))?;
    } else if snapshots.is_empty() {
        out.line("No usage snapshots found")?;
    } else {
        if args.plot {
            out.line(charts(&snapshots))?;
        } else {
            out.line("\nUsage Snapshots\n")?;
            out.line(table(&snapshots))?;
        }
        out.line(format_args!(
            "\nTotal: {} snapshots",
            grouped(snapshots.len() as i128)
        ))?;
        if more {
            out.line("\nMore snapshots exist. Use --limit, --start or --end to see more.")?;
        }
    }
    out.flush()?;
    Ok(Exit::Success)
}

fn table(snapshots: &[UsageSnapshot]) -> Table {
    let mut table = Table::ruled(&SNAPSHOTS);
    for snapshot in snapshots {
        let counters: Vec<_> = snapshot
            .counters
            .iter()
            .map(|(name, tokens)| format!("{name}={}", grouped(*tokens)))
            .collect();
        table.row([
            time::stored(snapshot.window_start),
            snapshot.window.clone(),
            snapshot.resource.clone(),
            snapshot.entity.clone(),
            snapshot.total_events.to_string(),
            counters.join(", "),
        ]);
    }
    table
}

/// A chart for each entity, resource and kind of window.
fn charts(snapshots: &[UsageSnapshot]) -> String {
    let mut series = BTreeMap::<_, Vec<&UsageSnapshot>>::new();
    for snapshot in snapshots {
        let of = (&snapshot.resource, &snapshot.entity, &snapshot.window);
        series.entry(of).or_default().push(snapshot);
    }
    let drawn: Vec<String> = series
        .into_iter()
        .map(|((resource, entity, window_type), snapshots)| {
            let title = Title {
                resource,
                window_type,
                entity,
            };
            chart(&title, snapshots)
        })
        .collect();
    drawn.join("\n")
}

fn chart(title: &Title<'_>, mut snapshots: Vec<&UsageSnapshot>) -> String {
    snapshots.sort_by_key(|snapshot| snapshot.window_start);
    let starts: Vec<_> = snapshots
        .iter()
        .map(|snapshot| time::stored(snapshot.window_start))
        .collect();
    let points: Vec<_> = snapshots
        .iter()
        .zip(&starts)
        .map(|(snapshot, window_start)| Point {
            window_start,
            counters: &snapshot.counters,
        })
        .collect();
    plot(title, &points)
}

async fn summary(args: Summary) -> Outcome {
    const WHAT: &str = "get usage summary";
    if args.selection.entity_id.is_none() && args.selection.resource.is_none() {
        return Err(Failure::usage(
            "Either --entity-id or --resource must be provided",
        ));
    }
    let query = query(&args.selection)?;
    let repo = namespace(&args.common.at, Access::Read, WHAT).await?;
    let summary = repo
        .admin()
        .usage_summary(query)
        .await
        .map_err(failed(&args.common.at.connection, WHAT))?;
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        out.json(&summary_json(&args.selection, &summary))?;
    } else if summary.snapshots == 0 {
        out.line("No usage data found matching the criteria")?;
    } else {
        print_summary(&mut out, &args.selection, &summary)?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

fn summary_json(selection: &Selection, summary: &UsageSummary) -> Json {
    let limits: Map<_, _> = summary
        .limits
        .iter()
        .map(|(name, limit)| {
            let average = limit.total as f64 / limit.snapshots.max(1) as f64;
            let value = json!({
                "total": json::number(limit.total),
                "average": average,
                "snapshots": limit.snapshots,
            });
            (name.clone(), value)
        })
        .collect();
    json!({
        "entity_id": selection.entity_id,
        "resource": selection.resource,
        "window": summary.window.as_deref().or(selection.window.map(|window| kind(window).as_str())),
        "other_windows": summary.other_windows,
        "snapshots": summary.snapshots,
        "first_window_start": summary.first.map(time::stored),
        "last_window_start": summary.last.map(time::stored),
        "limits": limits,
    })
}

fn print_summary(out: &mut Out, selection: &Selection, summary: &UsageSummary) -> Result<(), Failure> {
    out.line("\nUsage Summary\n")?;
    if let Some(entity) = &selection.entity_id {
        out.line(format_args!("Entity:     {entity}"))?;
    }
    if let Some(resource) = &selection.resource {
        out.line(format_args!("Resource:   {resource}"))?;
    }
    // With one kind of window there is nothing to tell apart.
    if let Some(window) = &summary.window
        && (selection.window.is_some() || !summary.other_windows.is_empty())
    {
        out.line(format_args!("Window:     {}", printable(window)))?;
    }
    out.line(format_args!("Snapshots:  {}", grouped(summary.snapshots.into())))?;
    if let (Some(first), Some(last)) = (summary.first, summary.last) {
        out.line(format_args!(
            "Time Range: {} to {}",
            time::stored(first),
            time::stored(last)
        ))?;
    }
    let mut table = Table::ruled(&TOTALS);
    for (name, limit) in &summary.limits {
        table.row([
            name.clone(),
            grouped(limit.total),
            average(limit.total, limit.snapshots),
        ]);
    }
    out.line(format_args!("\n{table}\n"))?;
    if !summary.other_windows.is_empty() {
        out.line(format_args!(
            "Note: {} snapshots count the same usage, and were left out. --window chooses the kind.",
            printable(&summary.other_windows.join(" and "))
        ))?;
    }
    Ok(())
}

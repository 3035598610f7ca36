//! `audit`.

use serde_json::json;
use zae_limiter::AuditEvent;

use super::{Outcome, failed};
use crate::args::audit::{AuditCommand, List};
use crate::connect::{Access, namespace};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;
use crate::text::number::grouped;
use crate::text::table::{Column, Table};
use crate::text::time;
use crate::{json, names};

const COLUMNS: [Column; 4] = [
    Column::left("Timestamp", 23),
    Column::left("Action", 13),
    Column::left("Principal", 10),
    Column::left("Resource", 8),
];

pub(crate) async fn run(command: AuditCommand) -> Outcome {
    match command {
        AuditCommand::List(args) => list(args).await,
    }
}

async fn list(args: List) -> Outcome {
    const WHAT: &str = "list audit events";
    // The others are '$SYSTEM' and '$RESOURCE:name'.
    if !args.entity_id.starts_with('$') {
        names::entity("entity_id", &args.entity_id)?;
    }
    let repo = namespace(&args.common.at, Access::Read, WHAT).await?;
    let failed = failed(&args.common.at.connection, WHAT);
    let mut pages = repo
        .admin()
        .audit_events(&args.entity_id, args.start_event_id.as_deref())
        .map_err(failed)?
        .page_size(args.limit.min(1000));
    let limit = args.limit as usize;
    let mut events = Vec::new();
    while events.len() < limit
        && let Some(mut page) = pages.next_page().await.map_err(failed)?
    {
        events.append(&mut page);
    }
    events.truncate(limit);
    // As many as were asked for: there may be more, and the last one is where they begin.
    let next = events
        .last()
        .filter(|_| events.len() == limit)
        .map(|last| &*last.id);
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        let events: Vec<_> = events.iter().map(json::event).collect();
        out.json(&json!({ "events": events, "next_start_event_id": next }))?;
    } else if events.is_empty() {
        out.line(format_args!(
            "No audit events found for entity: {}",
            args.entity_id
        ))?;
    } else {
        print(&mut out, &args.entity_id, &events)?;
        if let Some(next) = next {
            out.line(format_args!("More events may exist. Use --start-event-id {next}"))?;
        }
    }
    out.flush()?;
    Ok(Exit::Success)
}

fn print(out: &mut Out, entity: &str, events: &[AuditEvent]) -> Result<(), Failure> {
    let mut table = Table::ruled(&COLUMNS);
    for event in events {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        table.row([
            event.timestamp.map(time::stored).unwrap_or_default(),
            event.action.clone(),
            or_dash(&event.principal),
            or_dash(&event.resource),
        ]);
    }
    out.line(format_args!("\nAudit Events for: {entity}\n"))?;
    out.line(table)?;
    out.line(format_args!("\nTotal: {} events", grouped(events.len() as i128)))
}

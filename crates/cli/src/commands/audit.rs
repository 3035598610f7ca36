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

/// Comes after the timestamp where the events of all subjects are shown.
const ENTITY: Column = Column::left("Entity", 8);

pub(crate) async fn run(command: AuditCommand) -> Outcome {
    match command {
        AuditCommand::List(args) => list(args).await,
    }
}

async fn list(args: List) -> Outcome {
    const WHAT: &str = "list audit events";
    // The others are '$SYSTEM' and '$RESOURCE:name'.
    let subject = args.entity_id.as_deref();
    if let Some(entity) = subject.filter(|subject| !subject.starts_with('$')) {
        names::entity("entity_id", entity)?;
    }
    let repo = namespace(&args.common.at, Access::Read, WHAT).await?;
    let failed = failed(&args.common.at.connection, WHAT);
    let (admin, before, limit) = (repo.admin(), args.start_event_id.as_deref(), args.limit as usize);
    let events = match subject {
        Some(subject) => {
            let pages = admin.audit_events(subject, before).map_err(failed)?;
            pages.first(limit).await
        }
        None => admin.latest_audit_events(before, limit).await,
    };
    let events = events.map_err(failed)?;
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
        match subject {
            Some(subject) => out.line(format_args!("No audit events found for entity: {subject}"))?,
            None => out.line("No audit events found")?,
        }
    } else {
        print(&mut out, subject, &events)?;
        if let Some(next) = next {
            out.line(format_args!("More events may exist. Use --start-event-id {next}"))?;
        }
    }
    out.flush()?;
    Ok(Exit::Success)
}

fn print(out: &mut Out, subject: Option<&str>, events: &[AuditEvent]) -> Result<(), Failure> {
    let mut columns = COLUMNS.to_vec();
    if subject.is_none() {
        columns.insert(1, ENTITY);
    }
    let mut table = Table::ruled(&columns);
    for event in events {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        let mut row = vec![
            event.timestamp.map(time::stored).unwrap_or_default(),
            event.action.clone(),
            or_dash(&event.principal),
            or_dash(&event.resource),
        ];
        if subject.is_none() {
            row.insert(1, event.subject.clone());
        }
        table.row(row);
    }
    match subject {
        Some(subject) => out.line(format_args!("\nAudit Events for: {subject}\n"))?,
        None => out.line("\nAudit Events\n")?,
    }
    out.line(table)?;
    out.line(format_args!("\nTotal: {} events", grouped(events.len() as i128)))
}

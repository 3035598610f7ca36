//! `namespace`.

use std::time::SystemTime;

use serde_json::{Value as Json, json};
use zae_limiter::{Error, NamespaceStatus, Stack};

use super::{Outcome, Unfinished, failed};
use crate::args::Connection;
use crate::args::namespace::{Delete, List, NamespaceCommand, Orphans, Purge, Recover, Register, Show};
use crate::ask::agreed;
use crate::exit::Exit;
use crate::failure::{Failure, options};
use crate::out::{Counter, Out};
use crate::text::table::{Table, printable};
use crate::text::time;
use crate::{connect, json, names};

pub(crate) async fn run(command: NamespaceCommand) -> Outcome {
    match command {
        NamespaceCommand::Delete(args) => delete(args).await,
        NamespaceCommand::List(args) => list(args).await,
        NamespaceCommand::Orphans(args) => orphans(args).await,
        NamespaceCommand::Purge(args) => purge(args).await,
        NamespaceCommand::Recover(args) => recover(args).await,
        NamespaceCommand::Register(args) => register(args).await,
        NamespaceCommand::Show(args) => show(args).await,
    }
}

/// The table, if it fits this client, which the calls that write ask themselves.
async fn stack(at: &Connection, what: &'static str) -> Result<Stack, Failure> {
    let stack = connect::stack(at, what).await?;
    stack.check_compatible().await.map_err(failed(at, what))?;
    Ok(stack)
}

async fn delete(args: Delete) -> Outcome {
    const WHAT: &str = "delete namespace";
    let name = &args.namespace_name;
    names::namespace(name)?;
    let question = format!("Delete namespace '{name}'? Data will be orphaned but recoverable.");
    if !agreed(&args.consent, &args.common.format, question).await? {
        return Err(Failure::aborted());
    }
    let stack = connect::stack(&args.common.at, WHAT).await?;
    let existed = stack
        .delete_namespace(name)
        .await
        .map_err(failed(&args.common.at, WHAT))?;
    let mut out = Out::to_the_end(&args.common.format);
    if out.is_json() {
        out.json(&json!({ "name": name, "deleted": existed }))?;
    } else if existed {
        out.line(format_args!(
            "Namespace '{}' deleted (data orphaned, recoverable).",
            printable(name)
        ))?;
    } else {
        out.line(format_args!(
            "There is no namespace '{}'. Nothing was deleted.",
            printable(name)
        ))?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

async fn list(args: List) -> Outcome {
    const WHAT: &str = "list namespaces";
    let stack = stack(&args.common.at, WHAT).await?;
    let namespaces = stack.namespaces().await.map_err(failed(&args.common.at, WHAT))?;
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        out.json(&namespaces.iter().map(json::namespace).collect())?;
    } else if namespaces.is_empty() {
        out.line("No namespaces registered.")?;
    } else {
        let mut table = Table::grid(&["Name", "Namespace ID", "Created At"]);
        for record in &namespaces {
            let created = when(record.created_at);
            table.row([&*record.name, record.id.as_str(), &created]);
        }
        out.line(table)?;
        out.line(format_args!("\nTotal: {} namespace(s)", namespaces.len()))?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

async fn orphans(args: Orphans) -> Outcome {
    const WHAT: &str = "list orphaned namespaces";
    let stack = stack(&args.common.at, WHAT).await?;
    let orphans = stack.orphans().await.map_err(failed(&args.common.at, WHAT))?;
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        out.json(&orphans.iter().map(json::namespace).collect())?;
    } else if orphans.is_empty() {
        out.line("No orphaned namespaces.")?;
    } else {
        let mut table = Table::grid(&["Namespace ID", "Name", "Deleted At"]);
        for record in &orphans {
            let deleted = when(record.deleted_at);
            table.row([record.id.as_str(), &*record.name, &deleted]);
        }
        out.line(table)?;
        out.line(format_args!("\nTotal: {} orphaned namespace(s)", orphans.len()))?;
        for record in orphans
            .iter()
            .filter(|one| one.status == NamespaceStatus::Purging)
        {
            let id = record.id.as_str();
            out.line(format_args!(
                "The purge of {id} is not finished. Continue it with '{}'.",
                purge_command(id, &args.common.at)
            ))?;
        }
    }
    out.flush()?;
    Ok(Exit::Success)
}

fn purge_command(id: &str, at: &Connection) -> String {
    format!("zae-limiter namespace purge {}{}", printable(id), options(at))
}

async fn purge(args: Purge) -> Outcome {
    const WHAT: &str = "purge namespace";
    let id = &args.namespace_id;
    let question = format!("PERMANENTLY delete ALL data for namespace ID '{id}'? This cannot be undone.");
    if !agreed(&args.consent, &args.common.format, question).await? {
        return Err(Failure::aborted());
    }
    let stack = stack(&args.common.at, WHAT).await?;
    // One without any data is purged, too.
    let orphans = stack.orphans().await.map_err(failed(&args.common.at, WHAT))?;
    let is_known = orphans.iter().any(|one| one.id.as_str() == id);
    let counter = Counter::new();
    let unfinished = Unfinished(Some(format!(
        "The purge of '{}' is not finished, and cannot be undone. Continue it with '{}'.",
        printable(id),
        purge_command(id, &args.common.at)
    )));
    let purged = stack.purge_namespace(id, &|records| counter.show(records)).await;
    drop(counter);
    unfinished.done();
    let records = purged.map_err(|err| match err {
        Error::NamespaceState {
            namespace,
            state: "active",
            ..
        } => Failure::error(format!(
            "Cannot purge active namespace '{namespace}'. Delete it first with 'zae-limiter namespace delete'."
        )),
        other => failed(&args.common.at, WHAT)(other),
    })?;
    let mut out = Out::to_the_end(&args.common.format);
    if out.is_json() {
        out.json(&json!({ "namespace_id": id, "records_deleted": records }))?;
    } else if records == 0 && !is_known {
        out.line(format_args!(
            "Nothing to purge: there is no data of namespace ID '{}'.",
            printable(id)
        ))?;
    } else {
        out.line(format_args!(
            "Purged namespace '{}'. All data permanently deleted.",
            printable(id)
        ))?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

async fn recover(args: Recover) -> Outcome {
    const WHAT: &str = "recover namespace";
    let id = &args.namespace_id;
    let stack = connect::stack(&args.common.at, WHAT).await?;
    let name = stack
        .recover_namespace(id)
        .await
        .map_err(failed(&args.common.at, WHAT))?;
    let mut out = Out::to_the_end(&args.common.format);
    if out.is_json() {
        out.json(&json!({ "name": name, "namespace_id": id }))?;
    } else {
        out.line(format_args!(
            "Recovered namespace '{}' (ID: {}).",
            printable(&name),
            printable(id)
        ))?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

async fn register(args: Register) -> Outcome {
    const WHAT: &str = "register namespace(s)";
    let mut names: Vec<&String> = Vec::new();
    for name in &args.namespaces {
        names::namespace(name)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let stack = connect::stack(&args.common.at, WHAT).await?;
    let ids = stack
        .register_namespaces(names.iter().copied())
        .await
        .map_err(failed(&args.common.at, WHAT))?;
    let registered: Vec<(&String, &str)> = names
        .iter()
        .filter_map(|name| Some((*name, ids.get(*name)?.as_str())))
        .collect();
    let mut out = Out::to_the_end(&args.common.format);
    if out.is_json() {
        let pair = |(name, id): &(&String, &str)| json!({ "name": name, "namespace_id": id });
        out.json(&registered.iter().map(pair).collect::<Json>())?;
    } else if let [(name, id)] = registered[..] {
        out.line(format_args!("Registered namespace '{}': {id}", printable(name)))?;
    } else {
        out.line(format_args!("Registered {} namespace(s):", registered.len()))?;
        for (name, id) in &registered {
            out.line(format_args!("  {}: {id}", printable(name)))?;
        }
    }
    out.flush()?;
    Ok(Exit::Success)
}

async fn show(args: Show) -> Outcome {
    const WHAT: &str = "show namespace";
    let name = &args.namespace_name;
    names::namespace(name)?;
    let stack = stack(&args.common.at, WHAT).await?;
    let found = stack
        .namespace(name)
        .await
        .map_err(failed(&args.common.at, WHAT))?;
    let Some(record) = found.filter(|record| record.status == NamespaceStatus::Active) else {
        return Err(failed(&args.common.at, "")(Error::NamespaceNotFound(
            name.clone(),
        )));
    };
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        out.json(&json::namespace(&record))?;
    } else {
        out.line(format_args!("Namespace:    {}", printable(&record.name)))?;
        out.line(format_args!("Namespace ID: {}", record.id))?;
        out.line(format_args!("Status:       {}", record.status.as_str()))?;
        let created = when(record.created_at);
        out.line(format_args!("Created At:   {created}"))?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

/// A stored time, or that it is not known.
fn when(at: Option<SystemTime>) -> String {
    at.map_or_else(|| "unknown".to_owned(), time::stored)
}

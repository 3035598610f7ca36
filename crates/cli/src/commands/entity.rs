//! `entity`.

use std::io::Write as _;

use serde_json::json;
use zae_limiter::{ALL_RESOURCES, Access as Word, Entity, NewEntity};

use super::access::{self, Flags};
use super::{Outcome, above, concurrency, failed, operations, print_limits, sorted, written_limits};
use crate::args::entity::{
    Children, Create, Delete, DeleteLimits, EntityCommand, GetLimits, List, ListResources, SetLimits, Show,
};
use crate::ask::agreed;
use crate::connect::{Access, namespace};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::{Counter, Out};
use crate::text::literal;
use crate::text::table::printable;
use crate::text::time;
use crate::{json, names};

pub(crate) async fn run(command: EntityCommand) -> Outcome {
    match command {
        EntityCommand::SetConcurrency(args) => concurrency::set_of_entity(args).await,
        EntityCommand::GetConcurrency(args) => concurrency::get_of_entity(args).await,
        EntityCommand::DeleteConcurrency(args) => concurrency::delete_of_entity(args).await,
        EntityCommand::InFlight(args) => concurrency::in_flight(args).await,
        EntityCommand::Bypass(args) => access::entity_access(args, Some(Word::Bypass)).await,
        EntityCommand::ClearCascade(args) => access::clear_entity_cascade(args).await,
        EntityCommand::ClearDisabled(args) => access::entity_access(args, None).await,
        EntityCommand::Disable(args) => access::entity_access(args, Some(Word::Disabled)).await,
        EntityCommand::Enable(args) => access::entity_access(args, Some(Word::Enabled)).await,
        EntityCommand::SetCascade(args) => access::set_entity_cascade(args).await,
        EntityCommand::SetParent(args) => access::set_parent(args).await,
        EntityCommand::Reset(args) => operations::reset(args).await,
        EntityCommand::TopUp(args) => operations::top_up(args).await,
        EntityCommand::Children(args) => children(args).await,
        EntityCommand::Create(args) => create(args).await,
        EntityCommand::Delete(args) => delete(args).await,
        EntityCommand::DeleteLimits(args) => delete_limits(args).await,
        EntityCommand::GetLimits(args) => get_limits(args).await,
        EntityCommand::List(args) => list(args).await,
        EntityCommand::ListResources(args) => list_resources(args).await,
        EntityCommand::SetLimits(args) => set_limits(args).await,
        EntityCommand::Show(args) => show(args).await,
    }
}

async fn children(args: Children) -> Outcome {
    const WHAT: &str = "list children";
    names::entity("entity_id", &args.entity_id)?;
    let repo = namespace(&args.common.at, Access::Read, WHAT).await?;
    let failed = failed(&args.common.at.connection, WHAT);
    let mut out = Out::new(&args.common.format);
    let children = repo.admin().children(&args.entity_id).await.map_err(failed)?;
    if children.is_empty() && !out.is_json() {
        out.line(format_args!("No children of entity '{}'", args.entity_id))?;
    } else {
        let mut list = out.list()?;
        for child in &children {
            list.push(&child.id, || json::entity(child))?;
        }
        list.end()?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

async fn create(args: Create) -> Outcome {
    names::entity("entity_id", &args.entity_id)?;
    if let Some(parent) = &args.parent {
        names::entity("parent_id", parent)?;
    }
    let mut new = NewEntity::new(&args.entity_id).cascade(args.cascades());
    if let Some(name) = args.display_name.as_ref().filter(|name| !name.is_empty()) {
        new = new.name(name);
    }
    if let Some(parent) = &args.parent {
        new = new.parent(parent);
    }
    let repo = namespace(&args.common.at, Access::Write, "").await?;
    let entity = repo
        .admin()
        .create_entity(new)
        .await
        .map_err(failed(&args.common.at.connection, ""))?;
    let mut out = Out::to_the_end(&args.common.format);
    if out.is_json() {
        out.json(&json::entity(&entity))?;
    } else {
        out.line(format_args!("Created entity '{}'", entity.id))?;
        if entity.name != entity.id.as_str() {
            out.line(format_args!("  Name:    {}", printable(&entity.name)))?;
        }
        if let Some(parent) = &entity.parent {
            out.line(format_args!("  Parent:  {parent}"))?;
        }
        out.line(format_args!("  Cascade: {}", truth(entity.cascade)))?;
    }
    out.flush()?;
    above::note_depth(repo.admin(), &entity).await;
    Ok(Exit::Success)
}

async fn delete(args: Delete) -> Outcome {
    const WHAT: &str = "delete entity";
    names::entity("entity_id", &args.entity_id)?;
    let id = &args.entity_id;
    let repo = namespace(&args.common.at, Access::Read, WHAT).await?;
    let children = repo
        .admin()
        .children(id)
        .await
        .map_err(failed(&args.common.at.connection, WHAT))?;
    let mut question = format!("Delete entity '{id}' with its buckets, limits and usage?");
    if !children.is_empty() {
        let named = some_of(&children);
        if args.children {
            question = format!("Delete entity '{id}' and {named}, with buckets, limits and usage?");
        } else {
            let kept = format!(
                "{named} will be kept. Children that cascade continue to debit '{id}', only under the limits of the resource or \
                 of the system. --children deletes the children as well."
            );
            // Before the question, which may be answered by a script.
            note(&kept);
        }
    }
    if !agreed(&args.consent, &args.common.format, question).await? {
        return super::cancelled(&args.common.format);
    }
    let counter = Counter::new();
    let told = |records| counter.show(records);
    let deleted = if args.children {
        repo.admin().delete_entity_with_children(id, &told).await
    } else {
        repo.admin().delete_entity_with_progress(id, &told).await
    };
    drop(counter);
    let records = deleted.map_err(failed(&args.common.at.connection, WHAT))?;
    let mut out = Out::to_the_end(&args.common.format);
    if out.is_json() {
        out.json(&json!({ "entity_id": args.entity_id, "records_deleted": records }))?;
    } else if records == 0 {
        out.line(format_args!(
            "There is no entity '{}'. Nothing was deleted.",
            args.entity_id
        ))?;
    } else {
        out.line(format_args!(
            "Deleted entity '{}' ({} {})",
            args.entity_id,
            crate::text::number::grouped(records.into()),
            if records == 1 { "record" } else { "records" }
        ))?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

/// How many there are, and the first few.
fn some_of(children: &[Entity]) -> String {
    const FEW: usize = 5;
    let mut names: Vec<&str> = children.iter().take(FEW).map(|child| child.id.as_str()).collect();
    if children.len() > FEW {
        names.push("...");
    }
    let (count, noun) = match children.len() {
        1 => ("its".to_owned(), "child"),
        n => (
            format!("its {}", crate::text::number::grouped(n as i128)),
            "children",
        ),
    };
    format!("{count} {noun} ({})", names.join(", "))
}

/// Says on standard error what the user may not expect; results on standard output stay as they are.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "Note: {}", printable(text));
}

async fn delete_limits(args: DeleteLimits) -> Outcome {
    const WHAT: &str = "delete entity limits";
    names::entity("entity_id", &args.entity_id)?;
    names::scope(&args.on.resource)?;
    let (entity, resource) = (&args.entity_id, &args.on.resource);
    let question = format!("Delete limits for entity '{entity}' on resource '{resource}'?");
    if !agreed(&args.consent, &args.common.format, question).await? {
        return super::cancelled(&args.common.format);
    }
    let repo = namespace(&args.common.at, Access::Write, WHAT).await?;
    let existed = repo
        .admin()
        .delete_entity_limits(entity, resource)
        .await
        .map_err(failed(&args.common.at.connection, WHAT))?;
    let mut out = Out::to_the_end(&args.common.format);
    if out.is_json() {
        out.json(&json!({ "entity_id": entity, "resource": resource, "deleted": existed }))?;
    } else if !existed {
        out.line(format_args!(
            "Entity '{entity}' has no limits on resource '{resource}'; nothing was deleted"
        ))?;
    } else {
        out.line(format_args!(
            "Deleted limits for entity '{entity}' on resource '{resource}'"
        ))?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

async fn get_limits(args: GetLimits) -> Outcome {
    const WHAT: &str = "get entity limits";
    names::entity("entity_id", &args.entity_id)?;
    names::scope(&args.on.resource)?;
    let (entity, resource) = (&args.entity_id, &args.on.resource);
    let repo = namespace(&args.common.at, Access::Read, WHAT).await?;
    let limits = repo
        .admin()
        .entity_limits(entity, resource)
        .await
        .map_err(failed(&args.common.at.connection, WHAT))?;
    let limits = sorted(limits);
    let flags = Flags::of_entity(&repo, entity, resource).await;
    let flags = flags.map_err(failed(&args.common.at.connection, WHAT))?;
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        let mut told = json!({ "entity_id": entity, "resource": resource, "limits": json::limits(&limits) });
        flags.add_to(&mut told);
        out.json(&told)?;
    } else {
        if limits.is_empty() {
            out.line(format_args!(
                "No limits configured for entity '{entity}' on resource '{resource}'"
            ))?;
        } else {
            out.line(format_args!(
                "Limits for entity '{entity}' on resource '{resource}':"
            ))?;
            print_limits(&mut out, "  ", &limits)?;
        }
        flags.print(&mut out)?;
    }
    out.flush()?;
    if !limits.is_empty() {
        above::note(repo.admin().limits_above_parent(entity, resource), false).await;
    }
    Ok(Exit::Success)
}

async fn list(args: List) -> Outcome {
    const WHAT: &str = "list entities";
    let resource = &args.with_custom_limits;
    names::scope(resource)?;
    let repo = namespace(&args.common.at, Access::Read, WHAT).await?;
    let failed = failed(&args.common.at.connection, WHAT);
    let mut pages = repo.admin().entities_with_limits(resource).map_err(failed)?;
    let mut left = args.limit.unwrap_or(u32::MAX);
    if left < 1000 {
        pages = pages.page_size(left);
    }
    let mut out = Out::new(&args.common.format);
    let mut list = out.list()?;
    while left > 0
        && let Some(page) = pages.next_page().await.map_err(failed)?
    {
        for id in page.iter().take(left as usize) {
            list.push(id, || json!(id.as_str()))?;
            left -= 1;
        }
        list.flush()?;
    }
    let length = list.end()?;
    if length == 0 && !out.is_json() {
        out.line(format_args!(
            "No entities with custom limits for resource '{resource}'"
        ))?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

async fn list_resources(args: ListResources) -> Outcome {
    const WHAT: &str = "list resources";
    let repo = namespace(&args.common.at, Access::Read, WHAT).await?;
    let counts = repo
        .admin()
        .resources_with_entity_limits()
        .await
        .map_err(failed(&args.common.at.connection, WHAT))?;
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        let counts = counts
            .iter()
            .map(|(resource, count)| json!({ "resource": resource, "entities": count }));
        out.json(&counts.collect())?;
    } else if counts.is_empty() {
        out.line("No resources with entity-level custom limits")?;
    } else {
        out.line("Resources with entity-level custom limits:")?;
        for resource in counts.keys() {
            out.line(format_args!("  {}", printable(resource)))?;
        }
    }
    out.flush()?;
    Ok(Exit::Success)
}

async fn set_limits(args: SetLimits) -> Outcome {
    const WHAT: &str = "set entity limits";
    let limits = written_limits(&args.limits)?;
    names::entity("entity_id", &args.entity_id)?;
    names::scope(&args.on.resource)?;
    let (entity, resource) = (&args.entity_id, &args.on.resource);
    let repo = namespace(&args.common.at, Access::Write, WHAT).await?;
    repo.admin()
        .set_entity_limits(entity, resource, &limits)
        .await
        .map_err(failed(&args.common.at.connection, WHAT))?;
    let mut out = Out::to_the_end(&args.common.format);
    if out.is_json() {
        let written = json::limits(&limits);
        out.json(&json!({ "entity_id": entity, "resource": resource, "limits": written }))?;
    } else {
        out.line(format_args!(
            "Set {} limit(s) for entity '{entity}' on resource '{resource}':",
            limits.len()
        ))?;
        print_limits(&mut out, "  ", &limits)?;
    }
    out.flush()?;
    above::note(repo.admin().limits_above_parent(entity, resource), false).await;
    Ok(Exit::Success)
}

async fn show(args: Show) -> Outcome {
    names::entity("entity_id", &args.entity_id)?;
    let repo = namespace(&args.common.at, Access::Read, "").await?;
    let found = repo
        .admin()
        .entity(&args.entity_id)
        .await
        .map_err(failed(&args.common.at.connection, ""))?;
    let Some(entity) = found else {
        return Err(Failure::bare(
            format!("Entity '{}' not found", args.entity_id),
            Exit::Failure,
        ));
    };
    let access = repo
        .admin()
        .entity_access(&args.entity_id, ALL_RESOURCES)
        .await
        .map_err(failed(&args.common.at.connection, ""))?;
    let concurrency = repo
        .admin()
        .entity_concurrency(&args.entity_id, ALL_RESOURCES)
        .await
        .map_err(failed(&args.common.at.connection, ""))?;
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        let mut shown = json::entity(&entity);
        shown["disabled"] = access.map(Word::to_json).into();
        if let Some(limit) = concurrency {
            shown["max_in_flight"] = limit.into();
        }
        out.json(&shown)?;
    } else {
        print_entity(&mut out, &entity)?;
        if let Some(access) = access {
            let word = match access {
                Word::Disabled => "disabled for all resources that have no flag of their own",
                Word::Enabled => "enabled, also for disabled resources",
                Word::Bypass => "bypassed: requests are admitted and counted",
            };
            out.line(format_args!("  Access:     {word}"))?;
        }
        if let Some(limit) = concurrency {
            out.line(format_args!(
                "  In flight:  at most {limit} on each resource without a limit of its own"
            ))?;
        }
    }
    out.flush()?;
    above::note(repo.admin().all_limits_above_parent(&args.entity_id), true).await;
    above::note_depth(repo.admin(), &entity).await;
    Ok(Exit::Success)
}

fn print_entity(out: &mut Out, entity: &Entity) -> Result<(), Failure> {
    out.line(format_args!("Entity: {}", entity.id))?;
    if entity.name != entity.id.as_str() {
        out.line(format_args!("  Name:       {}", printable(&entity.name)))?;
    }
    let parent = entity.parent.as_ref().map_or("(none)", |parent| parent.as_str());
    out.line(format_args!("  Parent:     {parent}"))?;
    out.line(format_args!("  Cascade:    {}", truth(entity.cascade)))?;
    out.line(format_args!(
        "  Created:    {}",
        entity.created_at.map(time::stored).unwrap_or_default()
    ))?;
    if !entity.metadata.is_empty() {
        out.line(format_args!("  Metadata:   {}", literal::dict(&entity.metadata)))?;
    }
    Ok(())
}

/// A truth value as this program has always shown it.
fn truth(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

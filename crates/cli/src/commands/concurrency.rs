//! The commands about concurrency limits and places in flight.

use serde_json::{Value as Json, json};
use zae_limiter::{ALL_RESOURCES, PlaceInFlight};

use super::{Outcome, cancelled, failed, say};
use crate::args::access::{OnEntity, Resource};
use crate::args::concurrency::{
    DeleteOfEntity, DeleteOfResource, DeleteOfSystem, InFlight, SetOfEntity, SetOfResource, SetOfSystem,
};
use crate::args::system::OfSystem;
use crate::ask::agreed;
use crate::connect::{Access, namespace};
use crate::exit::Exit;
use crate::names;
use crate::out::Out;
use crate::text::time;

const SET: &str = "set concurrency limit";
const GET: &str = "get concurrency limit";
const DELETE: &str = "delete concurrency limit";

pub(crate) async fn set_of_entity(args: SetOfEntity) -> Outcome {
    let (entity, resource, limit) = (&args.entity_id, &args.resource, args.most.limit);
    names::entity("entity_id", entity)?;
    names::scope(resource)?;
    let repo = namespace(&args.common.at, Access::Write, SET).await?;
    let set = repo.admin().set_entity_concurrency(entity, resource, limit).await;
    set.map_err(failed(&args.common.at.connection, SET))?;
    let told = json!({ "entity_id": entity, "resource": resource, "max_in_flight": limit });
    let line = format_args!(
        "At most {} of entity '{entity}' may be in flight on {}",
        requests(limit),
        scope(resource)
    );
    say(&args.common, &told, line)
}

/// The resources that a limit of an entity is for.
fn scope(resource: &str) -> String {
    if resource == ALL_RESOURCES {
        "each resource without a limit of its own".to_owned()
    } else {
        format!("resource '{resource}'")
    }
}

pub(crate) async fn get_of_entity(args: OnEntity) -> Outcome {
    let (entity, resource) = (&args.entity_id, &args.resource);
    names::entity("entity_id", entity)?;
    names::scope(resource)?;
    let repo = namespace(&args.common.at, Access::Read, GET).await?;
    let limit = repo.admin().entity_concurrency(entity, resource).await;
    let limit = limit.map_err(failed(&args.common.at.connection, GET))?;
    let told = json!({ "entity_id": entity, "resource": resource, "max_in_flight": limit });
    let whose = format!("entity '{entity}' on {}", scope(resource));
    say(&args.common, &told, stored(limit, &whose))
}

pub(crate) async fn delete_of_entity(args: DeleteOfEntity) -> Outcome {
    let (entity, resource) = (&args.entity_id, &args.resource);
    names::entity("entity_id", entity)?;
    names::scope(resource)?;
    let whose = format!("entity '{entity}' on {}", scope(resource));
    if !agreed(&args.consent, &args.common.format, question(&whose)).await? {
        return cancelled(&args.common.format);
    }
    let repo = namespace(&args.common.at, Access::Write, DELETE).await?;
    let existed = repo.admin().delete_entity_concurrency(entity, resource).await;
    let existed = existed.map_err(failed(&args.common.at.connection, DELETE))?;
    let told = json!({ "entity_id": entity, "resource": resource, "deleted": existed });
    say(&args.common, &told, deleted(existed, &whose))
}

pub(crate) async fn set_of_resource(args: SetOfResource) -> Outcome {
    let (resource, limit) = (&args.resource_name, args.most.limit);
    names::resource(resource)?;
    let repo = namespace(&args.common.at, Access::Write, SET).await?;
    let set = repo.admin().set_resource_concurrency(resource, limit).await;
    set.map_err(failed(&args.common.at.connection, SET))?;
    let told = json!({ "resource": resource, "max_in_flight": limit });
    let line = format_args!(
        "At most {} of each entity may be in flight on resource '{resource}'",
        requests(limit)
    );
    say(&args.common, &told, line)
}

pub(crate) async fn get_of_resource(args: Resource) -> Outcome {
    let resource = &args.resource_name;
    names::resource(resource)?;
    let repo = namespace(&args.common.at, Access::Read, GET).await?;
    let limit = repo.admin().resource_concurrency(resource).await;
    let limit = limit.map_err(failed(&args.common.at.connection, GET))?;
    let told = json!({ "resource": resource, "max_in_flight": limit });
    say(
        &args.common,
        &told,
        stored(limit, &format!("resource '{resource}'")),
    )
}

pub(crate) async fn delete_of_resource(args: DeleteOfResource) -> Outcome {
    let resource = &args.resource_name;
    names::resource(resource)?;
    let whose = format!("resource '{resource}'");
    if !agreed(&args.consent, &args.common.format, question(&whose)).await? {
        return cancelled(&args.common.format);
    }
    let repo = namespace(&args.common.at, Access::Write, DELETE).await?;
    let existed = repo.admin().delete_resource_concurrency(resource).await;
    let existed = existed.map_err(failed(&args.common.at.connection, DELETE))?;
    let told = json!({ "resource": resource, "deleted": existed });
    say(&args.common, &told, deleted(existed, &whose))
}

pub(crate) async fn set_of_system(args: SetOfSystem) -> Outcome {
    let limit = args.most.limit;
    let repo = namespace(&args.common.at, Access::Write, SET).await?;
    let set = repo.admin().set_system_concurrency(limit).await;
    set.map_err(failed(&args.common.at.connection, SET))?;
    let line = format_args!(
        "At most {} of each entity may be in flight on each resource",
        requests(limit)
    );
    say(&args.common, &json!({ "max_in_flight": limit }), line)
}

pub(crate) async fn get_of_system(args: OfSystem) -> Outcome {
    let repo = namespace(&args.common.at, Access::Read, GET).await?;
    let limit = repo.admin().system_concurrency().await;
    let limit = limit.map_err(failed(&args.common.at.connection, GET))?;
    let told = json!({ "max_in_flight": limit });
    say(&args.common, &told, stored(limit, "the system"))
}

pub(crate) async fn delete_of_system(args: DeleteOfSystem) -> Outcome {
    const WHOSE: &str = "the system";
    if !agreed(&args.consent, &args.common.format, question(WHOSE)).await? {
        return cancelled(&args.common.format);
    }
    let repo = namespace(&args.common.at, Access::Write, DELETE).await?;
    let existed = repo.admin().delete_system_concurrency().await;
    let existed = existed.map_err(failed(&args.common.at.connection, DELETE))?;
    let told = json!({ "deleted": existed });
    say(&args.common, &told, deleted(existed, WHOSE))
}

/// Shows the places that are taken, and how many there are.
pub(crate) async fn in_flight(args: InFlight) -> Outcome {
    const WHAT: &str = "look at requests in flight";
    let (entity, resource) = (&args.entity_id, &args.resource);
    names::entity("entity_id", entity)?;
    names::resource(resource)?;
    let repo = namespace(&args.common.at, Access::Read, WHAT).await?;
    let admin = repo.admin();
    let read = async {
        let limit = admin.effective_concurrency(entity, resource);
        tokio::try_join!(limit, admin.places_in_flight(entity, resource))
    };
    let (limit, places) = read.await.map_err(failed(&args.common.at.connection, WHAT))?;
    let mut out = Out::new(&args.common.format);
    if out.is_json() {
        let places: Vec<Json> = places.iter().map(as_json).collect();
        out.json(&json!({
            "entity_id": entity, "resource": resource, "max_in_flight": limit, "places": places,
        }))?;
    } else {
        let most = limit.map_or_else(
            || "no concurrency limit".to_owned(),
            |limit| format!("at most {limit}"),
        );
        out.line(format_args!(
            "In flight for entity '{entity}' on resource '{resource}': {} ({most})",
            places.iter().filter(|place| !place.is_expired).count()
        ))?;
        for place in &places {
            let state = if place.is_expired {
                "expired, and free for the next request"
            } else {
                "unless it is renewed"
            };
            let until = time::stored(place.expires_at);
            out.line(format_args!("  {} until {until}, {state}", place.holder))?;
        }
    }
    out.flush()?;
    Ok(Exit::Success)
}

fn as_json(place: &PlaceInFlight) -> Json {
    json!({
        "holder": place.holder,
        "expires_at": time::stored(place.expires_at),
        "expired": place.is_expired,
    })
}

fn requests(limit: u32) -> String {
    match limit {
        1 => "1 request".to_owned(),
        more => format!("{more} requests"),
    }
}

fn stored(limit: Option<u32>, whose: &str) -> String {
    match limit {
        Some(limit) => format!("Concurrency limit of {whose}: {}", requests(limit)),
        None => format!("No concurrency limit configured for {whose}"),
    }
}

fn question(whose: &str) -> String {
    format!("Delete the concurrency limit of {whose}?")
}

fn deleted(existed: bool, whose: &str) -> String {
    if existed {
        format!("Deleted the concurrency limit of {whose}")
    } else {
        format!("There is no concurrency limit of {whose}; nothing was deleted")
    }
}

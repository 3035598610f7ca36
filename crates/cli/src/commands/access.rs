//! The commands of `resource` and `entity` that say who is refused, who is let through, and whose parent is debited.

use serde_json::{Value as Json, json};
use zae_limiter::{Access as Word, Entity, EntityId, Repository};

use super::entity::note;
use super::{Outcome, above, failed, say};
use crate::args::access::{EntityCascade, OnEntity, Resource, ResourceCascade, SetParent, Switch};
use crate::args::{Common, Namespaced};
use crate::connect::{Access, namespace};
use crate::failure::Failure;
use crate::names;
use crate::out::Out;

/// What was done, and what happened to buckets.
fn words(access: Option<Word>) -> (&'static str, &'static str) {
    match access {
        Some(Word::Disabled) => ("Disabled", "stamped"),
        Some(Word::Enabled) => ("Enabled", "cleared"),
        Some(Word::Bypass) => ("Bypassed", "stamped"),
        None => ("Cleared disabled flag for", "updated"),
    }
}

pub(crate) async fn resource_access(args: Resource, access: Option<Word>) -> Outcome {
    let resource = &args.resource_name;
    names::resource(resource)?;
    let what = match access {
        Some(Word::Disabled) => "disable resource",
        Some(Word::Enabled) => "enable resource",
        Some(Word::Bypass) => "bypass resource",
        None => "clear resource disabled flag",
    };
    let repo = namespace(&args.common.at, Access::Write, what).await?;
    let stamped = repo.admin().set_resource_access(resource, access).await;
    let stamped = stamped.map_err(failed(&args.common.at.connection, what))?;
    let (done, buckets) = words(access);
    let told =
        json!({ "resource": resource, "disabled": access.map(Word::to_json), "buckets_stamped": stamped });
    let line = format_args!("{done} resource '{resource}' ({stamped} buckets {buckets})");
    say(&args.common, &told, line)
}

pub(crate) async fn entity_access(args: OnEntity, access: Option<Word>) -> Outcome {
    let (entity, resource) = (&args.entity_id, &args.resource);
    names::entity("entity_id", entity)?;
    names::scope(resource)?;
    let what = match access {
        Some(Word::Disabled) => "disable entity",
        Some(Word::Enabled) => "enable entity",
        Some(Word::Bypass) => "bypass entity",
        None => "clear entity disabled flag",
    };
    let repo = namespace(&args.common.at, Access::Write, what).await?;
    let stamped = repo.admin().set_entity_access(entity, resource, access).await;
    let stamped = stamped.map_err(failed(&args.common.at.connection, what))?;
    let (done, buckets) = words(access);
    let told = json!({
        "entity_id": entity, "resource": resource, "disabled": access.map(Word::to_json), "buckets_stamped": stamped,
    });
    let line = format_args!("{done} entity '{entity}' ({stamped} buckets {buckets})");
    let said = say(&args.common, &told, line);
    let sets_apart = matches!(access, Some(Word::Disabled | Word::Bypass));
    if sets_apart && stamped == 0 && matches!(repo.admin().entity(entity).await, Ok(None)) {
        note(&format!(
            "entity '{entity}' was not created, and no bucket was changed; if the name is right, this applies to its next requests"
        ));
    }
    said
}

pub(crate) async fn set_resource_cascade(args: ResourceCascade) -> Outcome {
    resource_cascade(&args.resource_name, &args.common, Some(args.value)).await
}

pub(crate) async fn clear_resource_cascade(args: Resource) -> Outcome {
    resource_cascade(&args.resource_name, &args.common, None).await
}

async fn resource_cascade(resource: &str, common: &Common<Namespaced>, value: Option<Switch>) -> Outcome {
    names::resource(resource)?;
    let what = match value {
        Some(_) => "set resource cascade",
        None => "clear resource cascade",
    };
    let repo = namespace(&common.at, Access::Write, what).await?;
    let cascade = value.map(|value| value == Switch::On);
    let stamped = repo.admin().set_resource_cascade(resource, cascade).await;
    let stamped = stamped.map_err(failed(&common.at.connection, what))?;
    let told = json!({ "resource": resource, "cascade": cascade, "buckets_stamped": stamped });
    let (done, buckets) = match cascade {
        Some(true) => ("Set cascade on", "stamped"),
        Some(false) => ("Set cascade off", "stamped"),
        None => ("Cleared cascade policy", "updated"),
    };
    let line = format_args!("{done} for resource '{resource}' ({stamped} buckets {buckets})");
    say(common, &told, line)
}

pub(crate) async fn set_entity_cascade(args: EntityCascade) -> Outcome {
    let on = OnEntity {
        entity_id: args.entity_id,
        resource: args.resource,
        common: args.common,
    };
    entity_cascade(on, Some(args.value)).await
}

pub(crate) async fn clear_entity_cascade(args: OnEntity) -> Outcome {
    entity_cascade(args, None).await
}

async fn entity_cascade(args: OnEntity, value: Option<Switch>) -> Outcome {
    let (entity, resource, common) = (&args.entity_id, &args.resource, &args.common);
    names::entity("entity_id", entity)?;
    names::scope(resource)?;
    let what = match value {
        Some(_) => "set entity cascade",
        None => "clear entity cascade",
    };
    let repo = namespace(&common.at, Access::Write, what).await?;
    let cascade = value.map(|value| value == Switch::On);
    let stamped = repo.admin().set_entity_cascade(entity, resource, cascade).await;
    let stamped = stamped.map_err(failed(&common.at.connection, what))?;
    let told = json!({
        "entity_id": entity, "resource": resource, "cascade": cascade, "buckets_stamped": stamped,
    });
    let (done, buckets) = match cascade {
        Some(true) => ("Set cascade on", "stamped"),
        Some(false) => ("Set cascade off", "stamped"),
        None => ("Cleared cascade policy", "updated"),
    };
    let line = format_args!("{done} for entity '{entity}' ({stamped} buckets {buckets})");
    say(common, &told, line)
}

pub(crate) async fn set_parent(args: SetParent) -> Outcome {
    const WHAT: &str = "set parent";
    let entity = &args.entity_id;
    names::entity("entity_id", entity)?;
    let parent = match &args.parent {
        Some(parent) => {
            names::entity("parent_id", parent)?;
            EntityId::new(parent).ok()
        }
        None => None,
    };
    let repo = namespace(&args.common.at, Access::Write, WHAT).await?;
    let failed = failed(&args.common.at.connection, WHAT);
    let before = repo.admin().entity(entity).await.map_err(failed)?;
    let old = before.as_ref().and_then(|entity| entity.parent.clone());
    let stamped = repo
        .admin()
        .set_parent(entity, parent.clone())
        .await
        .map_err(failed)?;
    let told = json!({
        "entity_id": entity, "old_parent_id": old, "parent_id": parent, "buckets_stamped": stamped,
    });
    let named = |parent: Option<EntityId>| parent.map_or_else(|| "(none)".to_owned(), |id| id.to_string());
    let (old, new) = (named(old), named(parent.clone()));
    let line = format_args!("Moved entity '{entity}' from {old} to {new} ({stamped} buckets stamped)");
    let said = say(&args.common, &told, line)?;
    if let Some(before) = before {
        above::note_depth(repo.admin(), &Entity { parent, ..before }).await;
    }
    Ok(said)
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// What a level says beside its limits.
pub(crate) struct Flags {
    access: Option<Word>,
    cascade: Option<bool>,
}

impl Flags {
    /// Those of a resource.
    pub(crate) async fn of_resource(repo: &Repository, resource: &str) -> Result<Self, zae_limiter::Error> {
        let admin = repo.admin();
        Ok(Self {
            access: admin.resource_access(resource).await?,
            cascade: admin.resource_cascade(resource).await?,
        })
    }

    /// Those of an entity.
    pub(crate) async fn of_entity(
        repo: &Repository,
        entity: &str,
        resource: &str,
    ) -> Result<Self, zae_limiter::Error> {
        let admin = repo.admin();
        Ok(Self {
            access: admin.entity_access(entity, resource).await?,
            cascade: admin.entity_cascade(entity, resource).await?,
        })
    }

    /// Adds those that are set to the description of a level.
    pub(crate) fn add_to(&self, level: &mut Json) {
        if let Some(access) = self.access {
            level["disabled"] = access.to_json();
        }
        if let Some(cascade) = self.cascade {
            level["cascade"] = json!(cascade);
        }
    }

    /// Prints those that are set.
    pub(crate) fn print(&self, out: &mut Out) -> Result<(), Failure> {
        match self.access {
            Some(Word::Disabled) => out.line("Status: DISABLED")?,
            Some(Word::Enabled) => out.line("Status: enabled (explicit override)")?,
            Some(Word::Bypass) => out.line("Status: BYPASSED")?,
            None => {}
        }
        match self.cascade {
            Some(on) => out.line(format_args!("Cascade: {} (explicit)", on_off(on))),
            None => Ok(()),
        }
    }
}

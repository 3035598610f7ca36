//! Notes of limits that those of an entity above keep from being reached, and of entities above that requests do not debit, on
//! standard error: results stay as they are.

use std::future::Future;
use std::time::Duration;

use zae_limiter::{ALL_RESOURCES, AboveParent, Admin, Entity, Error};

use crate::say;
use crate::text::limit::describe;
use crate::text::table::printable;

/// How many limits are named one by one.
const NAMED: usize = 10;

/// How long a note is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Notes the limits that a look-up finds. The note is an extra: a look-up that fails or takes long leaves it out.
pub(crate) async fn note(found: impl Future<Output = Result<Vec<AboveParent>, Error>>, with_resource: bool) {
    let Ok(Ok(found)) = tokio::time::timeout(PATIENCE, found).await else {
        return;
    };
    for above in found.iter().take(NAMED) {
        let AboveParent {
            entity,
            resource,
            parent,
            limit,
            parents,
            distance,
            ..
        } = above;
        let kind = if *distance == 1 { "parent" } else { "ancestor" };
        let resource = if with_resource {
            format!(" for resource '{}'", resource.as_str())
        } else {
            String::new()
        };
        let text = format!(
            "Note: limit {}{resource} is above that of the {kind} '{parent}' ({}), which '{entity}' cannot exceed",
            describe(limit),
            describe(parents)
        );
        say(&printable(&text));
    }
    if found.len() > NAMED {
        let more = crate::text::number::grouped((found.len() - NAMED) as i128);
        say(&format!(
            "Note: {more} more limits are above those of the parents"
        ));
    }
}

/// Notes the nearest entity above that requests of this one do not debit, although all between cascade.
pub(crate) async fn note_depth(admin: &Admin, own: &Entity) {
    if own.parent.is_none() {
        return;
    }
    if let Ok(Ok(Some(text))) = tokio::time::timeout(PATIENCE, beyond_depth(admin, own)).await {
        say(&text);
    }
}

async fn beyond_depth(admin: &Admin, own: &Entity) -> Result<Option<String>, Error> {
    let (depth, above) = tokio::try_join!(admin.cascade_depth(), admin.ancestors(&own.id))?;
    let Some(beyond) = above.get(depth as usize - 1) else {
        return Ok(None);
    };
    for entity in std::iter::once(own).chain(&above).take(depth as usize) {
        let policy = admin.entity_cascade(&entity.id, ALL_RESOURCES).await?;
        if !policy.unwrap_or(entity.cascade) {
            return Ok(None);
        }
    }
    Ok(Some(format!(
        "Note: requests of '{}' do not debit '{}', the cascade depth is {depth} (see system set-cascade-depth)",
        own.id, beyond.id
    )))
}

//! The flags of declared levels: how they are stored and taken away.

use smol_str::SmolStr;
use zae_limiter_core::config::Access;
use zae_limiter_core::manifest::{LevelState, Target};
use zae_limiter_core::table::{Delete, Item, Part, Put, Value};

use crate::admin::levels::{LevelRecord, Prepared, unchanged};
use crate::error::Error;

/// The attributes of the flags of a level, null for those that are not declared: a manifest owns the levels that it declares.
pub(super) fn attributes(target: &Target, declared: &LevelState) -> Vec<(SmolStr, Value)> {
    if *target == Target::System {
        return Vec::new();
    }
    let access = declared.access.map_or(Value::Null, Access::value);
    let cascade = declared.cascade.map_or(Value::Null, Value::Bool);
    vec![("disabled".into(), access), ("cascade".into(), cascade)]
}

/// Takes away all that a manifest can declare of a level, flags included. `None` if there is nothing to do.
///
/// Guards that the record is as it was read.
pub(super) fn erase(
    record: &LevelRecord,
    target: &Target,
    old: Option<&Item>,
) -> Result<Option<Prepared>, Error> {
    let flags = ["disabled", "cascade"];
    let flagged =
        old.filter(|old| *target != Target::System && flags.iter().any(|flag| old.contains_key(*flag)));
    let Some(old) = flagged else {
        return record.clear(old);
    };
    let condition = unchanged(&record.key, old)?;
    let mut bare = old.clone();
    bare.retain(|name, _| !flags.contains(&name.as_str()));
    let cleared = record.clear(Some(&bare))?;
    let (part, count) = match cleared {
        Some(Prepared {
            part: Part::Delete(delete),
            count,
            ..
        }) => (Part::Delete(Delete { condition, ..delete }), count),
        Some(Prepared {
            part: Part::Put(put), ..
        }) => (Part::Put(Put { condition, ..put }), None),
        _ => (
            Part::Put(Put {
                item: bare,
                condition,
            }),
            None,
        ),
    };
    Ok(Some(Prepared {
        part,
        count,
        changes: true,
    }))
}

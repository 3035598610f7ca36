//! What a plan or an apply says, as values and as the provisioner's answer.

use serde_json::{Value as Json, json};
use zae_limiter_core::manifest::plan::Action;
use zae_limiter_core::manifest::{Change, SettingChange};

/// The changes that an apply would make.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LimitsPlan {
    /// The changes of levels, in order.
    pub changes: Vec<Change>,
    /// The changes of concurrency limits and of the cascade depth, in order.
    pub settings: Vec<SettingChange>,
    /// How many declared levels and settings are stored as declared.
    pub unchanged: usize,
    /// How many of those were set by hand and are not managed yet: an apply only takes them over.
    pub adopted: usize,
    /// Whether every declared level was asked for.
    pub full: bool,
    /// How many levels have live buckets that must still be updated.
    pub pending: usize,
    /// How many of those an apply leaves to others: to an apply that may still run, or to a release that knows more.
    pub of_others: usize,
}

/// The changes that an apply has made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LimitsApplied {
    /// The changes of levels, in order, those that failed included.
    pub changes: Vec<Change>,
    /// The changes of concurrency limits and of the cascade depth, in order, those that failed included.
    pub settings: Vec<SettingChange>,
    /// How many levels and settings were created.
    pub created: usize,
    /// How many were updated.
    pub updated: usize,
    /// How many were deleted.
    pub deleted: usize,
    /// How many were stored as declared.
    pub unchanged: usize,
    /// As in the plan.
    pub adopted: usize,
    /// As in the plan.
    pub full: bool,
    /// How many levels have live buckets that must still be updated, after failures of this apply or by another one.
    pub pending: usize,
    /// As in the plan, of what is left.
    pub of_others: usize,
    /// Failures, one line each. The next apply repeats these changes.
    pub errors: Vec<String>,
}

impl LimitsPlan {
    /// As the provisioner answers it.
    pub fn to_json(&self) -> Json {
        json!({
            "status": "planned",
            "changes": changes_json(&self.changes, &self.settings),
            "settings": self.settings.len(),
            "unchanged": self.unchanged,
            "adopted": self.adopted,
            "full": self.full,
            "pending": self.pending,
            "of_others": self.of_others,
        })
    }
}

/// How many bytes of an answer may show what was and what will be: a function's answer has six million at most.
const SHOWN_IN_FULL: usize = 3_000_000;

/// How many bytes of an answer may be errors.
const ERRORS_SHOWN: usize = 500_000;

/// The changes: with what was and what will be, if that is not too much.
fn changes_json(changes: &[Change], settings: &[SettingChange]) -> Json {
    let mut room = SHOWN_IN_FULL;
    let levels = changes.iter().map(Change::to_full_json);
    let full = levels.chain(settings.iter().map(SettingChange::to_full_json));
    let full = full.map_while(|json| {
        room = room.checked_sub(json.to_string().len() + 1)?;
        Some(json)
    });
    let full: Vec<Json> = full.collect();
    if full.len() == changes.len() + settings.len() {
        return full.into();
    }
    let levels = changes.iter().map(Change::to_json);
    levels
        .chain(settings.iter().map(SettingChange::to_json))
        .collect()
}

/// The errors, as many as there is room for.
fn errors_json(errors: &[String]) -> Json {
    let mut room = ERRORS_SHOWN;
    let shown = errors.iter().map_while(|error| {
        room = room.checked_sub(error.len())?;
        Some(json!(error))
    });
    let mut shown: Vec<Json> = shown.collect();
    if shown.len() < errors.len() {
        shown.push(json!(format!("and {} more", errors.len() - shown.len())));
    }
    shown.into()
}

impl LimitsApplied {
    /// Counts changes that are done.
    pub(super) fn count(&mut self, done: impl Iterator<Item = Action>) {
        for action in done {
            *match action {
                Action::Create => &mut self.created,
                Action::Update => &mut self.updated,
                Action::Delete => &mut self.deleted,
            } += 1;
        }
    }

    /// As the provisioner answers it.
    pub fn to_json(&self) -> Json {
        json!({
            "status": "applied",
            "changes": changes_json(&self.changes, &self.settings),
            "settings": self.settings.len(),
            "created": self.created,
            "updated": self.updated,
            "deleted": self.deleted,
            "unchanged": self.unchanged,
            "adopted": self.adopted,
            "full": self.full,
            "pending": self.pending,
            "of_others": self.of_others,
            "errors": errors_json(&self.errors),
        })
    }
}

#[cfg(test)]
mod tests {
    use zae_limiter_core::manifest::{LevelState, Target};
    use zae_limiter_core::{EntityId, ResourceScope};

    use super::*;
    use crate::Limit;

    #[test]
    fn an_answer_fits_a_function_whatever_was_declared() {
        let limits = (0..20).map(|n| Limit::per_minute(format!("{}-{n}", "x".repeat(50)), 1_000_000).build());
        let level = LevelState {
            limits: limits.collect::<Result<_, _>>().unwrap(),
            ..LevelState::default()
        };
        let change = |n: usize| Change {
            action: Action::Update,
            target: Target::Entity(
                EntityId::new(format!("{}{n}", "e".repeat(200))).unwrap(),
                ResourceScope::new("gpt-4").unwrap(),
            ),
            old: Some(level.clone()),
            new: Some(level.clone()),
        };
        for (levels, in_full) in [(10, true), (3000, false)] {
            let applied = LimitsApplied {
                changes: (0..levels).map(change).collect(),
                errors: (0..levels)
                    .map(|n| format!("{n}: {}", "why ".repeat(200)))
                    .collect(),
                ..LimitsApplied::default()
            };
            let json = applied.to_json();
            assert!(json.to_string().len() < 6_000_000);
            let changes = json["changes"].as_array().unwrap();
            assert_eq!(changes.len(), levels);
            assert!(
                changes
                    .iter()
                    .all(|change| change.get("new").is_some() == in_full)
            );
            let errors = json["errors"].as_array().unwrap();
            assert_eq!(errors.len() == levels, in_full);
            let more = errors.last().unwrap().as_str().unwrap();
            assert_eq!(
                more == format!("and {} more", levels + 1 - errors.len()),
                !in_full
            );
        }
    }
}

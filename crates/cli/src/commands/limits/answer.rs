//! What a plan or an apply says. The library, this project's function and those of the Python original answer in one
//! form; the oldest say less.

use serde_json::Value as Json;
use zae_limiter_core::manifest::{Target, limit_from_json};

use crate::text::limit::describe;

/// An answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Answer {
    /// The changes, in order.
    pub(super) changes: Vec<Change>,
    /// Whether concurrency limits and the cascade depth were considered.
    pub(super) knows_settings: bool,
    /// How many declared levels are as declared; `None` if nothing was compared.
    pub(super) unchanged: Option<u64>,
    /// How many of those were set by hand, and are or were taken over as they are.
    pub(super) adopted: u64,
    /// How many levels have live buckets that must still be updated.
    pub(super) pending: u64,
    /// How many of those an apply leaves to others.
    pub(super) of_others: u64,
    /// Whether it continues with an apply that was interrupted.
    pub(super) resumed: bool,
    /// Levels created.
    pub(super) created: u64,
    /// Levels updated.
    pub(super) updated: u64,
    /// Levels deleted.
    pub(super) deleted: u64,
    /// Failures.
    pub(super) errors: Vec<String>,
}

/// A change.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    /// `create`, `update` or `delete`.
    pub(super) action: String,
    /// `system`, `resource` or `entity`.
    pub(super) level: String,
    /// Which one; `None` for the system's.
    pub(super) target: Option<String>,
    /// The setting of the level that it changes, if it does not change its limits and flags.
    pub(super) setting: Option<String>,
    /// Stored and declared limits, if the answer has them.
    pub(super) values: Option<Values>,
    /// The change as the answer has it.
    pub(super) json: Json,
}

/// The limits of a level, a line for each.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Values {
    /// Now.
    pub(super) old: Vec<String>,
    /// After the change.
    pub(super) new: Vec<String>,
}

impl Change {
    /// Its sign.
    pub(super) fn symbol(&self) -> char {
        match &*self.action {
            "create" => '+',
            "update" => '~',
            "delete" => '-',
            _ => '?',
        }
    }

    /// Whether it puts other limits in the place of some that no manifest made.
    pub(super) fn replaces(&self) -> bool {
        let old = self.values.as_ref().map(|values| &values.old);
        self.action == "create" && old.is_some_and(|old| !old.is_empty())
    }

    /// The level that it deletes, if it deletes one.
    pub(super) fn deleted(&self) -> Option<Target> {
        let target = self.target.as_deref().unwrap_or_default();
        Target::parse(&self.level, target).filter(|_| self.action == "delete" && self.setting.is_none())
    }

    /// What is changed: the kind of level, and the setting.
    pub(super) fn what(&self) -> String {
        match &self.setting {
            Some(setting) => format!("{} {setting}", self.level),
            None => self.level.clone(),
        }
    }

    /// The target of the change.
    pub(super) fn target(&self) -> &str {
        self.target.as_deref().unwrap_or("(system defaults)")
    }
}

/// Why a function failed, if this is what it says.
pub(super) fn failure(payload: &Json) -> Option<String> {
    match payload.get("errorMessage")? {
        Json::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

impl Answer {
    /// How many levels have live buckets that the next apply updates.
    pub(super) fn retried(&self) -> u64 {
        self.pending.saturating_sub(self.of_others)
    }

    /// Whether an apply would have nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.changes.is_empty() && self.retried() == 0 && self.adopted == 0
    }

    /// Understands an answer; else says what is wrong with it.
    pub(super) fn of(answer: &Json) -> Result<Self, String> {
        let changes = answer["changes"]
            .as_array()
            .ok_or_else(|| format!("its 'changes' are {}; they must be a list", answer["changes"]))?;
        let number = |name: &str| answer[name].as_u64();
        Ok(Self {
            changes: changes.iter().map(change).collect::<Result<_, _>>()?,
            knows_settings: number("settings").is_some(),
            unchanged: number("unchanged"),
            adopted: number("adopted").unwrap_or(0),
            pending: number("pending").unwrap_or(0),
            of_others: number("of_others").unwrap_or(0),
            resumed: answer["resumed"] == true,
            created: number("created").unwrap_or(0),
            updated: number("updated").unwrap_or(0),
            deleted: number("deleted").unwrap_or(0),
            errors: answer["errors"]
                .as_array()
                .map(|errors| errors.iter().map(text).collect())
                .unwrap_or_default(),
        })
    }
}

fn text(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn change(json: &Json) -> Result<Change, String> {
    let wrong = |name| format!("the '{name}' of a change is {}; it must be text", json[name]);
    let word = |name| json[name].as_str().map(str::to_owned).ok_or_else(|| wrong(name));
    let has_values = json.get("old").is_some() || json.get("new").is_some();
    Ok(Change {
        action: word("action")?,
        level: word("level")?,
        target: json["target"].as_str().map(str::to_owned),
        setting: json["setting"].as_str().map(str::to_owned),
        values: has_values.then(|| Values {
            old: level(&json["old"]),
            new: level(&json["new"]),
        }),
        json: json.clone(),
    })
}

/// The content of a level.
fn level(json: &Json) -> Vec<String> {
    let limits = json["limits"].as_object().into_iter().flatten();
    let mut lines: Vec<String> = limits
        .map(|(name, parts)| match limit_from_json(name, parts) {
            Ok(limit) => describe(&limit),
            // Not a limit of this release; shown as the answer has it.
            Err(_) => format!("{name}: {parts}"),
        })
        .collect();
    lines.extend(
        json["on_unavailable"]
            .as_str()
            .map(|policy| format!("on_unavailable: {policy}")),
    );
    for flag in ["disabled", "cascade"] {
        match &json[flag] {
            Json::Bool(value) => lines.push(format!("{flag}: {value}")),
            Json::String(word) => lines.push(format!("{flag}: {word}")),
            _ => {}
        }
    }
    for setting in ["concurrency", "cascade_depth"] {
        let value = json[setting].as_u64();
        lines.extend(value.map(|value| format!("{setting}: {value}")));
    }
    lines.extend(json["note"].as_str().map(str::to_owned));
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_of_the_oldest_release() {
        let answer = Answer::of(&json!({
            "status": "applied",
            "changes": [{ "action": "create", "level": "system", "target": null }],
            "created": 1, "updated": 0, "deleted": 0, "errors": ["delete resource x: boom"],
        }))
        .unwrap();
        assert_eq!((answer.unchanged, answer.pending, answer.created), (None, 0, 1));
        assert_eq!(answer.errors, ["delete resource x: boom"]);
        let change = &answer.changes[0];
        assert_eq!(
            (change.symbol(), change.target(), &change.values),
            ('+', "(system defaults)", &None)
        );
    }

    #[test]
    fn what_levels_hold() {
        let rpm = |capacity: i64| json!({ "rpm": { "capacity": capacity, "refill_amount": 5, "refill_period": 60 } });
        let answer = Answer::of(&json!({ "changes": [
            { "action": "update", "level": "system", "target": null,
              "old": { "limits": rpm(10), "note": "a schedule" },
              "new": { "limits": rpm(5), "on_unavailable": "block" } },
            { "action": "create", "level": "resource", "target": "r", "old": null, "new": { "limits": rpm(-1) } },
            { "action": "replace", "level": "resource", "target": "r" },
        ], "unchanged": 3, "pending": 2, "resumed": true }))
        .unwrap();
        assert_eq!(
            (answer.unchanged, answer.pending, answer.resumed),
            (Some(3), 2, true)
        );
        let values: Vec<_> = answer
            .changes
            .iter()
            .map(|change| change.values.as_ref())
            .collect();
        let first = values[0].unwrap();
        assert_eq!(first.old, ["rpm: 5/min (burst: 10)", "a schedule"]);
        assert_eq!(first.new, ["rpm: 5/min", "on_unavailable: block"]);
        let second = values[1].unwrap();
        assert_eq!(second.old, [""; 0]);
        assert_eq!(
            second.new,
            ["rpm: {\"capacity\":-1,\"refill_amount\":5,\"refill_period\":60}"]
        );
        assert_eq!((values[2], answer.changes[2].symbol()), (None, '?'));
    }

    #[test]
    fn shapes_of_limits() {
        let limits = json!({
            "rpd": { "capacity": 5, "refill_amount": 0, "refill_period": 1, "soft": true,
                "reset_schedule": [{ "cron": "0 0 * * *", "tz": "Asia/Tokyo" }] },
            "s": { "capacity": 5, "refill_amount": 0, "refill_period": 1, "reset_after_seconds": 90 },
            "x": { "capacity": 5, "kind": "rolling" },
        });
        assert_eq!(
            level(&json!({ "limits": limits })),
            [
                "rpd: 5 quota (resets '0 0 * * *' Asia/Tokyo) (soft)",
                "s: 5 quota (resets 1m30s after first use)",
                "x: {\"capacity\":5,\"kind\":\"rolling\"}",
            ]
        );
    }

    #[test]
    fn settings_of_levels() {
        let answer = Answer::of(&json!({ "settings": 2, "changes": [
            { "action": "create", "level": "resource", "target": "r", "setting": "concurrency",
              "old": { "concurrency": 9 }, "new": { "concurrency": 5 } },
            { "action": "delete", "level": "system", "target": null, "setting": "cascade_depth",
              "old": { "note": "damaged" }, "new": null },
        ] }))
        .unwrap();
        assert!(answer.knows_settings);
        let [first, second] = &answer.changes[..] else {
            panic!("{answer:?}")
        };
        assert_eq!((&*first.what(), first.target()), ("resource concurrency", "r"));
        assert!(first.replaces());
        let values = first.values.as_ref().unwrap();
        assert_eq!(
            (&values.old[..], &values.new[..]),
            (
                &["concurrency: 9".to_owned()][..],
                &["concurrency: 5".to_owned()][..]
            )
        );
        assert_eq!(second.what(), "system cascade_depth");
        assert_eq!(second.values.as_ref().unwrap().old, ["damaged"]);
        // The limits of the level stay.
        assert_eq!(second.deleted(), None);
        assert!(!Answer::of(&json!({ "changes": [] })).unwrap().knows_settings);
    }

    #[test]
    fn what_is_no_answer() {
        for (json, expected) in [
            (Json::Null, "its 'changes' are null; they must be a list"),
            (
                json!({ "changes": [{ "action": 1, "level": "system" }] }),
                "the 'action' of a change is 1; it must be text",
            ),
            (
                json!({ "changes": ["x"] }),
                "the 'action' of a change is null; it must be text",
            ),
        ] {
            assert_eq!(Answer::of(&json).unwrap_err(), expected);
        }
        assert_eq!(
            failure(&json!({ "errorMessage": "no", "stackTrace": [] })),
            Some("no".into())
        );
        assert_eq!(failure(&json!({ "changes": [] })), None);
    }
}

//! The rules of a manifest: from a tree to a [`Manifest`], or to all that is wrong with it.

mod limit;
mod settings;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::Value as Json;

use super::{Level, Manifest, Settings, SystemLevel, Target};
use crate::config::{Access, OnUnavailable};
use crate::document::{Entry, Node, Path, Problem, Problems, Tree, nearest};
use crate::error::InvalidInput;
use crate::limit::{Limit, MAX_LIMITS, too_many_quotas};
use crate::name::{EntityId, LimitName, NamespaceName, ResourceName, ResourceScope};
use limit::LevelZone;
use settings::{OF_A_RESOURCE, ONLY_AT_SYSTEM};

/// How the keys of a manifest are spelled, and what its scalars look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// A file or an event: `refill_amount`, scalars of their own types.
    File,
    /// Properties of a custom resource: `RefillAmount`, every scalar may be a text.
    Stack,
}

/// A key in both spellings.
#[derive(Clone, Copy)]
struct Key(&'static str, &'static str);

impl Key {
    fn in_dialect(self, dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::File => self.0,
            Dialect::Stack => self.1,
        }
    }
}

const NAMESPACE: Key = Key("namespace", "Namespace");
const SYSTEM: Key = Key("system", "System");
const RESOURCES: Key = Key("resources", "Resources");
const ENTITIES: Key = Key("entities", "Entities");
const LIMITS: Key = Key("limits", "Limits");

/// Properties of a custom resource beside the manifest. Any other property may be a misspelt one of the manifest's, and
/// an apply would delete what it does not find declared.
const OF_THE_RESOURCE: [Key; 5] = [
    Key("ServiceToken", "ServiceToken"),
    Key("ServiceTimeout", "ServiceTimeout"),
    Key("TableName", "TableName"),
    Key("NamespaceId", "NamespaceId"),
    Key("FullApply", "FullApply"),
];

const ON_UNAVAILABLE: Key = Key("on_unavailable", "OnUnavailable");
const DISABLED: Key = Key("disabled", "Disabled");
const CASCADE: Key = Key("cascade", "Cascade");
const CONCURRENCY: Key = Key("concurrency", "Concurrency");
const CASCADE_DEPTH: Key = Key("cascade_depth", "CascadeDepth");
const CAPACITY: Key = Key("capacity", "Capacity");
const BURST: Key = Key("burst", "Burst");
const REFILL_AMOUNT: Key = Key("refill_amount", "RefillAmount");
const REFILL_PERIOD: Key = Key("refill_period", "RefillPeriod");
const SCHEDULE: Key = Key("schedule", "Schedule");
const RESET_SCHEDULE: Key = Key("reset_schedule", "ResetSchedule");
const RESET_AFTER: Key = Key("reset_after_seconds", "ResetAfterSeconds");
const SOFT: Key = Key("soft", "Soft");
const CRON: Key = Key("cron", "Cron");
const TZ: Key = Key("tz", "Tz");
const SCALE: Key = Key("scale", "Scale");
const REFILL_PERIOD_SECONDS: Key = Key("refill_period_seconds", "RefillPeriodSeconds");

/// What a file of limits is, for messages.
#[cfg(feature = "yaml")]
const KIND: crate::document::Kind = crate::document::Kind {
    name: "a manifest",
    least: "it must at least name its namespace",
};

/// Why a flag is refused under `system`.
const NOT_AT_SYSTEM: &str =
    "has no effect at the system level; it belongs to a resource, or to a resource of an entity";

impl Manifest {
    /// Reads a manifest from the bytes of a YAML file.
    ///
    /// # Errors
    /// Every problem of the file, with line and column.
    #[cfg(feature = "yaml")]
    pub fn from_yaml(text: &[u8]) -> Result<Self, Problems> {
        let (root, problems) = crate::document::read_yaml(text, &KIND);
        manifest(root, Dialect::File, problems)
    }

    /// Reads a manifest from JSON.
    ///
    /// # Errors
    /// Every problem, with its path.
    pub fn from_json(value: &Json) -> Result<Self, Problems> {
        manifest(Some(Node::from_json(value)), Dialect::File, Vec::new())
    }

    /// Reads a manifest from the properties of a custom resource, which CloudFormation delivers with every number
    /// and truth value as text. Properties of the resource itself (`ServiceToken`, `TableName` and the like) are
    /// passed over.
    ///
    /// # Errors
    /// Every problem, with the property's path.
    pub fn from_properties(value: &Json) -> Result<Self, Problems> {
        manifest(Some(Node::from_json(value)), Dialect::Stack, Vec::new())
    }
}

/// Reads one limit of a level, as [`Manifest::to_json`] and the answers of the provisioner have it.
///
/// # Errors
/// Every problem, with its path, which begins with the limit's name.
pub fn limit_from_json(name: &str, value: &Json) -> Result<Limit, Problems> {
    let mut rules = Rules {
        dialect: Dialect::File,
        problems: Vec::new(),
    };
    let entry = Entry {
        name: name.to_owned(),
        at: None,
        node: Node::from_json(value),
    };
    let path = Path::of(&[name]);
    let checked = rules.name(&path, &entry, LimitName::new(name));
    let limit = rules.limit(&path, name, &entry.node, &mut LevelZone::default());
    match checked.and(limit) {
        Some(limit) if rules.problems.is_empty() => Ok(limit),
        _ => Err(Problems::new(rules.problems)),
    }
}

/// Reads a tree. `problems` are those that were met on the way to it.
fn manifest(root: Option<Node>, dialect: Dialect, problems: Vec<Problem>) -> Result<Manifest, Problems> {
    let mut rules = Rules { dialect, problems };
    let manifest = root.and_then(|root| rules.manifest(&root));
    match manifest {
        Some(manifest) if rules.problems.is_empty() => Ok(manifest),
        _ => Err(Problems::new(rules.problems)),
    }
}

struct Rules {
    dialect: Dialect,
    problems: Vec<Problem>,
}

impl Rules {
    fn manifest(&mut self, root: &Node) -> Option<Manifest> {
        let top = Path::default();
        if matches!(root.value, Tree::Null) {
            let reason = "is empty; it must at least name its namespace";
            self.problem(Problem::new(root.at, &top, reason));
            return None;
        }
        let entries = self.map(&top, root)?;
        let mut known = vec![NAMESPACE, SYSTEM, RESOURCES, ENTITIES];
        if self.dialect == Dialect::Stack {
            known.extend(OF_THE_RESOURCE);
        }
        self.known(&top, entries, &known, &[]);
        let namespace = self.namespace(root, entries);
        let mut settings = Settings::default();
        let system = self
            .find(entries, SYSTEM)
            .and_then(|node| self.system(&self.path(&top, SYSTEM), node, &mut settings));
        let mut resources = BTreeMap::new();
        if let Some(node) = self.find(entries, RESOURCES) {
            let path = self.path(&top, RESOURCES);
            for entry in self.map(&path, node).unwrap_or_default() {
                let path = path.to(&entry.name);
                let name = self.name(&path, entry, ResourceName::new(&entry.name));
                let target = name.clone().map(Target::Resource);
                let level = self.level(&path, &entry.node, target, &mut settings);
                resources.extend(name.zip(level));
            }
        }
        let mut entities = BTreeMap::new();
        if let Some(node) = self.find(entries, ENTITIES) {
            let path = self.path(&top, ENTITIES);
            for entry in self.map(&path, node).unwrap_or_default() {
                let path = path.to(&entry.name);
                let id = self.name(&path, entry, EntityId::new(&entry.name));
                let levels = self.entity(&path, &entry.node, id.as_ref(), &mut settings);
                entities.extend(id.zip(levels));
            }
        }
        Some(Manifest {
            namespace: namespace?,
            system,
            resources,
            entities,
            settings,
        })
    }

    fn namespace(&mut self, root: &Node, entries: &[Entry]) -> Option<NamespaceName> {
        let path = self.path(&Path::default(), NAMESPACE);
        let Some(node) = self.find(entries, NAMESPACE) else {
            if self.dialect == Dialect::Stack {
                return NamespaceName::new("default").ok();
            }
            self.problem(Problem::new(root.at, &path, "is missing"));
            return None;
        };
        let Tree::Text(text) = &node.value else {
            self.wrong(
                &path,
                node,
                "must be a text; put it in quotes if it looks like something else",
            );
            return None;
        };
        self.checked(&path, node, NamespaceName::new(text))
    }

    fn system(&mut self, path: &Path, node: &Node, settings: &mut Settings) -> Option<SystemLevel> {
        let entries = self.map(path, node).unwrap_or_default();
        self.known(
            path,
            entries,
            &[LIMITS, ON_UNAVAILABLE, CONCURRENCY, CASCADE_DEPTH],
            &[(DISABLED, NOT_AT_SYSTEM), (CASCADE, NOT_AT_SYSTEM)],
        );
        let on_unavailable = self.find(entries, ON_UNAVAILABLE).and_then(|node| {
            let path = self.path(path, ON_UNAVAILABLE);
            match &node.value {
                Tree::Null => None,
                Tree::Text(text) if text == "allow" => Some(OnUnavailable::Allow),
                Tree::Text(text) if text == "block" => Some(OnUnavailable::Block),
                _ => {
                    self.wrong(&path, node, "must be 'allow' or 'block'");
                    None
                }
            }
        });
        self.concurrency(path, entries, Some(Target::System), settings);
        self.cascade_depth(path, entries, settings);
        let level = SystemLevel {
            limits: self.limits(path, entries),
            on_unavailable,
        };
        self.is_level(entries).then_some(level)
    }

    /// The levels of an entity; `None` if only settings are declared of it.
    fn entity(
        &mut self,
        path: &Path,
        node: &Node,
        id: Option<&EntityId>,
        settings: &mut Settings,
    ) -> Option<BTreeMap<ResourceScope, Level>> {
        let entries = self.map(path, node).unwrap_or_default();
        let misplaced = [(CONCURRENCY, OF_A_RESOURCE), (CASCADE_DEPTH, ONLY_AT_SYSTEM)];
        self.known(path, entries, &[RESOURCES], &misplaced);
        let (mut levels, mut has_settings_only) = (BTreeMap::new(), false);
        if let Some(node) = self.find(entries, RESOURCES) {
            let path = self.path(path, RESOURCES);
            for entry in self.map(&path, node).unwrap_or_default() {
                let path = path.to(&entry.name);
                let scope = self.name(&path, entry, ResourceScope::new(&entry.name));
                let target = id.cloned().zip(scope.clone());
                let target = target.map(|(id, scope)| Target::Entity(id, scope));
                let level = self.level(&path, &entry.node, target, settings);
                has_settings_only |= level.is_none();
                levels.extend(scope.zip(level));
            }
        }
        (!levels.is_empty() || !has_settings_only).then_some(levels)
    }

    /// A level; `None` if only settings are declared of it.
    fn level(
        &mut self,
        path: &Path,
        node: &Node,
        target: Option<Target>,
        settings: &mut Settings,
    ) -> Option<Level> {
        let entries = self.map(path, node).unwrap_or_default();
        self.known(
            path,
            entries,
            &[LIMITS, DISABLED, CASCADE, CONCURRENCY],
            &[(CASCADE_DEPTH, ONLY_AT_SYSTEM)],
        );
        self.concurrency(path, entries, target, settings);
        let level = Level {
            limits: self.limits(path, entries),
            access: self.access(path, entries),
            cascade: self.flag(path, entries, CASCADE, "must be true or false"),
        };
        self.is_level(entries).then_some(level)
    }

    fn access(&mut self, path: &Path, entries: &[Entry]) -> Option<Access> {
        if let Some(node) = self.find(entries, DISABLED)
            && matches!(&node.value, Tree::Text(text) if text == "bypass")
        {
            return Some(Access::Bypass);
        }
        let disabled = self.flag(path, entries, DISABLED, "must be true, false or 'bypass'")?;
        Some(if disabled {
            Access::Disabled
        } else {
            Access::Enabled
        })
    }

    fn limits(&mut self, path: &Path, entries: &[Entry]) -> Vec<Limit> {
        let Some(node) = self.find(entries, LIMITS) else {
            return Vec::new();
        };
        let path = self.path(path, LIMITS);
        let declared = self.map(&path, node).unwrap_or_default();
        if declared.len() > MAX_LIMITS {
            let reason =
                format!("must hold at most {MAX_LIMITS} limits, so that one write can change them all");
            self.wrong(&path, node, &reason);
        }
        let mut limits = Vec::with_capacity(declared.len());
        let mut zone = LevelZone::default();
        for entry in declared {
            let path = path.to(&entry.name);
            let name = self.name(&path, entry, LimitName::new(&entry.name));
            let limit = self.limit(&path, &entry.name, &entry.node, &mut zone);
            limits.extend(name.and(limit));
        }
        if let Some((_, reason)) = too_many_quotas(&limits) {
            self.wrong(&path, node, &reason);
        }
        limits.sort_by(|a: &Limit, b| a.name().cmp(b.name()));
        limits
    }

    /// A whole number; `None` if it is absent or wrong.
    fn number(
        &mut self,
        path: &Path,
        entries: &[Entry],
        key: Key,
        within: RangeInclusive<u64>,
    ) -> Option<u64> {
        let node = self.find(entries, key)?;
        let number = match &node.value {
            Tree::Null => return None,
            Tree::Int(number) => Some(*number),
            Tree::Text(text) if self.dialect == Dialect::Stack => {
                if text.is_empty() && key.0 != CAPACITY.0 {
                    return None;
                }
                text.trim().parse().ok()
            }
            _ => None,
        };
        let number = number.and_then(|number| u64::try_from(number).ok());
        if let Some(number) = number.filter(|number| within.contains(number)) {
            return Some(number);
        }
        let path = self.path(path, key);
        let (least, most) = (within.start(), within.end());
        self.wrong(
            &path,
            node,
            &format!("must be a whole number from {least} to {most}"),
        );
        None
    }

    /// Refuses unknown keys, and known keys that are not supported, unless their value has no effect.
    fn known(&mut self, path: &Path, entries: &[Entry], known: &[Key], refused: &[(Key, &str)]) {
        for entry in entries {
            let is = |key: &Key| key.in_dialect(self.dialect) == entry.name;
            if known.iter().any(is) {
                continue;
            }
            let path = path.to(&entry.name);
            if let Some((_, reason)) = refused.iter().find(|(key, _)| is(key)) {
                if !self.asks_for_nothing(entry) {
                    let problem = Problem::new(entry.at, &path, *reason);
                    self.problem(problem);
                }
                continue;
            }
            let names: Vec<_> = known.iter().map(|key| key.in_dialect(self.dialect)).collect();
            let reason = match nearest(&entry.name, &names) {
                Some(name) => format!("is unknown; did you mean '{name}'?"),
                None => format!("is unknown; known here: {}", names.join(", ")),
            };
            self.problem(Problem::new(entry.at, &path, reason));
        }
    }

    /// Whether a key that is not applied says what holds without it.
    fn asks_for_nothing(&self, entry: &Entry) -> bool {
        match &entry.node.value {
            Tree::Null => true,
            Tree::List(items) => items.is_empty(),
            Tree::Text(text) => self.dialect == Dialect::Stack && text.is_empty(),
            _ => false,
        }
    }

    fn map<'n>(&mut self, path: &Path, node: &'n Node) -> Option<&'n [Entry]> {
        match &node.value {
            Tree::Map(entries) => Some(entries),
            Tree::Null => Some(&[]),
            _ => {
                self.wrong(path, node, "must be a mapping of names to values");
                None
            }
        }
    }

    fn find<'n>(&self, entries: &'n [Entry], key: Key) -> Option<&'n Node> {
        let name = key.in_dialect(self.dialect);
        let entry = entries.iter().find(|entry| entry.name == name);
        entry.map(|entry| &entry.node)
    }

    fn path(&self, path: &Path, key: Key) -> Path {
        path.to(key.in_dialect(self.dialect))
    }

    fn name<T>(&mut self, path: &Path, entry: &Entry, result: Result<T, InvalidInput>) -> Option<T> {
        let at = Node {
            at: entry.at,
            value: Tree::Text(entry.name.clone()),
        };
        self.checked(path, &at, result)
    }

    fn checked<T>(&mut self, path: &Path, node: &Node, result: Result<T, InvalidInput>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(err) => {
                self.wrong(path, node, err.reason());
                None
            }
        }
    }

    fn wrong(&mut self, path: &Path, node: &Node, reason: &str) {
        self.problem(Problem::new(node.at, path, reason).with_value(node.shown()));
    }

    fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }
}

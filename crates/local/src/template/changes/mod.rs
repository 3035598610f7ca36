//! What an update changes: the same template engine run over the old state and the new, compared property by property.
//!
//! It goes through the new resources in the order of their creation. What a change makes uncertain (the physical id of a
//! resource that is replaced, attributes of one that is modified) is unknown to those that come later, whose changes are
//! then [`Dynamic`](Evaluation::Dynamic). So this returns at least all changes that will happen.

mod compare;
mod words;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::bound::Bound;
use super::error::{ErrorKind, TemplateError};
use super::evaluate::Mode;
use super::known::{Known, unknown_causes};
use super::node::Place;
use super::text::same;
use super::walk::{Reference, references};
use compare::{Difference, differences};
pub use words::{Action, Attribute, ChangeSource, Evaluation, Recreation, Replacement};

/// CloudFormation's answer to an update that changes nothing.
pub const NO_UPDATES: &str = "No updates are to be performed.";

/// Facts about resource types.
pub trait Rules {
    /// Whether a resource must be replaced if this property of it changes; `property` is one of the first level.
    fn recreation(&self, resource_type: &str, property: &str) -> Recreation;

    /// Whether an attribute may change when these properties are changed in place.
    fn attribute_may_change(&self, resource_type: &str, attribute: &str, changed: &[String]) -> bool {
        let _ = (resource_type, attribute, changed);
        true
    }
}

/// All that an update changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// Resources: additions and modifications in order of creation, then removals in order of deletion.
    pub resources: Vec<ResourceChange>,
    /// Whether outputs change.
    pub outputs: bool,
}

impl Changes {
    /// Whether nothing changes; an update then ends with [`NO_UPDATES`].
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty() && !self.outputs
    }
}

/// The change of one resource.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceChange {
    /// Added, modified or removed.
    pub action: Action,
    /// Its logical id.
    pub logical_id: String,
    /// Its type.
    pub resource_type: String,
    /// Its current state; nothing if it is added.
    pub physical_id: Option<String>,
    /// Whether a modification replaces it; nothing for other actions.
    pub replacement: Option<Replacement>,
    /// The attributes that a modification touches.
    pub scope: Vec<Attribute>,
    /// The details of a modification.
    pub details: Vec<Detail>,
}

/// One change within a resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Detail {
    /// The attribute of the resource that changes.
    pub attribute: Attribute,
    /// The property of the first level, if it is one.
    pub name: Option<String>,
    /// The places that differ, as JSON pointers such as `/Properties/Tags/0/Value`.
    pub paths: Vec<String>,
    /// Whether the change replaces the resource.
    pub recreation: Recreation,
    /// Whether the new value is known.
    pub evaluation: Evaluation,
    /// Where the change comes from.
    pub source: ChangeSource,
    /// The parameter, resource or attribute that it comes from.
    pub cause: Option<String>,
    /// The value before; those of `NoEcho` parameters are not hidden in it.
    pub before: Option<Value>,
    /// The value after, with what is unknown marked; those of `NoEcho` parameters are not hidden in it.
    pub after: Option<Value>,
}

/// The changes by the creation of a stack: all resources are added.
pub fn additions(new: &Bound) -> Changes {
    let ids = new.order().iter().flatten();
    let resources = ids
        .map(|id| ResourceChange::whole(Action::Add, new, id, None))
        .collect();
    Changes {
        resources,
        outputs: !new.template().outputs().is_empty(),
    }
}

/// Compares what a stack is with what it is to become. `known` is what exists.
///
/// # Errors
///
/// If a resource has another type under the same name, or cannot be evaluated.
pub fn changes(old: &Bound, new: &Bound, known: &Known, rules: &dyn Rules) -> Result<Changes, TemplateError> {
    refuse_other_types(old, new)?;
    let mut update = Update {
        old,
        new,
        known,
        visible: known.clone(),
        rules,
        touched: BTreeSet::new(),
    };
    let mut resources = Vec::new();
    for id in new.order().iter().flatten() {
        if old.exists(id) {
            resources.extend(update.modify(id)?);
        } else {
            resources.push(update.add(id));
        }
    }
    for id in old.order().iter().rev().flatten().filter(|id| !new.exists(id)) {
        resources.push(update.whole(Action::Remove, old, id));
    }
    let outputs = update.outputs()?;
    Ok(Changes { resources, outputs })
}

fn refuse_other_types(old: &Bound, new: &Bound) -> Result<(), TemplateError> {
    let other: Vec<_> = new
        .resources()
        .filter(|(id, _)| old.exists(id) && type_of(old, id) != type_of(new, id))
        .map(|(id, _)| id)
        .collect();
    if other.is_empty() {
        return Ok(());
    }
    Err(TemplateError::new(
        ErrorKind::Format,
        format!(
            "Update of resource type is not permitted. The new template modifies resource type of the following resources: \
             [{}]",
            other.join(", ")
        ),
    ))
}

fn type_of<'b>(bound: &'b Bound, id: &str) -> &'b str {
    bound
        .template()
        .resources()
        .get(id)
        .map_or("", |resource| resource.resource_type())
}

/// An update as far as it was gone through.
struct Update<'a> {
    old: &'a Bound,
    new: &'a Bound,
    known: &'a Known,
    /// The parts that do not change.
    visible: Known,
    rules: &'a dyn Rules,
    /// Resources that are added or modified.
    touched: BTreeSet<String>,
}

impl Update<'_> {
    fn add(&mut self, id: &str) -> ResourceChange {
        self.touched.insert(id.to_owned());
        self.visible.resources.remove(id);
        self.whole(Action::Add, self.new, id)
    }

    fn whole(&self, action: Action, side: &Bound, id: &str) -> ResourceChange {
        let existing = self.known.resources.get(id).filter(|_| action != Action::Add);
        ResourceChange::whole(
            action,
            side,
            id,
            existing.map(|resource| resource.physical_id.clone()),
        )
    }

    fn modify(&mut self, id: &str) -> Result<Option<ResourceChange>, TemplateError> {
        let mut details = self.properties(id)?;
        details.extend(self.metadata(id)?);
        if details.is_empty() {
            return Ok(None);
        }
        // Alone these make no update; they are taken over with the next one.
        details.extend(self.policies(id));
        let replacement = details
            .iter()
            .map(Detail::replacement)
            .max()
            .unwrap_or(Replacement::False);
        self.forget(id, replacement, &details);
        let mut change = self.whole(Action::Modify, self.new, id);
        change.replacement = Some(replacement);
        change.scope = details.iter().map(|detail| detail.attribute).collect();
        change.scope.dedup();
        change.details = details;
        Ok(Some(change))
    }

    fn properties(&self, id: &str) -> Result<Vec<Detail>, TemplateError> {
        let before = members(self.old.preview(id, self.known)?);
        let after = members(self.new.preview(id, &self.visible)?);
        let names = after
            .keys()
            .chain(before.keys().filter(|name| !after.contains_key(*name)));
        let mut details = Vec::new();
        for name in names {
            let (before, after) = (before.get(name), after.get(name));
            let found = differences(before, after, &format!("/Properties/{}", compare::escaped(name)));
            let Some(evaluation) = evaluation_of(&found) else {
                continue;
            };
            let (source, cause) = self.source(id, name, after, evaluation)?;
            details.push(Detail {
                attribute: Attribute::Properties,
                name: Some(name.clone()),
                paths: found.into_iter().map(|difference| difference.path).collect(),
                recreation: self.rules.recreation(type_of(self.new, id), name),
                evaluation,
                source,
                cause,
                before: before.cloned(),
                after: after.cloned(),
            });
        }
        Ok(details)
    }

    fn metadata(&self, id: &str) -> Result<Option<Detail>, TemplateError> {
        let before = self.old.evaluated_metadata(id, self.known, Mode::Preview)?;
        let after = self.new.evaluated_metadata(id, &self.visible, Mode::Preview)?;
        let found = differences(before.as_ref(), after.as_ref(), "/Metadata");
        Ok(evaluation_of(&found).map(|evaluation| Detail {
            evaluation,
            paths: found.into_iter().map(|difference| difference.path).collect(),
            ..Detail::direct(Attribute::Metadata, before, after)
        }))
    }

    fn policies(&self, id: &str) -> Vec<Detail> {
        let (old, new) = (
            self.old.template().resources().get(id),
            self.new.template().resources().get(id),
        );
        let (Some(old), Some(new)) = (old, new) else {
            return Vec::new();
        };
        [
            (
                Attribute::DeletionPolicy,
                old.deletion_policy(),
                new.deletion_policy(),
            ),
            (
                Attribute::UpdateReplacePolicy,
                old.update_replace_policy(),
                new.update_replace_policy(),
            ),
        ]
        .into_iter()
        .filter(|(_, before, after)| before != after)
        .map(|(attribute, before, after)| {
            Detail::direct(
                attribute,
                Some(Value::from(before.as_str())),
                Some(Value::from(after.as_str())),
            )
        })
        .collect()
    }

    /// Takes away what others may not rely on any more.
    fn forget(&mut self, id: &str, replacement: Replacement, details: &[Detail]) {
        self.touched.insert(id.to_owned());
        if replacement != Replacement::False {
            self.visible.resources.remove(id);
            return;
        }
        let changed: Vec<String> = details.iter().filter_map(|detail| detail.name.clone()).collect();
        let kind = type_of(self.new, id);
        if let Some(resource) = self.visible.resources.get_mut(id)
            && !changed.is_empty()
        {
            resource
                .attributes
                .retain(|name, _| !self.rules.attribute_may_change(kind, name, &changed));
        }
    }

    /// Where the change of a property comes from.
    fn source(
        &self,
        id: &str,
        property: &str,
        after: Option<&Value>,
        evaluation: Evaluation,
    ) -> Result<(ChangeSource, Option<String>), TemplateError> {
        let raw = |side: &Bound| {
            side.template()
                .resources()
                .get(id)?
                .raw_properties()?
                .get(property)
                .cloned()
        };
        let (before, written) = (raw(self.old), raw(self.new));
        if evaluation == Evaluation::Dynamic {
            let cause = after.and_then(|after| unknown_causes(after).into_iter().next());
            let attribute = cause.as_ref().is_some_and(|cause| cause.contains('.'));
            let source = if attribute {
                ChangeSource::ResourceAttribute
            } else {
                ChangeSource::ResourceReference
            };
            return Ok((source, cause));
        }
        let mut parameter = None;
        let mut resource = None;
        if let (Some(written), true) = (&written, before == written) {
            references(written, Place::Body, &mut |reference| match reference {
                Reference::Name(name) if self.old.values().get(name) != self.new.values().get(name) => {
                    parameter = parameter.take().or(Some(name.to_owned()));
                }
                Reference::Name(name) if self.touched.contains(name) => {
                    resource = resource
                        .take()
                        .or(Some((ChangeSource::ResourceReference, name.to_owned())));
                }
                Reference::Attribute(name, attribute) if self.touched.contains(name) => {
                    let cause =
                        attribute.map_or_else(|| name.to_owned(), |attribute| format!("{name}.{attribute}"));
                    resource = resource.take().or(Some((ChangeSource::ResourceAttribute, cause)));
                }
                _ => {}
            })?;
        }
        Ok(match (parameter, resource) {
            (Some(name), _) => (ChangeSource::ParameterReference, Some(name)),
            (None, Some((source, cause))) => (source, Some(cause)),
            (None, None) => (ChangeSource::DirectModification, None),
        })
    }

    fn outputs(&self) -> Result<bool, TemplateError> {
        let before = self.old.output_values(self.known, Mode::Preview)?;
        let after = self.new.output_values(&self.visible, Mode::Preview)?;
        if before.len() != after.len() {
            return Ok(true);
        }
        for (name, value) in &after {
            let sides = (
                self.old.template().outputs().get(name),
                self.new.template().outputs().get(name),
            );
            let (Some(was), (Some(old), Some(new))) = (before.get(name), sides) else {
                return Ok(true);
            };
            let exported = self.old.export_name(name, old)? == self.new.export_name(name, new)?;
            if !exported || old.description() != new.description() || !same(was, value) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl ResourceChange {
    fn whole(action: Action, side: &Bound, id: &str, physical_id: Option<String>) -> Self {
        Self {
            action,
            logical_id: id.to_owned(),
            resource_type: type_of(side, id).to_owned(),
            physical_id,
            replacement: None,
            scope: Vec::new(),
            details: Vec::new(),
        }
    }
}

impl Detail {
    fn direct(attribute: Attribute, before: Option<Value>, after: Option<Value>) -> Self {
        Self {
            attribute,
            name: None,
            paths: vec![format!("/{}", attribute.as_str())],
            recreation: Recreation::Never,
            evaluation: Evaluation::Static,
            source: ChangeSource::DirectModification,
            cause: None,
            before,
            after,
        }
    }

    fn replacement(&self) -> Replacement {
        match (self.recreation, self.evaluation) {
            (Recreation::Never, _) => Replacement::False,
            (Recreation::Always, Evaluation::Static) => Replacement::True,
            (Recreation::Always, Evaluation::Dynamic) | (Recreation::Conditionally, _) => {
                Replacement::Conditional
            }
        }
    }
}

/// Static, if a difference is certain; dynamic, if all merely may be; nothing, if there is none.
fn evaluation_of(found: &[Difference]) -> Option<Evaluation> {
    if found.is_empty() {
        None
    } else if found.iter().any(|difference| difference.certain) {
        Some(Evaluation::Static)
    } else {
        Some(Evaluation::Dynamic)
    }
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

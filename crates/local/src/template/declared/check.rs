//! Checks of a template before values are given: every call has its shape, and every name is declared.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::document::Template;
use crate::template::error::{ErrorKind, TemplateError};
use crate::template::graph::{self, Dependencies};
use crate::template::node::{Call, Node, Place};
use crate::template::walk::{Reference, import_depends, references};

/// The names that CloudFormation gives values to.
const PSEUDO_PARAMETERS: [&str; 8] = [
    "AWS::AccountId",
    "AWS::NoValue",
    "AWS::NotificationARNs",
    "AWS::Partition",
    "AWS::Region",
    "AWS::StackId",
    "AWS::StackName",
    "AWS::URLSuffix",
];

/// Puts conditions into an order in which each refers to earlier ones only.
pub(super) fn conditions(
    mut declared: BTreeMap<String, Value>,
) -> Result<Vec<(String, Value)>, TemplateError> {
    let mut graph = Dependencies::new();
    for (name, condition) in &declared {
        boolean(condition)?;
        let mut needs = BTreeSet::new();
        references(condition, Place::Conditions, &mut |reference| {
            if let Reference::Condition(other) = reference {
                needs.insert(other.to_owned());
            }
        })?;
        if let Some(unknown) = needs.iter().find(|need| !declared.contains_key(*need)) {
            return Err(undeclared_condition(unknown, "Conditions"));
        }
        graph.insert(name.clone(), needs);
    }
    let layers = graph::layers(&graph).map_err(|cycle| {
        TemplateError::format(format_args!(
            "Circular dependency between conditions: [{}]",
            cycle.join(", ")
        ))
    })?;
    Ok(layers
        .into_iter()
        .flatten()
        .filter_map(|name| declared.remove_entry(&name))
        .collect())
}

/// Refuses a condition that is not a boolean function all the way down to its comparisons.
fn boolean(condition: &Value) -> Result<(), TemplateError> {
    match Node::of(condition, Place::Conditions)? {
        Node::Call(Call::Condition(_) | Call::Equals(..)) => Ok(()),
        Node::Call(Call::Not(one)) => boolean(one),
        Node::Call(Call::And(parts) | Call::Or(parts)) => parts.iter().try_for_each(boolean),
        _ => Err(TemplateError::format(
            "Conditions can only be boolean operations on parameters and other conditions",
        )),
    }
}

/// Checks all names of a template whose sections have their shapes.
pub(super) fn template(template: &Template) -> Result<(), TemplateError> {
    if let Some(name) = template
        .parameters()
        .keys()
        .find(|name| template.resources().contains_key(*name))
    {
        return Err(TemplateError::format(format_args!(
            "{name} is the name of a parameter and of a resource"
        )));
    }
    conditions_refer_to_parameters(template)?;
    let mut resources = Block::new(template, "Resources");
    for resource in template.resources().values() {
        resources.condition(resource.condition())?;
        for name in resource.depends_on() {
            if !template.resources().contains_key(name) {
                resources.unresolved.insert(name.clone());
            }
        }
        for value in [resource.raw_properties(), resource.metadata()]
            .into_iter()
            .flatten()
        {
            resources.value(value)?;
        }
    }
    resources.end()?;
    let mut outputs = Block::new(template, "Outputs");
    for (name, output) in template.outputs() {
        outputs.condition(output.condition())?;
        outputs.value(output.raw_value())?;
        if let Some(export) = output.raw_export_name() {
            outputs.value(export)?;
            export_name(template, name, export)?;
        }
    }
    outputs.end()
}

fn conditions_refer_to_parameters(template: &Template) -> Result<(), TemplateError> {
    let mut unresolved = BTreeSet::new();
    for (_, condition) in template.conditions() {
        let mut mapping = None;
        references(condition, Place::Conditions, &mut |reference| match reference {
            Reference::Name(name) if !is_value(template, name) => drop(unresolved.insert(name)),
            Reference::Attribute(name, _) => drop(unresolved.insert(name)),
            Reference::Mapping(name) if template.mapping(name).is_none() => mapping = Some(name),
            _ => {}
        })?;
        if let Some(name) = mapping {
            return Err(undeclared_mapping(name));
        }
    }
    if unresolved.is_empty() {
        return Ok(());
    }
    Err(TemplateError::format(format_args!(
        "Unresolved dependencies [{}]. Cannot reference resources in the Conditions block of the template",
        join(unresolved)
    )))
}

/// Whether a name has a value before anything is created.
fn is_value(template: &Template, name: &str) -> bool {
    template.parameters().contains_key(name) || PSEUDO_PARAMETERS.contains(&name)
}

fn export_name(template: &Template, output: &str, name: &Value) -> Result<(), TemplateError> {
    let mut depends = false;
    references(name, Place::Body, &mut |reference| match reference {
        Reference::Name(name) => depends |= !is_value(template, name),
        Reference::Attribute(..) | Reference::Import => depends = true,
        _ => {}
    })?;
    if depends {
        return Err(TemplateError::format(format_args!(
            "Output {output} is malformed.  The Name field of Export must not depend on any resources, imported values, or \
             Fn::GetAZs."
        )));
    }
    Ok(())
}

/// Names in one block of the template. Unknown ones are reported together.
struct Block<'t> {
    template: &'t Template,
    name: &'static str,
    conditions: BTreeSet<&'t str>,
    unresolved: BTreeSet<String>,
}

impl<'t> Block<'t> {
    fn new(template: &'t Template, name: &'static str) -> Self {
        let conditions = template
            .conditions()
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        Self {
            template,
            name,
            conditions,
            unresolved: BTreeSet::new(),
        }
    }

    fn condition(&self, name: Option<&str>) -> Result<(), TemplateError> {
        match name {
            Some(name) if !self.conditions.contains(name) => Err(undeclared_condition(name, self.name)),
            _ => Ok(()),
        }
    }

    fn value(&mut self, value: &Value) -> Result<(), TemplateError> {
        let mut wrong = None;
        let mut unresolved = BTreeSet::new();
        let resources = self.template.resources();
        references(value, Place::Body, &mut |reference| {
            let error = match reference {
                Reference::Name(name) => {
                    if !is_value(self.template, name) && !resources.contains_key(name) {
                        unresolved.insert(name.to_owned());
                    }
                    None
                }
                Reference::Attribute(name, _) if !resources.contains_key(name) => {
                    Some(TemplateError::function(format_args!(
                        "instance of Fn::GetAtt references undefined resource {name}"
                    )))
                }
                Reference::If(name) if !self.conditions.contains(name) => Some(TemplateError::function(
                    format_args!("unresolved condition dependency {name} in Fn::If"),
                )),
                Reference::Mapping(name) if self.template.mapping(name).is_none() => {
                    Some(undeclared_mapping(name))
                }
                Reference::ImportName(name) if resources.contains_key(name) => Some(import_depends()),
                _ => None,
            };
            wrong = wrong.take().or(error);
        })?;
        self.unresolved.append(&mut unresolved);
        wrong.map_or(Ok(()), Err)
    }

    fn end(self) -> Result<(), TemplateError> {
        if self.unresolved.is_empty() {
            Ok(())
        } else {
            Err(unresolved_resources(self.unresolved, self.name))
        }
    }
}

/// The error for names that do not exist, or not under the conditions that hold.
pub(in crate::template) fn unresolved_resources(
    names: impl IntoIterator<Item = String>,
    block: &str,
) -> TemplateError {
    TemplateError::format(format_args!(
        "Unresolved resource dependencies [{}] in the {block} block of the template",
        names.into_iter().collect::<Vec<_>>().join(", ")
    ))
}

fn undeclared_condition(name: &str, block: &str) -> TemplateError {
    TemplateError::format(format_args!(
        "Unresolved condition dependency {name} in the {block} block of the template"
    ))
}

pub(in crate::template) fn undeclared_mapping(name: &str) -> TemplateError {
    TemplateError::new(
        ErrorKind::Format,
        format!(
            "Template error: Mapping named '{name}' is not present in the 'Mappings' section of template."
        ),
    )
}

fn join(names: BTreeSet<&str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}

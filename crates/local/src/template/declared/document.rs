//! A template: its sections, as `sections` read and checked them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::parameter::Parameter;
use super::resource::{Output, Resource};
use crate::template::node::Place;
use crate::template::walk::{Reference, references};

/// A template that makes sense in itself.
#[derive(Debug, Clone)]
pub struct Template {
    pub(super) tree: Value,
    pub(super) description: Option<String>,
    pub(super) parameters: BTreeMap<String, Parameter>,
    pub(super) mappings: Map<String, Value>,
    /// In an order in which each refers to earlier ones only.
    pub(super) conditions: Vec<(String, Value)>,
    pub(super) resources: BTreeMap<String, Resource>,
    pub(super) outputs: BTreeMap<String, Output>,
}

impl Template {
    /// The whole tree, with functions in long form.
    pub fn tree(&self) -> &Value {
        &self.tree
    }

    /// The description of the stack.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// The section `Metadata`, which nothing is done with.
    pub fn metadata(&self) -> Option<&Value> {
        self.tree.get("Metadata")
    }

    /// The declared parameters.
    pub fn parameters(&self) -> &BTreeMap<String, Parameter> {
        &self.parameters
    }

    /// The declared resources, whether their conditions hold or not.
    pub fn resources(&self) -> &BTreeMap<String, Resource> {
        &self.resources
    }

    /// The types of the declared resources, sorted, each once.
    pub fn resource_types(&self) -> Vec<&str> {
        self.resources
            .values()
            .map(Resource::resource_type)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// The resources of which attributes are read by name, with the attributes.
    pub fn attributes_read(&self) -> BTreeSet<(&str, &str)> {
        let resources = self
            .resources
            .values()
            .flat_map(|resource| [resource.raw_properties(), resource.metadata()])
            .flatten();
        let outputs = self.outputs.values().map(Output::raw_value);
        let mut read = BTreeSet::new();
        for value in resources.chain(outputs) {
            // The shapes of calls were checked when the template was read.
            let _ = references(value, Place::Body, &mut |reference| {
                if let Reference::Attribute(resource, Some(attribute)) = reference {
                    read.insert((resource, attribute));
                }
            });
        }
        read
    }

    /// The declared outputs, whether their conditions hold or not.
    pub fn outputs(&self) -> &BTreeMap<String, Output> {
        &self.outputs
    }

    pub(in crate::template) fn conditions(&self) -> &[(String, Value)] {
        &self.conditions
    }

    pub(in crate::template) fn mapping(&self, name: &str) -> Option<&Value> {
        self.mappings.get(name)
    }
}

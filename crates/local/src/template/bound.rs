//! A template with values: which resources exist, in what order they are made, and what their properties are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::declared::{Output, Resource, Template};
use super::error::{ErrorKind, TemplateError};
use super::evaluate::{Mode, Scope};
use super::graph::{self, Dependencies};
use super::known::{Known, is_unknown};
use super::node::{Call, Node, Place};
use super::pseudo::Pseudo;
use super::text;
use super::values::ParameterValues;
use super::walk::{Reference, references};

/// A template whose parameters and conditions have values.
#[derive(Debug, Clone)]
pub struct Bound {
    template: Arc<Template>,
    values: ParameterValues,
    pseudo: Pseudo,
    conditions: BTreeMap<String, bool>,
    dependencies: Dependencies,
    order: Vec<Vec<String>>,
}

/// The value of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputValue {
    /// The output's name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Its value.
    pub description: Option<String>,
    /// The name that other stacks import it by.
    pub export_name: Option<String>,
}

impl Template {
    /// Gives values to a template.
    ///
    /// # Errors
    ///
    /// If under these values something refers to a resource that does not exist, resources depend on each other in a
    /// circle, two outputs are exported under one name, or a function has arguments that it cannot take.
    pub fn bind(self: &Arc<Self>, values: ParameterValues, pseudo: Pseudo) -> Result<Bound, TemplateError> {
        let mut bound = Bound {
            template: Arc::clone(self),
            values,
            pseudo,
            conditions: BTreeMap::new(),
            dependencies: Dependencies::new(),
            order: Vec::new(),
        };
        let nothing = Known::default();
        for (name, condition) in self.conditions() {
            let holds = bound
                .scope(&nothing, Mode::Final, "Conditions")
                .holds(condition)?;
            bound.conditions.insert(name.clone(), holds);
        }
        bound.dependencies = bound.all_dependencies()?;
        bound.order = graph::layers(&bound.dependencies).map_err(|cycle| {
            TemplateError::new(
                ErrorKind::Format,
                format!("Circular dependency between resources: [{}]", cycle.join(", ")),
            )
        })?;
        // Nothing is known yet, so this finds what is wrong whatever will be.
        for (id, _) in bound.resources() {
            bound.preview(id, &nothing)?;
            bound.evaluated_metadata(id, &nothing, Mode::Preview)?;
        }
        bound.output_values(&nothing, Mode::Preview)?;
        bound.check_exports()?;
        Ok(bound)
    }
}

impl Bound {
    /// The template.
    pub fn template(&self) -> &Arc<Template> {
        &self.template
    }

    /// The values of its parameters.
    pub fn values(&self) -> &ParameterValues {
        &self.values
    }

    /// The values of pseudo parameters.
    pub fn pseudo(&self) -> &Pseudo {
        &self.pseudo
    }

    /// Whether a condition holds; nothing if it is not declared.
    pub fn condition(&self, name: &str) -> Option<bool> {
        self.conditions.get(name).copied()
    }

    /// Whether a resource is declared and its condition holds.
    pub fn exists(&self, id: &str) -> bool {
        self.template
            .resources()
            .get(id)
            .is_some_and(|resource| self.applies(resource.condition()))
    }

    fn applies(&self, condition: Option<&str>) -> bool {
        condition.is_none_or(|name| self.condition(name) == Some(true))
    }

    /// The resources that exist, sorted by their ids.
    pub fn resources(&self) -> impl Iterator<Item = (&str, &Resource)> {
        let all = self.template.resources().iter();
        all.filter(|(_, resource)| self.applies(resource.condition()))
            .map(|(id, resource)| (id.as_str(), resource))
    }

    /// The existing resources that one depends on, by a reference or by `DependsOn`. References in a branch of `Fn::If`
    /// that is not taken count too.
    pub fn dependencies(&self, id: &str) -> BTreeSet<String> {
        self.dependencies.get(id).cloned().unwrap_or_default()
    }

    /// The existing resources in groups that are created one after another. Members of a group do not depend on each other.
    pub fn order(&self) -> &[Vec<String>] {
        &self.order
    }

    /// The properties of a resource, all of whose references are known.
    ///
    /// # Errors
    ///
    /// If the resource does not exist, or something that it refers to is not there.
    pub fn properties(&self, id: &str, known: &Known) -> Result<Value, TemplateError> {
        self.evaluated_properties(id, known, Mode::Final)
    }

    /// The properties of a resource as far as they are known; see [`is_unknown`](super::is_unknown).
    ///
    /// # Errors
    ///
    /// If the resource does not exist, or it can never be evaluated.
    pub fn preview(&self, id: &str, known: &Known) -> Result<Value, TemplateError> {
        self.evaluated_properties(id, known, Mode::Preview)
    }

    /// The metadata of a resource, all of whose references are known.
    ///
    /// # Errors
    ///
    /// As for [`properties`](Self::properties).
    pub fn metadata(&self, id: &str, known: &Known) -> Result<Option<Value>, TemplateError> {
        self.evaluated_metadata(id, known, Mode::Final)
    }

    /// The outputs whose conditions hold.
    ///
    /// # Errors
    ///
    /// If something that an output refers to is not there, or an exported value is empty.
    pub fn outputs(&self, known: &Known) -> Result<Vec<OutputValue>, TemplateError> {
        let mut outputs = Vec::new();
        for (name, value) in self.output_values(known, Mode::Final)? {
            let Some(output) = self.template.outputs().get(&name) else {
                continue;
            };
            let export_name = self.export_name(&name, output)?;
            let value = text::scalar(&value).ok_or_else(output_is_no_text)?;
            if export_name.is_some() && value.trim().is_empty() {
                return Err(TemplateError::unresolved(format!(
                    "Cannot export output {name}. Exported values must not be empty or whitespace-only."
                )));
            }
            let description = output.description().map(str::to_owned);
            outputs.push(OutputValue {
                name,
                value,
                description,
                export_name,
            });
        }
        Ok(outputs)
    }

    /// The names of the exports that its resources and outputs import.
    ///
    /// # Errors
    ///
    /// If a name cannot be evaluated.
    pub fn imports(&self) -> Result<BTreeSet<String>, TemplateError> {
        let nothing = Known::default();
        let mut names = BTreeSet::new();
        let scope = self.scope(&nothing, Mode::Preview, "Resources");
        for value in self
            .resources()
            .filter_map(|(_, resource)| resource.raw_properties())
        {
            self.imported(value, &scope, &mut names)?;
        }
        for output in self
            .template
            .outputs()
            .values()
            .filter(|output| self.applies(output.condition()))
        {
            self.imported(output.raw_value(), &scope, &mut names)?;
        }
        Ok(names)
    }

    /// Collects the imports of `value` in branches that are taken.
    fn imported(
        &self,
        value: &Value,
        scope: &Scope<'_>,
        names: &mut BTreeSet<String>,
    ) -> Result<(), TemplateError> {
        match Node::of(value, Place::Body)? {
            Node::Call(Call::ImportValue(name)) => {
                names.insert(scope.import_name(name)?);
                Ok(())
            }
            Node::Call(Call::If(condition, holds, fails)) => self.imported(
                if self.applies(Some(condition)) {
                    holds
                } else {
                    fails
                },
                scope,
                names,
            ),
            _ => match value {
                Value::Array(items) => items
                    .iter()
                    .try_for_each(|item| self.imported(item, scope, names)),
                Value::Object(map) => map
                    .values()
                    .try_for_each(|item| self.imported(item, scope, names)),
                _ => Ok(()),
            },
        }
    }

    fn scope<'a>(&'a self, known: &'a Known, mode: Mode, block: &'static str) -> Scope<'a> {
        Scope {
            template: &self.template,
            values: &self.values,
            pseudo: &self.pseudo,
            conditions: &self.conditions,
            known,
            mode,
            block,
        }
    }

    fn existing(&self, id: &str) -> Result<&Resource, TemplateError> {
        self.template
            .resources()
            .get(id)
            .filter(|resource| self.applies(resource.condition()))
            .ok_or_else(|| {
                TemplateError::unresolved(format!(
                    "Resource {id} does not exist in stack {}",
                    self.pseudo.stack_name
                ))
            })
    }

    fn evaluated_properties(&self, id: &str, known: &Known, mode: Mode) -> Result<Value, TemplateError> {
        let Some(raw) = self.existing(id)?.raw_properties() else {
            return Ok(Value::Object(Map::new()));
        };
        match self.scope(known, mode, "Resources").value(raw)? {
            Some(value @ Value::Object(_)) => Ok(value),
            _ => Err(TemplateError::format(format_args!(
                "[/Resources/{id}/Properties] must be an object"
            ))),
        }
    }

    pub(super) fn evaluated_metadata(
        &self,
        id: &str,
        known: &Known,
        mode: Mode,
    ) -> Result<Option<Value>, TemplateError> {
        match self.existing(id)?.metadata() {
            Some(raw) => self.scope(known, mode, "Resources").value(raw),
            None => Ok(None),
        }
    }

    /// The values of the outputs whose conditions hold; with [`Mode::Preview`], marked where they are not known.
    pub(super) fn output_values(
        &self,
        known: &Known,
        mode: Mode,
    ) -> Result<BTreeMap<String, Value>, TemplateError> {
        let mut values = BTreeMap::new();
        for (name, output) in self
            .template
            .outputs()
            .iter()
            .filter(|(_, output)| self.applies(output.condition()))
        {
            let value = self.scope(known, mode, "Outputs").value(output.raw_value())?;
            let value = value.filter(|value| is_unknown(value) || text::scalar(value).is_some());
            values.insert(name.clone(), value.ok_or_else(output_is_no_text)?);
        }
        Ok(values)
    }

    /// The name that an output is exported under.
    pub(super) fn export_name(&self, name: &str, output: &Output) -> Result<Option<String>, TemplateError> {
        let Some(raw) = output.raw_export_name() else {
            return Ok(None);
        };
        let value = self.scope(&Known::default(), Mode::Final, "Outputs").value(raw)?;
        value
            .as_ref()
            .and_then(text::scalar)
            .filter(|export| {
                (1..=255).contains(&export.len())
                    && export.chars().all(|c| c.is_ascii_alphanumeric() || c == ':' || c == '-')
            })
            .map(Some)
            .ok_or_else(|| {
                TemplateError::format(format_args!(
                    "Output {name} is malformed. The Name field of every Export member must be specified and consist only \
                     of alphanumeric characters, colons, or hyphens."
                ))
            })
    }

    fn check_exports(&self) -> Result<(), TemplateError> {
        let mut exports: BTreeMap<String, &str> = BTreeMap::new();
        for (name, output) in self
            .template
            .outputs()
            .iter()
            .filter(|(_, output)| self.applies(output.condition()))
        {
            let Some(export) = self.export_name(name, output)? else {
                continue;
            };
            if let Some(other) = exports.insert(export.clone(), name) {
                return Err(TemplateError::format(format_args!(
                    "Duplicate Export names. Outputs {other} and {name} are both exported as {export}."
                )));
            }
        }
        Ok(())
    }

    fn all_dependencies(&self) -> Result<Dependencies, TemplateError> {
        let mut all = Dependencies::new();
        for (id, resource) in self.resources() {
            let mut needs: BTreeSet<String> = resource.depends_on().iter().cloned().collect();
            for value in [resource.raw_properties(), resource.metadata()]
                .into_iter()
                .flatten()
            {
                references(value, Place::Body, &mut |reference| {
                    if let Reference::Name(name) | Reference::Attribute(name, _) = reference {
                        needs.insert(name.to_owned());
                    }
                })?;
            }
            needs.retain(|need| self.exists(need));
            all.insert(id.to_owned(), needs);
        }
        Ok(all)
    }
}

fn output_is_no_text() -> TemplateError {
    TemplateError::format("The Value field of every Outputs member must evaluate to a String.")
}

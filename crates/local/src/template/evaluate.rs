//! Evaluates values: calls are replaced by what they give.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::declared::{Template, undeclared_mapping, unresolved_resources};
use super::error::TemplateError;
use super::known::{Known, KnownResource, is_unknown, unknown, unknown_causes};
use super::node::{Call, Node, Piece, Place, pieces};
use super::pseudo::Pseudo;
use super::text;
use super::values::ParameterValues;

/// Whether everything that is referred to must be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It must.
    Final,
    /// Unknown values are marked.
    Preview,
}

/// All that a value may refer to.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) template: &'a Template,
    pub(super) values: &'a ParameterValues,
    pub(super) pseudo: &'a Pseudo,
    pub(super) conditions: &'a BTreeMap<String, bool>,
    pub(super) known: &'a Known,
    pub(super) mode: Mode,
    /// The block of the template that is named in errors.
    pub(super) block: &'static str,
}

/// A text that may not be known yet.
enum Text {
    Known(String),
    Unknown(BTreeSet<String>),
}

impl Text {
    fn into_value(self) -> Value {
        match self {
            Self::Known(text) => Value::String(text),
            Self::Unknown(causes) => unknown(causes),
        }
    }
}

impl Scope<'_> {
    /// Evaluates `value`; nothing if the result is `AWS::NoValue`.
    pub(super) fn value(&self, value: &Value) -> Result<Option<Value>, TemplateError> {
        Ok(Some(match Node::of(value, self.place())? {
            Node::Scalar(scalar) => scalar.clone(),
            Node::List(items) => Value::Array(self.list(items)?),
            Node::Map(map) => {
                let mut evaluated = Map::new();
                for (key, item) in map {
                    if let Some(item) = self.value(item)? {
                        evaluated.insert(key.clone(), item);
                    }
                }
                Value::Object(evaluated)
            }
            Node::Call(call) => return self.call(&call),
        }))
    }

    /// Whether a condition holds.
    pub(super) fn holds(&self, condition: &Value) -> Result<bool, TemplateError> {
        let Node::Call(call) = Node::of(condition, Place::Conditions)? else {
            return Err(not_boolean());
        };
        match call {
            Call::Condition(name) => self.condition(name),
            Call::Equals(left, right) => {
                let nothing = Value::Null;
                let (left, right) = (self.value(left)?, self.value(right)?);
                Ok(text::same(
                    left.as_ref().unwrap_or(&nothing),
                    right.as_ref().unwrap_or(&nothing),
                ))
            }
            Call::Not(one) => Ok(!self.holds(one)?),
            // All of them, so that a mistake is found wherever it is.
            Call::And(all) => all
                .iter()
                .try_fold(true, |so_far, one| Ok(self.holds(one)? && so_far)),
            Call::Or(any) => any
                .iter()
                .try_fold(false, |so_far, one| Ok(self.holds(one)? || so_far)),
            _ => Err(not_boolean()),
        }
    }

    fn place(&self) -> Place {
        if self.block == "Conditions" {
            Place::Conditions
        } else {
            Place::Body
        }
    }

    fn condition(&self, name: &str) -> Result<bool, TemplateError> {
        self.conditions.get(name).copied().ok_or_else(|| {
            TemplateError::function(format_args!(
                "unresolved condition dependency {name} in {}",
                self.block
            ))
        })
    }

    fn list(&self, items: &[Value]) -> Result<Vec<Value>, TemplateError> {
        items
            .iter()
            .filter_map(|item| self.value(item).transpose())
            .collect()
    }

    fn call(&self, call: &Call<'_>) -> Result<Option<Value>, TemplateError> {
        Ok(Some(match call {
            Call::Ref(name) => return self.reference(name),
            Call::GetAtt(resource, attribute) => match self.text(attribute, "the attribute of Fn::GetAtt")? {
                Text::Known(attribute) => self.attribute(resource, &attribute)?,
                Text::Unknown(causes) => unknown(causes),
            },
            Call::Sub(text, variables) => self.substitute(text, *variables)?.into_value(),
            Call::Join(delimiter, list) => self.join(delimiter, list)?,
            Call::Select(index, list) => return self.select(index, list),
            Call::Split(delimiter, text) => match self.text(text, "the second value of Fn::Split")? {
                Text::Known(text) => text.split(delimiter).map(Value::from).collect(),
                Text::Unknown(causes) => unknown(causes),
            },
            Call::If(condition, holds, fails) => {
                return self.value(if self.condition(condition)? { holds } else { fails });
            }
            Call::FindInMap(keys) => self.find_in_map(*keys)?,
            Call::ImportValue(name) => self.import(name)?,
            Call::Condition(_) | Call::Equals(..) | Call::And(_) | Call::Or(_) | Call::Not(_) => {
                return Err(TemplateError::format(
                    "a boolean function stands where a value is wanted",
                ));
            }
        }))
    }

    /// A value that must be a text, or a scalar that is taken for one. `what` is for the error.
    fn text(&self, value: &Value, what: &str) -> Result<Text, TemplateError> {
        match self.value(value)? {
            Some(value) if is_unknown(&value) => Ok(Text::Unknown(unknown_causes(&value))),
            Some(value) => match text::scalar(&value) {
                Some(text) => Ok(Text::Known(text)),
                None => Err(TemplateError::function(format_args!("{what} must be a string"))),
            },
            None => Err(TemplateError::function(format_args!(
                "{what} must be a string, not AWS::NoValue"
            ))),
        }
    }

    fn reference(&self, name: &str) -> Result<Option<Value>, TemplateError> {
        if name == "AWS::NoValue" {
            return Ok(None);
        }
        if let Some(value) = self.pseudo.get(name) {
            return Ok(Some(value));
        }
        if let (Some(parameter), Some(value)) = (self.template.parameters().get(name), self.values.get(name))
        {
            return Ok(Some(if parameter.kind().is_list() {
                parameter.elements(value).into_iter().map(Value::from).collect()
            } else {
                Value::from(value)
            }));
        }
        match self.resource(name)? {
            Some(resource) => Ok(Some(Value::from(resource.physical_id.as_str()))),
            None => self.not_yet(name.to_owned()).map(Some),
        }
    }

    /// A resource of the stack, if it is known.
    fn resource(&self, id: &str) -> Result<Option<&KnownResource>, TemplateError> {
        let exists = match self.template.resources().get(id) {
            Some(resource) => resource
                .condition()
                .map_or(Ok(true), |name| self.condition(name))?,
            None => false,
        };
        if exists {
            Ok(self.known.resources.get(id))
        } else {
            Err(unresolved_resources([id.to_owned()], self.block))
        }
    }

    fn attribute(&self, id: &str, attribute: &str) -> Result<Value, TemplateError> {
        let Some(resource) = self.resource(id)? else {
            return self.not_yet(format!("{id}.{attribute}"));
        };
        match resource.attributes.get(attribute) {
            Some(value) => Ok(value.clone()),
            None if self.mode == Mode::Preview => self.not_yet(format!("{id}.{attribute}")),
            None => {
                let declared = self.template.resources().get(id);
                let custom = declared.is_some_and(|resource| {
                    resource.resource_type().starts_with("Custom::")
                        || resource.resource_type() == "AWS::CloudFormation::CustomResource"
                });
                Err(TemplateError::unresolved(if custom {
                    format!(
                        "CustomResource attribute error: Vendor response doesn't contain {attribute} attribute in object {id}"
                    )
                } else {
                    format!(
                        "Template error: resource {id} does not support attribute type {attribute} in Fn::GetAtt"
                    )
                }))
            }
        }
    }

    fn not_yet(&self, cause: String) -> Result<Value, TemplateError> {
        match self.mode {
            Mode::Preview => Ok(unknown(BTreeSet::from([cause]))),
            Mode::Final => Err(TemplateError::unresolved(format!(
                "Template error: {cause} is not known yet"
            ))),
        }
    }

    fn substitute(&self, text: &str, variables: Option<&Map<String, Value>>) -> Result<Text, TemplateError> {
        let mut made = String::new();
        let mut missing = BTreeSet::new();
        for piece in pieces(text)? {
            let name = match piece {
                Piece::Literal(literal) => {
                    made.push_str(literal);
                    continue;
                }
                Piece::Escaped(literal) => {
                    made.push_str("${");
                    made.push_str(literal);
                    made.push('}');
                    continue;
                }
                Piece::Variable(name) => name,
            };
            let value = match (variables.and_then(|own| own.get(name)), name.split_once('.')) {
                (Some(own), _) => self.value(own)?,
                (None, Some((resource, attribute))) => Some(self.attribute(resource, attribute)?),
                (None, None) => self.reference(name)?,
            };
            match value {
                Some(value) if is_unknown(&value) => missing.append(&mut unknown_causes(&value)),
                Some(value) => match text::scalar(&value) {
                    Some(text) => made.push_str(&text),
                    None => {
                        return Err(TemplateError::function(format_args!(
                            "Fn::Sub expression does not resolve to a string: {name} is a list or an object"
                        )));
                    }
                },
                None => {
                    return Err(TemplateError::function(format_args!(
                        "Fn::Sub cannot replace {name} by AWS::NoValue"
                    )));
                }
            }
        }
        Ok(if missing.is_empty() {
            Text::Known(made)
        } else {
            Text::Unknown(missing)
        })
    }

    fn join(&self, delimiter: &str, list: &Value) -> Result<Value, TemplateError> {
        let list = match self.value(list)? {
            Some(Value::Array(items)) => items,
            Some(value) if is_unknown(&value) => return Ok(value),
            _ => {
                return Err(TemplateError::function(
                    "the second value of Fn::Join must be a list of strings",
                ));
            }
        };
        let mut texts = Vec::with_capacity(list.len());
        let mut missing = BTreeSet::new();
        for item in &list {
            if is_unknown(item) {
                missing.append(&mut unknown_causes(item));
            } else {
                texts.push(text::scalar(item).ok_or_else(|| {
                    TemplateError::function("every element of the list of Fn::Join must be a string")
                })?);
            }
        }
        Ok(if missing.is_empty() {
            Value::String(texts.join(delimiter))
        } else {
            unknown(missing)
        })
    }

    fn select(&self, index: &Value, list: &Value) -> Result<Option<Value>, TemplateError> {
        let index = match self.text(index, "the index of Fn::Select")? {
            Text::Known(index) => index,
            Text::Unknown(causes) => return Ok(Some(unknown(causes))),
        };
        let list = match self.value(list)? {
            Some(Value::Array(items)) => items,
            Some(value) if is_unknown(&value) => return Ok(Some(value)),
            _ => {
                return Err(TemplateError::function(
                    "Fn::Select requires a list argument with two elements: an integer index and a list",
                ));
            }
        };
        let found = index
            .parse::<usize>()
            .ok()
            .and_then(|index| list.into_iter().nth(index));
        found.map(Some).ok_or_else(|| {
            TemplateError::unresolved(format!(
                "Template error: Fn::Select cannot select nonexistent value at index {index}"
            ))
        })
    }

    fn find_in_map(&self, keys: [&Value; 3]) -> Result<Value, TemplateError> {
        let mut texts = Vec::with_capacity(keys.len());
        for key in keys {
            match self.text(key, "every value of Fn::FindInMap")? {
                Text::Known(text) => texts.push(text),
                Text::Unknown(_) => {
                    return Err(TemplateError::function(
                        "Fn::FindInMap must not depend on any resources or imported values",
                    ));
                }
            }
        }
        let [name, top, second] = texts.as_slice() else {
            return Err(TemplateError::function(
                "every Fn::FindInMap object requires three parameters",
            ));
        };
        let mapping = self
            .template
            .mapping(name)
            .ok_or_else(|| undeclared_mapping(name))?;
        mapping
            .get(top)
            .and_then(|attributes| attributes.get(second))
            .cloned()
            .ok_or_else(|| {
                TemplateError::function(format_args!("Unable to get mapping for {name}::{top}::{second}"))
            })
    }

    /// The name that an import asks for.
    pub(super) fn import_name(&self, name: &Value) -> Result<String, TemplateError> {
        match self.text(name, "the attribute in Fn::ImportValue")? {
            Text::Known(name) => Ok(name),
            Text::Unknown(_) => Err(super::walk::import_depends()),
        }
    }

    fn import(&self, name: &Value) -> Result<Value, TemplateError> {
        let name = self.import_name(name)?;
        match self.known.exports.get(&name) {
            Some(value) => Ok(Value::from(value.as_str())),
            None if self.mode == Mode::Preview => {
                Ok(unknown(BTreeSet::from([format!("Fn::ImportValue {name}")])))
            }
            None => Err(TemplateError::unresolved(format!("No export named {name} found"))),
        }
    }
}

fn not_boolean() -> TemplateError {
    TemplateError::format("Conditions can only be boolean operations on parameters and other conditions")
}

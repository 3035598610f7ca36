//! From a text to a template: its sections, read and checked as far as they do not depend on values of parameters.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::check;
use super::document::Template;
use super::parameter::Parameter;
use super::resource::{Output, Resource};
use crate::template::error::{ErrorKind, TemplateError};
use crate::template::{read, text};

impl Template {
    /// How many bytes a template may have that comes in a request.
    pub const BODY_LIMIT: usize = 51_200;
    /// How many bytes a template may have that lies in S3.
    pub const STORED_LIMIT: usize = 1_000_000;

    /// Reads a template that came in a request, as JSON or YAML.
    ///
    /// # Errors
    ///
    /// If the text is too long or not well-formed, a section does not have its shape, a name is not declared, or
    /// something is asked for that is not supported.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.is_empty() || text.len() > Self::BODY_LIMIT {
            let (bound, limit) = if text.is_empty() {
                ("greater", 1)
            } else {
                ("less", Self::BODY_LIMIT)
            };
            return Err(TemplateError::new(
                ErrorKind::Format,
                format!(
                    "1 validation error detected: Value at 'templateBody' failed to satisfy constraint: Member must have \
                     length {bound} than or equal to {limit}"
                ),
            ));
        }
        Self::read(text)
    }

    /// Reads a template that lies in S3.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse), with the higher limit.
    pub fn parse_stored(text: &str) -> Result<Self, TemplateError> {
        if text.len() > Self::STORED_LIMIT {
            return Err(TemplateError::new(
                ErrorKind::Format,
                format!("Template may not exceed {} bytes in size.", Self::STORED_LIMIT),
            ));
        }
        Self::read(text)
    }

    fn read(text: &str) -> Result<Self, TemplateError> {
        let tree = read::tree(text)?;
        let mut sections = Sections::of(&tree)?;
        let template = Self {
            description: sections.description()?,
            parameters: sections.members("Parameters", "Parameter", 200, Parameter::read)?,
            mappings: sections.mappings()?,
            conditions: check::conditions(sections.members(
                "Conditions",
                "Condition",
                usize::MAX,
                |_, value| Ok(value.clone()),
            )?)?,
            resources: sections.members("Resources", "Resource", 500, Resource::read)?,
            outputs: sections.members("Outputs", "Output", 200, Output::read)?,
            tree,
        };
        check::template(&template)?;
        Ok(template)
    }
}

/// The sections of a template's tree.
struct Sections<'t> {
    tree: &'t Map<String, Value>,
}

impl<'t> Sections<'t> {
    fn of(tree: &'t Value) -> Result<Self, TemplateError> {
        let Value::Object(tree) = tree else {
            return Err(TemplateError::format("unsupported structure"));
        };
        let mut unknown = Vec::new();
        for key in tree.keys() {
            match key.as_str() {
                "AWSTemplateFormatVersion"
                | "Description"
                | "Metadata"
                | "Parameters"
                | "Mappings"
                | "Conditions"
                | "Resources"
                | "Outputs" => {}
                "Transform" | "Rules" | "Hooks" => {
                    return Err(TemplateError::unsupported(format_args!("section {key}")));
                }
                _ => unknown.push(key.as_str()),
            }
        }
        if !unknown.is_empty() {
            return Err(TemplateError::new(
                ErrorKind::Format,
                format!("Invalid template property or properties [{}]", unknown.join(", ")),
            ));
        }
        match tree.get("AWSTemplateFormatVersion").map(text::scalar) {
            None => {}
            Some(Some(version)) if version == "2010-09-09" => {}
            Some(_) => {
                return Err(TemplateError::format(
                    "unsupported value for AWSTemplateFormatVersion: 2010-09-09 is the one",
                ));
            }
        }
        if tree.get("Metadata").is_some_and(|metadata| !metadata.is_object()) {
            return Err(TemplateError::format("[/Metadata] must be an object"));
        }
        Ok(Self { tree })
    }

    fn description(&self) -> Result<Option<String>, TemplateError> {
        match self.tree.get("Description") {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= 1024 => Ok(Some(text.clone())),
            Some(Value::String(_)) => Err(TemplateError::format(
                "Description is longer than 1024 bytes, the most that is allowed",
            )),
            Some(_) => Err(TemplateError::format("Template Description must be a string.")),
        }
    }

    /// The members of a section whose names are logical ids.
    fn members<T>(
        &mut self,
        section: &str,
        member: &str,
        limit: usize,
        read: impl Fn(&str, &Value) -> Result<T, TemplateError>,
    ) -> Result<BTreeMap<String, T>, TemplateError> {
        let members = match self.tree.get(section) {
            None if section == "Resources" => &Map::new(),
            None => return Ok(BTreeMap::new()),
            Some(Value::Object(members)) => members,
            Some(_) => {
                return Err(TemplateError::format(format_args!(
                    "[/{section}] must be an object"
                )));
            }
        };
        if members.is_empty() && section == "Resources" {
            return Err(TemplateError::format(
                "At least one Resources member must be defined.",
            ));
        }
        if members.len() > limit {
            return Err(TemplateError::format(format_args!(
                "Number of {}, {}, is greater than maximum allowed, {limit}",
                section.to_lowercase(),
                members.len()
            )));
        }
        let mut all = BTreeMap::new();
        for (name, declared) in members {
            if name.starts_with("Fn::") {
                return Err(TemplateError::unsupported(format_args!(
                    "{name} in section {section}"
                )));
            }
            if name.is_empty() || name.len() > 255 || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
                return Err(TemplateError::format(format_args!(
                    "{member} name {name} is non alphanumeric."
                )));
            }
            all.insert(name.clone(), read(name, declared)?);
        }
        Ok(all)
    }

    fn mappings(&self) -> Result<Map<String, Value>, TemplateError> {
        let Some(declared) = self.tree.get("Mappings") else {
            return Ok(Map::new());
        };
        let Value::Object(mappings) = declared else {
            return Err(TemplateError::format("[/Mappings] must be an object"));
        };
        for (name, mapping) in mappings {
            if name == "Fn::Transform" || name.starts_with("Fn::ForEach") {
                return Err(TemplateError::unsupported(format_args!(
                    "{name} in section Mappings"
                )));
            }
            let levels = mapping.as_object().into_iter().flat_map(Map::values);
            let proper = mapping.is_object() && levels.clone().all(Value::is_object);
            if !proper {
                return Err(TemplateError::format(format_args!(
                    "[/Mappings/{name}] must hold objects of attributes"
                )));
            }
            for attribute in levels.filter_map(Value::as_object).flat_map(Map::values) {
                let fits = match attribute {
                    Value::Array(items) => items.iter().all(|item| text::scalar(item).is_some()),
                    other => text::scalar(other).is_some(),
                };
                if !fits {
                    return Err(TemplateError::format(
                        "Every Mappings attribute must be a String or a List.",
                    ));
                }
            }
        }
        Ok(mappings.clone())
    }
}

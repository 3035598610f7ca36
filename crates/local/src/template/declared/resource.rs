//! Resources and outputs as a template declares them.

use serde_json::{Map, Value};

use crate::template::error::{ErrorKind, TemplateError};
use crate::template::text;

/// The policy for a resource that leaves the stack or is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// It is deleted.
    #[default]
    Delete,
    /// It stays.
    Retain,
    /// It is deleted after a snapshot was taken.
    Snapshot,
    /// It stays, unless it was created by the operation that is rolled back.
    RetainExceptOnCreate,
}

impl Policy {
    /// CloudFormation's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "Delete",
            Self::Retain => "Retain",
            Self::Snapshot => "Snapshot",
            Self::RetainExceptOnCreate => "RetainExceptOnCreate",
        }
    }

    fn read(id: &str, key: &str, declared: &Map<String, Value>) -> Result<Self, TemplateError> {
        let policies = [
            Self::Delete,
            Self::Retain,
            Self::Snapshot,
            Self::RetainExceptOnCreate,
        ];
        let Some(value) = declared.get(key) else {
            return Ok(Self::default());
        };
        let policy = policies
            .into_iter()
            .find(|policy| value.as_str() == Some(policy.as_str()));
        match policy {
            Some(Self::RetainExceptOnCreate) if key == "UpdateReplacePolicy" => {}
            Some(policy) => return Ok(policy),
            None if value.is_object() => {
                return Err(TemplateError::unsupported(format_args!("a function as {key}")));
            }
            None => {}
        }
        Err(TemplateError::format(format_args!(
            "Unrecognized {key} {value} for resource {id}"
        )))
    }
}

/// One declared resource.
#[derive(Debug, Clone)]
pub struct Resource {
    kind: String,
    properties: Option<Value>,
    depends_on: Vec<String>,
    condition: Option<String>,
    deletion_policy: Policy,
    update_replace_policy: Policy,
    metadata: Option<Value>,
}

impl Resource {
    pub(super) fn read(id: &str, declared: &Value) -> Result<Self, TemplateError> {
        let Value::Object(declared) = declared else {
            return Err(TemplateError::format(format_args!(
                "[/Resources/{id}] resource definition is malformed"
            )));
        };
        for key in declared.keys() {
            match key.as_str() {
                "Type"
                | "Properties"
                | "DependsOn"
                | "Condition"
                | "DeletionPolicy"
                | "UpdateReplacePolicy"
                | "Metadata" => {}
                "CreationPolicy" | "UpdatePolicy" => {
                    return Err(TemplateError::unsupported(format_args!("{key} of resource {id}")));
                }
                _ => {
                    return Err(TemplateError::new(
                        ErrorKind::Format,
                        format!("Invalid template resource property '{key}'"),
                    ));
                }
            }
        }
        let kind = match declared.get("Type") {
            Some(Value::String(name)) if !name.is_empty() => name.clone(),
            Some(_) => {
                return Err(TemplateError::format(format_args!(
                    "[/Resources/{id}/Type] must be a string"
                )));
            }
            None => {
                return Err(TemplateError::format(format_args!(
                    "[/Resources/{id}] Every Resources object must contain a Type member."
                )));
            }
        };
        if declared
            .get("Properties")
            .is_some_and(|properties| !properties.is_object())
        {
            return Err(TemplateError::format(format_args!(
                "[/Resources/{id}/Properties] must be an object"
            )));
        }
        if declared
            .get("Metadata")
            .is_some_and(|metadata| !metadata.is_object())
        {
            return Err(TemplateError::format(format_args!(
                "[/Resources/{id}/Metadata] must be an object"
            )));
        }
        Ok(Self {
            kind,
            properties: declared.get("Properties").cloned(),
            depends_on: depends_on(declared.get("DependsOn"))?,
            condition: condition(declared)?,
            deletion_policy: Policy::read(id, "DeletionPolicy", declared)?,
            update_replace_policy: Policy::read(id, "UpdateReplacePolicy", declared)?,
            metadata: declared.get("Metadata").cloned(),
        })
    }

    /// Its type, such as `AWS::DynamoDB::Table`.
    pub fn resource_type(&self) -> &str {
        &self.kind
    }

    /// Its properties as the template writes them, not evaluated.
    pub fn raw_properties(&self) -> Option<&Value> {
        self.properties.as_ref()
    }

    /// The resources in `DependsOn`.
    pub fn depends_on(&self) -> &[String] {
        &self.depends_on
    }

    /// The condition that it exists under.
    pub fn condition(&self) -> Option<&str> {
        self.condition.as_deref()
    }

    /// The policy when it leaves the stack.
    pub fn deletion_policy(&self) -> Policy {
        self.deletion_policy
    }

    /// The policy when it is replaced.
    pub fn update_replace_policy(&self) -> Policy {
        self.update_replace_policy
    }

    /// Its metadata as the template writes it, not evaluated.
    pub fn metadata(&self) -> Option<&Value> {
        self.metadata.as_ref()
    }
}

fn depends_on(declared: Option<&Value>) -> Result<Vec<String>, TemplateError> {
    let names = match declared {
        None => return Ok(Vec::new()),
        Some(Value::String(name)) => Some(vec![name.clone()]),
        Some(Value::Array(names)) => names
            .iter()
            .map(|name| name.as_str().map(str::to_owned))
            .collect(),
        Some(_) => None,
    };
    names.ok_or_else(|| TemplateError::format("Every DependsOn value must be a string or a list of strings."))
}

fn condition(declared: &Map<String, Value>) -> Result<Option<String>, TemplateError> {
    match declared.get("Condition") {
        None => Ok(None),
        Some(Value::String(name)) => Ok(Some(name.clone())),
        Some(_) => Err(TemplateError::format("Every Condition member must be a string.")),
    }
}

/// One declared output.
#[derive(Debug, Clone)]
pub struct Output {
    description: Option<String>,
    condition: Option<String>,
    value: Value,
    export_name: Option<Value>,
}

impl Output {
    pub(super) fn read(name: &str, declared: &Value) -> Result<Self, TemplateError> {
        let malformed = |why: &str| TemplateError::format(format_args!("Output {name} is malformed. {why}"));
        let Value::Object(declared) = declared else {
            return Err(malformed("It must be an object."));
        };
        let unknown: Vec<_> = declared
            .keys()
            .map(String::as_str)
            .filter(|key| !["Value", "Description", "Condition", "Export"].contains(key))
            .collect();
        if !unknown.is_empty() {
            return Err(TemplateError::new(
                ErrorKind::Format,
                format!("Invalid template outputs property: [{}]", unknown.join(", ")),
            ));
        }
        let description = match declared.get("Description").map(text::scalar) {
            Some(None) => return Err(malformed("Its Description must be a string.")),
            described => described.flatten(),
        };
        let export_name = match declared.get("Export") {
            None => None,
            Some(Value::Object(export)) if export.len() == 1 && export.contains_key("Name") => {
                export.get("Name").cloned()
            }
            Some(_) => {
                return Err(malformed(
                    "Its Export must be an object with the one member Name.",
                ));
            }
        };
        let Some(value) = declared.get("Value") else {
            return Err(TemplateError::format(
                "Every Outputs member must contain a Value object",
            ));
        };
        Ok(Self {
            description,
            condition: condition(declared)?,
            value: value.clone(),
            export_name,
        })
    }

    /// Its value.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// The condition that it exists under.
    pub fn condition(&self) -> Option<&str> {
        self.condition.as_deref()
    }

    /// Its value as the template writes it, not evaluated.
    pub fn raw_value(&self) -> &Value {
        &self.value
    }

    /// The name that it is exported under, not evaluated.
    pub fn raw_export_name(&self) -> Option<&Value> {
        self.export_name.as_ref()
    }
}

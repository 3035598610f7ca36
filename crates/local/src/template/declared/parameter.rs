//! Parameters as a template declares them, and what each allows.

use std::fmt;

use regex_lite::Regex;
use serde_json::{Map, Value};

use crate::template::error::TemplateError;
use crate::template::text;

/// How many bytes the value of a parameter may have.
const MAX_VALUE: usize = 4096;

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParameterType {
    /// Text.
    String,
    /// A number, kept and referred to as text.
    Number,
    /// Numbers, separated by commas.
    NumberList,
    /// Texts, separated by commas.
    CommaDelimitedList,
}

impl ParameterType {
    fn read(name: &str, text: &str) -> Result<Self, TemplateError> {
        match text {
            "String" => Ok(Self::String),
            "Number" => Ok(Self::Number),
            "List<Number>" => Ok(Self::NumberList),
            "CommaDelimitedList" => Ok(Self::CommaDelimitedList),
            known if known.starts_with("AWS::") || known.starts_with("List<AWS::") => Err(
                TemplateError::unsupported(format_args!("type {known} of parameter {name}")),
            ),
            _ => Err(TemplateError::format(format_args!(
                "Unrecognized parameter type: {text}"
            ))),
        }
    }

    /// Whether a `Ref` to the parameter is a list.
    pub(in crate::template) fn is_list(self) -> bool {
        matches!(self, Self::NumberList | Self::CommaDelimitedList)
    }
}

impl fmt::Display for ParameterType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "String",
            Self::Number => "Number",
            Self::NumberList => "List<Number>",
            Self::CommaDelimitedList => "CommaDelimitedList",
        })
    }
}

/// One declared parameter.
#[derive(Debug, Clone)]
pub struct Parameter {
    name: String,
    kind: ParameterType,
    default: Option<String>,
    description: Option<String>,
    no_echo: bool,
    allowed_values: Vec<String>,
    allowed_pattern: Option<Pattern>,
    length: Bounds,
    value: Bounds,
    constraint_description: Option<String>,
}

/// A pattern as written, and compiled so that it matches whole values.
#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    whole: Regex,
}

/// The least and the greatest that is allowed: the number, and how the template writes it.
#[derive(Debug, Clone, Default)]
struct Bounds {
    least: Option<(f64, String)>,
    greatest: Option<(f64, String)>,
}

impl Parameter {
    pub(super) fn read(name: &str, declared: &Value) -> Result<Self, TemplateError> {
        let Value::Object(declared) = declared else {
            return Err(TemplateError::format(
                "Every Parameters member must be an object.",
            ));
        };
        let kind = match declared.get("Type") {
            Some(Value::String(kind)) => ParameterType::read(name, kind)?,
            Some(_) => return Err(TemplateError::format("Every Type member must be a string.")),
            None => {
                return Err(TemplateError::format(
                    "Every Parameters object must contain a Type member.",
                ));
            }
        };
        for key in declared.keys() {
            let fits = match key.as_str() {
                "Type"
                | "Default"
                | "Description"
                | "NoEcho"
                | "AllowedValues"
                | "AllowedPattern"
                | "ConstraintDescription" => true,
                "MinLength" | "MaxLength" => kind == ParameterType::String,
                "MinValue" | "MaxValue" => matches!(kind, ParameterType::Number | ParameterType::NumberList),
                _ => {
                    return Err(TemplateError::new(
                        crate::template::ErrorKind::Format,
                        format!("Invalid template parameter property '{key}'"),
                    ));
                }
            };
            if !fits {
                return Err(TemplateError::format(format_args!(
                    "{key} does not apply to parameter {name} of type {kind}."
                )));
            }
        }
        let no_echo = match declared.get("NoEcho").map(text::scalar) {
            None => false,
            Some(Some(flag)) if flag == "true" || flag == "false" => flag == "true",
            Some(_) => {
                return Err(TemplateError::format(
                    "Every NoEcho member must be true or false.",
                ));
            }
        };
        Ok(Self {
            name: name.to_owned(),
            kind,
            default: member(declared, "Default")?,
            description: member(declared, "Description")?,
            no_echo,
            allowed_values: allowed_values(declared)?,
            allowed_pattern: Pattern::read(name, declared)?,
            length: Bounds::read(name, declared, "MinLength", "MaxLength")?,
            value: Bounds::read(name, declared, "MinValue", "MaxValue")?,
            constraint_description: member(declared, "ConstraintDescription")?,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its type.
    pub fn kind(&self) -> ParameterType {
        self.kind
    }

    /// The value that it takes if none is given.
    pub fn default(&self) -> Option<&str> {
        self.default.as_deref()
    }

    /// Its description.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Whether its value is to be hidden wherever it is shown.
    pub fn no_echo(&self) -> bool {
        self.no_echo
    }

    /// The only values that it takes; any, if there are none.
    pub fn allowed_values(&self) -> &[String] {
        &self.allowed_values
    }

    /// The message instead of the constraint that a value does not satisfy.
    pub fn constraint_description(&self) -> Option<&str> {
        self.constraint_description.as_deref()
    }

    /// The elements of a value: several for a list, one otherwise.
    pub(in crate::template) fn elements<'v>(&self, value: &'v str) -> Vec<&'v str> {
        if self.kind.is_list() {
            value.split(',').map(str::trim).collect()
        } else {
            vec![value]
        }
    }

    /// Refuses a value that the declaration does not allow.
    pub(in crate::template) fn check(&self, value: &str) -> Result<(), TemplateError> {
        if value.len() > MAX_VALUE {
            return Err(TemplateError::parameter(format!(
                "Parameter '{}' must contain at most {MAX_VALUE} bytes",
                self.name
            )));
        }
        for element in self.elements(value) {
            let Err(reason) = self.check_element(element) else {
                continue;
            };
            return Err(TemplateError::parameter(match &self.constraint_description {
                Some(described) => format!(
                    "Parameter {} failed to satisfy constraint: {described}",
                    self.name
                ),
                None => format!("Parameter '{}' {reason}", self.name),
            }));
        }
        Ok(())
    }

    fn check_element(&self, value: &str) -> Result<(), String> {
        if matches!(self.kind, ParameterType::Number | ParameterType::NumberList) {
            let number = number(value).ok_or("must be a number.")?;
            self.value.check(number, |side, bound| {
                format!("must be a number not {side} than {bound}")
            })?;
        }
        if !self.allowed_values.is_empty() && !self.allowed_values.iter().any(|allowed| allowed == value) {
            return Err("must be one of AllowedValues".to_owned());
        }
        if self.kind == ParameterType::String {
            let characters = value.chars().count() as f64;
            self.length.check(characters, |side, bound| match side {
                "less" => format!("must contain at least {bound} characters"),
                _ => format!("must contain at most {bound} characters"),
            })?;
        }
        match &self.allowed_pattern {
            Some(pattern) if !pattern.whole.is_match(value) => {
                Err(format!("must match pattern {}", pattern.text))
            }
            _ => Ok(()),
        }
    }
}

impl Pattern {
    fn read(name: &str, declared: &Map<String, Value>) -> Result<Option<Self>, TemplateError> {
        let Some(text) = member(declared, "AllowedPattern")? else {
            return Ok(None);
        };
        // Alone first, so that it cannot close the group that is put around it.
        match Regex::new(&text).and_then(|_| Regex::new(&format!("^(?:{text})$"))) {
            Ok(whole) => Ok(Some(Self { text, whole })),
            // CloudFormation's patterns may look around and back, which this engine does not.
            Err(_) => Err(TemplateError::unsupported(format_args!(
                "AllowedPattern {text} of parameter {name}"
            ))),
        }
    }
}

impl Bounds {
    fn read(
        name: &str,
        declared: &Map<String, Value>,
        least: &str,
        greatest: &str,
    ) -> Result<Self, TemplateError> {
        let bound = |key: &str| match member(declared, key)? {
            None => Ok(None),
            Some(text) => match number(&text) {
                Some(bound) => Ok(Some((bound, text))),
                None => Err(TemplateError::format(format_args!(
                    "{key} of parameter {name} must be a number."
                ))),
            },
        };
        Ok(Self {
            least: bound(least)?,
            greatest: bound(greatest)?,
        })
    }

    fn check(&self, number: f64, told: impl Fn(&str, &str) -> String) -> Result<(), String> {
        match (&self.least, &self.greatest) {
            (Some((bound, text)), _) if number < *bound => Err(told("less", text)),
            (_, Some((bound, text))) if number > *bound => Err(told("greater", text)),
            _ => Ok(()),
        }
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

fn member(declared: &Map<String, Value>, key: &str) -> Result<Option<String>, TemplateError> {
    match declared.get(key) {
        None => Ok(None),
        Some(value) => match text::scalar(value) {
            Some(text) => Ok(Some(text)),
            None => Err(TemplateError::format(format_args!(
                "Every {key} member must be a string."
            ))),
        },
    }
}

fn allowed_values(declared: &Map<String, Value>) -> Result<Vec<String>, TemplateError> {
    let Some(values) = declared.get("AllowedValues") else {
        return Ok(Vec::new());
    };
    values
        .as_array()
        .and_then(|values| values.iter().map(text::scalar).collect::<Option<Vec<_>>>())
        .filter(|values| !values.is_empty())
        .ok_or_else(|| TemplateError::format("Every AllowedValues member must be a list of strings."))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Parameter;

    #[track_caller]
    fn allowed(declared: &Value, value: &str) {
        assert_eq!(Parameter::read("P", declared).unwrap().check(value), Ok(()));
    }

    #[track_caller]
    fn refused(declared: &Value, value: &str, expected: &str) {
        assert_eq!(
            Parameter::read("P", declared)
                .unwrap()
                .check(value)
                .unwrap_err()
                .to_string(),
            expected
        );
    }

    #[track_caller]
    fn malformed(declared: &Value, expected: &str) {
        assert_eq!(Parameter::read("P", declared).unwrap_err().to_string(), expected);
    }

    #[test]
    fn numbers() {
        let number = json!({"Type": "Number", "MinValue": 1, "MaxValue": "10.5"});
        allowed(&number, "1");
        allowed(&number, "10.5");
        refused(&number, "0", "Parameter 'P' must be a number not less than 1");
        refused(
            &number,
            "11",
            "Parameter 'P' must be a number not greater than 10.5",
        );
        for value in ["", "x", "NaN", "inf", "1,2"] {
            refused(&number, value, "Parameter 'P' must be a number.");
        }
        allowed(&json!({"Type": "List<Number>"}), "1, 2");
        refused(
            &json!({"Type": "List<Number>", "MaxValue": 1}),
            "1,2",
            "Parameter 'P' must be a number not greater than 1",
        );
    }

    #[test]
    fn texts() {
        let text = json!({"Type": "String", "MinLength": 2, "MaxLength": 3});
        allowed(&text, "éé");
        refused(&text, "é", "Parameter 'P' must contain at least 2 characters");
        refused(&text, "abcd", "Parameter 'P' must contain at most 3 characters");
        let listed = json!({"Type": "String", "AllowedValues": [true, "b", 3]});
        allowed(&listed, "true");
        allowed(&listed, "3");
        refused(&listed, "c", "Parameter 'P' must be one of AllowedValues");
        refused(
            &json!({"Type": "CommaDelimitedList", "AllowedValues": ["a", "b"]}),
            "a, c",
            "Parameter 'P' must be one of AllowedValues",
        );
    }

    #[test]
    fn patterns_match_whole_values() {
        let pattern = json!({"Type": "String", "AllowedPattern": "[a-z]+|x1"});
        allowed(&pattern, "abc");
        allowed(&pattern, "x1");
        refused(&pattern, "abc1", "Parameter 'P' must match pattern [a-z]+|x1");
        refused(&pattern, "abc\n", "Parameter 'P' must match pattern [a-z]+|x1");
        let described = json!({"Type": "String", "AllowedPattern": "a", "ConstraintDescription": "only a"});
        refused(
            &described,
            "b",
            "Parameter P failed to satisfy constraint: only a",
        );
    }

    #[test]
    fn declarations_are_checked() {
        malformed(
            &json!([]),
            "Template format error: Every Parameters member must be an object.",
        );
        malformed(
            &json!({}),
            "Template format error: Every Parameters object must contain a Type member.",
        );
        malformed(
            &json!({"Type": "Boolean"}),
            "Template format error: Unrecognized parameter type: Boolean",
        );
        malformed(
            &json!({"Type": "String", "Foo": 1}),
            "Invalid template parameter property 'Foo'",
        );
        malformed(
            &json!({"Type": "String", "Default": []}),
            "Template format error: Every Default member must be a string.",
        );
        malformed(
            &json!({"Type": "String", "MinValue": 1}),
            "Template format error: MinValue does not apply to parameter P of type String.",
        );
        malformed(
            &json!({"Type": "AWS::SSM::Parameter::Value<String>"}),
            "Template error: type AWS::SSM::Parameter::Value<String> of parameter P is not supported by this endpoint",
        );
        assert!(Parameter::read("P", &json!({"Type": "String", "AllowedPattern": "(?=a)"})).is_err());
        assert!(Parameter::read("P", &json!({"Type": "String", "AllowedPattern": "a)|(b"})).is_err());
        assert!(Parameter::read("P", &json!({"Type": "String", "NoEcho": "yes"})).is_err());
        assert!(
            Parameter::read("P", &json!({"Type": "String", "NoEcho": "true"}))
                .unwrap()
                .no_echo()
        );
        assert!(Parameter::read("P", &json!({"Type": "Number", "MinValue": "x"})).is_err());
        assert!(Parameter::read("P", &json!({"Type": "String", "AllowedValues": []})).is_err());
    }
}

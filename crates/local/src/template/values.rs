//! Values for a template's parameters: given, kept from before, or by default.

use std::collections::{BTreeMap, BTreeSet};

use super::declared::Template;
use super::error::TemplateError;

/// The value of one parameter in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The parameter's name.
    pub name: String,
    /// The given value.
    pub value: GivenValue,
}

/// A value, or the wish to keep the one from before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenValue {
    /// This value.
    Text(String),
    /// `UsePreviousValue`.
    Previous,
}

/// A value for every parameter of a template, each allowed by its declaration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParameterValues {
    values: BTreeMap<String, ParameterValue>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ParameterValue {
    text: String,
    no_echo: bool,
}

impl ParameterValues {
    /// The value of a parameter; lists are as they were given, with their commas.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| value.text.as_str())
    }

    /// The value as it may be shown: stars, if the parameter says `NoEcho`.
    pub fn shown(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| {
            if value.no_echo {
                "****"
            } else {
                value.text.as_str()
            }
        })
    }

    /// All names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values
            .iter()
            .map(|(name, value)| (name.as_str(), value.text.as_str()))
    }
}

impl Template {
    /// Makes values for all parameters. `previous` are those of the stack that is updated.
    ///
    /// A parameter for which nothing is given takes its default, in an update too.
    ///
    /// # Errors
    ///
    /// If something is given for an undeclared parameter or twice for one, a parameter has no value, there is no previous
    /// value to keep, or a value is not allowed.
    pub fn values(
        &self,
        given: &[Given],
        previous: Option<&ParameterValues>,
    ) -> Result<ParameterValues, TemplateError> {
        let unknown: BTreeSet<_> = given
            .iter()
            .map(|given| given.name.as_str())
            .filter(|name| !self.parameters().contains_key(*name))
            .collect();
        if !unknown.is_empty() {
            return Err(about(
                &unknown.into_iter().collect::<Vec<_>>(),
                "do not exist in the template",
            ));
        }
        let mut texts: BTreeMap<&str, &str> = BTreeMap::new();
        for Given { name, value } in given {
            let text = match value {
                GivenValue::Text(text) => text.as_str(),
                GivenValue::Previous => previous.and_then(|previous| previous.get(name)).ok_or_else(|| {
                    TemplateError::parameter(format!(
                        "Invalid input for parameter key {name}. Cannot specify usePreviousValue as true for a parameter \
                         key not in the previous template"
                    ))
                })?,
            };
            if texts.insert(name, text).is_some() {
                return Err(TemplateError::parameter(format!(
                    "Parameter key {name} is given more than once"
                )));
            }
        }
        let mut values = BTreeMap::new();
        let mut missing = Vec::new();
        for (name, parameter) in self.parameters() {
            match texts.get(name.as_str()).copied().or(parameter.default()) {
                Some(text) => {
                    let value = ParameterValue {
                        text: text.to_owned(),
                        no_echo: parameter.no_echo(),
                    };
                    values.insert(name.clone(), value);
                }
                None => missing.push(name.as_str()),
            }
        }
        if !missing.is_empty() {
            return Err(about(&missing, "must have values"));
        }
        for (name, parameter) in self.parameters() {
            if let Some(value) = values.get(name) {
                parameter.check(&value.text)?;
            }
        }
        Ok(ParameterValues { values })
    }
}

fn about(names: &[&str], what: &str) -> TemplateError {
    TemplateError::parameter(format!("Parameters: [{}] {what}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::{Given, GivenValue, ParameterValues, Template};

    fn template() -> Template {
        Template::parse(
            "Parameters: {A: {Type: String}, B: {Type: Number, Default: 5, MinValue: 1}, C: {Type: String, NoEcho: true}}\n\
             Resources: {R: {Type: T}}",
        )
        .unwrap()
    }

    fn given(pairs: &[(&str, Option<&str>)]) -> Vec<Given> {
        pairs
            .iter()
            .map(|(name, text)| Given {
                name: (*name).to_owned(),
                value: text.map_or(GivenValue::Previous, |text| GivenValue::Text(text.to_owned())),
            })
            .collect()
    }

    #[track_caller]
    fn refused(pairs: &[(&str, Option<&str>)], previous: Option<&ParameterValues>, expected: &str) {
        assert_eq!(
            template()
                .values(&given(pairs), previous)
                .unwrap_err()
                .to_string(),
            expected
        );
    }

    #[test]
    fn given_previous_default() {
        let first = template()
            .values(
                &given(&[("A", Some("a")), ("B", Some("9")), ("C", Some("c"))]),
                None,
            )
            .unwrap();
        assert_eq!(
            first.iter().collect::<Vec<_>>(),
            [("A", "a"), ("B", "9"), ("C", "c")]
        );
        assert_eq!((first.shown("A"), first.shown("C")), (Some("a"), Some("****")));
        let second = template()
            .values(&given(&[("A", None), ("C", Some("d"))]), Some(&first))
            .unwrap();
        assert_eq!(
            second.iter().collect::<Vec<_>>(),
            [("A", "a"), ("B", "5"), ("C", "d")]
        );
    }

    #[test]
    fn mistakes_are_told_as_cloudformation_tells_them() {
        refused(&[], None, "Parameters: [A, C] must have values");
        refused(
            &[("X", None), ("W", Some("1"))],
            None,
            "Parameters: [W, X] do not exist in the template",
        );
        refused(
            &[("A", Some("a")), ("B", Some("0")), ("C", Some("c"))],
            None,
            "Parameter 'B' must be a number not less than 1",
        );
        refused(
            &[("A", Some("a")), ("A", Some("a"))],
            None,
            "Parameter key A is given more than once",
        );
        let none = ParameterValues::default();
        for previous in [None, Some(&none)] {
            refused(
                &[("A", None)],
                previous,
                "Invalid input for parameter key A. Cannot specify usePreviousValue as true for a parameter key not in the \
                 previous template",
            );
        }
    }
}

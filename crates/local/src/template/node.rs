//! What a value of the tree is: plain data, or a call of an intrinsic function, with the shape of its arguments checked.
//!
//! A mapping is a call if its one key is `Ref` or begins with `Fn::`. Only this module reads these keys.

use serde_json::{Map, Value};

use super::error::TemplateError;

/// Where a value stands, which decides which functions it may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In `Conditions`: parameters and other conditions only.
    Conditions,
    /// In a resource or an output.
    Body,
}

/// A value of the tree.
pub(super) enum Node<'v> {
    Scalar(&'v Value),
    List(&'v [Value]),
    Map(&'v Map<String, Value>),
    Call(Call<'v>),
}

/// A call of an intrinsic function.
pub(super) enum Call<'v> {
    Ref(&'v str),
    /// A resource and an attribute, which may be the value of a parameter.
    GetAtt(&'v str, &'v Value),
    /// A text with `${variables}`, and those that it brings along.
    Sub(&'v str, Option<&'v Map<String, Value>>),
    /// A delimiter, and a list or a call that gives one.
    Join(&'v str, &'v Value),
    /// An index, and a list or a call that gives one.
    Select(&'v Value, &'v Value),
    /// A delimiter and a text.
    Split(&'v str, &'v Value),
    /// A condition, and the values for it holding and not.
    If(&'v str, &'v Value, &'v Value),
    /// A mapping and two keys.
    FindInMap([&'v Value; 3]),
    ImportValue(&'v Value),
    Condition(&'v str),
    Equals(&'v Value, &'v Value),
    And(&'v [Value]),
    Or(&'v [Value]),
    Not(&'v Value),
}

/// Functions that CloudFormation has and this endpoint has not.
const UNSUPPORTED: [&str; 15] = [
    "Fn::Base64",
    "Fn::Cidr",
    "Fn::Contains",
    "Fn::EachMemberEquals",
    "Fn::EachMemberIn",
    "Fn::GetAZs",
    "Fn::GetStackOutput",
    "Fn::Length",
    "Fn::RefAll",
    "Fn::ToJsonString",
    "Fn::Transform",
    "Fn::ValueOf",
    "Fn::ValueOfAll",
    "AWS::Include",
    "Fn::ForEach",
];

impl<'v> Node<'v> {
    /// The type of `value` at `place`.
    pub(super) fn of(value: &'v Value, place: Place) -> Result<Self, TemplateError> {
        match value {
            Value::Object(map) => {
                let mut keys = map.iter();
                if let (Some((name, argument)), None) = (keys.next(), keys.next()) {
                    if let Some(call) = Call::of(name, argument, place)? {
                        return Ok(Self::Call(call));
                    }
                } else if let Some(name) = map.keys().find(|key| key.starts_with("Fn::")) {
                    if name.starts_with("Fn::ForEach::") || name == "Fn::Transform" {
                        return Err(TemplateError::unsupported(name));
                    }
                    return Err(TemplateError::format(format_args!(
                        "{name} must be the only key of its object"
                    )));
                }
                Ok(Self::Map(map))
            }
            Value::Array(items) => Ok(Self::List(items)),
            scalar => Ok(Self::Scalar(scalar)),
        }
    }
}

impl<'v> Call<'v> {
    fn of(name: &str, argument: &'v Value, place: Place) -> Result<Option<Self>, TemplateError> {
        let call = match name {
            "Ref" => match argument.as_str() {
                Some(name) if !name.is_empty() => Self::Ref(name),
                _ => {
                    return Err(TemplateError::function(
                        "every Ref object must have a single String value.",
                    ));
                }
            },
            "Fn::GetAtt" => Self::get_att(argument)?,
            "Fn::Sub" => Self::sub(argument)?,
            "Fn::Join" => match pair(argument) {
                Some((Value::String(delimiter), list)) if !is_scalar(list) => Self::Join(delimiter, list),
                _ => {
                    return Err(TemplateError::function(
                        "every Fn::Join object requires two parameters, (1) a string delimiter and (2) a list of \
                         strings to be joined or a function that returns a list of strings (such as Fn::GetAZs) to be \
                         joined.",
                    ));
                }
            },
            "Fn::Select" => match pair(argument) {
                Some((index, list)) if !is_scalar(list) => Self::Select(index, list),
                _ => {
                    return Err(TemplateError::function(
                        "Fn::Select requires a list argument with two elements: an integer index and a list",
                    ));
                }
            },
            "Fn::Split" => match pair(argument) {
                Some((Value::String(delimiter), text)) if !delimiter.is_empty() && !text.is_array() => {
                    Self::Split(delimiter, text)
                }
                _ => {
                    return Err(TemplateError::function(
                        "every Fn::Split object requires two parameters, (1) a string delimiter and (2) a string to be \
                         split or a function that returns a string to be split.",
                    ));
                }
            },
            "Fn::If" => match argument.as_array().map(Vec::as_slice) {
                Some([Value::String(condition), holds, fails]) => Self::If(condition, holds, fails),
                _ => {
                    return Err(TemplateError::function(
                        "Fn::If requires a list argument with three elements: the name of a condition and two values",
                    ));
                }
            },
            "Fn::FindInMap" => match argument.as_array().map(Vec::as_slice) {
                Some([map, top, second]) => Self::FindInMap([map, top, second]),
                Some([_, _, _, _]) => {
                    return Err(TemplateError::unsupported("the default value of Fn::FindInMap"));
                }
                _ => {
                    return Err(TemplateError::function(
                        "every Fn::FindInMap object requires three parameters, the map name, map key and the \
                         attribute for return value",
                    ));
                }
            },
            "Fn::ImportValue" => match argument {
                Value::String(_) | Value::Object(_) => Self::ImportValue(argument),
                _ => {
                    return Err(TemplateError::function(
                        "the attribute in Fn::ImportValue must be a string or a function",
                    ));
                }
            },
            "Condition" if place == Place::Conditions => match argument {
                Value::String(name) => Self::Condition(name),
                _ => return Err(TemplateError::function("Condition must name a condition")),
            },
            "Fn::Equals" | "Fn::And" | "Fn::Or" | "Fn::Not" => Self::boolean(name, argument)?,
            _ if UNSUPPORTED.contains(&name) || name.starts_with("Fn::ForEach::") => {
                return Err(TemplateError::unsupported(name));
            }
            _ if name.starts_with("Fn::") => {
                return Err(TemplateError::format(format_args!(
                    "{name} is not a valid intrinsic function"
                )));
            }
            _ => return Ok(None),
        };
        call.allowed_at(place, name)?;
        Ok(Some(call))
    }

    fn allowed_at(&self, place: Place, name: &str) -> Result<(), TemplateError> {
        let boolean = matches!(self, Self::Equals(..) | Self::And(_) | Self::Or(_) | Self::Not(_));
        let body_only = matches!(self, Self::GetAtt(..) | Self::If(..));
        match place {
            Place::Body if boolean => Err(TemplateError::format(format_args!(
                "{name} is allowed in the Conditions block of a template only"
            ))),
            Place::Conditions if matches!(self, Self::ImportValue(_)) => Err(TemplateError::function(
                "Cannot use Fn::ImportValue in Conditions",
            )),
            Place::Conditions if body_only => Err(TemplateError::format(format_args!(
                "{name} is not allowed in the Conditions block of a template; conditions can only be boolean operations \
                 on parameters and other conditions"
            ))),
            _ => Ok(()),
        }
    }

    fn get_att(argument: &'v Value) -> Result<Self, TemplateError> {
        let parts = match argument {
            Value::Array(parts) => match parts.as_slice() {
                [
                    Value::String(resource),
                    attribute @ (Value::String(_) | Value::Object(_)),
                ] => Some((resource, attribute)),
                _ => None,
            },
            _ => None,
        };
        match parts {
            Some((resource, attribute)) if !resource.is_empty() && attribute.as_str() != Some("") => {
                Ok(Self::GetAtt(resource, attribute))
            }
            _ => Err(TemplateError::function(
                "every Fn::GetAtt object requires two non-empty parameters, the resource name and the resource attribute",
            )),
        }
    }

    fn sub(argument: &'v Value) -> Result<Self, TemplateError> {
        match argument {
            Value::String(text) => return Ok(Self::Sub(text, None)),
            Value::Array(parts) => {
                if let [Value::String(text), Value::Object(variables)] = parts.as_slice() {
                    return Ok(Self::Sub(text, Some(variables)));
                }
            }
            _ => {}
        }
        Err(TemplateError::function(
            "One or more Fn::Sub intrinsic functions don't specify expected arguments. Specify a string as first argument, \
             and an optional second argument to specify a mapping of values to replace in the string",
        ))
    }

    fn boolean(name: &str, argument: &'v Value) -> Result<Self, TemplateError> {
        match (name, argument.as_array().map(Vec::as_slice)) {
            ("Fn::Equals", Some([left, right])) => Ok(Self::Equals(left, right)),
            ("Fn::Equals", _) => Err(TemplateError::function(
                "every Fn::Equals object requires a list of 2 string parameters.",
            )),
            ("Fn::Not", Some([one])) => Ok(Self::Not(one)),
            ("Fn::Not", _) => Err(TemplateError::function(
                "every Fn::Not object requires one boolean parameter.",
            )),
            ("Fn::And", Some(all)) if (2..=10).contains(&all.len()) => Ok(Self::And(all)),
            ("Fn::Or", Some(any)) if (2..=10).contains(&any.len()) => Ok(Self::Or(any)),
            _ => Err(TemplateError::function(format_args!(
                "every {name} object requires a list of at least 2 and at most 10 boolean parameters."
            ))),
        }
    }
}

fn pair(argument: &Value) -> Option<(&Value, &Value)> {
    match argument.as_array()?.as_slice() {
        [first, second] => Some((first, second)),
        _ => None,
    }
}

fn is_scalar(value: &Value) -> bool {
    !value.is_array() && !value.is_object()
}

/// A part of the text of `Fn::Sub`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    /// Taken as it is.
    Literal(&'t str),
    /// A dollar sign and braces around this, from `${!this}`.
    Escaped(&'t str),
    /// Replaced by what is named: a variable, a parameter, a resource, or a resource's attribute behind a dot.
    Variable(&'t str),
}

/// Cuts the text of `Fn::Sub` into its parts.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let Some(length) = rest[start + 2..].find('}') else {
            break;
        };
        let (before, name) = (&rest[..start], &rest[start + 2..start + 2 + length]);
        if !before.is_empty() {
            pieces.push(Piece::Literal(before));
        }
        if let Some(literal) = name.strip_prefix('!') {
            pieces.push(Piece::Escaped(literal));
        } else if !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_.:".contains(c))
        {
            pieces.push(Piece::Variable(name));
        } else {
            return Err(TemplateError::function(
                "variable names in Fn::Sub syntax must contain only alphanumeric characters, underscores, periods, and \
                 colons",
            ));
        }
        rest = &rest[start + 2 + length + 1..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Call, Node, Piece, Place, pieces};

    #[track_caller]
    fn refused(value: &Value, place: Place, expected: &str) {
        match Node::of(value, place) {
            Ok(_) => panic!("{value} is taken"),
            Err(error) => assert!(error.to_string().contains(expected), "{error}"),
        }
    }

    #[test]
    fn plain_data_stays_plain() {
        for value in [
            json!({}),
            json!({"Ref": "A", "Other": 1}),
            json!({"Condition": {"StringEquals": {}}}),
            json!({"Condition": "X"}),
            json!({"aws:Fn::X": 1}),
        ] {
            assert!(
                matches!(Node::of(&value, Place::Body), Ok(Node::Map(_))),
                "{value}"
            );
        }
        assert!(matches!(
            Node::of(&json!({"Condition": "X"}), Place::Conditions),
            Ok(Node::Call(Call::Condition("X")))
        ));
    }

    #[test]
    fn shapes_are_checked() {
        for (value, expected) in [
            (json!({"Ref": 1}), "every Ref object"),
            (json!({"Fn::GetAtt": "A"}), "two non-empty parameters"),
            (json!({"Fn::GetAtt": ["A", ""]}), "two non-empty parameters"),
            (json!({"Fn::Sub": ["a"]}), "Fn::Sub intrinsic functions"),
            (json!({"Fn::Join": [",", "a"]}), "every Fn::Join"),
            (json!({"Fn::Join": [{"Ref": "A"}, []]}), "every Fn::Join"),
            (json!({"Fn::Select": [0]}), "Fn::Select requires"),
            (json!({"Fn::Split": ["", "a"]}), "every Fn::Split"),
            (json!({"Fn::If": ["C", 1]}), "Fn::If requires"),
            (json!({"Fn::FindInMap": ["a", "b"]}), "three parameters"),
            (
                json!({"Fn::FindInMap": ["a", "b", "c", {"DefaultValue": 1}]}),
                "default value of Fn::FindInMap is not supported",
            ),
            (json!({"Fn::ImportValue": ["a"]}), "Fn::ImportValue"),
            (json!({"Fn::Base64": "a"}), "Fn::Base64 is not supported"),
            (json!({"Fn::GetAZs": ""}), "Fn::GetAZs is not supported"),
            (json!({"Fn::Cidr": []}), "Fn::Cidr is not supported"),
            (json!({"Fn::Transform": {}}), "Fn::Transform is not supported"),
            (
                json!({"Fn::Transform": {}, "a": 1}),
                "Fn::Transform is not supported",
            ),
            (
                json!({"Fn::ForEach::Loop": []}),
                "Fn::ForEach::Loop is not supported",
            ),
            (json!({"Fn::Foo": []}), "Fn::Foo is not a valid"),
            (json!({"Fn::Sub": "a", "b": 1}), "Fn::Sub must be the only key"),
            (
                json!({"Fn::Equals": [1, 2]}),
                "Conditions block of a template only",
            ),
        ] {
            refused(&value, Place::Body, expected);
        }
        for (value, expected) in [
            (json!({"Fn::Equals": [1]}), "every Fn::Equals"),
            (json!({"Fn::Not": []}), "every Fn::Not"),
            (json!({"Fn::And": [1]}), "every Fn::And"),
            (json!({"Fn::Or": {}}), "every Fn::Or"),
            (
                json!({"Fn::ImportValue": "a"}),
                "Cannot use Fn::ImportValue in Conditions",
            ),
            (json!({"Condition": ["A"]}), "must name a condition"),
            (
                json!({"Fn::GetAtt": ["A", "B"]}),
                "not allowed in the Conditions block",
            ),
        ] {
            refused(&value, Place::Conditions, expected);
        }
    }

    #[test]
    fn texts_are_cut_at_their_variables() {
        use Piece::{Escaped, Literal, Variable};
        let check = |text, expected: &[Piece<'_>]| assert_eq!(pieces(text).unwrap(), expected, "{text}");
        check("", &[]);
        check("plain $ {x}", &[Literal("plain $ {x}")]);
        check("a${B}c", &[Literal("a"), Variable("B"), Literal("c")]);
        check(
            "${AWS::Region}${T.A.B}",
            &[Variable("AWS::Region"), Variable("T.A.B")],
        );
        check("${!aws:x/y}/é", &[Escaped("aws:x/y"), Literal("/é")]);
        check("$${A}", &[Literal("$"), Variable("A")]);
        check("open ${A", &[Literal("open ${A")]);
        assert!(pieces("${ A }").is_err());
        assert!(pieces("${}").is_err());
    }
}

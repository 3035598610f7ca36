//! Everything that a value refers to, in all branches of its `Fn::If`s.

use serde_json::Value;

use super::error::TemplateError;
use super::node::{Call, Node, Piece, Place, pieces};

/// Something that a value refers to by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reference<'v> {
    /// `Ref`, or a variable of `Fn::Sub`: a parameter, a resource or a pseudo parameter.
    Name(&'v str),
    /// `Fn::GetAtt`, or a variable with a dot: a resource, and the attribute if the template writes it as text.
    Attribute(&'v str, Option<&'v str>),
    /// A condition that a condition refers to.
    Condition(&'v str),
    /// A condition of `Fn::If`.
    If(&'v str),
    /// A mapping of `Fn::FindInMap`, if the template writes it as text.
    Mapping(&'v str),
    /// A call of `Fn::ImportValue`, whatever its name is.
    Import,
    /// A name that the name of an imported value depends on; comes after the same as [`Name`](Self::Name).
    ImportName(&'v str),
}

/// Calls `found` for each reference in `value`, and checks the shape of every call on the way.
pub(super) fn references<'v>(
    value: &'v Value,
    place: Place,
    found: &mut dyn FnMut(Reference<'v>),
) -> Result<(), TemplateError> {
    let call = match Node::of(value, place)? {
        Node::Scalar(_) => return Ok(()),
        Node::List(items) => return items.iter().try_for_each(|item| references(item, place, found)),
        Node::Map(map) => return map.values().try_for_each(|item| references(item, place, found)),
        Node::Call(call) => call,
    };
    match call {
        Call::Ref(name) => {
            found(Reference::Name(name));
            Ok(())
        }
        Call::GetAtt(resource, attribute) => {
            found(Reference::Attribute(resource, attribute.as_str()));
            references(attribute, place, found)
        }
        Call::Sub(text, variables) => {
            for piece in pieces(text)? {
                let Piece::Variable(name) = piece else { continue };
                if variables.is_some_and(|own| own.contains_key(name)) {
                    continue;
                }
                found(match name.split_once('.') {
                    Some((resource, attribute)) => Reference::Attribute(resource, Some(attribute)),
                    None => Reference::Name(name),
                });
            }
            variables
                .into_iter()
                .flat_map(|own| own.values())
                .try_for_each(|item| references(item, place, found))
        }
        Call::Condition(name) => {
            found(Reference::Condition(name));
            Ok(())
        }
        Call::If(condition, holds, fails) => {
            found(Reference::If(condition));
            references(holds, place, found)?;
            references(fails, place, found)
        }
        Call::FindInMap(keys) => {
            if let Some(name) = keys[0].as_str() {
                found(Reference::Mapping(name));
            }
            keys.into_iter().try_for_each(|key| references(key, place, found))
        }
        Call::ImportValue(name) => {
            found(Reference::Import);
            let mut allowed = true;
            references(name, place, &mut |reference| {
                allowed &= !matches!(reference, Reference::Import | Reference::Attribute(..));
                found(reference);
                if let Reference::Name(name) = reference {
                    found(Reference::ImportName(name));
                }
            })?;
            if allowed { Ok(()) } else { Err(import_depends()) }
        }
        Call::Join(_, one) | Call::Split(_, one) | Call::Not(one) => references(one, place, found),
        Call::Select(one, other) | Call::Equals(one, other) => {
            references(one, place, found)?;
            references(other, place, found)
        }
        Call::And(items) | Call::Or(items) => {
            items.iter().try_for_each(|item| references(item, place, found))
        }
    }
}

/// The error for an import whose name is not known before the creation.
pub(super) fn import_depends() -> TemplateError {
    TemplateError::function(
        "the attribute in Fn::ImportValue must not depend on any resources, imported values, or Fn::GetAZs",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Reference::{Attribute, If, Import, ImportName, Mapping, Name};
    use super::{Place, references};

    #[test]
    fn all_branches_are_walked() {
        let value = json!({
            "a": {"Fn::If": ["C", {"Ref": "A"}, [{"Fn::GetAtt": ["B", {"Ref": "P"}]}]]},
            "b": {"Fn::Sub": ["${x} ${A.b.c} ${!y}", {"x": {"Fn::ImportValue": {"Ref": "I"}}}]},
            "c": {"Fn::Join": ["", {"Fn::Split": [",", {"Fn::FindInMap": ["M", {"Ref": "K"}, "z"]}]}]},
            "d": {"Fn::Select": [{"Ref": "N"}, [{"Fn::Sub": "${U}"}]]},
        });
        let mut found = Vec::new();
        references(&value, Place::Body, &mut |reference| found.push(reference)).unwrap();
        assert_eq!(
            found,
            [
                If("C"),
                Name("A"),
                Attribute("B", None),
                Name("P"),
                Attribute("A", Some("b.c")),
                Import,
                Name("I"),
                ImportName("I"),
                Mapping("M"),
                Name("K"),
                Name("N"),
                Name("U"),
            ]
        );
    }

    #[test]
    fn mistakes_inside_are_found() {
        assert!(references(&json!([{"a": {"Fn::If": []}}]), Place::Body, &mut |_| {}).is_err());
        assert!(
            references(
                &json!({"Fn::ImportValue": {"Fn::Sub": "${T.Arn}"}}),
                Place::Body,
                &mut |_| {}
            )
            .is_err()
        );
    }
}

//! Names on the command line, checked before anything is connected.
//!
//! The rules are the library's; the texts are those that this program has always given.

use zae_limiter::{EntityId, InvalidInput, ResourceName};
use zae_limiter_core::{NamespaceName, StackName};

use crate::args::{DEFAULT_RESOURCE, variable};
use crate::failure::Failure;
use crate::text::table::printable;

/// The fewest characters of a name that DynamoDB takes.
const SHORTEST_TABLE: usize = 3;

/// How many characters of a value are shown.
const SHOWN: usize = 64;

/// Checks a stack's name.
pub(crate) fn stack(name: &str) -> Result<(), Failure> {
    let Err(err) = StackName::new(name) else {
        // The name is also the table's.
        return if name.len() < SHORTEST_TABLE {
            Err(Failure::usage(format!(
                "Invalid name '{name}': must have at least {SHORTEST_TABLE} characters, as the table has this name"
            )))
        } else {
            Ok(())
        };
    };
    let text = if name.is_empty() {
        "Name cannot be empty"
    } else if name.contains('_') {
        "Contains underscore. Use hyphens instead (e.g., 'rate-limits' not 'rate_limits')"
    } else if name.contains('.') {
        "Contains period. Only alphanumeric characters and hyphens are allowed."
    } else if name.contains(' ') {
        "Contains spaces. Use hyphens instead (e.g., 'my-app' not 'my app')"
    } else if err.reason().contains("at most") {
        "Too long. Name exceeds 55 character limit (IAM role constraints)."
    } else {
        "Must start with a letter and contain only alphanumeric characters and hyphens."
    };
    Err(Failure::usage(format!(
        "Invalid name '{}'{}: {text}",
        printable(name),
        variable("ZAEL_STACK", name)
    )))
}

/// Checks an entity's id that was given as `field`.
pub(crate) fn entity(field: &str, id: &str) -> Result<(), Failure> {
    const CHARACTERS: &str = "must start with alphanumeric and contain only alphanumeric, underscore, hyphen, dot, colon, or @ \
         characters";
    EntityId::new(id)
        .map(drop)
        .map_err(|_| invalid(field, id, 256, CHARACTERS))
}

/// Checks a resource's name.
pub(crate) fn resource(name: &str) -> Result<(), Failure> {
    const CHARACTERS: &str = "must start with a letter and contain only alphanumeric, underscore, hyphen, dot, slash, or colon \
         characters";
    ResourceName::new(name)
        .map(drop)
        .map_err(|_| invalid("resource", name, 64, CHARACTERS))
}

/// Checks a resource of an entity's own limits: a name, or all of them.
pub(crate) fn scope(name: &str) -> Result<(), Failure> {
    if name == DEFAULT_RESOURCE {
        return Ok(());
    }
    // Some names are taken by the attributes of the registry in which such limits are counted.
    zae_limiter_core::ResourceScope::new(name)
        .map(drop)
        .map_err(|err| match resource(name) {
            Err(failure) => failure,
            Ok(()) => reason("resource", &err),
        })
}

/// Checks a namespace's name.
pub(crate) fn namespace(name: &str) -> Result<(), Failure> {
    NamespaceName::new(name).map(drop).map_err(|err| {
        let reason = match name {
            "_" => "reserved for system use",
            "" => "cannot be empty",
            _ => err.reason(),
        };
        let source = variable("ZAEL_NAMESPACE", name);
        Failure::usage(format!(
            "Invalid namespace '{}'{source}: {reason}",
            printable(name)
        ))
    })
}

/// The beginning of a value that is too long to be shown.
fn shortened(value: &str) -> String {
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", printable(&value[..end])),
        None => printable(value).into(),
    }
}

fn reason(field: &str, err: &InvalidInput) -> Failure {
    Failure::usage(format!("Invalid {field} '{}': {}", err.value(), err.reason()))
}

fn invalid(field: &str, name: &str, longest: usize, characters: &str) -> Failure {
    let reason = if name.is_empty() {
        "cannot be empty".to_owned()
    } else if name.chars().count() > longest {
        format!("exceeds maximum length of {longest}")
    } else if name.contains('#') {
        "cannot contain '#' (reserved delimiter)".to_owned()
    } else {
        characters.to_owned()
    };
    Failure::usage(format!("Invalid {field} '{}': {reason}", shortened(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(result: Result<(), Failure>, expected: Option<&str>) {
        let text = match result {
            Ok(()) => None,
            Err(Failure::Message { text, .. }) => Some(text),
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(
            text.as_deref(),
            expected.map(|text| format!("Error: {text}")).as_deref()
        );
    }

    #[test]
    fn stack_names() {
        check(stack("my-app"), None);
        check(stack(""), Some("Invalid name '': Name cannot be empty"));
        check(
            stack("a_b.c d"),
            Some(
                "Invalid name 'a_b.c d': Contains underscore. Use hyphens instead (e.g., 'rate-limits' not 'rate_limits')",
            ),
        );
        check(
            stack(&"a".repeat(56)),
            Some(&format!(
                "Invalid name '{}': Too long. Name exceeds 55 character limit (IAM role constraints).",
                "a".repeat(56)
            )),
        );
        for bad in ["9a", "-a", "ä", "a/b", "a\n"] {
            let why = "Must start with a letter and contain only alphanumeric characters and hyphens.";
            let Err(Failure::Message { text, .. }) = stack(bad) else {
                panic!("{bad}");
            };
            let shown = crate::text::table::printable(bad);
            assert_eq!(text, format!("Error: Invalid name '{shown}': {why}"));
        }
    }

    #[test]
    fn entities_and_resources() {
        check(entity("entity_id", "a@b:c.d_e-1"), None);
        check(
            entity("parent_id", ""),
            Some("Invalid parent_id '': cannot be empty"),
        );
        check(
            entity("entity_id", "a#b"),
            Some("Invalid entity_id 'a#b': cannot contain '#' (reserved delimiter)"),
        );
        check(
            entity("entity_id", &"x".repeat(257)),
            Some(&format!(
                "Invalid entity_id '{}...': exceeds maximum length of 256",
                "x".repeat(64)
            )),
        );
        check(resource("a/b:8b"), None);
        check(scope(DEFAULT_RESOURCE), None);
        assert!(resource(DEFAULT_RESOURCE).is_err());
        assert!(scope("GSI4PK").is_err());
    }
}

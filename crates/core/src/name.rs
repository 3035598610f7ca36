//! Validated names: entities, resources, limits, namespaces and stacks.
//!
//! Each type is checked once, at construction, so a key built from them is always well formed. The rules
//! are those of the shared table (data model, section 13); a trailing newline, which the Python original
//! lets through, is refused.

use std::fmt;

use smol_str::SmolStr;

use crate::error::InvalidInput;

/// Something that is, or can be checked into, a name: a text, or the name itself, which is not checked again.
///
/// ```
/// # use zae_limiter_core as zae_limiter;
/// use zae_limiter::{EntityId, IntoName, InvalidInput};
///
/// fn length(entity: impl IntoName<EntityId>) -> Result<usize, InvalidInput> {
///     Ok(entity.into_name()?.as_str().len())
/// }
///
/// assert_eq!(length("key-1"), Ok(5));
/// assert_eq!(length(EntityId::new("key-1")?), Ok(5));
/// assert_eq!(length("key#1").unwrap_err().field(), "entity_id");
/// # Ok::<(), InvalidInput>(())
/// ```
pub trait IntoName<N> {
    /// Checks and converts.
    fn into_name(self) -> Result<N, InvalidInput>;
}

impl<N, T> IntoName<N> for T
where
    T: TryInto<N>,
    T::Error: Into<InvalidInput>,
{
    fn into_name(self) -> Result<N, InvalidInput> {
        self.try_into().map_err(Into::into)
    }
}

macro_rules! from_text {
    ($name:ident) => {
        impl TryFrom<&str> for $name {
            type Error = InvalidInput;
            fn try_from(text: &str) -> Result<Self, InvalidInput> {
                Self::new(text)
            }
        }

        impl TryFrom<&&str> for $name {
            type Error = InvalidInput;
            fn try_from(text: &&str) -> Result<Self, InvalidInput> {
                Self::new(*text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidInput;
            fn try_from(text: String) -> Result<Self, InvalidInput> {
                Self::new(&text)
            }
        }

        impl TryFrom<&String> for $name {
            type Error = InvalidInput;
            fn try_from(text: &String) -> Result<Self, InvalidInput> {
                Self::new(text)
            }
        }

        impl TryFrom<std::borrow::Cow<'_, str>> for $name {
            type Error = InvalidInput;
            fn try_from(text: std::borrow::Cow<'_, str>) -> Result<Self, InvalidInput> {
                Self::new(&*text)
            }
        }

        impl TryFrom<std::sync::Arc<str>> for $name {
            type Error = InvalidInput;
            fn try_from(text: std::sync::Arc<str>) -> Result<Self, InvalidInput> {
                Self::new(&*text)
            }
        }
    };
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(SmolStr);

        impl $name {
            /// Checks and wraps a name.
            ///
            /// # Errors
            /// Names the field, shows the value and says which rule it breaks.
            pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidInput> {
                let name = name.as_ref();
                $check(name)?;
                Ok(Self(SmolStr::new(name)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl From<&$name> for $name {
            fn from(name: &$name) -> Self {
                name.clone()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }

        from_text!($name);

        impl std::str::FromStr for $name {
            type Err = InvalidInput;
            fn from_str(text: &str) -> Result<Self, InvalidInput> {
                Self::new(text)
            }
        }
    };
}

name_type!(
    /// A consumer of tokens: an API key, a project, a tenant. Up to 256 characters from letters, digits and
    /// `_ . - : @`, starting with a letter or digit.
    EntityId,
    |name| check_identifier("entity_id", name)
);

name_type!(
    /// Whatever is spent on: a model, an endpoint. Up to 64 characters from letters, digits and
    /// `_ . - / :`, starting with a letter.
    ResourceName,
    |name| check_name("resource", name, RESOURCE_EXTRA)
);

name_type!(
    /// One limit's name, such as `rpm` or `tpm`. Up to 64 characters from letters, digits and `_ . -`,
    /// starting with a letter; `wcu` is reserved for the table's own write ceiling.
    LimitName,
    check_limit_name
);

name_type!(
    /// A tenant's name. Any text of 1 to 256 characters without control characters; `_` is reserved.
    NamespaceName,
    check_namespace
);

name_type!(
    /// The opaque id that prefixes every key of a namespace: 11 URL-safe base64 characters.
    NamespaceId,
    check_namespace_id
);

name_type!(
    /// A stack's name, which is its table's name: up to 55 letters, digits and hyphens, starting with a letter.
    StackName,
    check_stack_name
);

/// The resource name that stands for "all resources of this entity" in an entity's default limits.
pub const DEFAULT_RESOURCE: &str = "_default_";

/// The reserved limit that models DynamoDB's write ceiling per partition.
pub const WCU: &str = "wcu";

const RESOURCE_EXTRA: &str = "_.-/:";
const LIMIT_EXTRA: &str = "_.-";
const IDENTIFIER_EXTRA: &str = "_.-:@";

impl LimitName {
    /// The limit's name inside attribute names; cheap to clone.
    pub fn to_smol(&self) -> SmolStr {
        self.0.clone()
    }
}

impl NamespaceId {
    /// Encodes eight random bytes, or tells that they give an id with a forbidden first character.
    ///
    /// The caller supplies the randomness and tries again on `None` (one in 64).
    pub fn from_random(bytes: [u8; 8]) -> Option<Self> {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let bits = u128::from(u64::from_be_bytes(bytes)) << 2;
        let text: String = (0..11)
            .rev()
            .map(|i| ALPHABET[(bits >> (6 * i) & 63) as usize] as char)
            .collect();
        (!text.starts_with('-')).then(|| Self(SmolStr::new(text)))
    }
}

/// A resource in an entity's configuration: one resource, or all of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceScope {
    /// The limits hold for every resource that has none of its own (`_default_`).
    All,
    /// The limits hold for this resource.
    One(ResourceName),
}

impl ResourceScope {
    /// Reads a scope: `_default_` means all resources.
    ///
    /// # Errors
    /// As [`ResourceName::new`]; and the names of key attributes are refused, since the registry of
    /// entity limits has one attribute per resource (data model, section 7.3).
    pub fn new(name: &str) -> Result<Self, InvalidInput> {
        if name == DEFAULT_RESOURCE {
            return Ok(Self::All);
        }
        check_no_key(name)?;
        ResourceName::new(name).map(Self::One)
    }

    /// The name as it stands in keys.
    pub fn as_str(&self) -> &str {
        match self {
            Self::All => DEFAULT_RESOURCE,
            Self::One(name) => name.as_str(),
        }
    }
}

from_text!(ResourceScope);

impl From<&ResourceScope> for ResourceScope {
    fn from(scope: &ResourceScope) -> Self {
        scope.clone()
    }
}

impl TryFrom<ResourceName> for ResourceScope {
    type Error = InvalidInput;
    fn try_from(name: ResourceName) -> Result<Self, InvalidInput> {
        check_no_key(name.as_str())?;
        Ok(Self::One(name))
    }
}

impl TryFrom<&ResourceName> for ResourceScope {
    type Error = InvalidInput;
    fn try_from(name: &ResourceName) -> Result<Self, InvalidInput> {
        name.clone().try_into()
    }
}

/// Refuses the names of key attributes.
fn check_no_key(name: &str) -> Result<(), InvalidInput> {
    if ["PK", "SK", "GSI4PK", "GSI4SK"].contains(&name) {
        return Err(InvalidInput::of_request(
            "resource",
            name,
            "is the name of a key attribute of the table",
        ));
    }
    Ok(())
}

impl fmt::Display for ResourceScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn check_identifier(field: &str, value: &str) -> Result<(), InvalidInput> {
    if value.is_empty() {
        return Err(InvalidInput::of_request(field, value, "must not be empty"));
    }
    check_length(field, value, 256)?;
    check_no_hash(field, value)?;
    if !value.as_bytes()[0].is_ascii_alphanumeric() {
        return Err(InvalidInput::of_request(
            field,
            value,
            "must start with a letter or a digit",
        ));
    }
    check_characters(field, value, IDENTIFIER_EXTRA)
}

fn check_name(field: &str, value: &str, extra: &str) -> Result<(), InvalidInput> {
    if value.is_empty() {
        return Err(InvalidInput::of_request(field, value, "must not be empty"));
    }
    check_length(field, value, 64)?;
    check_no_hash(field, value)?;
    if !value.as_bytes()[0].is_ascii_alphabetic() {
        return Err(InvalidInput::of_request(field, value, "must start with a letter"));
    }
    check_characters(field, value, extra)
}

fn check_limit_name(value: &str) -> Result<(), InvalidInput> {
    if value == WCU {
        return Err(InvalidInput::of_request(
            "limit_name",
            value,
            "is reserved for the table's write ceiling",
        ));
    }
    check_name("limit_name", value, LIMIT_EXTRA)
}

fn check_namespace(value: &str) -> Result<(), InvalidInput> {
    if value.is_empty() {
        return Err(InvalidInput::of_request("namespace", value, "must not be empty"));
    }
    if value == "_" {
        return Err(InvalidInput::of_request(
            "namespace",
            value,
            "is reserved for the table's own records",
        ));
    }
    check_length("namespace", value, 256)?;
    if value.chars().any(char::is_control) {
        return Err(InvalidInput::of_request(
            "namespace",
            value.escape_debug(),
            "must not contain control characters",
        ));
    }
    Ok(())
}

fn check_namespace_id(value: &str) -> Result<(), InvalidInput> {
    let ok = value.len() == 11
        && !value.starts_with('-')
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if ok {
        Ok(())
    } else {
        Err(InvalidInput::of_request(
            "namespace_id",
            value,
            "must be 11 characters from A-Z a-z 0-9 - _, not starting with -",
        ))
    }
}

fn check_stack_name(value: &str) -> Result<(), InvalidInput> {
    let reason = if value.is_empty() {
        "must not be empty"
    } else if value.contains('_') {
        "must not contain underscores; use hyphens"
    } else if value.contains('.') {
        "must not contain periods; use hyphens"
    } else if value.contains(' ') {
        "must not contain spaces; use hyphens"
    } else if !value.as_bytes()[0].is_ascii_alphabetic() {
        "must start with a letter"
    } else if !value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        "may hold letters, digits and hyphens only"
    } else if value.len() > 55 {
        "must be at most 55 characters long"
    } else {
        return Ok(());
    };
    Err(InvalidInput::new("name", value, reason))
}

fn check_length(field: &str, value: &str, max: usize) -> Result<(), InvalidInput> {
    if value.chars().count() > max {
        return Err(InvalidInput::of_request(
            field,
            value,
            format!("must be at most {max} characters long"),
        ));
    }
    Ok(())
}

fn check_no_hash(field: &str, value: &str) -> Result<(), InvalidInput> {
    if value.contains('#') {
        return Err(InvalidInput::of_request(
            field,
            value,
            "must not contain '#', which separates the parts of a key",
        ));
    }
    Ok(())
}

fn check_characters(field: &str, value: &str, extra: &str) -> Result<(), InvalidInput> {
    match value
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !extra.contains(*c))
    {
        Some(bad) => Err(InvalidInput::of_request(
            field,
            value,
            format!("must not contain {bad:?}; letters, digits and {extra} are allowed"),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_entity(name: &str, reason: Option<&str>) {
        match (EntityId::new(name), reason) {
            (Ok(_), None) => {}
            (Err(err), Some(reason)) => assert!(err.reason().contains(reason), "{err}"),
            (got, want) => panic!("{name:?}: got {got:?}, want {want:?}"),
        }
    }

    #[test]
    fn entity_ids_follow_the_shared_rules_in_order() {
        check_entity("user:42@example.com", None);
        check_entity("0-key", None);
        check_entity("", Some("empty"));
        check_entity(&"é".repeat(257), Some("256"));
        check_entity("a#b", Some("'#'"));
        check_entity("-a", Some("start"));
        check_entity("a b", Some("' '"));
        check_entity("abc\n", Some("\\n"));
    }

    #[test]
    fn resources_may_hold_slashes_and_colons() {
        assert!(ResourceName::new("anthropic/claude-3:8b").is_ok());
        assert!(ResourceName::new("wcu").is_ok());
        assert!(ResourceName::new("_default_").is_err());
        assert_eq!(ResourceScope::new("_default_").unwrap(), ResourceScope::All);
        assert!(ResourceScope::new("GSI4PK").is_err());
    }

    #[test]
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "references are among the forms"
    )]
    fn texts_and_names_become_names() {
        fn check<N: PartialEq + fmt::Debug>(name: impl IntoName<N>, expected: &N) {
            assert_eq!(&name.into_name().unwrap(), expected);
        }
        let id = EntityId::new("key-1").unwrap();
        check("key-1", &id);
        check(&"key-1", &id);
        check("key-1".to_owned(), &id);
        check(&"key-1".to_owned(), &id);
        check(std::borrow::Cow::Borrowed("key-1"), &id);
        check(std::sync::Arc::<str>::from("key-1"), &id);
        check(&id, &id);
        check(id.clone(), &id);
        let resource = ResourceName::new("gpt-4").unwrap();
        let scope = ResourceScope::One(resource.clone());
        check(DEFAULT_RESOURCE, &ResourceScope::All);
        check("gpt-4", &scope);
        check(&resource, &scope);
        check(resource, &scope);
        check(&scope, &scope);
        let reserved = ResourceName::new("PK").unwrap();
        assert!(IntoName::<ResourceScope>::into_name(reserved).is_err());
        assert!(IntoName::<EntityId>::into_name("a#b").is_err());
    }

    #[test]
    fn wcu_is_reserved_exactly() {
        assert!(LimitName::new("wcu").is_err());
        assert!(LimitName::new("wcu2").is_ok());
        assert!(LimitName::new("tokens.per-minute_x").is_ok());
    }

    #[test]
    fn namespace_ids_are_eleven_url_safe_characters() {
        let id = NamespaceId::from_random([0xff; 8]).unwrap();
        assert_eq!(id.as_str(), "_________".to_string() + "_8");
        assert!(NamespaceId::from_random([0xf8, 0, 0, 0, 0, 0, 0, 0]).is_none());
        assert!(NamespaceId::new("short").is_err());
    }

    #[test]
    fn stack_names_say_which_rule_they_break() {
        for (name, reason) in [
            ("my_app", "underscores"),
            ("my.app", "periods"),
            ("1app", "letter"),
            ("a b", "spaces"),
        ] {
            assert!(StackName::new(name).unwrap_err().reason().contains(reason));
        }
        assert!(StackName::new("a".repeat(56)).is_err());
    }
}

//! The tags of a stack: those by which it is found, and the user's.

use std::collections::BTreeMap;

use zae_limiter_core::InvalidInput;
use zae_limiter_core::schema::SCHEMA_VERSION;
use zae_limiter_core::version::FUNCTIONS_LEVEL;

use crate::names::user_name;

/// Tags by key.
pub type Tags = BTreeMap<String, String>;

/// The tag by which stacks are found, and its value.
pub const MANAGED_BY: (&str, &str) = ("ManagedBy", "zae-limiter");
/// The tag that holds a stack's name as its user knows it.
pub const NAME: &str = "zae-limiter:name";
/// The tag that holds what a stack is for.
pub const TYPE: &str = "zae-limiter:type";
/// The tag that holds the release that deployed a stack.
pub const VERSION: &str = "zae-limiter:version";
/// The tag that holds the version of a stack's schema.
pub const SCHEMA: &str = "zae-limiter:schema-version";
/// The tag that holds the version of a stack's functions.
pub const FUNCTIONS: &str = "zae-limiter:lambda-version";
/// The type of a limiter stack.
pub const LIMITER: &str = "limiter";

/// The type of a stack that generates load.
pub const LOAD_TEST: &str = "load-test";

/// The most tags that CloudFormation accepts on a stack.
const MOST: usize = 50;

/// The release of this crate, which is that of the whole product.
pub(crate) const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The tags that every stack carries.
pub(crate) fn managed(stack: &str) -> Tags {
    let tags = [
        MANAGED_BY,
        (NAME, user_name(stack)),
        (TYPE, LIMITER),
        (VERSION, RELEASE),
        (SCHEMA, SCHEMA_VERSION),
        (FUNCTIONS, FUNCTIONS_LEVEL),
    ];
    tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// The tags that a stack is found by are there.
pub(crate) fn are_found_by(stack: &str, tags: &Tags) -> bool {
    let is = |key, value| tags.get(key).is_some_and(|found| found == value);
    is(MANAGED_BY.0, MANAGED_BY.1) && is(NAME, user_name(stack))
}

/// Checks tags of the user, as CloudFormation would.
pub(crate) fn check(user: &Tags) -> Result<(), InvalidInput> {
    for (key, value) in user {
        let wrong = |reason: &str| Err(InvalidInput::new("tags", format!("{key}={value}"), reason));
        if key.is_empty() || key.chars().count() > 128 {
            return wrong("a key must have 1 to 128 characters");
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return wrong("keys that begin with 'aws:' are reserved for AWS");
        }
        if value.chars().count() > 256 {
            return wrong("a value must have at most 256 characters");
        }
    }
    Ok(())
}

/// All tags of a stack: those it has, the user's over them, and the managed ones over both.
///
/// # Errors
/// If that is more than CloudFormation accepts.
pub(crate) fn merged(stack: &str, current: &Tags, user: &Tags) -> Result<Tags, InvalidInput> {
    let mut tags: Tags = current
        .iter()
        .filter(|(key, _)| !key.starts_with("aws:"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    tags.extend(user.clone());
    let managed = managed(stack);
    let count = managed.len();
    // What the stack is for stays: a stack of another kind is found by it.
    let kind = current.get(TYPE).cloned();
    tags.extend(managed);
    tags.extend(kind.map(|kind| (TYPE.to_owned(), kind)));
    if tags.len() > MOST {
        let reason = format!(
            "with the {count} tags that every stack carries these are {}, at most {MOST} are allowed; leave out \
             {}",
            tags.len(),
            tags.len() - MOST
        );
        return Err(InvalidInput::new("tags", format!("{} tags", user.len()), reason));
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect()
    }

    #[test]
    fn managed_tags_win_and_those_of_aws_stay_out() {
        let current = tags(&[
            ("env", "dev"),
            ("aws:cloudformation:stack-name", "x"),
            (VERSION, "0.0.1"),
        ]);
        let merged = merged(
            "ZAEL-app",
            &current,
            &tags(&[("env", "prod"), ("ManagedBy", "me")]),
        )
        .unwrap();
        let expected = tags(&[
            ("ManagedBy", "zae-limiter"),
            ("env", "prod"),
            (NAME, "app"),
            (TYPE, "limiter"),
            (VERSION, RELEASE),
            (SCHEMA, "0.10.0"),
            (FUNCTIONS, FUNCTIONS_LEVEL),
        ]);
        assert_eq!(merged, expected);
        assert!(are_found_by("ZAEL-app", &merged));
        assert!(!are_found_by("app", &current));
    }

    #[test]
    fn the_limit_counts_all_tags() {
        let many = |count: usize| {
            (0..count)
                .map(|n| (format!("k{n}"), String::new()))
                .collect::<Tags>()
        };
        assert_eq!(merged("app", &Tags::new(), &many(44)).unwrap().len(), 50);
        let err = merged("app", &Tags::new(), &many(45)).unwrap_err();
        assert!(err.reason().ends_with("leave out 1"), "{err}");
        // One that replaces a managed tag takes no place of its own.
        let mut fits = many(44);
        fits.insert(MANAGED_BY.0.into(), "x".into());
        assert_eq!(merged("app", &Tags::new(), &fits).unwrap().len(), 50);
    }

    #[test]
    fn tags_that_aws_would_refuse() {
        for (key, value, reason) in [
            ("", String::new(), "1 to 128"),
            ("aws:x", String::new(), "reserved"),
            ("AWS:x", String::new(), "reserved"),
            (&*"k".repeat(129), String::new(), "1 to 128"),
            ("k", "v".repeat(257), "at most 256"),
        ] {
            let err = check(&Tags::from([(key.to_owned(), value)])).unwrap_err();
            assert!(err.reason().contains(reason), "{err}");
        }
        check(&tags(&[("k", "")])).unwrap();
    }
}

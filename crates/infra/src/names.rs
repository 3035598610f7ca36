//! Names derived from a stack's name, and whether AWS accepts them.

use zae_limiter_core::{InvalidInput, StackName};

/// The longest name of a function.
const FUNCTION_NAME: usize = 64;

/// The shortest name of a DynamoDB table.
const TABLE_NAME: usize = 3;

/// The end of each role's name, with the parameter that sets it, in the order in which they are checked.
pub(crate) const ROLES: [(&str, &str); 5] = [
    ("aggr", "AggregatorRoleName"),
    ("app", "AppRoleName"),
    ("admin", "AdminRoleName"),
    ("read", "ReadOnlyRoleName"),
    ("prov", "ProvisionerRoleName"),
];

/// The end of each managed policy's name, with the parameter that sets it.
pub(crate) const POLICIES: [(&str, &str); 6] = [
    ("acq", "AcquireOnlyPolicyName"),
    ("full", "FullAccessPolicyName"),
    ("read", "ReadOnlyPolicyName"),
    ("ns-acq", "NamespaceAcquirePolicyName"),
    ("ns-full", "NamespaceFullAccessPolicyName"),
    ("ns-read", "NamespaceReadOnlyPolicyName"),
];

/// The name of the function that writes usage snapshots and archives audit events.
pub fn aggregator(stack: &str) -> String {
    format!("{stack}-aggregator")
}

/// The name of the function that applies limits from manifests.
pub fn provisioner(stack: &str) -> String {
    format!("{stack}-limits-provisioner")
}

/// Names of what `loadtest deploy` creates for a target stack.
pub mod load {
    /// The stack that generates load on `target`.
    pub fn stack(target: &str) -> String {
        format!("{target}-load")
    }

    /// The function that generates load.
    pub fn worker(target: &str) -> String {
        format!("{target}-load-worker")
    }

    /// The ECS cluster that the master runs in.
    pub fn cluster(target: &str) -> String {
        stack(target)
    }

    /// The master: its ECS service, and the family of its task definition.
    pub fn master(target: &str) -> String {
        format!("{target}-load-master")
    }
}

/// The name by which a user knows a stack: without the prefix that old releases put before it.
pub fn user_name(stack: &str) -> &str {
    match stack.strip_prefix("ZAEL-") {
        Some(name) if !name.is_empty() => name,
        _ => stack,
    }
}

/// Checks a stack's name, and the names that follow from it for a table and for the functions it will have.
///
/// # Errors
/// Names the resource whose name AWS would refuse.
pub(crate) fn check(stack: &str, with_aggregator: bool, with_provisioner: bool) -> Result<(), InvalidInput> {
    StackName::new(stack)?;
    let wrong = |reason| Err(InvalidInput::new("name", stack, reason));
    if stack.len() < TABLE_NAME {
        return wrong(format!(
            "must have at least {TABLE_NAME} characters, as the table has this name"
        ));
    }
    let functions = [
        (with_aggregator, aggregator(stack), "aggregator"),
        (with_provisioner, provisioner(stack), "provisioner"),
    ];
    for (_, name, what) in functions.iter().filter(|(wanted, ..)| *wanted) {
        if name.len() > FUNCTION_NAME {
            let most = FUNCTION_NAME - (name.len() - stack.len());
            return wrong(format!(
                "must have at most {most} characters, because the function '{name}' may have {FUNCTION_NAME}; \
                 shorten it, or leave the function out with --no-{what}"
            ));
        }
    }
    Ok(())
}

/// A rule for naming roles or policies: text around one `{}`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format<'a> {
    /// The option it was given as.
    pub(crate) option: &'static str,
    /// The kind of resource.
    pub(crate) field: &'static str,
    /// The longest name.
    pub(crate) longest: usize,
    /// The longest rule, placeholder included.
    pub(crate) template: usize,
    /// The rule.
    pub(crate) text: &'a str,
}

impl<'a> Format<'a> {
    pub(crate) const fn roles(text: &'a str) -> Self {
        Self {
            option: "role_name_format",
            field: "role_name",
            longest: 64,
            template: 55,
            text,
        }
    }

    pub(crate) const fn policies(text: &'a str) -> Self {
        Self {
            option: "policy_name_format",
            field: "policy_name",
            longest: 128,
            template: 120,
            text,
        }
    }

    /// Checks the rule alone.
    pub(crate) fn check(&self) -> Result<(), InvalidInput> {
        let wrong = |reason| Err(InvalidInput::new(self.option, self.text, reason));
        let found = self.text.matches("{}").count();
        if found != 1 {
            return wrong(format!(
                "must contain exactly one '{{}}' placeholder, found {found}"
            ));
        }
        let length = self.text.chars().count();
        if length > self.template {
            return wrong(format!(
                "has {length} characters, at most {} are allowed, so that names fit IAM's {} characters",
                self.template, self.longest
            ));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
        match self.text.replacen("{}", "", 1).chars().find(|c| !allowed(*c)) {
            Some(bad) => wrong(format!(
                "contains '{bad}'; names in IAM have letters, digits and + = , . @ _ -"
            )),
            None => Ok(()),
        }
    }

    /// The name for a component of a stack.
    pub(crate) fn name(&self, stack: &str, component: &str) -> Result<String, InvalidInput> {
        let name = self.text.replacen("{}", &format!("{stack}-{component}"), 1);
        let length = name.chars().count();
        if length <= self.longest {
            return Ok(name);
        }
        let around = self.text.chars().count() - "{}".len();
        let reason = format!(
            "exceeds IAM's {}-character limit by {}; with this format the stack's name may have at most {} \
             characters",
            self.longest,
            length - self.longest,
            (self.longest - around).saturating_sub(1 + component.len())
        );
        Err(InvalidInput::new(self.field, name, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused<T: std::fmt::Debug>(result: Result<T, InvalidInput>, reason: &str) {
        let err = result.unwrap_err();
        assert!(err.reason().contains(reason), "{err}");
    }

    #[test]
    fn the_table_and_each_function_must_be_nameable() {
        check("abc", true, true).unwrap();
        check(&"a".repeat(45), true, true).unwrap();
        check(&"a".repeat(53), true, false).unwrap();
        check(&"a".repeat(55), false, false).unwrap();
        refused(check("ab", false, false), "at least 3 characters");
        refused(check(&"a".repeat(46), true, true), "at most 45 characters");
        refused(check(&"a".repeat(46), true, true), "a-limits-provisioner'");
        refused(check(&"a".repeat(54), true, true), "at most 53 characters");
        refused(check(&"a".repeat(56), false, false), "");
        refused(check("a_b", false, false), "");
    }

    #[test]
    fn names_of_the_load_stack_follow_the_target() {
        assert_eq!(load::stack("my-app"), "my-app-load");
        assert_eq!(load::worker("my-app"), "my-app-load-worker");
        assert_eq!(load::cluster("my-app"), "my-app-load");
        assert_eq!(load::master("my-app"), "my-app-load-master");
    }

    #[test]
    fn a_format_has_one_placeholder_and_fits() {
        let roles = Format::roles("pb-{}-PowerUser");
        roles.check().unwrap();
        assert_eq!(roles.name("my-app", "aggr").unwrap(), "pb-my-app-aggr-PowerUser");
        refused(Format::roles("plain").check(), "found 0");
        refused(Format::roles("{}{}").check(), "found 2");
        refused(Format::roles("a/{}").check(), "'/'");
        refused(
            Format::roles(&format!("{}{{}}", "x".repeat(54))).check(),
            "at most 55",
        );
        Format::policies(&format!("{}{{}}", "x".repeat(118)))
            .check()
            .unwrap();
        refused(
            Format::policies(&format!("{}{{}}", "x".repeat(119))).check(),
            "at most 120",
        );
    }

    #[test]
    fn a_name_that_is_too_long_tells_what_would_fit() {
        let text = format!("{}{{}}", "x".repeat(53));
        let format = Format::roles(&text);
        format.check().unwrap();
        format.name("my-ap", "admin").unwrap();
        refused(format.name("my-apps", "admin"), "limit by 2; ");
        refused(format.name("my-apps", "admin"), "at most 5 characters");
    }

    #[test]
    fn old_stacks_are_known_without_their_prefix() {
        assert_eq!(user_name("ZAEL-my-app"), "my-app");
        assert_eq!(user_name("ZAEL-"), "ZAEL-");
        assert_eq!(user_name("my-app"), "my-app");
    }
}

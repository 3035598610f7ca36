//! What a caller has to acknowledge before a template may change who can do what.

use super::document::Template;
use super::resource::Resource;
use crate::template::error::{ErrorKind, TemplateError};

const IAM: &str = "CAPABILITY_IAM";
const NAMED_IAM: &str = "CAPABILITY_NAMED_IAM";

/// Types of IAM resources whose names the template may choose, with the property that does.
const NAMED: [(&str, &str); 5] = [
    ("AWS::IAM::Group", "GroupName"),
    ("AWS::IAM::InstanceProfile", "InstanceProfileName"),
    ("AWS::IAM::ManagedPolicy", "ManagedPolicyName"),
    ("AWS::IAM::Role", "RoleName"),
    ("AWS::IAM::User", "UserName"),
];

/// A capability that a template needs, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// `CAPABILITY_IAM` or `CAPABILITY_NAMED_IAM`.
    pub required: &'static str,
    /// The types of resources that it is needed for, in CloudFormation's sentence.
    pub reason: String,
}

impl Template {
    /// The capability that the declared resources need, whether their conditions hold or not.
    pub fn capabilities(&self) -> Option<Capabilities> {
        let types: Vec<_> = self
            .resource_types()
            .into_iter()
            .filter(|name| name.starts_with("AWS::IAM::"))
            .collect();
        if types.is_empty() {
            return None;
        }
        let required = if self.resources().values().any(has_name) {
            NAMED_IAM
        } else {
            IAM
        };
        let reason = format!(
            "The following resource(s) require capabilities: [{}]",
            types.join(", ")
        );
        Some(Capabilities { required, reason })
    }

    /// The error for a caller who acknowledged `given` only, if that is not enough.
    pub fn lacks_capabilities(&self, given: &[String]) -> Option<TemplateError> {
        let required = self.capabilities()?.required;
        let enough = given.iter().any(|given| given == required || given == NAMED_IAM);
        let error = || {
            TemplateError::new(
                ErrorKind::Parameter,
                format!("Requires capabilities : [{required}]"),
            )
        };
        (!enough).then(error)
    }
}

fn has_name(resource: &Resource) -> bool {
    NAMED.iter().any(|(kind, property)| {
        resource.resource_type() == *kind
            && resource
                .raw_properties()
                .is_some_and(|properties| properties.get(property).is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::Template;

    #[track_caller]
    fn check(resources: &str, given: &[&str], expected: Option<&str>) {
        let template = Template::parse(&format!("{{\"Resources\": {{{resources}}}}}")).unwrap();
        let given: Vec<_> = given.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(
            template
                .lacks_capabilities(&given)
                .map(|error| error.to_string())
                .as_deref(),
            expected
        );
    }

    #[test]
    fn iam_needs_to_be_acknowledged() {
        let plain = r#""A": {"Type": "AWS::SQS::Queue"}"#;
        let role = r#""A": {"Type": "AWS::IAM::Role"}"#;
        let named = r#""A": {"Type": "AWS::IAM::Role", "Properties": {"RoleName": "x"}}"#;
        let policy = r#""A": {"Type": "AWS::IAM::Policy", "Properties": {"PolicyName": "x"}}"#;
        check(plain, &[], None);
        check(role, &[], Some("Requires capabilities : [CAPABILITY_IAM]"));
        check(policy, &["CAPABILITY_IAM"], None);
        check(role, &["CAPABILITY_NAMED_IAM"], None);
        check(
            named,
            &["CAPABILITY_IAM"],
            Some("Requires capabilities : [CAPABILITY_NAMED_IAM]"),
        );
        check(named, &["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"], None);
    }
}

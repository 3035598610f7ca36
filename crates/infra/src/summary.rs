//! [`StackSummary`]: a stack as CloudFormation describes it.

use std::collections::BTreeMap;

use aws_sdk_cloudformation::types as sdk;

use crate::events::instant;
use crate::names;
use crate::tags::Tags;
use crate::template::FUNCTION_CODE_KEY;

/// A stack as CloudFormation describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StackSummary {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub id: String,
    /// Its status, such as `CREATE_COMPLETE`.
    pub status: String,
    /// Why it has that status.
    pub reason: Option<String>,
    /// The template's parameters.
    pub parameters: BTreeMap<String, String>,
    /// The template's outputs.
    pub outputs: BTreeMap<String, String>,
    /// Its tags.
    pub tags: Tags,
    /// When it was created, as `YYYY-MM-DDTHH:MM:SSZ`.
    pub created: Option<String>,
    /// When it was last changed.
    pub updated: Option<String>,
}

impl StackSummary {
    pub(crate) fn of(stack: &sdk::Stack) -> Self {
        let pairs = |pairs: &mut dyn Iterator<Item = (Option<&str>, Option<&str>)>| {
            pairs
                .filter_map(|(key, value)| Some((key?.to_owned(), value.unwrap_or_default().to_owned())))
                .collect::<BTreeMap<_, _>>()
        };
        Self {
            name: stack.stack_name().unwrap_or_default().to_owned(),
            id: stack.stack_id().unwrap_or_default().to_owned(),
            status: stack
                .stack_status()
                .map(sdk::StackStatus::as_str)
                .unwrap_or_default()
                .to_owned(),
            reason: stack.stack_status_reason().map(str::to_owned),
            parameters: pairs(
                &mut stack
                    .parameters()
                    .iter()
                    .map(|p| (p.parameter_key(), p.parameter_value())),
            ),
            outputs: pairs(&mut stack.outputs().iter().map(|o| (o.output_key(), o.output_value()))),
            tags: pairs(&mut stack.tags().iter().map(|tag| (tag.key(), tag.value()))),
            created: instant(stack.creation_time()),
            updated: instant(stack.last_updated_time()),
        }
    }

    /// A parameter's value; that of the template's default if the stack has no such parameter.
    fn parameter<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.parameters.get(name).map_or(default, String::as_str)
    }

    /// Whether an operation is under way.
    pub fn is_in_progress(&self) -> bool {
        self.status.ends_with("_IN_PROGRESS") && self.status != "REVIEW_IN_PROGRESS"
    }

    /// Whether the last operation failed, or was rolled back.
    pub fn is_failed(&self) -> bool {
        self.status.contains("FAILED") || self.status.contains("ROLLBACK")
    }

    /// Whether the stack is as it was last asked to be.
    pub fn is_healthy(&self) -> bool {
        matches!(
            self.status.as_str(),
            "CREATE_COMPLETE" | "UPDATE_COMPLETE" | "IMPORT_COMPLETE"
        )
    }

    /// Whether its template takes the functions' code as parameters, as this project's does.
    pub fn takes_code(&self) -> bool {
        self.parameters.contains_key(FUNCTION_CODE_KEY)
    }

    /// Whether its parameters demand the aggregator, however it gets its code.
    pub fn wants_aggregator(&self) -> bool {
        self.parameter("EnableAggregator", "true") == "true"
            && (self.parameter("EnableIAM", "true") == "true"
                || !self.parameter("AggregatorRoleArn", "").is_empty())
    }

    /// Whether its parameters demand the provisioner.
    pub fn wants_provisioner(&self) -> bool {
        self.parameter("EnableProvisioner", "true") == "true" && self.parameter("EnableIAM", "true") == "true"
    }

    /// The functions that its parameters demand.
    pub fn wanted_functions(&self) -> Vec<String> {
        let wanted = [
            (self.wants_aggregator(), names::aggregator(&self.name)),
            (self.wants_provisioner(), names::provisioner(&self.name)),
        ];
        wanted
            .into_iter()
            .filter(|(wanted, _)| *wanted)
            .map(|(_, name)| name)
            .collect()
    }

    /// The release that deployed the stack, by its tags.
    pub fn release(&self) -> Option<&str> {
        self.tags.get(crate::tags::VERSION).map(String::as_str)
    }
}

//! The templates of stacks, with their parameters.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Stacks;
use super::record::{Stack, Wanted, stack_name};
use crate::store::StoreError;
use crate::template::{Bound, Given, GivenValue, ParameterValues, Pseudo, Template, TemplateError};
use crate::wire::ACCOUNT;

/// A stack's template with its parameters.
///
/// # Errors
/// An error about them.
pub(super) fn bound(stack: &Stack, wanted: &Wanted) -> Result<Bound, TemplateError> {
    let template = Arc::new(Template::parse_stored(&wanted.template)?);
    let values = values_of(&template, &wanted.parameters)?;
    template.bind(values, pseudo(stack, wanted))
}

/// The values that a stack keeps, as its template takes them.
pub(super) fn values_of(
    template: &Template,
    parameters: &BTreeMap<String, String>,
) -> Result<ParameterValues, TemplateError> {
    let given: Vec<Given> = parameters
        .iter()
        .map(|(name, value)| Given {
            name: name.clone(),
            value: GivenValue::Text(value.clone()),
        })
        .collect();
    template.values(&given, None)
}

/// The pseudo parameters of a stack's template.
pub(super) fn pseudo(stack: &Stack, wanted: &Wanted) -> Pseudo {
    Pseudo {
        stack_name: stack.name.clone(),
        stack_id: stack.id.clone(),
        region: stack.region.clone(),
        account_id: ACCOUNT.to_owned(),
        partition: "aws".to_owned(),
        url_suffix: "amazonaws.com".to_owned(),
        notification_arns: wanted.notification_arns.clone(),
    }
}

/// The names of the stacks that import an export.
pub(super) fn importers(stacks: &Stacks, export: &str) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    for stack in stacks.live()? {
        let lives = !stack.wanted.template.is_empty();
        // Most templates import nothing, and need not be read.
        if lives && stack.wanted.template.contains("ImportValue") {
            let imports = bound(&stack, &stack.wanted).and_then(|bound| bound.imports());
            if imports.is_ok_and(|imports| imports.contains(export)) {
                found.push(stack_name(&stack.id).to_owned());
            }
        }
    }
    Ok(found)
}

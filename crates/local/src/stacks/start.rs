//! What is checked before an operation begins, and its beginning.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use super::operation::{Work, begin};
use super::record::{Before, OnFailure, STACK, Stack, Task, Wanted};
use super::resources::{self, Replacing};
use super::templates::{bound, importers, pseudo, values_of};
use super::{Stacks, event};
use crate::clock::now_ms;
use crate::template::{Bound, Given, NO_UPDATES, Resource, Template, TemplateError, changes};
use crate::wire::{ACCOUNT, Refusal, uuid};

/// The longest name of a stack.
const LONGEST_NAME: usize = 128;

/// The requested state of a stack. Values that are `None` do not change.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) template: Option<String>,
    pub(super) given: Vec<Given>,
    pub(super) tags: Option<Vec<(String, String)>>,
    pub(super) capabilities: Vec<String>,
    pub(super) notification_arns: Option<Vec<String>>,
    pub(super) role_arn: Option<String>,
}

/// How a stack is to be created, beside what it is to be.
#[derive(Debug, Clone, Default)]
pub(super) struct Creation {
    pub(super) region: String,
    pub(super) on_failure: OnFailure,
    pub(super) protected: bool,
    pub(super) token: Option<String>,
}

impl From<TemplateError> for Refusal {
    fn from(err: TemplateError) -> Self {
        Self::new("ValidationError", err.to_string())
    }
}

/// Refuses what cannot be a stack's name.
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    let is_good = name.len() <= LONGEST_NAME
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if is_good {
        return Ok(());
    }
    Err(Refusal::new(
        "ValidationError",
        format!(
            "1 validation error detected: Value '{name}' at 'stackName' failed to satisfy constraint: Member must \
             satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*, and have at most {LONGEST_NAME} characters"
        ),
    ))
}

/// A stack that does not exist yet.
pub(super) fn new_stack(name: &str, creation: &Creation) -> Stack {
    let region = &creation.region;
    Stack {
        id: format!(
            "arn:aws:cloudformation:{region}:{ACCOUNT}:stack/{name}/{}",
            uuid()
        ),
        name: name.to_owned(),
        region: region.clone(),
        created: now_ms(),
        on_failure: creation.on_failure,
        protected: creation.protected,
        ..Stack::default()
    }
}

/// The state of a stack after the requested change.
///
/// # Errors
/// An error about the template, the parameters, the capabilities, or the resources' types.
pub(super) fn prepared(stack: &Stack, asked: Asked) -> Result<(Wanted, Bound), Refusal> {
    let before = &stack.wanted;
    let text = asked.template.unwrap_or_else(|| before.template.clone());
    let template = Arc::new(Template::parse_stored(&text)?);
    let previous = if before.template.is_empty() {
        None
    } else {
        let old = Template::parse_stored(&before.template)?;
        Some(values_of(&old, &before.parameters)?)
    };
    let values = template.values(&asked.given, previous.as_ref())?;
    if let Some(lacking) = template.lacks_capabilities(&asked.capabilities) {
        return Err(Refusal::new(
            "InsufficientCapabilitiesException",
            lacking.to_string(),
        ));
    }
    let unknown: Vec<&str> = template
        .resource_types()
        .into_iter()
        .filter(|kind| !resources::is_known(kind))
        .collect();
    if !unknown.is_empty() {
        return Err(Refusal::new(
            "ValidationError",
            format!(
                "Template format error: Unrecognized resource types: [{}]; the local endpoint has {}",
                unknown.join(", "),
                resources::KINDS.join(", ")
            ),
        ));
    }
    let mut read = template.attributes_read().into_iter();
    let kind = |id: &str| template.resources().get(id).map(Resource::resource_type);
    let lacking =
        read.find(|(id, attribute)| kind(id).is_some_and(|kind| !resources::has_attribute(kind, attribute)));
    if let Some((id, attribute)) = lacking {
        return Err(Refusal::new(
            "ValidationError",
            format!(
                "Template error: resource {id} does not support attribute type {attribute} in Fn::GetAtt"
            ),
        ));
    }
    let parameters = values
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let wanted = Wanted {
        template: text,
        parameters,
        tags: asked.tags.unwrap_or_else(|| before.tags.clone()),
        capabilities: asked.capabilities,
        notification_arns: asked
            .notification_arns
            .unwrap_or_else(|| before.notification_arns.clone()),
        role_arn: asked.role_arn.or_else(|| before.role_arn.clone()),
    };
    let bound = template.bind(values, pseudo(stack, &wanted))?;
    Ok((wanted, bound))
}

/// Creates a stack. It is under way when this returns.
pub(super) fn create(
    stacks: &Arc<Stacks>,
    name: &str,
    asked: Asked,
    creation: &Creation,
) -> Result<Stack, Refusal> {
    check_name(name)?;
    let _beginning = stacks.beginning.lock().unwrap_or_else(PoisonError::into_inner);
    if stacks.find(name)?.is_some() {
        return Err(Refusal::new(
            "AlreadyExistsException",
            format!("Stack [{name}] already exists"),
        ));
    }
    let mut stack = new_stack(name, creation);
    let (wanted, bound) = prepared(&stack, asked)?;
    stack.wanted = wanted;
    begin_creation(stacks, &mut stack, bound, creation.token.clone())?;
    Ok(stack)
}

/// Begins to create a stack that is prepared. The caller holds `beginning`.
pub(super) fn begin_creation(
    stacks: &Arc<Stacks>,
    stack: &mut Stack,
    bound: Bound,
    token: Option<String>,
) -> Result<(), Refusal> {
    started(stacks, stack, "CREATE_IN_PROGRESS", token, None)?;
    begin(stacks, stack.clone(), Work::Create(Box::new(bound)));
    Ok(())
}

/// Changes a stack. It is under way when this returns.
pub(super) fn update(
    stacks: &Arc<Stacks>,
    name: &str,
    asked: Asked,
    token: Option<String>,
) -> Result<Stack, Refusal> {
    let _beginning = stacks.beginning.lock().unwrap_or_else(PoisonError::into_inner);
    let mut stack = stacks.need(name)?;
    check_changeable(&stack)?;
    let (wanted, new) = prepared(&stack, asked)?;
    let old = bound(&stack, &stack.wanted)?;
    let changed = changes(&old, &new, &stacks.known(&stack)?, &Replacing)?;
    if changed.is_empty() && wanted.tags == stack.wanted.tags {
        return Err(Refusal::new("ValidationError", NO_UPDATES));
    }
    begin_update(stacks, &mut stack, wanted, new, token)?;
    Ok(stack)
}

/// Begins to change a stack that may be changed. The caller holds `beginning`.
pub(super) fn begin_update(
    stacks: &Arc<Stacks>,
    stack: &mut Stack,
    wanted: Wanted,
    new: Bound,
    token: Option<String>,
) -> Result<(), Refusal> {
    let before = Before {
        wanted: std::mem::replace(&mut stack.wanted, wanted),
        resources: stack.resources.clone(),
        outputs: stack.outputs.clone(),
        change_set: stack.change_set.clone(),
    };
    stack.updated = Some(now_ms());
    started(stacks, stack, "UPDATE_IN_PROGRESS", token, Some(before))?;
    begin(stacks, stack.clone(), Work::Update(Box::new(new)));
    Ok(())
}

/// Refuses a stack that cannot be changed.
pub(super) fn check_changeable(stack: &Stack) -> Result<(), Refusal> {
    let is_good = stack.status.ends_with("_COMPLETE")
        && !matches!(stack.status.as_str(), "ROLLBACK_COMPLETE" | "DELETE_COMPLETE");
    if is_good {
        return Ok(());
    }
    Err(Refusal::new(
        "ValidationError",
        format!(
            "Stack:{} is in {} state and can not be updated.",
            stack.id, stack.status
        ),
    ))
}

/// Deletes a stack; one that does not exist is deleted already.
pub(super) fn delete(
    stacks: &Arc<Stacks>,
    name: &str,
    retained: &[&str],
    token: Option<String>,
) -> Result<(), Refusal> {
    let _beginning = stacks.beginning.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut stack) = stacks.find(name)? else {
        return Ok(());
    };
    if stack.is_gone() || stack.status == "DELETE_IN_PROGRESS" {
        return Ok(());
    }
    if stack.is_busy() {
        return Err(Refusal::new(
            "ValidationError",
            format!(
                "Stack [{}] cannot be deleted while in status {}",
                stack.name, stack.status
            ),
        ));
    }
    if stack.protected {
        return Err(Refusal::new(
            "ValidationError",
            format!(
                "Stack [{}] cannot be deleted while TerminationProtection is enabled",
                stack.name
            ),
        ));
    }
    if !retained.is_empty() && stack.status != "DELETE_FAILED" {
        return Err(Refusal::new(
            "ValidationError",
            "Invalid operation on stack: RetainResources can be given for a stack in DELETE_FAILED only",
        ));
    }
    for export in stack.outputs.iter().filter_map(|output| output.export.as_ref()) {
        if let Some(importer) = importers(stacks, export)?.first() {
            return Err(Refusal::new(
                "ValidationError",
                format!("Export {export} cannot be deleted as it is in use by {importer}"),
            ));
        }
    }
    started(stacks, &mut stack, "DELETE_IN_PROGRESS", token, None)?;
    let retained: BTreeSet<String> = retained.iter().map(|id| (*id).to_owned()).collect();
    begin(stacks, stack, Work::Delete(retained));
    Ok(())
}

/// Writes down that an operation has begun.
fn started(
    stacks: &Stacks,
    stack: &mut Stack,
    status: &str,
    token: Option<String>,
    before: Option<Before>,
) -> Result<(), Refusal> {
    const WHY: &str = "User Initiated";
    stack.status = status.into();
    stack.reason = Some(WHY.to_owned());
    stack.task = Some(Task {
        token,
        before,
        replaced: Vec::new(),
    });
    // A stack that is said to be at work without anything at work on it would stay so.
    let event = event(stack, &stack.name, &stack.id, STACK, status, Some(WHY));
    stacks.save_with(stack, &event)?;
    tracing::info!(stack = stack.name, status, "stack");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_operation_that_cannot_be_recorded_has_not_begun() {
        let files = tempfile::tempdir().unwrap();
        let stacks = Stacks::of_test(&files);
        let mut stack = new_stack("app", &Creation::default());
        stack.status = "CREATE_COMPLETE".into();
        stacks.save(&stack).unwrap();
        stacks
            .store
            .database()
            .execute_batch("ALTER TABLE stack_events RENAME TO away")
            .unwrap();
        started(&stacks, &mut stack.clone(), "DELETE_IN_PROGRESS", None, None).unwrap_err();
        assert_eq!(stacks.need("app").unwrap().status, "CREATE_COMPLETE");
    }
}

//! Change sets: what an update would do, said before it is done.

use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};

use super::record::{STACK, Wanted};
use super::resources::Replacing;
use super::start::{
    Asked, Creation, begin_creation, begin_update, check_changeable, check_name, new_stack, prepared,
};
use super::templates::bound;
use super::{Stacks, event};
use crate::clock::now_ms;
use crate::store::StoreError;
use crate::template::{Action, ResourceChange, additions, changes};
use crate::wire::{ACCOUNT, Refusal, uuid};

/// The kind of a change set's document, which is named by its id.
const CHANGE_SETS: &str = "change-set";

/// Why a change set without changes fails; clients look for these words.
const NOTHING: &str = "The submitted information didn't contain changes. Submit different information to create a \
                       change set.";

/// A change set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ChangeSet {
    /// Its ARN.
    pub(super) id: String,
    /// Its name.
    pub(super) name: String,
    /// The stack's ARN.
    pub(super) stack: String,
    /// Its type.
    pub(super) description: Option<String>,
    /// Whether it creates the stack.
    pub(super) creates: bool,
    /// The new state of the stack.
    pub(super) wanted: Wanted,
    /// The changes.
    pub(super) changes: Vec<Change>,
    /// `CREATE_COMPLETE` or `FAILED`.
    pub(super) status: String,
    /// Why.
    pub(super) reason: Option<String>,
    /// `AVAILABLE`, `UNAVAILABLE`, `EXECUTE_COMPLETE` or `OBSOLETE`.
    pub(super) execution: String,
    /// When it was made.
    pub(super) created: i64,
}

/// A resource that would change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) action: String,
    pub(super) logical: String,
    pub(super) physical: Option<String>,
    pub(super) kind: String,
    pub(super) replacement: Option<String>,
    pub(super) scope: Vec<String>,
    pub(super) details: Vec<Detail>,
}

/// A property that would change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Detail {
    pub(super) attribute: String,
    pub(super) name: Option<String>,
    pub(super) recreation: String,
    pub(super) evaluation: String,
    pub(super) source: String,
    pub(super) cause: Option<String>,
}

impl From<&ResourceChange> for Change {
    fn from(change: &ResourceChange) -> Self {
        Self {
            action: change.action.as_str().to_owned(),
            logical: change.logical_id.clone(),
            physical: change.physical_id.clone(),
            kind: change.resource_type.clone(),
            replacement: change
                .replacement
                .filter(|_| change.action == Action::Modify)
                .map(|replacement| replacement.as_str().to_owned()),
            scope: change
                .scope
                .iter()
                .map(|scope| scope.as_str().to_owned())
                .collect(),
            details: change
                .details
                .iter()
                .map(|detail| Detail {
                    attribute: detail.attribute.as_str().to_owned(),
                    name: detail.name.clone(),
                    recreation: detail.recreation.as_str().to_owned(),
                    evaluation: detail.evaluation.as_str().to_owned(),
                    source: detail.source.as_str().to_owned(),
                    cause: detail.cause.clone(),
                })
                .collect(),
        }
    }
}

/// The name and type of a change set.
#[derive(Debug, Clone, Default)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) creates: bool,
}

/// Makes a change set; for one that creates its stack, the stack, too.
pub(super) fn create(
    stacks: &Arc<Stacks>,
    stack: &str,
    named: Named,
    asked: Asked,
    creation: &Creation,
) -> Result<ChangeSet, Refusal> {
    check_set_name(&named.name)?;
    let _beginning = stacks.beginning.lock().unwrap_or_else(PoisonError::into_inner);
    let found = stacks.find(stack)?;
    let stack = match (named.creates, found) {
        (true, None) => {
            check_name(stack)?;
            new_stack(stack, creation)
        }
        (true, Some(found)) if found.status == "REVIEW_IN_PROGRESS" => found,
        (true, Some(found)) => {
            return Err(Refusal::new(
                "ValidationError",
                format!(
                    "Stack [{}] already exists and cannot be created again with the changeSet [{}].",
                    found.name, named.name
                ),
            ));
        }
        (false, _) => {
            let found = stacks.need(stack)?;
            check_changeable(&found)?;
            found
        }
    };
    let of_stack = all(stacks, &stack.id)?;
    if of_stack.iter().any(|set| set.name == named.name) {
        return Err(Refusal::new(
            "AlreadyExistsException",
            format!("ChangeSet {} already exists", named.name),
        ));
    }
    let (wanted, new) = prepared(&stack, asked)?;
    let changed = if named.creates {
        additions(&new)
    } else {
        let old = bound(&stack, &stack.wanted)?;
        changes(&old, &new, &stacks.known(&stack)?, &Replacing)?
    };
    let is_empty = changed.is_empty() && wanted.tags == stack.wanted.tags;
    let region = &stack.region;
    let set = ChangeSet {
        id: format!(
            "arn:aws:cloudformation:{region}:{ACCOUNT}:changeSet/{}/{}",
            named.name,
            uuid()
        ),
        name: named.name,
        stack: stack.id.clone(),
        description: named.description,
        creates: named.creates,
        wanted,
        changes: changed.resources.iter().map(Change::from).collect(),
        status: if is_empty { "FAILED" } else { "CREATE_COMPLETE" }.to_owned(),
        reason: is_empty.then(|| NOTHING.to_owned()),
        execution: if is_empty { "UNAVAILABLE" } else { "AVAILABLE" }.to_owned(),
        created: now_ms(),
    };
    if named.creates && stack.status.is_empty() {
        let mut stack = stack;
        stack.status = "REVIEW_IN_PROGRESS".into();
        stack.reason = Some("User Initiated".to_owned());
        let (name, id, status) = (&stack.name, &stack.id, &stack.status);
        let event = event(&stack, name, id, STACK, status, stack.reason.as_deref());
        stacks.save_with(&stack, &event)?;
    }
    stacks.store.put(CHANGE_SETS, &set.id, &set)?;
    Ok(set)
}

/// Forgets the change sets of a stack.
pub(super) fn forget(stacks: &Stacks, stack: &str) -> Result<(), StoreError> {
    for set in all(stacks, stack)? {
        stacks.store.delete(CHANGE_SETS, &set.id)?;
    }
    Ok(())
}

/// The change sets of a stack, oldest first.
pub(super) fn all(stacks: &Stacks, stack: &str) -> Result<Vec<ChangeSet>, StoreError> {
    let mut found: Vec<ChangeSet> = stacks
        .store
        .list::<ChangeSet>(CHANGE_SETS)?
        .into_iter()
        .map(|(_, set)| set)
        .filter(|set| set.stack == stack)
        .collect();
    found.sort_by_key(|set| set.created);
    Ok(found)
}

/// A change set by its ARN, or by its name and the stack's.
pub(super) fn need(stacks: &Stacks, set: &str, stack: Option<&str>) -> Result<ChangeSet, Refusal> {
    let found = if set.starts_with("arn:") {
        stacks.store.get(CHANGE_SETS, set)?
    } else {
        let stack = stack.ok_or_else(|| {
            Refusal::new(
                "ValidationError",
                "StackName must be specified if ChangeSetName is not specified as an ARN.",
            )
        })?;
        let stack = stacks.need(stack)?;
        all(stacks, &stack.id)?
            .into_iter()
            .find(|found| found.name == set)
    };
    found.ok_or_else(|| unknown(set))
}

fn unknown(set: &str) -> Refusal {
    Refusal::new("ChangeSetNotFound", format!("ChangeSet [{set}] does not exist")).status(404)
}

/// Does what a change set says.
pub(super) fn execute(
    stacks: &Arc<Stacks>,
    set: &str,
    stack: Option<&str>,
    token: Option<String>,
) -> Result<(), Refusal> {
    let _beginning = stacks.beginning.lock().unwrap_or_else(PoisonError::into_inner);
    let mut set = need(stacks, set, stack)?;
    if set.execution != "AVAILABLE" {
        return Err(Refusal::new(
            "InvalidChangeSetStatus",
            format!(
                "ChangeSet [{}] cannot be executed in its current status of [{}] and execution status of [{}]",
                set.id, set.status, set.execution
            ),
        ));
    }
    let mut stack = stacks.need(&set.stack)?;
    if !set.creates {
        check_changeable(&stack)?;
    }
    let bound = bound(&stack, &set.wanted)?;
    set.execution = "EXECUTE_COMPLETE".into();
    for mut other in all(stacks, &stack.id)? {
        if other.id != set.id && other.execution == "AVAILABLE" {
            other.execution = "OBSOLETE".into();
            stacks.store.put(CHANGE_SETS, &other.id, &other)?;
        }
    }
    stacks.store.put(CHANGE_SETS, &set.id, &set)?;
    if set.creates {
        stack.wanted = set.wanted;
        stack.change_set = Some(set.id);
        begin_creation(stacks, &mut stack, bound, token)
    } else {
        // What it was made by before is put aside with the rest.
        begin_update(stacks, &mut stack, set.wanted, bound, token)
    }
}

/// Deletes a change set; one that does not exist is deleted already.
pub(super) fn delete(stacks: &Stacks, set: &str, stack: Option<&str>) -> Result<(), Refusal> {
    match need(stacks, set, stack) {
        Ok(set) => {
            stacks.store.delete(CHANGE_SETS, &set.id)?;
            Ok(())
        }
        Err(refusal) if refusal.code == "ChangeSetNotFound" => Ok(()),
        Err(refusal) => Err(refusal),
    }
}

fn check_set_name(name: &str) -> Result<(), Refusal> {
    let is_good = name.len() <= 128
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if is_good {
        return Ok(());
    }
    Err(Refusal::new(
        "ValidationError",
        format!(
            "1 validation error detected: Value '{name}' at 'changeSetName' failed to satisfy constraint: Member must \
             satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*"
        ),
    ))
}

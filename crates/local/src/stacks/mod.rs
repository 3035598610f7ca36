//! CloudFormation: stacks of the resources that this endpoint has.
//!
//! `record` is a stack as it is kept, `operation` makes, changes and deletes one, step by step, `resources` knows each
//! type, `change_set` says beforehand what a change would do, `api` is what clients call. `templates` reads the
//! templates of stacks, which [`crate::template`] evaluates.

mod api;
mod change_set;
mod operation;
mod record;
mod resources;
mod start;
mod templates;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, params};
use serde_json::Value as Json;
use tokio::sync::oneshot;

use crate::clock::now_ms;
use crate::services::Services;
use crate::store::{self, Store, StoreError};
use crate::tagging::{Tagged, TaggedResource};
use crate::template::{Known, KnownResource};
use crate::wire::{Refusal, Reply, Request};
use record::{Event, Output, Stack};

/// The kind of a stack's document, which is named by the stack's id.
const STACKS: &str = "stack";

/// The kind of the document of a stack that was deleted. There may be many, and few ask for them.
const GONE: &str = "stack-gone";

/// How long a deleted stack is listed, as by CloudFormation, in milliseconds.
const REMEMBERED_MS: i64 = 90 * 24 * 60 * 60 * 1000;

/// The path at which custom resources answer; a token follows.
pub const CALLBACK: &str = "/_zae-limiter/custom-resource/";

/// The stacks.
#[derive(Debug)]
pub struct Stacks {
    store: Store,
    services: Services,
    /// Held while an operation is begun, so that a stack has one at a time.
    beginning: Mutex<()>,
    /// Custom resources that have not answered yet, by their tokens.
    waiting: Mutex<HashMap<String, oneshot::Sender<Json>>>,
    /// Shared by everything that is under way.
    work: Arc<()>,
}

impl Stacks {
    /// The stacks in these records, with resources of these services.
    pub fn new(store: Store, services: Services) -> Self {
        Self {
            store,
            services,
            beginning: Mutex::new(()),
            waiting: Mutex::new(HashMap::new()),
            work: Arc::new(()),
        }
    }

    /// Stacks in memory, for unit tests, at an address where no server listens.
    #[cfg(test)]
    fn of_test(files: &tempfile::TempDir) -> Arc<Self> {
        let engine = zae_limiter::table::EmbeddedEngine::memory();
        let tables = crate::tables::Tables::new(engine.expect("memory needs nothing"));
        let tables = tables.expect("memory needs nothing");
        let store = Store::memory().expect("memory needs nothing");
        let (files, url) = (files.path().to_owned(), "http://127.0.0.1:1".to_owned());
        let services = Services::open(tables, &store, files, url, crate::lambda::Python::none())
            .expect("the directory is new");
        Arc::new(Self::new(store, services))
    }

    /// Whether a request or an operation is under way.
    pub fn are_at_work(&self) -> bool {
        Arc::strong_count(&self.work) > 1
    }

    /// Counts as being under way until the result is dropped.
    fn at_work(&self) -> Arc<()> {
        Arc::clone(&self.work)
    }

    /// Every stack that was not deleted.
    fn live(&self) -> Result<Vec<Stack>, StoreError> {
        let stacks = self.store.list::<Stack>(STACKS)?.into_iter();
        Ok(stacks.map(|(_, stack)| stack).collect())
    }

    /// Every deleted stack that is still listed.
    fn gone(&self) -> Result<Vec<Stack>, StoreError> {
        let stacks = self.store.list::<Stack>(GONE)?.into_iter();
        Ok(stacks.map(|(_, stack)| stack).collect())
    }

    /// The stack of this id, or the one of this name that was not deleted.
    fn find(&self, name: &str) -> Result<Option<Stack>, StoreError> {
        if name.starts_with("arn:") {
            return match self.store.get(STACKS, name)? {
                None => self.store.get(GONE, name),
                live => Ok(live),
            };
        }
        Ok(self.live()?.into_iter().find(|stack| stack.name == name))
    }

    /// The stack of this name or id.
    fn need(&self, name: &str) -> Result<Stack, Refusal> {
        self.find(name)?
            .ok_or_else(|| Refusal::new("ValidationError", format!("Stack with id {name} does not exist")))
    }

    fn save(&self, stack: &Stack) -> Result<(), StoreError> {
        self.store.together(|database| put(database, stack))
    }

    /// Keeps an event.
    fn record(&self, event: &Event) -> Result<(), StoreError> {
        append(&self.store.database(), event)
    }

    /// Saves a stack and keeps an event of it, or does neither.
    fn save_with(&self, stack: &Stack, event: &Event) -> Result<(), StoreError> {
        self.store.together(|database| {
            put(database, stack)?;
            append(database, event)
        })
    }

    /// Deletes the records of stacks that were deleted long ago.
    fn forget(&self, now: i64) -> Result<(), StoreError> {
        for stack in self.gone()? {
            if stack
                .deleted
                .is_some_and(|deleted| now - deleted >= REMEMBERED_MS)
            {
                change_set::forget(self, &stack.id)?;
                self.store.together(|database| {
                    let events = "DELETE FROM stack_events WHERE stack = ?1";
                    database.prepare_cached(events)?.execute([&stack.id])?;
                    store::delete(database, GONE, &stack.id)
                })?;
            }
        }
        Ok(())
    }

    /// The events of a stack, newest first, after one that was seen: at most a page of them, and what comes after.
    fn events(
        &self,
        stack: &str,
        before: Option<i64>,
        page: usize,
    ) -> Result<(Vec<Event>, Option<i64>), StoreError> {
        let database = self.store.database();
        let mut query = database.prepare_cached(
            "SELECT id, body FROM stack_events WHERE stack = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3",
        )?;
        let limit = i64::try_from(page).unwrap_or(i64::MAX);
        let rows: Vec<(i64, String)> = query
            .query_map(params![stack, before.unwrap_or(i64::MAX), limit], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<Result<_, _>>()?;
        let next = rows.last().map(|(id, _)| *id).filter(|_| rows.len() == page);
        let events = rows
            .into_iter()
            .map(|(id, body)| {
                serde_json::from_str(&body).map_err(|source| StoreError::Document {
                    kind: "stack-event",
                    name: id.to_string(),
                    source,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok((events, next))
    }

    /// The exports of all stacks: name, stack's id, value.
    fn exports(&self) -> Result<Vec<(String, String, String)>, StoreError> {
        let mut found = Vec::new();
        for stack in self.live()? {
            for Output { value, export, .. } in &stack.outputs {
                if let Some(name) = export {
                    found.push((name.clone(), stack.id.clone(), value.clone()));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// The values of all exports, by name.
    fn exported(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let exports = self.exports()?.into_iter();
        Ok(exports.map(|(name, _, value)| (name, value)).collect())
    }

    /// The current values of references in a stack's template.
    fn known(&self, stack: &Stack) -> Result<Known, StoreError> {
        let resources = stack.resources.iter().map(|(id, resource)| {
            let known = KnownResource {
                physical_id: resource.physical.clone(),
                attributes: resource.attributes.clone(),
            };
            (id.clone(), known)
        });
        Ok(Known {
            resources: resources.collect(),
            exports: self.exported()?,
        })
    }

    /// Expects the answer of a custom resource; dropping it ends that.
    fn expect(&self, token: &str) -> oneshot::Receiver<Json> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, sender| !sender.is_closed());
        waiting.insert(token.to_owned(), sender);
        receiver
    }

    /// Takes the answer of a custom resource.
    pub fn answered(&self, token: &str, request: &Request) -> Reply {
        let sender = self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(token);
        let answer = serde_json::from_slice(&request.body).unwrap_or(Json::Null);
        match sender.map(|sender| sender.send(answer)) {
            Some(Ok(())) => Reply::empty(hyper::StatusCode::OK),
            _ => Reply::empty(hyper::StatusCode::FORBIDDEN),
        }
    }
}

impl Tagged for Stacks {
    fn resources(&self, region: &str) -> Result<Vec<TaggedResource>, Refusal> {
        let all = self.live()?.into_iter();
        let here = all.filter(|stack| stack.region == region);
        Ok(here
            .map(|stack| TaggedResource {
                arn: stack.id,
                tags: stack.wanted.tags.into_iter().collect(),
            })
            .collect())
    }
}

/// Serves a request of CloudFormation.
pub async fn serve(stacks: &Arc<Stacks>, request: &Request) -> Reply {
    api::serve(stacks, request).await
}

/// Takes up what was under way when the endpoint stopped.
///
/// # Errors
/// If the records cannot be read or written.
pub fn resume(stacks: &Arc<Stacks>) -> Result<(), StoreError> {
    stacks.forget(now_ms())?;
    for stack in stacks.live()? {
        if stack.is_gone() {
            // Written by a version that kept all stacks in one place.
            stacks.save(&stack)?;
        } else if stack.is_busy() {
            tracing::info!(
                stack = stack.name,
                status = stack.status,
                "taking up what was under way"
            );
            operation::begin(stacks, stack, operation::Work::Resume);
        }
    }
    Ok(())
}

/// Writes a stack down, where those of its kind are.
fn put(database: &Connection, stack: &Stack) -> Result<(), StoreError> {
    if stack.is_gone() {
        store::delete(database, STACKS, &stack.id)?;
        return store::put(database, GONE, &stack.id, stack);
    }
    store::put(database, STACKS, &stack.id, stack)
}

/// Writes an event down.
fn append(database: &Connection, event: &Event) -> Result<(), StoreError> {
    let body = serde_json::to_string(event).map_err(|source| StoreError::Document {
        kind: "stack-event",
        name: event.id.clone(),
        source,
    })?;
    database
        .prepare_cached("INSERT INTO stack_events (stack, body) VALUES (?1, ?2)")?
        .execute(params![event.stack, body])?;
    Ok(())
}

/// A new event of a stack.
fn event(
    stack: &Stack,
    logical: &str,
    physical: &str,
    kind: &str,
    status: &str,
    reason: Option<&str>,
) -> Event {
    Event {
        id: format!("{logical}-{status}-{}", crate::wire::uuid()),
        stack: stack.id.clone(),
        name: stack.name.clone(),
        logical: logical.to_owned(),
        physical: physical.to_owned(),
        kind: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        properties: None,
        token: stack.task.as_ref().and_then(|task| task.token.clone()),
        at: now_ms(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(name: &str, deleted: Option<i64>) -> Stack {
        Stack {
            id: format!("arn:aws:cloudformation:us-east-1:000000000000:stack/{name}/{deleted:?}"),
            name: name.to_owned(),
            status: if deleted.is_some() {
                "DELETE_COMPLETE".to_owned()
            } else {
                "CREATE_COMPLETE".to_owned()
            },
            deleted,
            ..Stack::default()
        }
    }

    #[tokio::test]
    async fn deleted_stacks_are_remembered_for_their_time() {
        let files = tempfile::tempdir().unwrap();
        let stacks = Stacks::of_test(&files);
        let (live, late, early) = (stack("a", None), stack("a", Some(2)), stack("a", Some(1)));
        for stack in [&live, &late, &early] {
            let happened = event(stack, "a", &stack.id, record::STACK, &stack.status, None);
            stacks.save_with(stack, &happened).unwrap();
        }
        let is_known = |stack: &Stack| {
            let events = stacks.events(&stack.id, None, 10).unwrap().0.len();
            (stacks.find(&stack.id).unwrap().is_some(), events)
        };
        stacks.forget(REMEMBERED_MS).unwrap();
        assert_eq!(is_known(&early), (true, 1));
        stacks.forget(REMEMBERED_MS + 1).unwrap();
        assert_eq!((is_known(&early), is_known(&late)), ((false, 0), (true, 1)));
        assert_eq!(is_known(&live), (true, 1));
    }

    #[tokio::test]
    async fn a_live_stack_is_found_without_reading_the_deleted_ones() {
        let files = tempfile::tempdir().unwrap();
        let stacks = Stacks::of_test(&files);
        let mut ended = stack("a", None);
        stacks.save(&ended).unwrap();
        ended.status = "DELETE_COMPLETE".into();
        ended.deleted = Some(1);
        stacks.save(&ended).unwrap();
        assert!(stacks.find("a").unwrap().is_none());
        assert!(stacks.find(&ended.id).unwrap().is_some());
        stacks.store.put(GONE, "unreadable", &"text").unwrap();
        stacks.save(&stack("b", None)).unwrap();
        assert_eq!(stacks.find("b").unwrap().unwrap().name, "b");
        assert!(stacks.exports().unwrap().is_empty());
    }
}

//! The audit log: every change of entities and limits, with who made it.

use zae_limiter_core::audit::{AuditEvent, SYSTEM_SUBJECT, events, id_in, keys_of_all};
use zae_limiter_core::table::{Item, Key, Put};
use zae_limiter_core::{EntityId, InvalidInput, ResourceName};

use crate::admin::Admin;
use crate::admin::pages::Pages;
use crate::admin::retry::BRIEF;
use crate::error::Error;
use crate::table::TableExt as _;

impl Admin {
    /// The changes made to a subject, newest first: those before the event of id `before`, if given.
    ///
    /// A subject is an entity's id, `$SYSTEM` for the namespace's own limits, or `$RESOURCE:{resource}` for a
    /// resource's.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// # use zae_limiter::{Limit, Repository};
    /// let repo = Repository::builder().in_memory().principal("ops").open().await?;
    /// repo.admin().set_resource_defaults("gpt-4", [Limit::per_minute("rpm", 100)]).await?;
    ///
    /// let events = repo.admin().audit_events("$RESOURCE:gpt-4", None)?.page_size(10).next_page().await?;
    /// let event = &events.unwrap_or_default()[0];
    /// assert_eq!((event.action.as_str(), event.principal.as_deref()), ("limits_set", Some("ops")));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if no change could ever be logged under such a subject.
    pub fn audit_events(
        &self,
        subject: impl AsRef<str>,
        before: Option<&str>,
    ) -> Result<Pages<AuditEvent>, Error> {
        let subject = subject.as_ref();
        check_subject(subject)?;
        let before = before.map(stored_id).transpose()?;
        let inner = &self.inner;
        let query = events(&inner.namespace, subject, before.as_deref());
        Ok(Pages::new(&inner.place, &inner.table, Some(query), |item| {
            Ok(Some(AuditEvent::decode(item)))
        }))
    }

    /// The latest `most` changes in the namespace, newest first: those before the event of id `before`, if given.
    ///
    /// Reads the keys of all events of the namespace, some 6,000 for each megabyte (128 read units), and then the events.
    /// [`audit_events`](Self::audit_events) reads only those of one subject.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// # use zae_limiter::{Limit, NewEntity, Repository};
    /// let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.set_resource_defaults("gpt-4", [Limit::per_minute("rpm", 100)]).await?;
    /// admin.create_entity(NewEntity::new("key-1")).await?;
    ///
    /// let events = admin.latest_audit_events(None, 100).await?;
    /// let subjects: Vec<&str> = events.iter().map(|event| event.subject.as_str()).collect();
    /// assert_eq!(subjects, ["key-1", "$RESOURCE:gpt-4"]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if `before` is not an event's id.
    pub async fn latest_audit_events(
        &self,
        before: Option<&str>,
        most: usize,
    ) -> Result<Vec<AuditEvent>, Error> {
        let before = before.map(stored_id).transpose()?;
        let is_before = |id: &&str| before.as_deref().is_none_or(|before| *id < before);
        let id = |key: &Key| id_in(key).filter(is_before).map(str::to_owned);
        let keys = self
            .latest_keys(keys_of_all(&self.inner.namespace), id, None, most)
            .await?;
        let items = self.items_at(&keys).await?;
        Ok(items.iter().map(AuditEvent::decode).collect())
    }

    /// Logs a change.
    pub(crate) async fn audit(&self, event: Event) -> Result<(), Error> {
        let inner = &self.inner;
        let days = self.audit_retention_days().await?;
        let put = self.event_put(event, days).await;
        // Refused means that an earlier attempt wrote it, though its answer was lost.
        let _ = inner
            .place
            .insisting(BRIEF, || inner.table.put(put.clone()))
            .await?;
        Ok(())
    }

    /// The write that logs a change as of now.
    pub(crate) async fn event_put(&self, event: Event, retention_days: i64) -> Put {
        let inner = &self.inner;
        let now = inner.clock.now();
        // Of the 80 bits behind the time, half count: changes within a millisecond keep their order.
        let counted = u128::from(inner.next_order() & 0xff_ffff_ffff) << 40;
        let tail = counted | u128::from(fastrand::u64(..) >> 24);
        let event = AuditEvent {
            id: ulid::Ulid::from_parts(now.0.unsigned_abs(), tail).to_string(),
            subject: event.subject,
            action: event.action.to_owned(),
            principal: inner.principal.name().await,
            resource: event.resource,
            details: event.details,
            timestamp: Some(now.into()),
        };
        event.put(&inner.namespace, now, retention_days)
    }
}

/// A change that is to be logged.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// An entity's id, `$SYSTEM` or `$RESOURCE:{resource}`.
    pub(crate) subject: String,
    /// The action.
    pub(crate) action: &'static str,
    /// The resource concerned.
    pub(crate) resource: Option<String>,
    /// Particulars.
    pub(crate) details: Item,
}

impl Event {
    pub(crate) fn of_entity(id: &EntityId, action: &'static str, details: Item) -> Self {
        Self {
            subject: id.to_string(),
            action,
            resource: None,
            details,
        }
    }
}

/// An event's id as it stands in keys, which is upper case.
fn stored_id(id: &str) -> Result<String, InvalidInput> {
    let reason = "must be the 26 characters of an event's id";
    let id =
        ulid::Ulid::from_string(id).map_err(|_| InvalidInput::of_request("start_event_id", id, reason))?;
    Ok(id.to_string())
}

fn check_subject(subject: &str) -> Result<(), InvalidInput> {
    if subject == SYSTEM_SUBJECT {
        return Ok(());
    }
    match subject.strip_prefix("$RESOURCE:") {
        Some(resource) => ResourceName::new(resource).map(drop),
        None => EntityId::new(subject).map(drop),
    }
}

//! Moving an entity to another parent.

use zae_limiter_core::entity::MetaRecord;
use zae_limiter_core::schema::{meta_key, parent_pk};
use zae_limiter_core::table::{Item, Update, Value};
use zae_limiter_core::version::{Gate, Gated};
use zae_limiter_core::{EntityId, IntoName, InvalidInput, ResourceScope};

use crate::admin::Admin;
use crate::admin::access::stamps::{Stamp, stamped_count};
use crate::admin::audit::Event;
use crate::admin::levels::MAX_RACES;
use crate::error::Error;
use crate::table::TableExt as _;

/// How many ancestors an entity can have.
pub(super) const MAX_ANCESTORS: usize = 32;

impl Admin {
    /// Moves an entity to another parent, or to none. Returns how many shards of its live buckets were stamped.
    ///
    /// From then on each process debits the new parent at its next request. What was charged to the old parent, also by leases
    /// that are still open, stays there. Whether the parent is debited at all is for the entity's `cascade` and the cascade
    /// policies to say ([`set_entity_cascade`](Self::set_entity_cascade)).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{EntityId, Limit, NewEntity, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.set_system_defaults([Limit::per_day("rpd", 10)], None).await?;
    /// for project in ["project-a", "project-b"] {
    ///     admin.create_entity(NewEntity::new(project)).await?;
    /// }
    /// admin.create_entity(NewEntity::new("key-1").parent("project-a").cascade(true)).await?;
    /// let limiter = RateLimiter::new(repo.clone());
    /// limiter.acquire("key-1", "gpt-4").consume("rpd", 1).await?.commit().await?;
    /// assert_eq!(admin.set_parent("key-1", EntityId::new("project-b")?).await?, 1, "one bucket");
    /// limiter.acquire("key-1", "gpt-4").consume("rpd", 2).await?.commit().await?;
    /// assert_eq!(limiter.available("project-a", "gpt-4").await?["rpd"], 9);
    /// assert_eq!(limiter.available("project-b", "gpt-4").await?["rpd"], 8);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::EntityNotFound`] if there is no such entity or parent; [`Error::InvalidInput`] if the parent is the entity itself or
    /// below it, or has 32 ancestors. [`Error::FanoutIncomplete`] if the entity has moved but not every live bucket was stamped:
    /// call it again.
    pub async fn set_parent(
        &self,
        entity: impl IntoName<EntityId>,
        parent: impl Into<Option<EntityId>>,
    ) -> Result<usize, Error> {
        let (id, parent) = (entity.into_name()?, parent.into());
        self.pass(&Gate::of_part(Gated::Parent)).await?;
        let (old, generation) = self.relink(&id, parent.as_ref()).await?;
        let inner = &self.inner;
        inner.config.forget(&meta_key(&inner.namespace, &id));
        let buckets = self.query_of_buckets(&id, &ResourceScope::All);
        let told = self.stamp_all(&buckets, Stamp::Owner).await;
        let named = |parent: Option<&EntityId>| parent.map_or(Value::Null, |id| Value::text(id.as_str()));
        let details = Item::from([
            ("old_parent_id".into(), named(old.as_ref())),
            ("parent_id".into(), named(parent.as_ref())),
            ("pgen".into(), Value::int(generation)),
            ("buckets_stamped".into(), stamped_count(&told)),
        ]);
        let logged = self
            .audit(Event::of_entity(&id, "entity_parent_changed", details))
            .await;
        let stamped = told?;
        logged.map(|()| stamped)
    }

    /// Writes the parent to the entity's record, unless it is there. Returns the parent before, and the generation of the link.
    async fn relink(
        &self,
        id: &EntityId,
        parent: Option<&EntityId>,
    ) -> Result<(Option<EntityId>, i64), Error> {
        let inner = &self.inner;
        // As it was before a write whose answer was lost.
        let mut before = None;
        for _ in 0..MAX_RACES {
            let Some(meta) = self.meta(id).await? else {
                return Err(Error::EntityNotFound(id.to_string()));
            };
            let generation = meta.generation.unwrap_or(0);
            let old = before.get_or_insert_with(|| meta.entity.parent.clone()).clone();
            if meta.entity.parent.as_ref() == parent {
                return Ok((old, generation));
            }
            if let Some(parent) = parent {
                self.check_ancestors(id, parent).await?;
            }
            let moved = self.moved(&meta, parent, generation + 1);
            let told = inner.place.retrying(|| inner.table.update(moved.clone())).await?;
            if told.is_applied() {
                return Ok((old, generation + 1));
            }
        }
        Err(inner.place.contended(&meta_key(&inner.namespace, id)))
    }

    fn moved(&self, meta: &MetaRecord, parent: Option<&EntityId>, generation: i64) -> Update {
        let (namespace, id) = (&self.inner.namespace, &meta.entity.id);
        let mut moved = Update::new(meta_key(namespace, id));
        moved.set.push(("pgen".into(), Value::int(generation)));
        if let Some(parent) = parent {
            moved.set.extend([
                ("parent_id".into(), Value::text(parent.as_str())),
                ("GSI1PK".into(), Value::S(parent_pk(namespace, parent))),
                ("GSI1SK".into(), Value::S(format!("CHILD#{id}"))),
            ]);
        } else {
            moved.set.push(("parent_id".into(), Value::Null));
            moved.remove.extend(["GSI1PK", "GSI1SK"].map(Into::into));
        }
        moved.condition = meta.unchanged();
        moved
    }

    /// Checks that an entity exists, and that another one is not among its ancestors.
    async fn check_ancestors(&self, id: &EntityId, parent: &EntityId) -> Result<(), Error> {
        let mut next = Some(parent.clone());
        for above in 0..=MAX_ANCESTORS {
            let Some(ancestor) = next else { return Ok(()) };
            if ancestor == *id {
                let reason = if above == 0 {
                    "is the entity itself"
                } else {
                    "is below the entity"
                };
                return Err(InvalidInput::of_request("parent_id", parent, reason).into());
            }
            let meta = self.meta(&ancestor).await?;
            if above == 0 && meta.is_none() {
                return Err(Error::EntityNotFound(ancestor.to_string()));
            }
            next = meta.and_then(|meta| meta.entity.parent);
        }
        let reason = format!("has {MAX_ANCESTORS} ancestors or more, or is one of its own ancestors");
        Err(InvalidInput::of_request("parent_id", parent, reason).into())
    }
}

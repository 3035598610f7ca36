//! Entities: creating, reading and listing who spends.

use zae_limiter_core::entity::{Entity, MetaRecord, Metadata};
use zae_limiter_core::schema::{META, entity_pk, key_of, meta_key, parent_pk};
use zae_limiter_core::table::{Condition, Index, Item, Put, Query, Value};
use zae_limiter_core::{EntityId, InvalidInput, ResourceScope};

use crate::audit::Event;
use crate::error::Error;
use crate::pages::Pages;
use crate::repository::Repository;
use crate::sweep::{Progress, Sweep};
use crate::table::TableExt;

/// An entity about to be created.
///
/// ```
/// use zae_limiter::NewEntity;
///
/// let key = NewEntity::new("key-1").name("Build bot").parent("proj-1").cascade(true);
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "describes an entity; pass it to `create_entity`"]
pub struct NewEntity {
    id: String,
    name: Option<String>,
    parent: Option<String>,
    cascade: bool,
    metadata: Metadata,
}

impl NewEntity {
    /// An entity of this id, without a parent.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            ..Self::default()
        }
    }

    /// A name for people. Default: the id.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The entity whose limits it shares. It need not exist yet.
    pub fn parent(mut self, parent: impl Into<String>) -> Self {
        self.parent = Some(parent.into());
        self
    }

    /// Whether what it spends is debited from its parent too. Default: no.
    pub fn cascade(mut self, cascade: bool) -> Self {
        self.cascade = cascade;
        self
    }

    /// A free-form fact about it.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), Value::S(value.into()));
        self
    }
}

impl Repository {
    /// Creates an entity.
    ///
    /// Buckets that it spent from before it was created learn of its parent at their next use.
    ///
    /// # Errors
    /// [`Error::EntityExists`]; [`Error::InvalidInput`] for a bad id, or a cascade without a parent.
    pub async fn create_entity(&self, new: NewEntity) -> Result<Entity, Error> {
        let inner = &self.inner;
        let id = EntityId::new(&new.id)?;
        let parent = new
            .parent
            .map(|parent| EntityId::new(parent).map_err(|err| err.in_field("parent_id")));
        let parent = parent.transpose()?;
        if parent.as_ref() == Some(&id) {
            return Err(InvalidInput::new("parent_id", &id, "is the entity itself").into());
        }
        if new.cascade && parent.is_none() {
            return Err(InvalidInput::new("cascade", "true", "needs a parent to cascade to").into());
        }
        let now = inner.clock.now();
        let meta = MetaRecord {
            entity: Entity {
                name: new.name.unwrap_or_else(|| id.to_string()),
                id,
                parent,
                cascade: new.cascade,
                metadata: new.metadata,
                created_at: now.to_text(),
            },
            generation: Some(now.0),
            incarnation: Some(format!("{:016x}", fastrand::u64(..)).into()),
        };
        let put = Put {
            item: meta.encode(&inner.namespace),
            condition: Condition::Absent("PK".into()),
        };
        let written = inner.place.retrying(|| inner.table.put(put.clone())).await?;
        if !written.is_applied() {
            return Err(Error::EntityExists(meta.entity.id.to_string()));
        }
        inner.config.forget(&meta_key(&inner.namespace, &meta.entity.id));
        let Entity {
            id,
            name,
            parent,
            cascade,
            metadata,
            ..
        } = meta.entity.clone();
        let parent = parent.map_or(Value::Null, |parent| Value::text(parent.as_str()));
        let details = Item::from([
            ("name".into(), Value::S(name)),
            ("parent_id".into(), parent),
            ("cascade".into(), Value::Bool(cascade)),
            ("metadata".into(), Value::M(metadata)),
        ]);
        self.audit(Event::of_entity(&id, "entity_created", details))
            .await?;
        Ok(meta.entity)
    }

    /// Reads an entity; `None` if it was never created. (Tokens can be taken for an id all the same.)
    pub async fn entity(&self, id: &str) -> Result<Option<Entity>, Error> {
        let inner = &self.inner;
        let key = meta_key(&inner.namespace, &EntityId::new(id)?);
        let item = inner.place.read(&*inner.table, &key).await?;
        Ok(item
            .map(|item| MetaRecord::decode(&item))
            .transpose()?
            .map(|meta| meta.entity))
    }

    /// The entities whose parent this is, by id.
    pub async fn children(&self, parent: &str) -> Result<Vec<Entity>, Error> {
        let inner = &self.inner;
        let hash = parent_pk(&inner.namespace, &EntityId::new(parent)?);
        let query = Query::new(Index::Gsi1, hash).prefix("CHILD#");
        let decode = |item: &Item| Ok(Some(MetaRecord::decode(item)?.entity));
        Pages::new(&inner.place, &inner.table, Some(query), decode)
            .all()
            .await
    }

    /// Deletes an entity with everything of its own: buckets, limits, usage. What was logged of it stays.
    ///
    /// Returns how many records that were; zero if there were none. Its children keep naming it as their
    /// parent. May be interrupted at any time and called again: the entity itself goes last.
    pub async fn delete_entity(&self, id: &str) -> Result<u64, Error> {
        self.delete_entity_with_progress(id, &|_| ()).await
    }

    /// [`delete_entity`](Self::delete_entity), which tells how far it is.
    pub async fn delete_entity_with_progress(&self, id: &str, progress: Progress<'_>) -> Result<u64, Error> {
        let inner = &self.inner;
        let id = EntityId::new(id)?;
        let sweep = Sweep::new(&inner.place, &inner.table, progress);
        let done = self.sweep_entity(&sweep, &id).await;
        let records = sweep.deleted();
        self.invalidate_caches();
        if records > 0 {
            let details = Item::from([
                ("records_deleted".into(), Value::int(i128::from(records))),
                ("complete".into(), Value::Bool(done.is_ok())),
            ]);
            let logged = self.audit(Event::of_entity(&id, "entity_deleted", details)).await;
            // What stopped the deletion is the better news.
            done.and(logged)?;
        } else {
            done?;
        }
        Ok(records)
    }

    async fn sweep_entity(&self, sweep: &Sweep<'_>, id: &EntityId) -> Result<(), Error> {
        let inner = &self.inner;
        let pk = entity_pk(&inner.namespace, id);
        self.sweep_buckets(sweep, &pk).await?;
        let own = Query::new(Index::Primary, &pk).consistent();
        for key in sweep.find(own.clone().prefix("#CONFIG#")).await? {
            let scope = key.sk.strip_prefix("#CONFIG#").map(ResourceScope::new);
            if let Some(Ok(scope)) = scope
                && self.delete_counted(id, &scope).await?
            {
                sweep.count(1);
            }
        }
        self.tidy_counts().await?;
        // While META is there, a bucket may be created under it; look again for those that were.
        let is_meta = |item: &Item| key_of(item).is_some_and(|key| key.sk == META);
        sweep.delete_found(own.clone(), is_meta).await?;
        self.sweep_buckets(sweep, &pk).await?;
        sweep.delete_found(own, |_| false).await?;
        Ok(())
    }

    /// Deletes an entity's buckets. Records of operations on a bucket can be found through its first shard
    /// only, so they go before.
    async fn sweep_buckets(&self, sweep: &Sweep<'_>, pk: &str) -> Result<(), Error> {
        let keys = sweep.find(Query::new(Index::Gsi3, pk).prefix("BUCKET#")).await?;
        for key in keys.iter().filter(|key| key.pk.ends_with("#0")) {
            let operations = Query::new(Index::Primary, &key.pk).prefix("#OP#");
            sweep.delete_found(operations, |_| false).await?;
        }
        sweep.delete(&keys).await
    }
}

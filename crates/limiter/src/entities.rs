//! Entities: creating, reading and listing who spends.

use zae_limiter_core::audit::AuditEvent;
use zae_limiter_core::entity::{Entity, MetaRecord, Metadata};
use zae_limiter_core::schema::{meta_key, parent_pk};
use zae_limiter_core::table::{Condition, Index, Item, Put, Query, Value};
use zae_limiter_core::{EntityId, InvalidInput};

use crate::error::Error;
use crate::repository::Repository;
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
        let written = self.retrying(|| inner.table.put(put.clone())).await?;
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
        self.audit(id.as_str(), "entity_created", None, details).await?;
        Ok(meta.entity)
    }

    /// Reads an entity; `None` if it was never created. (Tokens can be taken for an id all the same.)
    pub async fn entity(&self, id: &str) -> Result<Option<Entity>, Error> {
        let inner = &self.inner;
        let key = meta_key(&inner.namespace, &EntityId::new(id)?);
        let item = inner
            .table
            .get(key, true)
            .await
            .map_err(|err| inner.table_error(err))?;
        Ok(item
            .map(|item| MetaRecord::decode(&item))
            .transpose()?
            .map(|meta| meta.entity))
    }

    /// The entities whose parent this is, by id.
    pub async fn children(&self, parent: &str) -> Result<Vec<Entity>, Error> {
        let inner = &self.inner;
        let query = Query {
            index: Index::Gsi1,
            hash: parent_pk(&inner.namespace, &EntityId::new(parent)?),
            prefix: "CHILD#".into(),
            descending: false,
            limit: None,
            start: None,
            consistent: false,
        };
        let items = inner
            .table
            .query_all(query)
            .await
            .map_err(|err| inner.table_error(err))?;
        items
            .iter()
            .map(|item| Ok(MetaRecord::decode(item)?.entity))
            .collect()
    }

    /// Logs a change.
    pub(crate) async fn audit(
        &self,
        subject: &str,
        action: &'static str,
        resource: Option<&str>,
        details: Item,
    ) -> Result<(), Error> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let event = AuditEvent {
            id: ulid::Ulid::from_parts(now.0.unsigned_abs(), fastrand::u128(..)).to_string(),
            subject: subject.to_owned(),
            action,
            principal: inner.options.principal.clone(),
            resource: resource.map(str::to_owned),
            details,
            at: now,
        };
        let days = self.audit_retention_days().await?;
        let put = event.put(&inner.namespace, days);
        let _ = self.retrying(|| inner.table.put(put.clone())).await?;
        Ok(())
    }

    /// Sends a write again while the table says that it did not happen and that it may later.
    pub(crate) async fn retrying<T, F>(&self, mut send: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, zae_limiter_core::table::TableError>>,
    {
        const ATTEMPTS: u32 = 6;
        let mut attempt = 0;
        loop {
            match send().await {
                Err(err) if err.may_resend() && attempt < ATTEMPTS => {
                    let ceiling = 25_u64 << attempt;
                    tokio::time::sleep(std::time::Duration::from_millis(fastrand::u64(..=ceiling))).await;
                    attempt += 1;
                }
                result => return result.map_err(|err| self.inner.table_error(err)),
            }
        }
    }
}

//! How many entities above each other requests debit.

use zae_limiter_core::depth::CascadeDepth;
use zae_limiter_core::entity::MetaRecord;
use zae_limiter_core::manifest::Setting;
use zae_limiter_core::schema::depth_key;
use zae_limiter_core::{Entity, EntityId, IntoName};

use crate::admin::Admin;
use crate::admin::access::moves::MAX_ANCESTORS;
use crate::admin::retry::BRIEF;
use crate::admin::setting::setting_event;
use crate::error::Error;
use crate::table::TableExt as _;

impl Admin {
    /// How many entities above each other a request debits at most: 2, the entity and its parent, unless it was
    /// [set](Self::set_cascade_depth).
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the stored depth is not one that this release knows. Requests fail with it, too.
    pub async fn cascade_depth(&self) -> Result<u32, Error> {
        Ok(self.depth().await?.into())
    }

    pub(crate) async fn depth(&self) -> Result<CascadeDepth, Error> {
        let item = self.read(&depth_key(&self.inner.namespace)).await?;
        let depth = item.as_ref().map(CascadeDepth::decode).transpose()?;
        Ok(depth.unwrap_or_default())
    }

    /// The entities above one, nearest first: its parent, the parent's parent, and so on, up to 32 of those that exist.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// # use zae_limiter::{NewEntity, Repository};
    /// # let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.create_entity(NewEntity::new("org")).await?;
    /// admin.create_entity(NewEntity::new("project").parent("org")).await?;
    /// admin.create_entity(NewEntity::new("key-1").parent("project")).await?;
    /// let above = admin.ancestors("key-1").await?;
    /// assert_eq!(above.iter().map(|entity| entity.id.as_str()).collect::<Vec<_>>(), ["project", "org"]);
    /// # Ok(()) }
    /// ```
    pub async fn ancestors(&self, entity: impl IntoName<EntityId>) -> Result<Vec<Entity>, Error> {
        let id = entity.into_name()?;
        let parent = |meta: Option<MetaRecord>| meta.and_then(|meta| meta.entity.parent);
        let mut next = parent(self.meta(&id).await?);
        let mut above: Vec<Entity> = Vec::new();
        while let Some(ancestor) = next.take() {
            let is_new = ancestor != id && above.iter().all(|entity| entity.id != ancestor);
            if !is_new || above.len() == MAX_ANCESTORS {
                break;
            }
            let Some(meta) = self.meta(&ancestor).await? else {
                break;
            };
            next.clone_from(&meta.entity.parent);
            above.push(meta.entity);
        }
        Ok(above)
    }

    /// Sets how many entities above each other a request debits at most, for all entities of the namespace: 2 to 8. Returns the
    /// depth before.
    ///
    /// A request debits its entity; if that cascades, its parent; if that cascades, the parent's parent; and so on. All of
    /// them have the tokens, or none is debited. Each is one write, and all leave at the same time. An entity above itself is
    /// debited once.
    ///
    /// Processes go by the new depth once they read the configuration again, after
    /// [`config_cache_ttl`](crate::RepositoryBuilder::config_cache_ttl) at the latest. Entities above a parent that have no limits
    /// of their own have those of the resource or the system, for the requests of all entities below together: before the depth is raised, give
    /// them limits. Clients of the Python library debit the entity and its parent alone, at any depth.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Limit, NewEntity, RateLimiter, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.set_resource_defaults("gpt-4", [Limit::per_day("rpd", 10)]).await?;
    /// admin.create_entity(NewEntity::new("org")).await?;
    /// admin.create_entity(NewEntity::new("project").parent("org").cascade(true)).await?;
    /// admin.create_entity(NewEntity::new("key-1").parent("project").cascade(true)).await?;
    /// admin.set_entity_limits("org", "gpt-4", [Limit::per_day("rpd", 1_000)]).await?;
    ///
    /// assert_eq!(admin.set_cascade_depth(3).await?, 2);
    /// let limiter = RateLimiter::new(repo.clone());
    /// limiter.acquire("key-1", "gpt-4").consume("rpd", 4).await?.commit().await?;
    /// assert_eq!(limiter.available("org", "gpt-4").await?["rpd"], 996);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for another depth.
    pub async fn set_cascade_depth(&self, depth: u32) -> Result<u32, Error> {
        let depth = CascadeDepth::new(depth)?;
        let inner = &self.inner;
        let before = self.depth().await?;
        let put = depth.put(&inner.namespace);
        // Without a condition, it is not refused.
        let _ = inner
            .place
            .insisting(BRIEF, || inner.table.put(put.clone()))
            .await?;
        let setting = Setting::CascadeDepth;
        self.forget_setting(&setting);
        let event = setting_event(&setting, Some(before.into()), Some(depth.into()));
        self.audit(event).await?;
        Ok(before.into())
    }
}

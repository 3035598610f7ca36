//! What is configured where: the listings that need no scan of the table.

use std::collections::BTreeMap;

use zae_limiter_core::schema::{entity_config_pk, entity_registry_key, resource_registry_key};
use zae_limiter_core::table::{Index, Item, Key, Query, Value};
use zae_limiter_core::{CorruptRecord, EntityId, IntoName, ResourceScope};

use crate::admin::Admin;
use crate::admin::pages::Pages;
use crate::error::Error;

impl Admin {
    /// The entities with limits of their own for a resource, or for [`ALL_RESOURCES`](crate::ALL_RESOURCES),
    /// in order of id.
    pub fn entities_with_limits(
        &self,
        resource: impl IntoName<ResourceScope>,
    ) -> Result<Pages<EntityId>, Error> {
        let scope = resource.into_name()?;
        let inner = &self.inner;
        let query = Query::new(Index::Gsi3, entity_config_pk(&inner.namespace, &scope));
        Ok(Pages::new(&inner.place, &inner.table, Some(query), |item| {
            let id = item.get("GSI3SK").and_then(Value::as_text);
            Ok(id.and_then(|id| EntityId::new(id).ok()))
        }))
    }

    /// The resources with limits of their own, sorted.
    pub async fn resources_with_defaults(&self) -> Result<Vec<String>, Error> {
        let registry = self
            .registry(resource_registry_key(&self.inner.namespace))
            .await?;
        match registry.get("resources") {
            None => Ok(Vec::new()),
            Some(Value::Ss(names)) => Ok(names.iter().cloned().collect()),
            Some(_) => Err(CorruptRecord {
                record: "resource registry",
                key: resource_registry_key(&self.inner.namespace).to_string(),
                attribute: "resources".into(),
                problem: "is not a set of texts".into(),
            }
            .into()),
        }
    }

    /// The resources for which entities have limits of their own, and how many do, sorted. An entity's limits
    /// for all resources count under [`ALL_RESOURCES`](crate::ALL_RESOURCES).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{ALL_RESOURCES, Limit, Repository};
    ///
    /// let repo = Repository::in_memory().await?;
    /// let admin = repo.admin();
    /// admin.set_resource_defaults("gpt-4", [Limit::per_minute("rpm", 20)]).await?;
    /// for key in ["key-1", "key-2"] {
    ///     admin.set_entity_limits(key, "gpt-4", [Limit::per_minute("rpm", 200)]).await?;
    /// }
    /// admin.set_entity_limits("key-1", ALL_RESOURCES, [Limit::per_minute("rpm", 90)]).await?;
    ///
    /// assert_eq!(admin.resources_with_defaults().await?, ["gpt-4"]);
    /// let counts = admin.resources_with_entity_limits().await?;
    /// assert_eq!((counts["gpt-4"], counts[ALL_RESOURCES]), (2, 1));
    /// # Ok(()) }
    /// ```
    pub async fn resources_with_entity_limits(&self) -> Result<BTreeMap<String, u64>, Error> {
        let registry = self.registry(entity_registry_key(&self.inner.namespace)).await?;
        let counts = registry.into_iter().filter_map(|(name, value)| {
            let count = u64::try_from(value.as_int()?).ok()?;
            (count > 0).then_some((name, count))
        });
        Ok(counts.collect())
    }

    async fn registry(&self, key: Key) -> Result<Item, Error> {
        let item = self.inner.place.read(&*self.inner.table, &key).await?;
        Ok(item.unwrap_or_default())
    }
}

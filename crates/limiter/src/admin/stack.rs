//! [`Stack`]: a table as a whole: its version and its namespaces.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join_all;
use smol_str::SmolStr;
use zae_limiter_core::namespace::{NamespaceRecord, NamespaceStatus, active_id, register};
use zae_limiter_core::schema::{
    CONFIG, TABLE_PK, key_of, namespace_id_key, namespace_key, provisioner_key, system_pk, version_key,
};
use zae_limiter_core::table::{Cancelled, Index, Item, Key, Query, Value};
use zae_limiter_core::version::{
    Compatibility, DeploymentWrite, FEATURE_LEVEL, VersionRecord, deployed, first_version,
};
use zae_limiter_core::{IntoName, InvalidInput, NamespaceId, NamespaceName};

use crate::admin::pages::Pages;
use crate::admin::retry::BRIEF;
use crate::admin::sweep::{Progress, Sweep};
use crate::clock::ClockOffset;
use crate::error::Error;
use crate::inner::Parts;
use crate::repository::Repository;
use crate::table::{TableExt as _, Transacted};

/// How often a purge looks again for what others may have written meanwhile.
const PURGE_PASSES: u32 = 10;

/// The name that changes the version record.
pub(crate) const UPDATED_BY: &str = concat!("client:zae-limiter-rs-", env!("CARGO_PKG_VERSION"));

/// How often the version record is written again when another client changes it at the same time.
const RECORD_RACES: usize = 5;

/// A table as a whole: its version and its namespaces.
///
/// Made by [`RepositoryBuilder::stack_handle`](crate::RepositoryBuilder::stack_handle), or from a repository
/// by [`Repository::stack_handle`]. Cheap to clone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
/// use zae_limiter::Repository;
///
/// let stack = Repository::in_memory().await?.stack_handle();
/// let id = stack.register_namespace("tenant-alpha").await?;
/// stack.delete_namespace("tenant-alpha").await?; // its data stays
/// assert_eq!(stack.orphans().await?[0].id, id);
/// stack.purge_namespace(id.as_str(), &|_| ()).await?; // its data goes
/// assert!(stack.orphans().await?.is_empty());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Stack {
    pub(crate) parts: Parts,
}

impl Stack {
    /// The stack's name, which is the table's.
    pub fn name(&self) -> &str {
        &self.parts.place.stack
    }

    /// How far this machine's clock is from the table's; see [`Repository::clock_offset`].
    pub fn clock_offset(&self) -> Option<ClockOffset> {
        self.parts.offset.as_ref()?.get()
    }

    /// Opens a namespace, and registers it if it is new.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Limit, RateLimiter, Repository};
    ///
    /// let stack = Repository::in_memory().await?.stack_handle();
    /// let (alpha, beta) = (stack.open("tenant-alpha").await?, stack.open("tenant-beta").await?);
    /// for tenant in [&alpha, &beta] {
    ///     tenant.admin().set_system_defaults([Limit::per_hour("rph", 10)], None).await?;
    /// }
    /// // The same key in two namespaces is two entities.
    /// RateLimiter::new(alpha).acquire("key-1", "gpt-4").consume("rph", 10).await?.commit().await?;
    /// assert_eq!(RateLimiter::new(beta).available("key-1", "gpt-4").await?["rph"], 10);
    /// # Ok(()) }
    /// ```
    pub async fn open(&self, namespace: impl IntoName<NamespaceName>) -> Result<Repository, Error> {
        let name = namespace.into_name()?;
        self.prepare().await?;
        let id = self.register(&name).await?;
        Ok(self.namespace_of(name, id))
    }

    /// Opens a namespace without writing anything.
    ///
    /// # Errors
    /// [`Error::NamespaceNotFound`] if it is not registered.
    pub async fn connect(&self, namespace: impl IntoName<NamespaceName>) -> Result<Repository, Error> {
        let name = namespace.into_name()?;
        self.check_compatible().await?;
        match self.find(&name).await? {
            Some(id) => Ok(self.namespace_of(name, id)),
            None => Err(Error::NamespaceNotFound(name.to_string())),
        }
    }

    /// [`connect`](Self::connect), but no longer than `timeout`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`Error::Unavailable`] with the last failure that was met, if the time is up.
    pub async fn connect_within(
        &self,
        namespace: impl IntoName<NamespaceName>,
        timeout: Duration,
    ) -> Result<Repository, Error> {
        self.parts.place.within(timeout, self.connect(namespace)).await
    }

    /// Opens a namespace by its id without writing anything.
    ///
    /// # Errors
    /// [`Error::NamespaceIdNotFound`]; [`Error::NamespaceState`] if it is deleted or being purged.
    pub async fn connect_id(&self, id: impl AsRef<str>) -> Result<Repository, Error> {
        let id = id.as_ref();
        let unknown = || Error::NamespaceIdNotFound(id.to_owned());
        let id = NamespaceId::new(id).map_err(|_| unknown())?;
        self.check_compatible().await?;
        let record = match self.reverse(&id).await? {
            Some(record) if record.status != NamespaceStatus::Active => {
                return Err(wrong_state(&record, record.status.as_str()));
            }
            Some(record) => record,
            // Other clients write the two records of a namespace apart.
            None => {
                let mut named = self.namespaces().await?.into_iter();
                named.find(|named| named.id == id).ok_or_else(unknown)?
            }
        };
        let name = NamespaceName::new(&record.name)?;
        Ok(self.namespace_of(name, id))
    }

    /// The table's version record; `None` if it was never initialised.
    pub async fn version(&self) -> Result<Option<VersionRecord>, Error> {
        let item = self.get(version_key()).await?;
        Ok(item.map(|item| VersionRecord::decode(&item)).transpose()?)
    }

    /// Refuses a table whose format does not fit this client.
    ///
    /// # Errors
    /// [`Error::VersionMismatch`]; [`Error::InfrastructureNotFound`] if there is no table.
    pub async fn check_compatible(&self) -> Result<(), Error> {
        match self.version().await? {
            Some(version) => check_version(&version),
            None => Ok(()),
        }
    }

    /// Checks the version, and writes the version record of a table that has none.
    pub(crate) async fn prepare(&self) -> Result<(), Error> {
        if let Some(version) = self.version().await? {
            return check_version(&version);
        }
        let put = first_version(UPDATED_BY, self.parts.clock.now());
        // Refused means that another client wrote it first, which is as good.
        let _ = self
            .parts
            .place
            .insisting(BRIEF, || self.parts.table.put(put.clone()))
            .await?;
        Ok(())
    }

    /// Notes in the version record that the stack was deployed or upgraded. `functions` is the version of the
    /// functions that were deployed with it ([`FUNCTIONS_LEVEL`]); without, what is stored of them stays.
    /// `updated_by` says who did it, such as `cli:0.1.0`.
    ///
    /// Lowers no stored version. A deployment calls this once the stack is complete.
    ///
    /// [`FUNCTIONS_LEVEL`]: zae_limiter_core::version::FUNCTIONS_LEVEL
    ///
    /// # Errors
    /// [`Error::VersionMismatch`] if the table does not admit this client.
    pub async fn record_deployment(&self, functions: Option<&str>, updated_by: &str) -> Result<(), Error> {
        for _ in 0..RECORD_RACES {
            let found = self.get(version_key()).await?;
            if let Some(item) = &found {
                check_version(&VersionRecord::decode(item)?)?;
            }
            let write = deployed(found.as_ref(), functions, updated_by, self.parts.clock.now())?;
            let (table, place) = (&self.parts.table, &self.parts.place);
            let applied = match &write {
                DeploymentWrite::First(put) => place
                    .insisting(BRIEF, || table.put(put.clone()))
                    .await?
                    .is_applied(),
                DeploymentWrite::Again(update) => place
                    .insisting(BRIEF, || table.update(update.clone()))
                    .await?
                    .is_applied(),
            };
            if applied {
                return Ok(());
            }
        }
        Err(self.parts.place.contended(&version_key()))
    }

    /// Registers a namespace unless it is, and returns its id.
    pub async fn register_namespace(&self, name: impl IntoName<NamespaceName>) -> Result<NamespaceId, Error> {
        let name = name.into_name()?;
        self.check_compatible().await?;
        self.register(&name).await
    }

    /// Registers namespaces, those that are new. Names are checked before anything is written.
    pub async fn register_namespaces<N: IntoName<NamespaceName>>(
        &self,
        names: impl IntoIterator<Item = N>,
    ) -> Result<BTreeMap<String, NamespaceId>, Error> {
        let names: Vec<NamespaceName> = names
            .into_iter()
            .map(IntoName::into_name)
            .collect::<Result<_, InvalidInput>>()?;
        self.check_compatible().await?;
        let mut ids = BTreeMap::new();
        for some in names.chunks(8) {
            let registered = some
                .iter()
                .map(|name| async move { Ok::<_, Error>((name.to_string(), self.register(name).await?)) });
            ids.extend(try_join_all(registered).await?);
        }
        Ok(ids)
    }

    async fn register(&self, name: &NamespaceName) -> Result<NamespaceId, Error> {
        if let Some(id) = self.find(name).await? {
            return Ok(id);
        }
        let id = loop {
            if let Some(id) = NamespaceId::from_random(fastrand::u64(..).to_be_bytes()) {
                break id;
            }
        };
        if self.transact(register(name, &id, self.parts.clock.now())).await? == Transacted::Applied {
            return Ok(id);
        }
        // Another client registered it at the same time, or it is being deleted.
        match self.find(name).await? {
            Some(id) => Ok(id),
            None => Err(Error::NamespaceNotFound(name.to_string())),
        }
    }

    async fn find(&self, name: &NamespaceName) -> Result<Option<NamespaceId>, Error> {
        Ok(match self.get(namespace_key(name)).await? {
            Some(item) => active_id(&item)?,
            None => None,
        })
    }

    /// The registered namespaces, by name.
    pub async fn namespaces(&self) -> Result<Vec<NamespaceRecord>, Error> {
        let mut records = self.records("#NAMESPACE#").await?;
        records.retain(|record| record.status == NamespaceStatus::Active);
        Ok(records)
    }

    /// Returns the record of a registered namespace.
    pub async fn namespace(
        &self,
        name: impl IntoName<NamespaceName>,
    ) -> Result<Option<NamespaceRecord>, Error> {
        let item = self.get(namespace_key(&name.into_name()?)).await?;
        Ok(item.map(|item| NamespaceRecord::decode(&item)).transpose()?)
    }

    /// Deletes a namespace: its name becomes free, its data stays and can be recovered by its id. Returns
    /// whether there was one.
    pub async fn delete_namespace(&self, name: impl IntoName<NamespaceName>) -> Result<bool, Error> {
        let name = name.into_name()?;
        self.check_compatible().await?;
        for _ in 0..2 {
            let Some(item) = self.get(namespace_key(&name)).await? else {
                return Ok(false);
            };
            let record = NamespaceRecord::decode(&item)?;
            match self.transact(record.delete(self.parts.clock.now())).await? {
                Transacted::Applied => return Ok(true),
                // The name leads elsewhere since: look again.
                Transacted::Cancelled(reasons) if refused(&reasons, 0) => {}
                // A purge has begun, so the forward record is what a crash left behind.
                Transacted::Cancelled(_) => {
                    return Err(wrong_state(&record, NamespaceStatus::Purging.as_str()));
                }
            }
        }
        Err(self.parts.place.contended(&namespace_key(&name)))
    }

    /// The deleted namespaces whose data is still there, by id. One whose purge has begun has the status
    /// [`Purging`](NamespaceStatus::Purging): [`purge_namespace`](Self::purge_namespace) continues it.
    ///
    /// One that no name leads to counts as deleted whatever its record says: that is what a client that was
    /// killed while it deleted it leaves behind.
    pub async fn orphans(&self) -> Result<Vec<NamespaceRecord>, Error> {
        let mut records = self.records("#NSID#").await?;
        let named = self.records("#NAMESPACE#").await?;
        records.retain(|record| match record.status {
            NamespaceStatus::Deleted | NamespaceStatus::Purging => true,
            NamespaceStatus::Active => !named.iter().any(|other| other.id == record.id),
        });
        Ok(records)
    }

    /// Gives a deleted namespace its name back, and returns it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Error, Limit, Repository};
    ///
    /// let stack = Repository::in_memory().await?.stack_handle();
    /// let tenant = stack.open("tenant-alpha").await?;
    /// tenant.admin().set_system_defaults([Limit::per_hour("rph", 10)], None).await?;
    /// stack.delete_namespace("tenant-alpha").await?;
    /// assert!(matches!(stack.connect("tenant-alpha").await, Err(Error::NamespaceNotFound(_))));
    ///
    /// assert_eq!(stack.recover_namespace(tenant.namespace_id()).await?, "tenant-alpha");
    /// let tenant = stack.connect("tenant-alpha").await?;
    /// assert_eq!(tenant.admin().system_defaults().await?.0[0].capacity(), 10);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NamespaceIdNotFound`]; [`Error::NamespaceState`] if it is not deleted, is being purged, or its
    /// name has been registered again.
    pub async fn recover_namespace(&self, id: impl AsRef<str>) -> Result<String, Error> {
        let id = id.as_ref();
        self.check_compatible().await?;
        let record = match NamespaceId::new(id) {
            Ok(id) => self.reverse(&id).await?,
            Err(_) => None,
        };
        let Some(record) = record else {
            return Err(Error::NamespaceIdNotFound(id.to_owned()));
        };
        if record.status == NamespaceStatus::Purging || self.is_named(&record).await? {
            return Err(wrong_state(&record, record.status.as_str()));
        }
        match self.transact(record.recover()).await? {
            Transacted::Applied => Ok(record.name),
            Transacted::Cancelled(reasons) if refused(&reasons, 0) => {
                Err(wrong_state(&record, "re-registered"))
            }
            Transacted::Cancelled(_) => {
                let now = self.reverse(&record.id).await?;
                let state = now.map_or("gone", |now| now.status.as_str());
                Err(wrong_state(&record, state))
            }
        }
    }

    /// Deletes all data of a deleted namespace permanently. Returns the number of records.
    ///
    /// May be interrupted at any time and called again: it continues with what is left. From its start on the
    /// namespace cannot be recovered. An unknown id has nothing to delete, which is not an error.
    ///
    /// # Errors
    /// [`Error::NamespaceState`] if it is in use; [`Error::Unavailable`] if the table fails for long, or if
    /// others keep writing to the namespace.
    pub async fn purge_namespace(&self, id: impl AsRef<str>, progress: Progress<'_>) -> Result<u64, Error> {
        let id = id.as_ref();
        let Ok(id) = NamespaceId::new(id) else {
            return Ok(0);
        };
        self.check_compatible().await?;
        let mut record = self.reverse(&id).await?;
        if let Some(found) = &mut record {
            if found.status != NamespaceStatus::Purging {
                if self.is_named(found).await? {
                    return Err(wrong_state(found, "active"));
                }
                let start = found.start_purge(self.parts.clock.now());
                let marked = self
                    .parts
                    .place
                    .retrying(|| self.parts.table.update(start.clone()))
                    .await?;
                if !marked.is_applied() {
                    let now = self.reverse(&id).await?.map_or("gone", |now| now.status.as_str());
                    if now != NamespaceStatus::Purging.as_str() {
                        return Err(wrong_state(found, now));
                    }
                }
                found.status = NamespaceStatus::Purging;
            }
        } else if let Some(named) = self.namespaces().await?.iter().find(|named| named.id == id) {
            return Err(wrong_state(named, "active"));
        }
        let sweep = Sweep::new(&self.parts.place, &self.parts.table, progress);
        self.sweep_namespace(&sweep, &id).await?;
        if let Some(record) = record {
            let last = record.finish_purge();
            let _ = self
                .parts
                .place
                .retrying(|| self.parts.table.delete(last.clone()))
                .await?;
        }
        Ok(sweep.deleted())
    }

    async fn sweep_namespace(&self, sweep: &Sweep<'_>, id: &NamespaceId) -> Result<(), Error> {
        // Levels that were written from a manifest are in no index; the record of what the manifest manages
        // leads to them, so it goes after them.
        if let Some(state) = self.get(provisioner_key(id)).await? {
            let keys = managed_levels(id, &state);
            let table = &self.parts.table;
            let levels = self
                .parts
                .place
                .insisting(BRIEF, || table.batch_get(keys.clone(), true))
                .await?;
            let keys: Vec<Key> = levels.iter().filter_map(key_of).collect();
            sweep.delete(&keys).await?;
        }
        for pass in 0..PURGE_PASSES {
            let found = sweep
                .delete_found(Query::new(Index::Gsi4, id.as_str()), |_| false)
                .await?;
            if found == 0 {
                let system = Query::new(Index::Primary, system_pk(id)).consistent();
                sweep.delete_found(system, |_| false).await?;
                return Ok(());
            }
            if pass > 0 {
                // The index is behind the table, or a client still writes.
                tokio::time::sleep(Duration::from_millis(100) * pass).await;
            }
        }
        Err(self.parts.place.unavailable(format!(
            "records of namespace {id} keep appearing; stop the clients that still use it, and purge it again"
        )))
    }

    async fn reverse(&self, id: &NamespaceId) -> Result<Option<NamespaceRecord>, Error> {
        let item = self.get(namespace_id_key(id)).await?;
        Ok(item.map(|item| NamespaceRecord::decode(&item)).transpose()?)
    }

    /// Whether the namespace's name leads to it.
    async fn is_named(&self, record: &NamespaceRecord) -> Result<bool, Error> {
        let Some(item) = self.get(record.forward_key()).await? else {
            return Ok(false);
        };
        Ok(active_id(&item)?.as_ref() == Some(&record.id))
    }

    async fn records(&self, prefix: &str) -> Result<Vec<NamespaceRecord>, Error> {
        let query = Query::new(Index::Primary, TABLE_PK).prefix(prefix).consistent();
        // A damaged record must not hide the others.
        let decode = |item: &Item| {
            let record = NamespaceRecord::decode(item);
            if let Err(error) = &record {
                tracing::warn!(%error, "a namespace's record cannot be read");
            }
            Ok(record.ok())
        };
        Pages::new(&self.parts.place, &self.parts.table, Some(query), decode)
            .all()
            .await
    }

    async fn get(&self, key: Key) -> Result<Option<Item>, Error> {
        self.parts.place.read(&*self.parts.table, &key).await
    }

    async fn transact(&self, parts: Vec<zae_limiter_core::table::Part>) -> Result<Transacted, Error> {
        self.parts.place.transact(&*self.parts.table, parts).await
    }
}

fn check_version(version: &VersionRecord) -> Result<(), Error> {
    let compatibility = version.compatibility();
    match compatibility.refusal() {
        None => Ok(()),
        Some(reason) if matches!(compatibility, Compatibility::Schema(_)) => {
            Err(Error::VersionMismatch(reason))
        }
        Some(reason) => Err(Error::VersionMismatch(format!(
            "Version mismatch: client={FEATURE_LEVEL}, schema={}, lambda={}. {reason}",
            version.schema,
            version.functions.as_deref().unwrap_or("unknown")
        ))),
    }
}

fn wrong_state(record: &NamespaceRecord, state: &'static str) -> Error {
    Error::NamespaceState {
        namespace: record.name.clone(),
        id: record.id.to_string(),
        state,
    }
}

/// Whether this part of a cancelled transaction is one whose condition did not hold.
fn refused(reasons: &[Cancelled], part: usize) -> bool {
    matches!(reasons.get(part), Some(Cancelled::Refused(_)))
}

/// The configuration records that a manifest manages, by the record that says so.
fn managed_levels(id: &NamespaceId, state: &Item) -> Vec<Key> {
    let texts = |value: Option<&Value>| -> Vec<String> {
        match value {
            Some(Value::L(list)) => list
                .iter()
                .filter_map(Value::as_text)
                .map(str::to_owned)
                .collect(),
            _ => Vec::new(),
        }
    };
    let mut keys: Vec<Key> = texts(state.get("managed_resources"))
        .into_iter()
        .map(|resource| Key {
            pk: format!("{id}/RESOURCE#{resource}"),
            sk: SmolStr::new_static(CONFIG),
        })
        .collect();
    if let Some(Value::M(entities)) = state.get("managed_entities") {
        for (entity, resources) in entities {
            keys.extend(texts(Some(resources)).into_iter().map(|resource| Key {
                pk: format!("{id}/ENTITY#{entity}"),
                sk: format!("#CONFIG#{resource}").into(),
            }));
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

#[cfg(all(test, feature = "embedded"))]
mod tests {
    use zae_limiter_core::version::FUNCTIONS_LEVEL;

    use super::*;

    #[tokio::test]
    async fn deployments_are_noted_over_what_is_there() {
        let stack = Repository::in_memory().await.unwrap().stack_handle();
        let functions = async || stack.version().await.unwrap().unwrap().functions;
        // The first client left it open which functions there are.
        assert_eq!(functions().await, None);
        stack.record_deployment(None, "cli:1").await.unwrap();
        assert_eq!(functions().await, None);
        stack
            .record_deployment(Some(FUNCTIONS_LEVEL), "cli:2")
            .await
            .unwrap();
        stack.record_deployment(None, "cli:3").await.unwrap();
        assert_eq!(functions().await.as_deref(), Some(FUNCTIONS_LEVEL));
        let record = stack.version().await.unwrap().unwrap();
        assert_eq!(record.updated_by.as_deref(), Some("cli:3"));
        assert_eq!(record.compatibility(), Compatibility::Compatible);
    }
}

impl Stack {
    fn namespace_of(&self, name: NamespaceName, id: NamespaceId) -> Repository {
        Repository::of(self.parts.clone().assemble(name, id))
    }
}

impl Repository {
    /// Another namespace of the same table, with the same options and caches of its own.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Error, Repository};
    ///
    /// let repo = Repository::in_memory().await?;
    /// assert!(matches!(repo.namespace("tenant-alpha").await, Err(Error::NamespaceNotFound(_))));
    /// repo.register_namespace("tenant-alpha").await?;
    /// let tenant = repo.namespace("tenant-alpha").await?;
    /// assert_eq!((tenant.namespace_name(), tenant.stack()), ("tenant-alpha", repo.stack()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NamespaceNotFound`] if it is not registered.
    pub async fn namespace(&self, name: impl IntoName<NamespaceName>) -> Result<Self, Error> {
        self.stack_handle().connect(name).await
    }

    /// The table as a whole: its version and its namespaces.
    pub fn stack_handle(&self) -> Stack {
        Stack {
            parts: self.inner.parts(),
        }
    }

    /// Registers a namespace unless it is, and returns its id.
    pub async fn register_namespace(&self, name: impl IntoName<NamespaceName>) -> Result<NamespaceId, Error> {
        self.stack_handle().register_namespace(name).await
    }
}

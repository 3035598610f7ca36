//! The blocking [`Stack`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::repository::Repository;
use super::runtime::Engine;
use crate::clock::ClockOffset;
use crate::{
    Error, IntoName, NamespaceId, NamespaceName, NamespaceRecord, Progress, RepositoryBuilder, VersionRecord,
};

/// The blocking [`Stack`](crate::Stack).
#[derive(Debug, Clone)]
pub struct Stack {
    pub(super) inner: crate::Stack,
    pub(super) runtime: Arc<Engine>,
}

impl Stack {
    /// See [`RepositoryBuilder::stack_handle`].
    pub fn from_builder(builder: RepositoryBuilder) -> Result<Self, Error> {
        let runtime = Engine::start()?;
        let inner = runtime.block_on(async { builder.stack_handle().await })?;
        Ok(Self { inner, runtime })
    }

    /// See [`crate::Stack::name`].
    pub fn name(&self) -> &str {
        self.inner.name()
    }

    fn repository(&self, inner: crate::Repository) -> Repository {
        Repository::on(inner, &self.runtime)
    }

    /// See [`crate::Stack::open`].
    pub fn open(&self, namespace: impl IntoName<NamespaceName>) -> Result<Repository, Error> {
        Ok(self.repository(self.runtime.block_on(self.inner.open(namespace))?))
    }

    /// See [`crate::Stack::connect`].
    pub fn connect(&self, namespace: impl IntoName<NamespaceName>) -> Result<Repository, Error> {
        Ok(self.repository(self.runtime.block_on(self.inner.connect(namespace))?))
    }

    /// See [`crate::Stack::connect_within`].
    pub fn connect_within(
        &self,
        namespace: impl IntoName<NamespaceName>,
        timeout: Duration,
    ) -> Result<Repository, Error> {
        let connected = self.inner.connect_within(namespace, timeout);
        Ok(self.repository(self.runtime.block_on(connected)?))
    }

    /// See [`crate::Stack::connect_id`].
    pub fn connect_id(&self, id: impl AsRef<str>) -> Result<Repository, Error> {
        Ok(self.repository(self.runtime.block_on(self.inner.connect_id(id))?))
    }

    /// See [`crate::Stack::record_deployment`].
    pub fn record_deployment(&self, functions: Option<&str>, updated_by: &str) -> Result<(), Error> {
        self.runtime
            .block_on(self.inner.record_deployment(functions, updated_by))
    }

    /// See [`crate::Stack::delete_stack`].
    #[cfg(feature = "provision")]
    pub fn delete_stack(&self) -> Result<(), Error> {
        self.runtime.block_on(self.inner.delete_stack())
    }

    /// See [`crate::Stack::clock_offset`].
    pub fn clock_offset(&self) -> Option<ClockOffset> {
        self.inner.clock_offset()
    }

    /// See [`crate::Stack::version`].
    pub fn version(&self) -> Result<Option<VersionRecord>, Error> {
        self.runtime.block_on(self.inner.version())
    }

    /// See [`crate::Stack::check_compatible`].
    pub fn check_compatible(&self) -> Result<(), Error> {
        self.runtime.block_on(self.inner.check_compatible())
    }

    /// See [`crate::Stack::register_namespace`].
    pub fn register_namespace(&self, name: impl IntoName<NamespaceName>) -> Result<NamespaceId, Error> {
        self.runtime.block_on(self.inner.register_namespace(name))
    }

    /// See [`crate::Stack::register_namespaces`].
    pub fn register_namespaces<N: IntoName<NamespaceName>>(
        &self,
        names: impl IntoIterator<Item = N>,
    ) -> Result<BTreeMap<String, NamespaceId>, Error> {
        self.runtime.block_on(self.inner.register_namespaces(names))
    }

    /// See [`crate::Stack::namespaces`].
    pub fn namespaces(&self) -> Result<Vec<NamespaceRecord>, Error> {
        self.runtime.block_on(self.inner.namespaces())
    }

    /// See [`crate::Stack::namespace`].
    pub fn namespace(&self, name: impl IntoName<NamespaceName>) -> Result<Option<NamespaceRecord>, Error> {
        self.runtime.block_on(self.inner.namespace(name))
    }

    /// See [`crate::Stack::delete_namespace`].
    pub fn delete_namespace(&self, name: impl IntoName<NamespaceName>) -> Result<bool, Error> {
        self.runtime.block_on(self.inner.delete_namespace(name))
    }

    /// See [`crate::Stack::orphans`].
    pub fn orphans(&self) -> Result<Vec<NamespaceRecord>, Error> {
        self.runtime.block_on(self.inner.orphans())
    }

    /// See [`crate::Stack::recover_namespace`].
    pub fn recover_namespace(&self, id: impl AsRef<str>) -> Result<String, Error> {
        self.runtime.block_on(self.inner.recover_namespace(id))
    }

    /// See [`crate::Stack::purge_namespace`].
    pub fn purge_namespace(&self, id: impl AsRef<str>, progress: Progress<'_>) -> Result<u64, Error> {
        self.runtime.block_on(self.inner.purge_namespace(id, progress))
    }
}

impl Repository {
    /// See [`crate::Repository::stack_handle`].
    pub fn stack_handle(&self) -> Stack {
        Stack {
            inner: self.inner.stack_handle(),
            runtime: Arc::clone(&self.runtime),
        }
    }
}

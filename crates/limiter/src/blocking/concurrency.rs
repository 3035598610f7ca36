//! Concurrency limits and places in flight of the blocking [`Admin`].

use super::admin::Admin;
use crate::{EntityId, Error, IntoName, PlaceInFlight, ResourceName, ResourceScope};

impl Admin {
    /// See [`crate::Admin::set_entity_concurrency`].
    pub fn set_entity_concurrency(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
        limit: u32,
    ) -> Result<(), Error> {
        self.wait(self.inner.set_entity_concurrency(entity, resource, limit))
    }

    /// See [`crate::Admin::entity_concurrency`].
    pub fn entity_concurrency(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
    ) -> Result<Option<u32>, Error> {
        self.wait(self.inner.entity_concurrency(entity, resource))
    }

    /// See [`crate::Admin::delete_entity_concurrency`].
    pub fn delete_entity_concurrency(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
    ) -> Result<bool, Error> {
        self.wait(self.inner.delete_entity_concurrency(entity, resource))
    }

    /// See [`crate::Admin::set_resource_concurrency`].
    pub fn set_resource_concurrency(
        &self,
        resource: impl IntoName<ResourceName>,
        limit: u32,
    ) -> Result<(), Error> {
        self.wait(self.inner.set_resource_concurrency(resource, limit))
    }

    /// See [`crate::Admin::resource_concurrency`].
    pub fn resource_concurrency(&self, resource: impl IntoName<ResourceName>) -> Result<Option<u32>, Error> {
        self.wait(self.inner.resource_concurrency(resource))
    }

    /// See [`crate::Admin::delete_resource_concurrency`].
    pub fn delete_resource_concurrency(&self, resource: impl IntoName<ResourceName>) -> Result<bool, Error> {
        self.wait(self.inner.delete_resource_concurrency(resource))
    }

    /// See [`crate::Admin::set_system_concurrency`].
    pub fn set_system_concurrency(&self, limit: u32) -> Result<(), Error> {
        self.wait(self.inner.set_system_concurrency(limit))
    }

    /// See [`crate::Admin::system_concurrency`].
    pub fn system_concurrency(&self) -> Result<Option<u32>, Error> {
        self.wait(self.inner.system_concurrency())
    }

    /// See [`crate::Admin::delete_system_concurrency`].
    pub fn delete_system_concurrency(&self) -> Result<bool, Error> {
        self.wait(self.inner.delete_system_concurrency())
    }

    /// See [`crate::Admin::effective_concurrency`].
    pub fn effective_concurrency(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceName>,
    ) -> Result<Option<u32>, Error> {
        self.wait(self.inner.effective_concurrency(entity, resource))
    }

    /// See [`crate::Admin::places_in_flight`].
    pub fn places_in_flight(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceName>,
    ) -> Result<Vec<PlaceInFlight>, Error> {
        self.wait(self.inner.places_in_flight(entity, resource))
    }
}

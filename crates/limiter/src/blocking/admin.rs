//! The blocking [`Admin`].

use std::collections::BTreeMap;
use std::sync::Arc;

use zae_limiter_core::manifest::{Manifest, Target};

use super::pages::Pages;
use super::runtime::Engine;
use crate::{
    Access, ApplyOptions, AuditEvent, BucketReset, CapacityOf, Entity, EntityId, Error, IntoLimit, IntoName,
    Limit, LimitName, LimitsApplied, LimitsPlan, NewEntity, OnUnavailable, OperationResult, Progress,
    ResourceCapacity, ResourceName, ResourceScope, TopUp, UsageQuery, UsageSnapshot, UsageSummary,
};

/// The blocking [`Admin`](crate::Admin).
#[derive(Debug, Clone)]
pub struct Admin {
    pub(super) inner: crate::Admin,
    runtime: Arc<Engine>,
}

impl Admin {
    pub(super) fn new(inner: crate::Admin, runtime: &Arc<Engine>) -> Self {
        Self {
            inner,
            runtime: Arc::clone(runtime),
        }
    }

    pub(super) fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.runtime.block_on(work)
    }

    /// See [`crate::Admin::plan_limits`].
    pub fn plan_limits(&self, manifest: &Manifest, options: ApplyOptions) -> Result<LimitsPlan, Error> {
        self.wait(self.inner.plan_limits(manifest, options))
    }

    /// See [`crate::Admin::apply_limits`].
    pub fn apply_limits(&self, manifest: &Manifest, options: ApplyOptions) -> Result<LimitsApplied, Error> {
        self.wait(self.inner.apply_limits(manifest, options))
    }

    /// See [`crate::Admin::withdraw_limits`].
    pub fn withdraw_limits(
        &self,
        manifest: &Manifest,
        options: ApplyOptions,
    ) -> Result<LimitsApplied, Error> {
        self.wait(self.inner.withdraw_limits(manifest, options))
    }

    /// See [`crate::Admin::limits_owners`].
    pub fn limits_owners(&self) -> Result<Vec<String>, Error> {
        self.wait(self.inner.limits_owners())
    }

    /// See [`crate::Admin::set_limits_owner`].
    pub fn set_limits_owner(&self, owner: &str, declares: bool) -> Result<(), Error> {
        self.wait(self.inner.set_limits_owner(owner, declares))
    }

    /// See [`crate::Admin::hand_made_limits`].
    pub fn hand_made_limits(&self, manifest: &Manifest) -> Result<Vec<Target>, Error> {
        self.wait(self.inner.hand_made_limits(manifest))
    }

    /// See [`crate::Admin::audit_retention`].
    pub fn audit_retention(&self) -> Result<u32, Error> {
        self.wait(self.inner.audit_retention())
    }

    /// See [`crate::Admin::set_audit_retention`].
    pub fn set_audit_retention(&self, days: u32) -> Result<(), Error> {
        self.wait(self.inner.set_audit_retention(days))
    }

    /// See [`crate::Admin::cascade_depth`].
    pub fn cascade_depth(&self) -> Result<u32, Error> {
        self.wait(self.inner.cascade_depth())
    }

    /// See [`crate::Admin::set_cascade_depth`].
    pub fn set_cascade_depth(&self, depth: u32) -> Result<u32, Error> {
        self.wait(self.inner.set_cascade_depth(depth))
    }

    /// See [`crate::Admin::ancestors`].
    pub fn ancestors(&self, entity: impl IntoName<EntityId>) -> Result<Vec<Entity>, Error> {
        self.wait(self.inner.ancestors(entity))
    }

    /// See [`crate::Admin::create_entity`].
    pub fn create_entity(&self, new: NewEntity) -> Result<Entity, Error> {
        self.wait(self.inner.create_entity(new))
    }

    /// See [`crate::Admin::entity`].
    pub fn entity(&self, id: impl IntoName<EntityId>) -> Result<Option<Entity>, Error> {
        self.wait(self.inner.entity(id))
    }

    /// See [`crate::Admin::children`].
    pub fn children(&self, parent: impl IntoName<EntityId>) -> Result<Vec<Entity>, Error> {
        self.wait(self.inner.children(parent))
    }

    /// See [`crate::Admin::delete_entity`].
    pub fn delete_entity(&self, id: impl IntoName<EntityId>) -> Result<u64, Error> {
        self.wait(self.inner.delete_entity(id))
    }

    /// See [`crate::Admin::delete_entity_with_progress`].
    pub fn delete_entity_with_progress(
        &self,
        id: impl IntoName<EntityId>,
        progress: Progress<'_>,
    ) -> Result<u64, Error> {
        self.wait(self.inner.delete_entity_with_progress(id, progress))
    }

    /// See [`crate::Admin::limits_above_parent`].
    pub fn limits_above_parent(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
    ) -> Result<Vec<crate::AboveParent>, Error> {
        self.wait(self.inner.limits_above_parent(entity, resource))
    }

    /// See [`crate::Admin::all_limits_above_parent`].
    pub fn all_limits_above_parent(
        &self,
        entity: impl IntoName<EntityId>,
    ) -> Result<Vec<crate::AboveParent>, Error> {
        self.wait(self.inner.all_limits_above_parent(entity))
    }

    /// See [`crate::Admin::declared_limits_above_parent`].
    pub fn declared_limits_above_parent(
        &self,
        manifest: &Manifest,
        deleted: &[Target],
    ) -> Result<Vec<crate::AboveParent>, Error> {
        self.wait(self.inner.declared_limits_above_parent(manifest, deleted))
    }

    /// See [`crate::Admin::delete_entity_with_children`].
    pub fn delete_entity_with_children(
        &self,
        id: impl IntoName<EntityId>,
        progress: Progress<'_>,
    ) -> Result<u64, Error> {
        self.wait(self.inner.delete_entity_with_children(id, progress))
    }

    /// See [`crate::Admin::entities_with_limits`].
    pub fn entities_with_limits(
        &self,
        resource: impl IntoName<ResourceScope>,
    ) -> Result<Pages<EntityId>, Error> {
        Ok(self.pages(self.inner.entities_with_limits(resource)?))
    }

    /// See [`crate::Admin::resources_with_defaults`].
    pub fn resources_with_defaults(&self) -> Result<Vec<String>, Error> {
        self.wait(self.inner.resources_with_defaults())
    }

    /// See [`crate::Admin::resources_with_entity_limits`].
    pub fn resources_with_entity_limits(&self) -> Result<BTreeMap<String, u64>, Error> {
        self.wait(self.inner.resources_with_entity_limits())
    }

    /// See [`crate::Admin::audit_events`].
    pub fn audit_events(
        &self,
        subject: impl AsRef<str>,
        before: Option<&str>,
    ) -> Result<Pages<AuditEvent>, Error> {
        Ok(self.pages(self.inner.audit_events(subject, before)?))
    }

    /// See [`crate::Admin::latest_audit_events`].
    pub fn latest_audit_events(&self, before: Option<&str>, most: usize) -> Result<Vec<AuditEvent>, Error> {
        self.wait(self.inner.latest_audit_events(before, most))
    }

    /// See [`crate::Admin::latest_usage`].
    pub fn latest_usage(&self, query: UsageQuery, most: usize) -> Result<Vec<UsageSnapshot>, Error> {
        self.wait(self.inner.latest_usage(query, most))
    }

    /// See [`crate::Admin::usage_snapshots`].
    pub fn usage_snapshots(&self, query: UsageQuery) -> Result<Pages<UsageSnapshot>, Error> {
        Ok(self.pages(self.inner.usage_snapshots(query)?))
    }

    /// See [`crate::Admin::usage_summary`].
    pub fn usage_summary(&self, query: UsageQuery) -> Result<UsageSummary, Error> {
        self.wait(self.inner.usage_summary(query))
    }

    /// See [`crate::Admin::resource_capacity`].
    pub fn resource_capacity(
        &self,
        resource: impl IntoName<ResourceName>,
        limit: impl IntoName<LimitName>,
        of: CapacityOf,
    ) -> Result<ResourceCapacity, Error> {
        self.wait(self.inner.resource_capacity(resource, limit, of))
    }

    fn pages<T>(&self, inner: crate::Pages<T>) -> Pages<T> {
        Pages::new(inner, &self.runtime)
    }

    /// See [`crate::Admin::set_resource_access`].
    pub fn set_resource_access(
        &self,
        resource: impl IntoName<ResourceName>,
        access: impl Into<Option<Access>>,
    ) -> Result<usize, Error> {
        self.wait(self.inner.set_resource_access(resource, access))
    }

    /// See [`crate::Admin::set_entity_access`].
    pub fn set_entity_access(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
        access: impl Into<Option<Access>>,
    ) -> Result<usize, Error> {
        self.wait(self.inner.set_entity_access(entity, resource, access))
    }

    /// See [`crate::Admin::resource_access`].
    pub fn resource_access(&self, resource: impl IntoName<ResourceName>) -> Result<Option<Access>, Error> {
        self.wait(self.inner.resource_access(resource))
    }

    /// See [`crate::Admin::entity_access`].
    pub fn entity_access(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
    ) -> Result<Option<Access>, Error> {
        self.wait(self.inner.entity_access(entity, resource))
    }

    /// See [`crate::Admin::set_resource_cascade`].
    pub fn set_resource_cascade(
        &self,
        resource: impl IntoName<ResourceName>,
        cascade: impl Into<Option<bool>>,
    ) -> Result<usize, Error> {
        self.wait(self.inner.set_resource_cascade(resource, cascade))
    }

    /// See [`crate::Admin::set_entity_cascade`].
    pub fn set_entity_cascade(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
        cascade: impl Into<Option<bool>>,
    ) -> Result<usize, Error> {
        self.wait(self.inner.set_entity_cascade(entity, resource, cascade))
    }

    /// See [`crate::Admin::resource_cascade`].
    pub fn resource_cascade(&self, resource: impl IntoName<ResourceName>) -> Result<Option<bool>, Error> {
        self.wait(self.inner.resource_cascade(resource))
    }

    /// See [`crate::Admin::entity_cascade`].
    pub fn entity_cascade(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
    ) -> Result<Option<bool>, Error> {
        self.wait(self.inner.entity_cascade(entity, resource))
    }

    /// See [`crate::Admin::set_parent`].
    pub fn set_parent(
        &self,
        entity: impl IntoName<EntityId>,
        parent: impl Into<Option<EntityId>>,
    ) -> Result<usize, Error> {
        self.wait(self.inner.set_parent(entity, parent))
    }

    /// See [`crate::Admin::reset_bucket`].
    pub fn reset_bucket(&self, reset: BucketReset) -> Result<OperationResult, Error> {
        self.wait(self.inner.reset_bucket(reset))
    }

    /// See [`crate::Admin::top_up`].
    pub fn top_up(&self, top_up: TopUp) -> Result<OperationResult, Error> {
        self.wait(self.inner.top_up(top_up))
    }

    /// See [`crate::Admin::set_entity_limits`].
    pub fn set_entity_limits<L: IntoLimit>(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
        limits: impl IntoIterator<Item = L>,
    ) -> Result<(), Error> {
        self.wait(self.inner.set_entity_limits(entity, resource, limits))
    }

    /// See [`crate::Admin::entity_limits`].
    pub fn entity_limits(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
    ) -> Result<Vec<Limit>, Error> {
        self.wait(self.inner.entity_limits(entity, resource))
    }

    /// See [`crate::Admin::delete_entity_limits`].
    pub fn delete_entity_limits(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceScope>,
    ) -> Result<bool, Error> {
        self.wait(self.inner.delete_entity_limits(entity, resource))
    }

    /// See [`crate::Admin::set_resource_defaults`].
    pub fn set_resource_defaults<L: IntoLimit>(
        &self,
        resource: impl IntoName<ResourceName>,
        limits: impl IntoIterator<Item = L>,
    ) -> Result<(), Error> {
        self.wait(self.inner.set_resource_defaults(resource, limits))
    }

    /// See [`crate::Admin::resource_defaults`].
    pub fn resource_defaults(&self, resource: impl IntoName<ResourceName>) -> Result<Vec<Limit>, Error> {
        self.wait(self.inner.resource_defaults(resource))
    }

    /// See [`crate::Admin::delete_resource_defaults`].
    pub fn delete_resource_defaults(&self, resource: impl IntoName<ResourceName>) -> Result<bool, Error> {
        self.wait(self.inner.delete_resource_defaults(resource))
    }

    /// See [`crate::Admin::set_system_defaults`].
    pub fn set_system_defaults<L: IntoLimit>(
        &self,
        limits: impl IntoIterator<Item = L>,
        on_unavailable: Option<OnUnavailable>,
    ) -> Result<(), Error> {
        self.wait(self.inner.set_system_defaults(limits, on_unavailable))
    }

    /// See [`crate::Admin::system_defaults`].
    pub fn system_defaults(&self) -> Result<(Vec<Limit>, Option<OnUnavailable>), Error> {
        self.wait(self.inner.system_defaults())
    }

    /// See [`crate::Admin::delete_system_defaults`].
    pub fn delete_system_defaults(&self) -> Result<bool, Error> {
        self.wait(self.inner.delete_system_defaults())
    }

    /// See [`crate::Admin::effective_limits`].
    pub fn effective_limits(
        &self,
        entity: impl IntoName<EntityId>,
        resource: impl IntoName<ResourceName>,
    ) -> Result<Vec<Limit>, Error> {
        self.wait(self.inner.effective_limits(entity, resource))
    }
}

//! The blocking [`Lease`].

use std::sync::Arc;
use std::time::Duration;

use super::runtime::Engine;
use crate::{DetachedLease, Error, OnExpiry};

/// The blocking [`Lease`](crate::Lease).
#[derive(Debug)]
#[must_use = "dropping a lease gives its tokens back; finish it with `commit` or `rollback`"]
pub struct Lease {
    pub(super) inner: crate::Lease,
    pub(super) runtime: Arc<Engine>,
}

impl Lease {
    /// See [`crate::Lease::entity`].
    pub fn entity(&self) -> &crate::EntityId {
        self.inner.entity()
    }

    /// See [`crate::Lease::resource`].
    pub fn resource(&self) -> &crate::ResourceName {
        self.inner.resource()
    }

    /// See [`crate::Lease::resources`].
    pub fn resources(&self) -> Vec<&crate::ResourceName> {
        self.inner.resources()
    }

    /// See [`crate::Lease::on`].
    pub fn on(&mut self, resource: impl AsRef<str>) -> Result<LeasePart<'_>, Error> {
        let inner = self.inner.on(resource)?;
        Ok(LeasePart {
            inner,
            runtime: &self.runtime,
        })
    }

    /// See [`crate::Lease::consumed`].
    pub fn consumed(&self, limit: impl AsRef<str>) -> u64 {
        self.inner.consumed(limit)
    }

    /// See [`Lease::overdrawn`](crate::Lease::overdrawn).
    pub fn overdrawn(&self) -> Vec<&str> {
        self.inner.overdrawn()
    }

    /// See [`crate::Lease::statuses`].
    pub fn statuses(&self) -> Vec<crate::LimitStatus> {
        self.inner.statuses()
    }

    /// See [`crate::Lease::is_bypassed`].
    pub fn is_bypassed(&self) -> bool {
        self.inner.is_bypassed()
    }

    /// See [`crate::Lease::is_degraded`].
    pub fn is_degraded(&self) -> bool {
        self.inner.is_degraded()
    }

    /// See [`crate::Lease::holds_place`].
    pub fn holds_place(&self) -> bool {
        self.inner.holds_place()
    }

    /// See [`crate::Lease::outage`].
    pub fn outage(&self) -> Option<&Error> {
        self.inner.outage()
    }

    /// See [`crate::Lease::consume`].
    pub fn consume(&mut self, limit: impl AsRef<str>, tokens: u64) -> Result<(), Error> {
        self.runtime.block_on(self.inner.consume(limit, tokens))
    }

    /// See [`crate::Lease::adjust`].
    pub fn adjust(&mut self, limit: impl AsRef<str>, delta: i64) -> Result<(), Error> {
        self.inner.adjust(limit, delta)
    }

    /// See [`crate::Lease::adjust_to`].
    pub fn adjust_to(&mut self, limit: impl AsRef<str>, tokens: u64) -> Result<(), Error> {
        self.inner.adjust_to(limit, tokens)
    }

    /// See [`crate::Lease::release`].
    pub fn release(&mut self, limit: impl AsRef<str>, tokens: u64) -> Result<(), Error> {
        self.inner.release(limit, tokens)
    }

    /// See [`crate::Lease::set_timeout`].
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.inner.set_timeout(timeout);
    }

    /// See [`crate::Lease::commit`].
    pub fn commit(self) -> Result<(), Error> {
        self.runtime.finish(self.inner.commit())
    }

    /// See [`crate::Lease::rollback`].
    pub fn rollback(self) -> Result<(), Error> {
        self.runtime.finish(self.inner.rollback())
    }

    /// See [`crate::Lease::detach`].
    pub fn detach(self, ttl: Duration, on_expiry: OnExpiry) -> Result<DetachedLease, Error> {
        self.runtime.block_on(self.inner.detach(ttl, on_expiry))
    }

    /// See [`crate::Lease::commit_in_background`].
    pub fn commit_in_background(self) {
        self.inner.commit_in_background();
    }

    /// See [`crate::Lease::rollback_in_background`].
    pub fn rollback_in_background(self) {
        self.inner.rollback_in_background();
    }
}

/// The blocking [`LeasePart`](crate::LeasePart).
#[derive(Debug)]
pub struct LeasePart<'a> {
    inner: crate::LeasePart<'a>,
    runtime: &'a Engine,
}

impl LeasePart<'_> {
    /// See [`crate::LeasePart::resource`].
    pub fn resource(&self) -> &crate::ResourceName {
        self.inner.resource()
    }

    /// See [`crate::LeasePart::consumed`].
    pub fn consumed(&self, limit: impl AsRef<str>) -> u64 {
        self.inner.consumed(limit)
    }

    /// See [`crate::LeasePart::overdrawn`].
    pub fn overdrawn(&self) -> Vec<&str> {
        self.inner.overdrawn()
    }

    /// See [`crate::LeasePart::is_bypassed`].
    pub fn is_bypassed(&self) -> bool {
        self.inner.is_bypassed()
    }

    /// See [`crate::LeasePart::consume`].
    pub fn consume(&mut self, limit: impl AsRef<str>, tokens: u64) -> Result<(), Error> {
        self.runtime.block_on(self.inner.consume(limit, tokens))
    }

    /// See [`crate::LeasePart::adjust`].
    pub fn adjust(&mut self, limit: impl AsRef<str>, delta: i64) -> Result<(), Error> {
        self.inner.adjust(limit, delta)
    }

    /// See [`crate::LeasePart::adjust_to`].
    pub fn adjust_to(&mut self, limit: impl AsRef<str>, tokens: u64) -> Result<(), Error> {
        self.inner.adjust_to(limit, tokens)
    }

    /// See [`crate::LeasePart::release`].
    pub fn release(&mut self, limit: impl AsRef<str>, tokens: u64) -> Result<(), Error> {
        self.inner.release(limit, tokens)
    }
}

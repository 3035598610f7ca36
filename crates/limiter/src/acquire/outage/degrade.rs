//! A request that the table has not decided: the policy for outages decides it from what is cached.

use std::sync::Arc;

use zae_limiter_core::acquire::{Hint, Request};
use zae_limiter_core::config::{OnUnavailable, Resolved};
use zae_limiter_core::outage::policy::{Decision, Memory, decide};
use zae_limiter_core::schema::BucketId;

use crate::acquire::lease::Lease;
use crate::error::{Error, level_name};
use crate::inner::Inner;

/// Said when an outage has filled the memory for limits.
pub(in crate::acquire) const NO_MEMORY: &str =
    "the memory for limits during an outage holds as many that are in use as it can";

impl Memory for Inner {
    fn config(&self, id: &BucketId) -> Option<Arc<Resolved>> {
        self.config.stale(&id.entity, &id.resource)
    }

    fn hint(&self, id: &BucketId) -> Hint {
        self.images.hint(id, self.clock.now())
    }
}

/// Applies the policy for outages. `call` is the call's policy, if it brought one; `err` is the error if nothing admits
/// the request.
pub(in crate::acquire) fn without_table(
    inner: &Arc<Inner>,
    request: &Request,
    call: Option<OnUnavailable>,
    err: Error,
) -> Result<Lease, Error> {
    let (entity, resource) = (&request.id.entity, &request.id.resource);
    let policy = inner.policy(call, entity, resource);
    match decide(policy, request, &**inner, &inner.local, inner.clock.now()) {
        Decision::Unavailable => Err(err),
        Decision::Unlimited => {
            if let Some(left_out) = inner.log.without_table.due(inner.clock.now()) {
                tracing::warn!(resource = resource.as_str(), error = %err, left_out, "admitting without limits");
            }
            Ok(Lease::unlimited(inner, request, err))
        }
        Decision::Local(claims) => {
            if let Some(left_out) = inner.log.without_table.due(inner.clock.now()) {
                tracing::warn!(resource = resource.as_str(), error = %err, left_out, "admitting from limits in memory");
            }
            Ok(Lease::local(inner, request, claims, err))
        }
        Decision::Exceeded(refused) => Err(refused.into()),
        Decision::Full => Err(inner.place.unavailable(NO_MEMORY.to_owned())),
        Decision::Disabled { id, at } => Err(Error::Disabled {
            entity: id.entity.to_string(),
            resource: id.resource.to_string(),
            level: level_name(at),
        }),
        Decision::Failed(err) => Err(inner.place.acquire_error(err)),
    }
}

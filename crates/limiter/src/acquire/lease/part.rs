//! [`LeasePart`]: one resource of a lease.

use std::sync::Arc;

use zae_limiter_core::acquire::{Decision, Grant, Request, merge};
use zae_limiter_core::outage::local_buckets::Refused;
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::units::{check_amount, check_delta};
use zae_limiter_core::{InvalidInput, LimitName, Millitokens, ResourceName};

use super::{Held, Lease};
use crate::acquire::driver::Drive;
use crate::acquire::outage::degrade::NO_MEMORY;
use crate::error::{Error, level_name};
use crate::telemetry::Call;

/// One resource of a [`Lease`]: see [`Lease::on`].
#[derive(Debug)]
pub struct LeasePart<'a> {
    pub(super) lease: &'a mut Lease,
    pub(super) part: usize,
}

impl LeasePart<'_> {
    /// The resource.
    pub fn resource(&self) -> &ResourceName {
        self.lease.request.part(self.part).0
    }

    /// As [`Lease::consumed`], of this resource.
    pub fn consumed(&self, limit: impl AsRef<str>) -> u64 {
        self.lease.consumed_of(self.part, limit.as_ref())
    }

    /// As [`Lease::overdrawn`], of this resource.
    pub fn overdrawn(&self) -> Vec<&str> {
        self.lease.overdrawn_of(self.part)
    }

    /// As [`Lease::is_bypassed`], of this resource.
    pub fn is_bypassed(&self) -> bool {
        self.lease.is_bypassed_of(self.part)
    }

    /// As [`Lease::consume`], of this resource.
    ///
    /// # Errors
    /// As [`Lease::consume`].
    ///
    /// # Cancellation
    /// As for an acquire: no additional tokens are held.
    pub async fn consume(&mut self, limit: impl AsRef<str>, tokens: u64) -> Result<(), Error> {
        self.lease.take_more(self.part, limit.as_ref(), tokens).await
    }

    /// As [`Lease::adjust`], of this resource.
    ///
    /// # Errors
    /// As [`Lease::adjust`].
    pub fn adjust(&mut self, limit: impl AsRef<str>, delta: i64) -> Result<(), Error> {
        self.lease.adjust_of(self.part, limit.as_ref(), delta)
    }

    /// As [`Lease::adjust_to`], of this resource.
    ///
    /// # Errors
    /// As [`Lease::adjust_to`].
    pub fn adjust_to(&mut self, limit: impl AsRef<str>, tokens: u64) -> Result<(), Error> {
        self.lease.adjust_to_of(self.part, limit.as_ref(), tokens)
    }

    /// As [`Lease::release`], of this resource.
    ///
    /// # Errors
    /// As [`Lease::release`].
    pub fn release(&mut self, limit: impl AsRef<str>, tokens: u64) -> Result<(), Error> {
        self.lease.release_of(self.part, limit.as_ref(), tokens)
    }
}

impl Lease {
    /// The grants of the table of a resource.
    fn grants_of(&self, part: usize) -> impl Iterator<Item = &Grant> {
        let grants: &[Grant] = match &self.held {
            Held::Table(grants) => grants,
            _ => &[],
        };
        let (resource, _) = self.request.part(part);
        grants.iter().filter(move |grant| grant.id.resource == *resource)
    }

    pub(super) fn consumed_of(&self, part: usize, limit: &str) -> u64 {
        let (_, amounts) = self.request.part(part);
        let held = amounts.iter().filter(|(name, _)| name.as_str() == limit);
        let adjusted = self.deltas.iter();
        let adjusted = adjusted.filter(|delta| delta.part == part && delta.limit.as_str() == limit);
        let sum = held.map(|(_, amount)| amount.0).sum::<i128>()
            + adjusted.map(|delta| delta.amount.0).sum::<i128>();
        Millitokens(sum).floor_amount()
    }

    pub(super) fn overdrawn_of(&self, part: usize) -> Vec<&str> {
        let mut names = Vec::new();
        for grant in self.grants_of(part) {
            for (name, _) in &grant.amounts {
                let limit = grant.image.limit(name.as_str());
                let is_overdrawn =
                    limit.is_some_and(|limit| limit.is_soft && limit.balance < Millitokens::ZERO);
                if is_overdrawn && !names.contains(&name.as_str()) {
                    names.push(name.as_str());
                }
            }
        }
        names
    }

    pub(super) fn is_bypassed_of(&self, part: usize) -> bool {
        let mut own = self
            .grants_of(part)
            .filter(|grant| grant.id.entity == *self.entity());
        own.any(|grant| grant.is_bypassed)
    }

    pub(super) async fn take_more(&mut self, part: usize, limit: &str, tokens: u64) -> Result<(), Error> {
        let names = (self.entity(), self.request.part(part).0);
        let call = Call::begin(Arc::clone(&self.inner), Some(names));
        let taken = call.within(self.take_more_in(&call, part, limit, tokens)).await;
        call.end(taken.is_ok(), taken.as_ref().err().or(self.outage()));
        taken
    }

    async fn take_more_in(
        &mut self,
        call: &Call,
        part: usize,
        limit: &str,
        tokens: u64,
    ) -> Result<(), Error> {
        let name = self.named(part, "consume", limit)?;
        let amount =
            check_amount("consume", tokens).map_err(|err| err.in_field(format!("consume.{limit}")))?;
        let id = BucketId {
            resource: self.request.part(part).0.clone(),
            ..self.request.id.clone()
        };
        if let Held::Table(grants) = &mut self.held {
            let more = Request {
                id,
                consume: vec![(name.clone(), amount)],
                also: Vec::new(),
                limits: self.request.limits.clone(),
                overdraws: false,
                settings: self.request.settings,
                slices: None,
            };
            let timeout = self.inner.options.acquire_timeout;
            let mut drive = Drive::new(&self.inner, more);
            let decided = tokio::time::timeout(timeout, drive.run()).await;
            call.has_sent(drive.sent());
            match decided {
                Ok(Decision::Admitted(new)) => merge(grants, new),
                Ok(Decision::Rejected(refused)) => return Err(refused.into()),
                Ok(Decision::Disabled { bucket, at }) => {
                    return Err(Error::Disabled {
                        entity: bucket.entity.to_string(),
                        resource: bucket.resource.to_string(),
                        level: level_name(at),
                    });
                }
                Ok(Decision::Failed(err)) => return Err(self.inner.place.acquire_error(err)),
                Err(_) => return Err(drive.gave_up(timeout)),
            }
        } else if let Held::Local(claims) = &self.held {
            let of_limit = claims
                .iter()
                .filter(|claim| *claim.limit() == name && *claim.resource() == id.resource);
            let wanted: Vec<_> = of_limit.map(|claim| (claim.clone(), amount)).collect();
            match self.inner.local.take(&wanted, self.inner.clock.now()) {
                Ok(()) => {}
                Err(Refused::Exceeded(refused)) => return Err(refused.into()),
                Err(Refused::Full) => return Err(self.inner.place.unavailable(NO_MEMORY.to_owned())),
            }
        }
        let amounts = match part
            .checked_sub(1)
            .and_then(|further| self.request.also.get_mut(further))
        {
            Some((_, amounts)) => amounts,
            None => &mut self.request.consume,
        };
        for (held, sum) in amounts {
            if *held == name {
                *sum += amount;
            }
        }
        Ok(())
    }

    pub(super) fn adjust_of(&mut self, part: usize, limit: &str, delta: i64) -> Result<(), Error> {
        let name = self.named(part, "adjust", limit)?;
        check_delta("adjust", delta).map_err(|err| err.in_field(format!("adjust.{limit}")))?;
        self.change(part, name, delta)
            .map_err(|reason| InvalidInput::of_request(format!("adjust.{limit}"), delta, reason).into())
    }

    pub(super) fn adjust_to_of(&mut self, part: usize, limit: &str, tokens: u64) -> Result<(), Error> {
        let name = self.named(part, "adjust", limit)?;
        check_amount("adjust", tokens).map_err(|err| err.in_field(format!("adjust.{limit}")))?;
        let held = self.consumed_of(part, limit);
        let delta = tokens
            .checked_signed_diff(held)
            .ok_or_else(|| format!("is too far from the {held} tokens that the lease holds"));
        delta
            .and_then(|delta| self.change(part, name, delta))
            .map_err(|reason| InvalidInput::of_request(format!("adjust.{limit}"), tokens, reason).into())
    }

    pub(super) fn release_of(&mut self, part: usize, limit: &str, tokens: u64) -> Result<(), Error> {
        let name = self.named(part, "release", limit)?;
        check_amount("release", tokens).map_err(|err| err.in_field(format!("release.{limit}")))?;
        // Checked: it is far below the range of a signed number.
        self.change(part, name, -tokens.cast_signed())
            .map_err(|reason| InvalidInput::of_request(format!("release.{limit}"), tokens, reason).into())
    }

    /// Notes a correction, or says why it cannot be made.
    fn change(&mut self, part: usize, limit: LimitName, delta: i64) -> Result<(), String> {
        let held = self.consumed_of(part, limit.as_str());
        if held.checked_add_signed(delta).is_none() {
            return Err(format!(
                "gives back more than the {held} tokens that the lease holds"
            ));
        }
        let amount = Millitokens::from_tokens(delta);
        let mut before = self.deltas.iter_mut();
        match before.find(|before| before.part == part && before.limit == limit) {
            Some(before) => before.amount += amount,
            None => self.deltas.push(Delta { part, limit, amount }),
        }
        Ok(())
    }

    fn named(&self, part: usize, field: &str, limit: &str) -> Result<LimitName, Error> {
        let (resource, amounts) = self.request.part(part);
        let found = amounts.iter().find(|(name, _)| name.as_str() == limit);
        found.map(|(name, _)| name.clone()).ok_or_else(|| {
            let names: Vec<&str> = amounts.iter().map(|(name, _)| name.as_str()).collect();
            let of_resource = match self.request.also.len() {
                0 => String::new(),
                _ => format!(" for resource '{resource}'"),
            };
            let names = names.join(", ");
            let reason = format!("is not a limit of this lease{of_resource}; it named: {names}");
            InvalidInput::unknown(format!("{field}.{limit}"), limit, reason).into()
        })
    }
}

/// A correction of a limit that is not written yet: positive is more consumption.
#[derive(Debug)]
pub(super) struct Delta {
    /// Of which resource of the request.
    pub(super) part: usize,
    pub(super) limit: LimitName,
    pub(super) amount: Millitokens,
}

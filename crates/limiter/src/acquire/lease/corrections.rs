//! What a lease writes when it ends: corrections of the shards that were debited.

use zae_limiter_core::acquire::Grant;
use zae_limiter_core::credit::CreditEnd;
use zae_limiter_core::detached;
use zae_limiter_core::outage::local_buckets::Claim;
use zae_limiter_core::{LimitName, Millitokens, ResourceName};

use super::{Held, Lease};
use crate::acquire::refunds::queues::Correction;
use crate::acquire::refunds::{Haste, enqueue, with_help};
use crate::error::Error;

fn all_of(grants: &[Grant]) -> Vec<Correction> {
    grants.iter().map(Correction::of_all).collect()
}

/// The corrections that adjustments come to: see [`detached::spread`].
fn spread<'a>(
    grants: &[Grant],
    deltas: impl IntoIterator<Item = (&'a ResourceName, &'a LimitName, Millitokens)>,
) -> Vec<Correction> {
    let mut corrections: Vec<Correction> = grants
        .iter()
        .map(|grant| Correction {
            grant: grant.clone(),
            deltas: Vec::new(),
        })
        .collect();
    for (at, name, part) in detached::spread(grants, deltas) {
        corrections[at].deltas.push((name.to_smol(), part));
    }
    corrections.retain(|correction| !correction.deltas.is_empty());
    corrections
}

impl Lease {
    /// Sends a correction whether or not a caller waits for it.
    pub(super) fn send_later(&self, correction: Correction, what: &'static str) {
        let correction = self.inner.settle_in_slices(correction);
        if !correction.deltas.is_empty() {
            drop(enqueue(&self.inner, correction, what, Haste::MayWait));
        }
    }

    pub(super) async fn write_adjustments(&mut self) -> Result<(), Error> {
        let corrections = self.adjustments();
        self.correct(corrections).await
    }

    /// What the adjustments are for the shards that were debited. Those of a lease from memory are made. The lease is finished.
    pub(super) fn adjustments(&mut self) -> Vec<Correction> {
        let deltas = std::mem::take(&mut self.deltas);
        let held = std::mem::replace(&mut self.held, Held::Finished);
        if deltas.is_empty() {
            return Vec::new();
        }
        let request = &self.request;
        let deltas = deltas
            .iter()
            .map(|delta| (request.part(delta.part).0, &delta.limit, delta.amount));
        match held {
            Held::Table(grants) => spread(&grants, deltas),
            Held::Local(claims) => {
                self.correct_local(
                    &claims,
                    deltas.map(|(resource, name, delta)| (resource, name, -delta)),
                );
                Vec::new()
            }
            Held::Nothing | Held::Finished => Vec::new(),
        }
    }

    pub(super) fn give_tokens_back_later(&mut self, what: &'static str) {
        match std::mem::replace(&mut self.held, Held::Finished) {
            Held::Table(grants) => {
                for correction in all_of(&grants) {
                    self.send_later(correction, what);
                }
            }
            Held::Local(claims) => self.correct_local(&claims, self.all()),
            Held::Nothing | Held::Finished => {}
        }
    }

    pub(super) async fn give_tokens_back(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.held, Held::Finished) {
            Held::Table(grants) => self.correct(all_of(&grants)).await,
            Held::Local(claims) => {
                self.correct_local(&claims, self.all());
                Ok(())
            }
            Held::Nothing | Held::Finished => Ok(()),
        }
    }

    /// All amounts that it holds, without adjustments.
    pub(super) fn all(&self) -> impl Iterator<Item = (&ResourceName, &LimitName, Millitokens)> {
        let of = |(resource, amounts)| {
            let amounts: &[(LimitName, Millitokens)] = amounts;
            amounts
                .iter()
                .map(move |(name, amount)| (resource, name, *amount))
        };
        self.request.parts().flat_map(of)
    }

    /// Corrects limits in memory: positive deltas give back.
    pub(super) fn correct_local<'a>(
        &self,
        claims: &[Claim],
        deltas: impl Iterator<Item = (&'a ResourceName, &'a LimitName, Millitokens)>,
    ) {
        let of = |(resource, name, delta)| {
            let of_limit = move |claim: &&Claim| claim.limit() == name && claim.resource() == resource;
            claims.iter().filter(of_limit).map(move |claim| (claim, delta))
        };
        self.inner
            .local
            .correct(deltas.flat_map(of), self.inner.clock.now());
    }

    /// Queues all corrections, and waits for their outcomes until the deadline. They are sent whether or not the
    /// caller waits.
    async fn correct(&self, corrections: Vec<Correction>) -> Result<(), Error> {
        let corrections: Vec<_> = corrections
            .into_iter()
            .map(|correction| self.inner.settle_in_slices(correction))
            .filter(|correction| !correction.deltas.is_empty())
            .collect();
        let shards: Vec<_> = corrections
            .iter()
            .map(|correction| (correction.grant.id.clone(), correction.grant.shard))
            .collect();
        let ends: Vec<_> = corrections
            .into_iter()
            .map(|correction| enqueue(&self.inner, correction, "finished lease", Haste::MayWait))
            .collect();
        if ends.is_empty() {
            return Ok(());
        }
        let outcomes = async {
            let mut first = Ok(());
            for end in ends {
                let result = match end.await {
                    Ok(CreditEnd::Applied | CreditEnd::Gone) => Ok(()),
                    Ok(CreditEnd::InDoubt(err) | CreditEnd::Failed(err)) => Err(self.inner.table_error(err)),
                    Ok(CreditEnd::Refused(err)) => Err(err.into()),
                    Err(_) => Err(self.inner.place.runtime_ended()),
                };
                first = first.and(result);
            }
            first
        };
        let longest = self.timeout.saturating_add(self.inner.options.correction_delay);
        match tokio::time::timeout(longest, with_help(&self.inner, &shards, outcomes)).await {
            Ok(result) => result,
            Err(_) => Err(self.inner.place.still_sending(longest)),
        }
    }
}

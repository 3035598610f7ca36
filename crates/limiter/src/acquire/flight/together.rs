//! Tokens and places together: both, or none.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use zae_limiter_core::acquire::{AcquireError, Request};
use zae_limiter_core::config::{OnUnavailable, Resolved};
use zae_limiter_core::flight::ConcurrencyExceeded;
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::{Applied, FailureKind, TableError};

use super::Wish;
use super::places::{NoPlace, Own, Places};
use crate::acquire::attempt::Attempt;
use crate::acquire::lease::Lease;
use crate::error::{Error, Last};
use crate::inner::Inner;

/// The first pause of a call that waits for a place, and the longest. Pauses double; jitter takes up to half of each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A call that has its tokens.
struct Admitted {
    lease: Lease,
    /// Whether it needs places, and one of its own entity: none if it was admitted without the table, and those of the entities above
    /// if it is only counted.
    needs: Option<Own>,
}

impl Admitted {
    fn new(lease: Lease) -> Self {
        let own = if lease.is_bypassed() { Own::No } else { Own::Yes };
        let needs = (!lease.is_degraded()).then_some(own);
        Self { lease, needs }
    }
}

impl Attempt<'_> {
    /// Takes the tokens of a request and its places: at the same time, or `one_by_one`, the places first.
    pub(in crate::acquire) async fn take_with_places(
        &self,
        request: &Request,
        wish: Wish,
        one_by_one: bool,
        until: Instant,
    ) -> Result<Lease, Error> {
        let (inner, id) = (self.inner, &request.id);
        let mut places = None;
        let admitted = if inner.breaker.is_open() {
            // The tokens first: their request is the probe.
            self.admit(request, until).await?
        } else if one_by_one {
            let taken = self.places_until(id, wish, Own::ByCache, until).await;
            if let Err(NoPlace::Full(full)) = taken {
                return Err(full.into());
            }
            places = Some(taken);
            self.admit(request, until).await?
        } else {
            let mut taking = std::pin::pin!(self.places_until(id, wish, Own::ByCache, until));
            let mut admitting = std::pin::pin!(self.admit(request, until));
            tokio::select! {
                // A call without tokens reads the configuration, which the place then shares.
                biased;
                // Without tokens the place is not wanted, and goes back in the background.
                admitted = &mut admitting => {
                    let admitted = admitted?;
                    if admitted.needs.is_some() {
                        places = Some(taking.await);
                    }
                    admitted
                }
                taken = &mut taking => {
                    places = Some(taken);
                    admitting.await?
                }
            }
        };
        let Admitted { lease, needs } = admitted;
        let Some(own) = needs else { return Ok(lease) };
        let taken = match places {
            Some(Ok(Places::Held { mut places, has_own })) => match own {
                Own::No => {
                    if has_own {
                        drop(places.remove(0));
                    }
                    return Ok(lease.with_places(places));
                }
                _ if has_own => return Ok(lease.with_places(places)),
                // What was cached is not what the table says: the call is not only counted.
                _ => {
                    let more = self.places_until(id, wish, Own::Only, until).await;
                    more.map(|more| {
                        let mut all = more.held();
                        all.extend(places);
                        all
                    })
                }
            },
            Some(Err(NoPlace::Full(full))) if own == Own::No && full.entity == id.entity => {
                self.places_until(id, wish, own, until).await.map(Places::held)
            }
            Some(Err(why)) => Err(why),
            // By what was cached it was disabled, or nothing was tried.
            Some(Ok(Places::Skipped)) | None => {
                self.places_until(id, wish, own, until).await.map(Places::held)
            }
        };
        let err = match taken {
            Ok(places) => return Ok(lease.with_places(places)),
            Err(NoPlace::Full(full)) => full.into(),
            Err(NoPlace::Failed(AcquireError::Table(err)))
                if err.is_outage() && self.admits_in_outage(id) =>
            {
                if let Some(left_out) = inner.log.without_table.due(inner.clock.now()) {
                    let resource = id.resource.as_str();
                    tracing::warn!(resource, error = %err, left_out, "admitting without a place in flight");
                }
                return Ok(lease);
            }
            Err(NoPlace::Failed(err)) => inner.place.acquire_error(err),
        };
        lease.refund(until).await;
        Err(err)
    }

    /// Whether the policy for outages admits calls without the table.
    fn admits_in_outage(&self, id: &BucketId) -> bool {
        let policy = self.inner.policy(self.on_unavailable, &id.entity, &id.resource);
        policy != OnUnavailable::Block
    }

    /// Takes places until the deadline.
    async fn places_until(
        &self,
        id: &BucketId,
        wish: Wish,
        own: Own,
        until: Instant,
    ) -> Result<Places, NoPlace> {
        let taking = self.inner.take_places(id, wish, own);
        let taken = tokio::time::timeout_at(until, taking).await;
        taken.unwrap_or_else(|_| {
            let message = format!("no place in flight within {} ms", self.timeout.as_millis());
            // One that was taken nevertheless is given back.
            let late = TableError::new(FailureKind::Timeout, Applied::No, message);
            Err(AcquireError::Table(late).into())
        })
    }

    /// Takes the tokens. A request without any only asks whether the entity is disabled or under a bypass.
    async fn admit(&self, request: &Request, until: Instant) -> Result<Admitted, Error> {
        if !request.consume.is_empty() {
            return Ok(Admitted::new(self.take_tokens(request, until).await?));
        }
        let inner = self.inner;
        let (entity, resource) = (&request.id.entity, &request.id.resource);
        let read = inner.chain(entity, resource);
        let err = match tokio::time::timeout_at(until, read).await {
            Ok(Ok(chain)) => {
                let disabled = |config: &Arc<Resolved>| Some((config.entity.clone(), config.disabled()?));
                // That of an entity above comes first, as with tokens.
                if let Some((entity, level)) = chain.iter().rev().find_map(disabled) {
                    return Err(Error::Disabled {
                        entity: entity.to_string(),
                        resource: resource.to_string(),
                        level: level.as_str(),
                    });
                }
                let is_bypassed = chain.first().is_some_and(|config| config.is_bypassed());
                return Ok(Admitted {
                    lease: Lease::granted(inner, request, Vec::new()),
                    needs: Some(if is_bypassed { Own::No } else { Own::Yes }),
                });
            }
            Ok(Err(AcquireError::Table(err))) if err.is_outage() => inner.table_error(err),
            Ok(Err(err)) => return Err(inner.place.acquire_error(err)),
            Err(_) => inner.place.gave_up(self.timeout, false, Last::Nothing),
        };
        if self.admits_in_outage(&request.id) {
            return Ok(Admitted::new(Lease::unlimited(inner, request, err)));
        }
        Err(err)
    }
}

/// A call that waits for a place.
#[derive(Default)]
pub(in crate::acquire) struct Waiting {
    refusals: u32,
    freed: Option<(BucketId, watch::Receiver<u64>)>,
}

impl Waiting {
    /// Whether it was refused before. Then it takes its place first, so that it does not take tokens in vain.
    pub(in crate::acquire) fn was_refused(&self) -> bool {
        self.refusals > 0
    }

    /// Waits after a refusal until it may ask again: for a while, or until this process gives a place back.
    pub(in crate::acquire) async fn pause(&mut self, inner: &Inner, full: &ConcurrencyExceeded) {
        let longest = FIRST_PAUSE
            .saturating_mul(2_u32.saturating_pow(self.refusals))
            .min(LONGEST_PAUSE);
        self.refusals = self.refusals.saturating_add(1);
        let id = inner.bucket_id(&full.entity, &full.resource);
        let watched = self.freed.take().filter(|(watched, _)| *watched == id);
        let (id, mut freed) = watched.unwrap_or_else(|| {
            let freed = inner.flight.freed.watch(&id);
            (id, freed)
        });
        tokio::select! {
            () = tokio::time::sleep(longest.mul_f64(0.5 + fastrand::f64() / 2.0)) => {}
            Ok(()) = freed.changed() => {}
        }
        self.freed = Some((id, freed));
    }
}

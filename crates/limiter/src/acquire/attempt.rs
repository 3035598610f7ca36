//! How a call gets its tokens: at once, or in turn with others that wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use zae_limiter_core::RateLimitExceeded;
use zae_limiter_core::acquire::{AcquireError, Decision, Request};
use zae_limiter_core::config::OnUnavailable;
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::Applied;

use crate::acquire::driver::Drive;
use crate::acquire::flight::{Waiting, Wish};
use crate::acquire::lease::Lease;
use crate::acquire::outage::degrade::without_table;
use crate::acquire::slices::{Filling, Prefetch, Source};
use crate::acquire::waiting::{OnWait, Patience, with_jitter};
use crate::error::{Error, level_name};
use crate::inner::Inner;
use crate::telemetry::Call;

/// Stands for a deadline beyond what the clock can represent: 30 years.
const LONGEST: Duration = Duration::from_hours(30 * 365 * 24);

/// How long at most to wait before an acquire that failed without having taken anything begins again; jitter takes up to
/// half of it.
const PAUSE: Duration = Duration::from_millis(250);

/// How tokens are to be taken.
pub(super) struct Attempt<'a> {
    pub(super) call: &'a Call,
    pub(super) inner: &'a Arc<Inner>,
    pub(super) on_unavailable: Option<OnUnavailable>,
    pub(super) timeout: Duration,
    pub(super) prefetch: Option<Prefetch>,
    /// The places in flight to be taken as well.
    pub(super) wish: Option<Wish>,
}

impl Attempt<'_> {
    /// The time to wait is over, and the call's turn has not come.
    fn out_of_time(&self, request: &Request, last: Option<Error>) -> Result<Lease, Error> {
        let inner = self.inner;
        let err = match inner.breaker.refused(inner.clock.now()) {
            Some(outage) => inner.table_error(outage),
            None => last.unwrap_or_else(|| inner.refused_in_queue(request)),
        };
        match err {
            Error::Unavailable(_) => without_table(inner, request, self.on_unavailable, err),
            refused => Err(refused),
        }
    }

    /// The refusal of a call by what is cached. There is none if tokens may be held for calls to come: they may be what is missing.
    pub(super) fn refused_at_once(&self, request: &Request) -> Option<Error> {
        if self.prefetch.is_some() || self.inner.slices.are_held() || request.consume.is_empty() {
            return None;
        }
        let refused = self.inner.refused_from_memory(request)?;
        Some(self.refused(refused))
    }

    /// The error of a call that limits have refused, whose corrections need not wait any longer.
    fn refused(&self, refused: RateLimitExceeded) -> Error {
        let inner = self.inner;
        if !inner.options.correction_delay.is_zero() {
            for status in refused.violations() {
                inner.release_corrections(&inner.bucket_id(&status.entity, &status.resource));
            }
        }
        refused.into()
    }

    /// Takes the tokens, and the places if the call asks for some, or is refused. `one_by_one`: first the places, so that no
    /// tokens are taken in vain.
    pub(super) async fn take(&self, request: &Request, one_by_one: bool) -> Result<Lease, Error> {
        let now = Instant::now();
        let until = now.checked_add(self.timeout).unwrap_or(now + LONGEST);
        match self.wish {
            None => self.take_tokens(request, until).await,
            Some(wish) => {
                let taking = self.take_with_places(request, wish, one_by_one, until);
                Box::pin(taking).await
            }
        }
    }

    /// Takes the tokens, or is refused.
    pub(super) async fn take_tokens(&self, request: &Request, until: Instant) -> Result<Lease, Error> {
        if !request.overdraws {
            return self.take_covered(request, until).await;
        }
        // What the shards hold together is spent before one of them goes into debt.
        let covered = Request {
            overdraws: false,
            ..request.clone()
        };
        match Box::pin(self.take_covered(&covered, until)).await {
            Err(Error::RateLimitExceeded(_)) => {
                Box::pin(self.take_from_table(request, request, None, until)).await
            }
            taken => taken,
        }
    }

    /// Takes tokens that are there, or is refused.
    async fn take_covered(&self, request: &Request, until: Instant) -> Result<Lease, Error> {
        let inner = self.inner;
        let is_plain = request.limits.is_none() && request.also.is_empty();
        let prefetch = self.prefetch.filter(|_| is_plain);
        let taken = match prefetch.map(|prefetch| inner.source_of(request, prefetch)) {
            None => self.take_from_table(request, request, None, until).await,
            Some(Source::Memory(grants)) => return Ok(Lease::granted(inner, request, grants)),
            Some(Source::Table(asked)) => {
                let (asked, filling) = *asked;
                self.take_from_table(request, &asked, Some(filling), until).await
            }
        };
        match taken {
            // What this process holds may be what is missing.
            Err(Error::RateLimitExceeded(refused)) if request.limits.is_none() => {
                let returned = tokio::time::timeout_at(until, inner.return_slices(&refused)).await;
                if returned.is_ok_and(|any| any) {
                    self.take_from_table(request, request, None, until).await
                } else {
                    Err(refused.into())
                }
            }
            taken => taken,
        }
    }

    /// Asks the table for the tokens of a request, and for those that `asked` has in addition.
    async fn take_from_table(
        &self,
        request: &Request,
        asked: &Request,
        mut filling: Option<Filling>,
        until: Instant,
    ) -> Result<Lease, Error> {
        let (inner, on_unavailable, timeout) = (self.inner, self.on_unavailable, self.timeout);
        let mut drive = Drive::new(inner, asked.clone()).under_policy(on_unavailable);
        let mut is_retry = false;
        let err = loop {
            let decided = tokio::time::timeout_at(until, drive.run()).await;
            self.call.has_sent(drive.sent());
            match decided {
                Ok(Decision::Admitted(grants)) => {
                    inner.alert_use(&grants);
                    let grants = match filling.take() {
                        Some(filling) => filling.admitted(request, grants, drive.is_paid()),
                        None => grants,
                    };
                    return Ok(Lease::granted(inner, request, grants));
                }
                Ok(Decision::Rejected(refused)) => return Err(self.refused(refused)),
                Ok(Decision::Disabled { bucket, at }) => {
                    return Err(Error::Disabled {
                        entity: bucket.entity.to_string(),
                        resource: bucket.resource.to_string(),
                        level: level_name(at),
                    });
                }
                Ok(Decision::Failed(AcquireError::Table(err))) if err.is_outage() => {
                    let id = &request.id;
                    let pause = PAUSE.mul_f64(0.5 + fastrand::f64() / 2.0);
                    // A call that is to be refused during an outage retries until its deadline, unless it began while
                    // the table was known not to answer.
                    let again = err.applied == Applied::No
                        && (is_retry || !drive.met_open_breaker())
                        && inner.policy(on_unavailable, &id.entity, &id.resource) == OnUnavailable::Block
                        && Instant::now() + pause < until;
                    if !again {
                        break inner.table_error(err);
                    }
                    // What the last attempt has still on its way is finished in the background.
                    drive = Drive::new(inner, asked.clone())
                        .under_policy(on_unavailable)
                        .after(err);
                    tokio::time::sleep(pause).await;
                    is_retry = true;
                }
                Ok(Decision::Failed(err)) => return Err(inner.place.acquire_error(err)),
                Err(_) => break drive.gave_up(timeout),
            }
        };
        // What it has sent is finished in the background.
        drop(drive);
        without_table(inner, request, on_unavailable, err)
    }

    /// Takes the tokens, as often as it takes until they are there, in turn with others that wait for the same bucket.
    pub(super) async fn take_in_turn(
        &self,
        request: &Request,
        patience: Patience,
        on_wait: Option<&OnWait>,
    ) -> Result<Lease, Error> {
        let inner = self.inner;
        let began = Instant::now();
        let until = patience.until(began);
        let place = inner.queues.enter(request.parts().map(|(resource, _)| BucketId {
            resource: resource.clone(),
            ..request.id.clone()
        }));
        let mut last = None;
        let mut for_place = Waiting::default();
        loop {
            let turn = place.turn();
            match until {
                None => turn.await,
                Some(until) => {
                    if tokio::time::timeout_at(until, turn).await.is_err() {
                        drop(place);
                        self.call.has_waited(began.elapsed());
                        return self.out_of_time(request, last);
                    }
                }
            }
            self.call.has_waited(began.elapsed());
            let refused = match self.take(request, for_place.was_refused()).await {
                Ok(lease) => {
                    place.admitted();
                    return Ok(lease);
                }
                Err(Error::RateLimitExceeded(refused)) => refused,
                Err(Error::ConcurrencyExceeded(full)) => {
                    place.must_wait();
                    let pause = for_place.pause(inner, &full);
                    let is_over = match until {
                        None => {
                            pause.await;
                            false
                        }
                        Some(until) => tokio::time::timeout_at(until, pause).await.is_err(),
                    };
                    if is_over {
                        return Err(full.into());
                    }
                    last = Some(full.into());
                    continue;
                }
                Err(other) => return Err(other),
            };
            let Some(wait) = refused.retry_after() else {
                return Err(refused.into());
            };
            let sleep = with_jitter(wait);
            let now = Instant::now();
            if until.is_some_and(|until| now + wait > until) {
                return Err(refused.into());
            }
            place.refused(&refused);
            if let Some(tell) = on_wait {
                tell.tell(&refused, wait);
            }
            last = Some(refused.into());
            tokio::time::sleep(until.map_or(sleep, |until| sleep.min(until - now).max(wait))).await;
        }
    }
}

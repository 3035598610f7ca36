//! Tokens taken ahead: calls that are served from memory, and what becomes of tokens that no call has spent.
//!
//! [`Slice`] has the rules. Here are the slices of a process: which one a call is served from, which one it fills, and the task
//! that returns what is too old.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use zae_limiter_core::acquire::{ForSlices, Grant, Request, Slice, split};
use zae_limiter_core::bucket::Owner;
use zae_limiter_core::config::Resolved;
use zae_limiter_core::credit::CreditEnd;
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::{
    EntityId, EpochMillis, InvalidInput, LimitName, LimitStatus, Millitokens, RateLimitExceeded,
    ResourceName, Wait,
};

use crate::acquire::refunds::queues::Correction;
use crate::acquire::refunds::{Haste, enqueue};
use crate::inner::Inner;

/// How many buckets have a slice at most. Calls of others take no tokens ahead.
const MAX_SLICES: usize = 10_000;

/// How long a slice without tokens is kept after the last call at most, in milliseconds.
const FORGOTTEN_MS: i64 = 5_000;

/// How often the task looks for slices that are too old, at least and at most.
const SWEEPS: std::ops::RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_millis(250);

/// The refunds of tokens that were taken ahead, in the log.
const RETURNED: &str = "tokens taken ahead";

/// How many tokens a process takes ahead, and how long it keeps them: see
/// [`RepositoryBuilder::prefetch`](crate::RepositoryBuilder::prefetch).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefetch {
    calls: u32,
    max_age: Duration,
}

impl Prefetch {
    /// Tokens for this many calls of a bucket at a time, the call that takes them included: 2 to 10,000. They are kept for up to
    /// one second.
    pub fn calls(calls: u32) -> Self {
        Self {
            calls,
            max_age: Duration::from_secs(1),
        }
    }

    /// How long tokens are kept after the last call that took some: 10 ms to 60 s.
    #[must_use]
    pub fn max_age(self, max_age: Duration) -> Self {
        Self { max_age, ..self }
    }

    /// Checks both.
    pub(crate) fn check(self) -> Result<Self, InvalidInput> {
        if !(2..=10_000).contains(&self.calls) {
            return Err(InvalidInput::new(
                "prefetch.calls",
                self.calls,
                "must be from 2 to 10000",
            ));
        }
        if !(Duration::from_millis(10)..=Duration::from_mins(1)).contains(&self.max_age) {
            let value = format!("{:?}", self.max_age);
            return Err(InvalidInput::new(
                "prefetch.max_age",
                value,
                "must be from 10 ms to 60 s",
            ));
        }
        Ok(self)
    }

    fn max_age_ms(self) -> i64 {
        i64::try_from(self.max_age.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Tokens that a process holds for calls to come: see [`Repository::prefetched`](crate::Repository::prefetched).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Prefetched {
    /// How many buckets it holds tokens of.
    pub buckets: usize,
    /// Whole tokens by limit, of all buckets together.
    pub tokens: BTreeMap<String, u64>,
}

/// The slices of a repository.
#[derive(Debug, Default)]
pub(crate) struct Slices {
    held: Mutex<HashMap<BucketId, Held>>,
    /// Whether the task is at work that returns what is too old.
    is_swept: AtomicBool,
}

#[derive(Debug)]
struct Held {
    slice: Slice,
    prefetch: Prefetch,
}

impl Held {
    fn is_over(&self, now: EpochMillis) -> bool {
        self.slice.is_over(now, self.prefetch.max_age_ms())
    }

    fn serves(&self, config: &Arc<Resolved>, amounts: &[(LimitName, Millitokens)], now: EpochMillis) -> bool {
        self.slice.is_valid(config, now, self.prefetch.max_age_ms()) && self.slice.covers(amounts)
    }
}

impl Slices {
    fn lock(&self) -> MutexGuard<'_, HashMap<BucketId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the process may hold tokens for calls to come.
    pub(crate) fn are_held(&self) -> bool {
        !self.lock().is_empty()
    }

    pub(crate) fn prefetched(&self) -> Prefetched {
        let mut all = Prefetched::default();
        for held in self.lock().values().filter(|held| !held.slice.is_empty()) {
            all.buckets += 1;
            for (limit, amount) in held.slice.pieces().iter().flat_map(|piece| &piece.amounts) {
                *all.tokens.entry(limit.to_string()).or_default() += amount.floor_amount();
            }
        }
        all
    }

    /// Whole tokens of a limit of this bucket that the process holds.
    pub(crate) fn held_of(&self, id: &BucketId, limit: &str) -> i64 {
        let held = self.lock();
        let pieces = held.get(id).map(|held| held.slice.pieces()).unwrap_or_default();
        let of_limit = pieces
            .iter()
            .flat_map(|piece| &piece.amounts)
            .filter(|(name, _)| name.as_str() == limit);
        Millitokens(of_limit.map(|(_, amount)| amount.0).sum()).floor_tokens()
    }
}

/// Where a call gets its tokens.
pub(crate) enum Source {
    /// From memory: all of them are here.
    Memory(Vec<Grant>),
    /// From the table, with this request.
    Table(Box<(Request, Filling)>),
}

/// What a call does for slices while it asks the table. If it ends without tokens, or is dropped, nothing has changed.
pub(crate) struct Filling {
    inner: Arc<Inner>,
    /// The configuration of each bucket that it takes tokens ahead for.
    fills: Vec<(BucketId, Arc<Resolved>)>,
    /// The parent's tokens that the call has taken from memory, and their configuration.
    paid: Option<(BucketId, Vec<Grant>, Arc<Resolved>)>,
}

impl Inner {
    /// Serves a call from memory, or says what it asks the table for.
    pub(crate) fn source_of(self: &Arc<Self>, request: &Request, prefetch: Prefetch) -> Source {
        let now = self.clock.now();
        let id = &request.id;
        let filling = |fills, paid| Filling {
            inner: Arc::clone(self),
            fills,
            paid,
        };
        let plain = || Source::Table(Box::new((request.clone(), filling(Vec::new(), None))));
        let Some(config) = self.config.peek(&id.entity, &id.resource, now) else {
            return plain();
        };
        let has_zero = request
            .consume
            .iter()
            .any(|(_, amount)| *amount == Millitokens::ZERO);
        if has_zero || self.background.is_draining() {
            // Such a call is never served from memory; and what is taken ahead during a drain would have to be returned.
            return plain();
        }
        let parent = match config.owner.as_ref().and_then(Owner::cascade_parent) {
            None => None,
            Some(entity) => match self.config.peek(entity, &id.resource, now) {
                None => return plain(),
                // Tokens of more than two levels are not taken ahead.
                Some(config) if config.leads_above() => return plain(),
                Some(config) => Some((self.bucket_id(entity, &id.resource), config)),
            },
        };
        // A parent has a say only on the limits that it has.
        let of_parent = parent.as_ref().map(|(_, config)| {
            let has = |(limit, _): &&(LimitName, Millitokens)| config.limit(limit).is_some();
            request.consume.iter().filter(has).cloned().collect::<Vec<_>>()
        });
        let of_parent = of_parent.unwrap_or_default();
        let parent = parent.filter(|_| !of_parent.is_empty());
        let mut held = self.slices.lock();
        let serves = |held: &HashMap<BucketId, Held>, id, config, amounts| {
            let held = held.get(id);
            held.is_some_and(|held| held.serves(config, amounts, now))
        };
        let serves_child = serves(&held, id, &config, &request.consume);
        let serves_parent = parent
            .as_ref()
            .is_some_and(|(id, config)| serves(&held, id, config, &of_parent));
        let mut spend = |id: &BucketId, amounts: &[(LimitName, Millitokens)]| {
            let held = held.get_mut(id);
            let spend = |held: &mut Held| {
                held.slice.note(amounts);
                held.slice.spend(amounts, now)
            };
            held.map(spend).unwrap_or_default()
        };
        let paid = parent.as_ref().filter(|_| serves_parent);
        let paid = paid.map(|(id, config)| (id.clone(), spend(id, &of_parent), Arc::clone(config)));
        if serves_child && (parent.is_none() || paid.is_some()) {
            let mut grants = spend(id, &request.consume);
            grants.extend(paid.into_iter().flat_map(|(_, grants, _)| grants));
            drop(held);
            self.sweep_soon();
            return Source::Memory(grants);
        }
        let mut fills = Vec::new();
        let mut fill = |id: &BucketId, config: &Arc<Resolved>, amounts: &[(LimitName, Millitokens)]| {
            if held.len() >= MAX_SLICES && !held.contains_key(id) {
                return None;
            }
            let held = held.entry(id.clone()).or_insert_with(|| Held {
                slice: Slice::default(),
                prefetch,
            });
            held.prefetch = prefetch;
            let slice = &mut held.slice;
            slice.note(amounts);
            let ahead = slice.fill(amounts, now, prefetch.max_age_ms(), prefetch.calls)?;
            fills.push((id.clone(), Arc::clone(config)));
            Some(ahead)
        };
        let slices = ForSlices {
            // What has enough is not filled: the other one lacks tokens.
            child: (!serves_child)
                .then(|| fill(id, &config, &request.consume))
                .flatten(),
            parent: match &parent {
                Some((id, config)) if !serves_parent => {
                    fill(id, config, &of_parent).map(|ahead| (id.entity.clone(), ahead))
                }
                _ => None,
            },
            paid: paid.as_ref().map(|(id, ..)| id.entity.clone()),
        };
        drop(held);
        let asked = Request {
            slices: Some(Box::new(slices)),
            ..request.clone()
        };
        self.sweep_soon();
        Source::Table(Box::new((asked, filling(fills, paid))))
    }

    /// Starts the task that returns tokens, if it is not at work.
    fn sweep_soon(self: &Arc<Self>) {
        if !self.slices.is_swept.swap(true, Ordering::AcqRel) {
            let sweeper = Sweeper {
                inner: Arc::clone(self),
                has_ended: false,
            };
            self.background.spawn("tokens taken ahead", sweeper.run());
        }
    }

    /// If a call was refused tokens that this process holds, returns them, and waits until they are back. Returns whether that was
    /// so.
    pub(crate) async fn return_slices(self: &Arc<Self>, refused: &RateLimitExceeded) -> bool {
        if self.slices.lock().is_empty() {
            return false;
        }
        let is_held = |status: &LimitStatus| {
            let held = self.held_ahead(&status.entity, &status.resource, &status.limit_name);
            let there = i128::from(status.available) + i128::from(held);
            held > 0 && status.wait != Wait::Never && there >= i128::from(status.requested)
        };
        if !refused.violations().all(is_held) {
            return false;
        }
        let mut ends = Vec::new();
        for status in refused.violations() {
            let id = self.bucket_id(&status.entity, &status.resource);
            let grants = self.slices.lock().get_mut(&id).map(|held| held.slice.take_all());
            ends.extend(self.give_back_all(grants.unwrap_or_default()));
        }
        let any = !ends.is_empty();
        for end in ends {
            // Without an outcome the runtime is ending.
            let _ = end.await;
        }
        any
    }

    /// Returns the tokens of a bucket that this process holds for calls to come, and waits until they are back.
    pub(crate) async fn return_slices_of(self: &Arc<Self>, id: &BucketId) {
        let grants = self.slices.lock().get_mut(id).map(|held| held.slice.take_all());
        for end in self.give_back_all(grants.unwrap_or_default()) {
            // Without an outcome the runtime is ending.
            let _ = end.await;
        }
    }

    /// Returns all tokens that this process holds for calls to come.
    pub(crate) fn return_all_slices(self: &Arc<Self>) {
        let held = std::mem::take(&mut *self.slices.lock());
        let grants = held.into_values().flat_map(|mut held| held.slice.take_all());
        drop(self.give_back_all(grants.collect()));
    }

    fn give_back_all(self: &Arc<Self>, grants: Vec<Grant>) -> Vec<oneshot::Receiver<CreditEnd>> {
        let give_back = |grant: Grant| enqueue(self, Correction::of_all(&grant), RETURNED, Haste::Now);
        grants.into_iter().map(give_back).collect()
    }

    /// Settles the part of a correction that memory can: what is given back stays for calls to come, and what is charged is
    /// taken from what is there. Returns the rest.
    pub(crate) fn settle_in_slices(&self, mut correction: Correction) -> Correction {
        if correction.grant.is_bypassed {
            return correction;
        }
        let mut held = self.slices.lock();
        let Some(held) = held.get_mut(&correction.grant.id) else {
            return correction;
        };
        let now = self.clock.now();
        if held.is_over(now) {
            return correction;
        }
        let grant = &correction.grant;
        correction.deltas.retain(|(limit, delta)| {
            let Some((limit, _)) = grant
                .amounts
                .iter()
                .find(|(named, _)| named.as_str() == limit.as_str())
            else {
                return true;
            };
            let amounts = vec![(limit.clone(), Millitokens(delta.0.abs()))];
            if delta.0 < 0 {
                let is_covered = held.slice.covers(&amounts);
                if is_covered {
                    // They count as consumed already.
                    drop(held.slice.spend(&amounts, now));
                }
                return !is_covered;
            }
            let has_room = held.slice.has_room(grant, limit, *delta);
            if has_room {
                held.slice.put_back([Grant {
                    amounts,
                    ..grant.clone()
                }]);
            }
            !has_room
        });
        correction
    }

    /// Adds what this process holds to what a limit has available.
    pub(crate) fn held_ahead(&self, entity: &EntityId, resource: &ResourceName, limit: &str) -> i64 {
        self.slices.held_of(&self.bucket_id(entity, resource), limit)
    }
}

impl Filling {
    /// The call was admitted with these grants. Returns those of its lease: without what it has taken ahead, and with what it has
    /// taken from memory if that counts (`is_paid`).
    pub(crate) fn admitted(mut self, request: &Request, grants: Vec<Grant>, is_paid: bool) -> Vec<Grant> {
        let now = self.inner.clock.now();
        let (mut ours, mut ahead) = split(grants, &request.consume);
        let mut back = Vec::new();
        {
            let mut held = self.inner.slices.lock();
            let fills = std::mem::take(&mut self.fills);
            for (id, config) in fills {
                let (taken, others): (Vec<_>, Vec<_>) = ahead.into_iter().partition(|grant| grant.id == id);
                ahead = others;
                match held.get_mut(&id) {
                    Some(held) => back.extend(held.slice.filled(taken, &config, now)),
                    None => back.extend(taken),
                }
            }
            back.extend(ahead);
        }
        drop(self.inner.give_back_all(back));
        if is_paid && let Some((_, grants, _)) = self.paid.take() {
            ours.extend(grants);
        }
        ours
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        let mut back = Vec::new();
        {
            let mut held = self.inner.slices.lock();
            for (id, _) in self.fills.drain(..) {
                if let Some(held) = held.get_mut(&id) {
                    held.slice.not_filled();
                }
            }
            if let Some((id, grants, config)) = self.paid.take() {
                match held.get_mut(&id) {
                    Some(held) if held.slice.is_of(&config) => held.slice.put_back(grants),
                    _ => back = grants,
                }
            }
        }
        drop(self.inner.give_back_all(back));
    }
}

/// Returns tokens that were not spent in time, until there are no slices.
struct Sweeper {
    inner: Arc<Inner>,
    has_ended: bool,
}

impl Sweeper {
    async fn run(mut self) {
        while let Some(pause) = self.sweep() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.inner.background.draining() => {
                    self.inner.return_all_slices();
                    tokio::task::yield_now().await;
                }
            }
        }
        self.has_ended = true;
    }

    /// Returns the time until the next sweep; `None` if there are no slices.
    fn sweep(&self) -> Option<Duration> {
        let (inner, now) = (&self.inner, self.inner.clock.now());
        let mut grants = Vec::new();
        let mut shortest = None;
        {
            let mut held = inner.slices.lock();
            held.retain(|id, held| {
                let config = inner.config.stale(&id.entity, &id.resource);
                let is_other = config.is_some_and(|config| !held.slice.is_of(&config));
                if held.is_over(now) || is_other {
                    if !held.slice.is_empty() {
                        held.slice.was_idle();
                    }
                    grants.extend(held.slice.take_all());
                }
                // An empty one is there for the rate of calls.
                let longest = held.prefetch.max_age_ms().min(FORGOTTEN_MS);
                let stays = !held.slice.is_forgotten(now, longest)
                    || held.slice.is_filling()
                    || !held.slice.is_empty();
                if stays {
                    let age = held.prefetch.max_age / 4;
                    shortest = Some(shortest.map_or(age, |shortest: Duration| shortest.min(age)));
                }
                stays
            });
            if shortest.is_none() {
                // While the lock is held, so that a slice that comes later starts another one.
                inner.slices.is_swept.store(false, Ordering::Release);
            }
        }
        drop(inner.give_back_all(grants));
        shortest.map(|shortest| shortest.clamp(*SWEEPS.start(), *SWEEPS.end()))
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        self.inner.slices.is_swept.store(false, Ordering::Release);
        let left = self.inner.slices.prefetched();
        if left.buckets > 0 {
            tracing::error!(
                buckets = left.buckets,
                tokens = ?left.tokens,
                "the runtime ended before tokens that were taken ahead were returned; they stay consumed unless this process spends them"
            );
        }
    }
}

//! Takes the places of a call: that of the entity, and those of the entities above it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::sync::oneshot;
use zae_limiter_core::acquire::{AcquireError, Found};
use zae_limiter_core::config::Resolved;
use zae_limiter_core::flight::{ConcurrencyExceeded, Next, Take, TakeEnd, above};
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::{Applied, FailureKind, TableError};
use zae_limiter_core::{EntityId, InvalidInput, ResourceName};

use super::Wish;
use super::held::Held;
use crate::acquire::draws::FastRandom;
use crate::inner::Inner;

/// Why a call has no place.
#[derive(Debug)]
pub(super) enum NoPlace {
    /// All are taken.
    Full(ConcurrencyExceeded),
    /// It could not be decided.
    Failed(AcquireError),
}

impl From<AcquireError> for NoPlace {
    fn from(err: AcquireError) -> Self {
        Self::Failed(err)
    }
}

/// Whether a call takes a place of its own entity, beside those of the entities above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// Not if the entity is under a bypass by what is cached. If it is disabled, none at all is taken.
    ByCache,
    Yes,
    /// It is under a bypass.
    No,
    /// Those of the entities above are held already.
    Only,
}

/// The places of a call.
#[derive(Debug)]
pub(super) enum Places {
    /// These are held, the entity's own first if there is one.
    Held { places: Vec<Held>, has_own: bool },
    /// None was taken: by what is cached, the entity is disabled.
    Skipped,
}

impl Places {
    pub(super) fn held(self) -> Vec<Held> {
        match self {
            Self::Held { places, .. } => places,
            Self::Skipped => Vec::new(),
        }
    }
}

/// The places that a call needs.
struct Needed {
    wanted: Vec<Wanted>,
    has_own: bool,
}

/// An entity's places of which one is to be taken.
struct Wanted {
    id: BucketId,
    most: u32,
}

impl Inner {
    /// Takes all places of a call, or none.
    ///
    /// # Cancellation
    /// Places that were taken, or may have been, are given back in the background.
    pub(super) async fn take_places(
        self: &Arc<Self>,
        id: &BucketId,
        wish: Wish,
        own: Own,
    ) -> Result<Places, NoPlace> {
        let Some(Needed { wanted, has_own }) = self.needed_places(id, wish, own).await? else {
            return Ok(Places::Skipped);
        };
        let takes = wanted.into_iter().map(|wanted| {
            let (taken, result) = oneshot::channel();
            let Wanted { id, most } = wanted;
            let take = Take::new(id, most, wish.ttl_ms, &mut FastRandom);
            let inner = Arc::clone(self);
            self.background
                .spawn("places in flight", inner.drive_take(take, taken));
            result
        });
        // Each is awaited, so that a refusal of one knows of all others, and drops them.
        let ended = join_all(takes.collect::<Vec<_>>()).await;
        let mut held = Vec::with_capacity(ended.len());
        let mut refused = None;
        for end in ended {
            match end.unwrap_or_else(|_| Err(AcquireError::Abandoned.into())) {
                Ok(place) => held.push(place),
                // A refusal says more than a failure.
                Err(why @ NoPlace::Full(_)) => refused = Some(why),
                Err(why) => drop(refused.get_or_insert(why)),
            }
        }
        match refused {
            None => Ok(Places::Held {
                places: held,
                has_own,
            }),
            Some(why) => Err(why),
        }
    }

    /// The places that a call needs: that of the entity, whose limit must be known, and those of entities above that have one of
    /// their own.
    async fn needed_places(
        self: &Arc<Self>,
        id: &BucketId,
        wish: Wish,
        own: Own,
    ) -> Result<Option<Needed>, AcquireError> {
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut has_own = matches!(own, Own::Yes | Own::Only);
        let mut entity = id.entity.clone();
        let mut chain = Vec::new();
        for level in 0.. {
            let brought = wish.at_most.filter(|_| level == 0);
            let found = self.found(&entity, &id.resource);
            let (found, most) = if brought.is_some() {
                (found.await?, brought)
            } else {
                tokio::try_join!(
                    found,
                    self.most_in_flight(&entity, &id.resource, level > 0, false)
                )?
            };
            if level == 0 && own == Own::ByCache {
                if found.config.disabled().is_some() {
                    return Ok(None);
                }
                has_own = !found.config.is_bypassed();
            }
            let is_taken = if level == 0 {
                has_own
            } else {
                !found.config.is_bypassed()
            };
            match most {
                Some(most) if is_taken => wanted.push(Wanted {
                    id: self.bucket_id(&entity, &id.resource),
                    most,
                }),
                None if level == 0 => return Err(not_limited(&entity, &id.resource).into()),
                _ => {}
            }
            if own == Own::Only {
                break;
            }
            chain.push(entity);
            match above(&found, &chain) {
                Some(above) => entity = above.clone(),
                None => break,
            }
        }
        Ok(Some(Needed { wanted, has_own }))
    }

    /// The configuration of an entity and of those above that its requests debit, read now.
    pub(super) async fn chain(
        &self,
        entity: &EntityId,
        resource: &ResourceName,
    ) -> Result<Vec<Arc<Resolved>>, AcquireError> {
        let read = |entity: EntityId| async move {
            let config = &self.config;
            config
                .fetch(&self.table, &self.clock, &entity, resource, true)
                .await
        };
        let now = self.clock.now();
        let above = |config: &Arc<Resolved>, chain: &[EntityId]| {
            let (config, hint) = (Arc::clone(config), self.hint(&config.entity, resource, now));
            above(&Found { config, hint }, chain).cloned()
        };
        // Those above that are cached are read at the same time.
        let mut chain = vec![entity.clone()];
        while let Some(config) = chain
            .last()
            .and_then(|last| self.config.peek_uncounted(last, resource, now))
        {
            let Some(next) = above(&config, &chain) else { break };
            chain.push(next);
        }
        let mut reads = Vec::with_capacity(chain.len());
        for entity in &chain {
            reads.push(read(entity.clone()));
        }
        let mut configs = try_join_all(reads).await?;
        let mut at = 0;
        while let Some(config) = configs.get(at) {
            at += 1;
            let next = above(config, &chain[..at]);
            if next.as_ref() == chain.get(at) {
                continue;
            }
            chain.truncate(at);
            configs.truncate(at);
            if let Some(next) = next {
                configs.push(read(next.clone()).await?);
                chain.push(next);
            }
        }
        Ok(configs)
    }

    /// The configuration of an entity and what is cached of its bucket.
    async fn found(&self, entity: &EntityId, resource: &ResourceName) -> Result<Found, AcquireError> {
        let config = &self.config;
        let config = config
            .fetch(&self.table, &self.clock, entity, resource, false)
            .await?;
        let hint = self.hint(entity, resource, self.clock.now());
        Ok(Found { config, hint })
    }

    /// Takes one place, and gives it back if the caller has gone.
    async fn drive_take(self: Arc<Self>, mut take: Take, mut taken: oneshot::Sender<Result<Held, NoPlace>>) {
        let failed = loop {
            if taken.is_closed() {
                break None;
            }
            match take.next(self.clock.now()) {
                Next::Ended => break None,
                Next::Pause(millis) => {
                    let pause = tokio::time::sleep(Duration::from_millis(millis));
                    tokio::select! {
                        () = pause => {}
                        () = taken.closed() => {}
                    }
                }
                Next::Send(op) => {
                    if let Some(refusal) = self.breaker.refused(self.clock.now()) {
                        break Some(refusal);
                    }
                    let answer = self.ask_for_place(*op).await;
                    take.answer(answer, self.clock.now(), &mut FastRandom);
                }
            }
        };
        let end = match take.end() {
            Some(TakeEnd::Held(hold)) => Ok(Held::new(Arc::clone(&self), hold.clone())),
            Some(TakeEnd::Full(in_flight)) => Err(NoPlace::Full(ConcurrencyExceeded {
                entity: take.id().entity.clone(),
                resource: take.id().resource.clone(),
                limit: take.most(),
                in_flight: *in_flight,
            })),
            Some(TakeEnd::Record(err)) => Err(AcquireError::Record(err.clone()).into()),
            Some(TakeEnd::Failed(err)) => Err(AcquireError::Table(err.clone()).into()),
            None => Err(AcquireError::Table(failed.unwrap_or_else(abandoned)).into()),
        };
        if let Some(undo) = take.undo() {
            drop(self.give_place_back(undo));
        }
        // If the caller has gone, the place is dropped here, which gives it back.
        let _ = taken.send(end);
    }
}

fn abandoned() -> TableError {
    let message = "the caller stopped waiting";
    TableError::new(FailureKind::Timeout, Applied::No, message)
}

/// The error of a call that asks for a place where there is no limit.
pub(in crate::acquire) fn not_limited(entity: &EntityId, resource: &ResourceName) -> InvalidInput {
    let reason = format!(
        "no concurrency limit is configured for entity '{entity}' at any level; set one, or name one with the call"
    );
    InvalidInput::of_request("in_flight", resource, reason)
}

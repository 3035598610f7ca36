//! What an acquire would find: reads the configuration and the shards of an entity and of those above it.

use std::collections::BTreeMap;
use std::sync::Arc;

use zae_limiter_core::acquire::{DisabledAt, Request};
use zae_limiter_core::bucket::{MAX_SHARDS, Owner, is_disputed, newest_owner};
use zae_limiter_core::config::Resolved;
use zae_limiter_core::limit::Limit;
use zae_limiter_core::outage::policy::last_known;
use zae_limiter_core::schema::{BucketId, key_of};
use zae_limiter_core::verdict::LimitStatus;
use zae_limiter_core::{
    Bucket, EntityId, EpochMillis, InvalidInput, LimitName, Millitokens, RateLimitExceeded, ResourceName,
    Wait,
};

use crate::acquire::availability::{Availability, DisabledBy, Wish};
use crate::error::{Error, level_name};
use crate::inner::Inner;
use crate::table::TableExt;

/// What is known of the limits of one entity.
struct Side {
    id: BucketId,
    config: Arc<Resolved>,
    /// Whether the configuration was read for this look, not taken from the cache.
    is_read: bool,
    shards: BTreeMap<u32, Arc<Bucket>>,
}

/// Whether limits apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Applies {
    Yes,
    /// Every request is refused.
    No(DisabledAt),
    /// Every request is counted.
    Counted,
    /// The cached configuration would be read again by an acquire.
    Unsure,
}

impl Side {
    fn first(&self) -> Option<&Arc<Bucket>> {
        self.shards.values().next()
    }

    fn count(&self) -> u32 {
        self.shards.get(&0).map_or(1, |first| first.shard_count)
    }

    /// Whether META and the bucket contradict each other. What is read of META after the bucket decides.
    fn is_disputed(&self) -> bool {
        let read = self.config.owner.as_ref();
        self.first()
            .is_some_and(|bucket| is_disputed(&bucket.owner, read))
    }

    /// The bucket's owner according to META and the bucket.
    fn owner(&self) -> Option<&Owner> {
        let read = self.config.owner.as_ref();
        match self.first() {
            Some(bucket) if !self.is_disputed() => newest_owner(&bucket.owner, read),
            _ => read,
        }
    }

    fn applies(&self, now: EpochMillis) -> Applies {
        let mut shards = self.shards.values();
        if shards.clone().any(|shard| shard.disabled) {
            return Applies::No(DisabledAt::Bucket);
        }
        if shards.clone().any(|shard| shard.is_bypassed(now)) {
            return Applies::Counted;
        }
        // A bucket is created, and a stamp renewed, by the configuration of that moment.
        let decides = shards.next().is_none()
            || self.config.disabled().is_some()
            || self.config.is_bypassed()
            || self.shards.values().any(|shard| shard.bypass.is_some());
        if !self.is_read && decides {
            return Applies::Unsure;
        }
        match self.config.disabled() {
            Some(level) => Applies::No(DisabledAt::Config(level)),
            None if self.config.is_bypassed() => Applies::Counted,
            None => Applies::Yes,
        }
    }
}

impl Inner {
    /// See [`Check::send`](crate::Check::send).
    pub(super) async fn check(
        &self,
        entity: &EntityId,
        resource: &ResourceName,
        needed: &[(LimitName, Millitokens)],
        wish: Wish,
    ) -> Result<Availability, Error> {
        let consistent = wish.consistent;
        let own = self.side(entity, resource, wish).await?;
        if own.config.disabled().is_none() {
            is_known(&own.config.limits, needed)?;
        }
        // Those above that the configuration knows are read together with the entity.
        let mut sides = vec![own];
        let mut unread = None;
        while let Some(above) = next_above(&sides) {
            match self.side(&above, resource, wish).await {
                Ok(side) => sides.push(side),
                Err(err) => {
                    unread = Some((above, err));
                    break;
                }
            }
        }
        self.read_sides(&mut sides, consistent).await?;
        let mut at = 0;
        while let Some(side) = sides.get_mut(at) {
            if side.is_disputed() && !side.is_read {
                self.read_config(side, resource, wish).await?;
            }
            at += 1;
            let above = next_above(&sides[..at]);
            if above.as_ref() == sides.get(at).map(|side| &side.id.entity) {
                continue;
            }
            sides.truncate(at);
            let Some(above) = above else { break };
            if let Some((_, err)) = unread.take().filter(|(of, _)| *of == above) {
                return Err(err);
            }
            let mut side = [self.side(&above, resource, wish).await?];
            self.read_sides(&mut side, consistent).await?;
            sides.extend(side);
        }
        for side in &mut sides {
            if side.applies(self.clock.now()) == Applies::Unsure {
                self.read_config(side, resource, wish).await?;
            }
        }
        let mut found = self.availability((entity, resource), &sides, needed);
        if found.disabled.is_none() {
            is_known(&found.configured, needed)?;
        }
        if wish.places {
            let chain = sides.iter().map(|side| &side.id).collect();
            found.places = self.places_taken(chain, found.disabled.is_some(), wish).await?;
        }
        Ok(found)
    }

    fn availability(
        &self,
        who: (&EntityId, &ResourceName),
        sides: &[Side],
        needed: &[(LimitName, Millitokens)],
    ) -> Availability {
        let now = self.clock.now();
        let mut found = Availability {
            entity: who.0.clone(),
            resource: who.1.clone(),
            checked_at: now.into(),
            chain: sides.iter().map(|side| side.id.entity.clone()).collect(),
            statuses: Vec::new(),
            configured: Vec::new(),
            disabled: None,
            bypassed: Vec::new(),
            places: Vec::new(),
        };
        for side in sides {
            let entity = &side.id.entity;
            let applies = side.applies(now);
            match applies {
                // That of an entity above comes first, as in an acquire.
                Applies::No(at) => {
                    found.disabled = Some(DisabledBy {
                        entity: entity.clone(),
                        level: level_name(at).to_owned(),
                    });
                }
                Applies::Counted => found.bypassed.push(entity.clone()),
                Applies::Yes | Applies::Unsure => {}
            }
            for limit in &side.config.limits {
                let need = needed.iter().find(|(name, _)| name == limit.name());
                let tokens = need.map_or(Millitokens::ZERO, |(_, tokens)| *tokens);
                let mut status = LimitStatus::over_shards((entity, who.1), limit, &side.shards, tokens, now);
                // Tokens that this process has taken ahead are for its own calls.
                status.available += self.held_ahead(entity, who.1, &status.limit_name);
                let is_covered = i128::from(status.available) >= i128::from(status.requested);
                if is_covered || need.is_none() || applies == Applies::Counted {
                    (status.exceeded, status.wait) = (false, Wait::Millis(0));
                }
                found.statuses.push(status);
            }
        }
        if let Some(own) = sides.first() {
            found.configured.clone_from(&own.config.limits);
        }
        found
    }

    /// The error of a call whose time to wait ended before its turn came, from what this process last knew of the limits
    /// and the bucket: no request is sent for it.
    pub(crate) fn refused_in_queue(&self, request: &Request) -> Error {
        let now = self.clock.now();
        let mut statuses = Vec::new();
        for (resource, amounts) in request.parts() {
            let id = self.bucket_id(&request.id.entity, resource);
            let Some(config) = last_known(&id, request, self) else {
                return self
                    .place
                    .unavailable("the time to wait ended behind other calls of this process".to_owned());
            };
            let hint = self.images.hint(&id, now);
            let shards: BTreeMap<u32, Arc<Bucket>> = hint.older.into_iter().chain(hint.images).collect();
            let status = |(name, need): &(LimitName, Millitokens)| {
                let limit = config.limit(name)?;
                Some(LimitStatus::over_shards(
                    (&id.entity, resource),
                    limit,
                    &shards,
                    *need,
                    now,
                ))
            };
            statuses.extend(amounts.iter().filter_map(status));
        }
        if statuses.iter().any(|status| status.exceeded) {
            RateLimitExceeded::new(statuses).into()
        } else {
            RateLimitExceeded::contended(statuses).into()
        }
    }

    async fn side(&self, entity: &EntityId, resource: &ResourceName, wish: Wish) -> Result<Side, Error> {
        let fresh = wish.consistent;
        let known = self.config.peek(entity, resource, self.clock.now());
        let (config, is_read) = match known.filter(|_| !fresh) {
            Some(config) => (config, false),
            None if fresh => (self.resolve_now(entity, resource).await?, true),
            None => {
                let fetch = self
                    .config
                    .fetch_unhurried(&self.table, &self.clock, entity, resource, false);
                // Parts of it may have been cached.
                (fetch.await.map_err(|err| self.place.acquire_error(err))?, false)
            }
        };
        let side = Side {
            id: self.bucket_id(entity, resource),
            config,
            is_read,
            shards: BTreeMap::new(),
        };
        is_usable(&side.config, resource, wish)?;
        Ok(side)
    }

    /// Reads the configuration again.
    async fn read_config(&self, side: &mut Side, resource: &ResourceName, wish: Wish) -> Result<(), Error> {
        side.config = self.resolve_now(&side.id.entity, resource).await?;
        side.is_read = true;
        is_usable(&side.config, resource, wish)
    }

    /// Reads all shards of these buckets: those that are known, in one batch, and in another what their first shards show
    /// beyond.
    async fn read_sides(&self, sides: &mut [Side], consistent: bool) -> Result<(), Error> {
        let now = self.clock.now();
        let known: Vec<u32> = sides
            .iter()
            .map(|side| self.images.hint(&side.id, now).shard_count.clamp(1, MAX_SHARDS))
            .collect();
        let wanted: Vec<_> = known.iter().map(|count| 0..*count).collect();
        self.read_shards(sides, &wanted, consistent).await?;
        let wanted: Vec<_> = sides
            .iter()
            .zip(known)
            .map(|(side, known)| known..side.count().min(MAX_SHARDS).max(known))
            .collect();
        self.read_shards(sides, &wanted, consistent).await
    }

    async fn read_shards(
        &self,
        sides: &mut [Side],
        wanted: &[std::ops::Range<u32>],
        consistent: bool,
    ) -> Result<(), Error> {
        let each = sides.iter().zip(wanted);
        let keys: Vec<_> = each
            .flat_map(|(side, shards)| shards.clone().map(|shard| side.id.key(shard)))
            .collect();
        if keys.is_empty() {
            return Ok(());
        }
        let read = self.table.batch_get(keys, consistent).await;
        for item in read.map_err(|err| self.table_error(err))? {
            let Some((id, shard)) = key_of(&item).and_then(|key| BucketId::parse(&key)) else {
                continue;
            };
            let image = Arc::new(Bucket::decode(&item)?);
            for side in sides.iter_mut().filter(|side| side.id == id) {
                side.shards.insert(shard, Arc::clone(&image));
            }
        }
        Ok(())
    }
}

/// The entity above the last of these, by what is known of that: an acquire debits it as well.
fn next_above(sides: &[Side]) -> Option<EntityId> {
    let (last, below) = sides.split_last()?;
    let chain = sides.iter().map(|side| &side.id.entity);
    let above = last.config.depth.next_above(last.owner(), below.len(), chain);
    above.cloned()
}

/// Checks that there are limits of all names.
fn is_known(limits: &[Limit], needed: &[(LimitName, Millitokens)]) -> Result<(), InvalidInput> {
    for (name, amount) in needed {
        if limits.iter().all(|limit| limit.name() != name) {
            let reason = "no limit of this name is configured for this entity and resource";
            return Err(InvalidInput::of_request(format!("needed.{name}"), amount, reason));
        }
    }
    Ok(())
}

/// Checks that there are limits, unless the look is for places or who is disabled, and that they can be evaluated.
fn is_usable(config: &Resolved, resource: &ResourceName, wish: Wish) -> Result<(), Error> {
    if let Some(feature) = &config.unsupported {
        return Err(feature.clone().into());
    }
    if config.limits.is_empty() && !wish.places && config.disabled().is_none() {
        return Err(Error::NotConfigured {
            entity: config.entity.to_string(),
            resource: resource.to_string(),
        });
    }
    Ok(())
}

//! Stamps on live buckets, by which clients learn of flags and parents without reading the configuration.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use smol_str::SmolStr;
use zae_limiter_core::access::{is_stamped, stamp_access};
use zae_limiter_core::bucket::Bucket;
use zae_limiter_core::config::{Access, Resolved, is_limit_attribute};
use zae_limiter_core::manifest::Target;
use zae_limiter_core::schema::{BucketId, key_of, resource_pk};
use zae_limiter_core::sync::{harden, stamp_owner};
use zae_limiter_core::table::{Index, Item, Key, Query, TableError, Update, Value};

use crate::acquire::draws::FastRandom;
use crate::admin::Admin;
use crate::admin::pages::Pages;
use crate::admin::retry::{BRIEF, is_passing};
use crate::admin::sweep::IN_FLIGHT;
use crate::error::Error;
use crate::table::TableExt as _;

/// How often live buckets are looked for again, until nothing has to be changed any more.
const MAX_ROUNDS: usize = 8;

/// The time between two looks: indexes are behind, and an acquire that has read its configuration before the change may be about
/// to create a bucket.
const SETTLE: Duration = Duration::from_millis(500);

/// What is brought up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// Whether requests are refused or let through.
    Access,
    /// The parent, and whether it is debited.
    Owner,
    /// Which limits still refuse, though they are stamped as soft.
    Hard,
}

/// How many shards were stamped, for the event.
pub(crate) fn stamped_count(told: &Result<usize, Error>) -> Value {
    match told {
        Ok(stamped) | Err(Error::FanoutIncomplete { done: stamped, .. }) => Value::int(*stamped as i128),
        Err(_) => Value::Null,
    }
}

impl Admin {
    /// Removes the soft stamps from all live buckets that go by a resource's or the system's limits, if a limit that was soft there
    /// is not any more. A stamp that this misses ends by itself, within a minute.
    pub(crate) async fn harden_all(
        &self,
        target: &Target,
        old: Option<&Item>,
        new: &[(SmolStr, Value)],
    ) -> Result<(), Error> {
        let is_soft = |name: &str| is_limit_attribute(name) && name.ends_with("_soft");
        let stays = |name: &str| {
            new.iter()
                .any(|(set, value)| set == name && *value != Value::Null)
        };
        let mut names = old.into_iter().flat_map(|old| old.keys());
        if !names.any(|name| is_soft(name) && !stays(name)) {
            return Ok(());
        }
        self.stamp_all(&self.buckets_below(target), Stamp::Hard)
            .await
            .map(drop)
    }

    /// Finds the live buckets that a level concerns.
    pub(crate) fn buckets_below(&self, target: &Target) -> Query {
        let namespace = &self.inner.namespace;
        match target {
            Target::System => Query::new(Index::Gsi4, namespace.as_str()).prefix("BUCKET#"),
            Target::Resource(resource) => {
                Query::new(Index::Gsi2, resource_pk(namespace, resource)).prefix("BUCKET#")
            }
            Target::Entity(entity, scope) => self.query_of_buckets(entity, scope),
        }
    }

    /// Stamps all live buckets that a query finds with what is configured for them by now. Returns how many shards that changed.
    ///
    /// Looks again until nothing has to be changed: a bucket may have been created meanwhile, and another operator may have
    /// changed the configuration after it was read here and before the stamp was written.
    pub(crate) async fn stamp_all(&self, buckets: &Query, stamp: Stamp) -> Result<usize, Error> {
        let inner = &self.inner;
        let mut told: HashSet<Key> = HashSet::new();
        for round in 0..MAX_ROUNDS {
            if round > 0 {
                tokio::time::sleep(SETTLE).await;
            }
            let found = Pages::new(&inner.place, &inner.table, Some(buckets.clone()), |item| {
                Ok(key_of(item))
            });
            let mut by_bucket: BTreeMap<BucketId, Vec<Key>> = BTreeMap::new();
            for key in found.all().await? {
                if let Some((id, _)) = BucketId::parse(&key) {
                    by_bucket.entry(id).or_default().push(key);
                }
            }
            let total = by_bucket.values().map(Vec::len).sum::<usize>();
            let mut done = stream::iter(by_bucket)
                .map(|(id, keys)| self.stamp_one(id, keys, stamp))
                .buffer_unordered(IN_FLIGHT);
            let (mut stamped, mut failed) = (Vec::new(), None);
            while let Some(outcome) = done.next().await {
                let (of_bucket, failure) = outcome?;
                stamped.extend(of_bucket);
                failed = failed.or(failure);
            }
            drop(done);
            let is_settled = stamped.is_empty() && round > 0;
            told.extend(stamped);
            if let Some(source) = failed {
                return Err(Error::FanoutIncomplete {
                    done: told.len(),
                    total: total.max(told.len()),
                    source,
                });
            }
            if is_settled {
                return Ok(told.len());
            }
        }
        let what = "buckets or their configuration keep changing; call it again";
        Err(inner.place.unavailable(what.to_owned()))
    }

    /// Stamps the shards of one bucket that need it. Returns those, and the failure that ended it.
    async fn stamp_one(
        &self,
        id: BucketId,
        keys: Vec<Key>,
        stamp: Stamp,
    ) -> Result<(Vec<Key>, Option<TableError>), Error> {
        let inner = &self.inner;
        let mut stamped = Vec::new();
        let config = inner.resolve_now(&id.entity, &id.resource).await?;
        let items = inner
            .place
            .insisting(BRIEF, || inner.table.batch_get(keys.clone(), true))
            .await?;
        for item in items {
            let Some(key) = key_of(&item) else { continue };
            let Some(update) = self.update(&key, &item, &config, stamp) else {
                continue;
            };
            let told = BRIEF.repeat(is_passing, || inner.table.update(update.clone()));
            match told.await {
                Ok(told) if told.is_applied() => stamped.push(key),
                // The bucket is gone, or its stamp has changed: the next look tells.
                Ok(_) => {}
                Err(err) => return Ok((stamped, Some(err))),
            }
        }
        inner.images.forget(&id);
        Ok((stamped, None))
    }

    /// The write that stamps a shard, if it needs one.
    fn update(&self, key: &Key, item: &Item, config: &Resolved, stamp: Stamp) -> Option<Update> {
        let inner = &self.inner;
        let now = inner.clock.now();
        match stamp {
            Stamp::Access => {
                let access = config.access.map_or(Access::Enabled, |(_, access)| access);
                let until = now.plus(inner.options.settings.stamp_life_ms(&mut FastRandom));
                (!is_stamped(item, access, now)).then(|| stamp_access(key.clone(), access, until))
            }
            Stamp::Hard => harden(key.clone(), item, config),
            // Buckets of entities without a record have no parent. What cannot be read is left to a client that can.
            Stamp::Owner => stamp_owner(key.clone(), &Bucket::decode(item).ok()?, config.owner.as_ref()?),
        }
    }
}

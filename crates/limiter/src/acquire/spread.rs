//! What the table's functions need of it: writes that are sent until they are answered, and shards created ahead of
//! the requests that will draw them.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use zae_limiter_core::acquire::{Ask, Found, Hint, Reply, Settings, Spread, SpreadEnd};
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::{Answer, Applied, FailureKind, Op, TableError};

use crate::acquire::config_cache::ConfigCache;
use crate::acquire::draws::FastRandom;
use crate::admin::retry::{BRIEF, is_passing};
use crate::admin::stack::Stack;
use crate::error::Error;
use crate::table::Table;

/// How long creating one shard may take. The requests of it are sent again while the table is throttled.
const LONGEST: Duration = Duration::from_secs(10);

fn too_late() -> SpreadEnd {
    let message = format!("the shard was not created within {} s", LONGEST.as_secs());
    SpreadEnd::Failed(TableError::new(FailureKind::Timeout, Applied::Unknown, message).into())
}

impl Stack {
    /// The table itself, for tools and tests.
    pub fn table(&self) -> Arc<dyn Table> {
        Arc::clone(&self.parts.table)
    }

    /// For the functions. Sends a request that may be applied twice without harm, such as a write that is pinned to what it was made from,
    /// again while that may help: for about three seconds.
    ///
    /// # Errors
    /// The last failure.
    #[doc(hidden)]
    pub async fn insist(&self, op: Op) -> Result<Answer, TableError> {
        BRIEF
            .repeat(is_passing, || self.parts.table.call(op.clone()))
            .await
    }

    /// For the functions. Creates those shards of a bucket that do not exist, with what its other shards hold beyond their
    /// shares. `count` is how many shards the bucket has now. Returns how many were created.
    ///
    /// # Errors
    /// The first failure, after all shards have been tried. A shard that was not created is created by the
    /// request that draws it.
    #[doc(hidden)]
    pub async fn create_shards(&self, id: &BucketId, shards: Range<u32>, count: u32) -> Result<u32, Error> {
        let config = ConfigCache::new(
            id.namespace.clone(),
            Duration::ZERO,
            Arc::clone(&self.parts.breaker),
            Arc::clone(&self.parts.permits),
        );
        let (mut created, mut failure) = (0, None);
        for shard in shards {
            let created_shard = self.create_shard(&config, id, shard, count);
            match tokio::time::timeout(LONGEST, created_shard)
                .await
                .unwrap_or_else(|_| too_late())
            {
                SpreadEnd::Created => created += 1,
                SpreadEnd::NotNeeded => {}
                SpreadEnd::Failed(err) => {
                    failure.get_or_insert(err);
                }
            }
        }
        match failure {
            None => Ok(created),
            Some(err) => Err(self.parts.place.acquire_error(err)),
        }
    }

    async fn create_shard(&self, config: &ConfigCache, id: &BucketId, shard: u32, count: u32) -> SpreadEnd {
        let (table, clock) = (&self.parts.table, &self.parts.clock);
        let mut spread = Spread::new(id.clone(), shard, count, Settings::default());
        let mut next = Some((0, spread.start()));
        while let Some((delay_ms, ask)) = next {
            if delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            }
            let reply = match ask {
                Ask::Table(op) => Reply::Table(table.call(op).await),
                Ask::Debit(debit) => {
                    let update = debit.update(clock.now());
                    Reply::Table(table.call(Op::Update(update)).await)
                }
                Ask::Wait => Reply::Waited,
                // A spread takes nothing.
                Ask::GiveBack(_) => Reply::GivenBack,
                Ask::Config {
                    entity,
                    resource,
                    fresh,
                } => {
                    let found = config
                        .fetch_unhurried(table, clock, &entity, &resource, fresh)
                        .await;
                    Reply::Config(found.map(|config| Found {
                        config,
                        hint: Hint::default(),
                    }))
                }
            };
            next = spread.answer(reply, clock.now(), &mut FastRandom).pop();
        }
        spread.end().cloned().unwrap_or(SpreadEnd::NotNeeded)
    }
}

//! Creating a shard before its first request, so that the request does not have to.

use std::sync::Arc;

use super::protocol::{Ask, Env, Observation, Reply, Settings, TakeError, check_config};
use super::take::{Take, TakeEnd};
use crate::config::Resolved;
use crate::random::Random;
use crate::schema::BucketId;
use crate::units::EpochMillis;

/// How it ended.
#[derive(Debug, Clone)]
pub enum SpreadEnd {
    /// The shard was created.
    Created,
    /// There was nothing to do: the shard exists, the bucket is gone or has another count by now.
    NotNeeded,
    /// It was not created; the next request that draws the shard tries again.
    Failed(TakeError),
}

/// Creates one shard of a bucket, as an acquire would that takes nothing: with what its siblings hold beyond
/// their shares, and nothing else. Driven as [`Acquire`](super::Acquire) is, with one call at a time.
#[derive(Debug)]
pub struct Spread {
    id: BucketId,
    shard: u32,
    count: u32,
    settings: Settings,
    take: Option<Take>,
    observations: Vec<Observation>,
    end: Option<SpreadEnd>,
}

impl Spread {
    /// Prepares to create shard `shard` of a bucket that has `count` shards.
    pub fn new(id: BucketId, shard: u32, count: u32, settings: Settings) -> Self {
        Self {
            id,
            shard,
            count,
            settings,
            take: None,
            observations: Vec::new(),
            end: None,
        }
    }

    /// The first call, to be made at once.
    pub fn start(&self) -> Ask {
        Ask::Config {
            entity: self.id.entity.clone(),
            resource: self.id.resource.clone(),
            fresh: true,
        }
    }

    /// Takes the reply to a call; gives the next ones, each with the milliseconds to wait before it.
    pub fn answer(&mut self, reply: Reply, now: EpochMillis, random: &mut dyn Random) -> Vec<(u64, Ask)> {
        let mut env = Env {
            now,
            random,
            asks: Vec::new(),
            observations: &mut self.observations,
        };
        match (&mut self.take, reply) {
            (Some(take), reply) => take.answer(reply, &mut env),
            (None, Reply::Config(Ok(found))) => match check_config(&found.config, &self.id.resource, &[]) {
                Ok(()) => {
                    let take = self
                        .take
                        .insert(begin(&self.id, found.config, self.settings, now));
                    take.create_only(self.shard, self.count, &mut env);
                }
                Err(err) => self.end = Some(SpreadEnd::Failed(err)),
            },
            (None, Reply::Config(Err(err))) => self.end = Some(SpreadEnd::Failed(err)),
            (None, Reply::Table(_) | Reply::Debited(..) | Reply::Waited | Reply::GivenBack) => {
                self.end = Some(SpreadEnd::Failed(super::out_of_order().into()));
            }
        }
        let asks = env.asks;
        self.observations.clear();
        if let Some(end) = self.take.as_ref().and_then(Take::end) {
            self.end = Some(match end {
                TakeEnd::Taken(_) => SpreadEnd::Created,
                TakeEnd::Short(_)
                | TakeEnd::Disabled(_)
                | TakeEnd::Withdrawn(_)
                | TakeEnd::Contended
                | TakeEnd::Failed(TakeError::Abandoned) => SpreadEnd::NotNeeded,
                TakeEnd::Failed(err) => SpreadEnd::Failed(err.clone()),
            });
        }
        asks
    }

    /// How it ended, once it has.
    pub fn end(&self) -> Option<&SpreadEnd> {
        self.end.as_ref()
    }
}

fn begin(id: &BucketId, config: Arc<Resolved>, settings: Settings, now: EpochMillis) -> Take {
    Take::new(id.clone(), config, Vec::new(), settings, now, false)
}

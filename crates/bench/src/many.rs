//! Very many entities: how much larger the process gets, and whether calls become slower.

use std::fs;
use std::sync::Arc;

use zae_limiter::table::{RequestCost, Table, TableExt as _, TableFuture};
use zae_limiter::{RateLimiter, Repository};
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::{Answer, Item, Op, Value};

use crate::measure::{Round, round};
use crate::{Case, Outcome, World};

/// The part of the calls that a case's first and last row measure.
const PART: usize = 10;

/// A table that has a bucket for each entity that is asked for, without keeping any.
#[derive(Debug)]
struct Endless {
    real: Arc<dyn Table>,
    bucket: Item,
}

impl Table for Endless {
    fn call(&self, op: Op) -> TableFuture {
        let Op::Update(update) = &op else {
            return self.real.call(op);
        };
        let mut item = self.bucket.clone();
        item.insert("PK".to_owned(), Value::text(update.key.pk.as_str()));
        if let Some(id) = BucketId::parse(&update.key) {
            item.insert("entity_id".to_owned(), Value::text(id.0.entity.as_str()));
        }
        Box::pin(async { Ok(Answer::Applied(Some(item))) })
    }
}

/// What very many entities cost.
pub(crate) struct Many {
    pub(crate) cases: Vec<Case>,
    /// By how many MiB the process was larger afterwards.
    pub(crate) grown_mib: usize,
}

/// How many bytes of the process are in memory.
fn resident() -> Outcome<usize> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split_whitespace().nth(1).ok_or("no resident pages")?;
    Ok(pages.parse::<usize>()? * 4096)
}

/// A number below `count` by Zipf's law with exponent 1, nearly: its logarithm is evenly distributed.
fn zipf(count: usize) -> usize {
    let most = (count as f64 + 1.0).ln();
    ((fastrand::f64() * most).exp() as usize - 1).min(count - 1)
}

/// One acquire of each of `entities`, and then some by Zipf's law.
pub(crate) async fn many(entities: usize) -> Outcome<Many> {
    let world = World::new(|builder| builder).await?;
    let key = world.id(0)?.key(0);
    let Some(bucket) = world.repo().table().get(key, true).await? else {
        return Err("no bucket".into());
    };
    let real = world.repo().table();
    let builder = Repository::builder()
        .custom_table(Arc::new(Endless { real, bucket }))
        .clock(world.clock.clone());
    let limiter = RateLimiter::new(builder.open().await?);
    let before = resident()?;
    let part = (entities / PART).max(1);
    let take = |limiter: &RateLimiter, entity: usize| {
        let call = limiter
            .acquire(format!("entity-{entity}"), "gpt-4")
            .consume("rpm", 1)
            .consume("tpm", 10);
        async move {
            match call.await {
                Ok(lease) => lease.commit().await.is_ok(),
                Err(_) => false,
            }
        }
    };
    let mut rounds = Vec::new();
    for from in (0..entities).step_by(part) {
        rounds.push(round(part, 1, |i| take(&limiter, from + i)).await);
    }
    let traffic = round(part, 1, |_| take(&limiter, zipf(entities))).await;
    let grown_mib = resident()?.saturating_sub(before) >> 20;
    let row = |name, round: &Round| Case {
        name,
        concurrency: 1,
        round: round.clone(),
        usage: RequestCost::default(),
        ratios: None,
    };
    let cases = vec![
        row("new entities, first tenth", &rounds[0]),
        row("new entities, last tenth", &rounds[rounds.len() - 1]),
        row("these entities by Zipf", &traffic),
    ];
    Ok(Many { cases, grown_mib })
}

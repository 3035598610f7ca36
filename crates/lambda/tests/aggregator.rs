//! The aggregator on a table in memory that keeps its own stream, which is delivered as Lambda would: in batches,
//! more than once, again from the first failure. `aggregator/alerts.rs` has what it reports.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue may panic")]

#[path = "aggregator/alerts.rs"]
mod alerts;
#[path = "aggregator/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use zae_limiter::clock::Clock as _;
use zae_limiter::table::TableExt as _;
use zae_limiter::{Error, Limit, NewEntity, Window};
use zae_limiter_core::EpochMillis;
use zae_limiter_core::table::{Key, Value};

use world::{Fault, World, deliver_with_faults, fault};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn usage_comes_out_right_whatever_fails(
        amounts in prop::collection::vec((0_usize..3, 1_i64..50, 0_u8..4, 0_i64..9_000), 1..60),
        sizes in prop::collection::vec(2_usize..20, 1..6),
        faults in prop::collection::vec(prop::collection::vec(fault(), 0..60), 0..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let limits = [("rpm", 1_000_000), ("tpm", 1_000_000)];
            let limits = limits.map(|(name, capacity)| Limit::per_minute(name, capacity).build().unwrap());
            let mut world = World::new(limits).await;
            world.repo.admin().create_entity(NewEntity::new("proj")).await.unwrap();
            world.repo.admin().create_entity(NewEntity::new("key-0").parent("proj").cascade(true)).await.unwrap();
            // By entity and start of the hour.
            let mut expected: BTreeMap<(String, String), (i64, i64)> = BTreeMap::new();
            for (key, tokens, how, pause) in amounts {
                world.clock.advance(Duration::from_millis(pause.unsigned_abs()));
                let entity = format!("key-{key}");
                let request = world.limiter.acquire(&entity, "gpt-4").consume("rpm", 1).consume("tpm", tokens.unsigned_abs());
                let mut lease = request.await.unwrap();
                let kept = match how {
                    0 => {
                        lease.rollback().await.unwrap();
                        (0, 0)
                    }
                    1 => {
                        lease.adjust("tpm", 7).unwrap();
                        lease.commit().await.unwrap();
                        (1, tokens + 7)
                    }
                    _ => {
                        lease.commit().await.unwrap();
                        (1, tokens)
                    }
                };
                let start = Window::Hourly.start_millis(world.clock.now().into()).unwrap().to_text();
                let entities = if key == 0 { vec![entity, "proj".to_owned()] } else { vec![entity] };
                for entity in entities {
                    let sums = expected.entry((entity, start.clone())).or_default();
                    sums.0 += kept.0;
                    sums.1 += kept.1;
                }
            }
            let records = world.pending();
            deliver_with_faults(&world, &records, &sizes, &faults).await;
            let snapshots = world.snapshots();
            for window in [Window::Hourly, Window::Daily, Window::Monthly] {
                let mut sums: BTreeMap<(String, String), (i64, i64)> = BTreeMap::new();
                for ((entity, start), (rpm, tpm)) in &expected {
                    let at: jiff::Timestamp = start.parse().unwrap();
                    let at = EpochMillis(at.as_millisecond());
                    let start = window.start_millis(at).unwrap().to_text();
                    let sum = sums.entry((entity.clone(), start)).or_default();
                    *sum = (sum.0 + rpm, sum.1 + tpm);
                }
                let found: BTreeMap<(String, String), (i64, i64)> = snapshots
                    .iter()
                    .filter(|snapshot| snapshot.window == window.as_str())
                    .map(|snapshot| {
                        let counter = |name| *snapshot.counters.get(name).unwrap_or(&0) as i64;
                        let place = (snapshot.entity.clone(), EpochMillis::from(snapshot.window_start).to_text());
                        (place, (counter("rpm"), counter("tpm")))
                    })
                    .collect();
                assert_eq!(found, sums, "{window}");
            }
        });
    }
}

fn limits(tpm: u64) -> [Limit; 2] {
    [
        Limit::per_minute("rpm", 100_000).build().unwrap(),
        Limit::per_minute("tpm", tpm).build().unwrap(),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_hot_bucket_is_refilled_before_its_clients_must() {
    let mut world = World::new(limits(6_000)).await;
    for _ in 0..5 {
        let request = world
            .limiter
            .acquire("key-1", "gpt-4")
            .consume("rpm", 1)
            .consume("tpm", 1_100);
        request.await.unwrap().commit().await.unwrap();
    }
    assert_eq!(world.sum("key-1", "b_tpm_tk"), 500_000);
    // Ten seconds earn a thousand tokens.
    world.clock.advance(Duration::from_secs(10));
    let reports = world.deliver().await;
    assert_eq!(reports[0].refills_written, 1);
    assert_eq!(world.sum("key-1", "b_tpm_tk"), 1_500_000);
    // Its own write comes by in the stream and calls for nothing.
    assert_eq!(reports[1].refills_written, 0);
    assert_eq!(world.sum("key-1", "b_tpm_tc"), 5_500_000);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_with_many_writes_is_split_and_nothing_is_minted() {
    let mut world = World::new(limits(100_000)).await;
    for _ in 0..850 {
        let request = world
            .limiter
            .acquire("key-1", "gpt-4")
            .consume("rpm", 1)
            .consume("tpm", 10);
        request.await.unwrap().commit().await.unwrap();
    }
    assert_eq!(world.shards("key-1").len(), 1);
    let reports = world.deliver().await;
    assert!(
        reports.iter().all(|report| report.errors.is_empty()),
        "{reports:?}"
    );
    let shards = world.shards("key-1");
    assert_eq!(shards.len(), 2);
    assert!(shards.iter().all(|shard| shard["shard_count"] == Value::int(2)));
    assert_eq!(world.sum("key-1", "b_tpm_tk"), 91_500_000);
    assert_eq!(world.sum("key-1", "b_tpm_tc"), 8_500_000);
    let hourly: Vec<_> = world
        .snapshots()
        .into_iter()
        .filter(|s| s.window == "hourly")
        .collect();
    assert_eq!(hourly[0].counters["tpm"], 8_500);
    assert_eq!(hourly[0].total_events, 1_700);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_admitted_than_without_the_function() {
    let mut world = World::new(limits(600)).await;
    let mut admitted = 0;
    // Ten tokens a second; a client that asks for more, and the function at its heels.
    for _ in 0..120 {
        world.clock.advance(Duration::from_millis(500));
        for _ in 0..4 {
            match world.limiter.acquire("key-1", "gpt-4").consume("tpm", 7).await {
                Ok(lease) => {
                    admitted += 7;
                    lease.commit().await.unwrap();
                }
                Err(Error::RateLimitExceeded(_)) => {}
                Err(err) => panic!("{err}"),
            }
        }
        world.deliver().await;
    }
    assert!(admitted <= 600 + 600, "{admitted}");
    assert!(admitted >= 1_190, "{admitted}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_does_not_stop_the_rest() {
    let mut world = World::new(limits(6_000)).await;
    let request = world.limiter.acquire("key-1", "gpt-4").consume("rpm", 1);
    request.await.unwrap().commit().await.unwrap();
    let mut batch = world.pending();
    batch.insert(0, json!({"eventName": "MODIFY"}));
    batch.insert(0, json!("nothing"));
    let mut damaged = batch.last().unwrap().clone();
    damaged["dynamodb"]["NewImage"]["rf"] = json!({"S": "soon"});
    damaged["dynamodb"]["NewImage"]["PK"]["S"] = json!("dSkXlbmmfyU/BUCKET#key-2#gpt-4#0");
    batch.push(damaged);
    let report = world.function().process(&batch).await;
    assert_eq!(report.processed, 4);
    assert_eq!(report.errors.len(), 3, "{:?}", report.errors);
    // Nothing would come of another delivery.
    assert!(report.failed.is_empty());
    assert_eq!(report.snapshots_updated, 6);
    let answer = report.to_json();
    assert_eq!(answer["batchItemFailures"], json!([]));
    assert_eq!(answer["body"]["processed"], 4);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_reported_as_the_first_record_that_it_hit() {
    let mut world = World::new(limits(6_000)).await;
    for key in ["key-1", "key-2"] {
        let request = world.limiter.acquire(key, "gpt-4").consume("rpm", 1);
        request.await.unwrap().commit().await.unwrap();
    }
    let batch = world.pending();
    world.faults(vec![Fault::Throttled; 200]);
    let report = world.function().process(&batch).await;
    assert_eq!(
        report.failed,
        [batch[0]["dynamodb"]["SequenceNumber"].as_str().unwrap()]
    );
    world.faults(Vec::new());
    let report = world.function().process(&batch).await;
    assert!(report.failed.is_empty());
    assert_eq!(report.snapshots_updated, 6);
    let item = world
        .table
        .get(
            Key {
                pk: format!("{}/ENTITY#key-1", world.repo.namespace_id()),
                sk: "#USAGE#gpt-4#2026-11-30T23:00:00Z".into(),
            },
            true,
        )
        .await
        .unwrap()
        .unwrap();
    assert_eq!(item["rpm"], Value::int(1));
}

//! Limits that are reported because of their use.

use std::time::Duration;

use zae_limiter::{Limit, NewEntity};
use zae_limiter_core::alerts::Crossing;

use crate::world::{Fault, World, deliver_with_faults};

/// A quota of 1000 tokens a day (in UTC), and requests without end.
async fn world() -> World {
    let quota = Limit::quota("tpd", 1000)
        .resets("0 0 * * *", "UTC")
        .build()
        .unwrap();
    World::new([Limit::per_minute("rpm", 1_000_000).build().unwrap(), quota]).await
}

async fn spend(world: &World, entity: &str, tokens: u64) {
    let call = world.limiter.acquire(entity, "gpt-4").consume("tpd", tokens);
    call.await.unwrap().commit().await.unwrap();
}

/// What a function reports when it gets all of the stream: entity and threshold.
async fn reported(world: &mut World) -> Vec<(String, u8)> {
    let reports = world.deliver().await;
    said(
        &reports
            .into_iter()
            .flat_map(|report| report.alerts)
            .collect::<Vec<_>>(),
    )
}

fn said(alerts: &[Crossing]) -> Vec<(String, u8)> {
    let said = alerts
        .iter()
        .map(|alert| (alert.id.bucket.entity.to_string(), alert.percent));
    said.collect()
}

fn of(entity: &str, percents: &[u8]) -> Vec<(String, u8)> {
    percents
        .iter()
        .map(|percent| (entity.to_owned(), *percent))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_project_is_reported_once_a_day_for_each_threshold() {
    let mut world = world().await;
    world
        .repo
        .admin()
        .create_entity(NewEntity::new("proj"))
        .await
        .unwrap();
    let keys = ["key-0", "key-1"];
    for key in keys {
        let key = NewEntity::new(key).parent("proj").cascade(true);
        world.repo.admin().create_entity(key).await.unwrap();
    }
    // In four batches. The keys have used less of their own quotas.
    spend(&world, keys[0], 400).await;
    assert_eq!(reported(&mut world).await, []);
    spend(&world, keys[1], 390).await;
    spend(&world, keys[0], 10).await;
    assert_eq!(reported(&mut world).await, of("proj", &[80]));
    for _ in 0..5 {
        spend(&world, keys[0], 10).await;
    }
    assert_eq!(reported(&mut world).await, []);
    spend(&world, keys[1], 150).await;
    assert_eq!(reported(&mut world).await, of("proj", &[95, 100]));
    // 40 s later the next day begins.
    world.clock.advance(Duration::from_mins(1));
    spend(&world, keys[1], 850).await;
    assert_eq!(
        reported(&mut world).await,
        [of("key-1", &[80]), of("proj", &[80])].concat()
    );
}

#[tokio::test(start_paused = true)]
async fn a_refund_does_not_let_a_threshold_be_reported_again() {
    let mut world = world().await;
    let mut all = Vec::new();
    for _ in 0..4 {
        let call = world.limiter.acquire("key-1", "gpt-4").consume("tpd", 850);
        let lease = call.await.unwrap();
        all.extend(reported(&mut world).await);
        lease.rollback().await.unwrap();
        all.extend(reported(&mut world).await);
    }
    assert_eq!(all, of("key-1", &[80]));
}

#[tokio::test(start_paused = true)]
async fn what_is_delivered_again_is_not_reported_again() {
    let mut world = world().await;
    for _ in 0..10 {
        spend(&world, "key-1", 100).await;
    }
    let records = world.pending();
    let function = world.function();
    let report = function.process(&records).await;
    assert_eq!(said(&report.alerts), of("key-1", &[80, 95, 100]));
    // By the same function, which remembers it; and by another one, in other batches.
    assert_eq!(function.process(&records).await.alerts, []);
    for batch in records.chunks(3) {
        assert_eq!(world.function().process(batch).await.alerts, []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_mark_whose_answer_is_lost_is_reported() {
    let mut world = world().await;
    spend(&world, "key-1", 850).await;
    let records = world.pending();
    // The last of the list is the first write: three snapshots, and the mark.
    world.faults(vec![Fault::Lost, Fault::None, Fault::None, Fault::None]);
    let report = world.function().process(&records).await;
    assert_eq!(said(&report.alerts), of("key-1", &[80]));
    assert_eq!(report.failed, [] as [String; 0]);
    assert_eq!(world.function().process(&records).await.alerts, []);
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_cannot_be_written_has_its_batch_delivered_again() {
    let mut world = world().await;
    spend(&world, "key-1", 100).await;
    spend(&world, "key-1", 750).await;
    let records = world.pending();
    let mut faults = vec![Fault::Throttled; 100];
    faults.extend([Fault::None; 3]);
    world.faults(faults);
    let report = world.function().process(&records).await;
    assert_eq!((said(&report.alerts), report.errors.len()), (Vec::new(), 1));
    let crossing = records[1]["dynamodb"]["SequenceNumber"].as_str().unwrap();
    assert_eq!(report.failed, [crossing]);
    world.faults(Vec::new());
    let report = world.function().process(&records[1..]).await;
    assert_eq!(said(&report.alerts), of("key-1", &[80]));
}

#[tokio::test(start_paused = true)]
async fn deliveries_with_faults_leave_one_mark_for_each_threshold() {
    let mut world = world().await;
    for _ in 0..20 {
        spend(&world, "key-1", 50).await;
    }
    let records = world.pending();
    let faults = [Fault::Throttled, Fault::Lost, Fault::None].repeat(10);
    deliver_with_faults(&world, &records, &[3, 5], &[faults.clone(), Vec::new(), faults]).await;
    // All is marked, so that nothing is left to be reported.
    assert_eq!(world.function().process(&records).await.alerts, []);
    let state = world.table.state.lock().unwrap();
    let mut marks = state
        .table
        .items()
        .filter(|(key, _)| key.sk.starts_with("#ALERT#"));
    let (key, mark) = marks.next().unwrap();
    assert_eq!(key.sk, "#ALERT#gpt-4#tpd");
    for percent in ["80", "95", "100"] {
        assert!(mark.contains_key(&format!("until{percent}")), "{percent}");
    }
    assert!(marks.next().is_none());
}

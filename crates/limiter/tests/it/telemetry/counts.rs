//! Counters and histograms: each outcome once, and no label that a caller can make up.

use std::future::IntoFuture as _;
use std::time::Duration;

use futures_util::future::join_all;
use zae_limiter::telemetry::{Kind, METRICS, describe};
use zae_limiter::testing::TestTable;
use zae_limiter::{Access, Error, Limit, NewEntity, OnUnavailable, Percent, RateLimiter, Repository};

use super::recorder::Recorded;
use crate::groups::bucket;
use crate::world::{Fault, Faulty, World};

const ACQUIRES: &str = "zae_limiter_acquires_total";

/// A limiter on a table that fails on demand, which has seen the bucket of `k`.
async fn failing(world: &World) -> (Faulty, RateLimiter) {
    let faulty = Faulty::over(world);
    let limiter = faulty.limiter(world, |builder| builder).await;
    take(&limiter, "k", 1).await.unwrap();
    (faulty, limiter)
}

async fn take(limiter: &RateLimiter, entity: &str, tokens: u64) -> Result<(), Error> {
    let lease = limiter.acquire(entity, "r").consume("tpm", tokens).await?;
    lease.commit().await
}

#[tokio::test(start_paused = true)]
async fn each_outcome_is_counted_once() {
    let recorded = Recorded::new();
    let world = World::configured().await;
    let (faulty, limiter) = failing(&world).await;
    let admin = limiter.repository().admin();
    admin
        .set_entity_access("off", "r", Access::Disabled)
        .await
        .unwrap();
    let place = || limiter.acquire("k", "jobs").in_flight_at_most(1);
    let held = place().await.unwrap();
    let _installed = recorded.install();

    take(&limiter, "k", 1).await.unwrap();
    take(&limiter, "k", 999).await.unwrap_err();
    take(&limiter, "k", 5_000).await.unwrap_err();
    place().await.unwrap_err();
    take(&limiter, "off", 1).await.unwrap_err();
    take(&limiter, "", 1).await.unwrap_err();
    limiter.acquire("k", "r").consume("nix", 1).await.unwrap_err();
    faulty.next(&[Fault::Denied]);
    take(&limiter, "k", 1).await.unwrap_err();
    faulty.next(&[Fault::LostBefore]);
    take(&limiter, "k", 1).await.unwrap_err();
    faulty.next(&[Fault::LostAfter]);
    let call = limiter.acquire("k", "r").consume("tpm", 1);
    let lease = call.on_unavailable(OnUnavailable::Allow).await.unwrap();
    assert!(lease.is_degraded());
    lease.commit().await.unwrap();
    faulty.next(&[Fault::Hangs]);
    let call = take(&limiter, "k", 1);
    tokio::time::timeout(Duration::from_millis(10), call)
        .await
        .unwrap_err();

    let counts = recorded.counts_by(ACQUIRES, "outcome");
    let expected = [
        ("admitted", 1),
        ("cancelled", 1),
        ("concurrency", 1),
        ("degraded", 1),
        ("disabled", 1),
        ("failed", 1),
        ("invalid", 2),
        ("never", 1),
        ("refused", 1),
        ("unavailable", 1),
    ];
    let expected = expected.map(|(outcome, count)| (outcome.to_owned(), count));
    assert_eq!(counts, expected.into());
    assert_eq!(recorded.values("zae_limiter_acquire_seconds", &[]).len(), 11);
    // Of the lost answer under either policy.
    assert_eq!(recorded.count("zae_limiter_acquires_in_doubt_total", &[]), 2);
    // Neither of invalid nor of cancelled calls.
    assert_eq!(recorded.values("zae_limiter_acquire_writes", &[]).len(), 8);
    drop(held);
}

#[tokio::test]
async fn a_refusal_names_its_limits() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    let world = World::configured().await;
    let call = |requests, tokens| {
        let call = world.limiter.acquire("k", "r");
        call.consume("rpm", requests).consume("tpm", tokens)
    };
    call(10, 1).await.unwrap().commit().await.unwrap();
    call(1, 1).await.unwrap_err();
    call(1, 1_000).await.unwrap_err();
    let limits = recorded.counts_by("zae_limiter_refusals_total", "limit");
    assert_eq!(limits, [("rpm".to_owned(), 2), ("tpm".to_owned(), 1)].into());
    // The first attempt asked the table, or knew from the answer to the debit that nothing is left.
    assert_eq!(recorded.count("zae_limiter_refused_from_memory_total", &[]), 2);
    assert_eq!(recorded.counts_by(ACQUIRES, "outcome")["refused"], 2);
    assert!(
        recorded
            .values("zae_limiter_acquire_wait_seconds", &[])
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_is_one_call() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    let table = TestTable::new();
    let repo = table.open().await.unwrap();
    let limits = [Limit::per_minute("rpm", 60).burst(1)];
    repo.admin().set_system_defaults(limits, None).await.unwrap();
    let limiter = RateLimiter::new(repo);
    for _ in 0..3 {
        let call = limiter.acquire("k", "r").consume("rpm", 1);
        call.until_ready().await.unwrap().commit().await.unwrap();
    }
    assert_eq!(
        recorded.counts_by(ACQUIRES, "outcome"),
        [("admitted".to_owned(), 3)].into()
    );
    assert_eq!(recorded.count("zae_limiter_refusals_total", &[]), 0);
    let waits = recorded.values("zae_limiter_acquire_wait_seconds", &[]);
    assert_eq!(waits.len(), 3);
    assert!(waits[0] < 0.1 && (0.9..1.3).contains(&waits[1]), "{waits:?}");
    let took = recorded.values("zae_limiter_acquire_seconds", &[("outcome", "admitted")]);
    assert!(took[1] >= waits[1], "{took:?} {waits:?}");
}

#[tokio::test]
async fn a_lease_that_takes_more_counts_as_a_call() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    let world = World::configured().await;
    let mut lease = world.limiter.acquire("k", "r").consume("tpm", 600).await.unwrap();
    lease.consume("tpm", 300).await.unwrap();
    lease.consume("tpm", 300).await.unwrap_err();
    lease.commit().await.unwrap();
    let counts = recorded.counts_by(ACQUIRES, "outcome");
    assert_eq!(
        counts,
        [("admitted".to_owned(), 2), ("refused".to_owned(), 1)].into()
    );
    assert_eq!(
        recorded.count("zae_limiter_refusals_total", &[("limit", "tpm")]),
        1
    );
}

#[tokio::test]
async fn writes_are_those_that_the_decision_needed() {
    let recorded = Recorded::new();
    let world = World::configured().await;
    let admin = world.repo.admin();
    admin.create_entity(NewEntity::new("proj")).await.unwrap();
    let key = NewEntity::new("key").parent("proj").cascade(true);
    admin.create_entity(key).await.unwrap();
    take(&world.limiter, "key", 1).await.unwrap();
    let _installed = recorded.install();
    // The entity's debit and its parent's; then a refusal from memory.
    take(&world.limiter, "key", 1).await.unwrap();
    take(&world.limiter, "key", 999).await.unwrap_err();
    let writes = recorded.values("zae_limiter_acquire_writes", &[]);
    assert_eq!(format!("{writes:?}"), "[2.0, 0.0]");
}

#[tokio::test(start_paused = true)]
async fn a_shared_write_counts_for_each_call() {
    let recorded = Recorded::new();
    let (_world, table, limiter) = bucket(1000, |builder| builder).await;
    let before = table.writes();
    let _installed = recorded.install();
    let calls = (0..20).map(|_| limiter.acquire("k", "r").consume("rpd", 1).into_future());
    for lease in join_all(calls).await {
        lease.unwrap().commit().await.unwrap();
    }
    assert!(table.writes() - before < 10, "they share none");
    let writes = recorded.values("zae_limiter_acquire_writes", &[]);
    assert_eq!(format!("{writes:?}"), format!("{:?}", [1.0; 20]));
}

#[tokio::test(start_paused = true)]
async fn a_write_without_an_answer_at_the_deadline_counts() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    let world = World::configured().await;
    let (faulty, limiter) = failing(&world).await;
    let before = recorded.values("zae_limiter_acquire_writes", &[]).len();
    faulty.next(&[Fault::Hangs]);
    let call = limiter.acquire("k", "r").consume("tpm", 1);
    let err = call.timeout(Duration::from_millis(50)).await.unwrap_err();
    assert!(err.in_doubt());
    assert_eq!(recorded.count(ACQUIRES, &[("outcome", "unavailable")]), 1);
    assert_eq!(recorded.count("zae_limiter_acquires_in_doubt_total", &[]), 1);
    let writes = recorded.values("zae_limiter_acquire_writes", &[]);
    assert_eq!(format!("{:?}", &writes[before..]), "[1.0]");
}

#[tokio::test(start_paused = true)]
async fn corrections_are_counted_by_their_outcome() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    let world = World::configured().await;
    let (faulty, limiter) = failing(&world).await;
    let name = "zae_limiter_corrections_total";
    for (faults, outcome) in [
        (vec![], "applied"),
        (vec![Fault::LostAfter], "applied"),
        // Whether it was executed cannot be found out any more.
        (vec![Fault::LostBefore, Fault::Denied], "in_doubt"),
        (vec![Fault::Denied], "failed"),
    ] {
        let lease = limiter.acquire("k", "r").consume("tpm", 1).await.unwrap();
        let before = recorded.count(name, &[("outcome", outcome)]);
        faulty.next(&faults);
        let ended = lease.rollback().await;
        assert_eq!(ended.is_ok(), outcome == "applied", "{faults:?}: {ended:?}");
        assert_eq!(
            recorded.count(name, &[("outcome", outcome)]),
            before + 1,
            "{faults:?}"
        );
    }
    // One for each lease of a write that several share.
    let mut leases = Vec::new();
    for _ in 0..5 {
        leases.push(limiter.acquire("k", "r").consume("tpm", 1).await.unwrap());
    }
    leases.into_iter().for_each(drop);
    assert!(limiter.repository().drain().await.is_complete());
    let counts = recorded.counts_by(name, "outcome");
    let expected = [("applied", 7), ("failed", 1), ("in_doubt", 1)];
    assert_eq!(
        counts,
        expected
            .map(|(outcome, count)| (outcome.to_owned(), count))
            .into()
    );
}

#[tokio::test]
async fn corrections_of_what_is_only_counted_are_counted_too() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    let world = World::configured().await;
    let admin = world.repo.admin();
    admin.set_entity_access("k", "r", Access::Bypass).await.unwrap();
    let lease = world.limiter.acquire("k", "r").consume("tpm", 1).await.unwrap();
    assert!(lease.is_bypassed());
    lease.rollback().await.unwrap();
    assert_eq!(
        recorded.count("zae_limiter_corrections_total", &[("outcome", "applied")]),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn degraded_admissions_are_counted_under_either_policy() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    let world = World::configured().await;
    let (faulty, limiter) = failing(&world).await;
    faulty.always(Fault::LostBefore);
    let half = OnUnavailable::Degrade(Percent::new(50).unwrap());
    for policy in [OnUnavailable::Allow, half] {
        let call = limiter.acquire("k", "r").consume("tpm", 400);
        let mut lease = call.on_unavailable(policy).await.unwrap();
        assert!(lease.is_degraded());
        // It takes more from where it has its tokens, and a limit in memory refuses as others do.
        lease.consume("tpm", 100).await.unwrap();
        lease.commit().await.unwrap();
    }
    let call = limiter.acquire("k", "r").consume("tpm", 1);
    call.on_unavailable(half).await.unwrap_err();
    let counts = recorded.counts_by(ACQUIRES, "outcome");
    let expected = [("admitted", 1), ("degraded", 4), ("refused", 1)];
    assert_eq!(
        counts,
        expected
            .map(|(outcome, count)| (outcome.to_owned(), count))
            .into()
    );
    assert_eq!(
        recorded.count("zae_limiter_refusals_total", &[("limit", "tpm")]),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn requests_are_timed_by_operation_and_result() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    let world = World::configured().await;
    let (faulty, limiter) = failing(&world).await;
    let seconds = |operation, result| {
        let labels = [
            ("operation", operation),
            ("result", result),
            ("stack", "zae-limiter"),
        ];
        recorded.values("zae_limiter_table_seconds", &labels)
    };
    // The table below is that of another repository, and counts for that one, too.
    let before = seconds("update", "ok").len();
    faulty.next(&[Fault::Late(300)]);
    take(&limiter, "k", 1).await.unwrap();
    let all = seconds("update", "ok");
    assert_eq!(all.len(), before + 2);
    assert!(all.iter().any(|took| (0.3..0.4).contains(took)), "{all:?}");
    assert!(seconds("update", "timeout").is_empty());
    faulty.next(&[Fault::LostBefore]);
    take(&limiter, "k", 1).await.unwrap_err();
    assert_eq!(seconds("update", "timeout").len(), 1);
    faulty.next(&[Fault::Denied]);
    take(&limiter, "k", 1).await.unwrap_err();
    assert_eq!(seconds("update", "denied").len(), 1);
    // One that is dropped.
    *faulty.reads_fail.lock().unwrap() = true;
    *faulty.after.lock().unwrap() = Fault::Hangs;
    let read = limiter.repository().is_available(Duration::from_secs(1));
    assert!(!read.await);
    assert_eq!(format!("{:?}", seconds("get", "dropped")), "[1.0]");
}

#[tokio::test(start_paused = true)]
async fn places_are_counted() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    let world = World::configured().await;
    let (faulty, limiter) = failing(&world).await;
    let place = || limiter.acquire("k", "jobs").in_flight_at_most(2);
    place().await.unwrap().commit().await.unwrap();
    let lease = place().await.unwrap();
    faulty.next(&[Fault::Denied]);
    lease.commit().await.unwrap_err();
    let counts = recorded.counts_by("zae_limiter_places_total", "event");
    let expected = [("not_returned", 1), ("taken", 2)];
    assert_eq!(
        counts,
        expected.map(|(event, count)| (event.to_owned(), count)).into()
    );
}

/// The names of entities, resources and limits that callers send add no series.
#[tokio::test(start_paused = true)]
async fn labels_hold_nothing_that_a_caller_can_make_up() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    let world = World::with(|builder| builder.metric_resources(["r", "also-known"])).await;
    world.configure().await;
    let (faulty, limiter) = {
        let faulty = Faulty::over(&world);
        let limiter = faulty
            .limiter(&world, |builder| builder.metric_resources(["r"]))
            .await;
        (faulty, limiter)
    };
    let hostile = |i: u32| (format!("hostile-entity-{i}"), format!("hostile-resource-{i}"));
    let mut sizes = Vec::new();
    for i in 0..40 {
        let (entity, resource) = hostile(i);
        let call = |tokens| limiter.acquire(&*entity, &*resource).consume("tpm", tokens);
        call(1).await.unwrap().commit().await.unwrap();
        drop(call(1).in_flight_at_most(1).await.unwrap());
        call(1_000).await.unwrap_err();
        call(1_001).await.unwrap_err();
        limiter
            .acquire(&*entity, "r")
            .consume("hostile-limit", 1)
            .await
            .unwrap_err();
        limiter
            .acquire(&*format!("{entity} \n"), "r")
            .consume("tpm", 1)
            .await
            .unwrap_err();
        faulty.next(&[Fault::LostBefore]);
        call(1).await.unwrap_err();
        take(&limiter, &entity, 2).await.unwrap();
        assert!(limiter.repository().drain().await.is_complete());
        limiter.repository().record_gauges();
        sizes.push(recorded.series().len());
    }
    assert_eq!(sizes[3], sizes[39], "the number of series grows: {sizes:?}");
    for (name, labels) in recorded.series() {
        for (key, value) in labels {
            assert!(!value.contains("hostile"), "{name}: {key}={value}");
        }
    }
    let resources = recorded.counts_by(ACQUIRES, "resource");
    assert_eq!(resources.keys().collect::<Vec<_>>(), ["other", "r"]);
    assert_eq!(
        recorded.counts_by("zae_limiter_refusals_total", "resource")["other"],
        80
    );
}

#[tokio::test]
async fn resources_have_labels_only_if_they_are_named() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    let world = World::configured().await;
    take(&world.limiter, "k", 1).await.unwrap();
    let is_labelled =
        |(_, labels): &(String, std::collections::BTreeMap<String, String>)| labels.contains_key("resource");
    assert!(!recorded.series().iter().any(is_labelled));
    let bad = Repository::builder()
        .in_memory()
        .metric_resources(["r", "no#name"]);
    let Err(Error::InvalidInput(err)) = bad.open().await else {
        panic!("a bad name was accepted");
    };
    assert_eq!((err.field(), err.value()), ("metric_resources", "no#name"));
}

#[tokio::test]
async fn opening_a_repository_describes_all_metrics() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    assert!(recorded.described().is_empty());
    drop(World::new().await);
    let mut listed: Vec<_> = METRICS
        .iter()
        .map(|metric| (metric.name.to_owned(), metric.help.to_owned()))
        .collect();
    listed.sort();
    assert_eq!(recorded.described(), listed);

    let later = Recorded::new();
    metrics::with_local_recorder(later, describe);
    assert_eq!(later.described(), listed);
}

#[tokio::test]
async fn counters_of_rare_events_begin_with_zero() {
    let recorded = Recorded::new();
    let _installed = recorded.install();
    let world = World::configured().await;
    take(&world.limiter, "k", 1).await.unwrap();
    let series = recorded.series();
    for (name, label, values) in [
        (
            ACQUIRES,
            "outcome",
            &["admitted", "degraded", "unavailable", "failed"][..],
        ),
        (
            "zae_limiter_corrections_total",
            "outcome",
            &["applied", "gone", "in_doubt", "failed", "refused"],
        ),
        (
            "zae_limiter_places_total",
            "event",
            &["taken", "lost", "not_returned"],
        ),
        ("zae_limiter_acquires_in_doubt_total", "stack", &["zae-limiter"]),
        ("zae_limiter_breaker_openings_total", "stack", &["zae-limiter"]),
    ] {
        for value in values {
            let is_it = |(named, labels): &&(String, std::collections::BTreeMap<String, String>)| {
                named == name && labels[label] == *value
            };
            assert!(series.iter().any(|one| is_it(&one)), "{name}: {value}");
        }
    }
    assert_eq!(
        recorded.counts_by(ACQUIRES, "outcome"),
        [("admitted".to_owned(), 1)].into()
    );
}

#[test]
fn histograms_have_buckets_in_order() {
    for metric in METRICS {
        assert_eq!(
            metric.buckets.is_empty(),
            metric.kind != Kind::Histogram,
            "{}",
            metric.name
        );
        assert!(metric.buckets.is_sorted_by(|a, b| a < b), "{}", metric.name);
    }
}

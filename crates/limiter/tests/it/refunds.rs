//! Corrections of leases on their way to the table: added up, one at a time for each item, within deadlines.

use std::collections::HashMap;
use std::fmt;
use std::future::IntoFuture;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use zae_limiter::table::{Table, TableFuture};
use zae_limiter::{Error, Lease, NewEntity, RateLimiter, Repository};
use zae_limiter_core::table::{Applied, FailureKind, Op, TableError, Value};

use crate::world::{Fault, Faulty, World};

async fn take(limiter: &RateLimiter, entity: &str, tokens: u64) -> Lease {
    limiter.acquire(entity, "r").consume("tpm", tokens).await.unwrap()
}

#[tokio::test]
async fn what_a_lease_took_in_many_steps_is_given_back_in_one_write_per_bucket() {
    let w = World::configured().await;
    w.repo
        .admin()
        .create_entity(NewEntity::new("key").parent("proj").cascade(true))
        .await
        .unwrap();
    for rollback in [false, true] {
        let mut lease = take(&w.limiter, "key", 1).await;
        for _ in 0..200 {
            lease.consume("tpm", 1).await.unwrap();
        }
        assert_eq!(w.consumed("proj", "r", "tpm").await, 201_000);
        let end = async {
            if rollback {
                lease.rollback().await.unwrap();
            } else {
                drop(lease);
            }
            w.repo.drain().await
        };
        let (left, cost) = w.cost(end).await;
        assert!(left.is_complete());
        assert_eq!((cost.updates, cost.refused), (2, 0), "rollback: {rollback}");
        for entity in ["key", "proj"] {
            assert_eq!(w.balance(entity, "r", "tpm").await, 1_000_000);
            assert_eq!(w.consumed(entity, "r", "tpm").await, 0);
        }
    }
}

#[tokio::test]
async fn an_adjustment_of_many_steps_is_one_write() {
    let w = World::configured().await;
    let mut lease = take(&w.limiter, "k", 100).await;
    lease.consume("tpm", 50).await.unwrap();
    lease.adjust("tpm", -120).unwrap();
    let (result, cost) = w.cost(lease.commit()).await;
    result.unwrap();
    assert_eq!(cost.updates, 1);
    assert_eq!(w.consumed("k", "r", "tpm").await, 30_000);
}

#[tokio::test]
async fn lost_answers_lose_no_refund_among_many_leases() {
    let w = World::configured().await;
    let faulty = Faulty::over(&w);
    let limiter = faulty.limiter(&w, |builder| builder).await;
    for faults in [
        vec![Fault::LostBefore; 5],
        vec![Fault::LostAfter; 5],
        vec![Fault::LostBefore, Fault::LostAfter, Fault::LostBefore],
    ] {
        let mut leases = Vec::new();
        for _ in 0..40 {
            leases.push(take(&limiter, "k", 10).await);
        }
        assert_eq!(w.consumed("k", "r", "tpm").await, 400_000);
        faulty.next(&faults);
        // Some are already on their way when the others join them.
        drop(leases.split_off(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(leases);
        assert!(limiter.repository().drain().await.is_complete());
        assert_eq!(w.consumed("k", "r", "tpm").await, 0, "{faults:?}");
        assert_eq!(w.balance("k", "r", "tpm").await, 1_000_000, "{faults:?}");
    }
}

#[tokio::test]
async fn leases_that_share_a_write_are_told_each_its_own_outcome() {
    let w = World::configured().await;
    let large = take(&w.limiter, "k", 600).await;
    let small = take(&w.limiter, "k", 10).await;
    // The bucket has refilled, under a schedule that only another client understands.
    let refilled = [
        ("b_tpm_tk", Some(Value::int(950_000))),
        ("b_tpm_sched", Some(Value::text("0 9 * * *"))),
    ];
    w.poke("k", "r", &refilled).await;
    let (large, small) = tokio::join!(large.rollback(), small.rollback());
    assert!(matches!(large, Err(Error::Unsupported(_))), "{large:?}");
    small.unwrap();
    assert_eq!(w.balance("k", "r", "tpm").await, 960_000);
}

#[tokio::test]
async fn refunds_and_charges_of_one_moment_add_up() {
    let w = World::configured().await;
    let back = take(&w.limiter, "k", 300).await;
    let mut more = take(&w.limiter, "k", 100).await;
    more.adjust("tpm", 900).unwrap();
    let (back, more) = tokio::join!(back.rollback(), more.commit());
    back.unwrap();
    more.unwrap();
    assert_eq!(w.consumed("k", "r", "tpm").await, 1_000_000);
    assert_eq!(w.balance("k", "r", "tpm").await, 0);
}

/// Counts the updates that are on their way at the same time, for each item and in all.
#[derive(Clone)]
struct Gauge {
    inner: Arc<dyn Table>,
    running: Arc<Mutex<HashMap<String, usize>>>,
    most: Arc<Mutex<(usize, usize)>>,
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauge")
    }
}

impl Table for Gauge {
    fn call(&self, op: Op) -> TableFuture {
        let this = self.clone();
        Box::pin(async move {
            let Op::Update(update) = &op else {
                return this.inner.call(op).await;
            };
            let key = update.key.pk.clone();
            {
                let mut running = this.running.lock().unwrap();
                *running.entry(key.clone()).or_default() += 1;
                let mut most = this.most.lock().unwrap();
                *most = (most.0.max(running[&key]), most.1.max(running.values().sum()));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            let answer = this.inner.call(op).await;
            *this.running.lock().unwrap().get_mut(&key).unwrap() -= 1;
            answer
        })
    }
}

#[tokio::test]
async fn refunds_are_sent_one_at_a_time_to_an_item_and_not_all_at_once() {
    let w = World::configured().await;
    let gauge = Gauge {
        inner: w.repo.table(),
        running: Arc::default(),
        most: Arc::default(),
    };
    let builder = Repository::builder()
        .custom_table(Arc::new(gauge.clone()))
        .clock(w.clock.clone());
    let limiter = RateLimiter::new(builder.open().await.unwrap());
    let mut leases = Vec::new();
    for key in 0..200 {
        for _ in 0..2 {
            leases.push(take(&limiter, &format!("k{key}"), 1).await);
        }
    }
    *gauge.most.lock().unwrap() = (0, 0);
    drop(leases);
    assert!(limiter.repository().drain().await.is_complete());
    let (of_one, of_all) = *gauge.most.lock().unwrap();
    assert_eq!(of_one, 1);
    assert!((2..=128).contains(&of_all), "{of_all} at once");
    for key in 0..200 {
        assert_eq!(w.consumed(&format!("k{key}"), "r", "tpm").await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn finishing_a_lease_against_a_silent_table_ends_at_the_deadline_and_goes_on_behind() {
    let w = World::configured().await;
    let faulty = Faulty::over(&w);
    let limiter = faulty
        .limiter(&w, |builder| builder.acquire_timeout(Duration::from_millis(700)))
        .await;
    for commit in [true, false] {
        let mut lease = take(&limiter, "k", 400).await;
        faulty.always(Fault::Hangs);
        let begun = Instant::now();
        let result = if commit {
            lease.adjust("tpm", -400).unwrap();
            lease.commit().await
        } else {
            lease.set_timeout(Duration::from_millis(300));
            lease.rollback().await
        };
        let waited = if commit { 700 } else { 300 };
        assert_eq!(begun.elapsed(), Duration::from_millis(waited));
        let err = result.unwrap_err();
        assert!(
            matches!(&err, Error::Unavailable(down) if down.in_doubt() && !down.is_retryable()),
            "{err:?}"
        );
        assert!(
            err.to_string().contains("still being sent in the background"),
            "{err}"
        );

        let begun = Instant::now();
        let left = limiter.repository().drain_within(Duration::from_secs(3)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
        assert_eq!((left.corrections, left.tasks, left.is_complete()), (1, 0, false));

        faulty.always(Fault::None);
        assert!(limiter.repository().drain().await.is_complete());
        assert_eq!(w.consumed("k", "r", "tpm").await, 0);
        assert_eq!(w.balance("k", "r", "tpm").await, 1_000_000);
    }
}

#[tokio::test(start_paused = true)]
async fn draining_ends_after_half_a_minute() {
    let w = World::configured().await;
    let faulty = Faulty::over(&w);
    let limiter = faulty.limiter(&w, |builder| builder).await;
    let lease = take(&limiter, "k", 400).await;
    faulty.always(Fault::Hangs);
    drop(lease);
    let begun = Instant::now();
    assert!(!limiter.repository().drain().await.is_complete());
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
}

/// Loses the answer to two of three writes that give tokens back, executed or not.
#[derive(Clone)]
struct LosesRefunds {
    inner: Arc<dyn Table>,
    seen: Arc<AtomicUsize>,
}

impl fmt::Debug for LosesRefunds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LosesRefunds")
    }
}

impl Table for LosesRefunds {
    fn call(&self, op: Op) -> TableFuture {
        let this = self.clone();
        Box::pin(async move {
            let is_refund = matches!(&op, Op::Update(update)
                if update.add.iter().any(|(attr, by)| attr.ends_with("_tc") && *by < 0));
            if !is_refund {
                return this.inner.call(op).await;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            let lost = || {
                Err(TableError::new(
                    FailureKind::Timeout,
                    Applied::Unknown,
                    "no answer",
                ))
            };
            match this.seen.fetch_add(1, Ordering::Relaxed) % 3 {
                0 => lost(),
                1 => {
                    this.inner.call(op).await?;
                    lost()
                }
                _ => this.inner.call(op).await,
            }
        })
    }
}

#[tokio::test]
async fn lost_answers_lose_no_refund_of_acquires_that_the_parent_refuses() {
    let w = World::configured().await;
    w.repo
        .admin()
        .create_entity(NewEntity::new("c").parent("p").cascade(true))
        .await
        .unwrap();
    let table = LosesRefunds {
        inner: w.repo.table(),
        seen: Arc::default(),
    };
    let builder = Repository::builder()
        .custom_table(Arc::new(table.clone()))
        .clock(w.clock.clone());
    let limiter = RateLimiter::new(builder.open().await.unwrap());
    let held = take(&limiter, "p", 995).await;
    let calls = (0..40).map(|_| limiter.acquire("c", "r").consume("tpm", 10));
    let refused = futures_util::future::join_all(calls.map(IntoFuture::into_future)).await;
    assert!(
        refused
            .iter()
            .all(|end| matches!(end, Err(Error::RateLimitExceeded(_))))
    );
    // Those that gave up on the way, too.
    for _ in 0..40 {
        let call = limiter.acquire("c", "r").consume("tpm", 1);
        let _ = tokio::time::timeout(Duration::from_micros(300), call).await;
    }
    assert!(limiter.repository().drain().await.is_complete());
    assert!(table.seen.load(Ordering::Relaxed) > 2);
    assert_eq!(w.consumed("c", "r", "tpm").await, 0);
    drop(held);
}

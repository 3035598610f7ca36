//! Holding tokens: corrections, commits, rollbacks, drops, cancellations, lost answers.

use std::time::Duration;

use zae_limiter::{Access, Error, Lease, Limit, NewEntity};

use crate::world::{Fault, Faulty, World};

#[tokio::test]
async fn an_estimate_is_corrected_in_both_directions() {
    let w = World::configured().await;
    let mut lease = w
        .limiter
        .acquire("k", "r")
        .consume("rpm", 1)
        .consume("tpm", 500)
        .await
        .unwrap();
    lease.adjust("tpm", -200).unwrap();
    lease.commit().await.unwrap();
    assert_eq!(w.balance("k", "r", "tpm").await, 700_000);
    let mut lease = w.limiter.acquire("k", "r").consume("tpm", 500).await.unwrap();
    lease.adjust("tpm", 900).unwrap();
    lease.release("tpm", 100).unwrap();
    assert_eq!(lease.consumed("tpm"), 1300);
    lease.commit().await.unwrap();
    assert_eq!(w.balance("k", "r", "tpm").await, -600_000, "into debt");
    assert_eq!(w.consumed("k", "r", "tpm").await, 1_600_000);
}

#[tokio::test]
async fn a_rollback_returns_everything_on_child_and_parent() {
    let w = World::configured().await;
    w.repo
        .admin()
        .create_entity(NewEntity::new("key").parent("proj").cascade(true))
        .await
        .unwrap();
    let mut lease = w.limiter.acquire("key", "r").consume("tpm", 300).await.unwrap();
    lease.consume("tpm", 100).await.unwrap();
    lease.adjust("tpm", 50).unwrap();
    assert_eq!(w.consumed("proj", "r", "tpm").await, 400_000);
    lease.rollback().await.unwrap();
    for entity in ["key", "proj"] {
        assert_eq!(w.balance(entity, "r", "tpm").await, 1_000_000);
        assert_eq!(w.consumed(entity, "r", "tpm").await, 0);
    }
}

#[tokio::test]
async fn consuming_more_asks_the_table() {
    let w = World::configured().await;
    let mut lease = w.limiter.acquire("k", "r").consume("tpm", 600).await.unwrap();
    let other = w.another().await;
    other
        .limiter
        .acquire("k", "r")
        .consume("tpm", 300)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    assert!(matches!(
        lease.consume("tpm", 101).await,
        Err(Error::RateLimitExceeded(_))
    ));
    lease.consume("tpm", 100).await.unwrap();
    assert_eq!(lease.consumed("tpm"), 700);
    lease.commit().await.unwrap();
    assert_eq!(w.balance("k", "r", "tpm").await, 0);
}

#[tokio::test]
async fn a_refund_into_a_refilled_bucket_cannot_be_spent_twice() {
    let w = World::configured().await;
    let lease = w.limiter.acquire("k", "r").consume("tpm", 1000).await.unwrap();
    w.clock.advance(Duration::from_mins(1));
    w.limiter
        .acquire("k", "r")
        .consume("tpm", 1)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    lease.rollback().await.unwrap();
    let bucket = w.bucket("k", "r").await.unwrap();
    assert_eq!(
        (bucket.limit("tpm").unwrap().balance.0, bucket.valid_until),
        (1_999_000, Some(0))
    );
    w.limiter
        .acquire("k", "r")
        .consume("tpm", 1000)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    assert_eq!(w.balance("k", "r", "tpm").await, 0, "the surplus was cut");
}

#[tokio::test]
async fn a_refund_never_brings_a_deleted_bucket_back() {
    use zae_limiter::table::TableExt as _;
    use zae_limiter_core::table::{Condition, Delete};
    let w = World::configured().await;
    let lease = w.limiter.acquire("k", "r").consume("tpm", 10).await.unwrap();
    let delete = Delete {
        key: w.id("k", "r").key(0),
        condition: Condition::ALWAYS,
    };
    assert!(w.repo.table().delete(delete).await.unwrap().is_applied());
    lease.rollback().await.unwrap();
    assert!(w.bucket("k", "r").await.is_none());
}

#[tokio::test]
async fn a_dropped_lease_is_rolled_back_in_the_background() {
    let w = World::configured().await;
    drop(w.limiter.acquire("k", "r").consume("tpm", 400).await.unwrap());
    w.repo.drain().await;
    assert_eq!(w.balance("k", "r", "tpm").await, 1_000_000);
}

#[tokio::test]
async fn leases_end_in_the_background() {
    let w = World::configured().await;
    let admin = w.repo.admin();
    let key = NewEntity::new("key").parent("proj").cascade(true);
    admin.create_entity(key).await.unwrap();
    let call = || {
        w.limiter
            .acquire("key", "r")
            .consume("rpm", 1)
            .consume("tpm", 300)
    };
    let mut lease = call().await.unwrap();
    lease.adjust_to("tpm", 100).unwrap();
    lease.commit_in_background();
    let mut lease = call().await.unwrap();
    // Adjustments of a lease that is rolled back do not count.
    lease.adjust_to("tpm", 700).unwrap();
    lease.rollback_in_background();
    // Nothing to write.
    call().await.unwrap().commit_in_background();
    w.repo.drain().await;
    for entity in ["key", "proj"] {
        assert_eq!(w.consumed(entity, "r", "tpm").await, 400_000);
        assert_eq!(w.consumed(entity, "r", "rpm").await, 2_000);
    }
}

#[tokio::test]
async fn places_go_back_with_leases_that_end_in_the_background() {
    let w = World::configured().await;
    let call = || w.limiter.acquire("k", "r").consume("rpm", 1).in_flight_at_most(1);
    for keeps in [true, false] {
        let lease = call().await.unwrap();
        assert!(matches!(call().await, Err(Error::ConcurrencyExceeded(_))));
        if keeps {
            lease.commit_in_background();
        } else {
            lease.rollback_in_background();
        }
        w.repo.drain().await;
    }
    call().await.unwrap().commit().await.unwrap();
    assert_eq!(w.consumed("k", "r", "rpm").await, 2_000);
}

#[tokio::test]
async fn a_lease_knows_how_its_limits_stood() {
    let w = World::configured().await;
    let admin = w.repo.admin();
    let key = NewEntity::new("key").parent("proj").cascade(true);
    admin.create_entity(key).await.unwrap();
    w.limiter
        .acquire("proj", "r")
        .consume("tpm", 200)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    let lease = w
        .limiter
        .acquire("key", "r")
        .consume("rpm", 1)
        .consume("tpm", 300)
        .await
        .unwrap();
    let found = |lease: &Lease| -> Vec<(String, String, u64, i64, bool)> {
        let statuses = lease.statuses().into_iter();
        let told = statuses.map(|s| {
            (
                s.entity.to_string(),
                s.limit_name.to_string(),
                s.requested,
                s.available,
                s.exceeded,
            )
        });
        told.collect()
    };
    let told = |entity: &str, limit: &str, requested, available| {
        (entity.to_owned(), limit.to_owned(), requested, available, false)
    };
    assert_eq!(
        found(&lease),
        [
            told("key", "rpm", 1, 9),
            told("key", "tpm", 300, 700),
            told("proj", "rpm", 1, 9),
            told("proj", "tpm", 300, 500),
        ]
    );
    lease.commit().await.unwrap();
    // Under a bypass, no limit counts.
    admin.set_entity_access("key", "r", Access::Bypass).await.unwrap();
    let lease = w.limiter.acquire("key", "r").consume("tpm", 300).await.unwrap();
    assert!(found(&lease).iter().all(|(entity, ..)| entity == "proj"));
    lease.commit().await.unwrap();
}

#[tokio::test]
async fn a_panic_in_the_work_rolls_back() {
    let w = World::configured().await;
    let limiter = w.limiter.clone();
    let work = tokio::spawn(async move {
        let call = limiter.acquire("k", "r").consume("tpm", 400);
        call.run(async |_| -> Result<(), Error> { panic!("the work failed badly") })
            .await
    });
    assert!(work.await.unwrap_err().is_panic());
    w.repo.drain().await;
    assert_eq!(w.consumed("k", "r", "tpm").await, 0);
}

#[tokio::test]
async fn the_closure_form_commits_on_ok_and_rolls_back_on_err() {
    let w = World::configured().await;
    let call = || w.limiter.acquire("k", "r").consume("tpm", 400);
    let done = call()
        .run(async |lease| {
            lease.adjust("tpm", -100)?;
            Ok::<_, Error>(7)
        })
        .await;
    assert_eq!(done.unwrap(), 7);
    assert_eq!(w.consumed("k", "r", "tpm").await, 300_000);
    let failed = call()
        .run(async |_| Err::<(), _>(Error::EntityNotFound("x".into())))
        .await;
    assert!(matches!(failed, Err(Error::EntityNotFound(_))));
    assert_eq!(w.consumed("k", "r", "tpm").await, 300_000);
}

#[tokio::test]
async fn the_result_of_the_work_survives_a_commit_or_rollback_that_fails() {
    let w = World::configured().await;
    let faulty = Faulty::over(&w);
    let limiter = faulty.limiter(&w, |builder| builder).await;
    let call = || limiter.acquire("k", "r").consume("tpm", 100);
    let done = call().run(async |lease| {
        lease.adjust("tpm", -50)?;
        faulty.next(&[Fault::Denied]);
        Ok::<_, Error>(7)
    });
    assert_eq!(done.await.unwrap(), 7);
    let failed = call().run(async |_| {
        faulty.next(&[Fault::Denied]);
        Err::<(), _>(Error::EntityNotFound("x".into()))
    });
    assert!(matches!(failed.await, Err(Error::EntityNotFound(_))));
    assert_eq!(w.consumed("k", "r", "tpm").await, 200_000, "neither was written");
}

#[tokio::test]
async fn an_acquire_cancelled_at_any_point_keeps_nothing() {
    let w = World::configured().await;
    w.repo
        .admin()
        .create_entity(NewEntity::new("key").parent("proj").cascade(true))
        .await
        .unwrap();
    w.limiter
        .acquire("key", "r")
        .consume("tpm", 1)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    let faulty = Faulty::over(&w);
    faulty.next(&[]);
    let limiter = faulty.limiter(&w, |builder| builder).await;
    for millis in 0..12 {
        *faulty.after.lock().unwrap() = Fault::Late(5);
        let call = limiter.acquire("key", "r").consume("tpm", 100);
        if let Ok(lease) = tokio::time::timeout(Duration::from_millis(millis), call.send()).await {
            lease.unwrap().rollback().await.unwrap();
        }
        limiter.repository().drain().await;
        assert_eq!(
            w.consumed("key", "r", "tpm").await,
            1000,
            "cancelled after {millis} ms"
        );
        assert_eq!(
            w.consumed("proj", "r", "tpm").await,
            1000,
            "cancelled after {millis} ms"
        );
    }
}

#[tokio::test]
async fn a_commit_cancelled_half_way_is_finished_in_the_background() {
    let w = World::configured().await;
    let faulty = Faulty::over(&w);
    let limiter = faulty.limiter(&w, |builder| builder).await;
    let mut lease = limiter.acquire("k", "r").consume("tpm", 500).await.unwrap();
    lease.adjust("tpm", -200).unwrap();
    *faulty.after.lock().unwrap() = Fault::Late(20);
    assert!(
        tokio::time::timeout(Duration::from_millis(1), lease.commit())
            .await
            .is_err()
    );
    limiter.repository().drain().await;
    assert_eq!(w.consumed("k", "r", "tpm").await, 300_000);
}

#[tokio::test]
async fn a_refund_whose_answer_is_lost_happens_exactly_once() {
    let w = World::configured().await;
    let faulty = Faulty::over(&w);
    let limiter = faulty.limiter(&w, |builder| builder).await;
    for faults in [
        vec![Fault::LostAfter],
        vec![Fault::LostBefore],
        vec![Fault::LostBefore, Fault::LostAfter],
        vec![Fault::LostAfter, Fault::Throttled, Fault::LostBefore],
        vec![Fault::Throttled, Fault::Throttled, Fault::LostAfter],
    ] {
        let lease = limiter.acquire("k", "r").consume("tpm", 400).await.unwrap();
        faulty.next(&faults);
        lease.rollback().await.unwrap();
        assert_eq!(w.consumed("k", "r", "tpm").await, 0, "{faults:?}");
        assert_eq!(w.balance("k", "r", "tpm").await, 1_000_000, "{faults:?}");
    }
}

#[tokio::test]
async fn a_refund_in_doubt_is_reported_and_never_doubled() {
    let w = World::configured().await;
    let faulty = Faulty::over(&w);
    let limiter = faulty.limiter(&w, |builder| builder).await;
    for (fault, left) in [(Fault::LostBefore, 400_000), (Fault::LostAfter, 400_000)] {
        let lease = limiter.acquire("k", "r").consume("tpm", 400).await.unwrap();
        let another = w.limiter.acquire("k", "r").consume("tpm", 10).await.unwrap();
        // A refund of another process leaves another mark, which this process has not seen.
        another.rollback().await.unwrap();
        faulty.next(&[fault]);
        let result = lease.rollback().await;
        assert_eq!(w.consumed("k", "r", "tpm").await, left, "{fault:?}");
        if fault == Fault::LostAfter {
            // Our own mark is the last on the item: it had happened.
            result.unwrap();
        } else {
            let err = result.unwrap_err();
            assert!(
                matches!(&err, Error::Unavailable(down) if down.in_doubt()),
                "{err:?}"
            );
        }
    }
}

#[tokio::test]
async fn blocking_calls_do_the_same() {
    let done = tokio::task::spawn_blocking(|| {
        use zae_limiter::blocking::{RateLimiter, Repository};
        let repo = Repository::in_memory()?;
        repo.admin()
            .set_system_defaults([Limit::per_day("rpm", 5)], None)?;
        let limiter = RateLimiter::new(repo.clone());
        let mut lease = limiter.acquire("k", "r").consume("rpm", 2).send()?;
        lease.consume("rpm", 1)?;
        lease.release("rpm", 1)?;
        lease.commit()?;
        limiter
            .acquire("k", "r")
            .consume("rpm", 1)
            .run(|_| Ok::<_, Error>(()))?;
        drop(limiter.acquire("k", "r").consume("rpm", 1).send()?);
        assert!(repo.drain()?.is_complete());
        let wait = limiter.check("k", "r").needed("rpm", 3).send()?.retry_after();
        assert!(wait.is_some_and(|wait| wait > Duration::from_hours(1)));
        limiter.available("k", "r").map(|left| left["rpm"])
    });
    assert_eq!(done.await.unwrap().unwrap(), 2);
}

/// The entity is deleted and created again while a lease is held: its bucket owes nothing to that lease.
#[tokio::test]
async fn a_lease_of_a_deleted_entity_corrects_nothing_on_the_next_one() {
    for charge in [None, Some(5000)] {
        let w = World::configured().await;
        let other = w.another().await;
        w.repo.admin().create_entity(NewEntity::new("k")).await.unwrap();
        let mut lease = w.limiter.acquire("k", "r").consume("tpm", 1000).await.unwrap();
        w.repo.admin().delete_entity("k").await.unwrap();
        w.repo.admin().create_entity(NewEntity::new("k")).await.unwrap();
        let second = other
            .limiter
            .acquire("k", "r")
            .consume("tpm", 1000)
            .await
            .unwrap();
        // The process of the first lease has seen the second bucket.
        w.limiter.acquire("k", "r").consume("tpm", 1).await.unwrap_err();
        match charge {
            Some(charge) => {
                lease.adjust("tpm", charge).unwrap();
                lease.commit().await.unwrap();
            }
            None => lease.rollback().await.unwrap(),
        }
        assert_eq!(w.balance("k", "r", "tpm").await, 0, "{charge:?}");
        second.rollback().await.unwrap();
        assert_eq!(w.balance("k", "r", "tpm").await, 1_000_000);
    }
}

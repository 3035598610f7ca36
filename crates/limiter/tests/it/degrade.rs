//! Continuing with a part of the limits in memory: parents, flags, unknown limits, and leases.

use std::time::Duration;

use zae_limiter::table::TableExt as _;
use zae_limiter::{Error, Lease, Limit, NewEntity, OnUnavailable, Percent, RateLimiter};
use zae_limiter_core::schema::entity_config_key;
use zae_limiter_core::table::{Update, Value};
use zae_limiter_core::{EntityId, ResourceName, name::ResourceScope};

use crate::world::{Fault, Faulty, World};

/// A limiter at half of the limits that has seen these entities' buckets, and then lost its table.
async fn degraded(w: &World, seen: &[&str]) -> (RateLimiter, Faulty) {
    let faulty = Faulty::over(w);
    let half = OnUnavailable::Degrade(Percent::new(50).unwrap());
    let limiter = faulty.limiter(w, |builder| builder.on_unavailable(half)).await;
    for entity in seen {
        take(&limiter, entity, 0).await.unwrap().commit().await.unwrap();
    }
    faulty.always(Fault::LostBefore);
    (limiter, faulty)
}

async fn take(limiter: &RateLimiter, entity: &str, tokens: u64) -> Result<Lease, Error> {
    limiter.acquire(entity, "r").consume("tpm", tokens).await
}

/// Takes and keeps.
async fn spend(limiter: &RateLimiter, entity: &str, tokens: u64) -> Result<(), Error> {
    let lease = take(limiter, entity, tokens).await?;
    assert!(lease.is_degraded());
    lease.commit().await
}

fn refuser(result: Result<(), Error>) -> (String, i64) {
    match result {
        Err(Error::RateLimitExceeded(refused)) => {
            let worst = refused.worst().unwrap();
            (worst.entity.to_string(), worst.available)
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

async fn family(w: &World) {
    w.repo
        .admin()
        .create_entity(NewEntity::new("proj"))
        .await
        .unwrap();
    for key in ["a", "b", "c"] {
        w.repo
            .admin()
            .create_entity(NewEntity::new(key).parent("proj").cascade(true))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn children_share_their_parents_part() {
    let w = World::configured().await;
    family(&w).await;
    let (limiter, _faulty) = degraded(&w, &["a", "b", "c"]).await;
    spend(&limiter, "a", 300).await.unwrap();
    spend(&limiter, "b", 200).await.unwrap();
    // Half of 1,000 is gone, though the keys have some of theirs left.
    assert_eq!(refuser(spend(&limiter, "c", 1).await), ("proj".to_owned(), 0));
    assert_eq!(refuser(spend(&limiter, "a", 1).await), ("proj".to_owned(), 0));
    w.clock.advance(Duration::from_mins(1));
    // All or nothing: what the key refuses is not taken from its parent.
    assert_eq!(refuser(spend(&limiter, "a", 501).await).1, 500);
    spend(&limiter, "c", 500).await.unwrap();
}

#[tokio::test]
async fn limits_of_the_call_bound_the_parent_too() {
    let w = World::configured().await;
    family(&w).await;
    let (limiter, _faulty) = degraded(&w, &["a", "b"]).await;
    let spend = async |entity: &str| {
        let call = limiter.acquire(entity, "r").consume("rpd", 1);
        call.limits([Limit::per_day("rpd", 4)]).await?.commit().await
    };
    spend("a").await.unwrap();
    spend("b").await.unwrap();
    assert_eq!(refuser(spend("b").await), ("proj".to_owned(), 0));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_limit_is_a_fault_of_the_call() {
    let w = World::configured().await;
    let (limiter, faulty) = degraded(&w, &["a"]).await;
    // The configuration is out of date and cannot be read again in time.
    w.clock.advance(Duration::from_secs(61));
    faulty.always(Fault::Hangs);
    let call = limiter.acquire("a", "r").consume("tpm", 1).consume("tpd", 1);
    let err = call.await.unwrap_err();
    assert!(
        matches!(&err, Error::InvalidInput(bad) if bad.field() == "consume.tpd"),
        "{err:?}"
    );
    assert_eq!(
        refuser(spend(&limiter, "a", 501).await).1,
        500,
        "nothing was taken"
    );
}

#[tokio::test]
async fn what_was_disabled_stays_so() {
    for disabled in ["proj", "a"] {
        let w = World::configured().await;
        family(&w).await;
        let (limiter, faulty) = degraded(&w, &["a"]).await;
        spend(&limiter, "a", 1).await.unwrap();
        let scope = ResourceScope::One(ResourceName::new("r").unwrap());
        let id = EntityId::new(disabled).unwrap();
        let mut update = Update::new(entity_config_key(w.repo.namespace_id(), &id, &scope));
        update.set.push(("disabled".into(), Value::Bool(true)));
        assert!(w.repo.table().update(update).await.unwrap().is_applied());
        // Seen by this process, for which the table is lost again.
        faulty.always(Fault::None);
        limiter.repository().invalidate_caches();
        limiter.check("a", "r").await.unwrap();
        faulty.always(Fault::LostBefore);
        let err = spend(&limiter, "a", 1).await.unwrap_err();
        assert!(
            matches!(&err, Error::Disabled { entity, .. } if entity == disabled),
            "{err:?}"
        );
    }
}

#[tokio::test]
async fn a_lease_in_memory_is_extended_corrected_and_given_back_on_child_and_parent() {
    let w = World::configured().await;
    family(&w).await;
    let (limiter, _faulty) = degraded(&w, &["a", "b"]).await;
    let mut lease = take(&limiter, "a", 100).await.unwrap();
    lease.consume("tpm", 300).await.unwrap();
    assert_eq!(lease.consumed("tpm"), 400);
    assert!(matches!(
        lease.consume("tpm", 101).await,
        Err(Error::RateLimitExceeded(_))
    ));
    assert_eq!(refuser(spend(&limiter, "b", 101).await), ("proj".to_owned(), 100));
    // 150 are kept.
    lease.adjust("tpm", -250).unwrap();
    lease.commit().await.unwrap();
    assert_eq!(refuser(spend(&limiter, "b", 351).await), ("proj".to_owned(), 350));
    // Into debt.
    let mut lease = take(&limiter, "b", 100).await.unwrap();
    lease.adjust("tpm", 700).unwrap();
    lease.commit().await.unwrap();
    assert_eq!(refuser(spend(&limiter, "a", 1).await), ("proj".to_owned(), -450));
    w.clock.advance(Duration::from_mins(2));
    let lease = take(&limiter, "a", 500).await.unwrap();
    assert_eq!(refuser(spend(&limiter, "b", 1).await), ("proj".to_owned(), 0));
    lease.rollback().await.unwrap();
    drop(take(&limiter, "b", 500).await.unwrap());
    spend(&limiter, "a", 500).await.unwrap();
}

#[tokio::test]
async fn a_parent_whose_limits_were_never_seen_bounds_nothing_and_so_refuses() {
    let w = World::configured().await;
    family(&w).await;
    let (limiter, faulty) = degraded(&w, &[]).await;
    faulty.always(Fault::None);
    // The child's configuration is read, the parent's is not.
    limiter.check("a", "r").needed("unknown", 1).await.unwrap_err();
    faulty.always(Fault::LostBefore);
    let err = spend(&limiter, "a", 1).await.unwrap_err();
    assert!(matches!(err, Error::Unavailable(_)), "{err:?}");
}

//! Tokens taken ahead: calls that are served from memory.

use std::time::Duration;

use futures_util::future::join_all;
use zae_limiter::{Error, Limit, NewEntity, Prefetch, RateLimiter, Repository};

use crate::groups::bucket;
use crate::world::World;

const FULL: i128 = 1_000_000_000;

fn ahead() -> Prefetch {
    Prefetch::calls(50)
}

async fn take(limiter: &RateLimiter, limit: &str, tokens: u64) -> Result<(), Error> {
    let lease = limiter.acquire("k", "r").consume(limit, tokens).await?;
    lease.commit().await
}

async fn drain(limiter: &RateLimiter) {
    assert!(limiter.repository().drain().await.is_complete());
    assert_eq!(limiter.repository().prefetched().buckets, 0);
}

#[tokio::test(start_paused = true)]
async fn few_writes_serve_many_calls_and_exactly_what_there_is_is_admitted() {
    let (world, table, limiter) = bucket(1 + 1000, |builder| builder.prefetch(ahead())).await;
    let before = table.writes();
    for call in 0..600 {
        take(&limiter, "rpd", 1).await.unwrap();
        assert!(call < 300 || limiter.repository().prefetched().tokens.len() <= 1);
    }
    let writes = table.writes() - before;
    assert!((10..=24).contains(&writes), "{writes} writes for 600 calls");
    // As the bucket empties, fewer are taken ahead; the last token is admitted, too.
    for _ in 600..1000 {
        take(&limiter, "rpd", 1).await.unwrap();
    }
    let refused = take(&limiter, "rpd", 1).await;
    assert!(matches!(refused, Err(Error::RateLimitExceeded(_))), "{refused:?}");
    drain(&limiter).await;
    assert_eq!(world.balance("k", "r", "rpd").await, 0);
    assert_eq!(world.consumed("k", "r", "rpd").await, 1_001_000);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_spent_returns_when_it_is_too_old() {
    let (world, table, limiter) = bucket(1000, |builder| builder.prefetch(ahead())).await;
    for _ in 0..20 {
        take(&limiter, "tpd", 100).await.unwrap();
    }
    let held = limiter.repository().prefetched().tokens["tpd"];
    assert!((100..=5_000).contains(&held), "{held}");
    let spent = 2_000_000;
    assert_eq!(
        world.balance("k", "r", "tpd").await,
        FULL - spent - i128::from(held) * 1000
    );
    assert_eq!(
        limiter.available("k", "r").await.unwrap()["tpd"],
        998_000,
        "they are this process's"
    );
    let before = table.writes();
    world.clock.advance(Duration::from_secs(1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.balance("k", "r", "tpd").await, FULL - spent);
    assert_eq!(limiter.repository().prefetched().tokens.len(), 0);
    assert_eq!(table.writes() - before, 1);
    // A call now and then takes only what it needs.
    for _ in 0..5 {
        world.clock.advance(Duration::from_secs(2));
        tokio::time::sleep(Duration::from_secs(2)).await;
        take(&limiter, "tpd", 100).await.unwrap();
        assert_eq!(limiter.repository().prefetched().tokens.len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn keys_share_what_is_taken_ahead_of_their_project() {
    let (world, table, limiter) = bucket(100_000, |builder| builder.prefetch(ahead())).await;
    let admin = world.repo.admin();
    admin.create_entity(NewEntity::new("project")).await.unwrap();
    for key in 0..40 {
        let child = NewEntity::new(format!("key-{key}"))
            .parent("project")
            .cascade(true);
        admin.create_entity(child).await.unwrap();
    }
    let round = async || {
        for key in 0..40 {
            let call = limiter
                .acquire(format!("key-{key}"), "r")
                .consume("rpd", 1)
                .consume("tpd", 50);
            call.await.unwrap().commit().await.unwrap();
            // Each key comes every four seconds.
            world.clock.advance(Duration::from_millis(100));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    round().await;
    let before = table.writes();
    for _ in 0..5 {
        round().await;
    }
    let writes = table.writes() - before;
    assert!(
        writes <= 200 + 40,
        "{writes} writes for 200 calls, of which each debits its key"
    );
    drain(&limiter).await;
    assert_eq!(world.consumed("project", "r", "rpd").await, 240_000);
    assert_eq!(world.consumed("project", "r", "tpd").await, 240 * 50_000);
    assert_eq!(world.consumed("key-7", "r", "tpd").await, 6 * 50_000);
}

#[tokio::test(start_paused = true)]
async fn processes_together_admit_what_the_bucket_holds() {
    let (world, table, limiter) = bucket(1 + 500, |builder| builder.prefetch(ahead())).await;
    let builder = Repository::builder()
        .custom_table(std::sync::Arc::new(table.clone()))
        .clock(world.clock.clone())
        .prefetch(ahead());
    let other = RateLimiter::new(builder.open().await.unwrap());
    let mut admitted = 0;
    for limiter in [&limiter, &other].into_iter().cycle().take(400) {
        admitted += usize::from(take(limiter, "rpd", 1).await.is_ok());
    }
    assert_eq!(admitted, 400);
    let calls = (0..200).map(|call| take(if call % 2 == 0 { &limiter } else { &other }, "rpd", 1));
    admitted += join_all(calls).await.iter().filter(|end| end.is_ok()).count();
    assert!(admitted <= 500, "{admitted}");
    for limiter in [&limiter, &other] {
        drain(limiter).await;
        while take(limiter, "rpd", 1).await.is_ok() {
            admitted += 1;
        }
    }
    drain(&limiter).await;
    drain(&other).await;
    while take(&limiter, "rpd", 1).await.is_ok() {
        admitted += 1;
    }
    assert_eq!(admitted, 500);
    assert_eq!(world.balance("k", "r", "rpd").await, 0);
}

#[tokio::test(start_paused = true)]
async fn corrections_are_settled_from_memory() {
    let (world, table, limiter) = bucket(1000, |builder| builder.prefetch(ahead())).await;
    for _ in 0..40 {
        take(&limiter, "tpd", 100).await.unwrap();
    }
    let before = table.writes();
    let mut used = 4_000;
    for tokens in [60, 140, 100, 0] {
        let mut lease = limiter.acquire("k", "r").consume("tpd", 100).await.unwrap();
        lease.adjust_to("tpd", tokens).unwrap();
        lease.commit().await.unwrap();
        used += i128::from(tokens);
    }
    let lease = limiter.acquire("k", "r").consume("tpd", 100).await.unwrap();
    lease.rollback().await.unwrap();
    drop(limiter.acquire("k", "r").consume("tpd", 100).await.unwrap());
    assert!(table.writes() - before <= 1, "{}", table.writes() - before);
    // More than is held goes to the table, and may be a debt.
    let mut lease = limiter.acquire("k", "r").consume("tpd", 100).await.unwrap();
    lease.adjust_to("tpd", 500_000).unwrap();
    lease.commit().await.unwrap();
    used += 500_000;
    drain(&limiter).await;
    assert_eq!(world.consumed("k", "r", "tpd").await, used * 1000);
    assert_eq!(world.balance("k", "r", "tpd").await, FULL - used * 1000);
}

#[tokio::test(start_paused = true)]
async fn callers_that_go_and_answers_that_are_lost_leave_the_books_right() {
    let (world, table, limiter) = bucket(100_000, |builder| builder.prefetch(ahead())).await;
    let mut used = 0;
    for round in 0..200_u64 {
        if round % 20 == 7 {
            table.lose(0);
        }
        let call = limiter.acquire("k", "r").consume("tpd", 100).send();
        if round % 7 == 3 {
            if let Ok(Ok(lease)) = tokio::time::timeout(Duration::from_millis(10), call).await {
                drop(lease);
            }
            continue;
        }
        match call.await {
            Ok(lease) => {
                lease.commit().await.unwrap();
                used += 100_000;
            }
            // In doubt: what it has taken, also ahead, counts as consumed.
            Err(Error::Unavailable(_)) => {}
            Err(err) => panic!("{err}"),
        }
    }
    drain(&limiter).await;
    let consumed = world.consumed("k", "r", "tpd").await;
    // Ten answers were lost, each of a write for up to 50 calls.
    assert!(
        (used..=used + 10 * 50 * 100_000).contains(&consumed),
        "{consumed} of {used}"
    );
    assert_eq!(world.balance("k", "r", "tpd").await, FULL - consumed);
}

#[tokio::test(start_paused = true)]
async fn changed_limits_take_effect_on_what_is_held() {
    let (world, _table, limiter) = bucket(1000, |builder| builder.prefetch(ahead())).await;
    for _ in 0..30 {
        take(&limiter, "tpd", 100).await.unwrap();
    }
    assert!(limiter.repository().prefetched().tokens["tpd"] > 0);
    let limits = [Limit::per_day("rpd", 5), Limit::per_day("tpd", 1_000_000)];
    limiter
        .repository()
        .admin()
        .set_system_defaults(limits, None)
        .await
        .unwrap();
    take(&limiter, "tpd", 100).await.unwrap();
    drain(&limiter).await;
    assert_eq!(world.consumed("k", "r", "tpd").await, 3_100_000);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_has_moved_debits_its_new_project() {
    let (world, table, limiter) = bucket(1000, |builder| builder.prefetch(ahead())).await;
    let admin = world.repo.admin();
    for project in ["old", "new"] {
        admin.create_entity(NewEntity::new(project)).await.unwrap();
    }
    for key in ["a", "b"] {
        admin
            .create_entity(NewEntity::new(key).parent("old").cascade(true))
            .await
            .unwrap();
    }
    let call = async |key: &str| {
        let lease = limiter.acquire(key, "r").consume("tpd", 10).await.unwrap();
        lease.commit().await.unwrap();
    };
    for _ in 0..20 {
        call("a").await;
    }
    call("b").await;
    let held = limiter.repository().prefetched();
    assert!(held.buckets >= 1, "{held:?}");
    // Another process moves the key, and its bucket shows it. This one still has the old configuration.
    admin.delete_entity("b").await.unwrap();
    admin
        .create_entity(NewEntity::new("b").parent("new").cascade(true))
        .await
        .unwrap();
    let other = RateLimiter::new(world.repo.clone());
    other
        .acquire("b", "r")
        .consume("tpd", 10)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    let before = table.writes();
    limiter
        .acquire("b", "r")
        .consume("tpd", 10)
        .exact()
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    call("b").await;
    assert!(table.writes() > before);
    drain(&limiter).await;
    assert_eq!(world.consumed("new", "r", "tpd").await, 30_000);
    assert_eq!(world.consumed("old", "r", "tpd").await, 21 * 10_000);
}

#[tokio::test(start_paused = true)]
async fn it_can_be_left_out_and_chosen_for_a_call() {
    let (_world, table, limiter) = bucket(1000, |builder| builder.prefetch(ahead())).await;
    let before = table.writes();
    for _ in 0..20 {
        let lease = limiter.acquire("k", "r").consume("rpd", 1).exact().await.unwrap();
        lease.commit().await.unwrap();
    }
    assert_eq!(table.writes() - before, 20);
    let (_world, table, limiter) = bucket(1000, |builder| builder).await;
    let before = table.writes();
    for _ in 0..20 {
        let lease = limiter
            .acquire("k", "r")
            .consume("rpd", 1)
            .prefetch(ahead())
            .await
            .unwrap();
        lease.commit().await.unwrap();
    }
    assert!(table.writes() - before < 8, "{}", table.writes() - before);
    drain(&limiter).await;
}

#[tokio::test]
async fn values_out_of_range_are_refused() {
    for (prefetch, field) in [
        (Prefetch::calls(1), "prefetch.calls"),
        (Prefetch::calls(10_001), "prefetch.calls"),
        (ahead().max_age(Duration::from_millis(9)), "prefetch.max_age"),
        (ahead().max_age(Duration::from_secs(61)), "prefetch.max_age"),
    ] {
        let opened = Repository::builder().in_memory().prefetch(prefetch).open().await;
        assert!(
            matches!(&opened, Err(Error::InvalidInput(err)) if err.field() == field),
            "{opened:?}"
        );
        let world = World::new().await;
        let limiter = RateLimiter::new(world.repo.clone());
        let called = limiter
            .acquire("k", "r")
            .consume("rpd", 1)
            .prefetch(prefetch)
            .await;
        assert!(
            matches!(&called, Err(Error::InvalidInput(err)) if err.field() == field),
            "{called:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_name_limits_differently_hold_no_more_than_they_are_for() {
    let (world, table, limiter) = bucket(100_000, |builder| builder.prefetch(Prefetch::calls(10))).await;
    let held = || limiter.repository().prefetched().tokens;
    // An amount of 0 is refused in debt, which memory does not know: such calls are as if there was nothing to take ahead.
    let before = table.writes();
    for _ in 0..60 {
        let call = limiter.acquire("k", "r").consume("rpd", 1).consume("tpd", 0);
        call.await.unwrap().commit().await.unwrap();
        world.clock.advance(Duration::from_millis(100));
    }
    assert_eq!((table.writes() - before, held().len()), (60, 0));
    // The other limit is used up first, again and again.
    for round in 0..300 {
        let call = limiter.acquire("k", "r").consume("rpd", 1).consume("tpd", 1);
        call.await.unwrap().commit().await.unwrap();
        for _ in 0..10 {
            take(&limiter, "rpd", 1).await.unwrap();
        }
        assert!(
            held().values().all(|tokens| *tokens <= 10),
            "round {round}: {:?}",
            held()
        );
    }
    // A large call now and then, beside small ones.
    for call in 0..1_000_u64 {
        take(&limiter, "tpd", if call % 100 == 0 { 1_000 } else { 1 })
            .await
            .unwrap();
        assert!(
            held().get("tpd").is_none_or(|tokens| *tokens <= 1_300),
            "call {call}: {:?}",
            held()
        );
    }
    drain(&limiter).await;
}

#[tokio::test(start_paused = true)]
async fn what_leases_give_back_under_lower_limits_goes_to_the_table() {
    let (world, _table, limiter) = bucket(1000, |builder| builder.prefetch(Prefetch::calls(10))).await;
    let mut leases = Vec::new();
    for _ in 0..20 {
        leases.push(limiter.acquire("k", "r").consume("tpd", 500).await.unwrap());
    }
    let limits = [Limit::per_day("rpd", 1000), Limit::per_day("tpd", 10)];
    let admin = limiter.repository().admin();
    admin.set_system_defaults(limits, None).await.unwrap();
    let mut admitted = 0;
    for _ in 0..2 {
        admitted += u64::from(take(&limiter, "tpd", 1).await.is_ok());
        world.clock.advance(Duration::from_millis(600));
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    for lease in leases {
        lease.rollback().await.unwrap();
    }
    for _ in 0..100 {
        admitted += u64::from(take(&limiter, "tpd", 1).await.is_ok());
    }
    assert!(admitted <= 12, "{admitted}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_with_its_timeout_although_tokens_are_to_be_returned() {
    let (_world, table, limiter) = bucket(100, |builder| builder.prefetch(ahead())).await;
    for _ in 0..5 {
        take(&limiter, "rpd", 1).await.unwrap();
    }
    assert!(limiter.repository().prefetched().tokens["rpd"] > 0);
    // More than there can ever be: nothing is returned for it.
    let before = table.writes();
    let refused = limiter.acquire("k", "r").consume("rpd", 1_000).await;
    assert!(
        matches!(&refused, Err(Error::RateLimitExceeded(no)) if no.is_never()),
        "{refused:?}"
    );
    assert!(table.writes() - before <= 1);
    assert!(limiter.repository().prefetched().tokens["rpd"] > 0);
    // All that there is, a part of which is held.
    let left = limiter.available("k", "r").await.unwrap()["rpd"].cast_unsigned();
    let began = tokio::time::Instant::now();
    table.hang(1);
    let call = limiter.acquire("k", "r").consume("rpd", left);
    let _ = call.timeout(Duration::from_millis(200)).await;
    assert!(
        began.elapsed() <= Duration::from_millis(220),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_without_prefetch_gets_what_the_process_holds() {
    let (_world, _table, limiter) = bucket(1 + 100, |builder| builder).await;
    for _ in 0..5 {
        let call = limiter.acquire("k", "r").consume("rpd", 1).prefetch(ahead());
        call.await.unwrap().commit().await.unwrap();
    }
    assert!(limiter.repository().prefetched().tokens["rpd"] > 0);
    take(&limiter, "rpd", 95).await.unwrap();
}

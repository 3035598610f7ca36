//! Places in flight: how many there are, that faults free them, and what they cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use zae_limiter::clock::Clock as _;
use zae_limiter::table::{Delete, Op, Table as _, TableExt as _};
use zae_limiter::testing::{Fault, TestTable};
use zae_limiter::{
    ALL_RESOURCES, Access, Error, Lease, Limit, NewEntity, OnUnavailable, Percent, RateLimiter, Repository,
};
use zae_limiter_core::EntityId;
use zae_limiter_core::flight::{Holders, Next, Take, TakeEnd, flight_key};
use zae_limiter_core::random::Random;
use zae_limiter_core::schema::{BucketId, version_key};
use zae_limiter_core::table::{Condition, Update, Value};

use crate::admin::Admin;
use crate::world::{self, World};

/// A process on a table, with one place for each entity on `r` and 10 requests a minute.
struct Desk {
    table: TestTable,
    repo: Repository,
    limiter: RateLimiter,
}

impl Desk {
    async fn new() -> Self {
        let table = TestTable::new();
        let repo = table.open().await.unwrap();
        let admin = repo.admin();
        admin
            .set_resource_defaults("r", [Limit::per_minute("rpm", 10)])
            .await
            .unwrap();
        admin.set_resource_concurrency("r", 1).await.unwrap();
        Self {
            table,
            limiter: RateLimiter::new(repo.clone()),
            repo,
        }
    }

    /// Takes a token and a place.
    async fn both(&self, entity: &str) -> Result<Lease, Error> {
        let call = self.limiter.acquire(entity, "r");
        call.consume("rpm", 1).in_flight().await
    }

    /// Takes a place.
    async fn place(&self, entity: &str) -> Result<Lease, Error> {
        self.limiter.acquire(entity, "r").in_flight().await
    }

    fn id(&self, entity: &str) -> BucketId {
        BucketId {
            namespace: self.repo.namespace_id().clone(),
            entity: EntityId::new(entity).unwrap(),
            resource: "r".try_into().unwrap(),
        }
    }

    async fn holders(&self, entity: &str) -> usize {
        let item = self.repo.table().get(flight_key(&self.id(entity)), true).await;
        Holders::decode(item.unwrap().as_ref()).unwrap().len()
    }

    async fn tokens(&self, entity: &str) -> i64 {
        self.limiter.available(entity, "r").await.unwrap()["rpm"]
    }

    /// A project, and keys below it.
    async fn family(&self, keys: &[&str]) {
        let admin = self.repo.admin();
        admin.create_entity(NewEntity::new("project")).await.unwrap();
        for key in keys {
            let key = NewEntity::new(*key).parent("project").cascade(true);
            admin.create_entity(key).await.unwrap();
        }
    }

    /// As on a stack whose functions are of this release, which a bypass asks for.
    async fn functions_of_today(&self) {
        let mut functions = Update::new(version_key());
        let version = Value::text("0.17.0");
        functions.set.push(("lambda_version".into(), version));
        assert!(self.repo.table().update(functions).await.unwrap().is_applied());
    }

    /// A process that takes a place for a minute, and crashes.
    async fn crashes_with_a_place(&self, entity: &str) {
        struct Fixed;
        impl Random for Fixed {
            fn bits(&mut self) -> u64 {
                fastrand::u64(..)
            }
        }
        let now = || self.table.clock().now().into();
        let mut take = Take::new(self.id(entity), 1, 60_000, &mut Fixed);
        while let Next::Send(op) = take.next(now()) {
            let answer = self.repo.table().call(*op).await;
            take.answer(answer, now(), &mut Fixed);
        }
        assert!(matches!(take.end(), Some(TakeEnd::Held(_))), "{:?}", take.end());
    }
}

#[track_caller]
fn check_full(result: Result<Lease, Error>, entity: &str, limit: u32) {
    match result {
        Err(Error::ConcurrencyExceeded(full)) => {
            assert_eq!(
                (full.entity.as_str(), full.limit, full.in_flight),
                (entity, limit, limit)
            );
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_holds_its_place_until_it_ends() {
    let desk = Desk::new().await;
    for end in 0..3 {
        let lease = desk.both("k").await.unwrap();
        assert!(lease.holds_place());
        check_full(desk.both("k").await, "k", 1);
        assert_eq!(
            desk.tokens("k").await,
            9 - i64::from(end > 0),
            "the refused call took nothing"
        );
        // Other entities have places of their own.
        desk.place("other").await.unwrap().rollback().await.unwrap();
        match end {
            0 => lease.commit().await.unwrap(),
            1 => lease.rollback().await.unwrap(),
            _ => drop(lease),
        }
        assert!(desk.repo.drain().await.is_complete());
        assert_eq!(desk.holders("k").await, 0);
    }
    assert_eq!(desk.tokens("k").await, 9);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_tokens_leaves_no_place_taken() {
    let desk = Desk::new().await;
    let refused = desk
        .limiter
        .acquire("k", "r")
        .consume("rpm", 11)
        .in_flight()
        .await;
    assert!(matches!(refused, Err(Error::RateLimitExceeded(_))));
    let unknown = desk.limiter.acquire("k", "r").consume("tpm", 1).in_flight().await;
    assert!(matches!(unknown, Err(Error::InvalidInput(_))));
    assert!(desk.repo.drain().await.is_complete());
    assert_eq!(desk.holders("k").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_holder_frees_its_place() {
    let desk = Desk::new().await;
    desk.crashes_with_a_place("k").await;
    check_full(desk.place("k").await, "k", 1);
    tokio::time::sleep(Duration::from_mins(1)).await;
    check_full(desk.place("k").await, "k", 1);
    tokio::time::sleep(Duration::from_millis(5_010)).await;
    desk.place("k").await.unwrap().commit().await.unwrap();
    assert_eq!(desk.holders("k").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_long_lease_keeps_its_place() {
    let desk = Desk::new().await;
    let other = desk.table.open().await.unwrap();
    let lease = desk.both("k").await.unwrap();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(lease.holds_place());
        let call = RateLimiter::new(other.clone())
            .acquire("k", "r")
            .in_flight()
            .await;
        check_full(call, "k", 1);
    }
    // A drain does not wait for its renewals.
    assert!(desk.repo.drain_within(Duration::from_secs(1)).await.is_complete());
    let before = desk.table.requests();
    lease.commit().await.unwrap();
    assert_eq!(desk.table.requests().since(&before).updates, 1);
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(
        desk.table.requests().since(&before).updates,
        1,
        "nothing renews it after its end"
    );
}

#[tokio::test(start_paused = true)]
async fn a_take_in_doubt_takes_one_place() {
    for fault in [
        world::Fault::LostAfter,
        world::Fault::LostBefore,
        world::Fault::Throttled,
    ] {
        let a = Admin::new().await;
        a.repo.admin().set_resource_concurrency("r", 1).await.unwrap();
        let key = flight_key(&a.id("k", "r"));
        let takes = AtomicU32::new(0);
        // The first take.
        let is_hit = move |op: &Op| match op {
            Op::Update(update) if update.key == key => takes.fetch_add(1, Ordering::AcqRel) == 0,
            _ => false,
        };
        let rule = move |op: &Op| if is_hit(op) { fault } else { world::Fault::None };
        let limiter = RateLimiter::new(a.ruled(rule).await);
        let lease = limiter.acquire("k", "r").in_flight().await.unwrap();
        assert!(lease.holds_place(), "{fault:?}");
        let admin = a.repo.admin();
        assert_eq!(
            admin.places_in_flight("k", "r").await.unwrap().len(),
            1,
            "{fault:?}"
        );
        lease.commit().await.unwrap();
        assert_eq!(admin.places_in_flight("k", "r").await.unwrap(), [], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_give_back_in_doubt_is_repeated() {
    for fault in [
        Fault::AnswerLost,
        Fault::RequestLost,
        Fault::Throttled,
        Fault::Internal,
    ] {
        let desk = Desk::new().await;
        let (first, second) = (desk.place("k").await.unwrap(), desk.place("l").await.unwrap());
        desk.table.fail_next(2, fault);
        first.commit().await.unwrap();
        assert_eq!(desk.holders("k").await, 0, "{fault:?}");
        second.commit().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_give_back_during_an_outage_is_reported_and_continues() {
    let desk = Desk::new().await;
    let lease = desk.place("k").await.unwrap();
    desk.table.fail(Fault::Unreachable);
    match lease.commit().await {
        Err(Error::Unavailable(down)) => {
            assert!(down.in_doubt() && down.to_string().contains("a place in flight was not given back"));
        }
        other => panic!("{other:?}"),
    }
    desk.table.recover();
    assert!(desk.repo.drain().await.is_complete());
    assert_eq!(desk.holders("k").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_lease_knows_that_its_place_is_in_doubt_or_lost() {
    let desk = Desk::new().await;
    let lease = desk.place("k").await.unwrap();
    desk.table.fail(Fault::Unreachable);
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert!(lease.holds_place());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!lease.holds_place(), "it was not renewed in time");
    desk.table.recover();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(lease.holds_place(), "no other call has taken it");

    let key = flight_key(&desk.id("k"));
    let delete = Op::Delete(Delete {
        key,
        condition: Condition::ALWAYS,
    });
    desk.repo.table().call(delete).await.unwrap();
    tokio::time::sleep(Duration::from_secs(21)).await;
    assert!(!lease.holds_place());
    // Another one has the place; the end of the lease does not take it away.
    let next = desk.place("k").await.unwrap();
    lease.commit().await.unwrap();
    assert!(next.holds_place());
    assert_eq!(desk.holders("k").await, 1);
    next.commit().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn never_more_than_the_limit_and_all_get_their_turn() {
    let desk = Arc::new(Desk::new().await);
    desk.repo.admin().set_resource_concurrency("r", 5).await.unwrap();
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut tasks = Vec::new();
    let others = [desk.table.open().await.unwrap(), desk.table.open().await.unwrap()];
    for task in 0..50 {
        let limiter = match task % 3 {
            0 => desk.limiter.clone(),
            other => RateLimiter::new(others[other - 1].clone()),
        };
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        tasks.push(tokio::spawn(async move {
            let lease = limiter.acquire("k", "r").in_flight().until_ready().await.unwrap();
            let now = running.fetch_add(1, Ordering::AcqRel) + 1;
            most.fetch_max(now, Ordering::AcqRel);
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..3_000))).await;
            running.fetch_sub(1, Ordering::AcqRel);
            lease.commit().await.unwrap();
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(most.load(Ordering::Acquire), 5);
    assert_eq!(desk.holders("k").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_asks_at_once_when_its_process_gives_a_place_back() {
    let desk = Desk::new().await;
    let lease = desk.both("k").await.unwrap();
    let call = desk.limiter.acquire("k", "r").consume("rpm", 1).in_flight();
    let waiting = tokio::spawn(call.wait(Duration::from_mins(1)).into_future());
    tokio::time::sleep(Duration::from_secs(20)).await;
    let begin = tokio::time::Instant::now();
    lease.commit().await.unwrap();
    waiting.await.unwrap().unwrap().commit().await.unwrap();
    assert!(
        begin.elapsed() < Duration::from_millis(50),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(
        desk.tokens("k").await,
        9,
        "one was refilled in 20 s, and one taken"
    );

    let lease = desk.both("k").await.unwrap();
    let call = desk
        .limiter
        .acquire("k", "r")
        .in_flight()
        .wait(Duration::from_secs(3));
    check_full(call.await, "k", 1);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_call_keeps_no_place() {
    let desk = Desk::new().await;
    desk.place("k").await.unwrap().commit().await.unwrap();
    desk.table.delay(Duration::from_millis(100));
    for stop in [0, 50, 99, 100, 101, 150, 199] {
        let call = desk.both("k");
        let _ = tokio::time::timeout(Duration::from_millis(stop), call).await;
        assert!(desk.repo.drain().await.is_complete());
        assert_eq!(desk.holders("k").await, 0, "after {stop} ms");
        assert!(desk.tokens("k").await >= 9);
    }
    // Its own deadline.
    desk.table.delay(Duration::from_secs(1));
    let late = desk
        .limiter
        .acquire("k", "r")
        .in_flight()
        .timeout(Duration::from_millis(500));
    assert!(matches!(late.await, Err(Error::Unavailable(_))));
    assert!(desk.repo.drain().await.is_complete());
    assert_eq!(desk.holders("k").await, 0);
}

#[tokio::test(start_paused = true)]
async fn the_place_of_a_parent_is_taken_as_well() {
    let desk = Desk::new().await;
    let admin = desk.repo.admin();
    desk.family(&["a", "b", "c"]).await;
    admin
        .set_entity_concurrency("project", "_default_", 2)
        .await
        .unwrap();
    let (a, b) = (desk.both("a").await.unwrap(), desk.both("b").await.unwrap());
    check_full(desk.both("c").await, "project", 2);
    assert!(desk.repo.drain().await.is_complete());
    assert_eq!((desk.holders("c").await, desk.holders("project").await), (0, 2));
    assert_eq!(
        desk.tokens("project").await,
        8,
        "the refused call has given its tokens back"
    );
    a.commit().await.unwrap();
    desk.both("c").await.unwrap().commit().await.unwrap();
    b.commit().await.unwrap();
    assert_eq!(desk.holders("project").await, 0);
    // That of the resource is for each entity's own requests.
    admin.set_resource_concurrency("r", 1).await.unwrap();
    let held = desk.both("a").await.unwrap();
    check_full(desk.both("a").await, "a", 1);
    drop(held);
    assert!(desk.repo.drain().await.is_complete());
    // A limit of the call is the entity's.
    let call = || desk.limiter.acquire("a", "r").in_flight_at_most(3);
    let held = (call().await.unwrap(), call().await.unwrap());
    check_full(call().await, "project", 2);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn neither_a_disabled_entity_nor_one_under_a_bypass_takes_a_place() {
    let desk = Desk::new().await;
    let admin = desk.repo.admin();
    desk.functions_of_today().await;
    let held = desk.both("k").await.unwrap();
    admin.set_entity_access("k", "r", Access::Disabled).await.unwrap();
    assert!(matches!(desk.both("k").await, Err(Error::Disabled { .. })));
    assert!(matches!(desk.place("k").await, Err(Error::Disabled { .. })));
    admin.set_entity_access("k", "r", Access::Bypass).await.unwrap();
    for lease in [desk.both("k").await.unwrap(), desk.place("k").await.unwrap()] {
        assert!(!lease.holds_place());
        lease.commit().await.unwrap();
    }
    // By what another process has cached, the entity is as it was.
    let other = desk.table.open().await.unwrap();
    let other = RateLimiter::new(other);
    let call = || other.acquire("k", "r").consume("rpm", 1).in_flight();
    assert!(!call().await.unwrap().holds_place());
    admin.set_entity_access("k", "r", Access::Enabled).await.unwrap();
    check_full(call().await, "k", 1);
    held.commit().await.unwrap();
    let lease = call().await.unwrap();
    assert!(lease.holds_place(), "the bypass in the cache is over");
    lease.commit().await.unwrap();
}

/// A call without tokens has no bucket whose stamp tells it.
#[tokio::test(start_paused = true)]
async fn a_call_for_a_place_alone_is_refused_as_soon_as_any_process_has_disabled_its_entity() {
    let desk = Desk::new().await;
    let admin = desk.repo.admin();
    desk.functions_of_today().await;
    desk.family(&["k"]).await;
    let other = RateLimiter::new(desk.table.open().await.unwrap());
    let place = || other.acquire("k", "r").in_flight();
    place().await.unwrap().commit().await.unwrap();
    for entity in ["k", "project"] {
        admin
            .set_entity_access(entity, "r", Access::Disabled)
            .await
            .unwrap();
        let refused = place().await;
        assert!(
            matches!(&refused, Err(Error::Disabled { entity: by, .. }) if by == entity),
            "{refused:?}"
        );
        desk.repo.drain().await;
        admin.set_entity_access(entity, "r", None).await.unwrap();
        place().await.unwrap().commit().await.unwrap();
    }
    admin.set_entity_access("k", "r", Access::Bypass).await.unwrap();
    assert!(!place().await.unwrap().holds_place());
    admin.set_entity_access("k", "r", None).await.unwrap();
    assert!(place().await.unwrap().holds_place());

    // A parent that is not cached.
    let above = NewEntity::new("above");
    admin.create_entity(above).await.unwrap();
    admin
        .set_parent("k", EntityId::new("above").unwrap())
        .await
        .unwrap();
    admin
        .set_entity_access("above", "r", Access::Disabled)
        .await
        .unwrap();
    assert!(matches!(place().await, Err(Error::Disabled { entity, .. }) if entity == "above"));
}

#[tokio::test(start_paused = true)]
async fn outages_follow_the_policy() {
    let desk = Desk::new().await;
    desk.both("k").await.unwrap().commit().await.unwrap();
    desk.table.fail(Fault::Unreachable);
    let call = || {
        let call = desk.limiter.acquire("k", "r").timeout(Duration::from_millis(300));
        call.in_flight()
    };
    assert!(matches!(call().await, Err(Error::Unavailable(_))));
    assert!(matches!(
        call().consume("rpm", 1).await,
        Err(Error::Unavailable(_))
    ));
    let half = OnUnavailable::Degrade(Percent::new(50).unwrap());
    for policy in [OnUnavailable::Allow, half] {
        let lease = call().consume("rpm", 1).on_unavailable(policy).await.unwrap();
        assert!(lease.is_degraded() && !lease.holds_place());
        let lease = call().on_unavailable(policy).await.unwrap();
        assert!(!lease.holds_place());
    }
    desk.table.recover();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(desk.repo.drain().await.is_complete());
    assert_eq!(desk.holders("k").await, 0);
    desk.both("k").await.unwrap().commit().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn levels_decide_and_a_change_holds_at_once_in_this_process() {
    let desk = Desk::new().await;
    let admin = desk.repo.admin();
    let most = async || admin.effective_concurrency("k", "r").await.unwrap();
    assert!(admin.delete_resource_concurrency("r").await.unwrap());
    assert_eq!(most().await, None);
    let none = desk.both("k").await.unwrap_err();
    let words = "invalid in_flight 'r': no concurrency limit is configured for entity 'k' at any level; set one, or name one with the call";
    assert_eq!(none.to_string(), words);
    assert_eq!(desk.tokens("k").await, 10);
    admin.set_system_concurrency(4).await.unwrap();
    assert_eq!(most().await, Some(4));
    admin.set_resource_concurrency("r", 3).await.unwrap();
    assert_eq!(most().await, Some(3));
    admin.set_entity_concurrency("k", "_default_", 2).await.unwrap();
    assert_eq!(most().await, Some(2));
    admin.set_entity_concurrency("k", "r", 1).await.unwrap();
    assert_eq!(most().await, Some(1));
    let held = desk.place("k").await.unwrap();
    check_full(desk.place("k").await, "k", 1);
    assert!(admin.delete_entity_concurrency("k", "r").await.unwrap());
    assert!(!admin.delete_entity_concurrency("k", "r").await.unwrap());
    let second = desk.place("k").await.unwrap();
    check_full(desk.place("k").await, "k", 2);
    let places = admin.places_in_flight("k", "r").await.unwrap();
    assert!(places.len() == 2 && places.iter().all(|place| !place.is_expired));
    drop((held, second));

    let events = admin.audit_events("k", None).unwrap().first(10).await.unwrap();
    let actions: Vec<_> = events.iter().map(|event| event.action.as_str()).collect();
    assert_eq!(
        actions,
        ["concurrency_deleted", "concurrency_set", "concurrency_set"]
    );
    assert_eq!(events[0].resource.as_deref(), Some("r"));
    for limit in [0, 1001] {
        let refused = admin.set_system_concurrency(limit).await.unwrap_err().to_string();
        assert_eq!(
            refused,
            format!("invalid concurrency '{limit}': must be from 1 to 1000")
        );
    }
    assert_eq!(admin.system_concurrency().await.unwrap(), Some(4));
    assert!(admin.delete_system_concurrency().await.unwrap());
    assert_eq!(admin.resource_concurrency("r").await.unwrap(), Some(3));
    assert_eq!(admin.entity_concurrency("k", "_default_").await.unwrap(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn bad_calls_are_refused_before_anything_is_written() {
    let desk = Desk::new().await;
    let before = desk.table.requests();
    let call = || desk.limiter.acquire("k", "r");
    let calls = [
        (
            call().in_flight_at_most(0),
            "invalid in_flight_at_most '0': must be from 1 to 1000",
        ),
        (
            call().in_flight_ttl(Duration::from_secs(4)),
            "invalid in_flight_ttl '4000 ms': must be from 5 to 3600 s",
        ),
        (
            call().in_flight().also("s", [("rpm", 1)]),
            "invalid also 's': needs an amount of the first resource: name one with `consume`",
        ),
        (
            call().in_flight().limits([Limit::per_minute("rpm", 1)]),
            "invalid limits 'given': needs an amount of the first resource: name one with `consume`",
        ),
    ];
    for (call, words) in calls {
        assert_eq!(call.await.unwrap_err().to_string(), words);
    }
    assert_eq!(desk.table.requests().since(&before).updates, 0);
}

#[tokio::test]
async fn deleting_an_entity_deletes_its_places_and_limits() {
    let w = World::configured().await;
    let admin = w.repo.admin();
    admin.create_entity(NewEntity::new("k")).await.unwrap();
    admin.set_entity_concurrency("k", "r", 2).await.unwrap();
    let lease = w.limiter.acquire("k", "r").in_flight().await.unwrap();
    admin.delete_entity("k").await.unwrap();
    assert_eq!(admin.entity_concurrency("k", "r").await.unwrap(), None);
    assert!(admin.places_in_flight("k", "r").await.unwrap().is_empty());
    lease.commit().await.unwrap();
    assert!(admin.places_in_flight("k", "r").await.unwrap().is_empty());
}

#[cfg(feature = "blocking")]
#[test]
fn the_blocking_facade_holds_and_gives_back() {
    use zae_limiter::blocking;

    let repo = blocking::Repository::in_memory().unwrap();
    repo.admin().set_system_concurrency(1).unwrap();
    let limiter = blocking::RateLimiter::new(repo.clone());
    let call = || {
        limiter
            .acquire("k", "r")
            .in_flight_ttl(Duration::from_secs(5))
            .send()
    };
    let lease = call().unwrap();
    assert!(lease.holds_place());
    assert!(matches!(call(), Err(Error::ConcurrencyExceeded(_))));
    // Longer than its time to live: the runtime of the repository renews it.
    std::thread::sleep(Duration::from_millis(5_500));
    assert!(lease.holds_place());
    lease.commit().unwrap();
    drop(call().unwrap());
    assert!(repo.drain().is_ok_and(|drained| drained.is_complete()));
    assert!(repo.admin().places_in_flight("k", "r").unwrap().is_empty());
}

async fn places(limiter: &RateLimiter, entity: &str) -> Vec<(String, u32, u32)> {
    let check = limiter.check(entity, "r").in_flight().await.unwrap();
    let places = check.places.iter();
    places
        .map(|of| (of.entity.to_string(), of.in_flight, of.limit))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_check_looks_at_places_when_it_is_asked_to() {
    let desk = Desk::new().await;
    let check = || desk.limiter.check("k", "r").needed("rpm", 1);
    assert_eq!(check().await.unwrap().places, []);
    assert_eq!(places(&desk.limiter, "k").await, [("k".into(), 0, 1)]);
    let lease = desk.both("k").await.unwrap();
    assert_eq!(places(&desk.limiter, "k").await, [("k".into(), 1, 1)]);
    assert!(check().await.unwrap().is_admitted(), "without a place");
    let found = check().in_flight().await.unwrap();
    assert_eq!(
        (found.is_admitted(), found.retry_after()),
        (false, Some(Duration::ZERO))
    );
    lease.commit().await.unwrap();
    assert!(check().in_flight().await.unwrap().is_admitted());

    // A place counts as taken until another request can take it.
    desk.crashes_with_a_place("k").await;
    for (seconds, taken) in [(0, 1), (64, 1), (2, 0)] {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        assert_eq!(places(&desk.limiter, "k").await, [("k".into(), taken, 1)]);
    }

    // A limit that another process sets is seen at once by a consistent look.
    let other = desk.table.open().await.unwrap();
    other.admin().set_resource_concurrency("r", 7).await.unwrap();
    assert_eq!(places(&desk.limiter, "k").await, [("k".into(), 0, 1)]);
    let found = check().in_flight().consistent().await.unwrap();
    assert_eq!((found.places[0].in_flight, found.places[0].limit), (0, 7));
}

#[tokio::test(start_paused = true)]
async fn a_check_of_places_goes_by_the_limits_that_a_call_goes_by() {
    let desk = Desk::new().await;
    let admin = desk.repo.admin();
    admin.set_cascade_depth(3).await.unwrap();
    for (entity, parent) in [("org", None), ("project", Some("org")), ("k", Some("project"))] {
        let new = NewEntity::new(entity).cascade(parent.is_some());
        let new = match parent {
            Some(parent) => new.parent(parent),
            None => new,
        };
        admin.create_entity(new).await.unwrap();
    }
    // The default of the resource is for each entity's own requests.
    assert_eq!(places(&desk.limiter, "k").await, [("k".into(), 0, 1)]);
    admin.set_entity_concurrency("org", "r", 3).await.unwrap();
    let lease = desk.place("k").await.unwrap();
    let found = places(&desk.limiter, "k").await;
    assert_eq!(found, [("k".into(), 1, 1), ("org".into(), 1, 3)]);
    lease.commit().await.unwrap();

    // Without limits of tokens, too; and without a concurrency limit, as a call.
    admin.set_system_concurrency(2).await.unwrap();
    let check = desk.limiter.check("k", "exports").in_flight().await.unwrap();
    assert_eq!((check.places[0].limit, check.statuses.len()), (2, 0));
    admin.delete_system_concurrency().await.unwrap();
    let refused = desk.limiter.check("k", "exports").in_flight().await.unwrap_err();
    let call = desk
        .limiter
        .acquire("k", "exports")
        .in_flight()
        .await
        .unwrap_err();
    assert_eq!(refused.to_string(), call.to_string());

    // Under a bypass no place is taken but those of the entities above.
    desk.functions_of_today().await;
    admin.set_entity_access("k", "r", Access::Bypass).await.unwrap();
    let lease = desk.place("k").await.unwrap();
    assert_eq!(
        places(&desk.limiter, "k").await,
        [("k".into(), 0, 1), ("org".into(), 1, 3)]
    );
    lease.commit().await.unwrap();
}

/// As its tokens do.
#[tokio::test(start_paused = true)]
async fn a_bypass_of_an_entity_leaves_the_places_of_those_above_it_limited() {
    let desk = Desk::new().await;
    let admin = desk.repo.admin();
    desk.functions_of_today().await;
    desk.family(&["k"]).await;
    admin.set_entity_concurrency("project", "r", 1).await.unwrap();
    admin.set_entity_access("k", "r", Access::Bypass).await.unwrap();
    for with_tokens in [false, true] {
        let call = |limiter: &RateLimiter| {
            let call = limiter.acquire("k", "r").in_flight();
            if with_tokens { call.consume("rpm", 1) } else { call }
        };
        let first = call(&desk.limiter).await.unwrap();
        assert_eq!((desk.holders("k").await, desk.holders("project").await), (0, 1));
        let new = RateLimiter::new(desk.table.open().await.unwrap());
        for limiter in [&desk.limiter, &new] {
            check_full(call(limiter).await, "project", 1);
        }
        first.commit().await.unwrap();
        // Not the key's own limit, although all of its places are taken.
        let own = desk.limiter.acquire("k", "r").in_flight_at_most(7);
        admin.set_entity_access("k", "r", None).await.unwrap();
        admin.set_entity_concurrency("project", "r", 9).await.unwrap();
        let held = own.await.unwrap();
        admin.set_entity_access("k", "r", Access::Bypass).await.unwrap();
        let late = RateLimiter::new(desk.table.open().await.unwrap());
        for limiter in [&desk.limiter, &late] {
            let lease = call(limiter).await.unwrap();
            assert_eq!((desk.holders("k").await, desk.holders("project").await), (1, 2));
            lease.commit().await.unwrap();
        }
        held.commit().await.unwrap();
        // Once it is over, each process takes the key's own place.
        admin.set_entity_access("k", "r", None).await.unwrap();
        let lease = call(&late).await.unwrap();
        assert_eq!((desk.holders("k").await, desk.holders("project").await), (1, 1));
        lease.commit().await.unwrap();
        admin.set_entity_concurrency("project", "r", 1).await.unwrap();
        admin.set_entity_access("k", "r", Access::Bypass).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_says_who_is_disabled_before_what_is_not_configured() {
    let desk = Desk::new().await;
    let admin = desk.repo.admin();
    admin
        .set_entity_access("u", ALL_RESOURCES, Access::Disabled)
        .await
        .unwrap();
    let check = || desk.limiter.check("u", "nothing");
    for check in [check(), check().needed("rpm", 1), check().in_flight()] {
        let found = check.await.unwrap();
        assert!(found.disabled.is_some() && !found.is_admitted());
    }
}

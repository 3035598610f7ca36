//! Load during an outage: what is retried, what is decided at once, and how many requests are sent.

use std::fmt;
use std::future::IntoFuture as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use zae_limiter::table::{Table, TableFuture};
use zae_limiter::{Error, Limit, NewEntity, OnUnavailable, Percent, RateLimiter, Repository};
use zae_limiter_core::table::{Answer, Applied, FailureKind, Op, TableError, Value};

use crate::world::World;

/// What becomes of one request.
enum Act {
    /// The table answers it.
    Pass,
    /// The table answers it after this many milliseconds.
    Slow(u64),
    /// It fails at once.
    Fail(FailureKind, Applied),
    /// It fails after two seconds without an answer, and did not happen.
    TimeOut,
    /// It is never answered.
    Hang,
    /// Something else answers.
    Answer(Answer),
}

type Rule = Box<dyn FnMut(&Op) -> Act + Send>;

/// A table behind a rule, which counts requests.
#[derive(Clone)]
struct Ruled {
    inner: Arc<dyn Table>,
    rule: Arc<Mutex<Rule>>,
    sent: Arc<Mutex<Vec<&'static str>>>,
}

impl fmt::Debug for Ruled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ruled")
    }
}

impl Ruled {
    fn over(world: &World) -> Self {
        Self {
            inner: world.repo.table(),
            rule: Arc::new(Mutex::new(Box::new(|_| Act::Pass))),
            sent: Arc::default(),
        }
    }

    fn rule(&self, rule: impl FnMut(&Op) -> Act + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    fn sent(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    fn sent_of(&self, name: &str) -> usize {
        self.sent
            .lock()
            .unwrap()
            .iter()
            .filter(|sent| **sent == name)
            .count()
    }

    async fn limiter(&self, world: &World, policy: OnUnavailable) -> RateLimiter {
        let builder = Repository::builder()
            .custom_table(Arc::new(self.clone()))
            .clock(world.clock.clone())
            .on_unavailable(policy);
        RateLimiter::new(builder.open().await.unwrap())
    }
}

fn name(op: &Op) -> &'static str {
    match op {
        Op::Get { .. } => "get",
        Op::BatchGet { .. } => "batch get",
        Op::Query(_) => "query",
        Op::Update(_) => "update",
        Op::Transact(_) => "transaction",
        _ => "other",
    }
}

impl Table for Ruled {
    fn call(&self, op: Op) -> TableFuture {
        let table = self.clone();
        Box::pin(async move {
            table.sent.lock().unwrap().push(name(&op));
            let act = (table.rule.lock().unwrap())(&op);
            let failure = |kind, applied| Err(TableError::new(kind, applied, "as the test ordered"));
            match act {
                Act::Pass => table.inner.call(op).await,
                Act::Slow(millis) => {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    table.inner.call(op).await
                }
                Act::Fail(kind, applied) => failure(kind, applied),
                Act::TimeOut => {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                    let is_read = matches!(op, Op::Get { .. } | Op::BatchGet { .. } | Op::Query(_));
                    failure(
                        FailureKind::Timeout,
                        if is_read { Applied::No } else { Applied::Unknown },
                    )
                }
                Act::Hang => std::future::pending().await,
                Act::Answer(answer) => Ok(answer),
            }
        })
    }
}

/// `rpm` of a million a minute for every resource, and a bucket for `k`.
async fn ample(policy: OnUnavailable) -> (World, Ruled, RateLimiter) {
    let w = World::new().await;
    let limits = [Limit::per_minute("rpm", 1_000_000)];
    w.repo.admin().set_system_defaults(limits, None).await.unwrap();
    let table = Ruled::over(&w);
    let limiter = table.limiter(&w, policy).await;
    take(&limiter, "k").await.unwrap();
    (w, table, limiter)
}

/// Takes a token; whether the lease was granted without the table.
async fn take(limiter: &RateLimiter, entity: &str) -> Result<bool, Error> {
    let lease = limiter.acquire(entity, "r").consume("rpm", 1).await?;
    let degraded = lease.is_degraded();
    lease.commit().await?;
    Ok(degraded)
}

/// Makes the table silent and waits until the circuit breaker is open.
async fn open(table: &Ruled, limiter: &RateLimiter) {
    table.rule(|_| Act::TimeOut);
    let early = join_all((0..20).map(|_| take(limiter, "k")));
    let late = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        join_all((0..20).map(|_| take(limiter, "k"))).await
    };
    let _ = tokio::join!(early, late);
}

#[tokio::test]
async fn permanent_errors_are_errors_under_every_policy() {
    let half = OnUnavailable::Degrade(Percent::new(50).unwrap());
    for policy in [OnUnavailable::Allow, half, OnUnavailable::Block] {
        let (_w, table, limiter) = ample(policy).await;
        for kind in [
            FailureKind::BadRequest,
            FailureKind::AccessDenied,
            FailureKind::TableMissing,
        ] {
            table.rule(move |_| Act::Fail(kind, Applied::No));
            for entity in ["k", "new"] {
                let err = take(&limiter, entity).await.unwrap_err();
                assert!(
                    !matches!(&err, Error::Unavailable(down) if down.is_retryable()),
                    "{policy:?} {kind:?}: {err:?}"
                );
                assert!(
                    kind == FailureKind::TableMissing || err.to_string().contains("as the test ordered"),
                    "{err}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_counted_on_is_an_error_and_not_an_outage() {
    let (w, _table, limiter) = ample(OnUnavailable::Allow).await;
    w.poke("k", "r", &[("b_rpm_tc", Some(Value::text("many")))]).await;
    let err = take(&limiter, "k").await.unwrap_err();
    assert!(
        matches!(&err, Error::Unavailable(down) if !down.is_retryable() && !down.in_doubt()),
        "{err:?}"
    );
    assert!(err.to_string().contains("ValidationException"), "{err}");
}

#[tokio::test]
async fn an_answer_without_the_item_is_in_doubt_and_gives_nothing_back() {
    let (w, table, limiter) = ample(OnUnavailable::Block).await;
    let before = w.balance("k", "r", "rpm").await;
    table.rule(|op| match op {
        Op::Update(_) => Act::Answer(Answer::Applied(None)),
        _ => Act::Pass,
    });
    let sent = table.sent();
    let err = take(&limiter, "k").await.unwrap_err();
    assert!(
        matches!(&err, Error::Unavailable(down) if down.in_doubt()),
        "{err:?}"
    );
    limiter.repository().drain().await;
    assert_eq!(table.sent(), sent + 1);
    assert_eq!(w.balance("k", "r", "rpm").await, before);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_configuration_read_is_sent_again() {
    let (w, table, limiter) = ample(OnUnavailable::Allow).await;
    let mut left = 6;
    table.rule(move |op| {
        if matches!(op, Op::BatchGet { .. }) && left > 0 {
            left -= 1;
            return Act::Fail(FailureKind::Throttled, Applied::No);
        }
        Act::Pass
    });
    assert!(!take(&limiter, "new").await.unwrap(), "admitted by the table");
    assert_eq!(w.consumed("new", "r", "rpm").await, 1000);
}

#[tokio::test(start_paused = true)]
async fn retries_go_on_to_the_deadline_of_the_call_and_the_error_names_the_cause() {
    for (kind, what) in [
        (FailureKind::Throttled, "the table is throttled"),
        (FailureKind::Unreachable, "the table cannot be reached"),
    ] {
        let (_w, table, limiter) = ample(OnUnavailable::Block).await;
        for entity in ["k", "new"] {
            table.rule(move |_| Act::Fail(kind, Applied::No));
            let begun = Instant::now();
            let call = limiter.acquire(entity, "r").consume("rpm", 1);
            let err = call.timeout(Duration::from_secs(30)).await.unwrap_err();
            assert!(
                begun.elapsed() > Duration::from_secs(29),
                "{kind:?}: {:?}",
                begun.elapsed()
            );
            assert!(
                matches!(&err, Error::Unavailable(down) if !down.in_doubt() && down.is_retryable()),
                "{err:?}"
            );
            assert!(err.to_string().contains(what), "{err}");
            // Let the breaker close.
            table.rule(|_| Act::Pass);
            tokio::time::sleep(Duration::from_secs(1)).await;
            take(&limiter, "k").await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_with_patience_outlasts_an_outage() {
    for entity in ["k", "new"] {
        let (_w, table, limiter) = ample(OnUnavailable::Block).await;
        let until = Instant::now() + Duration::from_secs(20);
        table.rule(move |_| {
            if Instant::now() < until {
                Act::Fail(FailureKind::Unreachable, Applied::No)
            } else {
                Act::Pass
            }
        });
        let call = limiter.acquire(entity, "r").consume("rpm", 1);
        let lease = call.timeout(Duration::from_secs(30)).await.unwrap();
        assert!(until.elapsed() < Duration::from_secs(2), "{:?}", until.elapsed());
        lease.commit().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_during_an_outage_with_outdated_configuration_applies_the_policy() {
    let half = OnUnavailable::Degrade(Percent::new(50).unwrap());
    let (w, table, limiter) = ample(half).await;
    w.clock.advance(Duration::from_mins(10));
    table.rule(|_| Act::Hang);
    let call = limiter.acquire("k", "r").consume("rpm", 1);
    let lease = call.timeout(Duration::from_millis(300)).await.unwrap();
    assert!(lease.is_degraded());
    lease.commit().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_decides_at_once_and_sends_one_probe_per_interval() {
    let half = OnUnavailable::Degrade(Percent::new(50).unwrap());
    for policy in [OnUnavailable::Allow, half, OnUnavailable::Block] {
        let (_w, table, limiter) = ample(policy).await;
        open(&table, &limiter).await;
        let (begun, sent) = (Instant::now(), table.sent());
        for _ in 0..1000 {
            match take(&limiter, "k").await {
                Ok(degraded) => assert!(degraded && policy != OnUnavailable::Block),
                Err(err) => {
                    assert_eq!(policy, OnUnavailable::Block);
                    let text = err.to_string();
                    assert!(text.contains("it has not answered since 20"), "{text}");
                    assert!(text.contains("next probe in 0."), "{text}");
                }
            }
        }
        assert_eq!((begun.elapsed(), table.sent()), (Duration::ZERO, sent));

        tokio::time::sleep(Duration::from_millis(700)).await;
        let calls = join_all((0..100).map(|_| take(&limiter, "k"))).await;
        assert!(calls.iter().all(|call| !matches!(call, Ok(false))));
        assert_eq!(table.sent(), sent + 1, "one of them was the probe");

        table.rule(|_| Act::Pass);
        tokio::time::sleep(Duration::from_millis(700)).await;
        for _ in 0..100 {
            assert!(
                matches!(take(&limiter, "k").await, Ok(false)),
                "the first answer closes it"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_breaker_is_shared_by_the_namespaces_of_a_table() {
    let (_w, table, limiter) = ample(OnUnavailable::Block).await;
    limiter.repository().register_namespace("tenant").await.unwrap();
    let tenant = RateLimiter::new(limiter.repository().namespace("tenant").await.unwrap());
    open(&table, &limiter).await;
    let sent = table.sent();
    let err = take(&tenant, "k").await.unwrap_err();
    assert!(err.to_string().contains("next probe"), "{err}");
    assert_eq!(table.sent(), sent);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_in_a_hundred_never_opens_the_breaker() {
    let (_w, table, limiter) = ample(OnUnavailable::Block).await;
    let mut count = 0;
    table.rule(move |op| {
        count += 1;
        if count % 100 == 0 && matches!(op, Op::Update(_)) {
            Act::TimeOut
        } else {
            Act::Slow(5)
        }
    });
    for _ in 0..40 {
        for call in join_all((0..50).map(|_| take(&limiter, "k"))).await {
            if let Err(err) = call {
                assert!(
                    matches!(&err, Error::Unavailable(down) if down.in_doubt()),
                    "{err}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn throttling_alone_never_opens_the_breaker() {
    let (_w, table, limiter) = ample(OnUnavailable::Block).await;
    table.rule(|_| Act::Fail(FailureKind::Throttled, Applied::No));
    let calls = join_all((0..50).map(|_| take(&limiter, "k"))).await;
    assert!(calls.iter().all(Result::is_err));
    table.rule(|_| Act::Pass);
    take(&limiter, "k").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_configuration_read_is_shared_and_remembered_for_a_moment() {
    let (_w, table, limiter) = ample(OnUnavailable::Allow).await;
    table.rule(|_| Act::TimeOut);
    let (begun, sent) = (Instant::now(), table.sent());
    let calls = join_all((0..50).map(|_| take(&limiter, "new"))).await;
    assert!(calls.iter().all(|call| matches!(call, Ok(true))));
    assert_eq!(
        (begun.elapsed(), table.sent()),
        (Duration::from_secs(2), sent + 1)
    );
    assert!(take(&limiter, "new").await.unwrap());
    assert_eq!(
        (begun.elapsed(), table.sent()),
        (Duration::from_secs(2), sent + 1)
    );
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(take(&limiter, "new").await.unwrap());
    assert_eq!(table.sent(), sent + 2);
}

#[tokio::test(start_paused = true)]
async fn a_cold_herd_reads_its_configuration_a_few_times() {
    let (w, table, limiter) = ample(OnUnavailable::Block).await;
    table.rule(|_| Act::Slow(10));
    let before = table.sent_of("batch get");
    let calls = join_all((0..200).map(|_| take(&limiter, "new"))).await;
    let admitted = calls.iter().filter(|call| call.is_ok()).count();
    assert_eq!(w.consumed("new", "r", "rpm").await, admitted as i128 * 1000);
    let reads = table.sent_of("batch get") - before;
    assert!(reads <= 3, "one that all share, and two that are fresh: {reads}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_sends_nothing_more() {
    let (w, table, limiter) = ample(OnUnavailable::Block).await;
    for (entity, kind) in [
        ("k", FailureKind::Throttled),
        ("new", FailureKind::Throttled),
        ("k", FailureKind::Unreachable),
    ] {
        table.rule(move |_| Act::Fail(kind, Applied::No));
        let call = limiter.acquire(entity, "r").consume("rpm", 1);
        call.timeout(Duration::from_millis(200)).await.unwrap_err();
        table.rule(|_| Act::Pass);
        limiter.repository().drain().await;
        let sent = table.sent();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(table.sent(), sent, "{entity} {kind:?}");
    }
    assert_eq!(w.consumed("k", "r", "rpm").await, 1000);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_configuration_read_ends_and_leaves_nothing_in_the_background() {
    let (_w, table, limiter) = ample(OnUnavailable::Block).await;
    table.rule(|_| Act::Hang);
    let call = limiter.acquire("new", "r").consume("rpm", 1);
    let err = call.timeout(Duration::from_millis(200)).await.unwrap_err();
    assert!(
        matches!(&err, Error::Unavailable(down) if !down.in_doubt()),
        "{err:?}"
    );
    limiter.repository().drain().await;
    table.rule(|_| Act::Pass);
    take(&limiter, "new").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_debit_on_its_way_when_its_call_is_dropped_is_given_back() {
    let (w, table, limiter) = ample(OnUnavailable::Block).await;
    table.rule(|op| match op {
        Op::Update(_) => Act::Slow(500),
        _ => Act::Pass,
    });
    let call = limiter.acquire("k", "r").consume("rpm", 1);
    let err = call.timeout(Duration::from_millis(200)).await.unwrap_err();
    assert!(
        matches!(&err, Error::Unavailable(down) if down.in_doubt()),
        "{err:?}"
    );
    limiter.repository().drain().await;
    assert_eq!(
        w.consumed("k", "r", "rpm").await,
        1000,
        "what the first call took"
    );
}

/// As [`Ruled::limiter`], with at most `max` requests on their way.
async fn bounded(w: &World, table: &Ruled, policy: OnUnavailable, max: usize) -> RateLimiter {
    let builder = Repository::builder()
        .custom_table(Arc::new(table.clone()))
        .clock(w.clock.clone())
        .on_unavailable(policy)
        .max_in_flight(max);
    let limiter = RateLimiter::new(builder.open().await.unwrap());
    take(&limiter, "k").await.unwrap();
    limiter
}

/// Counts the requests that a table is working on.
#[derive(Debug)]
struct Counting {
    inner: Arc<dyn Table>,
    now: Arc<Mutex<(usize, usize)>>,
}

impl Counting {
    fn over(inner: impl Table) -> (Arc<Self>, Arc<Mutex<(usize, usize)>>) {
        let now = Arc::default();
        let table = Self {
            inner: Arc::new(inner),
            now: Arc::clone(&now),
        };
        (Arc::new(table), now)
    }
}

impl Table for Counting {
    fn call(&self, op: Op) -> TableFuture {
        let (call, now) = (self.inner.call(op), Arc::clone(&self.now));
        Box::pin(async move {
            {
                let mut now = now.lock().unwrap();
                now.0 += 1;
                now.1 = now.1.max(now.0);
            }
            let answer = call.await;
            now.lock().unwrap().0 -= 1;
            answer
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_table_holds_no_more_requests_than_allowed_and_the_rest_are_decided_when_the_breaker_opens()
{
    for (policy, entity, joins) in [
        (OnUnavailable::Allow, "k", false),
        (OnUnavailable::Allow, "k", true),
        (OnUnavailable::Block, "k", false),
        (OnUnavailable::Block, "k", true),
        (OnUnavailable::Block, "new", true),
    ] {
        let (w, table, _) = ample(policy).await;
        let (counting, most) = Counting::over(table.clone());
        let builder = Repository::builder()
            .custom_table(counting)
            .clock(w.clock.clone())
            .on_unavailable(policy)
            .group_commit(joins)
            .max_in_flight(50);
        let limiter = RateLimiter::new(builder.open().await.unwrap());
        take(&limiter, "k").await.unwrap();
        table.rule(|_| Act::TimeOut);
        let begun = Instant::now();
        // 1,000 calls a second for 3.2 s, all of entities of their own if they are new.
        let calls = (0..3200_u64).map(|i| {
            let limiter = limiter.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(i)).await;
                let entity = if entity == "new" {
                    format!("new-{i}")
                } else {
                    entity.to_owned()
                };
                let outcome = take(&limiter, &entity).await;
                (begun.elapsed(), outcome)
            }
        });
        let ends = join_all(calls).await;
        let shares = joins && entity == "k";
        assert_eq!(most.lock().unwrap().1, 50, "{policy:?} {entity}");
        // The first 50 time out within 50 ms after 2 s; what is sent after the last of them is silent for a second more.
        let sent = 50;
        for (i, (end, outcome)) in ends.iter().enumerate() {
            let start = Duration::from_millis(i as u64);
            if i >= 2 * sent {
                // A shared write is sent until the breaker opens, and a probe later; either times out after 2 s.
                let timeout = Duration::from_secs(if shares { 2 } else { 0 });
                let at_most = start.max(Duration::from_millis(3050)) + timeout + Duration::from_millis(5);
                assert!(*end <= at_most, "{policy:?} {entity} {i}: {end:?}");
            }
            match outcome {
                Ok(degraded) => assert!(*degraded && policy == OnUnavailable::Allow),
                Err(Error::Unavailable(down)) => {
                    assert_eq!(policy, OnUnavailable::Block);
                    assert!(
                        shares || i < 2 * sent || !down.in_doubt(),
                        "{i}: it was not sent: {down}"
                    );
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_its_turn_sends_nothing_and_is_in_no_doubt() {
    let (w, table, _) = ample(OnUnavailable::Block).await;
    let limiter = bounded(&w, &table, OnUnavailable::Block, 1).await;
    table.rule(|op| match op {
        Op::Update(_) => Act::Slow(1000),
        _ => Act::Pass,
    });
    let sent = table.sent();
    let first = tokio::spawn(limiter.acquire("k", "r").consume("rpm", 1).into_future());
    tokio::task::yield_now().await;
    assert_eq!(table.sent(), sent + 1);
    let begun = Instant::now();
    let second = limiter.acquire("k", "r").consume("rpm", 1);
    let err = second.timeout(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(
        begun.elapsed(),
        Duration::from_millis(300),
        "it keeps its deadline"
    );
    assert!(
        matches!(&err, Error::Unavailable(down) if !down.in_doubt() && down.is_retryable()),
        "{err:?}"
    );
    assert!(err.to_string().contains("`max_in_flight` allows (1)"), "{err}");
    first.await.unwrap().unwrap().commit().await.unwrap();
    limiter.repository().drain().await;
    assert_eq!(table.sent(), sent + 1, "the second was never sent");
}

#[tokio::test(start_paused = true)]
async fn one_permit_is_enough_for_every_path_of_an_acquire() {
    let (w, table, _) = ample(OnUnavailable::Block).await;
    w.repo
        .admin()
        .create_entity(zae_limiter::NewEntity::new("p"))
        .await
        .unwrap();
    for i in 0..3 {
        let child = zae_limiter::NewEntity::new(format!("c{i}"))
            .parent("p")
            .cascade(true);
        w.repo.admin().create_entity(child).await.unwrap();
    }
    let limiter = bounded(&w, &table, OnUnavailable::Block, 1).await;
    table.rule(|_| Act::Slow(5));
    let calls = join_all((0..30).map(|i| {
        let limiter = limiter.clone();
        async move { take(&limiter, &format!("c{}", i % 3)).await }
    }));
    for call in calls.await {
        assert!(!call.unwrap());
    }
    limiter.repository().drain().await;
    assert_eq!(w.consumed("p", "r", "rpm").await, 30_000);
}

#[tokio::test]
async fn a_bound_of_no_requests_is_refused_when_the_repository_is_opened() {
    let err = Repository::builder()
        .in_memory()
        .max_in_flight(0)
        .open()
        .await
        .unwrap_err();
    assert!(
        matches!(&err, Error::InvalidInput(bad) if bad.field() == "max_in_flight" && bad.value() == "0"),
        "{err:?}"
    );
}

#[tokio::test]
async fn a_page_of_a_proxy_with_a_status_of_429_is_not_sent_again_after_a_debit() {
    let (_w, table, limiter) = ample(OnUnavailable::Block).await;
    table.rule(|op| match op {
        Op::Update(_) => Act::Fail(FailureKind::Throttled, Applied::Unknown),
        _ => Act::Pass,
    });
    let sent = table.sent();
    let err = take(&limiter, "k").await.unwrap_err();
    assert!(err.in_doubt(), "{err:?}");
    limiter.repository().drain().await;
    assert_eq!(table.sent(), sent + 1, "it is not sent again");
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_call_that_reaches_its_deadline_names_the_last_failure_it_met() {
    // In the attempt before the last, which is on its way.
    let (_w, table, limiter) = ample(OnUnavailable::Block).await;
    let mut left = 4;
    table.rule(move |op| match op {
        Op::Update(_) if left > 0 => {
            left -= 1;
            Act::Fail(FailureKind::Throttled, Applied::No)
        }
        Op::Update(_) => Act::Hang,
        _ => Act::Pass,
    });
    let call = limiter.acquire("k", "r").consume("rpm", 1);
    let err = call.timeout(Duration::from_secs(30)).await.unwrap_err();
    assert!(err.in_doubt(), "{err:?}");
    assert_eq!(
        err.to_string(),
        "the table 'zae-limiter' cannot be used: no decision within 30000 ms; the last failure before was: \
         the table is throttled: as the test ordered; the write may have happened"
    );

    // In an earlier attempt of the call, of which nothing is left.
    let (_w, table, limiter) = ample(OnUnavailable::Block).await;
    let mut left = 1;
    table.rule(move |op| match op {
        Op::Update(_) if left > 0 => {
            left -= 1;
            Act::Fail(FailureKind::Timeout, Applied::No)
        }
        Op::Update(_) => Act::Hang,
        _ => Act::Pass,
    });
    let call = limiter.acquire("k", "r").consume("rpm", 1);
    let err = call.timeout(Duration::from_secs(3)).await.unwrap_err();
    assert!(
        err.to_string()
            .contains("the table did not answer in time: as the test ordered"),
        "{err}"
    );

    // Of more tokens for a lease.
    let (_w, table, limiter) = ample(OnUnavailable::Block).await;
    let mut lease = limiter.acquire("k", "r").consume("rpm", 1).await.unwrap();
    table.rule(|_| Act::Fail(FailureKind::Throttled, Applied::No));
    let err = lease.consume("rpm", 1).await.unwrap_err();
    assert!(!err.in_doubt(), "{err:?}");
    assert!(
        err.to_string()
            .contains("the table is throttled: as the test ordered"),
        "{err}"
    );
    table.rule(|_| Act::Pass);
    lease.commit().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_granted_during_an_outage_names_its_cause() {
    let half = OnUnavailable::Degrade(Percent::new(50).unwrap());
    for policy in [OnUnavailable::Allow, half] {
        let (_w, table, limiter) = ample(policy).await;
        let lease = limiter.acquire("k", "r").consume("rpm", 1).await.unwrap();
        assert!(lease.outage().is_none());
        lease.commit().await.unwrap();
        table.rule(|_| Act::Fail(FailureKind::Internal, Applied::Unknown));
        let lease = limiter.acquire("k", "r").consume("rpm", 1).await.unwrap();
        assert!(lease.is_degraded());
        let outage = lease.outage().unwrap();
        assert!(outage.in_doubt(), "{outage:?}");
        assert!(
            outage
                .to_string()
                .contains("the service failed: as the test ordered"),
            "{outage}"
        );
        lease.commit().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn connecting_with_a_deadline_names_the_last_failure() {
    let (_w, table, limiter) = ample(OnUnavailable::Block).await;
    let stack = limiter.repository().stack_handle();
    let within = Duration::from_millis(500);
    table.rule(|_| Act::Fail(FailureKind::Unreachable, Applied::No));
    let err = stack.connect_within("default", within).await.unwrap_err();
    assert!(
        err.to_string().ends_with(
            "cannot be used: the table cannot be reached: as the test ordered (no decision within 500 ms)"
        ),
        "{err}"
    );
    table.rule(|_| Act::Hang);
    let err = stack.connect_within("default", within).await.unwrap_err();
    assert!(
        err.to_string()
            .ends_with("cannot be used: no answer within 500 ms"),
        "{err}"
    );
    table.rule(|_| Act::Pass);
    stack.connect_within("default", within).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_with_the_breaker_while_another_write_is_on_its_way_is_in_doubt() {
    let (w, table, _) = ample(OnUnavailable::Allow).await;
    w.repo
        .admin()
        .create_entity(zae_limiter::NewEntity::new("p"))
        .await
        .unwrap();
    let child = zae_limiter::NewEntity::new("c").parent("p").cascade(true);
    w.repo.admin().create_entity(child).await.unwrap();
    let limiter = table.limiter(&w, OnUnavailable::Allow).await;
    take(&limiter, "c").await.unwrap();
    take(&limiter, "k").await.unwrap();
    // The parent's debit hangs, the entity's is refused at once when the breaker is open.
    let parent = w.id("p", "r").key(0);
    table.rule(move |op| match op {
        Op::Update(update) if update.key == parent => Act::Hang,
        Op::Update(_) => Act::Fail(FailureKind::Unreachable, Applied::No),
        _ => Act::Pass,
    });
    let call = limiter.acquire("c", "r").consume("rpm", 1);
    let opening = async {
        for _ in 0..20 {
            let _ = limiter
                .acquire("k", "r")
                .consume("rpm", 1)
                .timeout(Duration::from_millis(100))
                .await;
        }
    };
    let (lease, ()) = tokio::join!(call.timeout(Duration::from_mins(1)), opening);
    let lease = lease.unwrap();
    assert!(lease.outage().unwrap().in_doubt(), "{:?}", lease.outage());
    lease.commit().await.unwrap();
}

/// A lease that takes more gives up as an acquire does: in doubt only if a write is on its way.
#[tokio::test(start_paused = true)]
async fn a_lease_that_takes_more_says_at_its_deadline_whether_that_is_in_doubt() {
    let (w, table, limiter) = ample(OnUnavailable::Block).await;
    let mut lease = limiter.acquire("k", "r").consume("rpm", 1).await.unwrap();

    table.rule(|_| Act::Fail(FailureKind::Throttled, Applied::No));
    let err = lease.consume("rpm", 2).await.unwrap_err();
    assert!(
        matches!(&err, Error::Unavailable(down) if !down.in_doubt() && down.is_retryable()),
        "{err:?}"
    );
    assert!(err.to_string().contains("the table is throttled"), "{err}");

    table.rule(|op| match op {
        Op::Update(_) => Act::Slow(6000),
        _ => Act::Pass,
    });
    let err = lease.consume("rpm", 4).await.unwrap_err();
    assert!(
        matches!(&err, Error::Unavailable(down) if down.in_doubt()),
        "{err:?}"
    );
    table.rule(|_| Act::Pass);
    limiter.repository().drain().await;
    assert_eq!(lease.consumed("rpm"), 1);
    lease.commit().await.unwrap();
    assert_eq!(w.consumed("k", "r", "rpm").await, 2000, "what both acquires took");
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_only_a_former_parent_meets_does_not_cost_the_tokens_of_an_admission() {
    for policy in [OnUnavailable::Allow, OnUnavailable::Block] {
        let (w, table, limiter) = ample(policy).await;
        for parent in ["old", "new"] {
            w.repo
                .admin()
                .create_entity(NewEntity::new(parent))
                .await
                .unwrap();
            take(&limiter, parent).await.unwrap();
        }
        let child = NewEntity::new("child").parent("old").cascade(true);
        w.repo.admin().create_entity(child).await.unwrap();
        take(&limiter, "child").await.unwrap();
        // The client learns of its new parent from the child's own item, when it has already asked the old one.
        w.poke("child", "r", &[("parent_id", Some(Value::text("new")))])
            .await;
        table.rule(|op| match op {
            Op::Update(update) if update.key.pk.contains("BUCKET#old#") => Act::TimeOut,
            Op::Update(update) if update.key.pk.contains("BUCKET#k#") => {
                Act::Fail(FailureKind::Unreachable, Applied::No)
            }
            _ => Act::Pass,
        });
        let acquire = async {
            let lease = limiter.acquire("child", "r").consume("rpm", 5).await.unwrap();
            assert!(!lease.is_degraded(), "{policy:?}");
            assert_eq!(w.consumed("new", "r", "rpm").await, 6000);
            lease.rollback().await.unwrap();
        };
        // Meanwhile the circuit breaker opens, and is open when the old parent's request fails.
        let others = async {
            for _ in 0..18 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let other = limiter.acquire("k", "r").consume("rpm", 1).into_future();
                let _ = tokio::time::timeout(Duration::from_millis(90), other).await;
            }
        };
        tokio::join!(acquire, others);
        limiter.repository().drain().await;
        assert_eq!(w.consumed("child", "r", "rpm").await, 1000, "{policy:?}");
        assert_eq!(w.consumed("new", "r", "rpm").await, 1000, "{policy:?}");
    }
}

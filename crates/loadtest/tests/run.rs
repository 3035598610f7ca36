//! Runs on a table in memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue may panic")]

use std::time::Duration;

use tokio::time::Instant;

use zae_limiter::testing::TestTable;
use zae_limiter::{RateLimiter, Repository};
use zae_limiter_loadtest::{Event, Plan, Report, Schedule, Stage, run, shipped};

async fn limiter() -> RateLimiter {
    RateLimiter::new(Repository::builder().in_memory().measure().open().await.unwrap())
}

fn plan(name: &str, classes: &[&str], users: usize, length: Duration) -> Plan {
    let mut scenario = shipped::find(name).unwrap();
    if !classes.is_empty() {
        scenario.classes.retain(|class| classes.contains(&&*class.name));
    }
    Plan {
        scenario,
        schedule: Schedule::new(vec![Stage { users, length }], 1000.0),
        rate: None,
        warm_up: Duration::ZERO,
        seed: 3,
        every: Duration::from_millis(100),
    }
}

async fn ran(plan: &Plan) -> (RateLimiter, Report) {
    let limiter = limiter().await;
    let report = run(&limiter, plan, std::future::pending(), |_| {}).await.unwrap();
    assert_eq!(
        report.stats.total().failures(),
        0,
        "{:?}",
        report.stats.errors().collect::<Vec<_>>()
    );
    assert!(report.acquires() > 0);
    (limiter, report)
}

#[tokio::test]
async fn every_shipped_scenario_runs_without_a_failure() {
    for name in shipped::NAMES {
        let (_, report) = ran(&plan(name, &[], 8, Duration::from_millis(400))).await;
        assert_eq!((report.users, report.interrupted), (8, false), "{name}");
    }
}

#[tokio::test]
async fn users_that_cascade_charge_their_parent() {
    let (limiter, report) = ran(&plan(
        "max_rps",
        &["MaxRpsCascadeUser"],
        3,
        Duration::from_millis(300),
    ))
    .await;
    let admin = limiter.repository().admin();
    let defaults = admin.system_defaults().await.unwrap().0;
    assert_eq!(
        (defaults[0].name().as_str(), defaults[0].capacity()),
        ("rpm", 1_000_000_000)
    );
    // Two writes of two units an acquire: the child's bucket and the parent's.
    // Entities and buckets are created once.
    let (units, acquires) = (report.cost.write_units, report.acquires() as f64);
    assert!(
        (4.0 * acquires - 12.0..4.0 * acquires + 60.0).contains(&units),
        "{units} for {acquires}"
    );
}

#[tokio::test]
async fn adjusted_leases_are_committed_and_refusals_are_no_failures() {
    // Ten users of the slow class in a moment: each acquires, and commits what it used.
    let (_, report) = ran(&plan("llm_gateway", &[], 10, Duration::from_millis(300))).await;
    let calls = |event| report.stats.of(|other| other == event).calls();
    assert_eq!(calls(Event::Commit), calls(Event::Acquire));
    let mut tight = plan("max_rps", &["MaxRpsUser"], 1, Duration::from_millis(300));
    tight.scenario.setup.system = vec![zae_limiter::Limit::per_hour("rpm", 5).build().unwrap()];
    let (_, report) = ran(&tight).await;
    let refused = report.stats.of(|event| event == Event::RateLimited).calls();
    assert_eq!((report.acquires() - refused, refused > 0), (5, true));
}

#[tokio::test]
async fn littles_law_holds() {
    let (_, report) = ran(&plan("simple", &["SimpleUser"], 20, Duration::from_secs(2))).await;
    let apart = (report.users_by_littles_law() / report.mean_users() - 1.0).abs();
    assert!(
        apart < 0.05,
        "{} of {}",
        report.users_by_littles_law(),
        report.mean_users()
    );
}

#[tokio::test]
async fn a_run_ends_when_it_is_stopped_and_tells_what_it_has_measured() {
    let plan = plan("max_rps", &[], 4, Duration::from_hours(1));
    let mut told = 0;
    let stop = tokio::time::sleep(Duration::from_millis(500));
    let limiter = limiter().await;
    let report = run(&limiter, &plan, stop, |progress| {
        told += 1;
        assert_eq!(progress.users, 4);
    });
    let report = report.await.unwrap();
    assert!(report.interrupted && report.acquires() > 0);
    assert!(told > 0);
}

#[tokio::test]
async fn users_count_from_their_start_to_their_end() {
    let (_, report) = ran(&plan("simple", &["SimpleUser"], 10, Duration::from_secs(1))).await;
    assert!(
        (5.0..=10.5).contains(&report.mean_users()),
        "{}",
        report.mean_users()
    );
    let (_, report) = ran(&plan(
        "simple",
        &["SimpleCascadeUser"],
        10,
        Duration::from_secs(1),
    ))
    .await;
    let created = report.stats.of(|event| event == Event::CreateEntity);
    assert_eq!((created.calls(), created.failures()), (10, 0));
}

#[tokio::test]
async fn a_run_that_is_stopped_at_once_starts_no_user() {
    let plan = plan("simple", &[], 4, Duration::from_mins(1));
    let report = run(&limiter().await, &plan, std::future::ready(()), |_| {})
        .await
        .unwrap();
    assert!(report.interrupted);
    assert_eq!(
        (report.users, report.acquires(), report.mean_users()),
        (0, 0, 0.0)
    );
}

#[tokio::test]
async fn classes_have_the_numbers_of_their_weights_also_with_few_users() {
    let mut plan = plan("simple", &[], 8, Duration::from_millis(400));
    for (class, weight) in plan.scenario.classes.iter_mut().zip([300_000, 100_000]) {
        class.weight = weight;
    }
    let (_, report) = ran(&plan).await;
    let created = report.stats.of(|event| event == Event::CreateEntity);
    assert_eq!(created.calls(), 2, "users of the second class");
}

#[tokio::test]
async fn what_is_measured_while_users_start_can_be_discarded() {
    let mut plan = plan("max_rps", &["MaxRpsCascadeUser"], 5, Duration::from_secs(1));
    plan.warm_up = Duration::from_millis(500);
    let began = Instant::now();
    let (_, report) = ran(&plan).await;
    let created = report.stats.of(|event| event == Event::CreateEntity);
    assert_eq!(created.calls(), 0);
    assert!(
        report.elapsed + plan.warm_up <= began.elapsed(),
        "{:?}",
        report.elapsed
    );
    assert!(report.mean_users() > 3.0, "{}", report.mean_users());
}

/// An open loop of so many users, on a table that answers after 50 ms: 100 tasks a second for 10 seconds.
async fn open_loop(users: usize) -> Report {
    let mut plan = plan("max_rps", &["MaxRpsUser"], users, Duration::from_secs(10));
    plan.rate = Some(100.0);
    let table = TestTable::new();
    let limiter = RateLimiter::new(table.open().await.unwrap());
    table.delay(Duration::from_millis(50));
    run(&limiter, &plan, std::future::pending(), |_| {})
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_open_loop_starts_what_is_due_as_long_as_a_user_is_free() {
    let report = open_loop(20).await;
    let total = report.stats.total();
    assert!((999..=1001).contains(&total.calls()), "{}", total.calls());
    // While users start, there are too few of them.
    assert!(
        total.quantile(0.9) <= Duration::from_millis(120),
        "{:?}",
        total.quantile(0.9)
    );
    assert_eq!(total.failures(), 0);
}

#[tokio::test(start_paused = true)]
async fn latencies_of_an_open_loop_count_from_when_the_task_was_due() {
    let report = open_loop(2).await;
    let total = report.stats.total();
    // Two users make 40 calls a second at most: the last of 400 was due after 4 s.
    assert!((300..=402).contains(&total.calls()), "{}", total.calls());
    assert!(total.max() > Duration::from_secs(5), "{:?}", total.max());
    assert!(report.late > total.sum() / 2);
    let apart = (report.users_by_littles_law() / report.mean_users() - 1.0).abs();
    assert!(apart < 0.05, "{apart}");
}

/// Most users wait for their next task when the test ends.
#[tokio::test(start_paused = true)]
async fn waiting_for_a_task_at_the_end_counts_as_a_pause() {
    let mut plan = plan("max_rps", &["MaxRpsUser"], 20, Duration::from_secs(10));
    plan.rate = Some(5.0);
    let limiter = RateLimiter::new(TestTable::new().open().await.unwrap());
    let report = run(&limiter, &plan, std::future::pending(), |_| {})
        .await
        .unwrap();
    let apart = (report.users_by_littles_law() / report.mean_users() - 1.0).abs();
    assert!(apart < 0.05, "{apart}");
}

//! Calls of the function that generates load, on a table in memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue may panic")]

use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::Instant;
use zae_limiter::testing::TestTable;
use zae_limiter::{Repository, Stack};
use zae_limiter_loadtest::function::{Allotment, Answer, Call, Generator, Headless, Refusal, serve};
use zae_limiter_loadtest::namespace::remove_left_over;

async fn stack() -> Stack {
    let repo = Repository::builder().in_memory().measure().open().await;
    repo.unwrap().stack_handle()
}

fn test(config: &Json) -> Headless {
    match Call::read(&json!({ "config": config })).unwrap() {
        Call::Headless(test) => *test,
        Call::Worker(_) => unreachable!(),
    }
}

async fn served(stack: &Stack, config: Json, granted: Duration) -> Result<Answer, Refusal> {
    let generator = Generator { memory_mb: 1769 };
    let folder = Path::new("/no/such/folder");
    let test = test(&config);
    serve(
        &test,
        stack.clone(),
        folder,
        Instant::now(),
        Allotment::new(granted),
        generator,
    )
    .await
}

async fn assert_nothing_left(stack: &Stack) {
    let names: Vec<_> = stack
        .namespaces()
        .await
        .unwrap()
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(names, ["default"]);
    assert!(stack.orphans().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_is_a_test_in_a_namespace_that_is_removed() {
    let stack = stack().await;
    let config =
        json!({"locustfile": "simple", "users": 4, "spawn_rate": 100, "duration_seconds": 20, "seed": 7});
    let answer = served(&stack, config, Duration::from_mins(5)).await.unwrap();
    assert_eq!((answer.report.users, answer.stopped_early), (4, false));
    assert_eq!(answer.figures.total_failures, 0);
    assert!(answer.figures.total_requests > 40, "{:?}", answer.figures);
    assert_eq!(answer.figures.total_requests, answer.report.stats.total().calls());
    assert_eq!(answer.ran.user_classes, ["SimpleUser", "SimpleCascadeUser"]);
    assert_eq!(
        (answer.ran.users, answer.ran.duration_seconds, answer.ran.seed),
        (4, 20.0, 7)
    );
    assert_eq!(answer.left_namespace, None);
    assert_nothing_left(&stack).await;
}

#[tokio::test(start_paused = true)]
async fn a_test_that_is_longer_than_the_call_stops_before_its_end() {
    let stack = stack().await;
    let config = json!({"locustfile": "llm_production", "user_classes": ["MorningSpike"], "spawn_rate": 100});
    let began = Instant::now();
    let answer = served(&stack, config, Duration::from_mins(1)).await.unwrap();
    let took = began.elapsed();
    assert!(answer.stopped_early && answer.report.interrupted);
    assert_eq!(
        (answer.ran.duration_seconds, answer.ran.shape.as_deref()),
        (3600.0, Some("MorningSpike"))
    );
    // By the clock of the test, which moves only while everything waits.
    assert!(
        answer.report.elapsed >= Duration::from_secs(54),
        "{:?}",
        answer.report.elapsed
    );
    assert!(took <= Duration::from_secs(57), "{took:?}");
    assert_nothing_left(&stack).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_measured_before_all_users_have_started_is_discarded() {
    let stack = stack().await;
    let config = json!({
        "locustfile": "simple", "users": 2, "spawn_rate": 1, "duration_seconds": 30, "warm_up_seconds": 20,
    });
    let answer = served(&stack, config, Duration::from_mins(5)).await.unwrap();
    let elapsed = answer.report.elapsed;
    assert!(
        (Duration::from_secs(9)..Duration::from_secs(12)).contains(&elapsed),
        "{elapsed:?}"
    );
}

#[tokio::test]
async fn calls_that_cannot_be_served_leave_nothing() {
    let stack = stack().await;
    let minutes = Duration::from_mins(5);
    for (config, why) in [
        (
            json!({"locustfile": "simple", "user_classes": ["Other"]}),
            "User class 'Other' not found in simple. Its classes are SimpleUser, SimpleCascadeUser.",
        ),
        (
            json!({"locustfile": "mine.yaml", "scenario": "shapes: {}"}),
            "mine.yaml: line 1, column 1: missing field `users`",
        ),
    ] {
        assert_eq!(
            served(&stack, config, minutes).await.unwrap_err().to_string(),
            why
        );
    }
    let taken = stack.open("loadtest-taken").await.unwrap();
    let config = json!({"locustfile": "simple", "namespace": "loadtest-taken"});
    assert_eq!(
        served(&stack, config, minutes).await.unwrap_err().to_string(),
        "the namespace 'loadtest-taken' exists; it would be removed at the end of the test"
    );
    stack.delete_namespace("loadtest-taken").await.unwrap();
    stack
        .purge_namespace(taken.namespace_id(), &|_| ())
        .await
        .unwrap();
    assert_nothing_left(&stack).await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_cannot_be_removed_in_time_is_named() {
    let table = TestTable::new();
    table.open().await.unwrap();
    let stack = table.builder().measure().stack_handle().await.unwrap();
    // Removing takes several requests, and after the users' last calls there is no time for one of them.
    table.delay(Duration::from_secs(2));
    let config =
        json!({"locustfile": "simple", "users": 1, "duration_seconds": 600, "namespace": "loadtest-left"});
    let left = match served(&stack, config, Duration::from_mins(1)).await {
        Ok(answer) => answer.left_namespace,
        Err(Refusal::Unfinished { left }) => left,
        Err(other) => unreachable!("{other}"),
    };
    let left = left.unwrap();
    assert_eq!(left.name, "loadtest-left");
    assert!(left.why.starts_with("it took more than "), "{left:?}");
    table.recover();
    // How far removing got depends on when the user's last call ended.
    let named = stack.namespace("loadtest-left").await.unwrap();
    let orphans = stack.orphans().await.unwrap();
    assert!(
        named
            .into_iter()
            .chain(orphans)
            .any(|record| record.id.as_str() == left.id),
        "{left:?}"
    );
    let minutes = Duration::from_mins(5);
    assert!(remove_left_over(&stack, "loadtest-left", minutes).await.unwrap());
    assert_nothing_left(&stack).await;
}

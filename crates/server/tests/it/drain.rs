//! The end of the server, and what health checks say.

use std::time::Duration;

use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use zae_limiter::Limit;
use zae_limiter::testing::{Fault, TestTable};

use crate::reload::get;
use crate::world::{RULES, World, ask, is_over, of_key, options, repository};

async fn channel(world: &World) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", world.grpc)).unwrap();
    endpoint.connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_is_dropped_when_the_server_ends_under_load() {
    let table = TestTable::new();
    let repo = table.open().await.unwrap();
    repo.admin()
        .set_system_defaults([Limit::per_day("rpm", 100_000)], None)
        .await
        .unwrap();
    let mut world = World::with(RULES, repo, options()).await.unwrap();
    table.delay(Duration::from_millis(20));
    let mut clients = Vec::new();
    for index in 0..20 {
        let mut client = world.client().await;
        clients.push(tokio::spawn(async move {
            let mut admitted = 0_i64;
            loop {
                match client.should_rate_limit(of_key(&format!("key-{index}"))).await {
                    Ok(response) => admitted += i64::from(!is_over(response.get_ref())),
                    // The server has said that it goes away, or listens no more: nothing was taken.
                    Err(status) => return (admitted, status),
                }
            }
        }));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.stop();
    let mut admitted = Vec::new();
    for client in clients {
        let (count, status) = client.await.unwrap();
        // The client did not send the last one: its connection goes away, and no other one is accepted. One in flight that is dropped would
        // be reset.
        let shown = format!("{status:?}");
        assert!(
            !shown.contains("Reset(") && !shown.contains("BrokenPipe"),
            "{shown}"
        );
        assert!(count > 0);
        admitted.push(count);
    }
    table.delay(Duration::ZERO);
    for (index, count) in admitted.into_iter().enumerate() {
        assert_eq!(
            world.left(&format!("key-{index}"), "gpt-4").await,
            100_000 - count
        );
    }
    let stopped = world.stopped().await;
    assert!(stopped.is_complete(), "{stopped:?}");
}

#[tokio::test]
async fn the_end_is_bounded() {
    let table = TestTable::new();
    let repo = table.open().await.unwrap();
    repo.admin()
        .set_system_defaults([Limit::per_day("rpm", 5)], None)
        .await
        .unwrap();
    let mut options = options();
    options.drain_timeout = Duration::from_millis(200);
    let mut world = World::with(RULES, repo, options).await.unwrap();
    table.delay(Duration::from_secs(2));
    let mut client = world.client().await;
    let asked = tokio::spawn(async move { client.should_rate_limit(of_key("key-1")).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.stop();
    assert!(asked.await.unwrap().is_err());
    let stopped = world.stopped().await;
    assert_eq!(stopped.connections, 1);
    assert!(!stopped.is_complete());
}

#[tokio::test]
async fn health_checks_say_that_the_server_is_about_to_end() {
    let mut options = options();
    options.drain_delay = Duration::from_millis(600);
    let mut world = World::with(RULES, repository().await, options).await.unwrap();
    let mut health = HealthClient::new(channel(&world).await);
    let of = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    for service in ["", "envoy.service.ratelimit.v3.RateLimitService"] {
        let answer = health.check(of(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    let mut watched = health.watch(of("")).await.unwrap().into_inner();
    assert_eq!(
        watched.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    assert!(get(&world.http, "/readyz").await.starts_with("HTTP/1.1 200"));

    world.stop();
    assert_eq!(
        watched.message().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    let readiness = get(&world.http, "/readyz").await;
    assert!(
        readiness.starts_with("HTTP/1.1 503") && readiness.contains("draining"),
        "{readiness}"
    );
    assert!(get(&world.http, "/healthz").await.starts_with("HTTP/1.1 200"));
    // It still answers.
    let mut client = world.client().await;
    assert!(!is_over(&ask(&mut client, of_key("key-1")).await));
    // A stream does not hold it up.
    assert!(watched.message().await.is_err());
    let stopped = world.stopped().await;
    assert!(stopped.is_complete(), "{stopped:?}");
}

#[tokio::test]
async fn a_table_that_does_not_answer_is_not_ready() {
    let table = TestTable::new();
    let world = World::with(RULES, table.open().await.unwrap(), options())
        .await
        .unwrap();
    table.fail(Fault::Unreachable);
    assert!(get(&world.http, "/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(get(&world.http, "/healthz").await.starts_with("HTTP/1.1 200"));
    table.recover();
    assert!(get(&world.http, "/readyz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn reflection_describes_the_service() {
    let world = World::new(RULES).await;
    let mut client = ServerReflectionClient::new(channel(&world).await);
    let ask = |message| {
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(message),
        };
        futures_util::stream::iter([request])
    };
    let list = ask(MessageRequest::ListServices(String::new()));
    let mut answers = client.server_reflection_info(list).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(listed)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<&str> = listed
        .service
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    assert!(
        names.contains(&"envoy.service.ratelimit.v3.RateLimitService"),
        "{names:?}"
    );
    assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");
    let symbol = "envoy.extensions.common.ratelimit.v3.RateLimitDescriptor".to_owned();
    let file = ask(MessageRequest::FileContainingSymbol(symbol));
    let mut answers = client.server_reflection_info(file).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    assert!(
        matches!(
            answer.message_response,
            Some(MessageResponse::FileDescriptorResponse(_))
        ),
        "{answer:?}"
    );
}

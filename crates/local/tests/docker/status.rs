//! The status of the container.

use zae_limiter_local::docker::contract::SERVICES;
use zae_limiter_local::docker::{Error, Status};

use crate::daemon::{Container, Daemon, World};

async fn status(container: Option<Container>) -> Option<Status> {
    let daemon = Daemon::on_socket(World {
        container,
        ..World::default()
    });
    daemon.connect().await.status().await.unwrap()
}

#[tokio::test]
async fn absence_is_none() {
    assert_eq!(status(None).await, None);
}

#[tokio::test]
async fn a_running_container_tells_everything() {
    let found = status(Some(Container::running())).await.unwrap();
    assert!(found.is_ready());
    assert_eq!(
        found,
        Status {
            state: "running".into(),
            port: Some(4567),
            health: Some("healthy".into()),
            image: "localstack/localstack:4.14".into(),
            services: SERVICES,
        }
    );
}

#[tokio::test]
async fn a_stopped_container_has_no_port() {
    let found = status(Some(Container::in_state("exited", "unhealthy", None)))
        .await
        .unwrap();
    assert!(!found.is_ready());
    assert_eq!(
        (found.state.as_str(), found.port, found.port_or_default()),
        ("exited", None, 4566)
    );
}

#[tokio::test]
async fn ready_is_running_and_healthy() {
    let ready = async |state, health| {
        let found = status(Some(Container::in_state(state, health, Some("1"))))
            .await
            .unwrap();
        (found.is_ready(), found.health)
    };
    assert_eq!(ready("running", "").await, (false, None));
    assert_eq!(ready("running", "none").await, (false, None));
    assert_eq!(
        ready("running", "starting").await,
        (false, Some("starting".into()))
    );
    assert_eq!(ready("paused", "healthy").await, (false, Some("healthy".into())));
}

#[tokio::test]
async fn a_daemon_that_does_not_tell_is_an_error() {
    let daemon = Daemon::on_socket(World {
        refusals: vec![("GET /containers/zae-limiter-localstack/json", 500, "broken")],
        ..World::default()
    });
    let err = daemon.connect().await.status().await.unwrap_err();
    assert_eq!(
        err,
        Error::Lost {
            detail: "broken".into()
        }
    );
}

//! Stopping.

use zae_limiter_local::docker::{Down, Error, Progress};

use crate::daemon::{Container, Daemon, World};

const INSPECT: &str = "GET /containers/zae-limiter-localstack/json";
const STOP: &str = "POST /containers/zae-limiter-localstack/stop";
const REMOVE: &str = "DELETE /containers/zae-limiter-localstack";

async fn down(daemon: &Daemon) -> (Result<Down, Error>, usize) {
    let docker = daemon.connect().await;
    let mut stopping = 0;
    let outcome = docker
        .down(&mut |progress| {
            assert_eq!(progress, Progress::Stopping);
            stopping += 1;
        })
        .await;
    (outcome, stopping)
}

fn with(container: Container) -> World {
    World {
        container: Some(container),
        ..World::default()
    }
}

#[tokio::test]
async fn a_running_container_is_stopped_and_removed() {
    let daemon = Daemon::on_port(with(Container::running())).await;
    assert_eq!(down(&daemon).await, (Ok(Down::Stopped), 1));
    assert_eq!(daemon.calls(), [INSPECT, STOP, REMOVE]);
    assert!(daemon.query(STOP).contains(&("t".into(), "10".into())));
    assert!(daemon.world().container.is_none());
}

#[tokio::test]
async fn one_that_does_not_run_is_removed() {
    for state in ["exited", "created"] {
        let daemon = Daemon::on_socket(with(Container::in_state(state, "", None)));
        assert_eq!(down(&daemon).await, (Ok(Down::Stopped), 1));
        assert!(daemon.world().container.is_none());
    }
}

#[tokio::test]
async fn absence_is_told_and_nothing_done() {
    let daemon = Daemon::on_socket(World::default());
    assert_eq!(down(&daemon).await, (Ok(Down::NotRunning), 0));
    assert_eq!(daemon.calls(), [INSPECT]);
}

#[tokio::test]
async fn that_it_went_meanwhile_is_success() {
    // After ping and inspect, and after the stop too.
    for calls in [2, 3] {
        let daemon = Daemon::on_socket(World {
            vanish_after: Some(calls),
            ..with(Container::running())
        });
        assert_eq!(down(&daemon).await, (Ok(Down::Stopped), 1), "after {calls} calls");
        assert_eq!(daemon.calls(), [INSPECT, STOP, REMOVE]);
    }
    let going = "removal of container zae-limiter-localstack is already in progress";
    let daemon = Daemon::on_socket(World {
        refusals: vec![(REMOVE, 409, going)],
        ..with(Container::running())
    });
    assert_eq!(down(&daemon).await, (Ok(Down::Stopped), 1));
}

#[tokio::test]
async fn failures_have_the_daemons_words() {
    for (call, words) in [
        (INSPECT, "containerd is not there"),
        (STOP, "cannot stop container: permission denied"),
        (REMOVE, "device or resource busy"),
    ] {
        let daemon = Daemon::on_socket(World {
            refusals: vec![(call, 500, words)],
            ..with(Container::running())
        });
        let (outcome, _) = down(&daemon).await;
        let err = outcome.unwrap_err();
        assert!(matches!(err, Error::Stop { .. }), "{err:?}");
        assert_eq!(err.to_string(), format!("Failed to stop container: {words}"));
    }
}

//! The ways to a daemon.

use tokio::net::{TcpListener, UnixListener};
use zae_limiter_local::docker::{Docker, Error};

use crate::daemon::{Container, Daemon, World};

async fn failure(host: &str) -> String {
    let err = Docker::connect(Some(host)).await.unwrap_err();
    assert!(matches!(err, Error::Connect { .. }), "{err:?}");
    err.to_string()
}

#[tokio::test]
async fn a_socket_and_a_port_lead_to_the_same() {
    let world = || World {
        container: Some(Container::running()),
        ..World::default()
    };
    let socket = Daemon::on_socket(world());
    let port = Daemon::on_port(world()).await;
    let with_http = port.host.replace("tcp://", "http://");
    for host in [&socket.host, &port.host, &with_http] {
        let docker = Docker::connect(Some(host)).await.unwrap();
        let status = docker.status().await.unwrap().unwrap();
        assert_eq!(status.state, "running", "{host}");
    }
    assert_eq!(socket.world().calls.first().unwrap(), "GET /_ping?");
}

#[tokio::test]
async fn a_missing_socket_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let host = format!("unix://{}/docker.sock", dir.path().display());
    assert_eq!(
        failure(&host).await,
        format!("Could not connect to Docker: {host}: there is no such socket")
    );
}

#[tokio::test]
async fn a_socket_that_nobody_serves_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("docker.sock");
    drop(UnixListener::bind(&path).unwrap());
    let host = format!("unix://{}", path.display());
    let text = failure(&host).await;
    assert!(
        text.starts_with(&format!(
            "Could not connect to Docker: {host}: Connection refused"
        )),
        "{text}"
    );
}

#[tokio::test]
async fn a_port_that_nobody_serves_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    drop(listener);
    let text = failure(&host).await;
    assert!(
        text.starts_with(&format!(
            "Could not connect to Docker: {host}: Connection refused"
        )),
        "{text}"
    );
}

#[tokio::test]
async fn what_answers_and_is_no_daemon_is_told() {
    let daemon = Daemon::on_port(World {
        refusals: vec![(
            "GET /_ping",
            400,
            "Client sent an HTTP request to an HTTPS server.",
        )],
        ..World::default()
    })
    .await;
    let text = failure(&daemon.host).await;
    assert!(
        text.ends_with(": Client sent an HTTP request to an HTTPS server."),
        "{text}"
    );
}

#[tokio::test]
async fn an_address_of_no_known_form_is_refused_at_once() {
    let err = Docker::connect(Some("npipe:////./pipe/docker_engine"))
        .await
        .unwrap_err();
    assert_eq!(
        err.to_string(),
        "Could not connect to Docker: 'npipe:////./pipe/docker_engine' is not a usable Docker host: named pipes are \
         not supported; let Docker listen on TCP and use tcp://localhost:2375"
    );
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_never_answers_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("docker.sock");
    let _nobody_accepts = UnixListener::bind(&path).unwrap();
    let text = failure(&format!("unix://{}", path.display())).await;
    assert!(text.ends_with("docker.sock: no answer in time"), "{text}");
}

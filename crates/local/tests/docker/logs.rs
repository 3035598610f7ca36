//! Reading the log.

use futures_util::{StreamExt, TryStreamExt};
use zae_limiter_local::docker::Error;

use crate::daemon::{Container, Daemon, LogEnd, World};

const LOGS: &str = "GET /containers/zae-limiter-localstack/logs";

/// What [`world`]'s pieces are together.
const LOG: &[u8] = b"one\ntwo\nnot UTF-8: \xff\xfe, no end of line";

fn world() -> World {
    World {
        container: Some(Container::running()),
        log: vec![
            (1, b"one\n".to_vec()),
            (2, b"two\n".to_vec()),
            (1, b"not UTF-8: \xff\xfe, no end of line".to_vec()),
        ],
        ..World::default()
    }
}

/// The bytes that came, and the error that ended them.
async fn read(daemon: &Daemon, follow: bool) -> (Vec<u8>, Option<Error>) {
    let docker = daemon.connect().await;
    let mut stream = docker.logs(100, follow).await.unwrap();
    let mut bytes = Vec::new();
    loop {
        match stream.next().await {
            Some(Ok(piece)) => bytes.extend_from_slice(&piece),
            Some(Err(err)) => {
                assert!(stream.next().await.is_none(), "an error is the last thing");
                return (bytes, Some(err));
            }
            None => return (bytes, None),
        }
    }
}

#[tokio::test]
async fn both_streams_come_as_they_are() {
    let daemon = Daemon::on_socket(world());
    let (bytes, err) = read(&daemon, false).await;
    assert_eq!((bytes.as_slice(), err), (LOG, None));
    let query = daemon.query(LOGS);
    for (name, value) in [
        ("tail", "100"),
        ("stdout", "true"),
        ("stderr", "true"),
        ("follow", "false"),
    ] {
        assert!(query.contains(&(name.into(), value.into())), "{name}: {query:?}");
    }
}

#[tokio::test]
async fn following_ends_with_a_container_that_stays() {
    let daemon = Daemon::on_port(world()).await;
    let (bytes, err) = read(&daemon, true).await;
    assert_eq!((bytes.as_slice(), err), (LOG, None));
    assert!(daemon.query(LOGS).contains(&("follow".into(), "true".into())));
}

#[tokio::test]
async fn following_tells_what_there_is_before_there_is_more() {
    let daemon = Daemon::on_socket(World {
        log_end: LogEnd::StaysOpen,
        ..world()
    });
    let docker = daemon.connect().await;
    let mut stream = docker.logs(100, true).await.unwrap();
    let mut bytes = Vec::new();
    while bytes.len() < LOG.len() {
        bytes.extend_from_slice(&stream.next().await.unwrap().unwrap());
    }
    assert_eq!(bytes, LOG);
}

#[tokio::test]
async fn an_empty_log_is_no_error() {
    let daemon = Daemon::on_socket(World {
        log: Vec::new(),
        ..world()
    });
    assert_eq!(read(&daemon, false).await, (Vec::new(), None));
}

#[tokio::test]
async fn the_number_of_lines_is_passed_on() {
    let daemon = Daemon::on_socket(world());
    let docker = daemon.connect().await;
    let stream = docker.logs(0, false).await.unwrap();
    stream.try_collect::<Vec<_>>().await.unwrap();
    assert!(daemon.query(LOGS).contains(&("tail".into(), "0".into())));
}

#[tokio::test]
async fn without_a_container_there_is_no_log() {
    let daemon = Daemon::on_socket(World::default());
    let docker = daemon.connect().await;
    let err = docker.logs(100, true).await.map(|_| ()).unwrap_err();
    assert_eq!(err, Error::NotRunning);
    assert_eq!(
        err.to_string(),
        "LocalStack is not running. Run 'zae-limiter local up' first."
    );
}

#[tokio::test]
async fn a_container_removed_before_its_log_is_read_is_told() {
    // After ping and inspect.
    let daemon = Daemon::on_socket(World {
        vanish_after: Some(2),
        ..world()
    });
    let (bytes, err) = read(&daemon, false).await;
    assert_eq!((bytes, err), (Vec::new(), Some(Error::Removed)));

    let words = "can not get logs from container which is dead or marked for removal";
    let daemon = Daemon::on_socket(World {
        refusals: vec![(LOGS, 409, words)],
        ..world()
    });
    assert_eq!(read(&daemon, true).await, (Vec::new(), Some(Error::Removed)));
}

#[tokio::test]
async fn a_container_removed_while_it_is_followed_is_told_after_its_log() {
    // After ping, inspect and the log.
    let daemon = Daemon::on_socket(World {
        vanish_after: Some(3),
        ..world()
    });
    let (bytes, err) = read(&daemon, true).await;
    assert_eq!((bytes.as_slice(), err.as_ref()), (LOG, Some(&Error::Removed)));
    assert_eq!(err.unwrap().to_string(), "Container stopped.");
}

#[tokio::test]
async fn a_connection_that_breaks_is_told_after_what_came() {
    for follow in [false, true] {
        let daemon = Daemon::on_socket(World {
            log_end: LogEnd::Breaks,
            ..world()
        });
        let (bytes, err) = read(&daemon, follow).await;
        let err = err.unwrap();
        assert!(matches!(err, Error::Lost { .. }), "{err:?}");
        assert!(
            err.to_string().starts_with("Lost connection to container: "),
            "{err}"
        );
        assert_eq!(bytes, LOG);
    }
}

#[tokio::test]
async fn a_daemon_that_refuses_is_told() {
    let daemon = Daemon::on_socket(World {
        refusals: vec![(LOGS, 500, "configured logging driver does not support reading")],
        ..world()
    });
    let (_, err) = read(&daemon, false).await;
    assert_eq!(
        err.unwrap().to_string(),
        "Lost connection to container: configured logging driver does not support reading"
    );
}

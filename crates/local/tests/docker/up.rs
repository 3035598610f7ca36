//! Starting: every way in which it ends.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use zae_limiter_local::docker::contract::{IMAGE, SERVICES};
use zae_limiter_local::docker::{Error, NotReady, Progress, Up, UpOptions};

use crate::daemon::{Container, Daemon, World};

const CREATE: &str = "POST /containers/create";
const START: &str = "POST /containers/zae-limiter-localstack/start";
const INSPECT: &str = "GET /containers/zae-limiter-localstack/json";
const REMOVE: &str = "DELETE /containers/zae-limiter-localstack";
const LOGS: &str = "GET /containers/zae-limiter-localstack/logs";
const IMAGE_THERE: &str = "GET /images/localstack/localstack:4.14/json";

fn options() -> UpOptions {
    UpOptions {
        state_dir: PathBuf::from("/state/localstack"),
        poll: Duration::from_millis(1),
        ..UpOptions::default()
    }
}

/// The image is there, and the container becomes healthy at once.
fn world() -> World {
    World {
        images: vec![IMAGE.to_owned()],
        course: [("running", "healthy")].into(),
        ..World::default()
    }
}

/// What `up` ends with and its progress, a word or two for each.
async fn up(daemon: &Daemon, options: &UpOptions) -> (Result<Up, Error>, Vec<String>) {
    let docker = daemon.connect().await;
    let mut seen = Vec::new();
    let outcome = docker
        .up(options, &mut |progress| {
            seen.push(match progress {
                Progress::RemovingStopped => "removing".to_owned(),
                Progress::Pulling { image } => format!("pulling {image}"),
                Progress::Pulled { image } => format!("pulled {image}"),
                Progress::Starting { image } => format!("starting {image}"),
                Progress::Waiting => "waiting".to_owned(),
                Progress::Poll => ".".to_owned(),
                other => format!("{other:?}"),
            });
        })
        .await;
    (outcome, seen)
}

async fn ends(world: World, want: Up) -> Daemon {
    let daemon = Daemon::on_socket(world);
    let (outcome, _) = up(&daemon, &options()).await;
    assert_eq!(outcome, Ok(want));
    daemon
}

async fn fails(world: World, want: &str) -> (Error, Daemon) {
    let daemon = Daemon::on_socket(world);
    let (outcome, _) = up(&daemon, &options()).await;
    let err = outcome.unwrap_err();
    assert_eq!(err.to_string(), want);
    (err, daemon)
}

#[tokio::test]
async fn a_fresh_start_creates_exactly_the_contract() {
    let daemon = ends(world(), Up::Ready { port: 4566 }).await;
    assert_eq!(daemon.calls(), [INSPECT, IMAGE_THERE, CREATE, START, INSPECT]);
    let name = ("name".to_owned(), "zae-limiter-localstack".to_owned());
    assert!(daemon.query(CREATE).contains(&name));

    let services = "dynamodb,dynamodbstreams,lambda,cloudformation,logs,iam,cloudwatch,sqs,s3,sts,\
                    resourcegroupstaggingapi";
    assert_eq!(SERVICES, services);
    assert_eq!(
        daemon.world().created.take().unwrap(),
        json!({
            "Image": "localstack/localstack:4.14",
            "Env": [format!("SERVICES={services}"), "DEBUG=0", "DYNAMODB_REMOVE_EXPIRED_ITEMS=1"],
            "ExposedPorts": { "4566/tcp": {} },
            "Healthcheck": {
                "Test": ["CMD", "curl", "-f", "http://localhost:4566/_localstack/health"],
                "Interval": 5_000_000_000_i64,
                "Timeout": 5_000_000_000_i64,
                "Retries": 30,
            },
            "HostConfig": {
                "Binds": [
                    "/var/run/docker.sock:/var/run/docker.sock:rw",
                    "/state/localstack:/var/lib/localstack:rw",
                ],
                "PortBindings": { "4566/tcp": [{ "HostPort": "4566" }] },
            },
        })
    );
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let options = UpOptions::default();
    assert_eq!(options.image, "localstack/localstack:4.14");
    assert_eq!(options.port, 4566);
    assert_eq!(options.state_dir, std::env::temp_dir().join("localstack"));
    assert_eq!((options.poll, options.polls), (Duration::from_secs(5), 30));
}

#[tokio::test]
async fn progress_has_a_poll_for_each_look_until_it_is_healthy() {
    let daemon = Daemon::on_socket(World {
        course: [
            ("running", "starting"),
            ("running", "starting"),
            ("running", "healthy"),
        ]
        .into(),
        ..world()
    });
    let (outcome, seen) = up(&daemon, &options()).await;
    assert_eq!(outcome, Ok(Up::Ready { port: 4566 }));
    assert_eq!(
        seen,
        ["starting localstack/localstack:4.14", "waiting", ".", ".", "."]
    );
}

#[tokio::test]
async fn another_port_and_image_are_used() {
    let daemon = Daemon::on_port(World {
        images: vec!["registry:5000/ls:1".to_owned()],
        ..world()
    })
    .await;
    let options = UpOptions {
        image: "registry:5000/ls:1".to_owned(),
        port: 4999,
        ..options()
    };
    let (outcome, seen) = up(&daemon, &options).await;
    assert_eq!(outcome, Ok(Up::Ready { port: 4999 }));
    assert_eq!(seen[0], "starting registry:5000/ls:1");
    let created = daemon.world().created.take().unwrap();
    assert_eq!(created["Image"], "registry:5000/ls:1");
    assert_eq!(
        created["HostConfig"]["PortBindings"]["4566/tcp"][0]["HostPort"],
        "4999"
    );
}

#[tokio::test]
async fn a_running_container_is_left_alone_and_tells_its_port() {
    let daemon = Daemon::on_socket(World {
        container: Some(Container::in_state("running", "unhealthy", Some("4567"))),
        ..World::default()
    });
    let (outcome, seen) = up(&daemon, &options()).await;
    assert_eq!(outcome, Ok(Up::AlreadyRunning { port: 4567 }));
    assert_eq!(seen, [""; 0]);
    assert_eq!(daemon.calls(), [INSPECT]);
}

#[tokio::test]
async fn a_container_that_does_not_run_is_removed_first() {
    for state in ["exited", "created", "dead", "paused"] {
        let daemon = Daemon::on_socket(World {
            container: Some(Container::in_state(state, "", None)),
            ..world()
        });
        let (outcome, seen) = up(&daemon, &options()).await;
        assert_eq!(outcome, Ok(Up::Ready { port: 4566 }));
        let want = ["removing", "starting localstack/localstack:4.14", "waiting", "."];
        assert_eq!(seen, want, "{state}");
        assert_eq!(daemon.calls()[..3], [INSPECT, REMOVE, IMAGE_THERE]);
        assert!(daemon.query(REMOVE).contains(&("force".into(), "true".into())));
    }
}

#[tokio::test]
async fn a_container_that_cannot_be_removed_is_a_failed_start() {
    let world = World {
        container: Some(Container::in_state("exited", "", None)),
        refusals: vec![(REMOVE, 500, "device or resource busy")],
        ..world()
    };
    let (err, _) = fails(world, "Failed to start container: device or resource busy").await;
    assert!(matches!(err, Error::Start { .. }));
}

#[tokio::test]
async fn an_absent_image_is_pulled() {
    let daemon = Daemon::on_socket(World {
        images: Vec::new(),
        pull: vec![
            json!({ "status": "Pulling from localstack/localstack", "id": "4.14" }),
            json!({ "status": "Downloading", "progressDetail": { "current": 1, "total": 2 }, "id": "aa" }),
            json!({ "status": "Status: Downloaded newer image for localstack/localstack:4.14" }),
        ],
        pull_brings_image: true,
        ..world()
    });
    let (outcome, seen) = up(&daemon, &options()).await;
    assert_eq!(outcome, Ok(Up::Ready { port: 4566 }));
    assert_eq!(
        seen,
        [
            "pulling localstack/localstack:4.14",
            "pulled localstack/localstack:4.14",
            "starting localstack/localstack:4.14",
            "waiting",
            "."
        ]
    );
    let query = daemon.query("POST /images/create");
    assert!(
        query.contains(&("fromImage".into(), "localstack/localstack".into())),
        "{query:?}"
    );
    assert!(query.contains(&("tag".into(), "4.14".into())), "{query:?}");
}

#[tokio::test]
async fn a_failed_pull_is_told_however_it_failed() {
    let absent = || World {
        images: Vec::new(),
        ..world()
    };
    let prefix = "Failed to pull image localstack/localstack:4.14:";

    // Refused before anything is sent.
    let refused = World {
        refusals: vec![(
            "POST /images/create",
            404,
            "pull access denied, repository does not exist",
        )],
        ..absent()
    };
    let want = format!("{prefix} pull access denied, repository does not exist");
    let (err, daemon) = fails(refused, &want).await;
    assert!(matches!(err, Error::Pull { .. }));
    assert!(!daemon.calls().contains(&CREATE.to_owned()));

    // In the midst of a stream that began well.
    let midway = World {
        pull: vec![
            json!({ "status": "Downloading", "id": "aa" }),
            json!({ "errorDetail": { "message": "toomanyrequests: rate limit" }, "error": "toomanyrequests: rate limit" }),
        ],
        ..absent()
    };
    fails(midway, &format!("{prefix} toomanyrequests: rate limit")).await;

    // In a form that only the missing image tells.
    let unclear = World {
        pull: vec![json!({ "error": "no space left on device" })],
        ..absent()
    };
    let want = format!("{prefix} the daemon ended the pull and does not have the image");
    fails(unclear, &want).await;

    // The daemon cannot look whether it has the image.
    let broken = World {
        refusals: vec![(IMAGE_THERE, 500, "image store is locked")],
        ..absent()
    };
    fails(broken, &format!("{prefix} image store is locked")).await;
}

#[tokio::test]
async fn a_taken_port_is_named_and_the_next_up_clears_away() {
    let taken = "driver failed programming external connectivity on endpoint zae-limiter-localstack: Bind for \
                 0.0.0.0:4566 failed: port is already allocated";
    let world = World {
        refusals: vec![(START, 500, taken)],
        ..world()
    };
    let want = "Port 4566 is already in use. Stop existing LocalStack or use --port.";
    let (err, daemon) = fails(world, want).await;
    assert_eq!(err, Error::PortTaken { port: 4566 });
    assert_eq!(daemon.world().container.as_ref().unwrap().state, "created");

    daemon.world().refusals.clear();
    let (outcome, seen) = up(&daemon, &options()).await;
    assert_eq!(outcome, Ok(Up::Ready { port: 4566 }));
    assert_eq!(seen[0], "removing");
}

#[tokio::test]
async fn other_failures_to_start_have_the_daemons_words() {
    for (call, status, words) in [
        (
            CREATE,
            409,
            "Conflict. The container name is already in use by another container",
        ),
        (
            START,
            500,
            "error while creating mount source path: read-only file system",
        ),
        (INSPECT, 500, "containerd is not there"),
    ] {
        let world = World {
            refusals: vec![(call, status, words)],
            ..world()
        };
        let (err, _) = fails(world, &format!("Failed to start container: {words}")).await;
        assert!(matches!(err, Error::Start { .. }), "{err:?}");
    }
}

#[tokio::test]
async fn an_unhealthy_container_is_left_in_place() {
    let course = [("running", "starting"), ("running", "unhealthy")].into();
    let daemon = ends(World { course, ..world() }, Up::NotReady(NotReady::Unhealthy)).await;
    assert_eq!(daemon.world().container.as_ref().unwrap().state, "running");
    assert_eq!(daemon.calls().last().unwrap(), INSPECT);
}

#[tokio::test]
async fn after_thirty_polls_it_is_a_timeout() {
    for health in ["starting", "none", ""] {
        let daemon = Daemon::on_socket(World {
            course: [("running", health)].into(),
            ..world()
        });
        let (outcome, seen) = up(&daemon, &options()).await;
        assert_eq!(outcome, Ok(Up::NotReady(NotReady::Timeout)), "{health}");
        assert_eq!(seen.iter().filter(|line| *line == ".").count(), 30);
        assert!(daemon.world().container.is_some());
    }
}

#[tokio::test]
async fn an_exited_container_leaves_its_last_lines() {
    let world = World {
        course: [("running", "starting"), ("exited", "unhealthy")].into(),
        log: vec![
            (1, b"Preparing LocalStack\n".to_vec()),
            (2, b"License activation failed\r\nno \xff token".to_vec()),
        ],
        ..world()
    };
    let last_lines = [
        "Preparing LocalStack",
        "License activation failed",
        "no \u{fffd} token",
    ];
    let last_lines = last_lines.map(str::to_owned).to_vec();
    let daemon = ends(world, Up::NotReady(NotReady::Exited { last_lines })).await;
    let query = daemon.query(LOGS);
    for (name, value) in [
        ("tail", "10"),
        ("stdout", "true"),
        ("stderr", "true"),
        ("follow", "false"),
    ] {
        assert!(query.contains(&(name.into(), value.into())), "{name}: {query:?}");
    }
    assert!(daemon.world().container.is_some());
}

#[tokio::test]
async fn an_exited_container_whose_log_cannot_be_read_is_still_told() {
    let world = World {
        course: [("exited", "")].into(),
        refusals: vec![(LOGS, 500, "configured logging driver does not support reading")],
        ..world()
    };
    let line = "(the log cannot be read: configured logging driver does not support reading)";
    let last_lines = vec![line.to_owned()];
    ends(world, Up::NotReady(NotReady::Exited { last_lines })).await;
}

#[tokio::test]
async fn a_dead_container_is_told() {
    let course = [("dead", "starting")].into();
    ends(World { course, ..world() }, Up::NotReady(NotReady::Dead)).await;
}

#[tokio::test]
async fn a_container_that_somebody_removed_is_told() {
    let world = World {
        course: [("running", "starting")].into(),
        // Ping, inspect, image, create, start, one poll; then it is gone.
        vanish_after: Some(6),
        ..world()
    };
    ends(world, Up::NotReady(NotReady::Removed)).await;
}

#[tokio::test]
async fn a_daemon_that_goes_away_while_waiting_is_told() {
    let daemon = Daemon::on_socket(World {
        course: [("running", "starting")].into(),
        ..world()
    });
    let docker = daemon.connect().await;
    let outcome = docker
        .up(&options(), &mut |progress| {
            if progress == Progress::Waiting {
                daemon.world().refusals.push((INSPECT, 503, "shutting down"));
            }
        })
        .await;
    let detail = "shutting down".to_owned();
    assert_eq!(outcome, Err(Error::Lost { detail }));
}

#[tokio::test]
async fn bad_options_send_nothing() {
    let daemon = Daemon::on_socket(world());
    let bad_image = UpOptions {
        image: "../../containers/other".to_owned(),
        ..options()
    };
    let bad_dir = UpOptions {
        state_dir: PathBuf::from("here"),
        ..options()
    };
    for (options, want) in [(bad_image, "'../../containers/other'"), (bad_dir, "'here'")] {
        let (outcome, _) = up(&daemon, &options).await;
        let text = outcome.unwrap_err().to_string();
        assert!(text.contains(want), "{text}");
    }
    assert_eq!(daemon.calls(), [""; 0]);
}

#[tokio::test]
async fn it_can_run_in_a_task_of_its_own() {
    let daemon = Daemon::on_socket(world());
    let docker = daemon.connect().await;
    let task = tokio::spawn(async move { docker.up(&options(), &mut |_| {}).await });
    assert_eq!(task.await.unwrap(), Ok(Up::Ready { port: 4566 }));
}

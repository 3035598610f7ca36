//! A master and workers in this process, over real connections, on a table in memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue may panic")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use zae_limiter::{Limit, RateLimiter, Repository, Stack};
use zae_limiter_loadtest::cluster::worker::{Settings, WorkError, work};
use zae_limiter_loadtest::cluster::{
    Cluster, ClusterError, Launcher, Master, Options, Scaling, Secret, Test,
};
use zae_limiter_loadtest::scenario::{EntityChoice, Scenario};
use zae_limiter_loadtest::{Event, Report, Schedule, Stage, prepare, shipped};

const NAMESPACE: &str = "test";

/// More than any test takes.
const CAPACITY: u64 = 1_000_000_000;

type Worker = JoinHandle<Result<(), WorkError>>;

/// Starts workers as tasks.
#[derive(Clone)]
struct Tasks {
    address: SocketAddr,
    secret: Secret,
    stack: Stack,
    leaves_after: Option<Duration>,
    started: Arc<Mutex<Vec<Worker>>>,
}

impl Tasks {
    fn start(&self) -> Worker {
        let this = self.clone();
        tokio::spawn(async move {
            let stream = TcpStream::connect(this.address).await.unwrap();
            let settings = Settings {
                name: "task".to_owned(),
                silence: Duration::from_mins(1),
                leaves_after: this.leaves_after,
            };
            let open = |namespace: String| {
                let stack = this.stack.clone();
                async move {
                    let opened = stack.connect(&namespace).await;
                    opened.map(RateLimiter::new).map_err(|err| err.to_string())
                }
            };
            work(stream, &this.secret, &settings, open).await
        })
    }
}

impl Launcher for Tasks {
    async fn launch(&mut self, count: usize) -> Result<(), String> {
        let workers = (0..count).map(|_| self.start());
        self.started.lock().unwrap().extend(workers);
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// A master, and where its workers come from.
struct Place {
    cluster: Cluster<Tasks>,
    tasks: Tasks,
    limiter: RateLimiter,
}

async fn place(workers: usize, leaves_after: Option<Duration>) -> Place {
    let stack = Repository::in_memory().await.unwrap().stack_handle();
    let limiter = RateLimiter::new(stack.open(NAMESPACE).await.unwrap());
    let master = Master::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let tasks = Tasks {
        address: master.address().unwrap(),
        secret: master.secret().clone(),
        stack,
        leaves_after,
        started: Arc::default(),
    };
    let scaling = Scaling {
        // A worker leaves when nine tenths of its life are over, and is replaced at eight.
        lifetime: leaves_after.map(|after| after.div_f64(0.9)),
        ..Scaling::fixed(workers)
    };
    let options = Options {
        most_workers: 5,
        every: Duration::from_millis(200),
        ..Options::default()
    };
    Place {
        cluster: master.open(tasks.clone(), scaling, options),
        tasks,
        limiter,
    }
}

/// Requests for one entity, whose bucket is practically not refilled.
fn scenario() -> Scenario {
    let mut scenario = shipped::find("max_rps").unwrap();
    scenario.classes.truncate(1);
    for class in &mut scenario.classes {
        class.entity = EntityChoice::One("all".to_owned());
        class.think = Duration::from_millis(5)..=Duration::from_millis(15);
    }
    let limit = Limit::custom("rpm", CAPACITY, 1, Duration::from_hours(24 * 365));
    scenario.setup.system = vec![limit.build().unwrap()];
    scenario
}

async fn test(limiter: &RateLimiter, users: usize, length: Duration) -> Test {
    let scenario = scenario();
    Test {
        parents: prepare(limiter, &scenario, 1).await.unwrap(),
        scenario,
        schedule: Schedule::new(vec![Stage { users, length }], 1000.0),
        namespace: NAMESPACE.to_owned(),
        seed: 1,
        rate: None,
    }
}

/// What the bucket has lost.
async fn taken(limiter: &RateLimiter) -> u64 {
    let check = limiter.check("all", "api").send().await.unwrap();
    let left = check.available()["rpm"];
    CAPACITY - u64::try_from(left).unwrap()
}

fn admitted(report: &Report) -> u64 {
    let acquired = report.stats.of(|event| event == Event::Acquire);
    assert_eq!(
        acquired.failures(),
        0,
        "{:?}",
        report.stats.errors().collect::<Vec<_>>()
    );
    acquired.calls()
}

fn never() -> std::future::Pending<()> {
    std::future::pending()
}

#[tokio::test]
async fn every_call_of_every_worker_is_counted_once() {
    let mut place = place(3, None).await;
    assert!(place.cluster.wait_for(3, never(), |_| {}).await.unwrap());
    let mut before = 0;
    // The workers stay for a second test.
    for users in [12, 5] {
        let test = test(&place.limiter, users, Duration::from_secs(2)).await;
        let mut told = 0;
        let ended = place.cluster.run(&test, never(), |pulse| {
            told += usize::from(pulse.workers == 3);
        });
        let ended = ended.await.unwrap();
        assert!(told > 0);
        assert_eq!(
            (ended.workers, ended.lost.len(), ended.was_abandoned),
            (3, 0, false)
        );
        assert_eq!((ended.report.users, ended.report.interrupted), (users, false));
        let all = taken(&place.limiter).await;
        assert!(all > before);
        assert_eq!(admitted(&ended.report), all - before);
        before = all;
        let (law, mean) = (ended.report.users_by_littles_law(), ended.report.mean_users());
        // Users of a busy machine also wait for a processor, which is not measured.
        assert!((law / mean - 1.0).abs() < 0.2, "{law} of {mean}");
        assert!(mean > 0.0 && mean <= users as f64 * 1.05, "{mean}");
    }
    drop(place.cluster);
    let started = std::mem::take(&mut *place.tasks.started.lock().unwrap());
    for worker in started {
        worker.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn workers_share_the_rate_of_an_open_loop_as_they_share_users() {
    let mut place = place(3, None).await;
    place.cluster.wait_for(3, never(), |_| {}).await.unwrap();
    // Fewer users than workers, as many, and more, which one of them leaves.
    for (users, rate) in [(2, 60.0), (3, 4.0), (7, 90.0)] {
        let test = Test {
            rate: Some(rate),
            ..test(&place.limiter, users, Duration::from_secs(2)).await
        };
        let before = taken(&place.limiter).await;
        let tasks = place.tasks.clone();
        let mut is_killed = users < 7;
        let ended = place.cluster.run(&test, never(), |pulse| {
            if !is_killed && pulse.progress.users == users {
                tasks.started.lock().unwrap()[0].abort();
                is_killed = true;
            }
        });
        let ended = ended.await.unwrap();
        // At the start, each of four workers has a task that is due at once.
        let most = rate * ended.report.elapsed.as_secs_f64() + 4.0;
        let all = taken(&place.limiter).await - before;
        assert!(all > 0 && all as f64 <= most, "{all} of {most}");
        assert!(admitted(&ended.report) <= all, "{:?}", ended.report.stats);
    }
}

#[tokio::test]
async fn users_of_a_lost_worker_move_and_a_late_one_takes_some() {
    let mut place = place(2, None).await;
    place.cluster.wait_for(2, never(), |_| {}).await.unwrap();
    let test = test(&place.limiter, 8, Duration::from_mins(10)).await;
    let tasks = place.tasks.clone();
    let (mut is_killed, mut is_alone, mut is_back) = (false, false, false);
    let (over, is_over) = tokio::sync::oneshot::channel();
    let mut over = Some(over);
    let stop = async {
        let _ = is_over.await;
    };
    let ended = place.cluster.run(&test, stop, |pulse| {
        if pulse.workers == 2 && pulse.progress.users == 8 && !is_killed {
            tasks.started.lock().unwrap()[0].abort();
            is_killed = true;
        }
        is_alone |= is_killed && pulse.workers == 1 && pulse.progress.users == 8;
        // The master starts another one within some seconds.
        is_back |= is_alone && pulse.workers == 2 && pulse.progress.users == 8;
        if is_back && let Some(over) = over.take() {
            over.send(()).unwrap();
        }
    });
    let ended = tokio::time::timeout(Duration::from_mins(2), ended)
        .await
        .unwrap()
        .unwrap();
    assert!(ended.report.interrupted);
    assert_eq!((ended.workers, ended.lost.len()), (3, 1), "{:?}", ended.lost);
    // The calls after its last message are not known.
    let (counted, all) = (admitted(&ended.report), taken(&place.limiter).await);
    assert!(counted > 0 && counted <= all, "{counted} of {all}");
}

#[tokio::test]
async fn a_worker_that_leaves_hands_over_and_loses_nothing() {
    let mut place = place(2, Some(Duration::from_secs(11))).await;
    place.cluster.wait_for(2, never(), |_| {}).await.unwrap();
    let test = test(&place.limiter, 6, Duration::from_secs(15)).await;
    let ended = place.cluster.run(&test, never(), |_| {}).await.unwrap();
    assert!(ended.workers > 2, "{} took part", ended.workers);
    assert_eq!(ended.lost, []);
    assert_eq!(admitted(&ended.report), taken(&place.limiter).await);
}

#[tokio::test]
async fn users_end_at_once_when_the_master_is_lost() {
    let mut place = place(1, None).await;
    place.cluster.wait_for(1, never(), |_| {}).await.unwrap();
    let test = test(&place.limiter, 4, Duration::from_mins(10)).await;
    let (seen, has_seen) = tokio::sync::oneshot::channel();
    let mut seen = Some(seen);
    let mut cluster = place.cluster;
    let master = tokio::spawn(async move {
        cluster
            .run(&test, never(), |pulse| {
                if pulse.progress.users == 4
                    && let Some(seen) = seen.take()
                {
                    seen.send(()).unwrap();
                }
            })
            .await
    });
    has_seen.await.unwrap();
    master.abort();
    assert!(master.await.is_err());
    let worker = place.tasks.started.lock().unwrap().pop().unwrap();
    let ended = tokio::time::timeout(Duration::from_mins(1), worker)
        .await
        .unwrap();
    assert!(matches!(ended.unwrap(), Err(WorkError::Lost(_))));
    let after = taken(&place.limiter).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(taken(&place.limiter).await, after, "no user is left");
}

#[tokio::test]
async fn peers_that_are_not_workers_harm_no_worker() {
    let mut place = place(2, None).await;
    let address = place.tasks.address;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"\0\0\x01").await.unwrap();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\0\0\0\x04null",
        b"\xff\xff\xff\xff",
        b"\0\0\0\x05[[[[",
    ] {
        let mut peer = TcpStream::connect(address).await.unwrap();
        peer.write_all(garbage).await.unwrap();
        peer.shutdown().await.unwrap();
        // It is closed, or reset.
        let mut answer = Vec::new();
        let _ = peer.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{answer:?}");
    }
    let mut other = place.tasks.clone();
    other.secret = Secret::random().unwrap();
    let refused = other.start().await.unwrap();
    assert!(matches!(refused, Err(WorkError::Handshake(_))), "{refused:?}");
    assert!(place.cluster.wait_for(2, never(), |_| {}).await.unwrap());
    let test = test(&place.limiter, 4, Duration::from_millis(500)).await;
    let ended = place.cluster.run(&test, never(), |_| {}).await.unwrap();
    assert_eq!((ended.workers, ended.lost.len()), (2, 0));
    assert_eq!(admitted(&ended.report), taken(&place.limiter).await);
}

#[tokio::test]
async fn connections_are_bounded() {
    let mut place = place(5, None).await;
    place.cluster.wait_for(5, never(), |_| {}).await.unwrap();
    let refused = place.tasks.start().await.unwrap();
    assert!(matches!(refused, Err(WorkError::Refused(_))), "{refused:?}");
    // Peers without a proof fill all places; one more is closed at once.
    let mut silent = Vec::new();
    let closed = async {
        loop {
            let mut peer = TcpStream::connect(place.tasks.address).await.unwrap();
            let read = tokio::time::timeout(Duration::from_millis(100), peer.read_u8()).await;
            if read.is_ok_and(|read| read.is_err()) {
                return;
            }
            silent.push(peer);
            assert!(silent.len() < 200);
        }
    };
    closed.await;
    assert!(silent.len() >= 64, "{}", silent.len());
    // Those that are connected work on.
    let test = test(&place.limiter, 5, Duration::from_millis(500)).await;
    let ended = place.cluster.run(&test, never(), |_| {}).await.unwrap();
    assert_eq!((ended.workers, ended.lost.len()), (5, 0));
}

#[tokio::test]
async fn what_cannot_begin_says_why() {
    let mut place = place(1, None).await;
    place.cluster.wait_for(1, never(), |_| {}).await.unwrap();
    let mut wrong = test(&place.limiter, 4, Duration::from_mins(10)).await;
    wrong.namespace = "other".to_owned();
    let failed = place.cluster.run(&wrong, never(), |_| {}).await.unwrap_err();
    assert!(failed.to_string().contains("other"), "{failed}");
    // One that listens to a port where nothing comes.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let master = Master::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let mut tasks = place.tasks.clone();
    tasks.address = listener.local_addr().unwrap();
    let options = Options {
        wait: Duration::from_secs(1),
        ..Options::default()
    };
    let mut cluster = master.open(tasks, Scaling::fixed(2), options);
    let few = cluster.wait_for(2, never(), |_| {}).await.unwrap_err();
    assert!(matches!(
        few,
        ClusterError::TooFew {
            connected: 0,
            wanted: 2,
            ..
        }
    ));
    let stopped = cluster.wait_for(2, std::future::ready(()), |_| {}).await;
    assert!(!stopped.unwrap());
}

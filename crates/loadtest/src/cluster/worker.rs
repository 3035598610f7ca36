//! A worker: users on this process, as many as the master assigns.

use std::future::Future;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use zae_limiter::RateLimiter;

use super::frame::{self, FrameError, LARGEST};
use super::handshake::{HandshakeError, Secret, greet};
use super::message::{RunId, Start, ToMaster, ToWorker, WorkerId};
use super::users::Users;
use crate::report::Report;

/// How often the worker looks at what is due.
const TICK: Duration = Duration::from_millis(100);

/// How often measurements are sent, and how often something is sent without a test.
const EVERY: Duration = Duration::from_millis(400);

/// How many series are sent at once: each has at most some 20,000 latencies, so a message stays below its limit.
const SERIES: usize = 8;

/// How long opening the namespace may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the master may take to stop a worker that leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a worker is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name in messages, such as `process 4711`: at most 64 characters of ASCII.
    pub name: String,
    /// How long the master may be silent.
    pub silence: Duration,
    /// When it leaves, if its life is limited.
    pub leaves_after: Option<Duration>,
}

/// Why a worker's part ended early.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The peer is not the master, or does not accept this worker.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The master does not take it.
    #[error("the master refused this worker: {0}")]
    Refused(String),
    /// The connection broke off.
    #[error("the master was lost: {0}")]
    Lost(#[from] FrameError),
    /// The namespace of the test cannot be used.
    #[error("the namespace '{namespace}' cannot be used: {why}")]
    Namespace {
        /// Its name.
        namespace: String,
        /// Why.
        why: String,
    },
}

/// Works for the master on this connection until the master closes it, or until the worker's life is over.
///
/// `open` opens a namespace of the table. If the master is lost in the course of a test, all users end at once.
///
/// # Errors
/// [`WorkError`], also if the master was lost in the course of a test.
pub async fn work<F>(
    mut stream: TcpStream,
    secret: &Secret,
    settings: &Settings,
    open: impl Fn(String) -> F,
) -> Result<(), WorkError>
where
    F: Future<Output = Result<RateLimiter, String>>,
{
    let _ = stream.set_nodelay(true);
    greet(&mut stream, secret, &settings.name).await?;
    let (from, to) = stream.into_split();
    let (said, mut heard) = mpsc::channel(64);
    let (lost, is_lost) = watch::channel(false);
    let mut reader = JoinSet::new();
    reader.spawn(hear(from, settings.silence, said, lost));
    let worker = match heard.recv().await {
        Some(Ok(ToWorker::Welcome { worker })) => worker,
        Some(Ok(ToWorker::Refused { why })) => return Err(WorkError::Refused(why)),
        Some(Ok(_)) => return Err(HandshakeError::Invalid("it is not a welcome").into()),
        Some(Err(err)) => return Err(err.into()),
        None => return Err(FrameError::Closed.into()),
    };
    let began = Instant::now();
    let mut at_work = AtWork {
        worker,
        to,
        silence: settings.silence,
        is_lost,
        run: None,
        last_sent: began,
        asked: false,
        leaving_since: None,
    };
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            biased;
            message = heard.recv() => Some(message),
            _ = tick.tick() => None,
        };
        match message {
            Some(Some(Ok(message))) => {
                if !at_work.follow(message, &open).await? {
                    return Ok(());
                }
            }
            // Without a test, the master may leave.
            Some(Some(Err(FrameError::Closed)) | None) if at_work.run.is_none() => return Ok(()),
            Some(Some(Err(err))) => return Err(err.into()),
            Some(None) => return Err(FrameError::Closed.into()),
            None => {
                let ends = settings
                    .leaves_after
                    .is_some_and(|after| began.elapsed() >= after);
                if !at_work.tick(ends).await? {
                    return Ok(());
                }
            }
        }
    }
}

async fn hear(
    mut from: OwnedReadHalf,
    silence: Duration,
    said: mpsc::Sender<Result<ToWorker, FrameError>>,
    lost: watch::Sender<bool>,
) {
    loop {
        let message = frame::read(&mut from, LARGEST, silence).await;
        let is_lost = message.is_err();
        if is_lost {
            lost.send_replace(true);
        }
        if said.send(message).await.is_err() || is_lost {
            return;
        }
    }
}

/// A worker after its welcome.
struct AtWork {
    worker: WorkerId,
    to: OwnedWriteHalf,
    silence: Duration,
    is_lost: watch::Receiver<bool>,
    run: Option<(RunId, Users)>,
    last_sent: Instant,
    /// Whether users were asked for their time, which is sent with the next measurements.
    asked: bool,
    leaving_since: Option<Instant>,
}

impl AtWork {
    async fn send(&mut self, message: ToMaster) -> Result<(), FrameError> {
        self.last_sent = Instant::now();
        frame::write(&mut self.to, &message, self.silence).await
    }

    /// Does what the master says. Returns whether there is more to do.
    async fn follow<F>(&mut self, message: ToWorker, open: &impl Fn(String) -> F) -> Result<bool, WorkError>
    where
        F: Future<Output = Result<RateLimiter, String>>,
    {
        match message {
            ToWorker::Start(start) => self.start(*start, open).await?,
            ToWorker::Assign { run, users, rate } => {
                if let Some((current, crowd)) = &mut self.run
                    && *current == run
                {
                    crowd.resize(&users, rate);
                }
            }
            ToWorker::Stop { run } => {
                self.stop(run).await?;
                return Ok(self.leaving_since.is_none());
            }
            ToWorker::Alive | ToWorker::Welcome { .. } | ToWorker::Refused { .. } => {}
        }
        Ok(true)
    }

    async fn start<F>(&mut self, start: Start, open: &impl Fn(String) -> F) -> Result<(), WorkError>
    where
        F: Future<Output = Result<RateLimiter, String>>,
    {
        // A test that was not stopped has ended without this worker.
        self.run = None;
        let run = start.run;
        let mut is_lost = self.is_lost.clone();
        let opened = tokio::select! {
            opened = timeout(OPEN_TIMEOUT, open(start.namespace.clone())) => opened,
            _ = is_lost.wait_for(|is_lost| *is_lost) => return Err(FrameError::Closed.into()),
        };
        let opened =
            opened.unwrap_or_else(|_| Err(format!("it took more than {} s", OPEN_TIMEOUT.as_secs())));
        match opened {
            Ok(limiter) => {
                self.run = Some((run, Users::new(&limiter, &start, self.worker)));
                self.send(ToMaster::Ready { run }).await?;
                Ok(())
            }
            Err(why) => {
                let failed = ToMaster::Failed {
                    run,
                    why: why.clone(),
                };
                self.send(failed).await?;
                Err(WorkError::Namespace {
                    namespace: start.namespace,
                    why,
                })
            }
        }
    }

    /// Ends users after their calls, and sends the rest.
    async fn stop(&mut self, run: RunId) -> Result<(), WorkError> {
        if let Some((current, mut users)) = self.run.take() {
            let mut is_lost = self.is_lost.clone();
            tokio::select! {
                () = users.end() => {}
                _ = is_lost.wait_for(|is_lost| *is_lost) => return Err(FrameError::Closed.into()),
            }
            self.report(current, &mut users).await?;
        }
        Ok(self.send(ToMaster::Done { run }).await?)
    }

    /// Sends what is due. `ends` says that the worker's life is about to end. Returns whether there is more to do.
    async fn tick(&mut self, ends: bool) -> Result<bool, WorkError> {
        if ends && self.leaving_since.is_none() {
            self.leaving_since = Some(Instant::now());
            self.send(ToMaster::Leaving).await?;
        }
        if self
            .leaving_since
            .is_some_and(|since| since.elapsed() >= LEAVE_TIMEOUT)
        {
            if let Some((run, _)) = self.run {
                self.stop(run).await?;
            }
            return Ok(false);
        }
        if self.last_sent.elapsed() < EVERY {
            return Ok(true);
        }
        match self.run.take() {
            // Users add their time now, and all is sent with the next tick.
            Some((run, users)) if !self.asked => {
                users.ask_for_times();
                self.asked = true;
                self.run = Some((run, users));
            }
            Some((run, mut users)) => {
                self.asked = false;
                let sent = self.report(run, &mut users).await;
                self.run = Some((run, users));
                sent?;
            }
            None => self.send(ToMaster::Alive).await?,
        }
        Ok(true)
    }

    async fn report(&mut self, run: RunId, users: &mut Users) -> Result<(), FrameError> {
        let mut whole = users.measured();
        let pieces = std::mem::take(&mut whole.stats).pieces(SERIES);
        let rest = Report {
            interrupted: false,
            elapsed: whole.elapsed,
            cpu: whole.cpu.map(|_| Duration::ZERO),
            ..Report::of_nothing()
        };
        let mut sums = Some(whole);
        for stats in pieces {
            let part = Report {
                stats,
                ..sums.take().unwrap_or_else(|| rest.clone())
            };
            let measured = ToMaster::Measured {
                run,
                users: users.len(),
                part: Box::new(part),
            };
            self.send(measured).await?;
        }
        Ok(())
    }
}

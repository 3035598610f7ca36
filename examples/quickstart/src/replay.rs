//! Makes the planned calls, in order of time: takes tokens, lets the call run, and corrects the estimate or rolls
//! back. A refused call is retried once, after the wait that the refusal returned.
//!
//! Limits refill in real time, so a trace that is replayed faster than recorded would be limited differently.
//! This module therefore sets the repository's clock from event to event. Decisions are those of the recorded time, and
//! equal in every run with the same seed. Applications do not set a clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tokio::time::Instant;
use zae_limiter::clock::{Clock as _, ManualClock};
use zae_limiter::table::RequestCost;
use zae_limiter::{Error, Lease, LimitStatus, RateLimitExceeded, RateLimiter};
use zae_limiter_core::EpochMillis;

use crate::Failure;
use crate::books::Books;
use crate::plan::Call;
use crate::progress::Progress;
use crate::setup::{LIMITS, MODEL, key};
use crate::speed::Speed;

/// How the calls went.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    pub(crate) arrived: u64,
    pub(crate) admitted_at_once: u64,
    pub(crate) admitted_later: u64,
    pub(crate) given_up: u64,
    pub(crate) never_possible: u64,
    pub(crate) committed: u64,
    pub(crate) rolled_back: u64,
    /// Refusals that returned a wait.
    pub(crate) promised: u64,
    /// Retries that were refused because other calls had taken the tokens.
    pub(crate) overtaken: u64,
    /// Retries that were refused by a limit that the first refusal had not checked. A refusal from memory checks only
    /// limits that were read within the last second.
    pub(crate) unforeseen: u64,
    pub(crate) admitting: Cost,
    pub(crate) refusing: Cost,
    pub(crate) correcting: Cost,
    /// Retries that were refused although no call had taken tokens: a wrong wait, which is a bug.
    pub(crate) broken: Vec<String>,
}

impl Totals {
    /// Lists the sums that do not agree.
    pub(crate) fn faults(&self) -> Vec<String> {
        let admitted = self.admitted_at_once + self.admitted_later;
        let mut faults = Vec::new();
        if self.arrived != admitted + self.given_up + self.never_possible {
            faults.push(format!(
                "of {} requests, {admitted} were admitted, {} given up and {} never possible",
                self.arrived, self.given_up, self.never_possible
            ));
        }
        if admitted != self.committed + self.rolled_back {
            faults.push(format!(
                "of {admitted} leases, {} were committed and {} rolled back",
                self.committed, self.rolled_back
            ));
        }
        faults.extend(self.broken.iter().cloned());
        faults
    }
}

/// What one kind of step cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) times: u64,
    pub(crate) requests: u64,
    pub(crate) write_units: f64,
    pub(crate) read_units: f64,
}

impl Cost {
    fn add(&mut self, usage: &RequestCost) {
        self.times += 1;
        self.requests += usage.requests();
        self.write_units += usage.write_units;
        self.read_units += usage.read_units;
    }

    /// The cost of so many steps: what was used beside these.
    fn of_rest(all: &RequestCost, others: [&Self; 2], times: u64) -> Self {
        let mut rest = Self::default();
        rest.add(all);
        for other in others {
            rest.requests = rest.requests.saturating_sub(other.requests);
            rest.write_units -= other.write_units;
            rest.read_units -= other.read_units;
        }
        Self { times, ..rest }
    }
}

/// An event at a time. Events of the same time are ordered as planned.
struct Event {
    when: (i64, u64),
    what: What,
}

enum What {
    /// A call is made.
    Arrives(Call),
    /// A refused call is retried after its wait.
    Returns(Call, Promise),
    /// An admitted call ends.
    Ends(Call, Box<Lease>),
}

/// A refusal that says when to come back.
struct Promise {
    refused: RateLimitExceeded,
    /// How often the accounts of the key and the project had been debited at that time.
    debits: [u64; 2],
}

impl Promise {
    /// Whether it checked the limit that refuses now. Of a split bucket it may have checked another shard.
    fn covers(&self, now: &RateLimitExceeded) -> bool {
        let what = |status: &LimitStatus| (status.entity.clone(), status.limit_name.clone(), status.shards);
        let looked_at: Vec<_> = self.refused.statuses().iter().map(what).collect();
        now.violations()
            .any(|status| status.shards == 1 && looked_at.contains(&what(status)))
    }
}

/// A running replay.
pub(crate) struct Replay<'a> {
    limiter: &'a RateLimiter,
    clock: ManualClock,
    start: SystemTime,
    books: &'a mut Books,
    events: BinaryHeap<Reverse<Event>>,
    planned: u64,
    totals: Totals,
    /// How long corrections wait for a request that carries them.
    delay: Duration,
    /// Leases that are ending, if there is a delay.
    ending: JoinSet<Result<(), Error>>,
}

impl<'a> Replay<'a> {
    /// Plans the calls, from the clock's time on.
    pub(crate) fn new(
        limiter: &'a RateLimiter,
        clock: ManualClock,
        books: &'a mut Books,
        calls: &[Call],
        delay: Duration,
    ) -> Self {
        let mut replay = Self {
            limiter,
            start: clock.now(),
            clock,
            books,
            events: BinaryHeap::with_capacity(calls.len()),
            planned: 0,
            totals: Totals::default(),
            delay,
            ending: JoinSet::new(),
        };
        for call in calls {
            replay.schedule(call.at_ms, What::Arrives(*call));
        }
        replay
    }

    /// Runs to the last event. Returns the totals, and how long the clock ran.
    pub(crate) async fn run(
        mut self,
        speed: Speed,
        mut progress: Progress,
    ) -> Result<(Totals, Duration), Failure> {
        let began = Instant::now();
        let cost_before = self.limiter.repository().request_cost();
        while let Some(Reverse(Event {
            when: (at_ms, _),
            what,
        })) = self.events.pop()
        {
            if let Some(pause) = speed.wall_time(at_ms) {
                tokio::time::sleep_until(began + pause).await;
            }
            let passed = Duration::from_millis((at_ms - self.elapsed_ms()).max(0).unsigned_abs());
            self.clock.advance(passed);
            if !self.delay.is_zero() {
                tokio::time::advance(passed).await;
            }
            progress.show(at_ms, &self.totals);
            match what {
                What::Arrives(call) => {
                    self.totals.arrived += 1;
                    self.acquire(call, None).await?;
                }
                What::Returns(call, promise) => self.acquire(call, Some(promise)).await?,
                What::Ends(call, lease) => self.finish(call, *lease).await?,
            }
        }
        drop(progress);
        self.limiter.repository().drain().await;
        while let Some(ended) = self.ending.join_next().await {
            ended.unwrap_or_else(|err| std::panic::resume_unwind(err.into_panic()))?;
        }
        if !self.delay.is_zero() {
            // Corrections were written at any time, also with admissions.
            let all = self.limiter.repository().request_cost().since(&cost_before);
            let others = [&self.totals.admitting, &self.totals.refusing];
            self.totals.correcting = Cost::of_rest(&all, others, self.totals.correcting.times);
        }
        let lasted = Duration::from_millis(self.elapsed_ms().unsigned_abs());
        Ok((self.totals, lasted))
    }

    /// Takes a request and the estimated tokens, both or neither, from the key and its project.
    async fn acquire(&mut self, call: Call, promised: Option<Promise>) -> Result<(), Failure> {
        let before = self.limiter.repository().request_cost();
        let result = self
            .limiter
            .acquire(key(call.key), MODEL)
            .consume("rpm", 1)
            .consume("tpm", call.estimate)
            .await;
        let usage = self.limiter.repository().request_cost().since(&before);
        let debits = self.books.charged(call.key).map(|account| account.debits);
        match result {
            Ok(lease) => {
                self.totals.admitting.add(&usage);
                match promised {
                    None => self.totals.admitted_at_once += 1,
                    Some(_) => self.totals.admitted_later += 1,
                }
                self.count_debit(call.key);
                self.schedule(
                    self.elapsed_ms() + call.takes_ms,
                    What::Ends(call, Box::new(lease)),
                );
            }
            Err(Error::RateLimitExceeded(refused)) => {
                self.totals.refusing.add(&usage);
                self.count_refusal(call.key, &refused);
                match (promised, refused.retry_after()) {
                    (_, None) => self.totals.never_possible += 1,
                    (None, Some(wait)) => {
                        self.totals.promised += 1;
                        let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
                        let back_at = self.elapsed_ms().saturating_add(wait_ms);
                        self.schedule(back_at, What::Returns(call, Promise { refused, debits }));
                    }
                    (Some(promise), Some(_)) => {
                        self.totals.given_up += 1;
                        // Corrections that were due later have changed the bucket, too.
                        if promise.debits != debits || !self.delay.is_zero() {
                            self.totals.overtaken += 1;
                        } else if !promise.covers(&refused) {
                            self.totals.unforeseen += 1;
                        } else {
                            let (then, now) = (told(&promise.refused), told(&refused));
                            let fault =
                                format!("no call took tokens, but the wait was wrong: {then}; then {now}");
                            self.totals.broken.push(fault);
                        }
                    }
                }
            }
            Err(err) => return Err(err.into()),
        }
        Ok(())
    }

    /// Rolls back if the call failed. Otherwise replaces the estimate by the tokens that the model reports, which may lead
    /// to a debt, and commits.
    async fn finish(&mut self, call: Call, mut lease: Lease) -> Result<(), Failure> {
        let before = self.limiter.repository().request_cost();
        if call.fails {
            self.end(lease.rollback()).await?;
            self.totals.rolled_back += 1;
        } else {
            lease.adjust_to("tpm", call.used)?;
            let held = LIMITS.map(|limit| lease.consumed(limit).cast_signed());
            self.end(lease.commit()).await?;
            self.totals.committed += 1;
            for account in self.books.charged(call.key) {
                for (spending, held) in account.spending.iter_mut().zip(held) {
                    spending.used += held;
                }
            }
        }
        self.totals
            .correcting
            .add(&self.limiter.repository().request_cost().since(&before));
        if !call.fails && call.used > call.estimate && self.delay.is_zero() {
            self.count_debit(call.key);
            self.look_for_debt(call.key).await?;
        }
        Ok(())
    }

    /// Ends a lease: at once, or in the background if its correction may wait.
    async fn end(
        &mut self,
        ending: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) -> Result<(), Failure> {
        if self.delay.is_zero() {
            return Ok(ending.await?);
        }
        self.ending.spawn(ending);
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Counts the refusal for the account that owns the limit.
    fn count_refusal(&mut self, key: usize, refused: &RateLimitExceeded) {
        for account in self.books.charged(key) {
            for violation in refused
                .violations()
                .filter(|status| status.entity.as_str() == account.id)
            {
                if let Some(i) = LIMITS.iter().position(|limit| violation.limit_name == *limit) {
                    account.spending[i].refused += 1;
                }
            }
        }
    }

    fn count_debit(&mut self, key: usize) {
        for account in self.books.charged(key) {
            account.debits += 1;
        }
    }

    async fn look_for_debt(&mut self, rank: usize) -> Result<(), Failure> {
        for status in self.limiter.check(key(rank), MODEL).await?.statuses {
            for account in self.books.charged(rank) {
                let limit = LIMITS.iter().position(|limit| status.limit_name == *limit);
                if let Some(i) = limit.filter(|_| status.entity.as_str() == account.id) {
                    let debt = &mut account.spending[i].owed_at_most;
                    *debt = (*debt).max(-status.available);
                }
            }
        }
        Ok(())
    }

    fn schedule(&mut self, at_ms: i64, what: What) {
        self.planned += 1;
        self.events.push(Reverse(Event {
            when: (at_ms, self.planned),
            what,
        }));
    }

    fn elapsed_ms(&self) -> i64 {
        EpochMillis::from(self.clock.now()).since(self.start.into())
    }
}

/// A refusal with every limit that was checked.
fn told(refused: &RateLimitExceeded) -> String {
    let status = |status: &LimitStatus| {
        let LimitStatus {
            entity,
            limit_name,
            available,
            requested,
            wait,
            ..
        } = status;
        format!("{entity} {limit_name} has {available} of {requested} ({wait:?})")
    };
    let statuses: Vec<String> = refused.statuses().iter().map(status).collect();
    statuses.join(", ")
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.when == other.when
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.when.cmp(&other.when)
    }
}

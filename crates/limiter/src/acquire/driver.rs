//! Drives the state machines of the core: sends what they ask for, feeds what comes back.
//!
//! This is the only place where an acquire meets time, sleep, randomness and the table. A drive owns its
//! requests in flight. If it is dropped before the end (a cancelled future, a deadline), it tells the machine that
//! the tokens are not wanted any more. Requests that have not been sent, and reads, are dropped with it: they took
//! nothing. Writes that have been sent move to the background and are finished there, so that whatever turns out to
//! have been taken is given back.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tracing::Instrument as _;
use zae_limiter_core::acquire::{
    Acquire, AcquireError, Ask, Call, Debit, Decision, Found, Grant, Hint, Reply, Request, next_round_trip,
    refilled_by, refused_from_memory,
};
use zae_limiter_core::config::OnUnavailable;
use zae_limiter_core::credit::{Credit, CreditEnd, Send};
use zae_limiter_core::outage::breaker::Pass;
use zae_limiter_core::sync::Drift;
use zae_limiter_core::table::{Answer, Applied, FailureKind, Op, TableError};
use zae_limiter_core::{Bucket, EntityId, EpochMillis, RateLimitExceeded, ResourceName};

use crate::acquire::draws::FastRandom;
use crate::acquire::groups::{Ticket, Turn};
use crate::acquire::outage::breaker::is_refusal;
use crate::acquire::permits::Permit;
use crate::acquire::refunds::queues::{Correction, log_credit};
use crate::acquire::refunds::{Haste, enqueue};
use crate::error::{Error, Last};
use crate::inner::Inner;
use crate::telemetry::{Sent, correction_span, record_end};

/// How long one sending of a credit waits for its answer, if the table sets no limit of its own: a sending that
/// never ends would hold up the corrections that wait behind it.
pub(crate) const CREDIT_ANSWER: Duration = Duration::from_secs(10);

/// The answer to a credit that was waited for so long.
pub(crate) fn no_answer() -> TableError {
    TableError::new(
        FailureKind::Timeout,
        Applied::Unknown,
        format!("no answer to a credit within {} s", CREDIT_ANSWER.as_secs()),
    )
}

/// The refunds that an acquire sends itself, in the log.
pub(crate) const COMPENSATION: &str = "compensation";

/// A reply, and when its request left, if it was an operation on the table.
pub(crate) type Heard = (Reply, Option<EpochMillis>);
type InFlight = Pin<Box<dyn Future<Output = Heard> + std::marker::Send + 'static>>;
type Waiting =
    Pin<Box<dyn Future<Output = Result<Option<Permit>, TableError>> + std::marker::Send + 'static>>;

/// The kind of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// Reads the configuration of this entity for this resource.
    Config(EntityId, ResourceName),
    /// Reads items.
    Read,
    /// May take tokens.
    Write,
    /// Waits for a refund, which its queue sends.
    Refund,
}

impl Kind {
    fn of(op: &Op) -> Self {
        match op {
            Op::Get { .. } | Op::BatchGet { .. } | Op::Query(_) => Self::Read,
            Op::Put(_) | Op::Update(_) | Op::Delete(_) | Op::BatchDelete(_) | Op::Transact(_) => Self::Write,
        }
    }
}

/// One request of a machine.
struct Flight {
    /// The machine's name for it.
    id: usize,
    kind: Kind,
    /// The wait before it is sent; after an error it is not sent.
    wait: Option<Waiting>,
    request: InFlight,
    /// The permits of a request to the table, held until it ends.
    permit: Option<Permit>,
    /// Whether it has been sent.
    sent: bool,
    /// Of a debit that others send: whether it is sent stands there.
    ticket: Option<Ticket>,
}

impl Flight {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        if let Some(wait) = &mut self.wait {
            match std::task::ready!(wait.as_mut().poll(cx)) {
                Ok(permit) => self.permit = permit,
                Err(refusal) => return Poll::Ready((Reply::Table(Err(refusal)), None)),
            }
            self.wait = None;
        }
        self.sent = true;
        self.request.as_mut().poll(cx)
    }

    /// Whether a write may be at the table.
    fn is_open(&self) -> bool {
        let sent = match &self.ticket {
            Some(ticket) => ticket.is_sent(),
            None => self.sent,
        };
        sent && self.kind == Kind::Write
    }

    /// The reply to a request that was dropped: it changed nothing.
    fn dropped(&self) -> Reply {
        match self.kind {
            Kind::Config(..) => Reply::Config(Err(AcquireError::Abandoned)),
            Kind::Refund => Reply::GivenBack,
            Kind::Read | Kind::Write => Reply::Table(Err(TableError::new(
                FailureKind::Unreachable,
                Applied::No,
                "the request was not sent, because the caller stopped waiting",
            ))),
        }
    }
}

/// The requests of one machine that are in flight.
#[derive(Default)]
struct Flights(Vec<Flight>);

impl Flights {
    /// Waits for the next reply.
    async fn next(&mut self) -> Option<(usize, Kind, Heard)> {
        if self.0.is_empty() {
            return None;
        }
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, Kind, Heard)>> {
        for i in 0..self.0.len() {
            if let Poll::Ready(reply) = self.0[i].poll(cx) {
                let Flight { id, kind, .. } = self.0.swap_remove(i);
                return Poll::Ready(Some((id, kind, reply)));
            }
        }
        Poll::Pending
    }
}

/// The reaction of a drive to a failure while the circuit breaker is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// It retries until its deadline.
    Deadline,
    /// It ends where the policy for outages can decide without the table: the call's policy, if it brought one.
    Policy(Option<OnUnavailable>),
    /// It ends: it was refused by the breaker, when it began or while it waited for a permit, or it is the probe.
    Probe,
}

/// An acquire on its way.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, not a state"
)]
pub(crate) struct Drive {
    inner: Arc<Inner>,
    /// The first resource of the call.
    resource: ResourceName,
    /// Whether the call brought limits of its own.
    overridden: bool,
    /// `None` once it has ended.
    acquire: Option<Acquire>,
    flights: Flights,
    order: u64,
    patience: Patience,
    /// The last failure that was heard.
    last: Last,
    /// Whether an answer to a write was lost.
    lost_answer: bool,
    /// Set to end before the machine does.
    ends_with: Option<TableError>,
    /// Whether it runs in the background already: dropped there, the runtime is ending and it ends too.
    in_background: bool,
    /// Whether an admission counts on the parent's tokens that the caller has.
    is_paid: bool,
    /// The requests that were answered.
    answered: Sent,
}

impl Drive {
    pub(crate) fn new(inner: &Arc<Inner>, request: Request) -> Self {
        Self {
            inner: Arc::clone(inner),
            resource: request.id.resource.clone(),
            overridden: request.limits.is_some(),
            acquire: Some(Acquire::new(request)),
            flights: Flights::default(),
            order: inner.next_order(),
            patience: Patience::Deadline,
            last: Last::Nothing,
            lost_answer: false,
            ends_with: None,
            in_background: false,
            is_paid: false,
            answered: Sent::default(),
        }
    }

    /// Lets the policy for outages decide as soon as the circuit breaker opens, unless it is to refuse. `call` is the
    /// call's policy, if it brought one.
    pub(crate) fn under_policy(mut self, call: Option<OnUnavailable>) -> Self {
        self.patience = Patience::Policy(call);
        self
    }

    /// Starts with the failure that an earlier attempt of the same call ended with.
    pub(crate) fn after(mut self, failure: TableError) -> Self {
        self.last = Last::Cause(failure);
        self
    }

    /// Whether the circuit breaker refused it, or it was the probe.
    pub(crate) fn met_open_breaker(&self) -> bool {
        self.patience == Patience::Probe
    }

    /// Whether its admission counts on the parent's tokens that the caller has.
    pub(crate) fn is_paid(&self) -> bool {
        self.is_paid
    }

    /// The requests to the table that it has sent: those that were answered, and writes that were not. Reads of configuration,
    /// which calls share, and refunds are not counted.
    pub(crate) fn sent(&self) -> Sent {
        let mut sent = self.answered;
        for _ in self.flights.0.iter().filter(|flight| flight.is_open()) {
            sent.add(true);
        }
        sent
    }

    /// Whether tokens may have been taken.
    fn in_doubt(&self) -> bool {
        let holds = self.acquire.as_ref().is_some_and(Acquire::holds_tokens);
        holds || self.lost_answer || self.flights.0.iter().any(Flight::is_open)
    }

    /// Takes back debits that wait for others, so that they are not sent after it was said that nothing is in doubt.
    fn withdraw(&self) {
        for ticket in self.flights.0.iter().filter_map(|flight| flight.ticket.as_ref()) {
            ticket.withdraw();
        }
    }

    /// The error if the deadline strikes now, `after` the call began.
    pub(crate) fn gave_up(&self, after: Duration) -> Error {
        self.withdraw();
        let in_doubt = self.in_doubt();
        let of_config = || {
            self.flights.0.iter().find_map(|flight| match &flight.kind {
                Kind::Config(entity, resource) => self.inner.config.last_failure(entity, resource),
                Kind::Read | Kind::Write | Kind::Refund => None,
            })
        };
        let last = match self.last.clone() {
            Last::Nothing => of_config().map_or_else(
                || self.inner.permits.exhausted().map_or(Last::Nothing, Last::Queue),
                Last::Cause,
            ),
            last => last,
        };
        let last = if in_doubt { last.before() } else { last };
        self.inner.place.gave_up(after, in_doubt, last)
    }

    /// Runs to the decision. While the circuit breaker is open it fails at once, unless it is the probe.
    ///
    /// # Cancellation
    /// Drop this future and the drive, and what has been taken is given back in the background.
    pub(crate) async fn run(&mut self) -> Decision {
        match self.inner.breaker.pass() {
            Pass::Free => {}
            Pass::Probe => self.patience = Patience::Probe,
            Pass::Refused { since, next } => {
                self.patience = Patience::Probe;
                self.acquire = None;
                let err = self.inner.breaker.refusal(since, next, self.inner.clock.now());
                return Decision::Failed(err.into());
            }
        }
        if let Some(acquire) = &mut self.acquire {
            let now = self.inner.clock.now();
            let known = |entity: &EntityId, resource: &ResourceName| {
                let config = self.inner.config.peek(entity, resource, now)?;
                let hint = self.inner.hint(entity, resource, now);
                Some(Found { config, hint })
            };
            let calls = acquire.start(&known, now, &mut &self.inner.options.draws);
            self.send(calls);
        }
        self.finish().await
    }

    async fn finish(&mut self) -> Decision {
        while let Some((id, kind, (reply, left))) = self.flights.next().await {
            if left.is_some() {
                self.answered.add(kind == Kind::Write);
            }
            if let (Some(acquire), Some(left)) = (&mut self.acquire, left) {
                acquire.left(id, left);
            }
            self.feed(id, reply);
            let is_settled = self.acquire.as_ref().is_some_and(Acquire::is_settled);
            if let Some(mut err) = self.ends_with.take().filter(|_| !is_settled) {
                // Another leg's write may be at the table.
                self.withdraw();
                if self.in_doubt() {
                    err.applied = Applied::Unknown;
                }
                return Decision::Failed(err.into());
            }
        }
        let Some(acquire) = self.acquire.take() else {
            return lost();
        };
        self.is_paid = acquire.is_paid();
        if acquire.is_local() && matches!(acquire.decision(), Some(Decision::Rejected(_))) {
            self.inner.count_local_rejection();
        }
        acquire.finish().unwrap_or_else(lost)
    }

    /// Takes note of a failure; decides whether the drive ends with it.
    fn note(&mut self, id: usize, reply: &Reply) {
        let (Reply::Table(Err(err)) | Reply::Config(Err(AcquireError::Table(err)))) = reply else {
            if !matches!(reply, Reply::Waited | Reply::GivenBack) {
                self.last = std::mem::take(&mut self.last).before();
            }
            return;
        };
        self.last = Last::Cause(err.clone());
        self.lost_answer |= err.applied == Applied::Unknown;
        if is_refusal(err) {
            self.patience = Patience::Probe;
        }
        let gives_back = self.gives_back(id);
        if gives_back || self.in_background || !err.is_outage() || !self.inner.breaker.is_open() {
            return;
        }
        let ends = match self.patience {
            Patience::Deadline => false,
            Patience::Probe => true,
            Patience::Policy(call) => {
                let entity = self.acquire.as_ref().map(|acquire| &acquire.request().id.entity);
                entity.is_some_and(|entity| {
                    self.inner.policy(call, entity, &self.resource) != OnUnavailable::Block
                })
            }
        };
        if ends {
            self.ends_with = Some(err.clone());
        }
    }

    fn feed(&mut self, id: usize, reply: Reply) {
        self.note(id, &reply);
        let Some(acquire) = &mut self.acquire else { return };
        let now = self.inner.clock.now();
        let calls = acquire.answer(id, reply, now, &mut &self.inner.options.draws);
        for observation in acquire.take_observations() {
            self.inner.images.observe(&observation, self.order, now);
            if !self.overridden {
                self.inner.note_drift(&observation);
            }
        }
        self.send(calls);
    }

    /// Sends calls.
    fn send(&mut self, calls: Vec<Call>) {
        for call in calls {
            match call.ask {
                Ask::Config {
                    entity,
                    resource,
                    fresh,
                } => {
                    let kind = Kind::Config(entity.clone(), resource.clone());
                    let reply = fetch(Arc::clone(&self.inner), entity, resource, fresh);
                    self.push(call.id, kind, None, Box::pin(reply));
                }
                Ask::Wait => {
                    let pause = self.pause(call.id, call.delay_ms);
                    let wait: Waiting = Box::pin(async move {
                        pause.await;
                        Ok(None)
                    });
                    self.push(
                        call.id,
                        Kind::Read,
                        Some(wait),
                        Box::pin(async { (Reply::Waited, None) }),
                    );
                }
                Ask::GiveBack(grant) => {
                    let refund = give_back(&self.inner, &grant);
                    // In the background, nothing waits for the outcome.
                    let is_awaited = !self.in_background;
                    let reply = async move {
                        if is_awaited {
                            refund.await;
                        }
                        (Reply::GivenBack, None)
                    };
                    self.push(call.id, Kind::Refund, None, Box::pin(reply));
                }
                Ask::Debit(debit) => self.debit(call.id, *debit),
                Ask::Table(op) => {
                    let kind = Kind::of(&op);
                    let request: InFlight = Box::pin(Arc::clone(&self.inner).ask_table(op));
                    self.push_request(call.id, call.delay_ms, kind, request);
                }
            }
        }
    }

    /// Sends a debit: at once, or with others of its shard.
    fn debit(&mut self, id: usize, debit: Debit) {
        let joins = self.inner.options.group_commit && self.patience != Patience::Probe;
        let (alone, debit) = if joins {
            match self.inner.turn(debit) {
                Turn::Waits(ticket, heard) => {
                    self.push(id, Kind::Write, None, Box::pin(heard));
                    if let Some(flight) = self.flights.0.last_mut() {
                        flight.ticket = Some(ticket);
                    }
                    return;
                }
                Turn::Alone(alone, debit) => (Some(alone), debit),
            }
        } else {
            (None, debit)
        };
        let inner = Arc::clone(&self.inner);
        let request: InFlight = Box::pin(async move {
            let _alone = alone;
            let op = Op::Update(debit.update(inner.clock.now()));
            inner.ask_table(op).await
        });
        self.push_request(id, 0, Kind::Write, request);
    }

    /// Adds a request that needs a permit.
    fn push_request(&mut self, id: usize, delay_ms: u64, kind: Kind, request: InFlight) {
        let permit = (delay_ms == 0).then(|| self.inner.permits.try_take()).flatten();
        let wait = permit.is_none().then(|| self.wait_for_permit(id, delay_ms));
        self.flights.0.push(Flight {
            id,
            kind,
            wait,
            request,
            permit,
            sent: false,
            ticket: None,
        });
    }

    fn gives_back(&self, id: usize) -> bool {
        self.acquire
            .as_ref()
            .is_some_and(|acquire| acquire.gives_back(id))
    }

    /// The wait before a request is sent again. While the circuit breaker is open, only refunds are sent when they are
    /// due; others wait until they are the probe, or it is closed.
    fn pause(&self, id: usize, delay_ms: u64) -> impl Future<Output = ()> + use<> {
        let gives_back = self.gives_back(id);
        let breaker = Arc::clone(&self.inner.breaker);
        async move {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            if !gives_back {
                breaker.turn().await;
            }
        }
    }

    /// The wait before a request is sent: its pause, if it has one, and then for a permit.
    fn wait_for_permit(&self, id: usize, delay_ms: u64) -> Waiting {
        let gives_back = self.gives_back(id);
        let pause = (delay_ms > 0).then(|| self.pause(id, delay_ms));
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            if let Some(pause) = pause {
                pause.await;
            }
            if gives_back {
                return Ok(Some(inner.permits.take().await));
            }
            inner.permits.enter(&inner.clock).await.map(Some)
        })
    }

    fn push(&mut self, id: usize, kind: Kind, wait: Option<Waiting>, request: InFlight) {
        self.flights.0.push(Flight {
            id,
            kind,
            wait,
            request,
            permit: None,
            sent: false,
            ticket: None,
        });
    }
}

/// Queues a refund. It is sent whether or not the caller waits for the future.
fn give_back(inner: &Arc<Inner>, grant: &Grant) -> impl Future<Output = ()> + use<> {
    let end = enqueue(inner, Correction::of_all(grant), COMPENSATION, Haste::Now);
    let (id, shard) = (grant.id.clone(), grant.shard);
    async move {
        // Without an outcome the runtime is ending, and the queue has logged what it still held.
        if let Ok(end) = end.await {
            log_credit(&id, shard, &end, COMPENSATION);
        }
    }
}

fn lost() -> Decision {
    Decision::Failed(AcquireError::Abandoned)
}

async fn fetch(inner: Arc<Inner>, entity: EntityId, resource: ResourceName, fresh: bool) -> Heard {
    let config = inner
        .config
        .fetch(&inner.table, &inner.clock, &entity, &resource, fresh)
        .await;
    let hint = inner.hint(&entity, &resource, inner.clock.now());
    let found = config.map(|config| {
        inner.remember_policy(config.on_unavailable);
        Found { config, hint }
    });
    (Reply::Config(found), None)
}

impl Drop for Drive {
    fn drop(&mut self) {
        let Some(mut acquire) = self.acquire.take() else {
            return;
        };
        if self.in_background && !self.flights.0.is_empty() {
            tracing::error!(
                "the runtime ended before an abandoned acquire did; its tokens may stay consumed"
            );
            return;
        }
        acquire.abandon();
        self.withdraw();
        // Only what may have taken tokens, or takes them back, is worth finishing. Refunds end without it.
        let flights = std::mem::take(&mut self.flights);
        let (kept, dropped): (Vec<_>, Vec<_>) = flights.0.into_iter().partition(|flight| {
            let is_left = flight.ticket.as_ref().is_some_and(Ticket::abandon);
            !is_left && (flight.is_open() || acquire.gives_back(flight.id))
        });
        let now = self.inner.clock.now();
        let mut calls = Vec::new();
        for flight in dropped {
            calls.extend(acquire.answer(flight.id, flight.dropped(), now, &mut FastRandom));
        }
        let mut rest = Self {
            inner: Arc::clone(&self.inner),
            resource: self.resource.clone(),
            overridden: self.overridden,
            acquire: Some(acquire),
            flights: Flights(kept),
            order: self.order,
            patience: Patience::Deadline,
            last: Last::Nothing,
            lost_answer: false,
            ends_with: None,
            in_background: true,
            is_paid: false,
            answered: Sent::default(),
        };
        rest.send(calls);
        if rest.flights.0.is_empty() {
            rest.acquire = None;
            return;
        }
        let Some(permit) = self.inner.background.admit_abandoned() else {
            rest.acquire = None;
            if let Some(left_out) = self.inner.log.abandoned.due(now) {
                tracing::warn!(
                    resource = self.resource.as_str(),
                    left_out,
                    "too many abandoned acquires wait for an answer; tokens of this one stay consumed if its debit was applied"
                );
            }
            return;
        };
        self.inner.background.spawn("abandoned acquire", async move {
            let _permit = permit;
            rest.finish().await;
        });
    }
}

impl Inner {
    /// The part of a bucket's cached state that may be used.
    pub(crate) fn hint(&self, entity: &EntityId, resource: &ResourceName, now: EpochMillis) -> Hint {
        Hint {
            round_trip_ms: self.round_trip_ms.load(Ordering::Relaxed),
            ..self.images.hint(&self.bucket_id(entity, resource), now)
        }
    }

    /// The refusal of a call by what is cached: as a drive would decide, but without a machine, requests and timers.
    pub(crate) fn refused_from_memory(&self, request: &Request) -> Option<RateLimitExceeded> {
        // While the circuit breaker may be open, it has the first word.
        if !self.breaker.is_unharmed() {
            return None;
        }
        let (now, hits) = (self.clock.now(), Cell::new(0));
        let known = |entity: &EntityId, resource: &ResourceName| {
            let config = self.config.peek_uncounted(entity, resource, now)?;
            hits.set(hits.get() + 1);
            let hint = self.hint(entity, resource, now);
            Some(Found { config, hint })
        };
        let refused = refused_from_memory(request, &known, now)?;
        self.config.count_hits(hits.get());
        self.count_local_rejection();
        Some(refused)
    }

    /// Sends a request of an acquire, and learns from its answer how long the table takes.
    pub(crate) async fn ask_table(self: Arc<Self>, op: Op) -> Heard {
        let sent = self.clock.now();
        if let Some((id, shard)) = refilled_by(&op) {
            let wait_ms = 2 * self.round_trip_ms.load(Ordering::Relaxed) + 10;
            self.images.refilling(&id, shard, sent.plus(wait_ms));
        }
        self.breaker.sending();
        let answer = self.table.call(op).await;
        self.breaker.hear(&answer);
        if answer.is_ok() {
            self.answered_after(self.clock.now().since(sent));
        }
        (Reply::Table(answer), Some(sent))
    }

    fn answered_after(&self, millis: i64) {
        let next = next_round_trip(self.round_trip_ms.load(Ordering::Relaxed), millis);
        self.round_trip_ms.store(next, Ordering::Relaxed);
    }

    /// Sends a correction to its shard, again where that is safe, until it has ended. `carried` is the answer to a debit's
    /// write that carried its first sending, if one did.
    pub(crate) async fn drive_credit(
        self: Arc<Self>,
        credit: Credit,
        carried: Option<Result<Answer, TableError>>,
    ) -> CreditEnd {
        let span = correction_span(&credit);
        let end = self.send_credit(credit, carried).instrument(span.clone()).await;
        record_end(&span, &end);
        end
    }

    async fn send_credit(
        self: Arc<Self>,
        mut credit: Credit,
        carried: Option<Result<Answer, TableError>>,
    ) -> CreditEnd {
        let now = self.clock.now();
        let mut next = match carried {
            None => credit.start(now),
            Some(Ok(Answer::Refused(Some(item)))) => {
                credit = credit.with_latest(Bucket::decode(&item).ok().map(Arc::new));
                credit.start(now)
            }
            Some(answer) => credit.answer(answer, now, &mut FastRandom),
        };
        while let Some(Send { delay_ms, op }) = next {
            if delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            }
            let answer = self.answer_to_credit(op).await;
            // Numbered by its arrival: the next credit needs the mark that this answer shows, and requests that were
            // sent earlier may have been executed before.
            self.observe_answer(&credit, &answer, self.next_order());
            next = credit.answer(answer, self.clock.now(), &mut FastRandom);
        }
        credit.end().cloned().unwrap_or(CreditEnd::Applied)
    }

    /// Sends a request of a correction or of a place, and waits for its answer while that may take.
    pub(in crate::acquire) async fn answer_to_credit(&self, op: Op) -> Result<Answer, TableError> {
        self.breaker.sending();
        let answer = tokio::time::timeout(CREDIT_ANSWER, self.table.call(op)).await;
        let answer = answer.unwrap_or_else(|_| Err(no_answer()));
        self.breaker.hear(&answer);
        answer
    }

    fn observe_answer(&self, credit: &Credit, answer: &Result<Answer, TableError>, order: u64) {
        if let Ok(Answer::Applied(Some(item)) | Answer::Refused(Some(item))) = answer
            && let Ok(image) = Bucket::decode(item)
        {
            let observation = zae_limiter_core::acquire::Observation {
                id: credit.id().clone(),
                shard: credit.target(),
                image: Arc::new(image),
            };
            self.images.observe(&observation, order, self.clock.now());
        }
    }

    /// Looks whether an image is behind the configuration, and if so brings it up to date in the background.
    fn note_drift(self: &Arc<Self>, observation: &zae_limiter_core::acquire::Observation) {
        let id = &observation.id;
        let Some(config) = self.config.stale(&id.entity, &id.resource) else {
            return;
        };
        if Drift::between(&observation.image, &config, self.clock.now()).is_some() {
            self.reconcile_soon(id.clone(), observation.shard);
        }
    }

    pub(crate) fn next_order(&self) -> u64 {
        self.order.fetch_add(1, Ordering::Relaxed)
    }
}

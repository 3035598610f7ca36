//! Taking tokens from one bucket: one leg of an acquire.
//!
//! ```text
//!            ┌────────────── lost a race, look again ─────────────┐
//!            ▼                                                    │
//!  debit ── refused, image ──► plan ──► refill and debit ─────────┘
//!    │             │             ├────► short: try another shard, or refuse
//!    │             │             ├────► no write units left: double the shards ──► debit a new one
//!    │             │             └────► no shard covers it: debit several at once (`whole`)
//!    │             └ no image ──► create the shard
//!    ▼
//!  taken
//! ```

mod bypass;
mod judge;
mod kin;
mod portions;
mod sessions;
mod shards;
mod whole;

use std::sync::Arc;

use smol_str::SmolStr;

use self::kin::Kin;
use super::debit::{Debit, Refill, undo};
use super::freshness::MAX_ROUND_TRIP_MS;
use super::protocol::{
    Ahead, Ask, DisabledAt, Env, Grant, Hint, Outcome, Reply, Settings, TakeError, check_config,
};
use crate::backoff::{Again, Backoff};
use crate::bucket::Bucket;
use crate::config::{Level, Resolved};
use crate::error::{RecordError, UnsupportedFeature};
use crate::limit::Limit;
use crate::name::{EntityId, ResourceName};
use crate::refill::Wait;
use crate::schema::BucketId;
use crate::table::{Answer, Applied, FailureKind, Item, Op, TableError, Update};
use crate::units::EpochMillis;
use crate::verdict::LimitStatus;
use crate::write::{self, Amounts, Basis, RefillDebit};

/// How many further shards are tried after the first one is short.
const MAX_OTHER_SHARDS: usize = 2;

/// How often a leg looks again after losing a race before the request is refused with a short wait. From the second
/// lost refill on it waits before it looks again, longer each time.
const MAX_RACES: u32 = 16;

/// The longest wait after a lost refill, in milliseconds.
const MAX_RACE_WAIT_MS: i64 = 1000;

/// How many requests a leg may send in all, whatever the table holds; ordinary ones need one or two.
const MAX_SENT: u32 = 50;

/// How a leg ended.
#[derive(Debug, Clone)]
pub(crate) enum TakeEnd {
    /// From one shard, or from several.
    Taken(Vec<Grant>),
    /// Short, with every limit checked.
    Short(Vec<LimitStatus>),
    Disabled(DisabledAt),
    Contended,
    /// It would have taken its tokens, but another leg has not: how its limits stand.
    Withdrawn(Vec<LimitStatus>),
    Failed(TakeError),
}

/// The purpose of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The entity that asks.
    Child,
    /// Its parent, which has a say only on the limits that it has.
    Parent,
    /// Creating one shard, and nothing else.
    Shard,
}

/// How much of its bucket a leg is looking at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The shard that it has drawn.
    One,
    /// That shard and its descendants: its surplus goes to those that do not exist before a refill may cut it.
    Descendants,
    /// All shards, for a request that no single one covers.
    Whole,
}

#[derive(Debug)]
enum State {
    /// A plain debit is out.
    Debit,
    /// A refilling debit is out.
    Refill,
    /// The item is being changed so that the time until it covers the request can be computed: it is given the limits
    /// of this call, dated back from the future, or kept until it has paid its debts.
    Retune,
    /// When some time has passed, this is decided anew.
    Pause(Next),
    /// A fresh configuration was asked for, to create a shard.
    Config,
    /// A fresh configuration was asked for, only to see whether the entity is disabled.
    Look,
    /// The shards that may donate to a new one are being read.
    Family,
    /// All shards are being read.
    Shards,
    /// The shards that may have the quotas and session limits which one gains are being read.
    Kin,
    /// Several shards are being debited at once.
    Portions(Vec<Grant>),
    /// Shards are being given the limits of this call, to compute when they cover them together.
    RetuneAll,
    /// One or more shards are being created. If it is for a bypass, with a stamp until this instant.
    Create { takes: bool, stamp: Option<EpochMillis> },
    /// The shard count is being doubled from this count.
    Double(u32),
    /// Siblings are being updated to a new count; this many answers are missing.
    Propagate(u32),
    /// A debit that cannot be read is being undone.
    Undo(TakeError),
    /// These amounts are being counted under a bypass.
    Count(Amounts),
    /// A fresh configuration was asked for, to see whether there is a bypass.
    Access,
    /// The item is being stamped for a bypass, until this instant.
    Stamp(EpochMillis),
    /// A fresh configuration was asked for, to see whether the bypass of this stamp has ended meanwhile.
    Verify(EpochMillis),
    /// A stamp is being removed; then it fails with this, or debits.
    Unstamp(Option<TakeError>),
}

/// The step after a pause. Instants that a request depends on are those of its sending, so it is built anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Debit the shard.
    Debit,
    /// Count on the shard, under a bypass.
    Count,
    /// Refill it, if the image that was last seen still calls for that.
    Refill,
    /// Create it.
    Create,
    /// Look at all shards.
    Shards,
}

/// One leg of an acquire.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, not a state"
)]
pub(crate) struct Take {
    pub(crate) id: BucketId,
    config: Arc<Resolved>,
    amounts: Amounts,
    /// What is to be taken ahead by the first write.
    ahead: Option<Ahead>,
    /// The amounts that are needed, while a write is on its way that takes more.
    need: Option<Amounts>,
    settings: Settings,
    /// Whether the configuration was read in this very acquire.
    fresh: bool,
    purpose: Purpose,
    shard: u32,
    shard_count: u32,
    tried: Vec<u32>,
    best: Option<Vec<LimitStatus>>,
    /// Whether it [holds back](Self::hold_back).
    holds_back: bool,
    /// How its limits stand, while it does.
    held: Option<Vec<LimitStatus>>,
    /// A shard that has the tokens, but no write units, and its image.
    dry: Option<(u32, Arc<Bucket>)>,
    races: u32,
    /// Refills that lost to another client's.
    lost_refills: u32,
    has_just_lost: bool,
    /// Whether it has waited for another call of this process to create the shard.
    has_waited: bool,
    /// Whether it has looked for other shards where the first one is missing.
    has_counted: bool,
    /// Whether it has found other shards without the first one.
    has_seen_others: bool,
    /// The last image of the shard, if the last debit or refill used it.
    seen: Option<Arc<Bucket>>,
    /// How long the table takes to answer: as the driver knows it, or slower if this leg's own requests were.
    round_trip_ms: i64,
    /// When the last request was due to leave.
    sent_at: EpochMillis,
    sent: u32,
    doubled: bool,
    scope: Scope,
    /// Whether the bucket cannot be looked at as a whole: it has features that are not understood.
    alone: bool,
    /// A shard, at a shard count, whose descendants were all seen to exist: what it holds beyond its share may be cut. With its
    /// birth mark, since the bucket may be deleted and created again meanwhile.
    shared_out: Option<(u32, u32, Option<SmolStr>)>,
    /// The other shards, as they were when one was to gain a quota or a session limit.
    kin: Option<Kin>,
    /// The highest shard count that a shard showed before the shards were read last.
    count_before: u32,
    backoff: Backoff,
    last: Option<Ask>,
    state: State,
    end: Option<TakeEnd>,
}

impl Take {
    pub(crate) fn new(
        id: BucketId,
        config: Arc<Resolved>,
        amounts: Amounts,
        settings: Settings,
        started: EpochMillis,
        is_parent: bool,
    ) -> Self {
        let fresh = config.read_at >= started;
        Self {
            id,
            config,
            amounts,
            ahead: None,
            need: None,
            settings,
            fresh,
            purpose: if is_parent {
                Purpose::Parent
            } else {
                Purpose::Child
            },
            shard: 0,
            shard_count: 1,
            tried: Vec::new(),
            best: None,
            holds_back: false,
            held: None,
            dry: None,
            races: 0,
            lost_refills: 0,
            has_just_lost: false,
            has_waited: false,
            has_counted: false,
            has_seen_others: false,
            seen: None,
            round_trip_ms: 0,
            sent_at: started,
            sent: 0,
            doubled: false,
            scope: Scope::One,
            alone: false,
            shared_out: None,
            kin: None,
            count_before: 1,
            backoff: Backoff::until_deadline(),
            last: None,
            state: State::Debit,
            end: None,
        }
    }

    /// Takes more by its first write, if the image that it goes by shows enough.
    pub(crate) fn taking_ahead(self, ahead: Option<Ahead>) -> Self {
        Self { ahead, ..self }
    }

    pub(crate) fn end(&self) -> Option<&TakeEnd> {
        self.end.as_ref()
    }

    /// The configuration that it goes by, which may have been read since it began.
    pub(crate) fn config(&self) -> &Arc<Resolved> {
        &self.config
    }

    /// Whether it is taking back a debit on an item that it cannot read, or a stamp.
    pub(crate) fn is_undoing(&self) -> bool {
        matches!(self.state, State::Undo(_) | State::Unstamp(_))
    }

    /// Ends it, unless it has ended: nothing more is sent.
    pub(crate) fn abandon(&mut self) {
        self.end.get_or_insert(TakeEnd::Failed(TakeError::Abandoned));
    }

    fn who(&self) -> (&EntityId, &ResourceName) {
        (&self.id.entity, &self.id.resource)
    }

    /// The parameters the item must have, if the caller gave limits.
    fn exact(&self) -> Option<&[Limit]> {
        (self.config.level == Level::Override).then_some(self.config.limits.as_slice())
    }

    /// Sends the first debit, to a random shard that is not known to be short. One whose last image shows that a
    /// refill is due is refilled and debited at once, unless another call of this process is refilling it. That
    /// write is pinned to the image.
    pub(crate) fn start(&mut self, hint: &Hint, short: &[u32], env: &mut Env<'_>) {
        self.shard_count = hint.shard_count.max(1);
        self.round_trip_ms = hint.round_trip_ms;
        let open: Vec<u32> = (0..self.shard_count)
            .filter(|shard| !short.contains(shard))
            .collect();
        let draw = env.random.below(open.len().max(1) as u32) as usize;
        self.shard = open.get(draw).copied().unwrap_or(0);
        let mut known = hint.images.iter().chain(&hint.older);
        let image = known
            .find(|(shard, _)| *shard == self.shard)
            .map(|(_, image)| image);
        if self.begins_bypassed(image, env) {
            return;
        }
        if (open.is_empty() || self.is_large(env.now)) && self.gather(env) {
            return;
        }
        if let (Some(ahead), Some(image), None) = (self.ahead.take(), image, self.exact()) {
            let more = taken_ahead(&self.amounts, &ahead, image, &self.config, env.now);
            self.need = more.map(|more| std::mem::replace(&mut self.amounts, more));
        }
        match image {
            Some(image) if !hint.refilling.contains(&self.shard) && self.is_due(image, env.now) => {
                self.refill_debit(image, env);
            }
            image => self.debit(image, env),
        }
    }

    /// Takes nothing, and ends as disabled if the entity is.
    pub(crate) fn look_only(&mut self, env: &mut Env<'_>) {
        if self.fresh {
            return self.looked();
        }
        self.ask_config(State::Look, env);
    }

    fn looked(&mut self) {
        let end = self
            .config
            .disabled()
            .map(|level| TakeEnd::Disabled(DisabledAt::Config(level)));
        self.finish(end.unwrap_or_else(|| TakeEnd::Taken(Vec::new())));
    }

    /// Creates a shard other than the first, unless it exists, and then ends.
    pub(crate) fn create_only(&mut self, shard: u32, shard_count: u32, env: &mut Env<'_>) {
        self.purpose = Purpose::Shard;
        self.fresh = true;
        self.shard = shard;
        self.shard_count = shard_count;
        self.create(env);
    }

    fn send(&mut self, ask: Ask, state: State, env: &mut Env<'_>) {
        self.send_after(0, ask, state, env);
    }

    fn send_after(&mut self, delay_ms: u64, ask: Ask, state: State, env: &mut Env<'_>) {
        self.sent += 1;
        if self.sent > MAX_SENT && !matches!(state, State::Undo(_) | State::Unstamp(_)) {
            return self.finish(TakeEnd::Contended);
        }
        self.last = match &ask {
            // It is decided anew.
            Ask::Debit(_) => None,
            _ => Some(ask.clone()),
        };
        self.state = state;
        self.sent_at = env.now.plus(i64::try_from(delay_ms).unwrap_or(i64::MAX));
        env.send(delay_ms, ask);
    }

    /// The request left at this time.
    pub(crate) fn left(&mut self, at: EpochMillis) {
        self.sent_at = self.sent_at.max(at);
    }

    fn finish(&mut self, end: TakeEnd) {
        self.end = Some(end);
    }

    fn fail(&mut self, error: impl Into<TakeError>) {
        self.finish(TakeEnd::Failed(error.into()));
    }

    /// Counts a race that another writer has won. After too many, the leg has ended.
    fn has_lost_too_often(&mut self) -> bool {
        self.races += 1;
        let is_over = self.races > MAX_RACES;
        if is_over {
            self.finish(TakeEnd::Contended);
        }
        is_over
    }

    /// Takes the amounts from the shard as it stands, or counts them. `image` is what was last seen of it, if anything was.
    fn debit(&mut self, image: Option<&Arc<Bucket>>, env: &mut Env<'_>) {
        if image.is_none() && self.fresh && self.config.is_bypassed() && self.purpose != Purpose::Shard {
            return self.count(None, env);
        }
        self.seen = image.cloned();
        let basis = self.basis(image.map(|image| &**image), &self.amounts, env.now);
        if self.exact().is_some() {
            return self.debit_on(Some(&basis), env);
        }
        self.send_debit(basis, None, State::Debit, env);
    }

    /// Sends a debit that the driver may join with others.
    fn send_debit(&mut self, basis: Basis, refill: Option<Refill>, state: State, env: &mut Env<'_>) {
        let debit = Debit {
            id: self.id.clone(),
            shard: self.shard,
            amounts: self.amounts.clone(),
            basis,
            refill,
        };
        self.send(Ask::Debit(Box::new(debit)), state, env);
    }

    fn debit_on(&mut self, basis: Option<&Basis>, env: &mut Env<'_>) {
        let key = self.id.key(self.shard);
        let update = write::debit(key, &self.amounts, basis, env.now);
        self.send(Ask::Table(Op::Update(update)), State::Debit, env);
    }

    /// Takes the answer to this leg's request, and sends the next one or ends.
    pub(crate) fn answer(&mut self, reply: Reply, env: &mut Env<'_>) {
        let is_taken = matches!(
            reply,
            Reply::Debited(Outcome::Taken, _) | Reply::Table(Ok(Answer::Applied(Some(_))))
        );
        if let (false, Some(need)) = (is_taken, self.need.take()) {
            // What is needed does not wait for what would be good to have.
            self.amounts = need;
        }
        match reply {
            Reply::Config(Ok(found)) => {
                self.fresh = true;
                self.config = self.refreshed(&found.config);
                if self.purpose == Purpose::Parent {
                    self.amounts.retain(|(name, _)| self.config.limit(name).is_some());
                }
                let was = std::mem::replace(&mut self.state, State::Config);
                if matches!(was, State::Look) {
                    return self.looked();
                }
                // What was in force when the acquire began may have gone since.
                if let Err(err) = check_config(&self.config, &self.id.resource, &self.amounts) {
                    return match was {
                        State::Verify(until) if !self.config.is_bypassed() => {
                            self.remove_stamp(until, Some(err), env);
                        }
                        _ => self.fail(err),
                    };
                }
                match (was, self.seen.take()) {
                    (State::Verify(until), _) => self.verified(until, env),
                    (State::Access, Some(image)) => self.look_at(&image, env),
                    // Only one call can create the shard. The others debit it as soon as it should be there.
                    _ if found.hint.refilling.contains(&self.shard) && !self.has_waited => {
                        self.has_waited = true;
                        let wait = found.hint.round_trip_ms.clamp(0, MAX_RACE_WAIT_MS) + 1;
                        let wait = wait + i64::from(env.random.below(wait as u32));
                        self.pause(wait.unsigned_abs(), Next::Debit, env);
                    }
                    _ => self.create(env),
                }
            }
            Reply::Config(Err(err)) => self.fail(err),
            Reply::Waited => match std::mem::replace(&mut self.state, State::Debit) {
                State::Pause(Next::Create) => self.create(env),
                State::Pause(Next::Shards) => self.read_shards(0, env),
                State::Pause(Next::Count) => self.count(None, env),
                State::Pause(next) => match self.seen.take() {
                    Some(image) if next == Next::Refill => self.plan(&image, env),
                    image => self.debit(image.as_ref(), env),
                },
                _ => self.fail(super::out_of_order()),
            },
            Reply::Table(Ok(answer)) => {
                self.answered_at(env.now);
                self.table_answer(answer, env);
            }
            Reply::Debited(outcome, image) => {
                // One that was left out has waited for others, and not for the table.
                if outcome != Outcome::LeftOut {
                    self.answered_at(env.now);
                }
                self.debited(outcome, &image, env);
            }
            Reply::Table(Err(err)) => self.table_error(err, env),
            Reply::GivenBack => self.fail(super::out_of_order()),
        }
    }

    fn answered_at(&mut self, now: EpochMillis) {
        let round_trip_ms = now.since(self.sent_at).min(MAX_ROUND_TRIP_MS);
        self.round_trip_ms = self.round_trip_ms.max(round_trip_ms);
    }

    /// A fresh configuration, but with what came with the call.
    fn refreshed(&self, fresh: &Arc<Resolved>) -> Arc<Resolved> {
        let mut config = Arc::clone(fresh);
        if self.config.overdraws {
            Arc::make_mut(&mut config).overdraws = true;
        }
        if self.exact().is_some() {
            let config = Arc::make_mut(&mut config);
            config.limits.clone_from(&self.config.limits);
            config.level = Level::Override;
        }
        config
    }

    fn table_error(&mut self, err: TableError, env: &mut Env<'_>) {
        if let State::Propagate(left) = self.state {
            // Best effort: a sibling that was not updated is raised before a shard is created from it.
            return self.propagated(left, env);
        }
        match self.backoff.next(&err, env.random) {
            Again::After(delay) => self.again_after(delay, env),
            Again::Contended => self.finish(TakeEnd::Contended),
            Again::No => match std::mem::replace(&mut self.state, State::Debit) {
                State::Undo(cause) | State::Unstamp(Some(cause)) => self.fail(cause),
                _ => self.fail(err),
            },
        }
    }

    /// Sends what did not happen again.
    fn again_after(&mut self, delay_ms: u64, env: &mut Env<'_>) {
        let next = match self.state {
            State::Debit => Next::Debit,
            State::Count(_) | State::Stamp(_) => Next::Count,
            State::Refill => Next::Refill,
            State::Create { .. } => Next::Create,
            State::Portions(_) if self.scope == Scope::One => Next::Debit,
            State::Portions(_) | State::RetuneAll => Next::Shards,
            _ => {
                if let Some(ask) = self.last.clone() {
                    self.sent_at = env.now.plus(i64::try_from(delay_ms).unwrap_or(i64::MAX));
                    env.send(delay_ms, ask);
                }
                return;
            }
        };
        // It is still the same request.
        self.sent = self.sent.saturating_sub(1);
        self.pause(delay_ms, next, env);
    }

    fn pause(&mut self, delay_ms: u64, next: Next, env: &mut Env<'_>) {
        self.state = State::Pause(next);
        env.send(delay_ms, Ask::Wait);
    }

    fn table_answer(&mut self, answer: Answer, env: &mut Env<'_>) {
        match (std::mem::replace(&mut self.state, State::Debit), answer) {
            (State::Debit, Answer::Applied(Some(item))) => {
                self.taken(&item, self.amounts.clone(), false, env);
            }
            (State::Refill, Answer::Applied(Some(item))) => {
                self.taken(&item, self.amounts.clone(), false, env);
                self.announce(env);
            }
            (State::Count(amounts), Answer::Applied(Some(item))) => self.taken(&item, amounts, true, env),
            (State::Stamp(until), Answer::Applied(_)) => self.stamped(until, env),
            (state @ State::Unstamp(_), Answer::Applied(Some(item))) if item.is_empty() => {
                // It may not have happened, and can happen twice.
                self.state = state;
                let message = "the answer to the removal of a stamp does not show the item";
                let err = TableError::new(FailureKind::Internal, Applied::No, message);
                self.table_error(err, env);
            }
            (State::Unstamp(None), Answer::Applied(_) | Answer::Refused(_)) => self.debit(None, env),
            (State::Refill, Answer::Refused(Some(item))) => {
                self.lost_refills += 1;
                self.has_just_lost = true;
                self.look(&item, env);
            }
            (State::Retune, Answer::Applied(Some(item)))
            | (
                State::Debit | State::Retune | State::Count(_) | State::Stamp(_),
                Answer::Refused(Some(item)),
            ) => {
                self.look(&item, env);
            }
            (
                State::Debit | State::Refill | State::Retune | State::Count(_) | State::Stamp(_),
                Answer::Refused(None),
            ) => self.create(env),
            (State::Family, Answer::Items(items)) => self.create_sibling(&items, env),
            (State::Shards, Answer::Items(items)) => self.look_at_shards(&items, env),
            (State::Kin, Answer::Items(items)) => self.look_at_kin(items, env),
            (State::Portions(grants), Answer::Applied(_)) => self.taken_together(grants, env),
            (State::Portions(_) | State::RetuneAll, Answer::Cancelled(reasons)) => {
                self.not_together(&reasons, env);
            }
            (State::RetuneAll, Answer::Applied(_)) => self.not_together(&[], env),
            (State::Create { takes, stamp }, Answer::Applied(_)) => self.created(takes, stamp, env),
            (State::Create { takes, .. }, Answer::Cancelled(reasons)) => {
                self.not_created(takes, &reasons, env);
            }
            (State::Double(from), Answer::Applied(Some(item))) if shows_count(&item, from * 2) => {
                self.doubled(from, env);
            }
            (State::Double(from), Answer::Refused(item)) => {
                // Another client doubled, or shard 0 is gone. Use the count of the item.
                let count = item
                    .and_then(|item| Bucket::decode(&item).ok())
                    .map_or(from, |b| b.shard_count);
                self.shard_count = count;
                self.go_to_new_shard(from, env);
            }
            (State::Propagate(left), _) => self.propagated(left, env),
            (State::Undo(cause) | State::Unstamp(Some(cause)), _) => self.fail(cause),
            // Among them a write that was applied but shows no image: what it did is unknown.
            (_, answer) => self.fail(TableError::new(
                FailureKind::Internal,
                Applied::Unknown,
                format!("unexpected answer {answer:?}"),
            )),
        }
    }

    /// Takes the outcome of a debit that the driver may have joined with others.
    fn debited(&mut self, outcome: Outcome, image: &Arc<Bucket>, env: &mut Env<'_>) {
        match (std::mem::replace(&mut self.state, State::Debit), outcome) {
            (State::Debit, Outcome::Taken) => {
                self.took(Arc::clone(image), self.amounts.clone(), false, env);
            }
            (State::Refill, Outcome::Taken) => {
                self.took(Arc::clone(image), self.amounts.clone(), false, env);
                self.announce(env);
            }
            (State::Refill, Outcome::Refused) => {
                self.lost_refills += 1;
                self.has_just_lost = true;
                self.look_at(image, env);
            }
            (State::Debit, Outcome::Refused) | (State::Debit | State::Refill, Outcome::LeftOut) => {
                self.look_at(image, env);
            }
            _ => self.fail(super::out_of_order()),
        }
    }

    /// The amounts were taken, or counted, and left the shard like this.
    fn took(&mut self, image: Arc<Bucket>, amounts: Amounts, is_bypassed: bool, env: &mut Env<'_>) {
        env.observe(&self.id, self.shard, &image);
        self.finish(TakeEnd::Taken(vec![Grant {
            id: self.id.clone(),
            shard: self.shard,
            amounts,
            image,
            is_bypassed,
        }]));
    }

    fn taken(&mut self, item: &Item, amounts: Amounts, is_bypassed: bool, env: &mut Env<'_>) {
        match Bucket::decode(item) {
            Ok(image) => self.took(Arc::new(image), amounts, is_bypassed, env),
            Err(err) if is_bypassed => self.fail(err),
            Err(err) => {
                let key = self.id.key(self.shard);
                if let Some(undo) = undo(&key, &self.amounts, item) {
                    return self.send(Ask::Table(Op::Update(undo)), State::Undo(err.into()), env);
                }
                let message = format!("the answer to a debit does not show the item {key}: {err}");
                self.fail(TableError::new(FailureKind::Internal, Applied::Unknown, message));
            }
        }
    }

    /// Decides what to do about an image that refused a debit.
    fn look(&mut self, item: &Item, env: &mut Env<'_>) {
        match Bucket::decode(item) {
            Ok(image) => self.look_at(&Arc::new(image), env),
            Err(err) => self.fail(err),
        }
    }

    fn look_at(&mut self, image: &Arc<Bucket>, env: &mut Env<'_>) {
        env.observe(&self.id, self.shard, image);
        self.shard_count = self.shard_count.max(image.shard_count);
        if image.disabled {
            return self.finish(TakeEnd::Disabled(DisabledAt::Bucket));
        }
        if self.has_lost_too_often() {
            return;
        }
        if self.look_at_bypass(image, env) {
            return;
        }
        if let Some(attribute) = &image.unsupported {
            return self.look_at_foreign(image, attribute, env);
        }
        self.plan(image, env);
    }

    /// Decides what to do about an image that can be evaluated.
    fn plan(&mut self, image: &Arc<Bucket>, env: &mut Env<'_>) {
        if self.must_know_kin(image) {
            return self.read_kin(image, env);
        }
        let seeds = self.seeds(image, env.now);
        let refilled = write::refill_all(image, self.exact(), env.now);
        let statuses = self.statuses(image, &refilled, &seeds, env.now);
        if statuses.iter().any(|status| status.exceeded) {
            // It earns by its own parameters until they are changed, even if that never were enough; it earns nothing
            // while it is dated in the future; and its debts are forgotten when it expires.
            let is_behind = refilled.iter().any(|r| r.params != r.limit.params);
            if is_behind || image.is_ahead(env.now) || self.loses_debts(image, env.now) {
                return self.refill(image, &Amounts::new(), State::Retune, env);
            }
            return self.short(statuses, env);
        }
        // A plain debit leaves the expiry as it is, and a debt would be forgotten with the item.
        let deepens_debt = self.config.overdraws && self.loses_debts(image, env.now);
        if !deepens_debt && self.is_fresh(image, env.now) && self.is_spendable(image, &seeds, env.now) {
            // A race was lost, but what won left enough.
            return self.debit(Some(image), env);
        }
        if std::mem::take(&mut self.has_just_lost) && self.lost_refills > 1 {
            return self.spread_out(image, env);
        }
        if image.is_out_of_writes(env.now) {
            self.tried.push(self.shard);
            self.dry.get_or_insert_with(|| (self.shard, Arc::clone(image)));
            if let Some(other) = self.other_shard(env) {
                // Splitting is permanent: first see whether a sibling has write units to spare.
                self.shard = other;
                return self.debit(None, env);
            }
            // With another shard short of tokens, splitting would not help.
            if self.best.is_none() {
                return self.split(image, env);
            }
        }
        self.refill_debit(image, env);
    }

    /// Waits before the bucket is asked again: many callers want to refill it at once, and only one can for each round
    /// trip. The wait spreads them out, and what another one's refill has left may cover this request.
    fn spread_out(&mut self, image: &Arc<Bucket>, env: &mut Env<'_>) {
        let doublings = self.lost_refills.min(8) - 2;
        let most = (self.round_trip_ms.clamp(1, MAX_RACE_WAIT_MS) << doublings).min(MAX_RACE_WAIT_MS);
        let wait = 1 + env.random.below(most as u32);
        self.seen = Some(Arc::clone(image));
        self.pause(wait.into(), Next::Debit, env);
    }

    /// Refills the shard from its image and takes the tokens, in one write.
    fn refill_debit(&mut self, image: &Arc<Bucket>, env: &mut Env<'_>) {
        if self.holds(image, env.now) {
            return;
        }
        self.seen = Some(Arc::clone(image));
        let amounts = self.amounts.clone();
        if self.exact().is_some() || self.lacking(image).next().is_some() {
            return self.refill(image, &amounts, State::Refill, env);
        }
        if !self.may_refill(image, &amounts, env) {
            return;
        }
        let basis = self.basis(Some(image), &amounts, env.now);
        let refill = Refill {
            image: Arc::clone(image),
            config: Arc::clone(&self.config),
            settings: self.settings,
        };
        self.send_debit(basis, Some(refill), State::Refill, env);
    }

    /// Whether a shard may be refilled from its image at once. If not, what comes first is sent, or the leg has failed.
    fn may_refill(&mut self, image: &Bucket, amounts: &Amounts, env: &mut Env<'_>) -> bool {
        if self.must_share_out(image, env.now) {
            self.share_out(image, env);
            return false;
        }
        if let Err(err) = self.check_refillable(image, amounts) {
            self.fail(err);
            return false;
        }
        true
    }

    fn refill(&mut self, image: &Bucket, amounts: &Amounts, state: State, env: &mut Env<'_>) {
        if !self.may_refill(image, amounts, env) {
            return;
        }
        let update = self.refilling(image, amounts, env.now);
        let gifts = self.gifts(image, amounts, env.now);
        if gifts.is_empty() {
            return self.send(Ask::Table(Op::Update(update)), state, env);
        }
        self.take_with_gifts(update, gifts, env);
    }

    /// The write that refills the shard from its image and takes these amounts.
    fn refilling(&self, image: &Bucket, amounts: &Amounts, now: EpochMillis) -> Update {
        let mut seeds = self.seeds(image, now);
        if amounts.is_empty() {
            // Nothing is moved for a write that takes nothing.
            seeds.retain(|seed| seed.gift.is_none());
        }
        let at = if seeds.is_empty() {
            now
        } else {
            write::seeds::instant(image, now)
        };
        let refilled = write::refill_all(image, self.exact(), at);
        let change = RefillDebit {
            amounts,
            seeds: &seeds,
            ttl: self.ttl(Some(image), image.shard_count, at),
            is_use: !amounts.is_empty(),
            config: Some(&self.config),
        };
        write::refill_debit(self.id.key(self.shard), image, &refilled, &change, at)
    }

    /// Doubles the shards where that leaves every share useful, else makes do with the shard that there is.
    fn split(&mut self, image: &Arc<Bucket>, env: &mut Env<'_>) {
        if !self.may_double(image, env.now) {
            return self.refill_debit(image, env);
        }
        let from = self.shard_count;
        let held = image.limits.iter().map(|limit| limit.name.as_str());
        // Another call may just have added one that is configured.
        let added = self.config.limits.iter().filter(|limit| limit.is_quota());
        let added = added.map(|limit| limit.name().as_str());
        let added = added.filter(|name| image.limit(name).is_none());
        let update = write::double(self.id.key(0), from, held, added);
        self.send(Ask::Table(Op::Update(update)), State::Double(from), env);
    }

    /// An item with a feature that is not understood may be spent as it stands, but not refilled.
    fn look_at_foreign(&mut self, image: &Bucket, attribute: &SmolStr, env: &mut Env<'_>) {
        if self.is_spendable(image, &[], env.now) {
            return self.debit_on(None, env);
        }
        self.fail(RecordError::from(UnsupportedFeature {
            record: "bucket",
            key: self.id.key(self.shard).to_string(),
            attribute: attribute.to_string(),
            advice: "a client that supports it must refill this bucket first",
        }));
    }

    fn short(&mut self, statuses: Vec<LimitStatus>, env: &mut Env<'_>) {
        let wait =
            |statuses: &[LimitStatus]| statuses.iter().map(|s| s.wait).max().unwrap_or(Wait::Millis(0));
        let never = wait(&statuses) == Wait::Never;
        let better = self.best.as_ref().is_none_or(|best| wait(&statuses) < wait(best));
        if better {
            self.best = Some(statuses);
        }
        self.tried.push(self.shard);
        // What one shard can never hold, all of them may.
        if never && self.gather(env) {
            return;
        }
        if let Some(other) = self.other_shard(env) {
            self.shard = other;
            return self.debit(None, env);
        }
        if let Some((shard, image)) = self.dry.take() {
            // One had the tokens, but no write units.
            self.shard = shard;
            return self.refill_debit(&image, env);
        }
        if self.gather(env) {
            return;
        }
        let best = self.best.take().unwrap_or_default();
        self.finish(TakeEnd::Short(best));
    }

    /// A random shard that has not been tried, if another try is due.
    fn other_shard(&self, env: &mut Env<'_>) -> Option<u32> {
        let others: Vec<u32> = (0..self.shard_count)
            .filter(|shard| !self.tried.contains(shard))
            .collect();
        if others.is_empty() || self.tried.len() > MAX_OTHER_SHARDS {
            return None;
        }
        Some(others[env.random.below(others.len() as u32) as usize])
    }
}

/// The amounts with what is taken ahead: for as many calls as a quarter of each balance allows. `None` if that is nothing.
fn taken_ahead(
    amounts: &Amounts,
    ahead: &Ahead,
    image: &Bucket,
    config: &Resolved,
    now: EpochMillis,
) -> Option<Amounts> {
    let refilled = write::refill_all(image, None, now);
    let mut calls = i128::from(ahead.calls);
    for (limit, amount) in amounts {
        let of_call = ahead.per_call.iter().find(|(named, _)| named == limit);
        let of_call = of_call.map_or(0, |(_, of_call)| of_call.0);
        if of_call <= 0 {
            continue;
        }
        if config.is_soft(limit.as_str()) {
            return None;
        }
        let held = refilled.iter().find(|r| r.limit.name == limit.as_str());
        if held.is_some_and(|r| !r.limit.is_plain()) {
            // What is held would outlive the period that it was taken in.
            return None;
        }
        let most = held.map_or(0, |r| r.balance.tokens.0 / 4 - amount.0);
        // What the process holds already is not taken from the balance.
        let free = ahead.of(limit, calls).0 - most;
        if free > 0 {
            calls = calls.min(calls - (free + of_call - 1) / of_call);
        }
    }
    if calls < 1 {
        return None;
    }
    let more: Amounts = amounts
        .iter()
        .map(|(limit, amount)| (limit.clone(), *amount + ahead.of(limit, calls)))
        .collect();
    (more != *amounts).then_some(more)
}

/// Whether an item is a bucket of so many shards.
fn shows_count(item: &Item, count: u32) -> bool {
    Bucket::decode(item).is_ok_and(|image| image.shard_count == count)
}

//! What must hold while the table cannot be used, decided a second time by plain rules.
//!
//! - A call is decided without the table only if its last answer was a failure that passes, its deadline is over, or the
//!   circuit breaker refused it. The breaker refuses only after five failures in a row without an answer, which lasted
//!   half a second or were followed by a second of silence; and then it lets one call through every 400 to 600 ms. After
//!   an answer it refuses none.
//! - `Block` admits nothing, and `Allow` admits everything, without the table.
//! - `Degrade` admits from an account for each limit of each entity, in each life of a process, that holds and gains the
//!   policy's part of the limit that the process read last, and forgets nothing. Parents have their say, and disabled
//!   entities and unknown limits are refused as with the table.
//! - What was admitted without the table changes nothing in the table later.
//! - Permanent failures are errors under every policy.

use std::collections::{BTreeMap, BTreeSet};

use zae_limiter_core::acquire::Request;
use zae_limiter_core::bucket::Owner;
use zae_limiter_core::outage::breaker::Pass;
use zae_limiter_core::outage::local_buckets::Claim;
use zae_limiter_core::outage::policy::Decision;
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::{FailureKind, Item, Value};
use zae_limiter_core::{EpochMillis, Limit, LimitName, Millitokens, OnUnavailable, Recovery};

use crate::rows::change::Source;
use crate::rows::terms::{self, Terms};
use crate::state::process::Process;

/// Why the table did not decide.
#[derive(Debug)]
pub(crate) enum Cause {
    /// The circuit breaker was open when the call began.
    Breaker,
    /// It failed with this.
    Failed(FailureKind),
    /// The deadline of the call is over.
    Deadline,
}

/// A call that the table has not decided.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) process: usize,
    pub(crate) action: usize,
    pub(crate) now_us: u64,
    pub(crate) deadline_us: u64,
    pub(crate) request: &'a Request,
    /// How many limits the process has memory for.
    pub(crate) room: usize,
}

const SECOND_US: u64 = 1_000_000;

/// What a process has heard since the last answer.
#[derive(Debug, Default)]
struct Silence {
    /// When it heard failures without an answer, since the count began.
    failures: Vec<u64>,
    /// When the breaker opened, or let the last probe through.
    probed: Option<u64>,
}

impl Silence {
    fn must_be_open(&self) -> bool {
        let (Some(first), Some(fifth)) = (self.failures.first(), self.failures.get(4..)) else {
            return false;
        };
        fifth.iter().any(|at| at - first >= SECOND_US / 2)
    }

    fn may_be_open(&self, now_us: u64) -> bool {
        let is_silent = self.failures.len() >= 5 && self.failures[0] + SECOND_US <= now_us;
        self.must_be_open() || is_silent
    }
}

/// One limit in the memory of one process, exactly: in parts of a millitoken, `1 / period_ms`.
#[derive(Debug, Clone)]
struct Part {
    capacity: i128,
    refill: i128,
    period_ms: i128,
    level: i128,
    at: i64,
    /// Until when it would not be full under the parameters that it had before.
    owed_until: i64,
    /// Whether it always had the same parameters, so that it is exact and not only an upper bound.
    is_exact: bool,
}

impl Part {
    fn params(limit: &Limit, percent: i128, now: EpochMillis) -> Params {
        let whole = in_force(limit, now);
        let of = |millis: i128| millis * percent / 100;
        // At least a token, and a millitoken for each period: otherwise nothing would ever be admitted.
        (of(whole.cp).max(1000), of(whole.ra).max(1), whole.rp)
    }

    fn full((capacity, refill, period_ms): Params, now: EpochMillis) -> Self {
        Self {
            capacity,
            refill,
            period_ms,
            level: capacity * period_ms,
            at: now.0,
            owed_until: i64::MIN,
            is_exact: true,
        }
    }

    fn advance(&mut self, now: EpochMillis) {
        let elapsed = i128::from((now.0 - self.at).max(0));
        self.at = self.at.max(now.0);
        self.level = (self.level + elapsed * self.refill).min(self.capacity * self.period_ms);
    }

    /// The same limit under other parameters, from now on.
    fn under(&self, params: Params, now: EpochMillis) -> Self {
        let mut part = self.clone();
        part.advance(now);
        if params == (self.capacity, self.refill, self.period_ms) {
            return part;
        }
        let missing = part.capacity * part.period_ms - part.level;
        let fills_at = now.0 + ((missing + part.refill - 1) / part.refill) as i64;
        let owed_until = part.owed_until.max(fills_at);
        let (capacity, refill, period_ms) = params;
        // One that is full under all its parameters may have been removed from memory, and then it starts full.
        let level = if now.0 >= owed_until {
            capacity * period_ms
        } else {
            let tokens = part.level / part.period_ms + 1;
            tokens.min(capacity) * period_ms
        };
        Self {
            capacity,
            refill,
            period_ms,
            level,
            at: part.at,
            owed_until,
            is_exact: false,
        }
    }

    fn is_full(&self) -> bool {
        self.level >= self.capacity * self.period_ms
    }

    /// Full, under these parameters or its own, whichever allow more.
    fn raise(&mut self, (capacity, refill, period_ms): Params) {
        self.capacity = self.capacity.max(capacity);
        if refill * self.period_ms > self.refill * period_ms {
            (self.refill, self.period_ms) = (refill, period_ms);
        }
        self.level = self.capacity * self.period_ms;
        self.is_exact = false;
    }

    fn covers(&self, amount: Millitokens) -> bool {
        self.level >= amount.0 * self.period_ms
    }

    fn give(&mut self, amount: Millitokens) {
        self.level = (self.level + amount.0 * self.period_ms).min(self.capacity * self.period_ms);
    }
}

type PartOf = (usize, u32, String, String);

/// Capacity and refill in millitokens, and the period.
type Params = (i128, i128, i128);

/// The independent account of outages.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    silences: BTreeMap<usize, Silence>,
    /// Limits in memory: by process, its life, entity and limit.
    parts: BTreeMap<PartOf, Part>,
    lives: BTreeMap<usize, u32>,
    /// Actions that were admitted without the table.
    admitted: BTreeSet<usize>,
    /// The parameters under which each of them has taken from limits in memory.
    taken: BTreeMap<(usize, String, String), Params>,
}

/// What a request under `Degrade` should come to.
#[derive(Debug)]
enum Expected {
    /// The limits of the entity or of one above it were never read.
    Unknown,
    /// The request asks for a limit that is not there, or there is none.
    Mistaken,
    Disabled(BucketId),
    /// These limits decide, with the amounts to take.
    Limits(Vec<(BucketId, Limit, Millitokens)>),
}

impl Outages {
    /// A process crashed: it starts with nothing.
    pub(crate) fn crashed(&mut self, process: usize) {
        self.silences.remove(&process);
        *self.lives.entry(process).or_default() += 1;
    }

    /// A process heard an outcome: a failure of this kind, or an answer.
    pub(crate) fn heard(&mut self, process: usize, now_us: u64, failure: Option<FailureKind>) {
        let silence = self.silences.entry(process).or_default();
        let is_silent = matches!(
            failure,
            Some(FailureKind::Timeout | FailureKind::Unreachable | FailureKind::Internal)
        );
        if !is_silent {
            *silence = Silence::default();
            return;
        }
        let was_open = silence.probed.is_some();
        let last = silence.failures.last().copied().unwrap_or(0);
        if !was_open && now_us - last > 10 * SECOND_US {
            *silence = Silence::default();
        }
        silence.failures.push(now_us);
        if !was_open && silence.must_be_open() {
            silence.probed = Some(now_us);
        }
    }

    /// The circuit breaker let a call through, or refused it.
    pub(crate) fn passed(&mut self, process: usize, now_us: u64, pass: &Pass) -> Result<(), String> {
        let silence = self.silences.entry(process).or_default();
        let counted = silence.failures.len();
        let err = |what: &str| {
            Err(format!(
                "the breaker of process {process} {what} after {counted} failures"
            ))
        };
        match pass {
            Pass::Free if silence.must_be_open() => return err("let a call through freely"),
            Pass::Free => {}
            Pass::Probe | Pass::Refused { .. } if !silence.may_be_open(now_us) => {
                return err("is open although the table may answer,");
            }
            Pass::Probe => {
                let since = silence.probed.map_or(u64::MAX, |last| now_us - last);
                if since < 400_000 {
                    return err(&format!("let a probe through {since} us after the last,"));
                }
                silence.probed = Some(now_us);
            }
            Pass::Refused { .. } => {
                let last = *silence.probed.get_or_insert(now_us);
                if now_us - last > 600_000 {
                    return err(&format!("sent no probe for {} us,", now_us - last));
                }
            }
        }
        Ok(())
    }

    /// The policy decided a call.
    pub(crate) fn decided(
        &mut self,
        asked: &Asked<'_>,
        cause: &Cause,
        policy: OnUnavailable,
        decision: &Decision,
        process: &Process,
    ) -> Result<(), String> {
        match cause {
            Cause::Failed(kind) if !passes(*kind) => {
                return Err(format!(
                    "{kind:?} is permanent, and the policy decided: {decision:?}"
                ));
            }
            Cause::Deadline if asked.now_us < asked.deadline_us => {
                return Err(format!("decided before its deadline: {decision:?}"));
            }
            _ => {}
        }
        match (policy, decision) {
            (OnUnavailable::Block, Decision::Unavailable) => Ok(()),
            (OnUnavailable::Allow, Decision::Unlimited) => {
                self.admitted.insert(asked.action);
                Ok(())
            }
            (OnUnavailable::Degrade(part), decision) => {
                self.degraded(asked, i128::from(part.get()), decision, process)
            }
            (policy, decision) => Err(format!("{policy:?} decided: {decision:?}")),
        }
    }

    fn degraded(
        &mut self,
        asked: &Asked<'_>,
        percent: i128,
        decision: &Decision,
        process: &Process,
    ) -> Result<(), String> {
        let now = process.clock(asked.now_us);
        // Images of several shards may name different parents; which of them is believed does not matter.
        let chains = chains(process, vec![asked.request.id.clone()], now);
        let expected: Vec<Expected> = chains
            .iter()
            .map(|chain| expected(process, asked.request, chain, now))
            .collect();
        let mut why = Vec::new();
        for expected in &expected {
            let judged = match (expected, decision) {
                (Expected::Unknown, Decision::Unavailable) | (Expected::Mistaken, Decision::Failed(_)) => {
                    Ok(())
                }
                (Expected::Disabled(id), Decision::Disabled { id: named, .. }) if id == named => Ok(()),
                (Expected::Limits(limits), decision) => {
                    self.limits_decide(asked, percent, limits, decision, now)
                }
                (expected, decision) => Err(format!("{decision:?} instead of {expected:?}")),
            };
            match judged {
                Ok(()) => return Ok(()),
                Err(err) => why.push(err),
            }
        }
        Err(format!("degraded: {}", why.join("; or ")))
    }

    fn limits_decide(
        &mut self,
        asked: &Asked<'_>,
        percent: i128,
        limits: &[(BucketId, Limit, Millitokens)],
        decision: &Decision,
        now: EpochMillis,
    ) -> Result<(), String> {
        let life = self.lives.get(&asked.process).copied().unwrap_or(0);
        let key =
            |id: &BucketId, name: &LimitName| (asked.process, life, id.entity.to_string(), name.to_string());
        let parts: Vec<(PartOf, Part, Millitokens)> = limits
            .iter()
            .map(|(id, limit, amount)| {
                let (key, params) = (key(id, limit.name()), Part::params(limit, percent, now));
                let part = self
                    .parts
                    .get(&key)
                    .map_or_else(|| Part::full(params, now), |part| part.under(params, now));
                (key, part, *amount)
            })
            .collect();
        let wanted: BTreeSet<_> = parts
            .iter()
            .map(|((_, _, entity, limit), _, _)| (entity.clone(), limit.clone()))
            .collect();
        match decision {
            Decision::Local(claims) => {
                let named: BTreeSet<(String, String)> = claims
                    .iter()
                    .map(|claim| (claim.entity().to_string(), claim.limit().to_string()))
                    .collect();
                if named != wanted {
                    return Err(format!("took from {named:?} instead of {wanted:?}"));
                }
                if let Some((key, part, amount)) =
                    parts.iter().find(|(_, part, amount)| !part.covers(*amount))
                {
                    return Err(format!("admitted {amount} of {key:?}, which has less: {part:?}"));
                }
                self.admitted.insert(asked.action);
                for (key, mut part, amount) in parts {
                    part.give(-amount);
                    let params = (part.capacity, part.refill, part.period_ms);
                    self.taken
                        .insert((asked.action, key.2.clone(), key.3.clone()), params);
                    self.parts.insert(key, part);
                }
                Ok(())
            }
            Decision::Exceeded(refused) => {
                // It also tells which parent had a say, of those that images of several shards may name.
                let named: BTreeSet<(String, String)> = refused
                    .statuses()
                    .iter()
                    .map(|status| (status.entity.to_string(), status.limit_name.to_string()))
                    .collect();
                if named != wanted {
                    return Err(format!("refused by {named:?} instead of {wanted:?}"));
                }
                let is_covered = parts
                    .iter()
                    .all(|(_, part, amount)| part.is_exact && part.covers(*amount));
                if is_covered {
                    return Err(format!("refused, although {parts:?} cover it"));
                }
                for (key, part, _) in parts {
                    if self.parts.contains_key(&key) {
                        self.parts.insert(key, part);
                    }
                }
                Ok(())
            }
            Decision::Full => {
                let of_life =
                    |((process, of, _, _), _): &(&PartOf, &Part)| *process == asked.process && *of == life;
                let used = self.parts.iter().filter(of_life).count();
                if used + parts.len() <= asked.room {
                    return Err(format!("no memory for {} limits with {used} in use", parts.len()));
                }
                Ok(())
            }
            other => Err(format!("{other:?}, although the limits are known")),
        }
    }

    /// Limits in memory were corrected.
    pub(crate) fn corrected(
        &mut self,
        (process, action): (usize, usize),
        claim: &Claim,
        back: Millitokens,
        now: EpochMillis,
    ) {
        let life = self.lives.get(&process).copied().unwrap_or(0);
        let taken = (action, claim.entity().to_string(), claim.limit().to_string());
        let params = self.taken.get(&taken).copied();
        let key = (
            process,
            life,
            claim.entity().to_string(),
            claim.limit().to_string(),
        );
        if let Some(part) = self.parts.get_mut(&key) {
            part.advance(now);
            if let Some(params) = params
                && params != (part.capacity, part.refill, part.period_ms)
                && part.is_full()
                && now.0 >= part.owed_until
            {
                // If it was removed from memory, the limits of the lease are all that is known.
                part.raise(params);
            }
            part.give(back);
        }
    }

    /// A write was applied on behalf of this action.
    pub(crate) fn wrote(&self, source: Source, action: usize) -> Result<(), String> {
        if matches!(source, Source::Credit(_)) && self.admitted.contains(&action) {
            return Err(format!(
                "action {action} was admitted without the table, and corrects it"
            ));
        }
        Ok(())
    }
}

/// The parameters of a limit at an instant, of which a process has its part. A quota and a session limit come back evenly over
/// their periods; all patterns in plans are of the minute, and repeat after an hour.
fn in_force(limit: &Limit, now: EpochMillis) -> terms::Params {
    let base = terms::Params {
        cp: i128::from(limit.capacity()) * 1000,
        ra: i128::from(limit.refill_amount()) * 1000,
        rp: i128::from(limit.refill_period().as_secs().max(1)) * 1000,
    };
    let mut item = Item::new();
    if let Some(schedule) = limit.schedule() {
        item.insert("sched".into(), Value::text(schedule.encode()));
    }
    if let Some(zone) = limit.zone() {
        item.insert("sched_tz".into(), Value::text(zone.name()));
    }
    let read = Terms::read(&item, "", base.ra);
    let whole = read.map_or(base, |read| read.in_force(base, now.0));
    let evenly = |secs: u64| terms::Params {
        ra: whole.cp,
        rp: i128::from(secs) * 1000,
        ..whole
    };
    match limit.recovery() {
        Recovery::Refill { .. } => whole,
        Recovery::Resets(_) => evenly(3600),
        Recovery::Session { secs } => evenly(*secs),
    }
}

/// A failure was an error to the caller, without a decision of the policy.
pub(crate) fn refused_for_good(job: usize, kind: FailureKind) -> Result<(), String> {
    if passes(kind) {
        return Err(format!("job {job}: {kind:?} counted as a permanent failure"));
    }
    Ok(())
}

/// Whether a failure passes by itself.
fn passes(kind: FailureKind) -> bool {
    !matches!(
        kind,
        FailureKind::AccessDenied | FailureKind::TableMissing | FailureKind::BadRequest
    )
}

/// The parents that a request may cascade to, by what the process has seen.
fn parents(process: &Process, id: &BucketId, now: EpochMillis) -> Vec<Option<Owner>> {
    let read = process.configs.get(id).and_then(|config| config.owner.clone());
    let hint = process.hint(id, now);
    let newest = |stamp: &Owner| {
        let is_known = stamp.generation.is_some() || stamp.parent.is_some();
        match &read {
            Some(read) if !is_known || read.generation > stamp.generation => read.clone(),
            _ => stamp.clone(),
        }
    };
    let seen: Vec<Option<Owner>> = hint
        .images
        .iter()
        .chain(&hint.older)
        .map(|(_, image)| Some(newest(&image.owner)))
        .collect();
    if seen.is_empty() { vec![read] } else { seen }
}

/// The buckets that a request may take from: its own, and those above, by what the process has seen.
fn chains(process: &Process, below: Vec<BucketId>, now: EpochMillis) -> Vec<Vec<BucketId>> {
    let Some(last) = below.last() else {
        return Vec::new();
    };
    let depth = process.configs.get(last).map(|config| config.depth);
    if below.len() >= depth.unwrap_or_default().get() {
        return vec![below];
    }
    let mut found = Vec::new();
    let owners = parents(process, last, now).into_iter();
    let parents = owners.map(|owner| owner.and_then(|owner| owner.parent.filter(|_| owner.cascade)));
    for parent in parents.collect::<BTreeSet<_>>() {
        let mut chain = below.clone();
        match parent.filter(|parent| below.iter().all(|id| id.entity != *parent)) {
            Some(entity) => {
                chain.push(BucketId {
                    entity,
                    ..last.clone()
                });
                found.extend(chains(process, chain, now));
            }
            None => found.push(chain),
        }
    }
    found
}

fn expected(process: &Process, request: &Request, chain: &[BucketId], now: EpochMillis) -> Expected {
    let limits_of = |id: &BucketId| match &request.limits {
        Some(limits) => Some(limits.clone()),
        None => process.configs.get(id).map(|config| config.limits.clone()),
    };
    let is_disabled = |id: &BucketId| {
        let hint = process.hint(id, now);
        let by_config = process
            .configs
            .get(id)
            .is_some_and(|config| config.disabled().is_some());
        by_config
            || hint
                .images
                .iter()
                .chain(&hint.older)
                .any(|(_, image)| image.disabled)
    };
    let id = &request.id;
    let Some(own) = limits_of(id) else {
        return Expected::Unknown;
    };
    let find = |limits: &[Limit], name: &LimitName| limits.iter().find(|limit| limit.name() == name).cloned();
    let mut wanted = Vec::new();
    for (name, amount) in &request.consume {
        let Some(limit) = find(&own, name) else {
            return Expected::Mistaken;
        };
        wanted.push((id.clone(), limit, *amount));
    }
    let mut disabled = is_disabled(id).then_some(id);
    for above in &chain[1..] {
        let Some(limits) = limits_of(above) else {
            return Expected::Unknown;
        };
        if limits.is_empty() {
            return Expected::Mistaken;
        }
        if is_disabled(above) {
            disabled = Some(above);
        }
        // An entity above has a say only on the limits that it has.
        for (name, amount) in &request.consume {
            if let Some(limit) = find(&limits, name) {
                wanted.push((above.clone(), limit, *amount));
            }
        }
    }
    match disabled {
        Some(id) => Expected::Disabled(id.clone()),
        None => Expected::Limits(wanted),
    }
}

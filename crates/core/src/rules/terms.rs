//! [`Terms`]: the arithmetic of one limit of any shape on one shard of a bucket.

use crate::limit::{Limit, Params, Recovery};
use crate::refill::{Balance, Wait};
use crate::schedule::{ResetSchedule, Schedule};
use crate::units::{EpochMillis, Millitokens};

/// How many changes of parameters a refill or a wait follows one after the other. The rest of a longer time counts as if the
/// parameters at its end, or the last ones that were followed, had been in force.
const MAX_CHANGES: usize = 64;

/// How often a search for a window goes on where the one before has ended.
const MAX_SEARCHES: usize = 9;

/// The parameters of a limit, their schedule, and how its tokens come back, as one of a bucket's shards applies them.
///
/// A shard has an equal part of the parameters in force, rounded down. What is earned between two instants is earned at the rates
/// that were in force in between. A balance above a ceiling that has become lower is cut to it; a debt stays.
///
/// A quota is whole again at each [reset](ResetSchedule), a session limit by the first use after its session: then the balance is
/// the shard's part of the capacity in force.
///
/// ```
/// use zae_limiter_core::refill::{Balance, Wait};
/// use zae_limiter_core::schedule::ScheduleEntry;
/// use zae_limiter_core::terms::Terms;
/// use zae_limiter_core::{EpochMillis, Limit, Millitokens};
///
/// // 10 tokens a second, and one a second from 9:00.
/// let limit = Limit::per_minute("rpm", 600).scheduled([ScheduleEntry::on("* 9-17 * * *").scale(0.1)]).build()?;
/// let terms = Terms::of(&limit, 1);
/// // Empty at 8:59:58.
/// let empty = Balance::new(Millitokens(0), EpochMillis::parse("2026-03-02T08:59:58Z").unwrap());
/// assert_eq!(terms.refilled(empty, empty.at.plus(5000)).tokens, Millitokens(23_000));
/// assert_eq!(terms.wait(empty, Millitokens(23_000), empty.at), Wait::Millis(5000));
/// // 600 at once are possible again after 18:00, when the bucket holds 60 and earns 10 a second.
/// assert_eq!(terms.wait(empty, Millitokens(600_000), empty.at), Wait::Millis((9 * 3600 + 2 + 54) * 1000));
/// # Ok::<(), zae_limiter_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    base: Params,
    schedule: Option<&'a Schedule>,
    shards: u32,
    regain: Regain<'a>,
}

/// How a balance comes back.
#[derive(Debug, Clone, Copy)]
pub enum Regain<'a> {
    /// By the rate.
    Rate,
    /// It is whole again at certain local times.
    Resets(&'a ResetSchedule, Allowance),
    /// It is whole again by the first use after a session.
    Session(Session, Allowance),
    /// It gains nothing, and when it is whole again is not known.
    Unknown,
}

/// What a shard may hold until its balance is whole again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// The number of shards of which it was one when it was granted its part.
    pub shards: u32,
    /// Millitokens that were added to the part.
    pub extra: i128,
}

/// The session of a limit on a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// The length in milliseconds.
    pub millis: i64,
    /// When it began; `None` before the first use.
    pub start: Option<EpochMillis>,
    /// Whether the shard's balance belongs to it. If not, another shard's use has begun it since.
    pub is_applied: bool,
    /// Millitokens that were taken from the shard since another one's use has begun it.
    pub spent: i128,
}

impl Session {
    /// The end of the session, if one has begun.
    pub fn end(&self) -> Option<EpochMillis> {
        self.start.map(|start| start.plus(self.millis))
    }

    fn is_over(&self, now: EpochMillis) -> bool {
        self.end().is_none_or(|end| end <= now)
    }
}

/// What becomes of a shard's balance, other than by its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    None,
    /// A reset has come: it is whole again.
    Reset,
    /// The session is over: the next use begins another one.
    Opens,
    /// Another shard's use has begun a session: it is whole again, less what was taken since.
    Joins,
}

impl<'a> Terms<'a> {
    /// The terms of a limit that is refilled under these parameters, undivided, for one of `shards` shards.
    pub fn new(base: Params, schedule: Option<&'a Schedule>, shards: u32) -> Self {
        Self {
            base,
            schedule,
            shards,
            regain: Regain::Rate,
        }
    }

    /// The same terms with another way of coming back.
    #[must_use]
    pub fn with_regain(self, regain: Regain<'a>) -> Self {
        Self { regain, ..self }
    }

    /// The same terms without their schedule.
    pub(crate) fn unscheduled(self) -> Self {
        Self {
            schedule: None,
            ..self
        }
    }

    /// The same terms for one of so many shards.
    pub(crate) fn among(self, shards: u32) -> Self {
        Self { shards, ..self }
    }

    /// The terms of a limit for one of `shards` new shards.
    pub fn of(limit: &'a Limit, shards: u32) -> Self {
        let allowance = Allowance { shards, extra: 0 };
        let regain = match limit.recovery() {
            Recovery::Refill { .. } => Regain::Rate,
            Recovery::Resets(resets) => Regain::Resets(resets, allowance),
            Recovery::Session { secs } => {
                let session = Session {
                    millis: secs_to_millis(*secs),
                    start: None,
                    is_applied: true,
                    spent: 0,
                };
                Regain::Session(session, allowance)
            }
        };
        Self::new(limit.params(), limit.schedule(), shards).with_regain(regain)
    }

    /// Of how many shards it is one.
    pub(crate) fn shards(&self) -> u32 {
        self.shards
    }

    /// How its balance comes back.
    pub fn regain(&self) -> Regain<'a> {
        self.regain
    }

    /// Whether the balance comes back by the rate alone.
    pub fn is_refilled(&self) -> bool {
        matches!(self.regain, Regain::Rate)
    }

    /// The shard's part of the parameters in force at an instant.
    pub fn share(&self, at: EpochMillis) -> Params {
        self.whole(at).share(self.shards)
    }

    /// The parameters in force at an instant, of all shards together.
    pub fn whole(&self, at: EpochMillis) -> Params {
        let scheduled = self.schedule.map(|schedule| schedule.params(self.base, at));
        scheduled.unwrap_or(self.base)
    }

    /// The most that the shard may hold at an instant.
    pub fn ceiling(&self, at: EpochMillis) -> i128 {
        match self.regain {
            Regain::Rate => self.share(at).capacity,
            // Nothing is cut by a rule that is not known.
            Regain::Unknown => i128::MAX,
            Regain::Resets(_, allowance) | Regain::Session(_, allowance) => {
                self.whole(at).share(allowance.shards).capacity + allowance.extra
            }
        }
    }

    /// What becomes at `now` of a balance that stands for the instant `at`.
    pub fn turn(&self, at: EpochMillis, now: EpochMillis) -> Turn {
        match self.regain {
            Regain::Resets(resets, _) if resets.last_edge(now).is_some_and(|edge| edge > at) => Turn::Reset,
            Regain::Session(session, _) if session.is_over(now) => Turn::Opens,
            Regain::Session(session, _) if !session.is_applied => Turn::Joins,
            Regain::Rate | Regain::Resets(..) | Regain::Session(..) | Regain::Unknown => Turn::None,
        }
    }

    /// When the balance that it has at `now` is whole again by a reset or by the end of its session; `None` if it never is, or
    /// if the next use begins a session.
    pub fn resets_at(&self, now: EpochMillis) -> Option<EpochMillis> {
        match self.regain {
            Regain::Rate | Regain::Unknown => None,
            Regain::Resets(resets, _) => resets.first_after(now),
            Regain::Session(session, _) => session.end().filter(|end| *end > now),
        }
    }

    /// The same, if a use of `now` begins the session that is due.
    pub fn resets_at_if_used(&self, now: EpochMillis) -> Option<EpochMillis> {
        match self.regain {
            Regain::Session(session, _) if session.is_over(now) => Some(now.plus(session.millis)),
            _ => self.resets_at(now),
        }
    }

    /// When the session that the balance belongs to, or that another shard's use has begun, did so.
    pub(crate) fn session_start(&self) -> Option<EpochMillis> {
        match self.regain {
            Regain::Session(session, _) => session.start,
            Regain::Rate | Regain::Resets(..) | Regain::Unknown => None,
        }
    }

    /// The end of that session.
    pub(crate) fn session_end(&self) -> Option<EpochMillis> {
        match self.regain {
            Regain::Session(session, _) => session.end(),
            Regain::Rate | Regain::Resets(..) | Regain::Unknown => None,
        }
    }

    /// Until when the balance may be spent as it stands at `now`; `None` if nothing changes but by the rate.
    pub fn valid_until(&self, now: EpochMillis) -> Option<EpochMillis> {
        let scheduled = self.schedule.map(|schedule| schedule.valid_until(now));
        let whole = match self.regain {
            Regain::Rate | Regain::Unknown => None,
            Regain::Resets(resets, _) => Some(resets.valid_until(now)),
            Regain::Session(session, _) => session.end().filter(|end| *end > now),
        };
        scheduled.into_iter().chain(whole).min()
    }

    /// The end of the time from `at` on in which the parameters do not change, and not beyond `end`. Entries with the same parameters
    /// count as one.
    fn unchanged_until(&self, at: EpochMillis, end: EpochMillis) -> EpochMillis {
        let until = self.schedule.map(|schedule| {
            let found = schedule.params(self.base, at);
            let change = schedule.next_where(self.base, at, |params| params != found);
            change.unwrap_or_else(|searched| searched)
        });
        // A search that finds nothing ends where it has looked, and at the end of the calendar it does not go on.
        until
            .filter(|until| *until > at)
            .map_or(end, |until| until.min(end))
    }

    /// The balance at `now`: refilled by the rates since, or whole again, then cut to what the shard may hold.
    ///
    /// With a clock behind the balance's instant nothing is gained and the instant stays.
    pub fn refilled(&self, balance: Balance, now: EpochMillis) -> Balance {
        self.turned(self.turn(balance.at, now), balance, now)
    }

    /// The balance at `now`, with what becomes of it beside what it earns: see [`turn`](Self::turn).
    pub(crate) fn turned(&self, turn: Turn, balance: Balance, now: EpochMillis) -> Balance {
        if self.is_refilled() {
            return self.refilled_by_rate(balance, now);
        }
        // A clock behind the balance's instant does not bring back what was in force before.
        let now = balance.at.max(now);
        let tokens = match turn {
            Turn::None => balance.tokens.0.min(self.ceiling(now)),
            Turn::Reset | Turn::Opens => self.share(now).capacity,
            Turn::Joins => self.share(now).capacity.saturating_sub(self.spent()),
        };
        Balance::new(Millitokens(tokens), now)
    }

    fn spent(&self) -> i128 {
        match self.regain {
            Regain::Session(session, _) => session.spent.max(0),
            Regain::Rate | Regain::Resets(..) | Regain::Unknown => 0,
        }
    }

    fn refilled_by_rate(&self, balance: Balance, now: EpochMillis) -> Balance {
        if self.schedule.is_none() {
            return balance.refilled(self.base.share(self.shards), now);
        }
        let mut balance = balance;
        for _ in 0..MAX_CHANGES {
            if balance.at >= now {
                break;
            }
            let until = self.unchanged_until(balance.at, now);
            balance = self.refilled_under(balance, self.share(balance.at), until);
        }
        // The parameters may have changed just now, which cuts and earns nothing.
        self.refilled_under(balance, self.share(now.max(balance.at)), now)
    }

    /// Refills under parameters that do not change. A fraction counts in parts of the period, so that it is lost if the next
    /// period is another one.
    fn refilled_under(&self, balance: Balance, share: Params, now: EpochMillis) -> Balance {
        let after = balance.refilled(share, now);
        let next = self.share(after.at).period_ms;
        Balance {
            carry: if next == share.period_ms { after.carry } else { 0 },
            ..after
        }
    }

    /// How long after `now` the balance covers `need`, if no other client takes tokens.
    ///
    /// [`Wait::Never`] if the capacity is below `need` at all times, or if nothing ever comes back. Exact while no more than 64
    /// changes lie in between; then an estimate by the last ones.
    pub fn wait(&self, balance: Balance, need: Millitokens, now: EpochMillis) -> Wait {
        if self.schedule.is_none() && self.is_refilled() {
            return balance.wait(self.base.share(self.shards), need, now);
        }
        let held = self.refilled(balance, now);
        if held.tokens >= need {
            return Wait::Millis(0);
        }
        if !self.ever_covers(need) {
            return Wait::Never;
        }
        if self.is_refilled() {
            self.wait_by_rate(held, need, now)
        } else {
            self.wait_until_whole(balance, need, now)
        }
    }

    fn wait_by_rate(&self, balance: Balance, need: Millitokens, now: EpochMillis) -> Wait {
        let mut balance = balance;
        // A balance that is ahead of the clock is waited for.
        let mut at = now.max(balance.at);
        let mut share = self.share(at);
        for _ in 0..MAX_CHANGES {
            let until = self.unchanged_until(at, EpochMillis(i64::MAX));
            if let Wait::Millis(millis) = balance.wait(share, need, at)
                && at.plus(millis) < until
            {
                return Wait::Millis(at.plus(millis).since(now));
            }
            if until.0 == i64::MAX {
                break;
            }
            balance = self.refilled(balance, until);
            (at, share) = (until, self.share(until));
            if balance.tokens >= need {
                return Wait::Millis(at.since(now));
            }
        }
        match balance.wait(share, need, at) {
            Wait::Millis(millis) => Wait::Millis(at.plus(millis).since(now)),
            // Not under these parameters, but under others, at an unknown time.
            Wait::Never => Wait::Millis(at.since(now)),
        }
    }

    fn wait_until_whole(&self, balance: Balance, need: Millitokens, now: EpochMillis) -> Wait {
        let mut at = now;
        for _ in 0..MAX_CHANGES {
            // Under the parameters from `at` on: at once, if it is whole again by then or was only short of room, or else at its
            // next reset. What was above the amount in force is still stored, as long as no other client refills.
            if self.refilled(balance, at).tokens >= need {
                return Wait::Millis(at.since(now));
            }
            let due = self.resets_at(at);
            if let Some(due) = due.filter(|_| self.share(at).capacity >= need.0)
                && self.refilled(balance, due).tokens >= need
            {
                return Wait::Millis(due.since(now));
            }
            match self.schedule.map(|schedule| schedule.valid_until(at)) {
                Some(next) if next > at => at = next,
                // Its parameters do not change any more.
                _ => break,
            }
        }
        // Until here, windows do not leave enough of any reset. From the next one on, the shard is whole whenever another window
        // leaves it enough, as long as no other client refills it before.
        let whole = match self.turn(balance.at, at) {
            Turn::Reset | Turn::Opens => Some(at),
            Turn::None | Turn::Joins => self.resets_at(at),
        };
        whole.map_or(Wait::Never, |whole| {
            Wait::Millis(self.room_from(need, whole).since(now))
        })
    }

    /// How long after `now` the capacity in force covers `need`.
    pub(crate) fn wait_for_room(&self, need: Millitokens, now: EpochMillis) -> Wait {
        if !self.ever_covers(need) {
            return Wait::Never;
        }
        Wait::Millis(self.room_from(need, now).since(now))
    }

    /// From when on the capacity in force covers `need`, not before an instant; the end of the search if that finds none.
    fn room_from(&self, need: Millitokens, from: EpochMillis) -> EpochMillis {
        let Some(schedule) = self.schedule else {
            return from;
        };
        let mut at = from;
        for _ in 0..MAX_SEARCHES {
            let covers = |params: Params| params.share(self.shards).capacity >= need.0;
            match schedule.next_where(self.base, at, covers) {
                Ok(found) => return found,
                Err(end) => at = end,
            }
        }
        at
    }

    /// Seconds that the shard's part takes to fill at its slowest, rounded down; 0 for a quota or a session limit.
    pub fn fill_secs(&self) -> i64 {
        let entries = self.schedule.map_or(&[][..], Schedule::entries);
        let scheduled = entries.iter().map(|entry| entry.params(self.base));
        let secs = |params: Params| {
            let secs = params.capacity.saturating_mul(params.period_ms) / params.refill.max(1) / 1000;
            i64::try_from(secs).unwrap_or(i64::MAX)
        };
        if !self.is_refilled() {
            return 0;
        }
        scheduled.chain([self.base]).map(secs).max().unwrap_or(0)
    }

    /// Whether parameters that are in force some time cover `need` from nothing.
    pub(crate) fn ever_covers(&self, need: Millitokens) -> bool {
        let scheduled = self.schedule.into_iter().flat_map(Schedule::used);
        let scheduled = scheduled.map(|entry| entry.params(self.base));
        let shares = scheduled
            .chain([self.base])
            .map(|params| params.share(self.shards));
        let (capacity, refill) = shares.fold((0, 0), |(capacity, refill), share| {
            (share.capacity.max(capacity), share.refill.max(refill))
        });
        need.0 <= capacity && (!self.is_refilled() || refill > 0)
    }
}

/// A number of seconds in milliseconds.
pub(crate) fn secs_to_millis(secs: u64) -> i64 {
    i64::try_from(secs).unwrap_or(i64::MAX).saturating_mul(1000)
}

#[cfg(test)]
mod tests;

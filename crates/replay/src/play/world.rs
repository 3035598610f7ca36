//! One manifest on a table of its own, and the events that are still to come.
//!
//! At one time, leases end first, then calls that were refused come back, then new ones arrive: each in the order in which they
//! were planned.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use zae_limiter::clock::ManualClock;
use zae_limiter::{ApplyOptions, Error, Lease, NewEntity, RateLimitExceeded, RateLimiter, Repository};
use zae_limiter_core::version::FUNCTIONS_LEVEL;
use zae_limiter_core::{EntityId, EpochMillis};

use super::ReplayError;
use super::table::ReplayTable;
use crate::level::Declared;
use crate::options::{OnRefusal, Options};
use crate::report::{Comparer, Outcome, Run, Tally, Widths};
use crate::trace::{Amount, Request};

/// The latest time that a call comes back, in milliseconds: the end of the calendar.
const LATEST: i64 = 253_402_207_200_999;

/// How many leases and calls that come back a run can have at a time.
const MOST_PLANNED: usize = 1_000_000;

/// A run: a manifest that is played.
pub(crate) struct World<'a> {
    run: usize,
    declared: &'a Declared,
    limiter: RateLimiter,
    clock: ManualClock,
    on_refusal: OnRefusal,
    events: BinaryHeap<Reverse<Event>>,
    planned: u64,
    /// The entities that are below another one.
    placed: HashSet<EntityId>,
    tally: Tally,
}

struct Event {
    when: (i64, u8, u64),
    what: What,
}

enum What {
    Ends(Box<Ending>),
    Returns(Box<Returning>),
}

/// A lease that is held.
struct Ending {
    lease: Lease,
    amounts: Vec<Amount>,
    fails: bool,
    /// The rows of the tally from which it took, with the amount's index.
    charged: Vec<(usize, usize)>,
}

/// A call that was refused and tries again.
struct Returning {
    number: u64,
    request: Request,
    tries: u32,
}

impl<'a> World<'a> {
    /// Applies the manifest to an empty table at the time of the first request.
    pub(crate) async fn open(
        run: usize,
        declared: &'a Declared,
        begin_ms: i64,
        options: &Options,
    ) -> Result<Self, ReplayError> {
        let random = Mutex::new(fastrand::Rng::with_seed(options.seed));
        let choose = move |choices: u32| {
            random
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .u32(..choices.max(1))
        };
        let clock = ManualClock::at(EpochMillis(begin_ms).into());
        let manifest = &declared.manifest;
        // Everything that the environment or a file could decide is named here.
        let repo = Repository::builder()
            .stack("replay")
            .namespace(manifest.namespace.as_str())
            .custom_table(Arc::new(ReplayTable::default()))
            .clock(clock.clone())
            .principal("replay")
            // By the machine's clock: a replay that is suspended must not end with an outage.
            .acquire_timeout(Duration::from_hours(24))
            .draws(choose)
            .open()
            .await
            .map_err(ReplayError::Limiter)?;
        let failed = |reason: String| ReplayError::Manifest {
            name: declared.name.clone(),
            reason,
        };
        // A manifest can declare what needs functions of a recent release. Those of a stack would be of this one.
        let stack = repo.stack_handle();
        stack
            .record_deployment(Some(FUNCTIONS_LEVEL), "replay")
            .await
            .map_err(ReplayError::Limiter)?;
        let applied = repo.admin().apply_limits(manifest, ApplyOptions::default()).await;
        let applied = applied.map_err(|err| failed(err.to_string()))?;
        if !applied.errors.is_empty() {
            return Err(failed(applied.errors.join("; ")));
        }
        Ok(Self {
            run,
            declared,
            limiter: RateLimiter::new(repo),
            clock,
            on_refusal: options.on_refusal,
            events: BinaryHeap::new(),
            planned: 0,
            placed: HashSet::new(),
            tally: Tally::default(),
        })
    }

    /// Plays what is due at this time or before.
    pub(crate) async fn advance(
        &mut self,
        to_ms: i64,
        widths: &mut Widths,
        comparer: &mut Comparer,
    ) -> Result<(), ReplayError> {
        while let Some(Reverse(event)) = self.events.peek() {
            if event.when.0 > to_ms {
                break;
            }
            let Some(Reverse(event)) = self.events.pop() else {
                break;
            };
            self.play(event, widths, comparer).await?;
        }
        self.clock.set(EpochMillis(to_ms).into());
        Ok(())
    }

    /// Plays all that is left.
    pub(crate) async fn finish(
        &mut self,
        widths: &mut Widths,
        comparer: &mut Comparer,
    ) -> Result<(), ReplayError> {
        let mut played = 0_u32;
        while let Some(Reverse(event)) = self.events.pop() {
            self.play(event, widths, comparer).await?;
            played = played.wrapping_add(1);
            if played.is_multiple_of(1024) {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn play(
        &mut self,
        event: Event,
        widths: &mut Widths,
        comparer: &mut Comparer,
    ) -> Result<(), ReplayError> {
        let at_ms = event.when.0;
        self.clock.set(EpochMillis(at_ms).into());
        match event.what {
            What::Ends(ending) => self.end(*ending).await,
            What::Returns(returning) => {
                let Returning {
                    number,
                    request,
                    tries,
                } = *returning;
                widths.include(at_ms)?;
                self.attempt(number, at_ms, &request, tries, widths, comparer)
                    .await
            }
        }
    }

    /// A request arrives, at its time.
    pub(crate) async fn arrive(
        &mut self,
        number: u64,
        request: &Request,
        widths: &Widths,
        comparer: &mut Comparer,
    ) -> Result<(), ReplayError> {
        self.tally.arrived(request, widths);
        if let Some(parent) = &request.parent {
            self.put_below(&request.entity, parent)
                .await
                .map_err(ReplayError::Limiter)?;
        }
        self.attempt(number, request.at_ms, request, 0, widths, comparer)
            .await
    }

    async fn attempt(
        &mut self,
        number: u64,
        now_ms: i64,
        request: &Request,
        tries: u32,
        widths: &Widths,
        comparer: &mut Comparer,
    ) -> Result<(), ReplayError> {
        let mut call = self.limiter.acquire(&request.entity, &request.resource);
        for amount in &request.amounts {
            call = call.consume(&amount.limit, amount.asked);
        }
        let outcome = match call.await {
            Ok(lease) => {
                self.admitted(now_ms, request, tries, lease).await?;
                Outcome::Admitted
            }
            Err(Error::RateLimitExceeded(refused)) => {
                if let Some(back_ms) = self.comes_back(now_ms, &refused, tries) {
                    self.tally
                        .refused(self.declared, now_ms, request, &refused, false, widths);
                    let returning = Returning {
                        number,
                        request: request.clone(),
                        tries: tries + 1,
                    };
                    return self.plan(back_ms, 1, What::Returns(Box::new(returning)));
                }
                self.tally
                    .refused(self.declared, now_ms, request, &refused, true, widths);
                let limits = refused
                    .violations()
                    .map(|status| format!("{} of {}", status.limit_name, status.entity));
                Outcome::Refused(limits.collect())
            }
            Err(
                err @ (Error::Disabled { .. }
                | Error::NotConfigured { .. }
                | Error::InvalidInput(_)
                | Error::Unsupported(_)),
            ) => {
                self.tally.failed(now_ms, request, &err.to_string(), widths);
                Outcome::Failed
            }
            Err(err) => return Err(ReplayError::Limiter(err)),
        };
        comparer.concluded(number, self.run, outcome);
        Ok(())
    }

    /// When a refused call tries again, if it does.
    fn comes_back(&self, now_ms: i64, refused: &RateLimitExceeded, tries: u32) -> Option<i64> {
        let OnRefusal::Retry(most) = self.on_refusal else {
            return None;
        };
        let wait = refused.retry_after().filter(|_| tries < most)?;
        let back_ms = now_ms.checked_add(i64::try_from(wait.as_millis()).ok()?)?;
        // A call that comes back at once would be refused again.
        Some(back_ms.max(now_ms + 1)).filter(|back_ms| *back_ms <= LATEST)
    }

    async fn admitted(
        &mut self,
        now_ms: i64,
        request: &Request,
        tries: u32,
        lease: Lease,
    ) -> Result<(), ReplayError> {
        let charged = self.tally.admitted(self.declared, now_ms, request, tries, &lease);
        let ending = Ending {
            lease,
            amounts: request.amounts.clone(),
            fails: request.fails,
            charged,
        };
        if request.lasts_ms == 0 {
            return self.end(ending).await;
        }
        let at_ms = now_ms.saturating_add(request.lasts_ms.cast_signed());
        self.plan(at_ms, 0, What::Ends(Box::new(ending)))
    }

    async fn end(&mut self, ending: Ending) -> Result<(), ReplayError> {
        let Ending {
            mut lease,
            amounts,
            fails,
            charged,
        } = ending;
        let corrections: Vec<i128> = amounts
            .iter()
            .map(|amount| if fails { 0 } else { i128::from(amount.used) } - i128::from(amount.asked))
            .collect();
        self.tally.corrected(&charged, &corrections);
        let done = if fails {
            lease.rollback().await
        } else {
            for amount in amounts.iter().filter(|amount| amount.used != amount.asked) {
                lease
                    .adjust_to(&amount.limit, amount.used)
                    .map_err(ReplayError::Limiter)?;
            }
            lease.commit().await
        };
        done.map_err(ReplayError::Limiter)
    }

    /// Puts an entity below another one, before its first request that says so. The trace has one parent for each entity.
    async fn put_below(&mut self, entity: &EntityId, parent: &EntityId) -> Result<(), Error> {
        if self.placed.contains(entity) {
            return Ok(());
        }
        let new = NewEntity::new(entity).parent(parent).cascade(true);
        self.limiter.repository().admin().create_entity(new).await?;
        self.placed.insert(entity.clone());
        Ok(())
    }

    fn plan(&mut self, at_ms: i64, rank: u8, what: What) -> Result<(), ReplayError> {
        if self.events.len() >= MOST_PLANNED {
            return Err(ReplayError::TooMany);
        }
        self.planned += 1;
        let when = (at_ms, rank, self.planned);
        self.events.push(Reverse(Event { when, what }));
        Ok(())
    }

    /// What came of it.
    pub(crate) fn into_run(self, widths: &Widths) -> Run {
        self.tally.into_run(self.declared, widths)
    }
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

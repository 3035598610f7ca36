//! What operators say about access, and what requests made of it.
//!
//! - Under a bypass, a request is a write that counts: consumption moves, and no balance. It is made only while the item's stamp lies
//!   ahead, as far as clocks agree about it, and never on a disabled item.
//! - A client stamps an item only if its entity was bypassed at some time since its acquire began, and for no longer than a minute.
//!   It leaves the stamp only if the entity was still bypassed after it had stamped.
//! - Once an operator has found nothing more to stamp, and until the word changes: no request is admitted that begins under
//!   "disabled", none is refused as disabled under another word, none is refused by a limit under a bypass, and without one there is
//!   no count by a stamp from before.
//! - What an acquire has counted is corrected by counts, up to what it has counted; and what it has debited is refunded, up to that.

use std::collections::{BTreeMap, BTreeSet};

use zae_limiter_core::config::Access as Word;

use super::periods::Moment;
use crate::rows::change::Source;
use crate::rows::row::Row;

/// The longest life of a stamp in milliseconds.
const STAMP_MS: i64 = 60_000;

/// A stamp on an item: since when in microseconds from the start, and by which acquire if not by an operator.
#[derive(Debug, Clone, Copy)]
struct Stamp {
    at_us: u64,
    job: Option<usize>,
}

/// What was said about a bucket.
#[derive(Debug, Default)]
struct Said {
    /// Since when which word, after that of the beginning.
    words: Vec<(u64, Word)>,
    /// Since when an operator has found all shards to say so.
    settled: Option<u64>,
}

impl Said {
    fn word(&self) -> Word {
        self.words.last().map_or(Word::Enabled, |(_, word)| *word)
    }

    /// Whether the entity was bypassed at some time from one instant to now.
    fn was_bypassed_since(&self, from_us: u64) -> bool {
        let ends = self.words.iter().skip(1).map(|(end, _)| *end).chain([u64::MAX]);
        let mut spans = self.words.iter().zip(ends);
        spans.any(|((_, word), end)| *word == Word::Bypass && end >= from_us)
    }
}

/// How an acquire has ended, as far as access is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Admitted by the table, or refused by no limit of this bucket.
    Admitted,
    /// Refused by a limit.
    Limited,
    /// Refused because the entity is disabled.
    Disabled,
}

/// Clients count time in milliseconds. A clock that is slow by what the plans allow takes a little longer for one.
const CLOCK_STEP_US: u64 = 1_010;

/// The independent account of what is said about access.
#[derive(Debug, Default)]
pub(crate) struct Access {
    /// Whether anything is said in the run. If not, no account is kept.
    pub(crate) is_played: bool,
    said: BTreeMap<String, Said>,
    stamps: BTreeMap<(String, u32), Stamp>,
    /// What each action has counted of each limit, less what was corrected.
    counted: BTreeMap<(usize, String, String), i128>,
    /// What it has debited, less what was refunded, if no other action's debit can be its own.
    debited: BTreeMap<(usize, String, String), i128>,
    /// Actions that have tokens of others.
    mixed: BTreeSet<usize>,
    /// Credits that correct counts.
    pub(crate) corrections: BTreeSet<usize>,
    /// Whether reads of the configuration can show what was long ago, so that only those that are consistent bind.
    pub(crate) has_stale_reads: bool,
    /// When each acquire began, by job.
    began: BTreeMap<usize, u64>,
}

/// Whether a write of a client moves consumption and nothing else.
pub(crate) fn is_count(old: &Row, new: &Row) -> bool {
    let pairs = || {
        let cells = old.limits.iter();
        cells.filter_map(|(name, was)| Some((was, new.limits.get(name)?)))
    };
    (old.rf, old.vu, old.count) == (new.rf, new.vu, new.count)
        && pairs().all(|(was, is)| was.tk == is.tk)
        && pairs().any(|(was, is)| was.tc != is.tc)
}

impl Access {
    /// An acquire begins. What another acquire read of the configuration in the same millisecond of the client's clock counts as
    /// read since.
    pub(crate) fn begins(&mut self, job: usize, now_us: u64) {
        self.began.insert(job, now_us.saturating_sub(CLOCK_STEP_US));
    }

    /// Tokens that others have debited are this action's, too.
    pub(crate) fn stands_in(&mut self, action: usize) {
        self.mixed.insert(action);
    }

    /// An operator has changed what is said about a bucket.
    pub(crate) fn says(&mut self, bucket: &str, word: Word, now_us: u64) {
        let said = self.said.entry(bucket.to_owned()).or_default();
        if said.word() != word {
            said.words.push((now_us, word));
            said.settled = None;
        }
    }

    /// An operator has found nothing more to stamp, in a look that began at this instant.
    pub(crate) fn settles(&mut self, bucket: &str, began_us: u64) {
        let said = self.said.entry(bucket.to_owned()).or_default();
        if said.words.last().is_none_or(|(at, _)| *at <= began_us) {
            said.settled = Some(began_us);
        }
    }

    /// Judges what a write did to the stamp of an item.
    pub(super) fn stamped(
        &mut self,
        (now_us, source): (u64, Source),
        (bucket, shard): (&str, u32),
        (old, new): (Option<&Row>, Option<&Row>),
        moment: Moment,
    ) -> Result<(), String> {
        let before = old.and_then(|old| old.bypass);
        let after = new.and_then(|new| new.bypass);
        let job = source.job();
        if let (None, Some(_), None, Some(said)) = (old, new, job, self.said.get_mut(bucket)) {
            // A top-up creates a bucket without a stamp, and the first request stamps it.
            said.settled = None;
        }
        if before == after {
            return Ok(());
        }
        let key = (bucket.to_owned(), shard);
        let known = self.stamps.remove(&key);
        match (after, job) {
            (None, Some(job)) if known.is_some_and(|stamp| stamp.job != Some(job)) => {
                return Err(format!("job {job} has removed the stamp of {known:?}"));
            }
            (Some(until), Some(job)) => {
                let began = self.began.get(&job).copied().unwrap_or(0);
                let is_bypassed = self
                    .said
                    .get(bucket)
                    .is_some_and(|said| said.was_bypassed_since(began));
                // What was long ago at one level, and is now at another, may have been in force at no time.
                if !is_bypassed && !self.has_stale_reads {
                    return Err(format!(
                        "job {job} has stamped what was never bypassed since it began"
                    ));
                }
                if until > moment.now + moment.ahead + STAMP_MS {
                    return Err(format!("job {job} has stamped until {until}, at {}", moment.now));
                }
            }
            _ => {}
        }
        if after.is_some() {
            self.stamps.insert(key, Stamp { at_us: now_us, job });
        }
        Ok(())
    }

    /// Judges a write that counts. `action` is the one that it is made for.
    pub(super) fn counted(
        &mut self,
        (source, action): (Source, usize),
        (bucket, shard): (&str, u32),
        (old, new): (&Row, &Row),
        moment: Moment,
    ) -> Result<(), String> {
        for (name, was) in &old.limits {
            let Some(is) = new.limits.get(name) else { continue };
            let sum = self
                .counted
                .entry((action, bucket.to_owned(), name.clone()))
                .or_default();
            *sum += is.tc - was.tc;
            if *sum < 0 {
                return Err(format!(
                    "{} of {name} were taken off beyond what was counted",
                    -*sum
                ));
            }
        }
        let Source::Acquire(job) = source else {
            return match source {
                Source::Credit(job) if !self.corrections.contains(&job) => {
                    Err(format!("credit {job} has moved consumption and no balance"))
                }
                _ => Ok(()),
            };
        };
        if old.disabled {
            return Err(format!("job {job} has counted on a disabled bucket"));
        }
        let earliest = moment.earliest();
        if old.bypass.is_none_or(|until| until <= earliest) {
            return Err(format!(
                "job {job} has counted at {earliest}, bypassed until {:?}",
                old.bypass
            ));
        }
        let stamp = self.stamps.get(&(bucket.to_owned(), shard));
        let said = self.said.get(bucket);
        let settled = said
            .filter(|said| said.word() != Word::Bypass)
            .and_then(|said| said.settled);
        if let (Some(since), Some(stamp)) = (settled, stamp)
            && stamp.at_us < since
        {
            return Err(format!(
                "job {job} has counted by {stamp:?}, which was to be gone since {since} us"
            ));
        }
        Ok(())
    }

    /// Judges a write that does not count, and moves this much of a limit's consumption. A correction of counts never does.
    pub(super) fn debits(
        &mut self,
        (source, action): (Source, usize),
        bucket: &str,
        name: &str,
        consumed: i128,
    ) -> Result<(), String> {
        if let Source::Credit(job) = source
            && self.corrections.contains(&job)
        {
            return Err(format!(
                "the correction of a count, {job}, has moved a balance of {name}"
            ));
        }
        if !self.is_played || consumed == 0 {
            return Ok(());
        }
        let key = (action, bucket.to_owned(), name.to_owned());
        let sum = self.debited.entry(key.clone()).or_default();
        *sum += consumed;
        let (has_counted, sum) = (self.counted.contains_key(&key), *sum);
        if sum < 0 && has_counted && !self.mixed.contains(&action) && matches!(source, Source::Credit(_)) {
            return Err(format!(
                "{} of {name} were given back beyond what action {action} has debited",
                -sum
            ));
        }
        Ok(())
    }

    /// An acquire that knows all its answers has ended: the stamps that it leaves are of a bypass that was still in force.
    pub(crate) fn ends(&self, job: usize) -> Result<(), String> {
        let left = self.stamps.iter().filter(|(_, stamp)| stamp.job == Some(job));
        for ((bucket, shard), stamp) in left {
            let said = self.said.get(bucket);
            if !said.is_some_and(|said| said.was_bypassed_since(stamp.at_us)) {
                return Err(format!(
                    "job {job} has left its stamp of a bypass that had ended on shard {shard} of {bucket}"
                ));
            }
        }
        Ok(())
    }

    /// Judges how an acquire has ended that has asked the table about a bucket.
    pub(crate) fn decided(&self, job: usize, bucket: &str, ended: Ended) -> Result<(), String> {
        let Some(said) = self.said.get(bucket) else {
            return Ok(());
        };
        let began = self.began.get(&job).copied().unwrap_or(0);
        if said.settled.is_none_or(|since| since > began) || self.has_stale_reads {
            return Ok(());
        }
        let word = said.word();
        let is_wrong = match ended {
            Ended::Admitted => word == Word::Disabled,
            Ended::Limited => word == Word::Bypass,
            Ended::Disabled => word != Word::Disabled,
        };
        if is_wrong {
            return Err(format!(
                "job {job} ended as {ended:?} although {bucket} was {word:?}"
            ));
        }
        Ok(())
    }
}

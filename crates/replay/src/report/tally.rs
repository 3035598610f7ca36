//! Counts what happens in a run.

use std::collections::HashMap;

use zae_limiter::manifest::Setting;
use zae_limiter::{Lease, LimitStatus, RateLimitExceeded};
use zae_limiter_core::{EntityId, LimitName, ResourceName};

use super::timeline::{Timeline, Widths};
use super::{KeyRow, LimitRow, Part, Run, Totals};
use crate::level::Declared;
use crate::trace::Request;

/// The numbers of the timeline of a run.
const ARRIVED: usize = 0;
const REFUSED: usize = 1;
const FAILED: usize = 2;

/// What happened so far in a run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    totals: Totals,
    timeline: Timeline<3>,
    keys: HashMap<(EntityId, ResourceName), KeyRow>,
    places: HashMap<(EntityId, ResourceName, LimitName), usize>,
    limits: Vec<(LimitRow, Timeline<1>)>,
    bypassed: u64,
}

/// Extends a span of time.
fn extend(span: &mut Option<(i64, i64)>, at_ms: i64) {
    let (first, last) = span.unwrap_or((at_ms, at_ms));
    *span = Some((first.min(at_ms), last.max(at_ms)));
}

impl Tally {
    fn key(&mut self, request: &Request) -> &mut KeyRow {
        let of = (request.entity.clone(), request.resource.clone());
        self.keys.entry(of).or_insert_with(|| KeyRow {
            entity: request.entity.clone(),
            resource: request.resource.clone(),
            requests: 0,
            admitted: 0,
            refused: 0,
            failed: 0,
            failure: None,
            refusals_ms: None,
        })
    }

    /// The row of a limit.
    fn place(&mut self, declared: &Declared, status: &LimitStatus) -> Option<usize> {
        let limit = LimitName::new(&status.limit_name).ok()?;
        let (entity, resource) = (&status.entity, &status.resource);
        let of = (entity.clone(), resource.clone(), limit);
        if let Some(place) = self.places.get(&of) {
            return Some(*place);
        }
        let level = declared.level(entity, resource);
        let row = LimitRow {
            entity: entity.clone(),
            resource: resource.clone(),
            limit: of.2.clone(),
            level: level.map(|(at, _)| at),
            declared: level
                .and_then(|(_, limits)| limits.iter().find(|limit| *limit.name() == of.2))
                .cloned(),
            refusals: 0,
            never: 0,
            tokens_refused: 0,
            refusals_ms: None,
            longest_wait_ms: 0,
            taken: 0,
            peak_permille: 0,
            peak_ms: None,
            timeline: Vec::new(),
        };
        self.limits.push((row, Timeline::default()));
        let place = self.limits.len() - 1;
        self.places.insert(of, place);
        Some(place)
    }

    /// A request arrives.
    pub(crate) fn arrived(&mut self, request: &Request, widths: &Widths) {
        self.key(request).requests += 1;
        self.timeline.count(ARRIVED, request.at_ms, widths);
    }

    /// A request is admitted. Returns the rows that it took from, each with the index of its amount.
    pub(crate) fn admitted(
        &mut self,
        declared: &Declared,
        now_ms: i64,
        request: &Request,
        tries: u32,
        lease: &Lease,
    ) -> Vec<(usize, usize)> {
        self.totals.admitted += 1;
        self.totals.admitted_later += u64::from(tries > 0);
        self.bypassed += u64::from(lease.is_bypassed());
        self.key(request).admitted += 1;
        let mut charged = Vec::new();
        for status in lease.statuses() {
            let Some(place) = self.place(declared, &status) else {
                continue;
            };
            let Some((row, _)) = self.limits.get_mut(place) else {
                continue;
            };
            row.taken += i128::from(status.requested);
            let used = used_permille(&status);
            if row.peak_ms.is_none() || used > row.peak_permille {
                row.peak_permille = used;
                row.peak_ms = Some(now_ms);
            }
            let index = request
                .amounts
                .iter()
                .position(|amount| *amount.limit.as_str() == *status.limit_name);
            charged.extend(index.map(|index| (place, index)));
        }
        charged
    }

    /// A lease ends with corrections, one for each amount.
    pub(crate) fn corrected(&mut self, charged: &[(usize, usize)], corrections: &[i128]) {
        for (place, index) in charged {
            if let (Some((row, _)), Some(correction)) = (self.limits.get_mut(*place), corrections.get(*index))
            {
                row.taken += correction;
            }
        }
    }

    /// A request is refused, for good or for now.
    pub(crate) fn refused(
        &mut self,
        declared: &Declared,
        now_ms: i64,
        request: &Request,
        refused: &RateLimitExceeded,
        is_final: bool,
        widths: &Widths,
    ) {
        self.totals.refusals += 1;
        self.timeline.count(REFUSED, now_ms, widths);
        self.totals.refused += u64::from(is_final);
        self.totals.never += u64::from(is_final && refused.is_never());
        let key = self.key(request);
        key.refused += u64::from(is_final);
        extend(&mut key.refusals_ms, now_ms);
        for status in refused.violations() {
            let Some(place) = self.place(declared, status) else {
                continue;
            };
            let Some((row, timeline)) = self.limits.get_mut(place) else {
                continue;
            };
            row.refusals += 1;
            row.tokens_refused += u128::from(status.requested);
            extend(&mut row.refusals_ms, now_ms);
            timeline.count(0, now_ms, widths);
            match status.wait.after() {
                Some(wait) => {
                    let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
                    row.longest_wait_ms = row.longest_wait_ms.max(wait);
                }
                None => row.never += 1,
            }
        }
    }

    /// A request fails.
    pub(crate) fn failed(&mut self, now_ms: i64, request: &Request, why: &str, widths: &Widths) {
        self.totals.failed += 1;
        self.timeline.count(FAILED, now_ms, widths);
        let key = self.key(request);
        key.failed += 1;
        key.failure.get_or_insert_with(|| why.to_owned());
    }

    /// The run, with its rows in an order that depends on nothing but them.
    pub(crate) fn into_run(self, declared: &Declared, widths: &Widths) -> Run {
        let mut keys: Vec<KeyRow> = self.keys.into_values().collect();
        keys.sort_by(|a, b| {
            let lost = |row: &KeyRow| row.refused + row.failed;
            lost(b)
                .cmp(&lost(a))
                .then_with(|| (&a.entity, &a.resource).cmp(&(&b.entity, &b.resource)))
        });
        let mut limits: Vec<LimitRow> = self
            .limits
            .into_iter()
            .map(|(row, timeline)| {
                let timeline = match row.refusals {
                    0 => Vec::new(),
                    _ => timeline
                        .all(widths)
                        .into_iter()
                        .map(|[refused]| refused)
                        .collect(),
                };
                LimitRow { timeline, ..row }
            })
            .collect();
        limits.sort_by(|a, b| {
            let of = |row: &LimitRow| (row.entity.clone(), row.resource.clone(), row.limit.clone());
            b.refusals.cmp(&a.refusals).then_with(|| of(a).cmp(&of(b)))
        });
        let part = |[arrived, refused, failed]: [u64; 3]| Part {
            arrived,
            refused,
            failed,
        };
        let mut notes = Vec::new();
        if self.bypassed > 0 {
            notes.push(format!("{} requests passed under a bypass", self.bypassed));
        }
        let is_concurrency = |setting: &Setting| matches!(setting, Setting::Concurrency(_));
        if declared
            .manifest
            .settings
            .iter()
            .any(|(setting, _)| is_concurrency(setting))
        {
            notes.push("concurrency limits are not replayed".to_owned());
        }
        Run {
            manifest: declared.name.clone(),
            notes,
            totals: self.totals,
            timeline: self.timeline.all(widths).into_iter().map(part).collect(),
            keys,
            limits,
        }
    }
}

/// The part of its capacity that a limit has in use, in thousandths.
fn used_permille(status: &LimitStatus) -> u64 {
    let (capacity, shards) = (i128::from(status.capacity), i128::from(status.shards.max(1)));
    if capacity == 0 {
        return 0;
    }
    // A shard holds its fraction of the capacity.
    let used = (capacity - i128::from(status.available) * shards).max(0);
    u64::try_from(used * 1000 / capacity).unwrap_or(u64::MAX)
}

//! The shape of a limit on a bucket item: its schedules, and the state of a quota or a session.
//!
//! An item has the schedule of its first limit that has one, for all of its limits. A limit with another schedule has it
//! itself, and one without is marked as having none. The same holds for times of reset. All are in one time zone.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use smol_str::SmolStr;

use super::{NO_SCHEDULE, limit_attr};
use crate::error::RecordError;
use crate::limit::{Limit, Params, Recovery};
use crate::records::reader::Reader;
use crate::schedule::{ResetSchedule, Schedule, Zone};
use crate::table::{Condition, Value};
use crate::terms::{Allowance, Regain, Session, secs_to_millis};
use crate::units::{EpochMillis, MAX_PERIOD_SECS, MAX_TOKENS, Millitokens};

/// The parts of a limit that show which period its balance belongs to, and what it was granted for that.
pub(crate) const PERIOD_PARTS: [&str; 6] = ["gc", "tu", "rn", "ws", "wa", "wtc"];

/// What an item has beside the parameters of a limit that is not refilled at one rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) schedule: Option<Arc<Schedule>>,
    pub(crate) recovery: StoredRecovery,
    /// The parts as they stand on the item, for writes that depend on them: [`PERIOD_PARTS`], the length of a session, and its
    /// own times of reset.
    stored: Vec<(&'static str, Option<Value>)>,
}

/// How the balance comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoredRecovery {
    Rate,
    Resets {
        resets: Arc<ResetSchedule>,
        allowance: Allowance,
    },
    Session {
        secs: u64,
        session: Session,
        allowance: Allowance,
    },
    /// A quota whose times of reset are gone: a level that has replaced the item's schedules does not name it any more.
    Unknown,
}

/// The schedules that an item has for all of its limits.
pub(super) struct ItemSchedules<'a> {
    schedule: Option<&'a str>,
    resets: Option<&'a str>,
    zone: Option<&'a str>,
}

/// The numbers of a limit that its shape is read with.
pub(super) struct Held {
    pub(super) params: Params,
    pub(super) balance: Millitokens,
    pub(super) consumed: Option<Millitokens>,
    pub(super) refilled_at: EpochMillis,
    pub(super) shard_count: u32,
}

impl<'a> ItemSchedules<'a> {
    pub(super) fn read(reader: &Reader<'a>) -> Result<Self, RecordError> {
        Ok(Self {
            schedule: reader.text_opt("sched")?,
            resets: reader.text_opt("rsched")?,
            zone: reader.text_opt("sched_tz")?,
        })
    }

    /// As they stand on the item: `sched`, `rsched` and `sched_tz`.
    pub(super) fn stored(&self) -> [Option<SmolStr>; 3] {
        [self.schedule, self.resets, self.zone].map(|text| text.map(SmolStr::new))
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.schedule.is_none() && self.resets.is_none()
    }

    /// The shape of a limit; `None` if it is refilled at one rate. The error is the attribute that cannot be read by this
    /// version.
    pub(super) fn shape(
        &self,
        reader: &Reader<'_>,
        name: &str,
        held: &Held,
    ) -> Result<Result<Option<Shape>, SmolStr>, RecordError> {
        let own = |part: &'static str, shared: Option<&'a str>| {
            let attr = limit_attr(name, part);
            let text = match reader.text_opt(&attr)? {
                Some(text) => (text != NO_SCHEDULE).then(|| (text.to_owned(), attr)),
                None => shared.map(|text| (text.to_owned(), SmolStr::new_static(part))),
            };
            Ok::<_, RecordError>(text)
        };
        let (schedule, resets) = (own("sched", self.schedule)?, own("rsched", self.resets)?);
        let session = reader.int_within(&limit_attr(name, "rsa"), 1, MAX_PERIOD_SECS.into())?;
        let resets = match resets {
            // That of another limit, which this one has not been marked against.
            Some((_, attr)) if held.params.refill != 0 && attr == "rsched" => None,
            Some((_, attr)) if held.params.refill != 0 => return Ok(Err(attr)),
            resets => resets,
        };
        if session.is_some() && held.params.refill != 0 {
            // It gains by time, and is whole again at once: no client writes that.
            return Ok(Err(limit_attr(name, "rsa")));
        }
        if schedule.is_none() && resets.is_none() && session.is_none() && held.params.refill != 0 {
            return Ok(Ok(None));
        }
        let zone = self.zone.unwrap_or("UTC");
        let schedule = match schedule {
            Some((text, attr)) => match decoded(&SCHEDULES, &text, zone, Schedule::decode) {
                Some(schedule) => Some(schedule),
                None => return Ok(Err(attr)),
            },
            None => None,
        };
        let stored: Vec<_> = PERIOD_PARTS
            .into_iter()
            .chain(["rsa", "rsched"])
            .map(|part| (part, reader.get(&limit_attr(name, part)).cloned()))
            .collect();
        let recovery = if let Some(secs) = session {
            let secs = secs as u64;
            StoredRecovery::Session {
                secs,
                session: read_session(reader, name, secs, held)?,
                allowance: read_allowance(reader, name, held)?,
            }
        } else if let Some((text, attr)) = resets {
            match decoded(&RESETS, &text, zone, ResetSchedule::decode) {
                Some(resets) => StoredRecovery::Resets {
                    resets,
                    allowance: read_allowance(reader, name, held)?,
                },
                None => return Ok(Err(attr)),
            }
        } else if held.params.refill == 0 {
            StoredRecovery::Unknown
        } else {
            StoredRecovery::Rate
        };
        Ok(Ok(Some(Shape {
            schedule,
            recovery,
            stored,
        })))
    }
}

fn read_allowance(reader: &Reader<'_>, name: &str, held: &Held) -> Result<Allowance, RecordError> {
    let granted = reader.int_within(&limit_attr(name, "gc"), 1, super::MAX_SHARDS_READ)?;
    let most = Millitokens::from_amount(MAX_TOKENS).0;
    let extra = reader.int_within(&limit_attr(name, "tu"), 0, most)?.unwrap_or(0);
    // An older client has not stored the count, or the limit has just become a quota. Any part larger than a share would let all
    // shards together hold more than the limit.
    let shards = granted.map_or(held.shard_count.max(1), |granted| granted as u32);
    Ok(Allowance { shards, extra })
}

fn read_session(reader: &Reader<'_>, name: &str, secs: u64, held: &Held) -> Result<Session, RecordError> {
    let start = reader.int64(&limit_attr(name, "ws"))?;
    let applied = reader.int64(&limit_attr(name, "wa"))?;
    let counted = reader.int_opt(&limit_attr(name, "wtc"))?;
    let spent = match (counted, held.consumed) {
        (Some(before), Some(consumed)) => consumed.0.saturating_sub(before).max(0),
        _ => 0,
    };
    Ok(Session {
        millis: secs_to_millis(secs),
        start: start.map(EpochMillis),
        is_applied: start.is_none_or(|start| start <= applied.unwrap_or(held.refilled_at.0)),
        spent,
    })
}

impl Shape {
    pub(crate) fn regain(&self) -> Regain<'_> {
        match &self.recovery {
            StoredRecovery::Rate => Regain::Rate,
            StoredRecovery::Unknown => Regain::Unknown,
            StoredRecovery::Resets { resets, allowance } => Regain::Resets(resets, *allowance),
            StoredRecovery::Session {
                session, allowance, ..
            } => Regain::Session(*session, *allowance),
        }
    }

    /// Whether it is a quota or a session limit.
    pub(crate) fn is_quota(&self) -> bool {
        !matches!(self.recovery, StoredRecovery::Rate)
    }

    /// The period that the balance belongs to, and what it was granted for that, are as they were seen.
    pub(crate) fn pins(&self, limit: &str) -> impl Iterator<Item = Condition> {
        let pinned = if self.is_quota() { &self.stored[..] } else { &[] };
        pinned
            .iter()
            .map(|(part, value)| Condition::same(limit_attr(limit, part), value.clone()))
    }

    /// The parts that the item has.
    pub(crate) fn stored(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        let stored = self.stored.iter();
        stored.filter_map(|(part, value)| Some((*part, value.as_ref()?)))
    }

    /// How often an operator has reset it.
    pub(crate) fn resets(&self) -> i64 {
        let mut stored = self.stored.iter();
        let count = stored.find(|(part, _)| *part == "rn");
        let count = count.and_then(|(_, value)| value.as_ref()?.as_int());
        count.and_then(|count| i64::try_from(count).ok()).unwrap_or(0)
    }

    /// Millitokens that were added to the shard's part.
    pub(crate) fn extra(&self) -> i128 {
        self.allowance().map_or(0, |allowance| allowance.extra)
    }

    /// What the shard's part is, of a quota or a session limit.
    pub(crate) fn allowance(&self) -> Option<Allowance> {
        match &self.recovery {
            StoredRecovery::Resets { allowance, .. } | StoredRecovery::Session { allowance, .. } => {
                Some(*allowance)
            }
            StoredRecovery::Rate | StoredRecovery::Unknown => None,
        }
    }

    /// The length of its sessions in seconds.
    pub(crate) fn session_secs(&self) -> Option<u64> {
        match &self.recovery {
            StoredRecovery::Session { secs, .. } => Some(*secs),
            StoredRecovery::Rate | StoredRecovery::Resets { .. } | StoredRecovery::Unknown => None,
        }
    }

    /// Whether the item has a part.
    pub(crate) fn has(&self, part: &str) -> bool {
        let mut stored = self.stored.iter();
        stored.any(|(known, value)| *known == part && value.is_some())
    }

    /// Whether a balance of `later`, refilled last at `later_at`, belongs to the same period as one of this quota, refilled last at
    /// `at`.
    pub(crate) fn is_of_period(&self, at: EpochMillis, later: Option<&Self>, later_at: EpochMillis) -> bool {
        let Some(later) = later else { return false };
        let part = |shape: &Self, part: &str| {
            let mut stored = shape.stored.iter();
            stored
                .find(|(known, _)| *known == part)
                .and_then(|(_, value)| value.clone())
        };
        let same = |name: &str| part(self, name) == part(later, name);
        match (&self.recovery, &later.recovery) {
            (StoredRecovery::Resets { resets, .. }, StoredRecovery::Resets { resets: now, .. }) => {
                resets.is_like(now) && same("rn") && !later.is_whole_since(at, later_at)
            }
            (StoredRecovery::Session { .. }, StoredRecovery::Session { .. }) => same("ws") && same("wa"),
            // Left over from a quota that no level names: nothing makes it whole while it stays as it is.
            (StoredRecovery::Unknown, StoredRecovery::Unknown) => self.stored == later.stored,
            _ => false,
        }
    }

    /// Whether the balance of an item that was refilled last at `refilled_at` has been whole again since `at`.
    pub(crate) fn is_whole_since(&self, at: EpochMillis, refilled_at: EpochMillis) -> bool {
        match &self.recovery {
            StoredRecovery::Rate | StoredRecovery::Unknown => false,
            StoredRecovery::Resets { resets, .. } => {
                resets.last_edge(refilled_at).is_some_and(|edge| edge > at)
            }
            StoredRecovery::Session { session, .. } => session.start.is_some_and(|start| start > at),
        }
    }

    /// The conditions under which the balance still belongs to the period of an image that was refilled last at `at`.
    pub(crate) fn in_period(&self, limit: &str, at: EpochMillis) -> Vec<Condition> {
        let same = |wanted: &[&str]| {
            let stored = self.stored.iter();
            let wanted = stored.filter(|(part, _)| wanted.contains(part));
            wanted
                .map(|(part, value)| Condition::same(limit_attr(limit, part), value.clone()))
                .collect::<Vec<_>>()
        };
        match &self.recovery {
            StoredRecovery::Rate => Vec::new(),
            StoredRecovery::Unknown => same(&["rn", "rsched", "rsa"]),
            StoredRecovery::Resets { resets, .. } => {
                let mut parts = same(&["rn", "rsched"]);
                if let Some(edge) = resets.first_after(at) {
                    parts.push(Condition::AtMost("rf".into(), i128::from(edge.0) - 1));
                }
                parts
            }
            StoredRecovery::Session { .. } => same(&["ws", "wa"]),
        }
    }

    /// Whether a limit has this shape. Scales are stored in thousandths, and compared so.
    fn is_of(&self, limit: &Limit) -> bool {
        let same_schedule = match (&self.schedule, limit.schedule()) {
            (Some(stored), Some(wanted)) => {
                stored.zone() == wanted.zone() && stored.encode() == wanted.encode()
            }
            (None, None) => true,
            _ => false,
        };
        same_schedule
            && match (&self.recovery, limit.recovery()) {
                (StoredRecovery::Rate, Recovery::Refill { .. }) => true,
                (StoredRecovery::Resets { resets, .. }, Recovery::Resets(wanted)) => **resets == *wanted,
                (StoredRecovery::Session { secs, .. }, Recovery::Session { secs: wanted }) => secs == wanted,
                _ => false,
            }
    }
}

/// Whether a limit that is stored with this shape has the shape of another one.
pub(super) fn is_shape_of(stored: Option<&Shape>, limit: &Limit) -> bool {
    match stored {
        Some(stored) => stored.is_of(limit),
        None => limit.is_plain(),
    }
}

/// A schedule, by its stored form and its zone.
type Known<T> = RefCell<HashMap<(String, String), Arc<T>>>;

/// So many schedules are remembered. A program meets few: those of its configuration.
const MAX_KNOWN: usize = 256;

thread_local! {
    static SCHEDULES: Known<Schedule> = RefCell::default();
    static RESETS: Known<ResetSchedule> = RefCell::default();
}

/// Reads a schedule, or remembers it: every image of an item has it. `None` if this version cannot read it.
fn decoded<T: Clone + Eq + Hash, E>(
    known: &'static std::thread::LocalKey<Known<T>>,
    text: &str,
    zone: &str,
    decode: impl FnOnce(&str, &Zone) -> Result<T, E>,
) -> Option<Arc<T>> {
    let key = (text.to_owned(), zone.to_owned());
    if let Some(found) = known.with_borrow(|known| known.get(&key).cloned()) {
        return Some(found);
    }
    let read = Arc::new(decode(text, &Zone::named(zone).ok()?).ok()?);
    known.with_borrow_mut(|known| {
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(key, Arc::clone(&read));
    });
    Some(read)
}

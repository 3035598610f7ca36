//! The settings of a level: its concurrency limit, and the cascade depth of the namespace.

use std::ops::RangeInclusive;

use super::{CASCADE_DEPTH, CONCURRENCY, Key, Rules};
use crate::concurrency::MOST_IN_FLIGHT;
use crate::depth::CascadeDepth;
use crate::document::{Entry, Path, Problem};
use crate::manifest::{Setting, Settings, Target};

/// Why the cascade depth is refused elsewhere.
pub(super) const ONLY_AT_SYSTEM: &str = "is one for the whole namespace; it belongs to the system level";

/// Why keys of a level are refused beside `resources`.
pub(super) const OF_A_RESOURCE: &str = "belongs to a resource of the entity; under '_default_' it is for all resources that have none of \
                             their own";

impl Rules {
    /// Whether a section declares a level: it is empty, or has more than settings.
    pub(super) fn is_level(&self, entries: &[Entry]) -> bool {
        let settings = [CONCURRENCY, CASCADE_DEPTH].map(|key| key.in_dialect(self.dialect));
        entries.is_empty() || entries.iter().any(|entry| !settings.contains(&&*entry.name))
    }

    pub(super) fn concurrency(
        &mut self,
        path: &Path,
        entries: &[Entry],
        target: Option<Target>,
        settings: &mut Settings,
    ) {
        let limit = self.setting(path, entries, CONCURRENCY, 1..=MOST_IN_FLIGHT);
        self.declare(path, target.map(Setting::Concurrency).zip(limit), settings);
    }

    pub(super) fn cascade_depth(&mut self, path: &Path, entries: &[Entry], settings: &mut Settings) {
        let (least, most) = (CascadeDepth::MIN.into(), CascadeDepth::MAX.into());
        let depth = self.setting(path, entries, CASCADE_DEPTH, least..=most);
        self.declare(path, Some(Setting::CascadeDepth).zip(depth), settings);
    }

    /// The value of a setting; `None` if it is absent or wrong.
    fn setting(
        &mut self,
        path: &Path,
        entries: &[Entry],
        key: Key,
        within: RangeInclusive<u32>,
    ) -> Option<u32> {
        let within = u64::from(*within.start())..=u64::from(*within.end());
        let number = self.number(path, entries, key, within)?;
        u32::try_from(number).ok()
    }

    fn declare(&mut self, path: &Path, setting: Option<(Setting, u32)>, settings: &mut Settings) {
        if let Some((setting, value)) = setting
            && let Err(err) = settings.set(setting, value)
        {
            self.problem(Problem::new(None, path, err.reason()));
        }
    }
}

//! An account of who holds a place, kept apart from the machines and from the item.
//!
//! A caller holds a place from when its write was executed, until it begins to give it back, gives up or crashes, or until its own
//! clock shows the expiry that it wrote last. What the judge demands:
//!
//! - when a write takes a place, no more callers hold one than the limit that the write goes by, the new one included;
//! - a caller that holds a place is in the item, with the expiry that it wrote last, and it never believes in a later one;
//! - the item's counter is the number of its holders;
//! - a caller is only refused if so many places are taken by holders whose time is not long over.

use std::collections::BTreeMap;

use zae_limiter_core::flight::MARGIN_MS;
use zae_limiter_core::table::{Item, Update, Value};

/// The prefix of the attributes of holders.
const HOLDER: &str = "h_";

/// What is known of a holder.
#[derive(Debug, Clone)]
struct Entry {
    entity: usize,
    process: usize,
    /// The expiry that was written last.
    until_ms: i64,
    /// Whether the caller still wants the place.
    claims: bool,
}

/// The account.
#[derive(Debug, Default)]
pub struct Judge {
    holders: BTreeMap<String, Entry>,
}

/// The holders of an item, as it shows them.
fn stored(item: Option<&Item>) -> BTreeMap<&str, i64> {
    let attributes = item.into_iter().flatten();
    attributes
        .filter_map(|(name, value)| {
            let expiry = value.as_int().and_then(|expiry| i64::try_from(expiry).ok())?;
            Some((name.strip_prefix(HOLDER)?, expiry))
        })
        .collect()
}

impl Judge {
    /// A caller of a process begins to ask for a place of an entity under this name.
    pub fn asks(&mut self, holder: &str, entity: usize, process: usize) {
        let entry = Entry {
            entity,
            process,
            until_ms: i64::MIN,
            claims: true,
        };
        self.holders.insert(holder.to_owned(), entry);
    }

    /// A caller does not want its place any more.
    pub fn lets_go(&mut self, holder: &str) {
        if let Some(entry) = self.holders.get_mut(holder) {
            entry.claims = false;
        }
    }

    fn live(&self, entity: usize, clock: impl Fn(usize) -> i64) -> impl Iterator<Item = (&str, i64)> {
        self.holders.iter().filter_map(move |(name, entry)| {
            let is_live = entry.entity == entity && entry.claims && clock(entry.process) < entry.until_ms;
            is_live.then_some((name.as_str(), entry.until_ms))
        })
    }

    /// A write of a holder was executed. `most` is the limit that it goes by, if it takes a place; `clock` has the time that a process
    /// shows.
    ///
    /// # Errors
    /// What is wrong.
    pub fn executed(
        &mut self,
        update: &Update,
        holder: &str,
        most: Option<u32>,
        item: Option<&Item>,
        clock: impl Fn(usize) -> i64 + Copy,
    ) -> Result<(), String> {
        let Some(entry) = self.holders.get_mut(holder) else {
            return Err(format!("a write of {holder}, which never asked"));
        };
        let entity = entry.entity;
        let own = format!("{HOLDER}{holder}");
        let written = update.set.iter().find(|(name, _)| *name == own);
        if let Some(expiry) = written.and_then(|(_, value)| value.as_int()) {
            entry.until_ms = i64::try_from(expiry).unwrap_or(i64::MAX);
        }
        if let (Some(most), Some(_)) = (most, written) {
            let live = self.live(entity, clock).count();
            if live > most as usize {
                return Err(format!(
                    "{holder} is one of {live} that hold a place at the same time, of {most}"
                ));
            }
        }
        self.check_item(entity, item, clock)
    }

    /// Checks an item against the account.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_item(
        &self,
        entity: usize,
        item: Option<&Item>,
        clock: impl Fn(usize) -> i64 + Copy,
    ) -> Result<(), String> {
        let there = stored(item);
        let count = item
            .and_then(|item| item.get("n"))
            .and_then(Value::as_int)
            .unwrap_or(0);
        if usize::try_from(count) != Ok(there.len()) {
            return Err(format!(
                "the counter is {count}, but there are {} holders",
                there.len()
            ));
        }
        for (holder, until) in self.live(entity, clock) {
            match there.get(holder) {
                Some(expiry) if *expiry == until => {}
                Some(expiry) => {
                    return Err(format!("{holder} has written {until}, and the item has {expiry}"));
                }
                None => {
                    return Err(format!(
                        "{holder} holds a place until {until}, and is not in the item"
                    ));
                }
            }
        }
        Ok(())
    }

    /// A caller believes that it holds its place until then.
    ///
    /// # Errors
    /// It has never written such an expiry.
    pub fn believes(&self, holder: &str, until_ms: i64) -> Result<(), String> {
        match self.holders.get(holder) {
            Some(entry) if until_ms <= entry.until_ms => Ok(()),
            other => Err(format!("{holder} believes in {until_ms}: {other:?}")),
        }
    }

    /// A write was refused, and the caller with it, since all places are taken.
    ///
    /// # Errors
    /// They are not.
    pub fn refused(&self, most: u32, item: Option<&Item>, true_ms: i64) -> Result<(), String> {
        // Clocks may be wrong by half of the margin: the writer's, and that of the one who judges.
        let is_taken = |expiry: &&i64| **expiry + 2 * MARGIN_MS >= true_ms;
        let taken = stored(item).values().filter(is_taken).count();
        if taken < most as usize {
            return Err(format!(
                "refused although only {taken} of {most} places are taken"
            ));
        }
        Ok(())
    }
}

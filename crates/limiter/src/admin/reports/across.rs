//! The latest audit events and usage snapshots of a namespace, of all its entities and resources.
//!
//! No index has them in the order of time. The index of the namespace has their keys, which contain the time: the client
//! reads all keys, keeps the greatest, and reads only the items of these.

use std::collections::{BTreeMap, BTreeSet};

use zae_limiter_core::schema::key_of;
use zae_limiter_core::table::{Item, Key, Query};

use crate::admin::Admin;
use crate::admin::pages::Pages;
use crate::error::Error;

/// A time as it stands in a key, and the key.
pub(super) type Dated = (String, Key);

impl Admin {
    /// The `most` latest keys, latest first, of the keys that `query` finds and `time` accepts; those below `before`, if given.
    pub(in crate::admin) async fn latest_keys(
        &self,
        query: Query,
        time: impl Fn(&Key) -> Option<String>,
        before: Option<&Dated>,
        most: usize,
    ) -> Result<Vec<Dated>, Error> {
        let inner = &self.inner;
        let mut pages = Pages::new(&inner.place, &inner.table, Some(query), |item| Ok(key_of(item)));
        let mut latest = BTreeSet::new();
        while let Some(page) = pages.next_page().await? {
            for key in page {
                let Some(time) = time(&key) else { continue };
                let dated = (time, key);
                if before.is_some_and(|before| dated >= *before) {
                    continue;
                }
                latest.insert(dated);
                if latest.len() > most {
                    latest.pop_first();
                }
            }
        }
        Ok(latest.into_iter().rev().collect())
    }

    /// The items at these keys, in their order. Some may be gone.
    pub(in crate::admin) async fn items_at(&self, keys: &[Dated]) -> Result<Vec<Item>, Error> {
        let keys: Vec<Key> = keys.iter().map(|(_, key)| key.clone()).collect();
        let items = self.read_all(&keys).await?;
        let mut items: BTreeMap<Key, Item> = items
            .into_iter()
            .filter_map(|item| Some((key_of(&item)?, item)))
            .collect();
        Ok(keys.iter().filter_map(|key| items.remove(key)).collect())
    }
}

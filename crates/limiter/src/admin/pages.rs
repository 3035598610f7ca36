//! [`Pages`]: long answers, read page by page.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, json};
use zae_limiter_core::InvalidInput;
use zae_limiter_core::schema::key_of;
use zae_limiter_core::table::{Index, Item, Key, Query, Value};

use crate::admin::retry::{BRIEF, Patience};
use crate::error::{Error, Place};
use crate::table::{Table, TableExt as _};

/// Reads one thing out of an item; `None` leaves it out.
type Decode<T> = Arc<dyn Fn(&Item) -> Result<Option<T>, Error> + Send + Sync>;

/// Results that are read from the table page by page, as they are asked for.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
/// # use zae_limiter::{Limit, Repository};
/// # let repo = Repository::in_memory().await?;
/// repo.admin().set_entity_limits("key-1", "gpt-4", [Limit::per_minute("rpm", 5)]).await?;
///
/// let mut pages = repo.admin().entities_with_limits("gpt-4")?;
/// while let Some(page) = pages.next_page().await? {
///     for entity in page {
///         println!("{entity}");
///     }
/// }
/// # Ok(()) }
/// ```
#[must_use = "nothing is read before a page is asked for"]
pub struct Pages<T> {
    place: Place,
    table: Arc<dyn Table>,
    /// `None` when the last page has been read.
    query: Option<Query>,
    decode: Decode<T>,
    patience: Patience,
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("query", &self.query)
            .finish_non_exhaustive()
    }
}

impl<T> Pages<T> {
    pub(crate) fn new(
        place: &Place,
        table: &Arc<dyn Table>,
        query: Option<Query>,
        decode: impl Fn(&Item) -> Result<Option<T>, Error> + Send + Sync + 'static,
    ) -> Self {
        Self {
            place: place.clone(),
            table: Arc::clone(table),
            query,
            decode: Arc::new(decode),
            patience: BRIEF,
        }
    }

    /// Retries for longer while throttled.
    pub(crate) fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// At most this many records a page. Default: as many as fit a megabyte, DynamoDB's own bound.
    pub fn page_size(mut self, records: u32) -> Self {
        if let Some(query) = &mut self.query {
            query.limit = Some(records.max(1));
        }
        self
    }

    /// Continues where an earlier reading stopped; see [`cursor`](Self::cursor).
    pub fn after(mut self, cursor: &Cursor) -> Self {
        if let Some(query) = &mut self.query {
            query.start = Some(cursor.0.clone());
        }
        self
    }

    /// Reads the next page; `None` after the last.
    ///
    /// A page may be empty although others follow: what is not wanted is left out after it was read.
    pub async fn next_page(&mut self) -> Result<Option<Vec<T>>, Error> {
        let Some(query) = &mut self.query else {
            return Ok(None);
        };
        let (items, next) = self
            .place
            .insisting(self.patience, || self.table.query_page(query.clone()))
            .await?;
        let is_by_resource = query.index == Index::Gsi2;
        match next {
            Some(next) => query.start = Some(next),
            None => self.query = None,
        }
        let items = if is_by_resource {
            self.whole(items).await?
        } else {
            items
        };
        let mut page = Vec::with_capacity(items.len());
        for item in &items {
            page.extend((self.decode)(item)?);
        }
        Ok(Some(page))
    }

    /// The items of an index that may hold keys only, as they are in the table. Those that are gone meanwhile are left out.
    async fn whole(&self, items: Vec<Item>) -> Result<Vec<Item>, Error> {
        let keys: Vec<Key> = items
            .iter()
            .filter(|item| is_bare(item))
            .filter_map(key_of)
            .collect();
        if keys.is_empty() {
            return Ok(items);
        }
        let fetched = self
            .place
            .insisting(self.patience, || self.table.batch_get(keys.clone(), false))
            .await?;
        let mut fetched: HashMap<Key, Item> = fetched
            .into_iter()
            .filter_map(|item| Some((key_of(&item)?, item)))
            .collect();
        let whole = |item: Item| match key_of(&item) {
            Some(key) if is_bare(&item) => fetched.remove(&key),
            _ => Some(item),
        };
        Ok(items.into_iter().filter_map(whole).collect())
    }

    /// Where the next page begins; `None` when there is none.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), zae_limiter::Error> {
    /// use zae_limiter::{Cursor, Limit, Repository};
    ///
    /// # let repo = Repository::in_memory().await?;
    /// for key in ["key-1", "key-2", "key-3"] {
    ///     repo.admin().set_entity_limits(key, "gpt-4", [Limit::per_minute("rpm", 5)]).await?;
    /// }
    /// let mut pages = repo.admin().entities_with_limits("gpt-4")?.page_size(2);
    /// assert_eq!(pages.next_page().await?.unwrap().len(), 2);
    /// // The text goes to a client, which sends it back for the next page.
    /// let text = pages.cursor().expect("one entity is left").to_string();
    /// let cursor: Cursor = text.parse()?;
    /// let rest = repo.admin().entities_with_limits("gpt-4")?.after(&cursor).all().await?;
    /// assert_eq!(rest.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["key-3"]);
    /// # Ok(()) }
    /// ```
    pub fn cursor(&self) -> Option<Cursor> {
        self.query.as_ref()?.start.clone().map(Cursor)
    }

    /// Reads at most this many records, and little more from the table.
    ///
    /// # Errors
    /// As those of [`next_page`](Self::next_page).
    pub async fn first(self, most: usize) -> Result<Vec<T>, Error> {
        let mut pages = self.page_size(most.clamp(1, 1000) as u32);
        let mut found = Vec::new();
        while found.len() < most
            && let Some(mut page) = pages.next_page().await?
        {
            found.append(&mut page);
        }
        found.truncate(most);
        Ok(found)
    }

    /// Reads all that is left.
    pub async fn all(mut self) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        while let Some(mut page) = self.next_page().await? {
            all.append(&mut page);
        }
        Ok(all)
    }
}

/// Whether an item of the index by resource has its keys alone, as on a table with a lean index.
fn is_bare(item: &Item) -> bool {
    let keys = ["PK", "SK", "GSI2PK", "GSI2SK"];
    item.keys().all(|name| keys.contains(&name.as_str()))
}

/// Where a reading stopped. Its text can be handed to a client of an API and taken back.
///
/// The text is the base64 of DynamoDB's own key in its typed JSON form, as the Python library writes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Cursor(Item);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key: Map<_, _> = self
            .0
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), json!({ "S": value.as_text()? }))))
            .collect();
        f.write_str(&aws_smithy_types::base64::encode(
            serde_json::Value::Object(key).to_string(),
        ))
    }
}

impl std::str::FromStr for Cursor {
    type Err = InvalidInput;

    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        let read = || {
            let bytes = aws_smithy_types::base64::decode(text).ok()?;
            let key: Map<_, _> = serde_json::from_slice(&bytes).ok()?;
            let attribute = |(name, value): (String, serde_json::Value)| {
                Some((name, Value::text(value.get("S")?.as_str()?)))
            };
            key.into_iter().map(attribute).collect::<Option<Item>>()
        };
        read()
            .filter(|key| key.contains_key("PK") && key.contains_key("SK"))
            .map(Self)
            .ok_or_else(|| {
                InvalidInput::of_request("cursor", text, "is not a cursor that this library gave out")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_as_text() {
        let cursor = Cursor(Item::from([
            ("PK".into(), Value::text("ns/ENTITY#a\"ä")),
            ("SK".into(), Value::text("#META")),
        ]));
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in ["", "x", "e30=", "eyJQSyI6MX0="] {
            assert_eq!(bad.parse::<Cursor>().unwrap_err().field(), "cursor", "{bad}");
        }
    }

    /// Whatever a client of an API sends back. `scripts/hostile-bytes` asks for more of them.
    #[test]
    fn hostile_cursors() {
        let runs = std::env::var("ZAE_LIMITER_HOSTILE_RUNS").map_or(20_000, |runs| runs.parse().unwrap());
        let json = r##"{"PK":{"S":"ns/ENTITY#a"},"SK":{"S":"#META"},"GSI3PK":{"S":"\u00e4"}}"##;
        let pieces = [
            "{", "[[[[", "}", "\"S\"", "\"N\"", ":", "null", "1e999", "\\u0000", "\\ud800", "\u{e9}",
        ];
        let mut dice = fastrand::Rng::with_seed(7);
        let mut taken = 0;
        for _ in 0..runs {
            let mut bytes = json.as_bytes().to_vec();
            for _ in 0..dice.usize(0..4) {
                let at = dice.usize(0..=bytes.len());
                match dice.u8(0..4) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, dice.u8(..)),
                    2 => drop(bytes.splice(at.., json.bytes().skip(dice.usize(0..json.len())))),
                    _ => drop(bytes.splice(at..at, pieces[dice.usize(0..pieces.len())].bytes())),
                }
            }
            let mut text = aws_smithy_types::base64::encode(bytes);
            if dice.u8(0..4) == 0 {
                let at = dice.usize(0..=text.len());
                text.truncate(at);
                text.push(dice.char(..));
            }
            if let Ok(cursor) = text.parse::<Cursor>() {
                taken += 1;
                assert_eq!(cursor.to_string().parse(), Ok(cursor));
            }
        }
        assert!(taken > runs / 50, "{taken} of {runs}");
    }
}

//! The item that holds all places of an entity and resource.

use smol_str::{SmolStr, format_smolstr};

use crate::error::RecordError;
use crate::records::reader::Reader;
use crate::schema::{BucketId, entity_pk};
use crate::table::{Attr, Item, Key, Update, Value};
use crate::units::EpochMillis;

/// The prefix of the item's sort key.
pub(crate) const FLIGHT: &str = "#FLIGHT#";

/// The attribute that counts the holders.
pub(super) const COUNT: Attr = Attr::new_static("n");

/// The prefix of the attributes of the holders.
pub(super) const HOLDER: &str = "h_";

/// How long the item is kept after the last expiry, in seconds. More than the longest time to live: a write of a holder with a
/// short one must not let the item go while another one holds a place for longer.
const KEEP_SECS: i64 = 86_400;

/// The key of the item that holds the places of an entity and resource.
pub fn flight_key(id: &BucketId) -> Key {
    Key {
        pk: entity_pk(&id.namespace, &id.entity),
        sk: format_smolstr!("{FLIGHT}{}", id.resource),
    }
}

/// The holders of places, as an item shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders(Vec<(SmolStr, EpochMillis)>);

impl Holders {
    /// Reads the item; without one there are none.
    ///
    /// # Errors
    /// [`RecordError::Corrupt`] for an expiry that is not a number, and if the counter does not agree with the holders.
    pub fn decode(item: Option<&Item>) -> Result<Self, RecordError> {
        let Some(item) = item else {
            return Ok(Self::default());
        };
        let reader = Reader::new("places in flight", item);
        let mut holders = Vec::new();
        for name in item.keys() {
            let Some(holder) = name.strip_prefix(HOLDER) else {
                continue;
            };
            let expiry = reader.int64(name)?;
            holders.push((SmolStr::new(holder), EpochMillis(expiry.unwrap_or_default())));
        }
        let count = reader.int64(COUNT.as_str())?;
        let count = count.ok_or_else(|| reader.corrupt(COUNT.as_str(), "is missing"))?;
        if usize::try_from(count) != Ok(holders.len()) {
            let problem = format!("is {count}, but there are {} holders", holders.len());
            return Err(reader.corrupt(COUNT.as_str(), problem));
        }
        Ok(Self(holders))
    }

    /// Each holder and the expiry of its place, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, EpochMillis)> {
        self.0.iter().map(|(holder, expiry)| (holder.as_str(), *expiry))
    }

    /// The expiry of a holder's place.
    pub fn expiry(&self, holder: &str) -> Option<EpochMillis> {
        let mut holders = self.iter();
        holders
            .find(|(name, _)| *name == holder)
            .map(|(_, expiry)| expiry)
    }

    /// How many places are taken.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no place is taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those whose place others may take, the earliest first.
    pub fn expired(&self, now: EpochMillis) -> Vec<(SmolStr, EpochMillis)> {
        let is_over = |expiry: EpochMillis| now.since(expiry) > super::MARGIN_MS;
        let mut expired: Vec<_> = self
            .0
            .iter()
            .filter(|(_, expiry)| is_over(*expiry))
            .cloned()
            .collect();
        expired.sort_by_key(|(_, expiry)| *expiry);
        expired
    }
}

/// A write of the item that sets what every item has, and keeps it until well after this expiry.
pub(super) fn kept_until(id: &BucketId, expiry: EpochMillis) -> Update {
    let key = flight_key(id);
    let text = |value: &str| Value::text(value);
    let set = vec![
        ("entity_id".into(), text(id.entity.as_str())),
        ("resource".into(), text(id.resource.as_str())),
        ("ttl".into(), ttl(expiry)),
        ("GSI4PK".into(), text(id.namespace.as_str())),
        ("GSI4SK".into(), text(&key.pk)),
    ];
    Update {
        set,
        ..Update::new(key)
    }
}

/// When the table may delete an item whose last place expires then.
pub(super) fn ttl(expiry: EpochMillis) -> Value {
    Value::int(expiry.secs().saturating_add(KEEP_SECS))
}

//! The text of a detached lease.
//!
//! It holds of each shard what a correction depends on: which item was debited and in which period, its parameters, and its
//! ceiling. The rest of an image is left out, so that the text stays short.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use smol_str::SmolStr;

use super::{DetachedLease, OnExpiry};
use crate::acquire::Grant;
use crate::bucket::{Bucket, FENCE, limit_attr};
use crate::name::{EntityId, LimitName, NamespaceId, ResourceName};
use crate::schema::BucketId;
use crate::table::{Item, Value};
use crate::units::{EpochMillis, MAX_TOKENS, Millitokens};

/// The version of the text.
const VERSION: u64 = 1;

/// A text that is not a lease of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotALease;

impl fmt::Display for NotALease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is not a lease, or one of another version of this program")
    }
}

impl std::error::Error for NotALease {}

impl DetachedLease {
    /// The lease as a text: JSON, of some hundred characters for each shard. It is neither secret nor protected: a process that
    /// takes it from a client must check that the client has not made it, such as by a signature.
    pub fn encode(&self) -> String {
        let taken = |(resource, amounts): &(ResourceName, Vec<(LimitName, u64)>)| {
            let amounts: Vec<Json> = amounts
                .iter()
                .map(|(name, tokens)| json!([name.as_str(), tokens]))
                .collect();
            json!([resource.as_str(), amounts])
        };
        let resource_at = |id: &BucketId| self.taken.iter().position(|(named, _)| *named == id.resource);
        let grant = |grant: &Grant| {
            let amounts: Vec<Json> = grant
                .amounts
                .iter()
                .map(|(name, amount)| json!([name.as_str(), amount.0.to_string()]))
                .collect();
            json!([
                grant.id.entity.as_str(),
                resource_at(&grant.id).unwrap_or_default(),
                grant.shard,
                amounts,
                grant.is_bypassed,
                image(&grant.image, &grant.amounts),
                grant.image.unsupported.as_deref(),
            ])
        };
        json!({
            "v": VERSION,
            "id": self.id.as_str(),
            "ns": self.namespace.as_str(),
            "e": self.entity.as_str(),
            "exp": self.expires_at.0,
            "back": self.on_expiry == OnExpiry::GiveBack,
            "t": self.taken.iter().map(taken).collect::<Vec<_>>(),
            "g": self.grants.iter().map(grant).collect::<Vec<_>>(),
        })
        .to_string()
    }

    /// Reads the text of a lease.
    ///
    /// # Errors
    /// [`NotALease`] for any other text.
    pub fn decode(text: &str) -> Result<Self, NotALease> {
        let json: Json = serde_json::from_str(text).map_err(|_| NotALease)?;
        read(&json).ok_or(NotALease)
    }
}

fn read(json: &Json) -> Option<DetachedLease> {
    if json.get("v")?.as_u64()? != VERSION {
        return None;
    }
    let id = json.get("id")?.as_str()?;
    if !super::record::is_id(id) {
        return None;
    }
    let namespace = NamespaceId::new(json.get("ns")?.as_str()?).ok()?;
    let taken = json.get("t")?.as_array()?.iter().map(read_taken);
    let taken: Vec<_> = taken.collect::<Option<_>>()?;
    let grants = json.get("g")?.as_array()?.iter();
    let grants = grants.map(|grant| read_grant(grant, &namespace, &taken));
    Some(DetachedLease {
        id: id.into(),
        entity: EntityId::new(json.get("e")?.as_str()?).ok()?,
        expires_at: EpochMillis(json.get("exp")?.as_i64().filter(|at| *at >= 0)?),
        on_expiry: if json.get("back")?.as_bool()? {
            OnExpiry::GiveBack
        } else {
            OnExpiry::Keep
        },
        grants: grants.collect::<Option<_>>()?,
        namespace,
        taken,
    })
}

fn read_taken(json: &Json) -> Option<(ResourceName, Vec<(LimitName, u64)>)> {
    let resource = ResourceName::new(json.get(0)?.as_str()?).ok()?;
    let amounts = json.get(1)?.as_array()?.iter().map(|amount| {
        let name = LimitName::new(amount.get(0)?.as_str()?).ok()?;
        Some((name, amount.get(1)?.as_u64().filter(|n| *n <= MAX_TOKENS)?))
    });
    Some((resource, amounts.collect::<Option<_>>()?))
}

fn read_grant(
    json: &Json,
    namespace: &NamespaceId,
    taken: &[(ResourceName, Vec<(LimitName, u64)>)],
) -> Option<Grant> {
    let resource = usize::try_from(json.get(1)?.as_u64()?).ok()?;
    let amounts = json.get(3)?.as_array()?.iter().map(|amount| {
        let name = LimitName::new(amount.get(0)?.as_str()?).ok()?;
        Some((name, Millitokens(amount.get(1)?.as_str()?.parse().ok()?)))
    });
    let mut image = Bucket::decode(&read_item(json.get(5)?)?).ok()?;
    image.unsupported = json.get(6)?.as_str().map(SmolStr::new);
    Some(Grant {
        id: BucketId {
            namespace: namespace.clone(),
            entity: EntityId::new(json.get(0)?.as_str()?).ok()?,
            resource: taken.get(resource)?.0.clone(),
        },
        shard: u32::try_from(json.get(2)?.as_u64()?).ok()?,
        amounts: amounts.collect::<Option<_>>()?,
        image: Arc::new(image),
        is_bypassed: json.get(4)?.as_bool()?,
    })
}

/// What a correction depends on of an image, as attributes of an item. A number begins with `n`, a text with `s`.
fn image(image: &Bucket, amounts: &[(LimitName, Millitokens)]) -> Json {
    let mut attrs = Map::new();
    let mut number = |name: &str, n: i128| attrs.insert(name.to_owned(), Json::String(format!("n{n}")));
    number("rf", image.refilled_at.0.into());
    number("shard_count", image.shard_count.into());
    for (name, secs) in [("ttl", image.ttl), ("vu", image.valid_until)] {
        secs.map(|n| number(name, n.into()));
    }
    let limits = || amounts.iter().filter_map(|(name, _)| image.limit(name.as_str()));
    for limit in limits() {
        let mut part = |part: &str, n: i128| number(&limit_attr(&limit.name, part), n);
        part("tk", limit.balance.0);
        part("cp", limit.params.capacity);
        part("ra", limit.params.refill);
        part("rp", limit.params.period_ms);
        limit.consumed.map(|consumed| part("tc", consumed.0));
    }
    let mut keep = |name: &str, value: &Value| {
        let text = match value {
            Value::S(text) => format!("s{text}"),
            Value::N(digits) => format!("n{digits}"),
            // No client writes another type there.
            _ => return,
        };
        attrs.insert(name.to_owned(), Json::String(text));
    };
    if let Some(fence) = &image.fence {
        keep(FENCE, fence);
    }
    let mut keep_text = |name: &str, text: Option<&SmolStr>| {
        if let Some(text) = text {
            keep(name, &Value::text(text.as_str()));
        }
    };
    keep_text("pinc", image.owner.incarnation.as_ref());
    for (name, text) in ["sched", "rsched", "sched_tz"].into_iter().zip(&image.schedules) {
        keep_text(name, text.as_ref());
    }
    for limit in limits() {
        for (part, text) in ["sched", "rsched"].into_iter().zip(&limit.marks) {
            keep_text(&limit_attr(&limit.name, part), text.as_ref());
        }
    }
    for limit in limits() {
        for (part, value) in limit.shape.iter().flat_map(|shape| shape.stored()) {
            keep(&limit_attr(&limit.name, part), value);
        }
    }
    Json::Object(attrs)
}

fn read_item(json: &Json) -> Option<Item> {
    let value = |text: &str| match text.split_at_checked(1)? {
        ("s", text) => Some(Value::text(text)),
        ("n", digits) => Some(Value::N(digits.into())),
        _ => None,
    };
    let attrs = json.as_object()?.iter();
    attrs
        .map(|(name, text)| Some((name.clone(), value(text.as_str()?)?)))
        .collect()
}

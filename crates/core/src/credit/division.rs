//! Dividing a refund over the shards of a bucket that was split since the debit.

use std::sync::Arc;

use smol_str::SmolStr;

use super::Deltas;
use crate::bucket::Bucket;
use crate::units::{EpochMillis, Millitokens};

/// The part that one shard gets.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) shard: u32,
    pub(super) deltas: Deltas,
    /// The shard as it was read.
    pub(super) image: Arc<Bucket>,
}

/// Takes out of `home` what the shard that was debited has no room for and others have, the emptiest first. What no
/// shard has room for stays.
///
/// Room is what is missing to a full shard once it is refilled: tokens beyond it would be cut. What a quota or a session limit is given
/// back stays with the shard that was granted it.
pub(super) fn divide(
    home: &mut Deltas,
    debited: &Bucket,
    others: Vec<(u32, Arc<Bucket>)>,
    now: EpochMillis,
) -> Vec<Part> {
    let mut rest: Vec<(SmolStr, i128)> = home
        .iter()
        .map(|(name, delta)| (name.clone(), delta.0 - room(debited, name, now)))
        .filter(|(_, rest)| *rest > 0)
        .collect();
    let mut others: Vec<_> = others
        .into_iter()
        .filter(|(_, image)| image.unsupported.is_none())
        .collect();
    let mut parts = Vec::new();
    while let Some(at) = roomiest(&others, &rest, now) {
        let (shard, image) = others.swap_remove(at);
        let mut deltas = Deltas::new();
        for (name, rest) in &mut rest {
            let part = room(&image, name, now).min(*rest);
            if part > 0 {
                *rest -= part;
                deltas.push((name.clone(), Millitokens(part)));
            }
        }
        super::add(home, &deltas, -1);
        parts.push(Part { shard, deltas, image });
    }
    parts
}

/// The shard that can take most of what is left, if any can take some.
fn roomiest(others: &[(u32, Arc<Bucket>)], rest: &[(SmolStr, i128)], now: EpochMillis) -> Option<usize> {
    let takes = |image: &Bucket| -> i128 {
        let part = |(name, rest): &(SmolStr, i128)| room(image, name, now).min(*rest).max(0);
        rest.iter().map(part).sum()
    };
    let takes = others.iter().map(|(_, image)| takes(image)).enumerate();
    let (at, most) = takes.max_by_key(|(_, takes)| *takes)?;
    (most > 0).then_some(at)
}

/// How much of a rate is missing to a full shard at `now`; nothing if the shard lacks the limit.
fn room(image: &Bucket, name: &str, now: EpochMillis) -> i128 {
    let limit = image.limit(name).filter(|limit| !limit.is_quota());
    limit.map_or(0, |limit| {
        let held = image.refilled(limit, now).tokens;
        image.ceiling(limit, now).saturating_sub(held.0).max(0)
    })
}

//! What a lease writes when it ends: corrections of the shards that were debited.

use zae_limiter_core::acquire::Grant;
use zae_limiter_core::{LimitName, Millitokens, ResourceName};

use crate::acquire::refunds::queues::Correction;

pub(super) fn all_of(grants: &[Grant]) -> Vec<Correction> {
    grants.iter().map(Correction::of_all).collect()
}

/// Puts adjustments on the shards that were debited, for each bucket of the resource on its own: no shard gets back more than
/// it gave, and what is charged goes to the first.
pub(super) fn spread<'a>(
    grants: &[Grant],
    deltas: impl IntoIterator<Item = (&'a ResourceName, &'a LimitName, Millitokens)>,
) -> Vec<Correction> {
    let mut corrections: Vec<Correction> = grants
        .iter()
        .map(|grant| Correction {
            grant: grant.clone(),
            deltas: Vec::new(),
        })
        .collect();
    for (resource, name, delta) in deltas {
        let first_of_bucket = |(at, grant): &(usize, &Grant)| {
            grant.id.resource == *resource && grants[..*at].iter().all(|before| before.id != grant.id)
        };
        for (_, first) in grants.iter().enumerate().filter(first_of_bucket) {
            let mut back = -delta.0;
            for correction in corrections.iter_mut().filter(|c| c.grant.id == first.id) {
                let mut amounts = correction.grant.amounts.iter();
                let Some((_, held)) = amounts.find(|(held, _)| held == name) else {
                    continue;
                };
                let part = back.min(held.0);
                if part != 0 {
                    correction.deltas.push((name.to_smol(), Millitokens(part)));
                    back -= part;
                }
                if back == 0 {
                    break;
                }
            }
        }
    }
    corrections.retain(|correction| !correction.deltas.is_empty());
    corrections
}

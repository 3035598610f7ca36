//! The room that limits take in the condition of the write that refills them all.

use super::Limit;

/// The longest condition that DynamoDB takes, in bytes.
pub(crate) const MAX_CONDITION: usize = 4096;

/// The additional bytes for a quota or a session limit: its period is pinned, too.
const OF_QUOTA: usize = 210;

/// The length of the condition of a refill of an item that holds so many limits, of which so many are quotas or session limits,
/// that takes from so many, and that gives it so many. Counted for names and values of three digits, and rounded up.
pub(crate) fn refill_bytes(held: usize, quotas: usize, taken: usize, seeds: usize) -> usize {
    450 + 127 * held + OF_QUOTA * quotas + 17 * taken + 67 * seeds
}

/// How many of some limits are quotas or session limits, and why one write cannot refill so many. `None` if it can.
pub(crate) fn too_many_quotas(limits: &[Limit]) -> Option<(usize, String)> {
    let all = limits.len();
    let most = MAX_CONDITION.saturating_sub(refill_bytes(all, 0, all, 0)) / OF_QUOTA;
    let quotas = limits.iter().filter(|limit| limit.is_quota()).count();
    (quotas > most).then(|| {
        let reason = format!(
            "must hold at most {most} quotas and session limits among {all} limits, so that one write can refill them all"
        );
        (quotas, reason)
    })
}

//! Lines of the log.

use zae_limiter_core::table::{Answer, Op, TableError};

use crate::rows::row;

/// One operation and its outcome in a line.
pub(super) fn shown(op: &Op, reply: &Result<Answer, TableError>) -> String {
    let outcome = match reply {
        Ok(Answer::Applied(_)) => "applied".to_owned(),
        Ok(Answer::Refused(Some(_))) => "refused".to_owned(),
        Ok(Answer::Refused(None)) => "refused, no item".to_owned(),
        Ok(Answer::Cancelled(reasons)) => {
            let word = |reason: &_| match reason {
                zae_limiter_core::table::Cancelled::Fine => "fine",
                zae_limiter_core::table::Cancelled::Refused(_) => "refused",
                _ => "conflict",
            };
            format!("cancelled {:?}", reasons.iter().map(word).collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    };
    let what = match op {
        Op::Update(update) => {
            let set: Vec<String> = update.set.iter().map(|(a, v)| format!("{a}={v:?}")).collect();
            let add: Vec<String> = update.add.iter().map(|(a, n)| format!("{a}{n:+}")).collect();
            format!(
                "update {} add [{}] set [{}] remove {:?}",
                update.key.pk,
                add.join(" "),
                set.join(" "),
                update.remove
            )
        }
        other => {
            let keys: Vec<String> = row::written(other).into_iter().map(|key| key.pk).collect();
            let costs = row::costs(other);
            format!("transaction on {keys:?} costing {costs:?}")
        }
    };
    format!("{what}: {outcome}")
}

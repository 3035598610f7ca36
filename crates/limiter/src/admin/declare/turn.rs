//! The turn of an apply: taken when it begins, looked at before levels are written, given back at the end.

use zae_limiter_core::manifest::turn::{begin, end, is_of, turn_key};
use zae_limiter_core::schema::namespace_key;

use crate::admin::Admin;
use crate::admin::levels::MAX_RACES;
use crate::admin::retry::BRIEF;
use crate::error::Error;
use crate::table::{TableExt as _, Write};

/// The turn of one apply.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    token: String,
    /// Whether another apply had begun and not ended: it may be in the middle of a write, or it was killed.
    pub(super) is_contested: bool,
}

impl Admin {
    /// Begins a turn. Another apply that is at work stops at its next write.
    pub(super) async fn take_turn(&self) -> Result<Turn, Error> {
        let inner = &self.inner;
        let mut turn = Turn {
            token: format!("{:032x}", fastrand::u128(..)),
            is_contested: false,
        };
        let mut before = None;
        for _ in 0..MAX_RACES {
            let put = begin(&inner.namespace, &turn.token, inner.clock.now(), before.as_ref());
            let send = || inner.table.put(put.clone());
            match inner.place.insisting(BRIEF, send).await? {
                Write::Applied(()) => return Ok(turn),
                Write::Refused(theirs) => {
                    turn.is_contested = true;
                    // The answer to the write may have been lost.
                    if is_of(theirs.as_ref(), &turn.token) {
                        return Ok(turn);
                    }
                    before = theirs;
                }
            }
        }
        Err(inner.place.contended(&turn_key(&inner.namespace)))
    }

    /// Whether no other apply has begun since.
    pub(super) async fn has_turn(&self, turn: &Turn) -> Result<bool, Error> {
        let mark = self.read(&turn_key(&self.inner.namespace)).await?;
        Ok(is_of(mark.as_ref(), &turn.token))
    }

    /// Whether the namespace is deleted, or its name leads to another one.
    pub(super) async fn is_gone(&self) -> Result<bool, Error> {
        let inner = &self.inner;
        let record = self.read(&namespace_key(&inner.namespace_name)).await?;
        let id = record.and_then(|record| Some(record.get("namespace_id")?.as_text()?.to_owned()));
        Ok(id.as_deref() != Some(inner.namespace.as_str()))
    }

    /// Ends a turn, unless another has begun. A mark that stays costs the next apply a second look.
    pub(super) async fn end_turn(&self, turn: &Turn) {
        let inner = &self.inner;
        let delete = end(&inner.namespace, &turn.token);
        let ended = inner
            .place
            .insisting(BRIEF, || inner.table.delete(delete.clone()))
            .await;
        if let Err(error) = ended {
            tracing::warn!(%error, "the mark of an apply that has ended stays");
        }
    }
}

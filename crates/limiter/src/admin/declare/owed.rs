//! Updates live buckets from the stored levels, until no update is pending.

use futures_util::stream::{self, StreamExt as _};
use smol_str::SmolStr;
use zae_limiter_core::config::is_limit_attribute;
use zae_limiter_core::manifest::Target;
use zae_limiter_core::manifest::pending::{Kind, Pending, key, query};
use zae_limiter_core::table::{Item, Part};

use super::Run;
use crate::admin::Admin;
use crate::admin::access::stamps::Stamp;
use crate::admin::levels::MAX_RACES;
use crate::admin::pages::Pages;
use crate::error::Error;
use crate::table::TableExt as _;

/// A level whose live buckets must be updated.
pub(super) struct Owed {
    /// What they must take over.
    pub(super) kind: Kind,
    /// Which.
    pub(super) target: Target,
    /// The record that says so.
    pub(super) pending: Pending,
    /// The attributes of its limits as this apply has just stored them, if it has.
    pub(super) stored: Option<Item>,
}

/// How many levels have their buckets told at once.
const TOLD_AT_ONCE: usize = 16;

/// How often a level's buckets are updated again because the level was changed in the meantime.
const ROUNDS: usize = 3;

impl Admin {
    /// All work that is owed to live buckets, of kinds that this release does not know included.
    pub(super) async fn pending(&self) -> Result<Vec<Pending>, Error> {
        let inner = &self.inner;
        let query = query(&inner.namespace);
        let pages = Pages::new(&inner.place, &inner.table, Some(query), |item| {
            Ok(Pending::decode(item.clone()))
        });
        pages.all().await
    }
}

impl Run<'_> {
    /// Updates the live buckets of several levels. Returns the work, and a line for each that failed.
    pub(super) async fn tell_all(&self, owed: Vec<Owed>) -> (Vec<(Kind, Target)>, Vec<String>) {
        let work = owed.into_iter().map(async |owed| {
            let (kind, target) = (owed.kind, owed.target.clone());
            let done = self.tell_and_release(owed).await;
            let error = done.err().map(|err| not_told(kind, &target, &err));
            ((kind, target), error)
        });
        let done: Vec<_> = stream::iter(work).buffer_unordered(TOLD_AT_ONCE).collect().await;
        let (targets, errors): (Vec<_>, Vec<_>) = done.into_iter().unzip();
        (targets, errors.into_iter().flatten().collect())
    }

    /// Updates a level's live buckets, and removes this apply's share from the record of it, as well as shares of
    /// applies that are certainly gone. An apply that may still run keeps its own.
    async fn tell_and_release(&self, owed: Owed) -> Result<(), Error> {
        let Owed {
            kind,
            target,
            pending,
            stored,
        } = owed;
        match kind {
            Kind::Sync => self.tell(&target, &pending.stale(), stored).await?,
            Kind::Disabled => self.stamp(&target, Stamp::Access).await?,
            Kind::Cascade => self.stamp(&target, Stamp::Owner).await?,
            Kind::Soft => self.stamp(&target, Stamp::Hard).await?,
        }
        // The buckets have been updated, so a failure from here on costs only a repetition.
        if let Err(error) = self.release(kind, &target, pending).await {
            tracing::warn!(%error, %target, "live buckets were updated, and will be updated again");
        }
        Ok(())
    }

    /// Stamps a level's live buckets with the flags that are stored for them by now.
    async fn stamp(&self, target: &Target, stamp: Stamp) -> Result<(), Error> {
        self.admin
            .stamp_all(&self.admin.buckets_below(target), stamp)
            .await
            .map(drop)
    }

    /// Updates a level's live buckets, and again if the level was changed in the meantime. Only if the level is the
    /// same before and after, this cannot have overwritten a later change.
    async fn tell(&self, target: &Target, stale: &[SmolStr], mut before: Option<Item>) -> Result<(), Error> {
        let Target::Entity(entity, scope) = target else {
            return Ok(());
        };
        let key = target.key(&self.admin.inner.namespace);
        let limits = async || {
            let mut item: Item = self.admin.read(&key).await?.unwrap_or_default();
            item.retain(|name, _| is_limit_attribute(name));
            Ok::<_, Error>(item)
        };
        for _ in 0..ROUNDS {
            let now = match before.take() {
                Some(now) => now,
                None => limits().await?,
            };
            if self.admin.carry_to_buckets(entity, scope, stale).await? == 0 {
                return Ok(());
            }
            let after = limits().await?;
            if after == now {
                return Ok(());
            }
            before = Some(after);
        }
        Err(self.admin.inner.place.contended(&key))
    }

    async fn release(&self, kind: Kind, target: &Target, mut pending: Pending) -> Result<(), Error> {
        let inner = &self.admin.inner;
        for _ in 0..MAX_RACES {
            let now = inner.clock.now();
            if !pending.is_releasable(&self.share.token, now) {
                return Ok(());
            }
            let written = match pending.release(&self.share.token, now) {
                None => return Ok(()),
                Some(Part::Delete(delete)) => {
                    let sent = inner
                        .place
                        .retrying(|| inner.table.delete(delete.clone()))
                        .await?;
                    sent.is_applied()
                }
                Some(Part::Put(put)) => {
                    let sent = inner.place.retrying(|| inner.table.put(put.clone())).await?;
                    sent.is_applied()
                }
                Some(part) => {
                    let parts = vec![part];
                    self.admin.transact(parts).await? == crate::table::Transacted::Applied
                }
            };
            if written {
                return Ok(());
            }
            let key = key(&inner.namespace, kind, target);
            match self.admin.read(&key).await?.and_then(Pending::decode) {
                Some(found) => pending = found,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Ends this apply's lease over all that it could not do; returns what is left, as it was before that.
    pub(super) async fn leave(&self) -> Result<Vec<Pending>, Error> {
        let inner = &self.admin.inner;
        let left = self.admin.pending().await?;
        for pending in left
            .iter()
            .filter(|pending| pending.is_owned_by(&self.share.token))
        {
            let put = pending.expire(&self.share.token, inner.clock.now());
            // Refused means that another apply has done it or taken it over. After a failure, the next apply waits for
            // the lease.
            if let Err(error) = inner.place.retrying(|| inner.table.put(put.clone())).await {
                tracing::warn!(%error, "work that is left over stays leased until its lease runs out");
            }
        }
        Ok(left)
    }
}

/// The line for buckets that were not updated.
fn not_told(kind: Kind, target: &Target, err: &dyn std::fmt::Display) -> String {
    let what = match kind {
        Kind::Sync => String::new(),
        kind => format!(" ({})", kind.as_str()),
    };
    let level = target.level();
    format!("live buckets of {level} {target}{what}: {err} (done by the next apply)")
}

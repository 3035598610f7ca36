//! Requests under a bypass: admitted and counted, while no balance changes.
//!
//! The configuration says that there is a bypass. A stamp on the item says until when a client may go by that without reading
//! the configuration. Ending a bypass removes the stamps, so that the next write of every client is refused.
//!
//! ```text
//!  count ── refused, image ──► configuration ──► stamp ──► configuration ──► count
//!                                    │                          └ no bypass ──► remove the stamp, debit
//!                                    └ no bypass ──► debit
//! ```
//!
//! A shard that is created under a bypass begins with a stamp, and goes on from there.
//!
//! The second look at the configuration is for a bypass that has ended since the first one: its stamps have been removed by then,
//! and nothing else would remove the new one.

use std::sync::Arc;

use super::{State, Take, TakeError};
use crate::acquire::protocol::{Ask, Env};
use crate::bucket::Bucket;
use crate::table::Op;
use crate::units::EpochMillis;
use crate::write::{Amounts, access};

impl Take {
    /// Goes by a bypass from the beginning, if the last image or the configuration shows one. Returns whether it does.
    pub(super) fn begins_bypassed(&mut self, image: Option<&Arc<Bucket>>, env: &mut Env<'_>) -> bool {
        match image.filter(|image| !image.disabled) {
            Some(image) => self.look_at_bypass(image, env),
            None if self.config.is_bypassed() => {
                self.count(None, env);
                true
            }
            None => false,
        }
    }

    /// Goes by a bypass, if an image or the configuration shows one. Returns whether it does.
    pub(super) fn look_at_bypass(&mut self, image: &Arc<Bucket>, env: &mut Env<'_>) -> bool {
        let is_configured = self.config.is_bypassed();
        if self.fresh && !is_configured {
            return false;
        }
        if image.is_expired(env.now)
            && image.unsupported.is_none()
            && (is_configured || image.bypass.is_some())
        {
            // Nothing is taken of what has expired: it is kept.
            self.refill(image, &Amounts::new(), State::Retune, env);
        } else if image.is_bypassed(env.now) {
            self.count(Some(image), env);
        } else if self.fresh {
            let until = env.now.plus(self.settings.stamp_life_ms(env.random));
            let update = access::stamp_bypass(self.id.key(self.shard), image, until);
            self.send(Ask::Table(Op::Update(update)), State::Stamp(until), env);
        } else if is_configured || image.bypass.is_some() {
            self.seen = Some(Arc::clone(image));
            self.ask_config(State::Access, env);
        } else {
            return false;
        }
        true
    }

    /// Counts the amounts under the stamp. Limits that the image lacks are not counted.
    pub(super) fn count(&mut self, image: Option<&Arc<Bucket>>, env: &mut Env<'_>) {
        let is_held = |limit: &str| image.is_none_or(|image| image.limit(limit).is_some());
        let amounts: Amounts = self
            .amounts
            .iter()
            .filter(|(name, _)| is_held(name.as_str()))
            .cloned()
            .collect();
        let update = access::count(self.id.key(self.shard), &amounts, env.now);
        self.send(Ask::Table(Op::Update(update)), State::Count(amounts), env);
    }

    /// The item is stamped: looks whether the bypass has ended in the meantime.
    pub(super) fn stamped(&mut self, until: EpochMillis, env: &mut Env<'_>) {
        self.ask_config(State::Verify(until), env);
    }

    /// Goes on after the look at the configuration that [`stamped`](Self::stamped) has asked for.
    pub(super) fn verified(&mut self, until: EpochMillis, env: &mut Env<'_>) {
        if self.config.is_bypassed() {
            return self.count(None, env);
        }
        self.remove_stamp(until, None, env);
    }

    /// Removes the stamp. Then it fails with `cause`, or debits.
    pub(super) fn remove_stamp(&mut self, until: EpochMillis, cause: Option<TakeError>, env: &mut Env<'_>) {
        let update = access::remove_bypass(self.id.key(self.shard), until);
        self.send(Ask::Table(Op::Update(update)), State::Unstamp(cause), env);
    }

    pub(super) fn ask_config(&mut self, state: State, env: &mut Env<'_>) {
        let ask = Ask::Config {
            entity: self.id.entity.clone(),
            resource: self.id.resource.clone(),
            fresh: true,
        };
        self.send(ask, state, env);
    }
}

//! The begin of sessions.
//!
//! A request that is refused begins no session. So a leg among others holds back the write that would begin one until the others
//! have taken their tokens.
//!
//! Where a bucket is split, the shard whose use begins a session tells the others. If that write fails, the shard begins a session of its own at its next use. It then admits no more than its part in any session,
//! but at other times than its siblings.

use std::sync::Arc;

use super::{Ask, Bucket, Env, Next, Op, Reply, State, Take, TakeEnd};
use crate::limit::Limit;
use crate::terms::Turn;
use crate::units::EpochMillis;
use crate::verdict::LimitStatus;
use crate::write::seeds::Seed;
use crate::write::shapes::announce;
use crate::write::{is_left, refill_all};

impl Take {
    /// Holds back a write that would begin a session, until [`go_on`](Self::go_on) or [`withdraw`](Self::withdraw).
    pub(crate) fn hold_back(&mut self) {
        self.holds_back = true;
    }

    /// Whether it holds back a write.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some() && self.end.is_none()
    }

    /// Sends what it has held back.
    pub(crate) fn go_on(&mut self, env: &mut Env<'_>) {
        self.held = None;
        self.holds_back = false;
        self.answer(Reply::Waited, env);
    }

    /// Ends without what it has held back.
    pub(crate) fn withdraw(&mut self) {
        let statuses = self.held.take().unwrap_or_default();
        self.finish(TakeEnd::Withdrawn(statuses));
    }

    /// Whether the refill of this image is held back.
    pub(super) fn holds(&mut self, image: &Arc<Bucket>, now: EpochMillis) -> bool {
        if !self.holds_back {
            return false;
        }
        let refilled = refill_all(image, self.exact(), now);
        let seeds = self.seeds(image, now);
        let begins = refilled
            .iter()
            .any(|r| r.turn == Turn::Opens && !is_left(r.limit, Some(&self.config)));
        if !begins && !seeds.iter().any(Seed::begins) {
            return false;
        }
        self.held = Some(self.statuses(image, &refilled, &seeds, now));
        self.seen = Some(Arc::clone(image));
        self.state = State::Pause(Next::Refill);
        true
    }

    /// Whether the creation of the bucket is to be held back.
    pub(super) fn holds_new(&self) -> bool {
        let mut limits = self.config.limits.iter();
        self.holds_back && limits.any(|limit| limit.session_length().is_some())
    }

    /// Holds back the creation of the bucket.
    pub(super) fn hold_new(&mut self, now: EpochMillis) {
        self.held = Some(self.untouched(now));
        self.state = State::Pause(Next::Create);
    }

    /// How the limits that are asked for stand in a new bucket.
    pub(super) fn untouched(&self, now: EpochMillis) -> Vec<LimitStatus> {
        let status = |limit: &Limit| {
            let (_, need) = self.amounts.iter().find(|(name, _)| name == limit.name())?;
            Some(LimitStatus::untouched(self.who(), limit, 1, *need, now))
        };
        self.config.limits.iter().filter_map(status).collect()
    }

    /// Tells the siblings of sessions that the write that has ended this leg began. Nothing depends on their answers, but that the
    /// call does not end before them.
    pub(super) fn announce(&mut self, env: &mut Env<'_>) {
        let (Some(TakeEnd::Taken(grants)), Some(before)) = (&self.end, &self.seen) else {
            return;
        };
        let [grant] = grants.as_slice() else { return };
        let image = &grant.image;
        if image.shard_count < 2 {
            return;
        }
        let start = |image: &Bucket, name: &str| image.terms(image.limit(name)?).session_start();
        let begun = image.limits.iter().filter_map(|limit| {
            let now = start(image, &limit.name)?;
            (start(before, &limit.name) != Some(now) && image.refilled_at == now).then_some((limit, now))
        });
        let begun: Vec<_> = begun.collect();
        let siblings = (0..image.shard_count).filter(|shard| *shard != grant.shard);
        for shard in siblings {
            for (limit, start) in &begun {
                if let Some(update) = announce(self.id.key(shard), image, limit, *start) {
                    env.send(0, Ask::Table(Op::Update(update)));
                }
            }
        }
    }
}

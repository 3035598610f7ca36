//! Sessions of a bucket that is split: the shard whose use begins one tells the others.
//!
//! If that write fails, the shard begins a session of its own at its next use. It then admits no more than its part in any session,
//! but at other times than its siblings.

use super::{Ask, Bucket, Env, Op, State, Take, TakeEnd};
use crate::write::shapes::announce;

impl Take {
    /// Tells the siblings of sessions that the write that has ended this leg began.
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
        let mut told = 0;
        for shard in siblings {
            for (limit, start) in &begun {
                let Some(update) = announce(self.id.key(shard), image, limit, *start) else {
                    continue;
                };
                env.send(0, Ask::Table(Op::Update(update)));
                told += 1;
            }
        }
        if told > 0
            && let Some(TakeEnd::Taken(grants)) = self.end.take()
            && let Some(grant) = grants.into_iter().next()
        {
            self.last = None;
            self.state = State::Announce(told, grant);
        }
    }

    /// A sibling has answered, or its write has failed.
    pub(super) fn announced(&mut self) {
        match std::mem::replace(&mut self.state, State::Debit) {
            State::Announce(left, grant) if left > 1 => self.state = State::Announce(left - 1, grant),
            State::Announce(_, grant) => self.finish(TakeEnd::Taken(vec![grant])),
            other => self.state = other,
        }
    }
}

//! How acquires end: what they have taken, and whether the judge agrees.

use std::collections::BTreeSet;

use zae_limiter_core::LimitName;
use zae_limiter_core::acquire::{AcquireError, Decision, Grant};
use zae_limiter_core::schema::BucketId;

use super::World;
use crate::rows::change::{Sums, add};
use crate::state::job::Machine;
use crate::state::lease::Held;

impl World<'_> {
    /// An acquire has its decision.
    pub(super) fn decided(&mut self, job: usize) {
        let machine = std::mem::replace(&mut self.jobs[job].machine, Machine::Ended);
        let Machine::Acquire(acquire) = machine else {
            return;
        };
        let is_paid = acquire.is_paid();
        let Some(decision) = acquire.finish() else {
            return self.fail(format!("job {job} ended without a decision"));
        };
        let filling = std::mem::take(&mut self.jobs[job].filling);
        self.note(|| format!("job {job}: {}", shown(&decision)));
        if self.jobs[job].abandoned && matches!(decision, Decision::Admitted(_)) {
            return self.fail(format!(
                "job {job} was admitted after its caller had stopped waiting"
            ));
        }
        if let Err(err) = self.judge_access(job, &decision) {
            return self.fail(err);
        }
        let calls = self.jobs[job].calls.iter().flatten().count();
        match &decision {
            Decision::Admitted(_) => {
                self.stats.admitted += 1;
                self.jobs[job].is_admitted = true;
            }
            Decision::Rejected(why) if why.is_contended() => self.stats.contended += 1,
            Decision::Rejected(why) => {
                self.stats.rejected += 1;
                self.stats.rejected_from_memory += u64::from(calls == 0);
                self.stats.never_possible += u64::from(why.is_never());
            }
            Decision::Disabled { .. } => self.stats.disabled += 1,
            Decision::Failed(AcquireError::Abandoned) => self.stats.abandoned += 1,
            Decision::Failed(AcquireError::Table(err)) => {
                self.stats.failed += 1;
                let err = err.clone();
                self.failed_at_table(job, &err);
            }
            Decision::Failed(_) => self.stats.failed += 1,
        }
        let mut known = Sums::new();
        // The credits that give it back are jobs of their own.
        let taken = std::mem::take(&mut self.jobs[job].gave_back);
        for grant in &taken {
            for (limit, amount) in &grant.amounts {
                add(&mut known, &grant.id, limit.as_str(), amount.0);
            }
        }
        if let Decision::Admitted(grants) = &decision {
            let entities: BTreeSet<_> = grants.iter().map(|grant| &grant.id.entity).collect();
            self.stats.cascaded += u64::from(entities.len() > 1);
            self.stats.chained += u64::from(entities.len() > 2);
            let resources: BTreeSet<_> = grants.iter().map(|grant| &grant.id.resource).collect();
            self.stats.several += u64::from(resources.len() > 1);
            let mut buckets: Vec<_> = grants.iter().map(|grant| &grant.id).collect();
            buckets.dedup();
            self.stats.divided += u64::from(buckets.len() < grants.len());
            for grant in grants {
                for (limit, amount) in &grant.amounts {
                    add(&mut known, &grant.id, limit.as_str(), amount.0);
                }
            }
        }
        // The known amount, and above it debits whose answers were lost.
        let slot = &mut self.jobs[job];
        let lost = std::mem::take(&mut slot.doubtful);
        slot.low.clone_from(&known);
        slot.high = known;
        for (id, cost) in lost.into_iter().filter(|(_, cost)| *cost > 0) {
            *slot.high.entry(id).or_default() += cost;
        }
        self.expect(job);
        let Decision::Admitted(grants) = decision else {
            return self.unfilled(self.jobs[job].process, filling);
        };
        {
            let grants = self.settle_filling(job, filling, grants, is_paid);
            if let Err(err) = self
                .judge_whole(job, &grants)
                .and(self.judge_parent(job, &grants))
            {
                self.fail(err);
            }
            self.hold(job, Held::Table(grants));
        }
    }

    /// An admission has all amounts of all its resources, of each bucket that it has debited.
    fn judge_whole(&self, job: usize, grants: &[Grant]) -> Result<(), String> {
        let Some(request) = &self.jobs[job].request else {
            return Ok(());
        };
        let of_bucket = |id: &BucketId, limit: &LimitName| {
            let grants = grants.iter().filter(|grant| grant.id == *id);
            let amounts = grants.flat_map(|grant| &grant.amounts);
            let of_limit = amounts.filter(|(named, _)| named == limit);
            of_limit
                .map(|(_, amount)| amount.0)
                .reduce(|sum, amount| sum + amount)
        };
        for (resource, amounts) in request.parts() {
            let own = self.names.bucket_in(&request.id.entity, resource);
            for (limit, wanted) in amounts {
                // Of what a bucket lacks, nothing can be counted.
                let is_bypassed = grants.iter().any(|grant| grant.id == own && grant.is_bypassed);
                let taken = of_bucket(&own, limit);
                if taken != Some(wanted.0) && !(is_bypassed && taken.is_none()) {
                    return Err(format!(
                        "job {job} was admitted without {wanted} of {limit}, {resource}"
                    ));
                }
                let mut others = grants.iter().filter(|grant| grant.id.resource == *resource);
                if let Some(other) =
                    others.find(|grant| of_bucket(&grant.id, limit).is_some_and(|taken| taken != wanted.0))
                {
                    return Err(format!(
                        "job {job} has another amount of {limit} of {:?}",
                        other.id
                    ));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn expect(&mut self, job: usize) {
        let slot = &self.jobs[job];
        if let Err(err) = self.check.expect(job, &slot.low, &slot.high) {
            let action = slot.action;
            self.fail(format!("job {job} of action {action}: {err}"));
        }
    }
}

fn shown(decision: &Decision) -> String {
    match decision {
        Decision::Admitted(grants) => {
            let grant = |g: &Grant| format!("{}/{}#{} {:?}", g.id.entity, g.id.resource, g.shard, g.amounts);
            format!("admitted {:?}", grants.iter().map(grant).collect::<Vec<_>>())
        }
        Decision::Rejected(why) => format!("rejected: {why}"),
        Decision::Disabled { bucket, at } => format!("{} is disabled at {at:?}", bucket.entity),
        Decision::Failed(err) => format!("failed: {err}"),
    }
}

//! Group commit in one process: which debits wait for a write of their shard.
//!
//! As in the async limiter: a debit that finds no write of its shard on its way is sent alone; later ones wait for a sender,
//! which sends what waits, one write at a time, until nothing waits.

use std::collections::BTreeMap;

use zae_limiter_core::acquire::{Batch, Debit, Group};
use zae_limiter_core::schema::BucketId;
use zae_limiter_core::table::Update;
use zae_limiter_core::{LimitName, Millitokens};

/// A call of a job.
pub(crate) type JobCall = (usize, usize);

/// A shard of a bucket, by its key.
pub(crate) type Shard = (String, u32);

/// A batch, until its answer is heard.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) batch: Batch<JobCall>,
    pub(crate) shard: Shard,
    pub(crate) carried: Option<Carried>,
}

/// What a write takes for one of its members.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) job: usize,
    pub(crate) amounts: Vec<(LimitName, Millitokens)>,
}

/// A credit that a batch carries: its job, its call, and what it would send alone.
#[derive(Debug, Clone)]
pub(crate) struct Carried {
    pub(crate) job: usize,
    pub(crate) call: usize,
    pub(crate) update: Update,
}

#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) group: Group<JobCall>,
    /// Debits sent alone.
    pub(crate) alone: Vec<JobCall>,
    /// Senders at work.
    pub(crate) senders: usize,
    /// Credits that wait for a write that carries them.
    pub(crate) riders: Vec<usize>,
}

/// The groups of a process.
#[derive(Debug, Default)]
pub(crate) struct Groups(BTreeMap<Shard, Waiting>);

/// The name of a debit's shard.
pub(crate) fn shard_of(id: &BucketId, shard: u32) -> Shard {
    (id.key(0).pk, shard)
}

impl Groups {
    pub(crate) fn of(&mut self, shard: &Shard) -> &mut Waiting {
        self.0.entry(shard.clone()).or_default()
    }

    /// Whether a debit is to be sent alone now.
    pub(crate) fn is_idle(&mut self, debit: &Debit) -> bool {
        let waiting = self.of(&shard_of(debit.id(), debit.shard()));
        waiting.alone.is_empty() && waiting.senders == 0 && waiting.riders.is_empty()
    }

    /// The outcome of a call is known.
    pub(crate) fn heard(&mut self, call: JobCall) {
        for waiting in self.0.values_mut() {
            waiting.alone.retain(|alone| *alone != call);
        }
    }

    /// Takes back the debits of a job that still wait.
    pub(crate) fn withdraw(&mut self, job: usize) -> Vec<JobCall> {
        let mut withdrawn = Vec::new();
        for waiting in self.0.values_mut() {
            while let Some((_, call)) = waiting.group.withdraw(|(of, _)| *of == job) {
                withdrawn.push(call);
            }
        }
        withdrawn
    }

    /// A credit does not wait any more. Returns whether it did.
    pub(crate) fn leaves(&mut self, job: usize) -> bool {
        let mut waited = false;
        for waiting in self.0.values_mut() {
            let before = waiting.riders.len();
            waiting.riders.retain(|rider| *rider != job);
            waited |= waiting.riders.len() < before;
        }
        waited
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

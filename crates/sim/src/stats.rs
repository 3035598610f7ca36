//! What happened in a run, counted, so that a test can check that all interesting cases occurred.

use std::fmt;

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Counts of events in a run, or in several.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Stats {
            /// Adds what happened in another run; of `max_` counters keeps the larger.
            pub fn add(&mut self, other: &Self) {
                $(if stringify!($name).starts_with("max_") {
                    self.$name = self.$name.max(other.$name);
                } else {
                    self.$name += other.$name;
                })+
            }

            /// Every counter with its name.
            pub fn counters(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),+]
            }
        }
    };
}

stats! {
    /// Runs.
    runs,
    /// Events played.
    steps,
    /// Requests that reached the table.
    table_calls,
    /// Writes that the table applied.
    writes,
    /// Acquires started.
    acquires,
    /// Acquires admitted.
    admitted,
    /// Acquires rejected by a limit.
    rejected,
    /// Acquires rejected from memory, without a call.
    rejected_from_memory,
    /// Acquires rejected because a limit can never cover them.
    never_possible,
    /// Acquires that lost to concurrent writers.
    contended,
    /// Acquires refused because the entity is disabled.
    disabled,
    /// Acquires that failed.
    failed,
    /// Acquires whose caller stopped waiting.
    abandoned,
    /// Acquires with a parent's grant beside the entity's.
    cascaded,
    /// Acquires with grants of three entities above each other, or more.
    chained,
    /// Acquires that took of several resources.
    several,
    /// Acquires that took from several shards of a bucket.
    divided,
    /// Refunds of an acquire that was not to be.
    compensations,
    /// Plain debits that applied.
    debits,
    /// Debits joined with others of their shard: writes.
    batches,
    /// The debits in them.
    batched,
    /// The most debits in one of them.
    max_batch,
    /// Debits that were left out of a write because of the last image.
    left_out,
    /// Debits that were taken back before they were sent.
    withdrawn,
    /// Credits that joined writes carried.
    carried,
    /// The same, where the write did not happen, or its answer was lost.
    not_carried,
    /// Acquires that took tokens ahead.
    taken_ahead,
    /// Acquires that were served from memory.
    from_memory,
    /// Acquires whose parent's tokens came from memory.
    paid_ahead,
    /// Slices whose tokens were returned because they were too old.
    returned_ahead,
    /// Refilling writes that applied.
    refills,
    /// Refilling writes that cut a surplus.
    clamps,
    /// Writes that lost a race.
    lost_races,
    /// First shards created.
    created,
    /// Further shards created.
    shards_created,
    /// Of those, shards that were given tokens.
    shards_with_tokens,
    /// Shards raised to a later count.
    shards_raised,
    /// Shard counts doubled.
    doublings,
    /// The highest shard count.
    max_shards,
    /// Limits added to existing items.
    seeded,
    /// Credits that applied.
    credits,
    /// Charges after the fact that applied.
    charges,
    /// Balances in debt after a charge.
    debts,
    /// Debts that expired with their items.
    debts_expired,
    /// Credits above the ceiling.
    overflows,
    /// Credits that were divided over the shards of a bucket that was split meanwhile.
    divided_credits,
    /// Credits sent again after a lost answer.
    resent_credits,
    /// Credits that turned out to have happened although the answer was lost.
    recovered_credits,
    /// Credits given up because the outcome is unknown.
    in_doubt,
    /// Credits whose bucket was gone.
    gone,
    /// Leases committed.
    committed,
    /// Leases rolled back.
    rolled_back,
    /// Leases dropped.
    dropped,
    /// Processes crashed.
    crashes,
    /// Requests throttled.
    throttled,
    /// Answers lost.
    unknown,
    /// Requests applied after the client had stopped waiting.
    applied_late,
    /// Requests that met a transaction.
    conflicts,
    /// Requests refused finally.
    permanent,
    /// Answers without an item.
    empty,
    /// Requests that failed in an outage.
    in_outage,
    /// Circuit breakers that opened.
    breakers_opened,
    /// Acquires decided at once by an open circuit breaker.
    refused_by_breaker,
    /// Requests let through by an open circuit breaker.
    probes,
    /// Circuit breakers that closed.
    breakers_closed,
    /// Acquires that the policy for outages refused.
    unavailable,
    /// Acquires that the policy for outages admitted without limits.
    unlimited,
    /// Acquires admitted from limits in memory.
    local,
    /// Of those, acquires that took from a parent's limits, too.
    local_cascaded,
    /// Acquires that the limits in memory refused.
    local_refused,
    /// Acquires for whose limits there was no memory.
    local_full,
    /// Acquires refused without the table because the entity or its parent is disabled.
    local_disabled,
    /// Acquires refused without the table because of their own mistakes.
    local_mistaken,
    /// Acquires that could not be bounded, because the limits were never read.
    local_unknown,
    /// Corrections of limits in memory.
    local_corrected,
    /// Permanent errors under a policy for outages.
    permanent_under_policy,
    /// Acquires with limits of their own.
    own_limits,
    /// Configurations read as they were before a change.
    stale_reads,
    /// Shards brought up to a configuration.
    reconciled,
    /// Buckets dated back from the future.
    dated_back,
    /// Limits changed.
    limit_changes,
    /// Entities disabled or enabled.
    flag_changes,
    /// Shards stamped by operators with what is said about access.
    access_stamped,
    /// Operators that found nothing more to stamp.
    access_settled,
    /// Requests that were counted under a bypass.
    counted,
    /// Corrections of such counts.
    count_corrections,
    /// Resets and top-ups.
    operations,
    /// Those that were tried again.
    operations_again,
    /// Those that had happened before, by their key.
    operations_repeated,
    /// Those that were refused.
    operations_refused,
    /// Operators that were killed.
    operators_killed,
    /// Entities moved to another parent.
    moves,
    /// Entities deleted and created again.
    recreated,
    /// Items swept after they expired.
    swept,
    /// Writes by other kinds of clients.
    foreign_writes,
    /// Quotas that were reset.
    resets,
    /// Sessions that have begun.
    sessions,
    /// Refunds within the period of a quota or a session.
    period_refunds,
    /// Refunds of which a part was dropped because its period is over.
    periods_over,
    /// Refills by which the parameters of a schedule changed.
    windows_changed,
    /// Refills of shaped limits by clients of another kind.
    foreign_passes,
    /// Promised waits tried out.
    waits_tried,
    /// Admissions above capacity plus refill of a window that starts just before a refill is due: what lazy
    /// refill allows, up to an eighth of the capacity (see `account`).
    lazy_bursts,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, count)) in self.counters().into_iter().enumerate() {
            let separator = if i % 3 == 2 { "\n" } else { "  " };
            write!(f, "{name:>22} {count:>12}{separator}")?;
        }
        Ok(())
    }
}

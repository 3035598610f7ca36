//! Calls during an outage of the table: the circuit breaker that they share, and the policy that admits some without the table.

pub(crate) mod breaker;
pub(super) mod degrade;

//! How a trace is played.

/// What a caller does when it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnRefusal {
    /// It gives up.
    #[default]
    Drop,
    /// It tries again after the wait of the refusal, so many times at most.
    Retry(u32),
}

/// How a trace is played.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The seed of random choices: the shards of buckets that were split, and jitter.
    pub seed: u64,
    /// What a caller does when it is refused.
    pub on_refusal: OnRefusal,
    /// The length of the parts of the timeline, in milliseconds. By default it follows the length of the trace.
    pub every_ms: Option<i64>,
}

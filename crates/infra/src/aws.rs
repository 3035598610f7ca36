//! Clients of the services that a stack is managed with, and how long to wait for them.

use std::time::Duration;

use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use tokio::time::{Instant, sleep};

/// For a connection.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);
/// For one attempt at a call that is answered at once.
const ANSWER: Duration = Duration::from_secs(10);
/// For one attempt at a call that may move code.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(30);
/// For one attempt to move a package, which may have 100 MB.
const MOVE: Duration = Duration::from_mins(10);

/// How long to wait for a stack, and how often to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// For a stack to be created, changed or deleted. One hour.
    pub stack: Duration,
    /// For CloudFormation to say what a new template changes. Five minutes.
    pub change_set: Duration,
    /// For new code to be in use. Five minutes.
    pub function: Duration,
    /// For the aggregator to read the table's stream. Two minutes.
    pub mapping: Duration,
    /// How long the aggregator must have been reading before it counts as ready. 45 s, because AWS says so earlier
    /// than it is true, and what is written in between would be missed.
    pub mapping_settles: Duration,
    /// Between the first two looks. It doubles up to [`longest`](Self::longest).
    pub first: Duration,
    /// Between two looks at most.
    pub longest: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            stack: Duration::from_hours(1),
            change_set: Duration::from_mins(5),
            function: Duration::from_mins(5),
            mapping: Duration::from_mins(2),
            mapping_settles: Duration::from_secs(45),
            first: Duration::from_millis(200),
            longest: Duration::from_secs(5),
        }
    }
}

impl Waits {
    /// For servers on this machine, whose word on the aggregator is true at once.
    pub fn local() -> Self {
        Self {
            mapping: Duration::from_secs(10),
            mapping_settles: Duration::ZERO,
            longest: Duration::from_secs(1),
            ..Self::default()
        }
    }

    /// The pause after this one.
    fn after(&self, pause: Duration) -> Duration {
        (pause * 2).min(self.longest)
    }

    /// Begins to look for something, for this long.
    pub(crate) fn looks(self, within: Duration) -> Looks {
        Looks {
            waits: self,
            deadline: Instant::now() + within,
            pause: self.first,
        }
    }
}

/// Looks at something until it is there, at longer and longer intervals.
#[derive(Debug)]
pub(crate) struct Looks {
    waits: Waits,
    deadline: Instant,
    pause: Duration,
}

impl Looks {
    /// Pauses before the next look; `false`, at once, if time runs out before it.
    pub(crate) async fn again(&mut self) -> bool {
        if Instant::now() + self.pause > self.deadline {
            return false;
        }
        sleep(self.pause).await;
        self.pause = self.waits.after(self.pause);
        true
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Clients {
    pub(crate) stacks: aws_sdk_cloudformation::Client,
    pub(crate) functions: aws_sdk_lambda::Client,
    pub(crate) buckets: aws_sdk_s3::Client,
    pub(crate) identity: aws_sdk_sts::Client,
    pub(crate) tagging: aws_sdk_resourcegroupstagging::Client,
}

impl Clients {
    pub(crate) fn new(config: &SdkConfig) -> Self {
        let timeouts = |attempt| {
            TimeoutConfig::builder()
                .connect_timeout(CONNECT)
                .operation_attempt_timeout(attempt)
                .build()
        };
        let bounded = |attempt| config.to_builder().timeout_config(timeouts(attempt)).build();
        let buckets = aws_sdk_s3::config::Builder::from(config)
            .timeout_config(timeouts(MOVE))
            // Servers other than AWS seldom have a name for each bucket.
            .force_path_style(config.endpoint_url().is_some());
        Self {
            stacks: aws_sdk_cloudformation::Client::new(&bounded(ANSWER)),
            functions: aws_sdk_lambda::Client::new(&bounded(ATTEMPT)),
            buckets: aws_sdk_s3::Client::from_conf(buckets.build()),
            identity: aws_sdk_sts::Client::new(&bounded(ANSWER)),
            tagging: aws_sdk_resourcegroupstagging::Client::new(&bounded(ANSWER)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound() {
        let waits = Waits::default();
        let mut pause = waits.first;
        let pauses: Vec<u128> = (0..7)
            .map(|_| {
                let now = pause;
                pause = waits.after(pause);
                now.as_millis()
            })
            .collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 5000, 5000]);
    }
}

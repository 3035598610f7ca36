//! Clients of the SDK for tables: they do not retry, and have timeouts.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_smithy_types::retry::RetryConfig;

use super::empty::RefuseEmpty;
use crate::table::Timeouts;

/// The SDK starts a timer for each timeout it is given, so two that say the same are given as one.
fn to_config(timeouts: Timeouts) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(timeouts.connect)
        .operation_timeout(timeouts.operation.min(timeouts.attempt))
        .build()
}

/// A client like the given one that does not retry, and has timeouts where it had none.
///
/// The caller's own HTTP client, credentials and other settings are kept.
pub(crate) fn prepared(client: &Client, timeouts: Timeouts) -> Client {
    let config = client.config();
    let own = config.timeout_config();
    let bounded =
        own.is_some_and(|own| own.operation_timeout().is_some() || own.operation_attempt_timeout().is_some());
    let mut builder = config.to_builder().retry_config(RetryConfig::disabled());
    if !bounded {
        let mut all = to_config(timeouts);
        if let Some(own) = own {
            all = TimeoutConfig::to_builder(own)
                .operation_timeout(timeouts.operation.min(timeouts.attempt))
                .connect_timeout(own.connect_timeout().unwrap_or(timeouts.connect))
                .build();
        }
        builder = builder.timeout_config(all);
    }
    Client::from_conf(builder.build())
}

/// One like this client that does not retry and refuses empty answers.
pub(super) fn of_table(client: &Client) -> Client {
    // Overriding it for each request would do as well, but costs a layer of configuration each time.
    let config = client.config().to_builder().retry_config(RetryConfig::disabled());
    Client::from_conf(config.interceptor(RefuseEmpty).build())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_sdk_dynamodb::Config;
    use aws_sdk_dynamodb::config::{BehaviorVersion, Region};

    use super::*;

    #[test]
    fn a_client_given_by_the_caller_keeps_its_timeouts_and_loses_its_retries() {
        let config = Config::builder().behavior_version(BehaviorVersion::latest());
        let given = Client::from_conf(config.region(Region::from_static("eu-west-1")).build());
        let ours = prepared(&given, Timeouts::default());
        assert_eq!(
            ours.config().retry_config().map(RetryConfig::max_attempts),
            Some(1)
        );
        let timeouts = ours
            .config()
            .timeout_config()
            .and_then(TimeoutConfig::operation_timeout);
        assert_eq!(timeouts, Some(Duration::from_secs(2)));

        let own = TimeoutConfig::builder()
            .operation_attempt_timeout(Duration::from_secs(9))
            .build();
        let given = Client::from_conf(given.config().to_builder().timeout_config(own).build());
        let ours = prepared(&given, Timeouts::default());
        let timeouts = ours.config().timeout_config().cloned();
        assert_eq!(
            timeouts.and_then(|own| own.operation_attempt_timeout()),
            Some(Duration::from_secs(9))
        );
    }
}

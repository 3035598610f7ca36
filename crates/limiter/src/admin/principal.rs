//! Who makes changes, for the audit log.

use std::time::Duration;

use aws_types::SdkConfig;
use tokio::sync::OnceCell;

/// How long the identity service may take to say who is calling.
const PATIENCE: Duration = Duration::from_secs(2);

/// The principal of changes: the configured name, or the caller identity of the credentials.
#[derive(Debug, Default)]
pub(crate) struct Principal {
    caller: Option<SdkConfig>,
    name: OnceCell<Option<String>>,
}

impl Principal {
    /// The given name.
    pub(crate) fn named(name: String) -> Self {
        Self {
            caller: None,
            name: OnceCell::new_with(Some(Some(name))),
        }
    }

    /// The caller identity of the credentials of this configuration.
    pub(crate) fn caller(config: SdkConfig) -> Self {
        Self {
            caller: Some(config),
            name: OnceCell::new(),
        }
    }

    /// The name; `None` if it is unknown. The identity service is called once, at the first change.
    pub(crate) async fn name(&self) -> Option<String> {
        let ask = || async {
            let client = aws_sdk_sts::Client::new(self.caller.as_ref()?);
            match tokio::time::timeout(PATIENCE, Box::pin(client.get_caller_identity().send())).await {
                Ok(Ok(identity)) => identity.arn,
                Ok(Err(err)) => {
                    tracing::debug!(%err, "the identity service does not say who is calling");
                    None
                }
                Err(_) => {
                    tracing::debug!("the identity service did not answer in time");
                    None
                }
            }
        };
        self.name.get_or_init(ask).await.clone()
    }
}

//! Who makes changes, for the audit log.

use std::time::Duration;

use aws_types::SdkConfig;
use tokio::sync::OnceCell;

/// How long the identity service may take to say who is calling.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who makes changes: as told, else whom the credentials belong to.
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

    /// Whoever the credentials of this configuration belong to.
    pub(crate) fn caller(config: SdkConfig) -> Self {
        Self {
            caller: Some(config),
            name: OnceCell::new(),
        }
    }

    /// The name; `None` if nobody knows. The identity service is asked once, when a change is first made.
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

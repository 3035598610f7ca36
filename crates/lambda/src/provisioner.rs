//! The provisioner: limits from manifests, for `zae-limiter limits` and for CloudFormation.
//!
//! This release understands its calls and answers them, but does not apply manifests yet: every call that would
//! have to is refused in so many words. Deleting a custom resource that never applied anything succeeds, so that
//! no stack is stuck.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use lambda_runtime::Diagnostic;
use serde_json::{Value as Json, json};
use zae_limiter::Stack;
use zae_limiter::table::TableExt as _;
use zae_limiter_core::NamespaceId;
use zae_limiter_core::schema::provisioner_key;

use crate::log::Log;

const LOGGER: &str = "zae_limiter_provisioner.handler";

/// The longest answer that CloudFormation takes, in bytes.
const MOST_BYTES: usize = 4096;

/// Why a manifest was not applied.
const UNSUPPORTED: &str = "this release of zae-limiter does not apply manifests yet; set limits with \
                           'zae-limiter system|resource|entity', or deploy the provisioner of the Python zae-limiter";

/// Serves the provisioner's calls for one table.
#[derive(Debug)]
pub struct Provisioner {
    stack: Stack,
    log: Log,
}

impl Provisioner {
    /// A function for a table.
    pub fn new(stack: Stack, log: Log) -> Self {
        Self { stack, log }
    }

    /// Serves one invocation. A custom resource of CloudFormation is answered where it asks for it, and never
    /// with an error to Lambda, which would only repeat the call.
    ///
    /// # Errors
    /// What the command line shows: the reason why nothing was done.
    pub async fn handle(&self, event: &Json) -> Result<Json, Diagnostic> {
        let Some(kind) = event["RequestType"].as_str() else {
            let action = event["action"].as_str().unwrap_or("plan");
            self.log.warning(
                LOGGER,
                "Call refused",
                &[("action", json!(action)), ("exception", json!(UNSUPPORTED))],
            );
            return Err(Diagnostic {
                error_type: "Unsupported".into(),
                error_message: UNSUPPORTED.into(),
            });
        };
        let outcome = match kind {
            "Delete" => self.delete(event).await,
            _ => Err(UNSUPPORTED.to_owned()),
        };
        let answer = answer(event, &outcome);
        match &outcome {
            Ok(()) => self
                .log
                .info(LOGGER, "Custom resource done", &[("request_type", json!(kind))]),
            Err(reason) => self.log.error(
                LOGGER,
                "Custom resource failed",
                &[("request_type", json!(kind)), ("exception", json!(reason))],
            ),
        }
        if let Some(url) = event["ResponseURL"].as_str()
            && let Err(err) = put(url, &answer).await
        {
            self.log.error(
                LOGGER,
                "CloudFormation could not be answered",
                &[("exception", json!(err))],
            );
        }
        Ok(answer)
    }

    /// Deletes what a custom resource manages, as far as it manages anything.
    async fn delete(&self, event: &Json) -> Result<(), String> {
        let id = event["PhysicalResourceId"].as_str().unwrap_or_default();
        // `{table}/{namespace id}/limits-provisioner`; anything else was never applied.
        let namespace = id
            .strip_suffix("/limits-provisioner")
            .and_then(|rest| rest.rsplit_once('/'))
            .and_then(|(_, namespace)| NamespaceId::new(namespace).ok());
        let Some(namespace) = namespace else {
            return Ok(());
        };
        match self.stack.table().get(provisioner_key(&namespace), true).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(UNSUPPORTED.to_owned()),
            Err(err) => Err(err.to_string()),
        }
    }
}

/// The answer to CloudFormation.
fn answer(event: &Json, outcome: &Result<(), String>) -> Json {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let id = Some(text("PhysicalResourceId")).filter(|id| !id.is_empty());
    let mut reason = outcome.as_ref().err().cloned().unwrap_or_else(|| "done".into());
    loop {
        let answer = json!({
            "Status": if outcome.is_ok() { "SUCCESS" } else { "FAILED" },
            "Reason": reason,
            "PhysicalResourceId": id.as_deref().unwrap_or("failed"),
            "StackId": text("StackId"),
            "RequestId": text("RequestId"),
            "LogicalResourceId": text("LogicalResourceId"),
            "Data": {},
        });
        if answer.to_string().len() <= MOST_BYTES || reason.is_empty() {
            return answer;
        }
        let half = reason.chars().count() / 2;
        reason = reason.chars().take(half).collect();
    }
}

/// Sends the answer to the address that CloudFormation gave, which is signed for an empty content type.
async fn put(url: &str, answer: &Json) -> Result<(), String> {
    let connector = HttpsConnectorBuilder::new()
        .with_native_roots()
        .map_err(|err| err.to_string())?
        .https_or_http()
        .enable_http1()
        .build();
    let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
    let request = Request::put(url)
        .header("content-type", "")
        .body(Full::new(Bytes::from(answer.to_string())))
        .map_err(|err| err.to_string())?;
    let response = client.request(request).await.map_err(|err| err.to_string())?;
    let status = response.status();
    // Read to its end, so that the request is known to be done.
    let _ = response.into_body().collect().await;
    if status.is_success() {
        Ok(())
    } else {
        Err(format!("it answered {status}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Json {
        json!({
            "RequestType": "Create", "StackId": "s", "RequestId": "r", "LogicalResourceId": "TenantLimits",
        })
    }

    #[test]
    fn an_answer_names_the_request_and_fits() {
        let failed = answer(&event(), &Err("x".repeat(10_000)));
        assert!(failed.to_string().len() <= MOST_BYTES);
        assert_eq!(failed["Status"], "FAILED");
        assert_eq!(failed["PhysicalResourceId"], "failed");
        assert_eq!(failed["LogicalResourceId"], "TenantLimits");
        let mut known = event();
        known["PhysicalResourceId"] = json!("t/n/limits-provisioner");
        let done = answer(&known, &Ok(()));
        assert_eq!(done["Status"], "SUCCESS");
        assert_eq!(done["PhysicalResourceId"], "t/n/limits-provisioner");
    }
}

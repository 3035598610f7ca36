//! The provisioner: limits from manifests, for `zae-limiter limits` and for CloudFormation.
//!
//! Both kinds of call end in [`Admin::apply_limits`](zae_limiter::Admin::apply_limits), which may be repeated
//! at will: Lambda and CloudFormation deliver calls more than once. `resource` serves the custom resource, `reply`
//! puts its answer where CloudFormation asks for it.

mod reply;
mod resource;

use std::time::Duration;

use lambda_runtime::Diagnostic;
use serde_json::{Value as Json, json};
use zae_limiter::{ApplyOptions, Error, Stack};
use zae_limiter_core::manifest::{Manifest, Problems};

use crate::log::Log;

const LOGGER: &str = "zae_limiter_provisioner.handler";

/// How long before its end a function stops working to answer, at most; a tenth of its time if that is less.
const MARGIN: Duration = Duration::from_secs(15);

/// Serves the provisioner's calls for one table.
#[derive(Debug)]
pub struct Provisioner {
    stack: Stack,
    log: Log,
}

/// Why a call was not served.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// The event is not one.
    #[error("{0}")]
    Event(String),
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] Problems),
    /// The table or the library says no.
    #[error(transparent)]
    Limiter(#[from] Error),
    /// The function would have been stopped.
    #[error(
        "not finished after {} seconds, when the function would have been stopped; what is done stays, and the same \
         call again continues with the rest (but begins again if all levels are to be written)",
        .0.as_secs()
    )]
    Time(Duration),
}

impl Refusal {
    fn kind(&self) -> &'static str {
        match self {
            Self::Event(_) => "InvalidEvent",
            Self::Manifest(_) => "InvalidManifest",
            Self::Limiter(_) => "LimiterError",
            Self::Time(_) => "OutOfTime",
        }
    }
}

impl Provisioner {
    /// A function for a table.
    pub fn new(stack: Stack, log: Log) -> Self {
        Self { stack, log }
    }

    /// Serves one invocation, which ends in `remaining` if that is known. A custom resource of CloudFormation is
    /// answered where it asks for it, and never with an error to Lambda, which would only repeat the call.
    ///
    /// # Errors
    /// The text for the command line: the reason why nothing was done, or why not everything.
    pub async fn handle(&self, event: &Json, remaining: Option<Duration>) -> Result<Json, Diagnostic> {
        if event.get("RequestType").is_some() {
            return Ok(self.serve_resource(event, remaining).await);
        }
        let served = in_time(remaining, self.serve_command(event, remaining)).await;
        let action = event["action"].as_str().unwrap_or("plan");
        match &served {
            Ok(answer) => self.log.info(
                LOGGER,
                "Call served",
                &[
                    ("action", json!(action)),
                    ("changes", json!(answer["changes"].as_array().map_or(0, Vec::len))),
                    ("unchanged", answer["unchanged"].clone()),
                    ("pending", answer["pending"].clone()),
                    (
                        "error_count",
                        json!(answer["errors"].as_array().map_or(0, Vec::len)),
                    ),
                ],
            ),
            Err(refusal) => self.log.warning(
                LOGGER,
                "Call refused",
                &[
                    ("action", json!(action)),
                    ("exception", json!(refusal.to_string())),
                ],
            ),
        }
        served.map_err(|refusal| Diagnostic {
            error_type: refusal.kind().into(),
            error_message: refusal.to_string(),
        })
    }

    async fn serve_command(&self, event: &Json, remaining: Option<Duration>) -> Result<Json, Refusal> {
        self.check_table(&event["table_name"])?;
        let full = match &event["full"] {
            Json::Null => false,
            Json::Bool(full) => *full,
            other => {
                return Err(Refusal::Event(format!(
                    "'full' is {other}; it must be true or false"
                )));
            }
        };
        let action = match &event["action"] {
            Json::Null => "plan",
            Json::String(action) if action == "plan" || action == "apply" => action,
            other => {
                return Err(Refusal::Event(format!(
                    "'action' is {other}; it must be \"plan\" or \"apply\""
                )));
            }
        };
        let id = match &event["namespace_id"] {
            Json::String(id) if !id.is_empty() => id,
            other => {
                let text = format!("'namespace_id' is {other}; it must be the id of a registered namespace");
                return Err(Refusal::Event(text));
            }
        };
        let manifest = Manifest::from_json(&event["manifest"])?;
        let repo = self.stack.connect_id(id).await?;
        let options = ApplyOptions { full, remaining };
        Ok(if action == "plan" {
            repo.admin().plan_limits(&manifest, options).await?.to_json()
        } else {
            repo.admin().apply_limits(&manifest, options).await?.to_json()
        })
    }

    /// Refuses a call for another table: the function's role is for this one.
    fn check_table(&self, name: &Json) -> Result<(), Refusal> {
        let own = self.stack.name();
        match name {
            Json::Null => Ok(()),
            Json::String(name) if name == own || name.is_empty() => Ok(()),
            other => Err(Refusal::Event(format!(
                "the table is {other}; this function serves '{own}'"
            ))),
        }
    }
}

/// Ends work early enough to return an answer.
async fn in_time<T>(
    remaining: Option<Duration>,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let Some(remaining) = remaining else {
        return work.await;
    };
    let time = remaining.saturating_sub(MARGIN.min(remaining / 10));
    if time.is_zero() {
        return Err(Refusal::Time(time));
    }
    match tokio::time::timeout(time, work).await {
        Ok(result) => result,
        Err(_) => Err(Refusal::Time(time)),
    }
}

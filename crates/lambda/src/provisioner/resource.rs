//! The custom resource `Custom::ZaeLimiterLimits`: a manifest as properties, applied when CloudFormation says so.

use std::time::Duration;

use serde_json::{Value as Json, json};
use zae_limiter::{ApplyOptions, Error};
use zae_limiter_core::manifest::{Manifest, flag};
use zae_limiter_core::name::NamespaceName;

use super::{LOGGER, Provisioner, Refusal, in_time, reply};

/// The end of a physical id; before it are the table's name and the namespace's id.
const PHYSICAL: &str = "/limits-provisioner";

/// The end of a physical id if the creation did not finish. What is managed then may be of others, so that
/// its rollback deletes only what its own manifest declares.
const UNFINISHED: &str = "/limits-provisioner/unfinished";

/// The physical id in the answer if nothing was created.
const NOTHING: &str = "failed";

impl Provisioner {
    /// Serves a call of CloudFormation and answers it.
    pub(super) async fn serve_resource(&self, event: &Json, remaining: Option<Duration>) -> Json {
        let kind = event["RequestType"].as_str().unwrap_or_default();
        // What exists once the call is over, even if it fails: a rollback deletes it by this name.
        let mut physical = event["PhysicalResourceId"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let work = async {
            match kind {
                "Create" | "Update" => self.set(event, kind, remaining, &mut physical).await,
                "Delete" => self.delete(event, remaining).await,
                other => {
                    let text = format!("'RequestType' is '{other}'; it must be Create, Update or Delete");
                    Err(Refusal::Event(text))
                }
            }
        };
        let outcome = in_time(remaining, work).await;
        let outcome = outcome.map_err(|refusal| refusal.to_string());
        if physical.is_empty() {
            NOTHING.clone_into(&mut physical);
        }
        match &outcome {
            Ok(data) => self.log.info(
                LOGGER,
                "Custom resource done",
                &[
                    ("request_type", json!(kind)),
                    (
                        "error_count",
                        json!(data["errors"].as_array().map_or(0, Vec::len)),
                    ),
                ],
            ),
            Err(reason) => self.log.error(
                LOGGER,
                "Custom resource failed",
                &[("request_type", json!(kind)), ("exception", json!(reason))],
            ),
        }
        let answer = reply::answer(event, &physical, &outcome);
        if let Some(url) = event["ResponseURL"].as_str()
            && let Err(err) = reply::put(url, &answer).await
        {
            self.log.error(
                LOGGER,
                "CloudFormation could not be answered",
                &[("exception", json!(err))],
            );
        }
        answer
    }

    async fn set(
        &self,
        event: &Json,
        kind: &str,
        remaining: Option<Duration>,
        physical: &mut String,
    ) -> Result<Json, Refusal> {
        let properties = &event["ResourceProperties"];
        self.check_table(&properties["TableName"])?;
        let manifest = Manifest::from_properties(properties)?;
        let full = flag(properties, "FullApply")?.unwrap_or(false);
        let repo = match &properties["NamespaceId"] {
            Json::Null => self.stack.connect(manifest.namespace.as_str()).await?,
            Json::String(id) if id.is_empty() => self.stack.connect(manifest.namespace.as_str()).await?,
            Json::String(id) => self.stack.connect_id(id).await?,
            other => {
                return Err(Refusal::Event(format!(
                    "NamespaceId is {other}; it must be a text"
                )));
            }
        };
        let id = format!("{}/{}", self.stack.name(), repo.namespace_id());
        let options = ApplyOptions { full, remaining };
        let begun = repo.admin().begin_limits(&manifest, options).await?;
        // A creation that stops half-way has made something, which its rollback must find.
        if kind == "Create" {
            *physical = format!("{id}{UNFINISHED}");
        }
        if let Some(owner) = owner(event) {
            repo.admin().set_limits_owner(&owner, true).await?;
        }
        let applied = begun.finish().await?;
        *physical = format!("{id}{PHYSICAL}");
        Ok(applied.to_json())
    }

    /// Deletes all that is managed, or what an unfinished creation may have made of it, unless other resources declare it:
    /// this one was renamed, or another stack declares the same. Where there is nothing to delete from, it is done already.
    async fn delete(&self, event: &Json, remaining: Option<Duration>) -> Result<Json, Refusal> {
        let nothing = || Ok(json!({ "status": "applied", "deleted": 0, "errors": [] }));
        let physical = event["PhysicalResourceId"].as_str().unwrap_or_default();
        let unfinished = physical.strip_suffix(UNFINISHED);
        let Some((table, id)) = physical
            .strip_suffix(PHYSICAL)
            .or(unfinished)
            .and_then(|rest| rest.rsplit_once('/'))
        else {
            return nothing();
        };
        self.check_table(&json!(table))?;
        let repo = match self.stack.connect_id(id).await {
            Ok(repo) => repo,
            Err(
                Error::NamespaceIdNotFound(_)
                | Error::NamespaceState { .. }
                | Error::InfrastructureNotFound { .. },
            ) => return nothing(),
            Err(err) => return Err(err.into()),
        };
        let owner = owner(event).unwrap_or_default();
        let owners = repo.admin().limits_owners().await?;
        if let Some(other) = owners.iter().find(|other| **other != owner) {
            self.log.info(
                LOGGER,
                "Limits kept, as another resource declares them",
                &[("resource", json!(owner)), ("other", json!(other))],
            );
            repo.admin().set_limits_owner(&owner, false).await?;
            return nothing();
        }
        let options = ApplyOptions {
            full: false,
            remaining,
        };
        let applied = if unfinished.is_some() {
            let manifest = Manifest::from_properties(&event["ResourceProperties"])?;
            repo.admin().withdraw_limits(&manifest, options).await?
        } else {
            let name = NamespaceName::new(repo.namespace_name()).map_err(Error::from)?;
            repo.admin().apply_limits(&Manifest::empty(name), options).await?
        };
        // Last, so that a deletion that was interrupted is repeated.
        repo.admin().set_limits_owner(&owner, false).await?;
        Ok(applied.to_json())
    }
}

/// The resource: its stack, and its name in the template.
fn owner(event: &Json) -> Option<String> {
    let text = |name: &str| event[name].as_str().filter(|text| !text.is_empty());
    Some(format!("{} {}", text("StackId")?, text("LogicalResourceId")?))
}

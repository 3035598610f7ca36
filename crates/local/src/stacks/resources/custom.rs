//! Custom resources: a function is invoked, and answers at an address of this endpoint.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::properties::{Properties, scalar};
use super::{Made, NotMade, Place};
use crate::stacks::CALLBACK;
use crate::template::scalars_as_text;
use crate::wire::uuid;

/// How long a function may take to answer, unless the resource says otherwise.
const PATIENCE: u64 = 3600;

fn service_token(properties: &Json) -> Result<String, String> {
    scalar(&properties["ServiceToken"]).ok_or_else(|| {
        "a custom resource needs the property ServiceToken: the ARN of the function that makes it".to_owned()
    })
}

/// Its physical id is the function's to choose.
pub(super) fn name(place: &Place<'_>, properties: &Json) -> Result<String, String> {
    reachable(place, &service_token(properties)?)?;
    Ok(place.generated(255))
}

/// Says at once why a function will never answer, rather than after the time it has for that.
fn reachable(place: &Place<'_>, function: &str) -> Result<(), String> {
    let runs = place.services.lambda.check_runs(place.region, function);
    runs.map_err(|err| format!("the function {function} could not be invoked: {}", err.message))
}

pub(super) async fn create(kind: &str, place: &Place<'_>, properties: &Json) -> Result<Made, NotMade> {
    let told = tell(place, kind, "Create", None, properties, None).await;
    told.map_err(|unmade| NotMade::Failed {
        reason: unmade.reason,
        physical: unmade.physical,
    })
}

/// A request that was not answered with success.
#[derive(Debug)]
struct Unmade {
    reason: String,
    /// The physical id in the answer of a failure, which identifies what it left behind.
    physical: Option<String>,
}

impl From<String> for Unmade {
    fn from(reason: String) -> Self {
        Self {
            reason,
            physical: None,
        }
    }
}

pub(super) async fn update(
    kind: &str,
    place: &Place<'_>,
    physical: &str,
    old: &Json,
    new: &Json,
) -> Result<Made, String> {
    let told = tell(place, kind, "Update", Some(physical), new, Some(old)).await;
    told.map_err(|unmade| unmade.reason)
}

pub(super) async fn delete(
    kind: &str,
    place: &Place<'_>,
    physical: &str,
    properties: &Json,
) -> Result<(), String> {
    tell(place, kind, "Delete", Some(physical), properties, None)
        .await
        .map(|_| ())
        .map_err(|unmade| unmade.reason)
}

async fn tell(
    place: &Place<'_>,
    kind: &str,
    request: &str,
    physical: Option<&str>,
    properties: &Json,
    old: Option<&Json>,
) -> Result<Made, Unmade> {
    let function = service_token(properties)?;
    reachable(place, &function)?;
    let known = Properties::new(kind, properties, &all_names(properties))?;
    let patience = known.integer("ServiceTimeout")?.unwrap_or_default();
    let patience = u64::try_from(patience)
        .ok()
        .filter(|seconds| *seconds > 0)
        .unwrap_or(PATIENCE);
    let token = uuid();
    let answer = place.stacks.expect(&token);
    let mut event = json!({
        "RequestType": request,
        "ServiceToken": function,
        "ResponseURL": format!("{}{CALLBACK}{token}", place.services.url),
        "StackId": place.stack_id,
        "RequestId": uuid(),
        "LogicalResourceId": place.logical,
        "ResourceType": kind,
        "ResourceProperties": scalars_as_text(properties),
    });
    if let Some(physical) = physical {
        event["PhysicalResourceId"] = json!(physical);
    }
    if let Some(old) = old {
        event["OldResourceProperties"] = scalars_as_text(old);
    }
    let payload = event.to_string().into();
    let told = place
        .services
        .lambda
        .invoke_event(place.region, &function, payload);
    told.map_err(|err| format!("the function {function} could not be invoked: {err}"))?;
    let answer = tokio::time::timeout(Duration::from_secs(patience), answer)
        .await
        .map_err(|_| format!("the function {function} did not answer within {patience} s"))?
        .map_err(|_| format!("the function {function} will not answer any more"))?;
    let named = answer["PhysicalResourceId"].as_str().filter(|id| !id.is_empty());
    if answer["Status"] != "SUCCESS" {
        let reason = answer["Reason"].as_str().unwrap_or("it gave no reason");
        return Err(Unmade {
            reason: format!(
                "Received response status [FAILED] from custom resource. Message returned: {reason}"
            ),
            physical: named.map(str::to_owned),
        });
    }
    let id = named.or(physical);
    let id = id.ok_or_else(|| "the function's answer has no PhysicalResourceId".to_owned())?;
    let data = answer["Data"].as_object();
    let attributes: BTreeMap<String, Json> = data
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Ok(Made {
        physical: id.to_owned(),
        attributes,
    })
}

/// A custom resource may have any property.
fn all_names(properties: &Json) -> Vec<&str> {
    let map = properties.as_object();
    map.into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

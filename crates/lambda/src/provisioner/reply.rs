//! The answer to CloudFormation: what it says, that it fits, and that it arrives.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value as Json, json};

/// The longest answer that CloudFormation takes, in bytes.
const MOST_BYTES: usize = 4096;

/// How often the answer is sent, and how long each time may take.
const ATTEMPTS: u32 = 3;
const ATTEMPT: Duration = Duration::from_secs(4);

/// The answer to a call: what was done, or the reason why not. Long lists and reasons are cut until it fits.
pub(super) fn answer(event: &Json, physical: &str, outcome: &Result<Json, String>) -> Json {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let mut reason = outcome.as_ref().err().cloned().unwrap_or_else(|| "done".into());
    let mut data = outcome.as_ref().ok().cloned().unwrap_or_else(|| json!({}));
    for (name, count) in [("changes", "change_count"), ("errors", "error_count")] {
        if let Some(length) = data.get(name).and_then(Json::as_array).map(Vec::len) {
            data[count] = json!(length);
        }
    }
    // What a plan shows beside the names would only take their room.
    let changes = data.get_mut("changes").and_then(Json::as_array_mut);
    for change in changes.into_iter().flatten() {
        if let Some(change) = change.as_object_mut() {
            change.remove("old");
            change.remove("new");
        }
    }
    loop {
        let answer = json!({
            "Status": if outcome.is_ok() { "SUCCESS" } else { "FAILED" },
            "Reason": reason,
            "PhysicalResourceId": physical,
            "StackId": text("StackId"),
            "RequestId": text("RequestId"),
            "LogicalResourceId": text("LogicalResourceId"),
            "Data": data,
        });
        if answer.to_string().len() <= MOST_BYTES || !shorten(&mut data, &mut reason) {
            return answer;
        }
    }
}

/// Cuts the longest of what may be cut in half; `false` if nothing is left.
fn shorten(data: &mut Json, reason: &mut String) -> bool {
    for name in ["changes", "errors"] {
        if let Some(list) = data.get_mut(name).and_then(Json::as_array_mut)
            && !list.is_empty()
        {
            list.truncate(list.len() / 2);
            return true;
        }
    }
    let half = reason.chars().count() / 2;
    *reason = reason.chars().take(half).collect();
    half > 0
}

/// Sends the answer to the address that CloudFormation gave, which is signed for an empty content type.
pub(super) async fn put(url: &str, answer: &Json) -> Result<(), String> {
    let mut failure = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        failure = match tokio::time::timeout(ATTEMPT, put_once(url, answer)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(err)) => err,
            Err(_) => "it did not answer".into(),
        };
    }
    Err(failure)
}

async fn put_once(url: &str, answer: &Json) -> Result<(), String> {
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
        let failed = answer(&event(), "failed", &Err("ä".repeat(10_000)));
        assert!(failed.to_string().len() <= MOST_BYTES);
        assert_eq!(failed["Status"], "FAILED");
        assert_eq!(failed["PhysicalResourceId"], "failed");
        assert_eq!(failed["LogicalResourceId"], "TenantLimits");
        let change = json!({ "action": "create", "level": "entity", "target": "user/gpt-4", "old": null });
        let data = json!({
            "created": 5000, "changes": vec![change; 5000], "errors": vec!["x".repeat(90); 300],
        });
        let done = answer(&event(), "t/n/limits-provisioner", &Ok(data));
        assert!(done.to_string().len() <= MOST_BYTES);
        assert_eq!(done["Status"], "SUCCESS");
        assert_eq!(done["PhysicalResourceId"], "t/n/limits-provisioner");
        let data = &done["Data"];
        assert_eq!(
            (&data["created"], &data["change_count"]),
            (&json!(5000), &json!(5000))
        );
        assert_eq!(data["error_count"], json!(300));
        assert!(!data["errors"].as_array().unwrap().is_empty());
    }
}

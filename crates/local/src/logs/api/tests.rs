//! Operations, one after another.

use std::borrow::Borrow;

use super::*;
use crate::clock;
use crate::logs::LogLine;
use crate::store::Store;

fn call(logs: &Logs, operation: &str, body: impl Borrow<Json>) -> Result<Json, Refusal> {
    Call {
        logs,
        region: "us-east-1",
        body: body.borrow(),
    }
    .answer(operation)
}

fn messages(answer: &Json) -> Vec<String> {
    let events = answer["events"].as_array().unwrap().iter();
    events
        .map(|event| event["message"].as_str().unwrap().to_owned())
        .collect()
}

fn filled() -> Logs {
    let logs = Logs::new(Store::memory().unwrap());
    let now = clock::now_ms() - 1000;
    for (number, stream) in (0_i64..).zip(["a", "b", "a", "a", "b"]) {
        let line = LogLine {
            at_ms: now + number / 2,
            message: format!("line {number}"),
        };
        logs.append("us-east-1", "/g", stream, &[line]).unwrap();
    }
    logs
}

#[test]
fn a_stream_is_read_in_both_directions() {
    let logs = filled();
    let get = |extra: Json| {
        let mut body = json!({"logGroupName": "/g", "logStreamName": "a", "limit": 2});
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        call(&logs, "GetLogEvents", body).unwrap()
    };
    let newest = get(json!({}));
    assert_eq!(messages(&newest), ["line 2", "line 3"]);
    let older = get(json!({"nextToken": newest["nextBackwardToken"]}));
    assert_eq!(messages(&older), ["line 0"]);
    let none = get(json!({"nextToken": older["nextBackwardToken"]}));
    assert!(messages(&none).is_empty());
    assert_eq!(none["nextBackwardToken"], older["nextBackwardToken"]);
    assert_eq!(
        messages(&get(json!({"nextToken": none["nextForwardToken"]}))),
        ["line 0", "line 2"]
    );
    let head = get(json!({"startFromHead": true}));
    assert_eq!(messages(&head), ["line 0", "line 2"]);
    let rest = get(json!({"nextToken": head["nextForwardToken"]}));
    assert_eq!(messages(&rest), ["line 3"]);
    // At the end the token stays, and shows what comes later.
    let end = get(json!({"nextToken": rest["nextForwardToken"]}));
    assert_eq!(end["nextForwardToken"], rest["nextForwardToken"]);
    let line = LogLine {
        at_ms: clock::now_ms(),
        message: "later".into(),
    };
    logs.append("us-east-1", "/g", "a", &[line]).unwrap();
    assert_eq!(
        messages(&get(json!({"nextToken": end["nextForwardToken"]}))),
        ["later"]
    );
}

#[test]
fn a_group_is_filtered_page_by_page() {
    let logs = filled();
    let filter = |body: Json| call(&logs, "FilterLogEvents", body);
    let all =
        filter(json!({"logGroupIdentifier": "arn:aws:logs:us-east-1:000000000000:log-group:/g:*"})).unwrap();
    assert_eq!(messages(&all).len(), 5);
    assert!(all["nextToken"].is_null());
    let mut body = json!({"logGroupName": "/g", "limit": 2});
    let mut found = Vec::new();
    loop {
        let page = filter(body.clone()).unwrap();
        found.extend(messages(&page));
        match &page["nextToken"] {
            Json::Null => break,
            token => body["nextToken"] = token.clone(),
        }
    }
    assert_eq!(found, messages(&all));
    let of = |extra: Json| messages(&filter(extra).unwrap());
    assert_eq!(
        of(json!({"logGroupName": "/g", "filterPattern": "3"})),
        ["line 3"]
    );
    assert_eq!(
        of(json!({"logGroupName": "/g", "logStreamNamePrefix": "b"})),
        ["line 1", "line 4"]
    );
    let start = all["events"][2]["timestamp"].clone();
    let only = json!({"logGroupName": "/g", "startTime": start, "endTime": start});
    assert_eq!(of(only), ["line 2", "line 3"]);
    let missing = filter(json!({"logGroupName": "/g", "logStreamNames": ["zz"]}));
    assert_eq!(missing.unwrap_err().code, "ResourceNotFoundException");
    assert_eq!(
        filter(json!({"logGroupName": "/other"})).unwrap_err().code,
        "ResourceNotFoundException"
    );
}

#[test]
fn groups_are_kept_in_bounds() {
    let logs = Logs::new(Store::memory().unwrap());
    let now = clock::now_ms();
    let lines: Vec<LogLine> = (0..super::super::MOST + 10)
        .map(|number| LogLine {
            at_ms: now,
            message: number.to_string(),
        })
        .collect();
    logs.append("us-east-1", "/g", "s", &lines).unwrap();
    let head = json!({"logGroupName": "/g", "logStreamName": "s", "startFromHead": true, "limit": 1});
    assert_eq!(messages(&call(&logs, "GetLogEvents", head).unwrap()), ["10"]);
    let old = LogLine {
        at_ms: now - 3 * 86_400_000,
        message: "old".into(),
    };
    logs.append("us-east-1", "/old", "s", &[old]).unwrap();
    let all = json!({"logGroupName": "/old"});
    assert_eq!(
        messages(&call(&logs, "FilterLogEvents", all.clone()).unwrap()),
        ["old"]
    );
    call(
        &logs,
        "PutRetentionPolicy",
        json!({"logGroupName": "/old", "retentionInDays": 1}),
    )
    .unwrap();
    assert!(messages(&call(&logs, "FilterLogEvents", all).unwrap()).is_empty());
    let odd = json!({"logGroupName": "/old", "retentionInDays": 2});
    assert_eq!(
        call(&logs, "PutRetentionPolicy", odd).unwrap_err().code,
        "InvalidParameterException"
    );
}

#[test]
fn groups_and_streams_come_and_go() {
    let logs = Logs::new(Store::memory().unwrap());
    call(
        &logs,
        "CreateLogGroup",
        json!({"logGroupName": "/g", "tags": {"a": "1"}}),
    )
    .unwrap();
    let again = call(&logs, "CreateLogGroup", json!({"logGroupName": "/g"}));
    assert_eq!(again.unwrap_err().code, "ResourceAlreadyExistsException");
    assert_eq!(
        call(&logs, "CreateLogGroup", json!({"logGroupName": "a:b"}))
            .unwrap_err()
            .status,
        400
    );
    let stream = json!({"logGroupName": "/g", "logStreamName": "s/[1]"});
    assert_eq!(
        call(&logs, "GetLogEvents", stream).unwrap_err().code,
        "ResourceNotFoundException"
    );
    let now = clock::now_ms();
    let line = LogLine {
        at_ms: now,
        message: "m".into(),
    };
    logs.append("us-east-1", "/g", "s/[1]", &[line]).unwrap();
    let shown = call(
        &logs,
        "DescribeLogStreams",
        json!({"logGroupName": "/g", "orderBy": "LastEventTime"}),
    )
    .unwrap();
    assert_eq!(shown["logStreams"][0]["lastEventTimestamp"], now);
    let groups = call(&logs, "DescribeLogGroups", json!({"logGroupNamePrefix": "/"})).unwrap();
    assert_eq!(groups["logGroups"][0]["storedBytes"], 1);
    call(&logs, "DeleteLogGroup", json!({"logGroupName": "/g"})).unwrap();
    assert_eq!(
        call(&logs, "DescribeLogGroups", json!({})).unwrap(),
        json!({"logGroups": []})
    );
    for unsupported in ["PutLogEvents", "StartQuery", "TagResource"] {
        let refusal = call(&logs, unsupported, json!({})).unwrap_err();
        assert_eq!(refusal.status, 501, "{unsupported}");
    }
}

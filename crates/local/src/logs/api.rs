//! The operations of CloudWatch Logs as requests ask for them.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::events::{Event, From, Place, Span};
use super::pattern::Pattern;
use super::{Logs, group_arn, invalid, missing};
use crate::wire::{Refusal, Reply, Request};

/// The most events in an answer.
const MOST: usize = 10_000;

/// The most groups or streams on a page.
const PAGE: usize = 50;

impl Logs {
    /// Serves a request.
    pub fn serve(&self, request: &Request) -> Reply {
        let target = request.header("x-amz-target").unwrap_or_default();
        let operation = target.rsplit_once('.').map_or(target, |(_, operation)| operation);
        let answer = request.json().and_then(|body| {
            let region = request.region();
            Call {
                logs: self,
                region: &region,
                body: &body,
            }
            .answer(operation)
        });
        match answer {
            Ok(body) => Reply::amz_json(&body),
            Err(refusal) => refusal.amz_json(),
        }
    }
}

/// A request, taken apart.
struct Call<'a> {
    logs: &'a Logs,
    region: &'a str,
    body: &'a Json,
}

impl Call<'_> {
    fn answer(&self, operation: &str) -> Result<Json, Refusal> {
        let empty = |()| json!({});
        match operation {
            "CreateLogGroup" => self.create_group().map(empty),
            "DeleteLogGroup" => self
                .logs
                .delete_group(self.region, self.need("logGroupName")?)
                .map(empty),
            "DescribeLogGroups" => self.describe_groups(),
            "PutRetentionPolicy" => {
                let days = self.number("retentionInDays")?;
                let days =
                    days.ok_or_else(|| invalid(&"retentionInDays is missing; give it a number of days"))?;
                let days =
                    u32::try_from(days).map_err(|err| invalid(&format!("retentionInDays {days}: {err}")))?;
                self.logs
                    .set_retention(self.region, self.need("logGroupName")?, Some(days))
                    .map(empty)
            }
            "DeleteRetentionPolicy" => {
                let group = self.need("logGroupName")?;
                self.logs.set_retention(self.region, group, None).map(empty)
            }
            "DescribeLogStreams" => self.describe_streams(),
            "GetLogEvents" => self.get_events(),
            "FilterLogEvents" => self.filter_events(),
            other => Err(Refusal::unsupported("CloudWatch Logs", other)),
        }
    }

    fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match &self.body[name] {
            Json::Null => Ok(None),
            Json::String(text) => Ok(Some(text)),
            other => Err(invalid(&format!("{name} must be a text, not {other}"))),
        }
    }

    fn need(&self, name: &str) -> Result<&str, Refusal> {
        self.text(name)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| invalid(&format!("{name} is missing; give it a value")))
    }

    fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        match &self.body[name] {
            Json::Null => Ok(None),
            value => value
                .as_i64()
                .map(Some)
                .ok_or_else(|| invalid(&format!("{name} must be a whole number, not {value}"))),
        }
    }

    fn flag(&self, name: &str) -> bool {
        self.body[name] == true
    }

    /// How much to answer with: 1 to `most`.
    fn limit(&self, most: usize) -> Result<usize, Refusal> {
        match self.number("limit")? {
            None => Ok(most),
            Some(limit) => usize::try_from(limit)
                .ok()
                .filter(|limit| (1..=most).contains(limit))
                .ok_or_else(|| invalid(&format!("limit must be 1 to {most}, not {limit}"))),
        }
    }

    /// The group that a request is about, by its name or its ARN.
    fn group(&self) -> Result<&str, Refusal> {
        let name = match self.text("logGroupIdentifier")? {
            Some(identifier) => name_of(identifier),
            None => self.need("logGroupName")?,
        };
        let group = self.logs.need_group(self.region, name)?;
        self.logs.expire(self.region, &group)?;
        Ok(name)
    }

    fn tags(&self) -> Result<BTreeMap<String, String>, Refusal> {
        match &self.body["tags"] {
            Json::Null => Ok(BTreeMap::new()),
            tags => serde_json::from_value(tags.clone()).map_err(|err| invalid(&format!("tags: {err}"))),
        }
    }

    fn create_group(&self) -> Result<(), Refusal> {
        if let Some(class) = self.text("logGroupClass")?.filter(|class| *class != "STANDARD") {
            return Err(Refusal::unsupported(
                "CloudWatch Logs",
                &format!("CreateLogGroup of class {class}"),
            ));
        }
        if self.text("kmsKeyId")?.is_some() {
            return Err(Refusal::unsupported(
                "CloudWatch Logs",
                "CreateLogGroup with kmsKeyId",
            ));
        }
        let name = self.need("logGroupName")?;
        self.logs
            .create_group(self.region, name, self.tags()?)
            .map(|_| ())
    }

    fn describe_groups(&self) -> Result<Json, Refusal> {
        let prefix = self.text("logGroupNamePrefix")?.unwrap_or_default();
        let pattern = self
            .text("logGroupNamePattern")?
            .unwrap_or_default()
            .to_lowercase();
        let after = self.text("nextToken")?;
        let limit = self.limit(PAGE)?;
        let mut found = self.logs.groups(self.region)?;
        found.retain(|group| {
            group.name.starts_with(prefix)
                && group.name.to_lowercase().contains(&pattern)
                && after.is_none_or(|after| *group.name > *after)
        });
        let more = found.len() > limit;
        found.truncate(limit);
        let mut groups = Vec::new();
        for group in &found {
            self.logs.expire(self.region, group)?;
            let arn = group_arn(self.region, &group.name);
            let mut shown = json!({
                "logGroupName": group.name,
                "creationTime": group.created_ms,
                "metricFilterCount": 0,
                "arn": format!("{arn}:*"),
                "logGroupArn": arn,
                "logGroupClass": "STANDARD",
                "storedBytes": self.logs.bytes(self.region, &group.name)?,
            });
            if let Some(days) = group.retention_days {
                shown["retentionInDays"] = days.into();
            }
            groups.push(shown);
        }
        let mut answer = json!({"logGroups": groups});
        if let Some(last) = found.last().filter(|_| more) {
            answer["nextToken"] = last.name.clone().into();
        }
        Ok(answer)
    }

    /// The stream that a request is about, which must be there.
    fn need_stream(&self) -> Result<&str, Refusal> {
        let (group, stream) = (self.group()?, self.need("logStreamName")?);
        match self.logs.stream(self.region, group, stream)? {
            Some(_) => Ok(stream),
            None => Err(missing("log stream", stream)),
        }
    }

    fn describe_streams(&self) -> Result<Json, Refusal> {
        let group = self.group()?;
        let prefix = self.text("logStreamNamePrefix")?.unwrap_or_default();
        let by_time = match self.text("orderBy")? {
            None | Some("LogStreamName") => false,
            Some("LastEventTime") if prefix.is_empty() => true,
            Some("LastEventTime") => {
                return Err(invalid(
                    &"Cannot order by LastEventTime with a logStreamNamePrefix.",
                ));
            }
            Some(other) => {
                return Err(invalid(&format!(
                    "orderBy must be LogStreamName or LastEventTime, not {other}"
                )));
            }
        };
        let skipped = match self.text("nextToken")? {
            None => 0,
            Some(token) => token
                .parse()
                .map_err(|_| invalid(&format!("The specified nextToken is invalid: {token}")))?,
        };
        let limit = self.limit(PAGE)?;
        let mut found = Vec::new();
        for (_, stream) in self.logs.streams(self.region, group)? {
            if stream.name.starts_with(prefix) {
                let extent = self.logs.extent(self.region, group, &stream.name)?;
                found.push((stream, extent));
            }
        }
        if by_time {
            found.sort_by_key(|(_, extent)| extent.map(|(_, last, _)| last));
        }
        if self.flag("descending") {
            found.reverse();
        }
        let more = found.len().saturating_sub(skipped) > limit;
        let streams: Vec<Json> = found
            .iter()
            .skip(skipped)
            .take(limit)
            .map(|(stream, extent)| {
                let mut shown = json!({
                    "logStreamName": stream.name,
                    "creationTime": stream.created_ms,
                    "arn": format!("{}:log-stream:{}", group_arn(self.region, group), stream.name),
                    "storedBytes": 0,
                });
                if let Some((first, last, ingested)) = extent {
                    shown["firstEventTimestamp"] = (*first).into();
                    shown["lastEventTimestamp"] = (*last).into();
                    shown["lastIngestionTime"] = (*ingested).into();
                    shown["uploadSequenceToken"] = format!("{ingested}").into();
                }
                shown
            })
            .collect();
        let mut answer = json!({"logStreams": streams});
        if more {
            answer["nextToken"] = (skipped + limit).to_string().into();
        }
        Ok(answer)
    }

    /// The times that a request asks for; `last` is whether the end itself belongs to them.
    fn span(&self, last: bool) -> Result<Span, Refusal> {
        let end = self.number("endTime")?.unwrap_or(i64::MAX);
        Ok(Span {
            start: self.number("startTime")?.unwrap_or(0),
            end: if last { end.saturating_add(1) } else { end },
        })
    }

    fn get_events(&self) -> Result<Json, Refusal> {
        let (group, stream) = (self.group()?, self.need_stream()?);
        let token = self.text("nextToken")?;
        let from = match token {
            Some(token) => read_token(token)?,
            None if self.flag("startFromHead") => From::After((i64::MIN, i64::MIN)),
            None => From::Before((i64::MAX, i64::MAX)),
        };
        let found = self.logs.stream_events(
            self.region,
            group,
            stream,
            self.span(false)?,
            from,
            self.limit(MOST)?,
        )?;
        // Where nothing is, one stays.
        let here = match from {
            From::After(place) | From::Before(place) => place,
        };
        let first = found.first().map_or(here, Event::place);
        let last = found.last().map_or(here, Event::place);
        let (back, forward) = match (found.is_empty(), from) {
            // What comes after a place begins with what is at it.
            (true, From::Before((at, id))) => (here, (at, id.saturating_sub(1))),
            (true, From::After((at, id))) => ((at, id.saturating_add(1)), here),
            _ => (first, last),
        };
        let events: Vec<Json> = found
            .iter()
            .map(|event| json!({"timestamp": event.at, "message": event.message, "ingestionTime": event.ingested}))
            .collect();
        Ok(json!({
            "events": events,
            "nextForwardToken": format!("f/{}/{}", forward.0, forward.1),
            "nextBackwardToken": format!("b/{}/{}", back.0, back.1),
        }))
    }

    fn filter_events(&self) -> Result<Json, Refusal> {
        let group = self.group()?;
        let prefix = self.text("logStreamNamePrefix")?;
        let names: Option<Vec<String>> = match &self.body["logStreamNames"] {
            Json::Null => None,
            names => serde_json::from_value(names.clone())
                .map_err(|err| invalid(&format!("logStreamNames: {err}")))?,
        };
        if prefix.is_some() && names.is_some() {
            return Err(invalid(
                &"Cannot specify both logStreamNames and logStreamNamePrefix.",
            ));
        }
        for name in names.iter().flatten() {
            if self.logs.stream(self.region, group, name)?.is_none() {
                return Err(missing("log stream", name));
            }
        }
        let pattern = Pattern::read(self.text("filterPattern")?.unwrap_or_default())?;
        let after = match self.text("nextToken")? {
            None => (i64::MIN, i64::MIN),
            Some(token) => match read_token(token)? {
                From::After(place) => place,
                From::Before(_) => return Err(bad_token(token)),
            },
        };
        let wanted = |stream: &str| {
            prefix.is_none_or(|prefix| stream.starts_with(prefix))
                && names
                    .as_ref()
                    .is_none_or(|names| names.iter().any(|name| name == stream))
        };
        let (span, limit) = (self.span(true)?, self.limit(MOST)?);
        let found = self
            .logs
            .group_events(self.region, group, span, after, limit, wanted, &pattern)?;
        let events: Vec<Json> = found
            .events
            .iter()
            .map(|event| {
                json!({
                    "logStreamName": event.stream, "timestamp": event.at, "message": event.message,
                    "ingestionTime": event.ingested, "eventId": format!("{:056}", event.id),
                })
            })
            .collect();
        let mut answer = json!({"events": events, "searchedLogStreams": []});
        if let Some((at, id)) = found.next {
            answer["nextToken"] = format!("f/{at}/{id}").into();
        }
        Ok(answer)
    }
}

/// The name in a group's name or ARN.
fn name_of(identifier: &str) -> &str {
    let name = identifier
        .split_once(":log-group:")
        .map_or(identifier, |(_, name)| name);
    name.strip_suffix(":*").unwrap_or(name)
}

fn read_token(token: &str) -> Result<From, Refusal> {
    let mut parts = token.split('/');
    let direction = parts.next();
    let mut number = || parts.next().and_then(|part| part.parse().ok());
    let place: Option<Place> = number().zip(number());
    match (direction, place) {
        (Some("f"), Some(place)) => Ok(From::After(place)),
        (Some("b"), Some(place)) => Ok(From::Before(place)),
        _ => Err(bad_token(token)),
    }
}

fn bad_token(token: &str) -> Refusal {
    invalid(&format!("The specified nextToken is invalid: {token}"))
}

#[cfg(test)]
mod tests;

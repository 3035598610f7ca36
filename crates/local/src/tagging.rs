//! The tagging service: which resources carry which tags.
//!
//! It stores nothing: services list their resources.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::wire::{Refusal, Reply, Request};

/// The most resources on a page.
const MOST: usize = 100;

/// A resource and its tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedResource {
    /// Its ARN.
    pub arn: String,
    /// Its tags; resources without tags are not listed.
    pub tags: BTreeMap<String, String>,
}

/// A service whose resources may be tagged.
pub trait Tagged: fmt::Debug + Send + Sync {
    /// Its resources in a region.
    ///
    /// # Errors
    /// If its records cannot be read.
    fn resources(&self, region: &str) -> Result<Vec<TaggedResource>, Refusal>;
}

/// The tagging service. Clones share what it asks.
#[derive(Debug, Clone, Default)]
pub struct Tagging {
    services: Arc<RwLock<Vec<Arc<dyn Tagged>>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Query {
    pagination_token: String,
    tag_filters: Vec<TagFilter>,
    resources_per_page: Option<usize>,
    resource_type_filters: Vec<String>,
    #[serde(rename = "ResourceARNList")]
    arns: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct TagFilter {
    key: String,
    values: Vec<String>,
}

impl Tagging {
    /// Adds a service to those that are asked.
    pub fn add(&self, service: Arc<dyn Tagged>) {
        let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
        services.push(service);
    }

    /// Serves a request.
    pub fn serve(&self, request: &Request) -> Reply {
        let target = request.header("x-amz-target").unwrap_or_default();
        let operation = target.rsplit_once('.').map_or(target, |(_, operation)| operation);
        let answer = match operation {
            "GetResources" => self.get_resources(request),
            other => Err(Refusal::unsupported("the tagging service", other)),
        };
        match answer {
            Ok(body) => Reply::amz_json(&body),
            Err(refusal) => refusal.amz_json(),
        }
    }

    /// All tagged resources of a region, by ARN.
    fn all(&self, region: &str) -> Result<Vec<TaggedResource>, Refusal> {
        let services = self
            .services
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut found = Vec::new();
        for service in services {
            found.extend(service.resources(region)?);
        }
        found.retain(|resource| !resource.tags.is_empty());
        found.sort_by(|a, b| a.arn.cmp(&b.arn));
        Ok(found)
    }

    fn get_resources(&self, request: &Request) -> Result<Json, Refusal> {
        let body = request.json()?;
        if body["IncludeComplianceDetails"] == true || body["ExcludeCompliantResources"] == true {
            return Err(Refusal::unsupported(
                "the tagging service",
                "GetResources with compliance",
            ));
        }
        if !body["TagsPerPage"].is_null() {
            return Err(Refusal::unsupported(
                "the tagging service",
                "GetResources with TagsPerPage",
            ));
        }
        let query: Query = serde_json::from_value(body).map_err(|err| invalid(&err))?;
        let limit = query.resources_per_page.unwrap_or(MOST);
        if !(1..=MOST).contains(&limit) {
            return Err(invalid(&format!(
                "ResourcesPerPage must be 1 to {MOST}, not {limit}"
            )));
        }
        let filtered = !query.tag_filters.is_empty() || !query.resource_type_filters.is_empty();
        if filtered && !query.arns.is_empty() {
            return Err(invalid(&"ResourceARNList goes with no other filter"));
        }
        let mut found = self.all(&request.region())?;
        found.retain(|resource| query.wants(resource));
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map_or("", |last| last.arn.as_str());
        let list: Vec<Json> = found
            .iter()
            .map(|resource| {
                let tags = resource.tags.iter();
                let tags: Vec<Json> = tags
                    .map(|(key, value)| json!({"Key": key, "Value": value}))
                    .collect();
                json!({"ResourceARN": resource.arn, "Tags": tags})
            })
            .collect();
        Ok(json!({"PaginationToken": next, "ResourceTagMappingList": list}))
    }
}

impl Query {
    fn wants(&self, resource: &TaggedResource) -> bool {
        let types = &self.resource_type_filters;
        resource.arn > self.pagination_token
            && (self.arns.is_empty() || self.arns.contains(&resource.arn))
            && (types.is_empty() || types.iter().any(|kind| is_of_type(&resource.arn, kind)))
            && self.tag_filters.iter().all(|filter| {
                let value = resource.tags.get(&filter.key);
                value.is_some_and(|value| filter.values.is_empty() || filter.values.contains(value))
            })
    }
}

/// Whether an ARN is of a type such as `lambda` or `cloudformation:stack`.
fn is_of_type(arn: &str, filter: &str) -> bool {
    let mut parts = arn.splitn(6, ':').skip(2);
    let service = parts.next().unwrap_or_default();
    let resource = parts.nth(2).unwrap_or_default();
    match filter.split_once(':') {
        None => service == filter,
        // The ARNs of these name no type.
        Some(("s3", "bucket") | ("sqs", "queue")) => filter.starts_with(service),
        Some((of, kind)) => service == of && resource.split(['/', ':']).next() == Some(kind),
    }
}

fn invalid(why: &dyn fmt::Display) -> Refusal {
    Refusal::new("InvalidParameterException", why.to_string())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::header::{HeaderMap, HeaderValue};

    use super::*;

    #[derive(Debug)]
    struct Few;

    impl Tagged for Few {
        fn resources(&self, region: &str) -> Result<Vec<TaggedResource>, Refusal> {
            let resource = |arn: &str, tags: &[(&str, &str)]| TaggedResource {
                arn: arn.into(),
                tags: tags.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            };
            Ok(vec![
                resource(
                    &format!("arn:aws:cloudformation:{region}:000000000000:stack/app/1"),
                    &[("ManagedBy", "zae-limiter"), ("n", "1")],
                ),
                resource(
                    "arn:aws:lambda:us-east-1:000000000000:function:app",
                    &[("ManagedBy", "x")],
                ),
                resource("arn:aws:sqs:us-east-1:000000000000:queue", &[("n", "2")]),
                resource("arn:aws:s3:::bucket", &[]),
            ])
        }
    }

    fn asked(operation: &str, body: &Json) -> Json {
        let tagging = Tagging::default();
        tagging.add(Arc::new(Few));
        let mut headers = HeaderMap::new();
        let target = format!("ResourceGroupsTaggingAPI_20170126.{operation}");
        headers.insert("x-amz-target", HeaderValue::from_str(&target).unwrap());
        let reply = tagging.serve(&Request {
            method: hyper::Method::POST,
            path: "/".into(),
            query: String::new(),
            headers,
            body: Bytes::from(body.to_string()),
        });
        serde_json::from_slice(&reply.body).unwrap()
    }

    fn services(body: &Json) -> Vec<String> {
        let answer = asked("GetResources", body);
        let list = answer["ResourceTagMappingList"].as_array().unwrap().iter();
        list.map(|one| {
            one["ResourceARN"]
                .as_str()
                .unwrap()
                .split(':')
                .nth(2)
                .unwrap()
                .to_owned()
        })
        .collect()
    }

    #[test]
    fn resources_are_found_by_type_and_tag() {
        assert_eq!(services(&json!({})), ["cloudformation", "lambda", "sqs"]);
        assert_eq!(
            services(&json!({"ResourceTypeFilters": ["cloudformation:stack"]})),
            ["cloudformation"]
        );
        assert_eq!(
            services(&json!({"ResourceTypeFilters": ["lambda", "sqs:queue"]})),
            ["lambda", "sqs"]
        );
        assert!(services(&json!({"ResourceTypeFilters": ["lambda:layer"]})).is_empty());
        let managed = json!({"TagFilters": [{"Key": "ManagedBy", "Values": ["zae-limiter", "y"]}]});
        assert_eq!(services(&managed), ["cloudformation"]);
        let both = json!({"TagFilters": [{"Key": "ManagedBy"}, {"Key": "n", "Values": []}]});
        assert_eq!(services(&both), ["cloudformation"]);
    }

    #[test]
    fn pages_lead_on() {
        let first = asked("GetResources", &json!({"ResourcesPerPage": 2}));
        assert_eq!(first["ResourceTagMappingList"].as_array().unwrap().len(), 2);
        let rest = services(&json!({"ResourcesPerPage": 2, "PaginationToken": first["PaginationToken"]}));
        assert_eq!(rest, ["sqs"]);
        assert_eq!(asked("GetResources", &json!({}))["PaginationToken"], "");
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        assert_eq!(
            asked("GetResources", &json!({"ResourcesPerPage": 0}))["__type"],
            "InvalidParameterException"
        );
        for unsupported in ["GetTagKeys", "TagResources"] {
            assert_eq!(asked(unsupported, &json!({}))["__type"], "NotImplemented");
        }
    }
}

//! Everything behind the endpoint's port, and which service a request is for.

use std::path::PathBuf;

use hyper::StatusCode;
use serde_json::json;

use crate::identity;
use crate::store::Store;
use crate::tables::Tables;
use crate::wire::{Form, Refusal, Reply, Request};

/// The paths that tell whether the endpoint is well; the second is LocalStack's, which scripts look at.
pub const HEALTH: [&str; 2] = ["/_zae-limiter/health", "/_localstack/health"];

/// The services, as health names them.
pub const SERVICES: [&str; 10] = [
    "cloudformation",
    "dynamodb",
    "dynamodbstreams",
    "iam",
    "lambda",
    "logs",
    "resourcegroupstaggingapi",
    "s3",
    "sqs",
    "sts",
];

/// What the services share.
#[derive(Debug)]
pub struct World {
    /// The tables.
    pub tables: Tables,
    /// The records of everything else.
    pub store: Store,
    /// The directory for objects and unpacked code.
    pub files: PathBuf,
    /// The address that functions and stacks are told, such as `http://127.0.0.1:4566`.
    pub url: String,
}

impl World {
    /// Serves a request.
    pub async fn serve(&self, request: Request) -> Reply {
        if HEALTH.contains(&request.path.as_str()) {
            return Self::health();
        }
        if let Some(target) = request.header("x-amz-target") {
            let service = target.split('.').next().unwrap_or_default();
            return match service {
                "DynamoDB_20120810" | "DynamoDBStreams_20120810" => self.tables.serve(request).await,
                _ => Refusal::unsupported("AWS", target).amz_json(),
            };
        }
        let scope = request.scope().map(|(_, service)| service).unwrap_or_default();
        if scope == "sts" {
            return identity::serve(&request);
        }
        let action = Form::read(&request).get("Action").map(str::to_owned);
        let operation = action.unwrap_or_else(|| format!("{} {}", request.method, request.path));
        Refusal::unsupported(&scope, &operation).query_xml("")
    }

    fn health() -> Reply {
        let services: serde_json::Map<String, serde_json::Value> = SERVICES
            .iter()
            .map(|service| ((*service).to_owned(), json!("running")))
            .collect();
        let body = json!({
            "services": services,
            "edition": "zae-limiter",
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
        });
        Reply::rest_json(StatusCode::OK, &body)
    }
}

//! Everything behind the endpoint's port, and which service a request is for.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::header::CONTENT_TYPE;
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::identity;
use crate::lambda::{Lambda, Python};
use crate::s3;
use crate::services::Services;
use crate::stacks::{self, CALLBACK, Stacks};
use crate::store::Store;
use crate::tables::Tables;
use crate::tagging::Tagging;
use crate::wire::{Form, Refusal, Reply, Request};

/// The paths of the health check; the second is LocalStack's, which scripts use.
pub const HEALTH: [&str; 2] = ["/_zae-limiter/health", "/_localstack/health"];

/// The path at which `DELETE` deletes the items whose time has come, and says how many there were. LocalStack has it, too.
const EXPIRED: &str = "/_aws/dynamodb/expired";

/// The services, as health names them.
pub const SERVICES: [&str; 9] = [
    "cloudformation",
    "dynamodb",
    "dynamodbstreams",
    "lambda",
    "logs",
    "resourcegroupstaggingapi",
    "s3",
    "sqs",
    "sts",
];

/// The services, and what is said of all of them.
#[derive(Debug)]
pub struct World {
    /// The services beneath the stacks.
    pub services: Services,
    /// The stacks.
    pub stacks: Arc<Stacks>,
    /// Resources and their tags.
    pub tagging: Tagging,
}

impl World {
    /// Everything, of tables, records, a directory for files, the endpoint's own address and an interpreter for functions in
    /// Python.
    ///
    /// # Errors
    /// If the directory or the records cannot be used.
    pub fn new(
        tables: Tables,
        store: Store,
        files: PathBuf,
        url: String,
        python: Python,
    ) -> Result<Self, Refusal> {
        let services = Services::open(tables, &store, files, url, python)?;
        let stacks = Arc::new(Stacks::new(store, services.clone()));
        let tagging = Tagging::default();
        tagging.add(Arc::new(services.s3.clone()));
        tagging.add(Arc::new(services.queues.clone()));
        tagging.add(Arc::new(services.logs.clone()));
        tagging.add(Arc::new(services.lambda.clone()));
        tagging.add(Arc::new(services.tables.clone()));
        tagging.add(Arc::<Stacks>::clone(&stacks));
        Ok(Self {
            services,
            stacks,
            tagging,
        })
    }

    /// Ends the functions and what feeds them.
    pub async fn close(&self) {
        self.services.lambda.stop().await;
    }

    /// Serves a request.
    pub async fn serve(&self, request: Request) -> Reply {
        if HEALTH.contains(&request.path.as_str()) {
            return Self::health();
        }
        if request.path == EXPIRED && request.method == Method::DELETE {
            return self.delete_expired().await;
        }
        if let Some(token) = request.path.strip_prefix(CALLBACK) {
            return self.stacks.answered(token, &request);
        }
        if let Some(target) = request.header("x-amz-target") {
            let service = target.split('.').next().unwrap_or_default();
            return match service {
                "DynamoDB_20120810" | "DynamoDBStreams_20120810" => self.services.tables.serve(request).await,
                "AmazonSQS" => self.services.queues.serve(request).await,
                "Logs_20140328" => self.services.logs.serve(&request),
                "ResourceGroupsTaggingAPI_20170126" => self.tagging.serve(&request),
                _ => Refusal::unsupported("AWS", target).amz_json(),
            };
        }
        let scope = request.scope().map(|(_, service)| service).unwrap_or_default();
        match scope.as_str() {
            "cloudformation" => return stacks::serve(&self.stacks, &request).await,
            "lambda" => return self.services.lambda.serve(request).await,
            "sts" => return identity::serve(&request),
            "sqs" => return self.services.queues.serve(request).await,
            "s3" => return self.services.s3.serve(request).await,
            _ => {}
        }
        let action = action_of(&request);
        if scope.is_empty() && action.is_none() {
            // Unsigned: what fits no other service is an object's address.
            if Lambda::serves(&request.path) {
                return self.services.lambda.serve(request).await;
            }
            return self.services.s3.serve(request).await;
        }
        let operation = action.unwrap_or_else(|| format!("{} {}", request.method, request.path));
        Refusal::unsupported(if scope.is_empty() { "AWS" } else { &scope }, &operation).query_xml("")
    }

    async fn delete_expired(&self) -> Reply {
        match self.services.tables.sweep().await {
            Ok(count) => Reply::rest_json(StatusCode::OK, &json!({ "ExpiredItems": count })),
            Err(refusal) => refusal.amz_json(),
        }
    }

    /// Whether a request is for something that continues until a function ends.
    pub fn is_invocation(request: &Request) -> bool {
        request.path.ends_with("/invocations") && Lambda::serves(&request.path)
    }

    /// A refusal of a request that was not read to its end, as the service that it was for says it.
    pub fn unread(request: &Request, refusal: &Refusal) -> Reply {
        if request.headers.contains_key("x-amz-target") {
            return refusal.amz_json();
        }
        let scope = request.scope().map(|(_, service)| service).unwrap_or_default();
        match scope.as_str() {
            "s3" => s3::refused(refusal, request),
            "cloudformation" | "sqs" | "sts" => refusal.query_xml(""),
            "" if !Lambda::serves(&request.path) && action_of(request).is_none() => {
                s3::refused(refusal, request)
            }
            _ => refusal.rest_json(),
        }
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

/// The action of a query protocol's request. Other bodies may be large and are not looked at.
fn action_of(request: &Request) -> Option<String> {
    let is_form = request
        .header(CONTENT_TYPE.as_str())
        .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    let action = if is_form {
        Form::read(request).get("Action").map(str::to_owned)
    } else {
        request.query("Action")
    };
    action.filter(|action| !action.is_empty())
}

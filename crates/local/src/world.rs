//! Everything behind the endpoint's port, and which service a request is for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use serde_json::json;

use crate::identity;
use crate::lambda::{Lambda, Pace, Services, Setup};
use crate::logs::{LogLine, Logs};
use crate::queues::Queues;
use crate::s3::{self, S3};
use crate::stacks::{self, CALLBACK, Stacks};
use crate::store::Store;
use crate::tables::Tables;
use crate::tagging::Tagging;
use crate::wire::{Form, Refusal, Reply, Request};

/// The paths of the health check; the second is LocalStack's, which scripts use.
pub const HEALTH: [&str; 2] = ["/_zae-limiter/health", "/_localstack/health"];

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

/// The services, and what they share.
#[derive(Debug)]
pub struct World {
    /// The tables.
    pub tables: Tables,
    /// The buckets and objects.
    pub s3: S3,
    /// The queues.
    pub queues: Queues,
    /// The logs.
    pub logs: Logs,
    /// The functions and what feeds them.
    pub lambda: Lambda,
    /// The stacks.
    pub stacks: Arc<Stacks>,
    /// Resources and their tags.
    pub tagging: Tagging,
    /// The records of everything beside the tables.
    pub store: Store,
    /// The address that functions and stacks get, such as `http://127.0.0.1:4566`.
    pub url: String,
}

impl World {
    /// Everything, of tables, records, a directory for files and the endpoint's own address.
    ///
    /// # Errors
    /// If the directory or the records cannot be used.
    pub fn new(tables: Tables, store: Store, files: PathBuf, url: String) -> Result<Self, Refusal> {
        let s3 = S3::open(store.clone(), &files.join("objects"))?;
        let queues = Queues::new(store.clone(), &url);
        let logs = Logs::new(store.clone());
        let around = Around {
            s3: s3.clone(),
            queues: queues.clone(),
            logs: logs.clone(),
        };
        let lambda = Lambda::open(Setup {
            tables: tables.clone(),
            store: store.clone(),
            files,
            url: url.clone(),
            services: Arc::new(around),
            pace: Pace::default(),
        })?;
        let stacks = Arc::new(Stacks::new(store.clone()));
        let tagging = Tagging::default();
        tagging.add(Arc::new(s3.clone()));
        tagging.add(Arc::new(queues.clone()));
        tagging.add(Arc::new(logs.clone()));
        tagging.add(Arc::new(lambda.clone()));
        tagging.add(Arc::new(tables.clone()));
        tagging.add(Arc::<Stacks>::clone(&stacks));
        Ok(Self {
            tables,
            s3,
            queues,
            logs,
            lambda,
            stacks,
            tagging,
            store,
            url,
        })
    }

    /// One in memory, for unit tests, at an address where no server listens.
    #[cfg(test)]
    pub(crate) fn of_test(files: &tempfile::TempDir) -> Arc<Self> {
        let engine = zae_limiter::table::EmbeddedEngine::memory();
        let tables = Tables::new(engine.expect("memory needs nothing"));
        let store = Store::memory().expect("memory needs nothing");
        let (files, url) = (files.path().to_owned(), "http://127.0.0.1:1".to_owned());
        Arc::new(Self::new(tables, store, files, url).expect("the directory is new"))
    }

    /// Ends the functions and what feeds them.
    pub async fn close(&self) {
        self.lambda.stop().await;
    }

    /// Serves a request.
    pub async fn serve(self: &Arc<Self>, request: Request) -> Reply {
        if HEALTH.contains(&request.path.as_str()) {
            return Self::health();
        }
        if let Some(token) = request.path.strip_prefix(CALLBACK) {
            return self.stacks.answered(token, &request);
        }
        if let Some(target) = request.header("x-amz-target") {
            let service = target.split('.').next().unwrap_or_default();
            return match service {
                "DynamoDB_20120810" | "DynamoDBStreams_20120810" => self.tables.serve(request).await,
                "AmazonSQS" => self.queues.serve(request).await,
                "Logs_20140328" => self.logs.serve(&request),
                "ResourceGroupsTaggingAPI_20170126" => self.tagging.serve(&request),
                _ => Refusal::unsupported("AWS", target).amz_json(),
            };
        }
        let scope = request.scope().map(|(_, service)| service).unwrap_or_default();
        match scope.as_str() {
            "cloudformation" => return stacks::serve(self, &request).await,
            "lambda" => return self.lambda.serve(request).await,
            "sts" => return identity::serve(&request),
            "sqs" => return self.queues.serve(request).await,
            "s3" => return self.s3.serve(request).await,
            _ => {}
        }
        let action = action_of(&request);
        if scope.is_empty() && action.is_none() {
            // Unsigned: what fits no other service is an object's address.
            if Lambda::serves(&request.path) {
                return self.lambda.serve(request).await;
            }
            return self.s3.serve(request).await;
        }
        let operation = action.unwrap_or_else(|| format!("{} {}", request.method, request.path));
        Refusal::unsupported(if scope.is_empty() { "AWS" } else { &scope }, &operation).query_xml("")
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

/// The services that Lambda needs.
#[derive(Debug)]
struct Around {
    s3: S3,
    queues: Queues,
    logs: Logs,
}

impl Services for Around {
    fn object(&self, bucket: &str, key: &str) -> Result<Bytes, Refusal> {
        self.s3.get(bucket, key).map(|(_, body)| body)
    }

    fn send(&self, queue_arn: &str, body: &str) -> Result<(), Refusal> {
        self.queues
            .send_to_arn(queue_arn, body, &BTreeMap::new())
            .map(|_| ())
    }

    fn log(&self, region: &str, group: &str, stream: &str, lines: &[LogLine]) -> Result<(), Refusal> {
        self.logs.append(region, group, stream, lines)
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

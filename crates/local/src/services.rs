//! The services that stacks have resources of, opened together since Lambda needs the others.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::lambda::{self, Lambda, Pace, Python, Setup};
use crate::logs::{LogLine, Logs};
use crate::queues::Queues;
use crate::s3::S3;
use crate::store::Store;
use crate::tables::Tables;
use crate::wire::Refusal;

/// The services. Clones share them.
#[derive(Debug, Clone)]
pub struct Services {
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
    /// The address that functions and stacks get, such as `http://127.0.0.1:4566`.
    pub url: String,
}

impl Services {
    /// Opens the services, of tables, records, a directory for files, the endpoint's own address and an interpreter for
    /// functions in Python.
    ///
    /// # Errors
    /// If the directory or the records cannot be used.
    pub fn open(
        tables: Tables,
        store: &Store,
        files: PathBuf,
        url: String,
        python: Python,
    ) -> Result<Self, Refusal> {
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
            python,
            pace: Pace::default(),
        })?;
        Ok(Self {
            tables,
            s3,
            queues,
            logs,
            lambda,
            url,
        })
    }
}

/// The services that Lambda needs.
#[derive(Debug)]
struct Around {
    s3: S3,
    queues: Queues,
    logs: Logs,
}

impl lambda::Services for Around {
    fn object(&self, bucket: &str, key: &str) -> Result<Bytes, Refusal> {
        self.s3.get(bucket, key).map(|(_, body)| body)
    }

    fn send(&self, queue_arn: &str, body: &str) -> Result<(), Refusal> {
        self.queues.send_to_arn(queue_arn, body).map(|_| ())
    }

    fn log(&self, region: &str, group: &str, stream: &str, lines: &[LogLine]) -> Result<(), Refusal> {
        self.logs.append(region, group, stream, lines)
    }
}

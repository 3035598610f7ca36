//! An endpoint's Lambda with tables, in a directory of its own, and services that only remember.

use std::collections::HashMap;
use std::io::{Cursor, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value as Json, json};
use zae_limiter::table::EmbeddedEngine;
use zae_limiter_local::lambda::{Invoked, Lambda, Pace, Python, Services, Setup};
use zae_limiter_local::logs::LogLine;
use zae_limiter_local::store::Store;
use zae_limiter_local::tables::Tables;
use zae_limiter_local::wire::Refusal;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

pub(crate) const REGION: &str = "eu-west-1";

pub(crate) const QUEUE: &str = "arn:aws:sqs:eu-west-1:000000000000:q";

#[derive(Debug, Default)]
pub(crate) struct Remembered {
    objects: Mutex<HashMap<(String, String), Bytes>>,
    sent: Mutex<Vec<String>>,
    log: Mutex<Vec<(String, String)>>,
}

impl Services for Remembered {
    fn object(&self, bucket: &str, key: &str) -> Result<Bytes, Refusal> {
        let objects = self.objects.lock().unwrap();
        let found = objects.get(&(bucket.to_owned(), key.to_owned()));
        found
            .cloned()
            .ok_or_else(|| Refusal::new("NoSuchKey", "The specified key does not exist."))
    }

    fn send(&self, queue_arn: &str, body: &str) -> Result<(), Refusal> {
        assert_eq!(queue_arn, QUEUE);
        self.sent.lock().unwrap().push(body.to_owned());
        Ok(())
    }

    fn log(&self, region: &str, group: &str, _: &str, lines: &[LogLine]) -> Result<(), Refusal> {
        assert_eq!(region, REGION);
        let lines = lines.iter().map(|line| (group.to_owned(), line.message.clone()));
        self.log.lock().unwrap().extend(lines);
        Ok(())
    }
}

pub(crate) struct Fixture {
    pub(crate) lambda: Lambda,
    tables: Tables,
    store: Store,
    pace: Pace,
    services: Arc<Remembered>,
    directory: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Pace)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut pace = Pace {
            retry: Duration::from_millis(5),
            gather: Duration::from_millis(5),
            ..Pace::default()
        };
        change(&mut pace);
        let tables = Tables::new(EmbeddedEngine::open(directory.path().join("tables")).unwrap()).unwrap();
        let store = Store::open(&directory.path().join("records.sqlite")).unwrap();
        let services = Arc::new(Remembered::default());
        let lambda = open(&directory, &tables, &store, &services, pace);
        let fixture = Self {
            lambda,
            tables,
            store,
            pace,
            services,
            directory,
        };
        for (key, comment) in [("package", "one"), ("other", "other")] {
            fixture.put_package(key, &[("bootstrap", 0o755, script(comment).as_bytes())]);
        }
        fixture
    }

    /// Stops Lambda. The tables stay in use.
    pub(crate) async fn stop(&self) {
        self.lambda.stop().await;
    }

    /// Opens Lambda anew on what is stored.
    pub(crate) fn start(&mut self) {
        self.lambda = open(
            &self.directory,
            &self.tables,
            &self.store,
            &self.services,
            self.pace,
        );
    }

    pub(crate) fn put_package(&self, key: &str, files: &[(&str, u32, &[u8])]) {
        let name = ("code".to_owned(), key.to_owned());
        let mut objects = self.services.objects.lock().unwrap();
        objects.insert(name, zipped(files).into());
    }

    pub(crate) async fn function(&self, name: &str, handler: &str, more: Json) {
        self.function_of(name, "package", handler, more).await;
    }

    pub(crate) async fn function_of(&self, name: &str, package: &str, handler: &str, more: Json) {
        let architecture = if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "x86_64"
        };
        let mut request = json!({
            "FunctionName": name, "Runtime": "provided.al2023", "Handler": handler, "Role": "r", "Timeout": 30,
            "Code": {"S3Bucket": "code", "S3Key": package}, "Architectures": [architecture],
        });
        request
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.lambda.create_function(REGION, &request).await.unwrap();
    }

    pub(crate) async fn invoke(&self, name: &str, event: Json) -> Invoked {
        self.lambda
            .invoke(REGION, name, event.to_string().into())
            .await
            .unwrap()
    }

    /// Invokes a function that must not fail.
    pub(crate) async fn ask(&self, name: &str, event: Json) -> Json {
        let invoked = self.invoke(name, event).await;
        let answer = serde_json::from_slice(&invoked.payload).unwrap();
        assert!(!invoked.error, "{answer}");
        answer
    }

    pub(crate) fn log(&self, group: &str) -> Vec<String> {
        let log = self.services.log.lock().unwrap();
        log.iter()
            .filter(|(of, _)| of == group)
            .map(|(_, line)| line.clone())
            .collect()
    }

    pub(crate) fn sent(&self) -> Vec<String> {
        self.services.sent.lock().unwrap().clone()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn lines(&self, name: &str) -> usize {
        self.text(name).lines().count()
    }

    /// The records in a file that a function noted.
    pub(crate) fn seen(&self, name: &str) -> Vec<Json> {
        let text = self.text(name);
        // The last line may still be written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Whether every mapping says that it has done something.
    pub(crate) fn is_noted(&self) -> bool {
        let mappings = self.lambda.mappings(REGION, None, None).unwrap();
        mappings
            .iter()
            .all(|mapping| mapping["LastProcessingResult"] == "OK")
    }

    /// Makes a table; returns its stream's ARN.
    pub(crate) async fn table(&self, name: &str) -> String {
        let request = json!({
            "TableName": name, "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "k", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "k", "KeyType": "HASH"}],
            "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        });
        let made = self.tables.call(REGION, "CreateTable", &request).await.unwrap();
        made["TableDescription"]["LatestStreamArn"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) async fn table_again(&self, name: &str) -> String {
        let request = json!({"TableName": name});
        self.tables.call(REGION, "DeleteTable", &request).await.unwrap();
        self.table(name).await
    }

    pub(crate) async fn put(&self, table: &str, key: &str, value: u32) {
        let item = json!({"k": {"S": key}, "v": {"N": value.to_string()}});
        let body = json!({"TableName": table, "Item": item});
        self.tables.call(REGION, "PutItem", &body).await.unwrap();
    }
}

/// A package of files with their modes.
pub(crate) fn zipped(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, mode, content) in files {
        let options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .unix_permissions(*mode);
        zip.start_file(*name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A script that becomes this executable: as good as the executable itself, and much smaller.
pub(crate) fn script(comment: &str) -> String {
    let executable = std::env::current_exe().unwrap();
    format!("#!/bin/sh\n# {comment}\nexec '{}'\n", executable.display())
}

fn open(
    directory: &tempfile::TempDir,
    tables: &Tables,
    store: &Store,
    services: &Arc<Remembered>,
    pace: Pace,
) -> Lambda {
    Lambda::open(Setup {
        tables: tables.clone(),
        store: store.clone(),
        files: directory.path().join("files"),
        url: "http://127.0.0.1:1".to_owned(),
        services: Arc::clone(services) as Arc<dyn Services>,
        // As for a bootstrap, this executable knows what it is by its variables.
        python: Python::find(Some(&std::env::current_exe().unwrap())).unwrap(),
        pace,
    })
    .unwrap()
}

/// Waits for a condition; fails if it does not become true.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..1_500 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: it does not come to be");
}

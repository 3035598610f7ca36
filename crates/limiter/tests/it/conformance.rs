//! This crate's client does what the AWS SDK's does: the same answers, and the same meaning of every failure.
//!
//! Set `ZAE_LIMITER_TEST_ENDPOINT` to the URL of another implementation of DynamoDB to run it on that instead of the embedded
//! engine.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use zae_limiter::table::{
    Connection, DynamoClient, DynamoTable, EmbeddedEngine, SdkTable, Table, Timeouts, definition,
};
use zae_limiter_core::table::{
    Answer, Applied, Condition, Delete, FailureKind, Index, Key, Op, Part, Put, Query, TableError, Update,
    Value,
};

use crate::support::{item, key};

const ENDPOINT: &str = "ZAE_LIMITER_TEST_ENDPOINT";

/// The same empty table behind both clients; each has its own.
async fn both() -> (DynamoTable, SdkTable) {
    let Ok(url) = std::env::var(ENDPOINT) else {
        let (ours, theirs) = (
            EmbeddedEngine::memory().unwrap(),
            EmbeddedEngine::memory().unwrap(),
        );
        for engine in [&ours, &theirs] {
            definition::create_table(&engine.client(), "limits")
                .await
                .unwrap();
        }
        return (
            DynamoTable::new(ours.client(), "limits"),
            SdkTable::new(theirs.sdk_client(), "limits"),
        );
    };
    let config = at(url).checked_config().await.unwrap();
    let client = at(String::new()).client_of(&config);
    let names = ["ours", "theirs"].map(|whose| format!("{whose}-{:08x}", fastrand::u32(..)));
    for name in &names {
        definition::create_table(&client, name).await.unwrap();
    }
    let [ours, theirs] = names;
    (
        DynamoTable::new(client, ours),
        SdkTable::new(aws_sdk_dynamodb::Client::new(&config), theirs),
    )
}

fn at(url: String) -> Connection {
    Connection {
        endpoint_url: Some(url),
        timeouts: Timeouts {
            operation: Duration::from_secs(20),
            attempt: Duration::from_secs(20),
            ..Timeouts::default()
        },
        ..Connection::default()
    }
}

/// Attributes with numbers.
const NUMBERS: [&str; 2] = ["n", "b_a-b.c_tk"];

/// Draws requests: few keys and attributes, so that conditions hold and fail.
struct Draw(fastrand::Rng);

impl Draw {
    fn key(&mut self) -> Key {
        // Keys that need escapes in JSON, too.
        let pk = ["p", "q/\"é\\\n", "ns/ENTITY#a b"][self.0.usize(..3)];
        key(pk, ["s", "#STATE", "t\t1"][self.0.usize(..3)])
    }

    fn name(&mut self) -> &'static str {
        [NUMBERS[0], NUMBERS[1], "a b", "GSI1PK", "name"][self.0.usize(..5)]
    }

    /// An attribute that has a number, as moto server cannot compare other types or add to them.
    fn number(&mut self) -> &'static str {
        NUMBERS[self.0.usize(..2)]
    }

    fn value(&mut self, name: &str) -> Value {
        if NUMBERS.contains(&name) {
            return Value::int(self.0.i64(-9..9));
        }
        match self.0.u8(..8) {
            0 => Value::Bool(self.0.bool()),
            1 => Value::Null,
            2 => Value::text(["", "x", "\u{1F600}\u{7f}\"", "GSI"][self.0.usize(..4)]),
            3 => Value::Ss(BTreeSet::from(["b".to_owned(), "a".to_owned()])),
            4 => Value::L(vec![Value::int(self.0.i64(..9)), Value::text("y")]),
            5 => Value::M([("k".to_owned(), Value::int(self.0.i64(..9)))].into()),
            _ => Value::N("-0.25".into()),
        }
    }

    fn condition(&mut self, depth: u8) -> Condition {
        let name = self.name();
        match self.0.u8(..if depth == 0 { 6 } else { 9 }) {
            0 => Condition::Exists(name.into()),
            1 => Condition::Absent(name.into()),
            2 => Condition::Is(name.into(), self.value(name)),
            3 => Condition::IsNot(name.into(), self.value(name)),
            4 => Condition::AtLeast(self.number().into(), i128::from(self.0.i64(-3..3))),
            5 => Condition::AtMost(self.number().into(), i128::from(self.0.i64(-3..3))),
            6 => Condition::ALWAYS,
            7 => Condition::Any((0..self.0.u8(..3)).map(|_| self.condition(depth - 1)).collect()),
            _ => Condition::All((0..self.0.u8(..3)).map(|_| self.condition(depth - 1)).collect()),
        }
    }

    fn put(&mut self) -> Put {
        let mut item = item(&self.key(), []);
        for _ in 0..self.0.u8(..4) {
            let name = self.name();
            item.insert(name.to_owned(), self.value(name));
        }
        Put {
            item,
            condition: self.condition(2),
        }
    }

    fn update(&mut self) -> Update {
        let mut update = Update::new(self.key());
        for _ in 0..self.0.u8(1..3) {
            let name = self.name();
            update.set.push((name.into(), self.value(name)));
        }
        if self.0.u8(..8) == 0 {
            update.copy.push((self.name().into(), self.name().into()));
        }
        for _ in 0..self.0.u8(..2) {
            update
                .add
                .push((self.number().into(), i128::from(self.0.i64(-5..5))));
        }
        for _ in 0..self.0.u8(..2) {
            update
                .add_to_set
                .push(("set".into(), ["a", "b"][self.0.usize(..2)].to_owned()));
        }
        for _ in 0..self.0.u8(..2) {
            update.remove.push(self.name().into());
        }
        update.condition = self.condition(2);
        update
    }

    fn query(&mut self) -> Query {
        let index = [Index::Primary, Index::Gsi1][self.0.usize(..2)];
        let mut query = Query::new(index, self.key().pk);
        query = match self.0.u8(..3) {
            0 => query.prefix(["", "s", "#"][self.0.usize(..3)]),
            1 => query.between("a", "t"),
            _ => query,
        };
        if self.0.bool() {
            query = query.descending();
        }
        if self.0.bool() {
            query = query.page(1);
        }
        query
    }

    fn op(&mut self) -> Op {
        match self.0.u8(..12) {
            0 => Op::Get {
                key: self.key(),
                consistent: self.0.bool(),
            },
            1 => {
                let keys: BTreeSet<Key> = (0..self.0.u8(1..4)).map(|_| self.key()).collect();
                Op::BatchGet {
                    keys: keys.into_iter().collect(),
                    consistent: self.0.bool(),
                }
            }
            2 => Op::Query(self.query()),
            3 | 4 => Op::Put(self.put()),
            5 => Op::Delete(Delete {
                key: self.key(),
                condition: self.condition(1),
            }),
            6 => {
                let keys: BTreeSet<Key> = (0..self.0.u8(1..3)).map(|_| self.key()).collect();
                Op::BatchDelete(keys.into_iter().collect())
            }
            7 | 8 => Op::Transact((0..self.0.u8(1..4)).map(|_| self.part()).collect()),
            _ => Op::Update(self.update()),
        }
    }

    fn part(&mut self) -> Part {
        match self.0.u8(..4) {
            0 => Part::Put(self.put()),
            1 => Part::Delete(Delete {
                key: self.key(),
                condition: self.condition(1),
            }),
            2 => Part::Check(self.key(), self.condition(1)),
            _ => Part::Update(self.update()),
        }
    }
}

/// What of a result can be compared: messages may name the table, and batches have no order.
fn facts(result: Result<Answer, TableError>) -> Result<Answer, (FailureKind, Applied)> {
    match result {
        Ok(Answer::Items(mut items)) => {
            items.sort_by_key(|item| format!("{item:?}"));
            Ok(Answer::Items(items))
        }
        Ok(answer) => Ok(answer),
        Err(err) => Err((err.kind, err.applied)),
    }
}

#[tokio::test]
async fn every_request_has_the_same_answer() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut draw = Draw(fastrand::Rng::with_seed(seed));
    let (ours, theirs) = both().await;
    let (mut admitted, mut refused, mut failed) = (0, 0, 0);
    for n in 0..1500 {
        let op = draw.op();
        let (a, b) = (
            facts(ours.call(op.clone()).await),
            facts(theirs.call(op.clone()).await),
        );
        assert_eq!(a, b, "request {n} of seed {seed}: {op:?}");
        match a {
            Ok(Answer::Refused(_) | Answer::Cancelled(_)) => refused += 1,
            Ok(_) => admitted += 1,
            Err(_) => failed += 1,
        }
    }
    assert!(
        admitted > 300 && refused > 100 && failed > 10,
        "{admitted}, {refused}, {failed}"
    );
}

/// A server that answers every request with these bytes and closes the connection.
async fn server(answer: Vec<u8>) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 16384]).await;
                let _ = stream.write_all(&answer).await;
            });
        }
    });
    (url, server)
}

/// One request of each kind.
fn kinds() -> Vec<Op> {
    let k = key("p", "s");
    let add = Update {
        add: vec![("n".into(), 1)],
        ..Update::new(k.clone())
    };
    vec![
        Op::Get {
            key: k.clone(),
            consistent: true,
        },
        Op::BatchGet {
            keys: vec![k.clone()],
            consistent: false,
        },
        Op::Query(Query::new(Index::Primary, "p")),
        Op::Put(Put {
            item: item(&k, []),
            condition: Condition::ALWAYS,
        }),
        Op::Update(add.clone()),
        Op::Delete(Delete {
            key: k.clone(),
            condition: Condition::ALWAYS,
        }),
        Op::BatchDelete(vec![k.clone()]),
        Op::Transact(vec![Part::Update(add)]),
    ]
}

fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n{body}").into_bytes()
}

fn error(status: &str, code: &str, more: &str) -> Vec<u8> {
    let body = format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"m"{more}}}"#);
    http(status, "Content-Type: application/x-amz-json-1.0\r\n", &body)
}

/// What servers, proxies and broken connections may answer with.
fn answers() -> Vec<Vec<u8>> {
    let mut answers: Vec<Vec<u8>> = Vec::new();
    for code in [
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "RequestLimitExceeded",
        "LimitExceededException",
        "TransactionConflictException",
        "TransactionInProgressException",
        "ResourceNotFoundException",
        "AccessDeniedException",
        "UnrecognizedClientException",
        "ExpiredTokenException",
        "InvalidSignatureException",
        "ValidationException",
        "SerializationException",
        "InternalServerError",
        "ServiceUnavailable",
        "UnknownOperationException",
        "SomethingNew",
        "ConditionalCheckFailedException",
        "IdempotentParameterMismatchException",
    ] {
        answers.push(error("400 Bad Request", code, ""));
        answers.push(error("500 Internal Server Error", code, ""));
        answers.push(http(
            "400 Bad Request",
            &format!("x-amzn-ErrorType: {code}:http://x/\r\n"),
            "{}",
        ));
    }
    let image = r#","Item":{"PK":{"S":"p"},"SK":{"S":"s"},"n":{"N":"1"}}"#;
    answers.push(error("400 Bad Request", "ConditionalCheckFailedException", image));
    for reasons in [
        r#"[{"Code":"None"}]"#,
        r#"[{"Code":"ConditionalCheckFailed","Item":{"PK":{"S":"p"}}},{"Code":"TransactionConflict","Message":"m"}]"#,
        r#"[{"Code":"ThrottlingError"},{}]"#,
        "[]",
        "null",
    ] {
        let more = format!(r#","CancellationReasons":{reasons}"#);
        answers.push(error("400 Bad Request", "TransactionCanceledException", &more));
    }
    for status in [
        "200 OK",
        "201 Created",
        "204 No Content",
        "301 Moved",
        "400 Bad Request",
        "401 Unauthorized",
        "403 Forbidden",
        "404 Not Found",
        "407 Proxy",
        "408 Timeout",
        "413 Large",
        "429 Many",
        "500 Error",
        "502 Gateway",
        "503 Busy",
        "504 Late",
    ] {
        for body in [
            "",
            "{}",
            "null",
            "[]",
            "<html>no</html>",
            "{\"message\":1}",
            "{\"Message\":\"x\"}",
            "{\"__type\":\"a#b\"}",
        ] {
            answers.push(http(status, "", body));
        }
    }
    for body in [
        r#"{"Attributes":{"PK":{"S":"p"},"SK":{"S":"s"},"n":{"N":"2"}}}"#,
        r#"{"Attributes":{"PK":{"S":"other"},"SK":{"S":"s"}}}"#,
        r#"{"Attributes":null,"Item":null,"Items":null,"Responses":null,"UnprocessedItems":null}"#,
        r#"{"Item":{"PK":{"S":"p"},"x":{"B":"AAE="},"y":{"NS":["1"]}},"Items":[],"Responses":{},"UnprocessedItems":{}}"#,
        r#"{"Items":[{"PK":{"S":"p"}}],"LastEvaluatedKey":{"PK":{"S":"p"},"SK":{"S":"s"}},"Responses":{"limits":[{}]}}"#,
        r#"{"Attributes":{"a":{"S":1}},"Item":{"a":{"S":1}},"Items":[{"a":{"S":1}}],"Responses":{"limits":[{"a":{"S":1}}]}}"#,
    ] {
        answers.push(http("200 OK", "", body));
    }
    answers.push(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"Attributes\":".to_vec());
    answers.push(b"HTTP/1.1 400 Bad\r\nContent-Length: 100\r\n\r\n{".to_vec());
    answers.push(b"HTTP/1.1 200 OK\r\n\r\n{}".to_vec());
    answers.push(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_vec());
    answers.push(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n".to_vec());
    answers.push(b"HTTP/1.0 200 OK\r\n\r\n{}".to_vec());
    answers.push(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec());
    answers.push(b"SSH-2.0-x\r\n".to_vec());
    answers.push(b"HTTP/1.1 2".to_vec());
    answers.push(Vec::new());
    answers
}

#[tokio::test]
async fn every_fault_has_the_same_meaning() {
    let mut differences = Vec::new();
    for answer in answers() {
        let (url, server) = server(answer.clone()).await;
        let config = at(url.clone()).checked_config().await.unwrap();
        let timeouts = Timeouts {
            operation: Duration::from_secs(2),
            ..Timeouts::default()
        };
        let ours = DynamoTable::new(DynamoClient::new(&config, timeouts), "limits");
        let theirs = SdkTable::new(aws_sdk_dynamodb::Client::new(&config), "limits");
        for op in kinds() {
            let (a, b) = tokio::join!(ours.call(op.clone()), theirs.call(op.clone()));
            let (a_text, b_text) = (format!("{a:?}"), format!("{b:?}"));
            if facts(a) != facts(b) {
                let answer = String::from_utf8_lossy(&answer);
                differences.push(format!("{answer:?} to {op:?}:\n  ours {a_text}\n  SDK  {b_text}"));
            }
        }
        server.abort();
    }
    assert!(
        differences.is_empty(),
        "{}:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

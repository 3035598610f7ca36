//! The lower bound: the update of an acquire as a ready text, written to a socket, with the answer read to its end.
//!
//! The signature is not valid, so it works with endpoints that do not check it.

use std::sync::Arc;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use zae_limiter::clock::Clock as _;
use zae_limiter_core::EpochMillis;

use crate::measure::{Round, round as measured};
use crate::{KEYS, Outcome, World, bare};

/// A round of updates over as many connections as there are callers.
pub(crate) async fn round(world: &World, url: &str, ops: usize, concurrency: usize) -> Outcome<Round> {
    let host = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let now = EpochMillis::from(world.clock.now()).0;
    let requests: Vec<Arc<str>> = (0..KEYS)
        .map(|key| Ok(request(&host, world.table, &world.id(key)?.key(0).pk, now).into()))
        .collect::<Outcome<_>>()?;
    let mut connections = Vec::new();
    for _ in 0..concurrency {
        let stream = TcpStream::connect(&host).await?;
        stream.set_nodelay(true)?;
        connections.push(Arc::new(Mutex::new(BufReader::new(stream))));
    }
    Ok(measured(ops, concurrency, |i| {
        let request = Arc::clone(&requests[i % KEYS]);
        let connections = connections.clone();
        async move {
            for connection in connections.iter().cycle().skip(i).take(connections.len()) {
                if let Ok(mut stream) = connection.try_lock() {
                    return exchange(&mut stream, &request).await.unwrap_or(false);
                }
            }
            false
        }
    })
    .await)
}

/// Whether the answer has the status 200.
async fn exchange(stream: &mut BufReader<TcpStream>, request: &str) -> std::io::Result<bool> {
    stream.get_mut().write_all(request.as_bytes()).await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let is_ok = line.starts_with("HTTP/1.1 200");
    let mut length = 0;
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(is_ok)
}

fn request(host: &str, table: &str, pk: &str, now: i64) -> String {
    let (names, values) = bare::aliases(10, now);
    let names: serde_json::Map<String, serde_json::Value> = names
        .iter()
        .map(|(alias, name)| ((*alias).to_owned(), json!(name)))
        .collect();
    let values: serde_json::Map<String, serde_json::Value> = values
        .iter()
        .map(|(alias, n)| ((*alias).to_owned(), json!({"N": n.to_string()})))
        .collect();
    let body = json!({
        "TableName": table,
        "Key": {"PK": {"S": pk}, "SK": {"S": "#STATE"}},
        "UpdateExpression": bare::UPDATE,
        "ConditionExpression": bare::CONDITION,
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
        "ReturnValues": "ALL_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    })
    .to_string();
    format!(
        "POST / HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\
         x-amz-target: DynamoDB_20120810.UpdateItem\r\nx-amz-date: 20261129T000000Z\r\nauthorization: AWS4-HMAC-SHA256 \
         Credential=local/20261129/us-east-1/dynamodb/aws4_request, SignedHeaders=host;x-amz-date, Signature=0\r\n\r\n{body}",
        body.len()
    )
}

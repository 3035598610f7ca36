//! SQS's protocol: JSON. The query protocol, which clients used until the end of 2023, is refused by name.

use super::Queues;
use crate::wire::{Refusal, Reply, Request};

/// What SQS calls some refusals in JSON; the header carries the older name, which clients of before know.
const SHAPES: [(&str, &str); 2] = [
    ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"),
    ("QueueAlreadyExists", "QueueNameExists"),
];

impl Queues {
    /// Serves a request.
    pub async fn serve(&self, request: Request) -> Reply {
        let Some(target) = request.header("x-amz-target") else {
            let why = "the local endpoint of zae-limiter does not serve SQS's query protocol; use an SDK or an AWS CLI of \
                       2024 or later";
            return Refusal::new("NotImplemented", why).status(501).query_xml("");
        };
        let operation = target.rsplit_once('.').map_or(target, |(_, operation)| operation);
        let answer = match request.json() {
            Ok(body) => self.run(&request.region(), operation, &body).await,
            Err(refusal) => Err(refusal),
        };
        match answer {
            Ok(body) => Reply::amz_json(&body),
            Err(refusal) => refused(refusal),
        }
    }
}

fn refused(refusal: Refusal) -> Reply {
    let side = if refusal.status < 500 {
        "Sender"
    } else {
        "Receiver"
    };
    let older = format!("{};{side}", refusal.code);
    let shape = SHAPES.iter().find(|(code, _)| *code == refusal.code);
    let shaped = match shape {
        Some((_, shape)) => Refusal {
            code: format!("com.amazonaws.sqs#{shape}").into(),
            ..refusal
        },
        None => refusal,
    };
    shaped.amz_json().with("x-amzn-query-error", &older)
}

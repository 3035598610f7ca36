//! Operations, one after another.

use super::*;
use crate::clock;
use crate::store::Store;

async fn run(queues: &Queues, operation: &str, body: Json) -> Result<Json, Refusal> {
    queues.run("eu-west-1", operation, &body).await
}

async fn queue(attributes: Json) -> (Queues, String) {
    let queues = Queues::new(Store::memory().unwrap(), "http://127.0.0.1:1/");
    let body = json!({"QueueName": "q", "Attributes": attributes, "tags": {"a": "1"}});
    let made = run(&queues, "CreateQueue", body).await.unwrap();
    let url = made["QueueUrl"].as_str().unwrap().to_owned();
    assert_eq!(url, "http://127.0.0.1:1/000000000000/q");
    (queues, url)
}

#[tokio::test]
async fn messages_are_received_hidden_and_deleted() {
    let (queues, url) = queue(json!({"VisibilityTimeout": "300"})).await;
    let send = json!({"QueueUrl": url, "MessageBody": "one"});
    let answer = run(&queues, "SendMessage", send).await.unwrap();
    assert_eq!(answer["MD5OfMessageBody"], "f97c5d29941bfb1b2fdab0874906ab82");
    let receive = json!({"QueueUrl": url, "MaxNumberOfMessages": 10, "AttributeNames": ["All"]});
    let got = run(&queues, "ReceiveMessage", receive.clone()).await.unwrap();
    let message = &got["Messages"][0];
    assert_eq!(message["MessageId"], answer["MessageId"]);
    assert_eq!(message["Attributes"]["ApproximateReceiveCount"], "1");
    assert_eq!(
        run(&queues, "ReceiveMessage", receive.clone()).await.unwrap(),
        json!({})
    );
    let counts = run(
        &queues,
        "GetQueueAttributes",
        json!({"QueueUrl": url, "AttributeNames": ["All"]}),
    )
    .await
    .unwrap();
    let counts = &counts["Attributes"];
    assert_eq!(counts["ApproximateNumberOfMessages"], "0");
    assert_eq!(counts["ApproximateNumberOfMessagesNotVisible"], "1");
    assert_eq!(counts["QueueArn"], "arn:aws:sqs:eu-west-1:000000000000:q");
    assert_eq!(counts["VisibilityTimeout"], "300");
    let handle = message["ReceiptHandle"].clone();
    let show = json!({"QueueUrl": url, "ReceiptHandle": handle, "VisibilityTimeout": 0});
    run(&queues, "ChangeMessageVisibility", show.clone())
        .await
        .unwrap();
    assert_eq!(
        run(&queues, "ChangeMessageVisibility", show)
            .await
            .unwrap_err()
            .code,
        "MessageNotInflight"
    );
    let again = run(&queues, "ReceiveMessage", receive).await.unwrap();
    assert_eq!(again["Messages"][0]["Attributes"]["ApproximateReceiveCount"], "2");
    let stale = json!({"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]});
    run(&queues, "DeleteMessage", stale).await.unwrap();
    assert_eq!(queues.count("eu-west-1", "q").unwrap(), 1);
    let delete = json!({"QueueUrl": url, "ReceiptHandle": again["Messages"][0]["ReceiptHandle"]});
    run(&queues, "DeleteMessage", delete.clone()).await.unwrap();
    run(&queues, "DeleteMessage", delete).await.unwrap();
    assert_eq!(queues.count("eu-west-1", "q").unwrap(), 0);
}

#[tokio::test]
async fn bodies_hold_only_characters_that_sqs_allows() {
    let (queues, url) = queue(json!({})).await;
    for (body, is_valid) in [
        ("a\tb\r\n\u{e9}\u{1f600}\u{fffd}", true),
        ("\u{0}", false),
        ("a\u{1b}[31m", false),
        ("\u{ffff}", false),
    ] {
        let sent = run(
            &queues,
            "SendMessage",
            json!({"QueueUrl": url, "MessageBody": body}),
        )
        .await;
        let code = sent.map_err(|refused| refused.code.to_string());
        assert_eq!(code.is_ok(), is_valid, "{body:?}: {code:?}");
        assert!(
            is_valid || code == Err("InvalidMessageContents".to_owned()),
            "{code:?}"
        );
    }
}

#[tokio::test]
async fn whoever_waits_gets_what_comes() {
    let (queues, url) = queue(json!({})).await;
    let arn = queues.find("eu-west-1", "q").unwrap().unwrap().arn();
    let waiting = {
        let queues = queues.clone();
        let body = json!({"QueueUrl": url, "WaitTimeSeconds": 20});
        tokio::spawn(async move { run(&queues, "ReceiveMessage", body).await })
    };
    tokio::task::yield_now().await;
    queues.send_to_arn(&arn, "late").unwrap();
    let got = waiting.await.unwrap().unwrap();
    assert_eq!(got["Messages"][0]["Body"], "late");
    let missing = queues.send_to_arn("arn:aws:sqs:us-east-1:000000000000:q", "x");
    assert_eq!(
        missing.unwrap_err().code,
        "AWS.SimpleQueueService.NonExistentQueue"
    );
}

#[tokio::test]
async fn delays_and_retention_are_kept() {
    let (queues, url) = queue(json!({"DelaySeconds": "900"})).await;
    for delay in [json!(null), json!(0)] {
        let body = json!({"QueueUrl": url, "MessageBody": "x", "DelaySeconds": delay});
        run(&queues, "SendMessage", body).await.unwrap();
    }
    let counts = queues
        .counts(&queues.find("eu-west-1", "q").unwrap().unwrap())
        .unwrap();
    assert_eq!((counts.visible, counts.delayed), (1, 1));
    let set = json!({"QueueUrl": url, "Attributes": {"MessageRetentionPeriod": "60"}});
    run(&queues, "SetQueueAttributes", set).await.unwrap();
    assert_eq!(queues.count("eu-west-1", "q").unwrap(), 2);
    let aged = clock::now_ms() - 61_000;
    queues
        .store
        .database()
        .execute("UPDATE messages SET sent_at = ?1", [aged])
        .unwrap();
    assert_eq!(queues.count("eu-west-1", "q").unwrap(), 0);
}

#[tokio::test]
async fn queues_come_and_go() {
    let (queues, url) = queue(json!({"VisibilityTimeout": "30"})).await;
    let create = async |name: &str, attributes: Json| {
        run(
            &queues,
            "CreateQueue",
            json!({"QueueName": name, "Attributes": attributes}),
        )
        .await
    };
    assert_eq!(
        create("q", json!({"DelaySeconds": "0"})).await.unwrap()["QueueUrl"],
        url
    );
    assert_eq!(
        create("q", json!({"DelaySeconds": "1"})).await.unwrap_err().code,
        "QueueAlreadyExists"
    );
    assert!(
        create("q.fifo", json!({}))
            .await
            .unwrap_err()
            .message
            .contains("FIFO")
    );
    assert_eq!(
        create("q q", json!({})).await.unwrap_err().code,
        "InvalidParameterValue"
    );
    assert_eq!(
        create("r", json!({"DelaySeconds": "901"}))
            .await
            .unwrap_err()
            .code,
        "InvalidAttributeValue"
    );
    assert_eq!(
        create("r", json!({"Nonsense": "1"})).await.unwrap_err().code,
        "InvalidAttributeName"
    );
    assert!(
        create("r", json!({"RedrivePolicy": "{}"}))
            .await
            .unwrap_err()
            .message
            .contains("RedrivePolicy")
    );
    create("q", json!({"SqsManagedSseEnabled": "true", "Policy": ""}))
        .await
        .unwrap();
    assert_eq!(
        queues.find("eu-west-1", "q").unwrap().unwrap().tags,
        BTreeMap::from([("a".to_owned(), "1".to_owned())])
    );
    let listed = run(&queues, "ListQueues", json!({"QueueNamePrefix": "q"}))
        .await
        .unwrap();
    assert_eq!(listed, json!({"QueueUrls": [url]}));
    run(&queues, "DeleteQueue", json!({"QueueUrl": url}))
        .await
        .unwrap();
    let gone = run(&queues, "GetQueueUrl", json!({"QueueName": "q"}))
        .await
        .unwrap_err();
    assert_eq!(gone.code, "AWS.SimpleQueueService.NonExistentQueue");
    for unsupported in ["AddPermission", "SendMessageBatch", "TagQueue"] {
        let refusal = run(&queues, unsupported, json!({})).await.unwrap_err();
        assert_eq!(refusal.status, 501, "{unsupported}");
    }
}

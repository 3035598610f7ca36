//! SQS's two protocols: JSON, and the older forms, which are read as JSON and answered in XML.

use serde_json::{Map, Value as Json};

use super::Queues;
use super::api::missing_parameter;
use crate::wire::{Form, Refusal, Reply, Request, Xml};

/// The namespace of the older protocol's answers.
const NAMESPACE: &str = "http://queue.amazonaws.com/doc/2012-11-05/";

/// What SQS calls some refusals in JSON; the header carries the older name, which clients of before know.
const SHAPES: [(&str, &str); 5] = [
    ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"),
    ("AWS.SimpleQueueService.EmptyBatchRequest", "EmptyBatchRequest"),
    (
        "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
        "TooManyEntriesInBatchRequest",
    ),
    (
        "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
        "BatchEntryIdsNotDistinct",
    ),
    ("QueueAlreadyExists", "QueueNameExists"),
];

impl Queues {
    /// Serves a request of either protocol.
    pub async fn serve(&self, request: Request) -> Reply {
        let Some(target) = request.header("x-amz-target") else {
            return self.serve_form(&request).await;
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

    async fn serve_form(&self, request: &Request) -> Reply {
        let form = Form::read(request);
        let action = form.get("Action").unwrap_or_default().to_owned();
        let answer = match tree(&form) {
            Ok(mut body) => {
                if !body.contains_key("QueueUrl") && request.segments().len() == 2 {
                    body.insert("QueueUrl".to_owned(), request.path.clone().into());
                }
                self.run(&request.region(), &action, &body.into()).await
            }
            Err(refusal) => Err(refusal),
        };
        match answer {
            Ok(answer) => {
                let mut xml = Xml::default();
                write(&mut xml, &answer);
                Reply::query_xml(&action, NAMESPACE, &xml)
            }
            Err(refusal) => refusal.query_xml(NAMESPACE),
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

/// The lists of the older protocol: the name of a member, and what the list is called in JSON.
const LISTS: [(&str, &str); 7] = [
    ("ChangeMessageVisibilityBatchRequestEntry", "Entries"),
    ("AttributeName", "AttributeNames"),
    ("MessageAttributeName", "MessageAttributeNames"),
    ("MessageSystemAttributeName", "MessageSystemAttributeNames"),
    ("TagKey", "TagKeys"),
    ("SendMessageBatchRequestEntry", "Entries"),
    ("DeleteMessageBatchRequestEntry", "Entries"),
];

/// The maps of the older protocol: the name of an entry, what holds key and value, and what the map is called in JSON.
const MAPS: [(&str, &str, &str, &str); 3] = [
    ("Attribute", "Name", "Value", "Attributes"),
    ("MessageAttribute", "Name", "Value", "MessageAttributes"),
    ("Tag", "Key", "Value", "Tags"),
];

/// A form's parameters as the JSON protocol has them.
fn tree(form: &Form) -> Result<Map<String, Json>, Refusal> {
    let mut root = Map::new();
    for (name, value) in form.pairs() {
        if !matches!(name, "Action" | "Version") {
            let parts: Vec<&str> = name.split('.').collect();
            insert(&mut root, &parts, value);
        }
    }
    renamed(root, "")
}

/// How deep names may go: no parameter of SQS goes deeper.
const DEEPEST: usize = 8;

fn insert(into: &mut Map<String, Json>, parts: &[&str], value: &str) {
    match parts {
        [name] => {
            into.insert((*name).to_owned(), value.into());
        }
        [name, rest @ ..] if parts.len() <= DEEPEST => {
            let inner = into.entry(*name).or_insert_with(|| Json::Object(Map::new()));
            if let Json::Object(inner) = inner {
                insert(inner, rest, value);
            }
        }
        // No parameter of SQS is called like this.
        _ => {}
    }
}

/// Turns numbered members into lists and maps, and numbers into numbers. `path` is what the names are preceded by.
fn renamed(map: Map<String, Json>, path: &str) -> Result<Map<String, Json>, Refusal> {
    let mut out = Map::new();
    for (name, value) in map {
        let list = LISTS.iter().find(|(member, _)| *member == name);
        let entry = MAPS.iter().find(|(member, ..)| *member == name);
        match (list, entry, value) {
            (Some((_, list)), _, Json::Object(members)) => {
                let members = numbered(members).map(|(index, member)| match member {
                    Json::Object(fields) => {
                        renamed(fields, &format!("{path}{name}.{index}.")).map(Json::Object)
                    }
                    scalar => Ok(scalar),
                });
                let members = members.collect::<Result<Vec<Json>, _>>()?;
                out.insert((*list).to_owned(), members.into());
            }
            (_, Some((_, key, inner, map)), Json::Object(members)) => {
                let mut entries = Map::new();
                for (index, member) in numbered(members) {
                    let path = format!("{path}{name}.{index}.");
                    let mut member = match member {
                        Json::Object(fields) => fields,
                        _ => Map::new(),
                    };
                    let Some(Json::String(key)) = member.remove(*key) else {
                        return Err(missing_parameter(&format!("{path}{key}")));
                    };
                    let value = match member.remove(*inner) {
                        Some(Json::Object(fields)) => renamed(fields, &format!("{path}{inner}."))?.into(),
                        Some(scalar) => scalar,
                        None => return Err(missing_parameter(&format!("{path}{inner}"))),
                    };
                    entries.insert(key, value);
                }
                // Creating a queue has them in lower case.
                if *map == "Tags" {
                    out.insert("tags".to_owned(), Json::Object(entries.clone()));
                }
                out.insert((*map).to_owned(), Json::Object(entries));
            }
            (_, _, Json::String(text)) => {
                let number = matches!(
                    name.as_str(),
                    "DelaySeconds"
                        | "MaxNumberOfMessages"
                        | "MaxResults"
                        | "VisibilityTimeout"
                        | "WaitTimeSeconds"
                );
                let value = match text.parse::<u64>() {
                    Ok(value) if number => value.into(),
                    _ => text.into(),
                };
                out.insert(name, value);
            }
            (_, _, other) => {
                out.insert(name, other);
            }
        }
    }
    Ok(out)
}

/// Numbered members in their order.
fn numbered(members: Map<String, Json>) -> impl Iterator<Item = (u32, Json)> {
    let mut members: Vec<(u32, Json)> = members
        .into_iter()
        .filter_map(|(index, value)| Some((index.parse().ok()?, value)))
        .collect();
    members.sort_by_key(|(index, _)| *index);
    members.into_iter()
}

/// Writes an answer in the older protocol's form.
fn write(xml: &mut Xml, answer: &Json) {
    let Json::Object(fields) = answer else { return };
    for (name, value) in fields {
        let member = match name.as_str() {
            "QueueUrls" => "QueueUrl",
            "Messages" => "Message",
            "Attributes" => "Attribute",
            "MessageAttributes" => "MessageAttribute",
            "Tags" => "Tag",
            other => other,
        };
        match value {
            Json::Array(items) => {
                for item in items {
                    match item {
                        Json::Object(_) => {
                            xml.nest(member, |inner| write(inner, item));
                        }
                        scalar => {
                            xml.element(member, &text(scalar));
                        }
                    }
                }
            }
            Json::Object(entries) if matches!(member, "Attribute" | "MessageAttribute" | "Tag") => {
                let key = if member == "Tag" { "Key" } else { "Name" };
                for (name, value) in entries {
                    xml.nest(member, |entry| {
                        entry.element(key, name);
                        match value {
                            Json::Object(_) => {
                                entry.nest("Value", |inner| write(inner, value));
                            }
                            scalar => {
                                entry.element("Value", &text(scalar));
                            }
                        }
                    });
                }
            }
            Json::Object(_) => {
                xml.nest(member, |inner| write(inner, value));
            }
            scalar => {
                xml.element(member, &text(scalar));
            }
        }
    }
}

fn text(scalar: &Json) -> String {
    scalar.as_str().map_or_else(|| scalar.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::HeaderMap;

    use super::*;
    use crate::store::Store;

    async fn asked(queues: &Queues, path: &str, body: &'static str) -> String {
        let request = Request {
            method: hyper::Method::POST,
            path: path.into(),
            query: String::new(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
        };
        let reply = queues.serve(request).await;
        String::from_utf8(reply.body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn forms_are_served_too() {
        let queues = Queues::new(Store::memory().unwrap(), "http://localhost:1");
        let made = asked(
            &queues,
            "/",
            "Action=CreateQueue&QueueName=q&Attribute.1.Name=DelaySeconds&Attribute.1.Value=0&Tag.1.Key=a&Tag.1.Value=b",
        )
        .await;
        assert!(
            made.contains("<QueueUrl>http://localhost:1/000000000000/q</QueueUrl>"),
            "{made}"
        );
        let sent = asked(
            &queues,
            "/000000000000/q",
            "Action=SendMessage&MessageBody=a%3Cb&MessageAttribute.1.Name=k&MessageAttribute.1.Value.DataType=String\
             &MessageAttribute.1.Value.StringValue=v",
        )
        .await;
        assert!(sent.contains("<MD5OfMessageBody>"), "{sent}");
        let got = asked(
            &queues,
            "/000000000000/q",
            "Action=ReceiveMessage&MaxNumberOfMessages=1&AttributeName.1=All&MessageAttributeName.1=All",
        )
        .await;
        assert!(got.contains("<Body>a&lt;b</Body>"), "{got}");
        assert!(
            got.contains("<MessageAttribute><Name>k</Name><Value><DataType>String</DataType>"),
            "{got}"
        );
        assert!(
            got.contains("<Attribute><Name>ApproximateReceiveCount</Name><Value>1</Value></Attribute>"),
            "{got}"
        );
        let tags = asked(&queues, "/000000000000/q", "Action=ListQueueTags").await;
        assert!(tags.contains("<Tag><Key>a</Key><Value>b</Value></Tag>"), "{tags}");
        for (form, parameter) in [
            (
                "Action=CreateQueue&QueueName=r&Attribute.1=foo",
                "Attribute.1.Name",
            ),
            (
                "Action=CreateQueue&QueueName=r&Attribute.1.Name.x=foo",
                "Attribute.1.Name",
            ),
            ("Action=CreateQueue&QueueName=r&Tag.2.Key=foo", "Tag.2.Value"),
            (
                "Action=SendMessage&MessageBody=a&MessageAttribute.1=5",
                "MessageAttribute.1.Name",
            ),
            (
                "Action=SendMessageBatch&SendMessageBatchRequestEntry.3.MessageAttribute.1=5",
                "SendMessageBatchRequestEntry.3.MessageAttribute.1.Name",
            ),
            ("Action=SendMessageBatch&SendMessageBatchRequestEntry.1=5", "Id"),
        ] {
            let refused = asked(&queues, "/000000000000/q", form).await;
            let said = format!(
                "<Code>MissingParameter</Code><Message>The request must contain the parameter {parameter}.</Message>"
            );
            assert!(refused.contains(&said), "{form}: {refused}");
        }
        let missing = asked(&queues, "/000000000000/x", "Action=PurgeQueue").await;
        assert!(
            missing.contains("<Code>AWS.SimpleQueueService.NonExistentQueue</Code>"),
            "{missing}"
        );
    }
}

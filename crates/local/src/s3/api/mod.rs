//! S3's REST API: `call` takes a request apart, which is answered by what it is about; `answers` has the common XML.

mod answers;
mod body;
mod buckets;
mod call;
mod pages;
mod reading;
mod uploads;
mod writing;

use std::collections::BTreeMap;

use hyper::{Method, StatusCode};

use super::S3;
use crate::wire::{Refusal, Reply, Request, request_id};
use answers::{tagging, tags_of};
use call::Call;

pub(crate) use answers::refused;

/// Serves a request.
pub(super) fn serve(s3: &S3, request: &Request) -> Reply {
    let answer = Call::of(s3, request).and_then(|call| call.answer());
    let mut reply = answer.unwrap_or_else(|refusal| refused(&refusal, request));
    if request.method == Method::HEAD {
        reply.body = bytes::Bytes::new();
    }
    let id = request_id();
    reply.with("x-amz-request-id", &id).with("x-amzn-requestid", &id)
}

impl Call<'_> {
    fn answer(&self) -> Result<Reply, Refusal> {
        self.check_owner()?;
        if self.bucket.is_empty() {
            return match self.request.method {
                Method::GET | Method::HEAD => self.list_buckets(),
                _ => Err(self.unsupported()),
            };
        }
        let aspect = self.aspect();
        if self.key.is_empty() {
            self.on_bucket(aspect)
        } else {
            self.on_object(aspect)
        }
    }

    fn on_object(&self, aspect: Option<&str>) -> Result<Reply, Refusal> {
        if let Some(version) = self.query.get("versionId").filter(|version| *version != "null") {
            return Err(Refusal::new(
                "NoSuchVersion",
                format!(
                    "The specified version does not exist: {version}; the local endpoint keeps no versions"
                ),
            )
            .status(404));
        }
        match (self.request.method.as_str(), aspect) {
            (_, Some("partNumber" | "uploadId" | "uploads")) => uploads::answer(self),
            ("PUT", None) if self.request.header("x-amz-copy-source").is_some() => writing::copy(self),
            ("PUT", None) => writing::put(self),
            ("GET" | "HEAD", None | Some("versionId")) => reading::answer(self),
            ("DELETE", None | Some("versionId")) => {
                if self.request.headers.contains_key("if-match") {
                    return Err(Refusal::unsupported("S3", "DeleteObject with If-Match"));
                }
                self.s3.delete(&self.bucket, &self.key)?;
                Ok(Reply::empty(StatusCode::NO_CONTENT))
            }
            ("GET", Some("tagging")) => {
                let object = self.s3.head(&self.bucket, &self.key)?;
                Ok(tagging(&object.described.tags))
            }
            ("PUT", Some("tagging")) => {
                let tags = tags_of(&self.request.body, 10)?;
                self.s3.tag_object(&self.bucket, &self.key, tags)?;
                Ok(Reply::empty(StatusCode::OK))
            }
            ("DELETE", Some("tagging")) => {
                self.s3.tag_object(&self.bucket, &self.key, BTreeMap::new())?;
                Ok(Reply::empty(StatusCode::NO_CONTENT))
            }
            _ => Err(self.unsupported()),
        }
    }
}

//! STS: the caller identity. Every caller is the root of the one account.

use crate::wire::{ACCOUNT, Form, Refusal, Reply, Request, Xml};

/// The namespace of its answers.
const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// Serves a request.
pub fn serve(request: &Request) -> Reply {
    let form = Form::read(request);
    match form.get("Action").unwrap_or_default() {
        "GetCallerIdentity" => {
            let mut xml = Xml::default();
            xml.element("Arn", &format!("arn:aws:iam::{ACCOUNT}:root"))
                .element("UserId", "AKIAIOSFODNN7EXAMPLE")
                .element("Account", ACCOUNT);
            Reply::query_xml("GetCallerIdentity", NAMESPACE, &xml)
        }
        other => Refusal::unsupported("STS", other).query_xml(NAMESPACE),
    }
}

//! Templates, from text to evaluated properties and changes.

mod changes;
mod functions;
mod refusals;
mod robust;
mod stacks;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use zae_limiter_local::template::{
    Bound, Given, GivenValue, Known, KnownResource, Pseudo, Template, TemplateError,
};

fn pseudo() -> Pseudo {
    Pseudo {
        stack_name: "app".to_owned(),
        stack_id: "arn:aws:cloudformation:eu-west-1:123456789012:stack/app/1".to_owned(),
        region: "eu-west-1".to_owned(),
        account_id: "123456789012".to_owned(),
        partition: "aws".to_owned(),
        url_suffix: "amazonaws.com".to_owned(),
        notification_arns: vec!["arn:one".to_owned(), "arn:two".to_owned()],
    }
}

fn try_bind(text: &str, given: &[(&str, &str)]) -> Result<Bound, TemplateError> {
    let template = Arc::new(Template::parse(text)?);
    let given: Vec<_> = given
        .iter()
        .map(|(name, text)| Given {
            name: (*name).to_owned(),
            value: GivenValue::Text((*text).to_owned()),
        })
        .collect();
    let values = template.values(&given, None)?;
    template.bind(values, pseudo())
}

#[track_caller]
fn bind(text: &str, given: &[(&str, &str)]) -> Bound {
    match try_bind(text, given) {
        Ok(bound) => bound,
        Err(error) => panic!("{error}"),
    }
}

/// A logical id, a physical id, and attributes.
type Thing<'t> = (&'t str, &'t str, &'t [(&'t str, &'t str)]);

fn known(resources: &[Thing<'_>]) -> Known {
    let resources = resources.iter().map(|(id, physical_id, attributes)| {
        let attributes: BTreeMap<_, _> = attributes
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::from(*value)))
            .collect();
        (
            (*id).to_owned(),
            KnownResource {
                physical_id: (*physical_id).to_owned(),
                attributes,
            },
        )
    });
    Known {
        resources: resources.collect(),
        exports: BTreeMap::new(),
    }
}

/// Every existing resource as known, its id being `<id>-1` and its attributes `<id>.<attribute>`, for the attributes that
/// stacks of this project refer to.
fn all_known(bound: &Bound) -> Known {
    let mut all = Known::default();
    for (id, _) in bound.resources() {
        let attributes = ["Arn", "StreamArn", "QueueName"].into_iter();
        let attributes = attributes
            .map(|name| (name.to_owned(), Value::from(format!("{id}.{name}"))))
            .collect();
        all.resources.insert(
            id.to_owned(),
            KnownResource {
                physical_id: format!("{id}-1"),
                attributes,
            },
        );
    }
    all
}

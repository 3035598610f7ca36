//! What a request asks: the state of a stack, its template, and a page of a list.

use crate::stacks::Stacks;
use crate::stacks::start::Asked;
use crate::template::{Given, GivenValue, Template};
use crate::wire::{Form, Refusal, decoded};

/// How many events, stacks or exports a page has.
pub(super) const PAGE: usize = 100;

/// The requested state of a stack.
pub(super) fn asked(stacks: &Stacks, form: &Form, is_new: bool) -> Result<Asked, Refusal> {
    for unsupported in [
        "RollbackConfiguration.RollbackTriggers.member.1.Arn",
        "StackPolicyBody",
        "StackPolicyURL",
    ] {
        if form.get(unsupported).is_some() {
            return Err(Refusal::new(
                "ValidationError",
                format!("the local endpoint does not support the parameter {unsupported}; leave it out"),
            ));
        }
    }
    let tags = form.structures("Tags", ["Key", "Value"]);
    let tags = tags.into_iter().map(|[key, value]| {
        (
            key.unwrap_or_default().to_owned(),
            value.unwrap_or_default().to_owned(),
        )
    });
    let tags: Vec<(String, String)> = tags.collect();
    let topics: Vec<String> = form
        .list("NotificationARNs")
        .into_iter()
        .map(str::to_owned)
        .collect();
    Ok(Asked {
        template: template(stacks, form, is_new)?,
        given: given(form),
        // An update without tags keeps those there are.
        tags: (is_new || !tags.is_empty()).then_some(tags),
        capabilities: form.list("Capabilities").into_iter().map(str::to_owned).collect(),
        notification_arns: (is_new || !topics.is_empty()).then_some(topics),
        role_arn: form.get("RoleARN").map(str::to_owned),
    })
}

fn given(form: &Form) -> Vec<Given> {
    form.structures(
        "Parameters",
        ["ParameterKey", "ParameterValue", "UsePreviousValue"],
    )
    .into_iter()
    .map(|[name, value, previous]| Given {
        name: name.unwrap_or_default().to_owned(),
        value: if previous.is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            GivenValue::Previous
        } else {
            GivenValue::Text(value.unwrap_or_default().to_owned())
        },
    })
    .collect()
}

/// The template of a request: in it, in S3, or `None` for the one that the stack has.
pub(super) fn template(stacks: &Stacks, form: &Form, is_new: bool) -> Result<Option<String>, Refusal> {
    let previous = form
        .get("UsePreviousTemplate")
        .is_some_and(|text| text.eq_ignore_ascii_case("true"));
    match (form.get("TemplateBody"), form.get("TemplateURL"), previous) {
        (Some(body), None, false) => {
            // Checks the length that a template may have when it is sent like this.
            Template::parse(body)?;
            Ok(Some(body.to_owned()))
        }
        (None, Some(url), false) => template_in_s3(stacks, url).map(Some),
        (None, None, true) if !is_new => Ok(None),
        (None, None, _) => Err(Refusal::new(
            "ValidationError",
            "Either Template URL or Template Body must be specified.",
        )),
        _ => Err(Refusal::new(
            "ValidationError",
            "Specify one of TemplateBody, TemplateURL and UsePreviousTemplate",
        )),
    }
}

fn template_in_s3(stacks: &Stacks, url: &str) -> Result<String, Refusal> {
    let wrong = || {
        Refusal::new(
            "ValidationError",
            format!(
                "S3 error: TemplateURL must reference a valid S3 object of this endpoint to which you have \
                     access, not {url}"
            ),
        )
    };
    let rest = url.split_once("://").map(|(_, rest)| rest).ok_or_else(wrong)?;
    let (host, path) = rest.split_once('/').ok_or_else(wrong)?;
    let path = decoded(path.split('?').next().unwrap_or_default());
    let in_host = host.split_once(".s3").map(|(bucket, _)| bucket.to_owned());
    let (bucket, key) = if let Some(bucket) = in_host {
        (bucket, path)
    } else {
        let (bucket, key) = path.split_once('/').ok_or_else(wrong)?;
        (bucket.to_owned(), key.to_owned())
    };
    let (_, body) = stacks.services.s3.get(&bucket, &key)?;
    String::from_utf8(body.to_vec()).map_err(|_| wrong())
}

/// The caller's token, which events repeat.
pub(super) fn token(form: &Form) -> Option<String> {
    form.get("ClientRequestToken").map(str::to_owned)
}

/// Whether a parameter is true.
pub(super) fn is_true(form: &Form, name: &str) -> bool {
    form.get(name)
        .is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

/// A page of a list, and the token of the next.
pub(super) fn page<T>(items: Vec<T>, form: &Form) -> Result<(Vec<T>, Option<String>), Refusal> {
    let start: usize = match form.get("NextToken") {
        None => 0,
        Some(token) => token.parse().map_err(|_| {
            Refusal::new(
                "ValidationError",
                format!("NextToken is {token}, which no earlier answer gave"),
            )
        })?,
    };
    let total = items.len();
    let page: Vec<T> = items.into_iter().skip(start).take(PAGE).collect();
    let end = start + page.len();
    Ok((page, (end < total).then(|| end.to_string())))
}

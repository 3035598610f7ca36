//! The calls of CloudFormation's API, and its XML.

mod asked;
mod change_sets;
mod described;

use std::sync::Arc;
use std::time::Duration;

use super::record::OnFailure;
use super::start::{self, Creation};
use super::{Stacks, change_set};
use crate::wire::{Form, Refusal, Reply, Request, Xml};
use asked::{asked, is_true, token};
use change_sets::{create_change_set, describe_change_set, execute_change_set};
use described::{
    describe_events, describe_resource, describe_resources, describe_stacks, get_template, list_exports,
    list_resources, list_stacks, summarise,
};

/// The namespace of its XML.
const NAMESPACE: &str = "http://cloudformation.amazonaws.com/doc/2010-05-15/";

/// The calls that begin an operation on a stack.
const BEGINNINGS: [&str; 4] = ["CreateStack", "UpdateStack", "DeleteStack", "ExecuteChangeSet"];

/// How long the answer to such a call waits for the end of the operation.
const HELD: Duration = Duration::from_secs(1);

/// How often to look whether it has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Serves a request.
pub(super) async fn serve(stacks: &Arc<Stacks>, request: &Request) -> Reply {
    let form = Form::read(request);
    let action = form.get("Action").unwrap_or_default().to_owned();
    let region = request.region();
    let stacks = Arc::clone(stacks);
    let at_work = stacks.at_work();
    // Reading templates and records takes some milliseconds, and the operations themselves have tasks of their own.
    let named = action.clone();
    let begun = form
        .get("StackName")
        .filter(|_| BEGINNINGS.contains(&named.as_str()) && polls_slowly(request));
    let begun = begun.map(str::to_owned);
    let looking = Arc::clone(&stacks);
    let runtime = tokio::runtime::Handle::current();
    let answered = tokio::task::spawn_blocking(move || {
        let _inside = runtime.enter();
        let answered = answer(&stacks, &named, &form, region);
        drop(at_work);
        answered
    });
    match answered.await {
        Ok(Ok(xml)) => {
            if let Some(name) = begun {
                soon_over(&looking, &name).await;
            }
            Reply::query_xml(&action, NAMESPACE, &xml)
        }
        Ok(Err(refusal)) => refusal.query_xml(NAMESPACE),
        Err(err) => Refusal::internal(&err).query_xml(NAMESPACE),
    }
}

/// Whether a request comes from botocore. Its waiters look at a stack at once, and then every 30 seconds.
fn polls_slowly(request: &Request) -> bool {
    let agent = request
        .header("user-agent")
        .unwrap_or_default()
        .to_ascii_lowercase();
    ["botocore", "boto3", "aws-cli"]
        .iter()
        .any(|name| agent.contains(name))
}

/// Waits a moment for the end of an operation on a stack.
async fn soon_over(stacks: &Arc<Stacks>, name: &str) {
    let over = async {
        while matches!(stacks.find(name), Ok(Some(stack)) if stack.is_busy()) {
            tokio::time::sleep(LOOK).await;
        }
    };
    // If it takes longer, the client finds out by asking.
    let _ = tokio::time::timeout(HELD, over).await;
}

fn answer(stacks: &Arc<Stacks>, action: &str, form: &Form, region: String) -> Result<Xml, Refusal> {
    match action {
        "CreateStack" => create(stacks, form, region),
        "UpdateStack" => update(stacks, form),
        "DeleteStack" => delete(stacks, form),
        "DescribeStacks" => describe_stacks(stacks, form),
        "ListStacks" => list_stacks(stacks, form),
        "DescribeStackEvents" => describe_events(stacks, form),
        "DescribeStackResource" => describe_resource(stacks, form),
        "DescribeStackResources" => describe_resources(stacks, form),
        "ListStackResources" => list_resources(stacks, form),
        "GetTemplate" => get_template(stacks, form),
        "GetTemplateSummary" | "ValidateTemplate" => summarise(stacks, action, form),
        "CreateChangeSet" => create_change_set(stacks, form, region),
        "DescribeChangeSet" => describe_change_set(stacks, form),
        "ExecuteChangeSet" => execute_change_set(stacks, form),
        "DeleteChangeSet" => {
            change_set::delete(stacks, form.need("ChangeSetName")?, form.get("StackName"))?;
            Ok(Xml::default())
        }
        "ListExports" => list_exports(stacks, form),
        "UpdateTerminationProtection" => protect(stacks, form),
        other => Err(Refusal::unsupported("CloudFormation", other)),
    }
}

fn create(stacks: &Arc<Stacks>, form: &Form, region: String) -> Result<Xml, Refusal> {
    let on_failure = match (form.get("OnFailure"), is_true(form, "DisableRollback")) {
        (None, false) | (Some("ROLLBACK"), _) => OnFailure::Rollback,
        (None, true) | (Some("DO_NOTHING"), _) => OnFailure::Nothing,
        (Some("DELETE"), _) => OnFailure::Delete,
        (Some(other), _) => {
            return Err(Refusal::new(
                "ValidationError",
                format!("OnFailure is {other}; it must be ROLLBACK, DELETE or DO_NOTHING"),
            ));
        }
    };
    let creation = Creation {
        region,
        on_failure,
        protected: is_true(form, "EnableTerminationProtection"),
        token: token(form),
    };
    let asked = asked(stacks, form, true)?;
    let stack = start::create(stacks, form.need("StackName")?, asked, &creation)?;
    let mut xml = Xml::default();
    xml.element("StackId", &stack.id);
    Ok(xml)
}

fn update(stacks: &Arc<Stacks>, form: &Form) -> Result<Xml, Refusal> {
    let asked = asked(stacks, form, false)?;
    let stack = start::update(stacks, form.need("StackName")?, asked, token(form))?;
    let mut xml = Xml::default();
    xml.element("StackId", &stack.id);
    Ok(xml)
}

fn delete(stacks: &Arc<Stacks>, form: &Form) -> Result<Xml, Refusal> {
    start::delete(
        stacks,
        form.need("StackName")?,
        &form.list("RetainResources"),
        token(form),
    )?;
    Ok(Xml::default())
}

fn protect(stacks: &Arc<Stacks>, form: &Form) -> Result<Xml, Refusal> {
    let mut stack = stacks.need(form.need("StackName")?)?;
    if stack.is_busy() {
        return Err(Refusal::new(
            "ValidationError",
            format!(
                "Stack [{}] is {}; try again when that is over",
                stack.name, stack.status
            ),
        ));
    }
    stack.protected = is_true(form, "EnableTerminationProtection");
    stacks.save(&stack)?;
    let mut xml = Xml::default();
    xml.element("StackId", &stack.id);
    Ok(xml)
}

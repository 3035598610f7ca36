//! The calls of CloudFormation's API, and its XML.

use std::sync::Arc;

use super::change_set::{self, Change, ChangeSet, Named};
use super::record::{Event, OnFailure, Resource, STACK, Stack, stack_name};
use super::start::{self, Asked, Creation};
use super::templates::{importers, values_of};
use super::{REMEMBERED_MS, Stacks};
use crate::clock::{iso, now_ms};
use crate::template::{Given, GivenValue, Template};
use crate::wire::{Form, Refusal, Reply, Request, Xml, decoded};

/// The namespace of its XML.
const NAMESPACE: &str = "http://cloudformation.amazonaws.com/doc/2010-05-15/";

/// How many events, stacks or exports a page has.
const PAGE: usize = 100;

/// Serves a request.
pub(super) async fn serve(stacks: &Arc<Stacks>, request: &Request) -> Reply {
    let form = Form::read(request);
    let action = form.get("Action").unwrap_or_default().to_owned();
    let region = request.region();
    let stacks = Arc::clone(stacks);
    let at_work = stacks.at_work();
    // Reading templates and records takes some milliseconds, and the operations themselves have tasks of their own.
    let named = action.clone();
    let runtime = tokio::runtime::Handle::current();
    let answered = tokio::task::spawn_blocking(move || {
        let _inside = runtime.enter();
        let answered = answer(&stacks, &named, &form, region);
        drop(at_work);
        answered
    });
    match answered.await {
        Ok(Ok(xml)) => Reply::query_xml(&action, NAMESPACE, &xml),
        Ok(Err(refusal)) => refusal.query_xml(NAMESPACE),
        Err(err) => Refusal::internal(&err).query_xml(NAMESPACE),
    }
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
        "ListChangeSets" => list_change_sets(stacks, form),
        "ExecuteChangeSet" => execute_change_set(stacks, form),
        "DeleteChangeSet" => {
            change_set::delete(stacks, form.need("ChangeSetName")?, form.get("StackName"))?;
            Ok(Xml::default())
        }
        "ListExports" => list_exports(stacks, form),
        "ListImports" => list_imports(stacks, form),
        "UpdateTerminationProtection" => protect(stacks, form),
        other => Err(Refusal::unsupported("CloudFormation", other)),
    }
}

// Asking.

fn asked(stacks: &Stacks, form: &Form, is_new: bool) -> Result<Asked, Refusal> {
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
fn template(stacks: &Stacks, form: &Form, is_new: bool) -> Result<Option<String>, Refusal> {
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

fn token(form: &Form) -> Option<String> {
    form.get("ClientRequestToken").map(str::to_owned)
}

fn is_true(form: &Form, name: &str) -> bool {
    form.get(name)
        .is_some_and(|text| text.eq_ignore_ascii_case("true"))
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

// Stacks.

/// A page of a list, and the token of the next.
fn page<T>(items: Vec<T>, form: &Form) -> Result<(Vec<T>, Option<String>), Refusal> {
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

fn describe_stacks(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
    let found = if let Some(name) = form.get("StackName").filter(|name| !name.is_empty()) {
        vec![stacks.need(name)?]
    } else {
        let mut all = stacks.live()?;
        all.sort_by_key(|stack| -stack.created);
        all
    };
    let (found, next) = page(found, form)?;
    let mut xml = Xml::default();
    xml.members("Stacks", found, |xml, stack| describe(xml, &stack))
        .optional("NextToken", next.as_deref());
    Ok(xml)
}

fn describe(xml: &mut Xml, stack: &Stack) {
    let template = Template::parse_stored(&stack.wanted.template).ok();
    let description = template.as_ref().and_then(|template| template.description());
    let shown = template
        .as_ref()
        .and_then(|template| values_of(template, &stack.wanted.parameters).ok());
    let on_failure = matches!(stack.on_failure, OnFailure::Nothing);
    xml.element("StackId", &stack.id)
        .element("StackName", &stack.name)
        .optional("ChangeSetId", stack.change_set.as_deref())
        .optional("Description", description)
        .members("Parameters", &stack.wanted.parameters, |xml, (name, value)| {
            let value = shown
                .as_ref()
                .and_then(|values| values.shown(name))
                .unwrap_or(value);
            xml.element("ParameterKey", name).element("ParameterValue", value);
        })
        .element("CreationTime", &iso(stack.created))
        .optional("LastUpdatedTime", stack.updated.map(iso).as_deref())
        .optional("DeletionTime", stack.deleted.map(iso).as_deref())
        .element("StackStatus", &stack.status)
        .optional("StackStatusReason", stack.reason.as_deref())
        .element("DisableRollback", if on_failure { "true" } else { "false" })
        .members("NotificationARNs", &stack.wanted.notification_arns, |xml, arn| {
            xml.text(arn);
        })
        .members("Capabilities", &stack.wanted.capabilities, |xml, capability| {
            xml.text(capability);
        })
        .members("Outputs", &stack.outputs, |xml, output| {
            xml.element("OutputKey", &output.key)
                .element("OutputValue", &output.value)
                .optional("Description", output.description.as_deref())
                .optional("ExportName", output.export.as_deref());
        })
        .optional("RoleARN", stack.wanted.role_arn.as_deref())
        .members("Tags", &stack.wanted.tags, |xml, (key, value)| {
            xml.element("Key", key).element("Value", value);
        })
        .element(
            "EnableTerminationProtection",
            if stack.protected { "true" } else { "false" },
        )
        .nest("DriftInformation", |xml| {
            xml.element("StackDriftStatus", "NOT_CHECKED");
        });
}

fn list_stacks(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
    let wanted = form.list("StackStatusFilter");
    let mut found = stacks.live()?;
    found.extend(stacks.gone()?);
    let now = now_ms();
    found.retain(|stack| {
        let is_wanted = wanted.is_empty() || wanted.contains(&stack.status.as_str());
        is_wanted && stack.deleted.is_none_or(|deleted| now - deleted < REMEMBERED_MS)
    });
    found.sort_by_key(|stack| -stack.created);
    let (found, next) = page(found, form)?;
    let mut xml = Xml::default();
    xml.members("StackSummaries", found, |xml, stack| {
        xml.element("StackId", &stack.id)
            .element("StackName", &stack.name)
            .element("CreationTime", &iso(stack.created))
            .optional("LastUpdatedTime", stack.updated.map(iso).as_deref())
            .optional("DeletionTime", stack.deleted.map(iso).as_deref())
            .element("StackStatus", &stack.status)
            .optional("StackStatusReason", stack.reason.as_deref())
            .nest("DriftInformation", |xml| {
                xml.element("StackDriftStatus", "NOT_CHECKED");
            });
    })
    .optional("NextToken", next.as_deref());
    Ok(xml)
}

fn describe_events(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
    let stack = stacks.need(form.need("StackName")?)?;
    let before = match form.get("NextToken") {
        None => None,
        Some(token) => Some(token.parse().map_err(|_| {
            Refusal::new(
                "ValidationError",
                format!("NextToken is {token}, which no earlier answer gave"),
            )
        })?),
    };
    let (events, next) = stacks.events(&stack.id, before, PAGE)?;
    let mut xml = Xml::default();
    xml.members("StackEvents", &events, describe_event)
        .optional("NextToken", next.map(|next| next.to_string()).as_deref());
    Ok(xml)
}

fn describe_event(xml: &mut Xml, event: &Event) {
    xml.element("StackId", &event.stack)
        .element("EventId", &event.id)
        .element("StackName", &event.name)
        .element("LogicalResourceId", &event.logical)
        .element("PhysicalResourceId", &event.physical)
        .element("ResourceType", &event.kind)
        .element("Timestamp", &iso(event.at))
        .element("ResourceStatus", &event.status)
        .optional("ResourceStatusReason", event.reason.as_deref())
        .optional(
            "ResourceProperties",
            event.properties.as_deref().filter(|_| event.kind != STACK),
        )
        .optional("ClientRequestToken", event.token.as_deref());
}

// Resources.

fn resource_fields(xml: &mut Xml, id: &str, resource: &Resource, time: &str) {
    xml.element("LogicalResourceId", id)
        .element("PhysicalResourceId", &resource.physical)
        .element("ResourceType", &resource.kind)
        .element(time, &iso(resource.at))
        .element("ResourceStatus", &resource.status)
        .optional("ResourceStatusReason", resource.reason.as_deref())
        .nest("DriftInformation", |xml| {
            xml.element("StackResourceDriftStatus", "NOT_CHECKED");
        });
}

fn describe_resource(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
    let stack = stacks.need(form.need("StackName")?)?;
    let id = form.need("LogicalResourceId")?;
    let resource = stack.resources.get(id).ok_or_else(|| {
        Refusal::new(
            "ValidationError",
            format!("Resource {id} does not exist for stack {}", stack.name),
        )
    })?;
    let mut xml = Xml::default();
    xml.nest("StackResourceDetail", |xml| {
        xml.element("StackId", &stack.id)
            .element("StackName", &stack.name);
        resource_fields(xml, id, resource, "LastUpdatedTimestamp");
    });
    Ok(xml)
}

fn describe_resources(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
    let wanted = form.get("LogicalResourceId");
    let stack = match (form.get("StackName"), form.get("PhysicalResourceId")) {
        (Some(name), _) => stacks.need(name)?,
        (None, Some(physical)) => {
            let mut all = stacks.live()?.into_iter();
            let has = |stack: &Stack| {
                stack
                    .resources
                    .values()
                    .any(|resource| resource.physical == physical)
            };
            all.find(has).ok_or_else(|| {
                Refusal::new("ValidationError", format!("Stack for {physical} does not exist"))
            })?
        }
        (None, None) => {
            return Err(Refusal::new(
                "ValidationError",
                "StackName or PhysicalResourceId must be specified",
            ));
        }
    };
    let mut xml = Xml::default();
    let found = stack
        .resources
        .iter()
        .filter(|(id, _)| wanted.is_none_or(|wanted| wanted == *id));
    xml.members("StackResources", found, |xml, (id, resource)| {
        xml.element("StackId", &stack.id)
            .element("StackName", &stack.name);
        resource_fields(xml, id, resource, "Timestamp");
    });
    Ok(xml)
}

fn list_resources(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
    let stack = stacks.need(form.need("StackName")?)?;
    let (found, next) = page(stack.resources.iter().collect(), form)?;
    let mut xml = Xml::default();
    xml.members("StackResourceSummaries", found, |xml, (id, resource)| {
        resource_fields(xml, id, resource, "LastUpdatedTimestamp");
    })
    .optional("NextToken", next.as_deref());
    Ok(xml)
}

// Templates.

fn get_template(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
    let text = match form.get("ChangeSetName") {
        Some(set) => {
            change_set::need(stacks, set, form.get("StackName"))?
                .wanted
                .template
        }
        None => stacks.need(form.need("StackName")?)?.wanted.template,
    };
    let mut xml = Xml::default();
    xml.element("TemplateBody", &text)
        .members("StagesAvailable", ["Original", "Processed"], |xml, stage| {
            xml.text(stage);
        });
    Ok(xml)
}

fn summarise(stacks: &Stacks, action: &str, form: &Form) -> Result<Xml, Refusal> {
    let text = match form.get("StackName") {
        Some(name) => stacks.need(name)?.wanted.template,
        None => template(stacks, form, true)?.unwrap_or_default(),
    };
    let template = Template::parse_stored(&text)?;
    let validates = action == "ValidateTemplate";
    let mut xml = Xml::default();
    xml.members("Parameters", template.parameters(), |xml, (name, parameter)| {
        let no_echo = if parameter.no_echo() { "true" } else { "false" };
        xml.element("ParameterKey", name)
            .optional("DefaultValue", parameter.default())
            .element("NoEcho", no_echo)
            .optional("Description", parameter.description());
        if !validates {
            xml.element("ParameterType", &parameter.kind().to_string());
            if !parameter.allowed_values().is_empty() {
                xml.nest("ParameterConstraints", |xml| {
                    xml.members("AllowedValues", parameter.allowed_values(), |xml, value| {
                        xml.text(value);
                    });
                });
            }
        }
    })
    .optional("Description", template.description());
    if let Some(capabilities) = template.capabilities() {
        xml.members("Capabilities", [capabilities.required], |xml, capability| {
            xml.text(capability);
        })
        .element("CapabilitiesReason", &capabilities.reason);
    }
    if !validates {
        xml.members("ResourceTypes", template.resource_types(), |xml, kind| {
            xml.text(kind);
        })
        .element("Version", "2010-09-09");
    }
    Ok(xml)
}

// Change sets.

fn create_change_set(stacks: &Arc<Stacks>, form: &Form, region: String) -> Result<Xml, Refusal> {
    let creates = match form.get("ChangeSetType").unwrap_or("UPDATE") {
        "CREATE" => true,
        "UPDATE" => false,
        other => {
            return Err(Refusal::new(
                "ValidationError",
                format!("ChangeSetType is {other}; the local endpoint has CREATE and UPDATE"),
            ));
        }
    };
    let named = Named {
        name: form.need("ChangeSetName")?.to_owned(),
        description: form.get("Description").map(str::to_owned),
        creates,
    };
    let creation = Creation {
        region,
        ..Creation::default()
    };
    let asked = asked(stacks, form, creates)?;
    let set = change_set::create(stacks, form.need("StackName")?, named, asked, &creation)?;
    let mut xml = Xml::default();
    xml.element("Id", &set.id).element("StackId", &set.stack);
    Ok(xml)
}

fn describe_change_set(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
    let set = change_set::need(stacks, form.need("ChangeSetName")?, form.get("StackName"))?;
    let (changes, next) = page(set.changes.iter().collect(), form)?;
    let mut xml = Xml::default();
    change_set_fields(&mut xml, &set);
    xml.members("Parameters", &set.wanted.parameters, |xml, (name, value)| {
        xml.element("ParameterKey", name).element("ParameterValue", value);
    })
    .members("Capabilities", &set.wanted.capabilities, |xml, capability| {
        xml.text(capability);
    })
    .members("Tags", &set.wanted.tags, |xml, (key, value)| {
        xml.element("Key", key).element("Value", value);
    })
    .members("Changes", changes, |xml, change| {
        xml.element("Type", "Resource");
        xml.nest("ResourceChange", |xml| describe_change(xml, change));
    })
    .optional("NextToken", next.as_deref());
    Ok(xml)
}

fn change_set_fields(xml: &mut Xml, set: &ChangeSet) {
    xml.element("ChangeSetName", &set.name)
        .element("ChangeSetId", &set.id)
        .element("StackId", &set.stack)
        .element("StackName", stack_name(&set.stack))
        .optional("Description", set.description.as_deref())
        .element("CreationTime", &iso(set.created))
        .element("ExecutionStatus", &set.execution)
        .element("Status", &set.status)
        .optional("StatusReason", set.reason.as_deref());
}

fn describe_change(xml: &mut Xml, change: &Change) {
    xml.element("Action", &change.action)
        .element("LogicalResourceId", &change.logical)
        .optional("PhysicalResourceId", change.physical.as_deref())
        .element("ResourceType", &change.kind)
        .optional("Replacement", change.replacement.as_deref())
        .members("Scope", &change.scope, |xml, scope| {
            xml.text(scope);
        })
        .members("Details", &change.details, |xml, detail| {
            xml.nest("Target", |xml| {
                xml.element("Attribute", &detail.attribute)
                    .optional("Name", detail.name.as_deref())
                    .element("RequiresRecreation", &detail.recreation);
            })
            .element("Evaluation", &detail.evaluation)
            .element("ChangeSource", &detail.source)
            .optional("CausingEntity", detail.cause.as_deref());
        });
}

fn list_change_sets(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
    let stack = stacks.need(form.need("StackName")?)?;
    let (found, next) = page(change_set::all(stacks, &stack.id)?, form)?;
    let mut xml = Xml::default();
    xml.members("Summaries", &found, change_set_fields)
        .optional("NextToken", next.as_deref());
    Ok(xml)
}

fn execute_change_set(stacks: &Arc<Stacks>, form: &Form) -> Result<Xml, Refusal> {
    change_set::execute(
        stacks,
        form.need("ChangeSetName")?,
        form.get("StackName"),
        token(form),
    )?;
    Ok(Xml::default())
}

// Exports.

fn list_exports(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
    let (found, next) = page(stacks.exports()?, form)?;
    let mut xml = Xml::default();
    xml.members("Exports", found, |xml, (name, stack, value)| {
        xml.element("ExportingStackId", &stack)
            .element("Name", &name)
            .element("Value", &value);
    })
    .optional("NextToken", next.as_deref());
    Ok(xml)
}

fn list_imports(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
    let export = form.need("ExportName")?;
    let found = importers(stacks, export)?;
    if found.is_empty() {
        return Err(Refusal::new(
            "ValidationError",
            format!("Export '{export}' is not imported by any stack."),
        ));
    }
    let (found, next) = page(found, form)?;
    let mut xml = Xml::default();
    xml.members("Imports", found, |xml, name| {
        xml.text(&name);
    })
    .optional("NextToken", next.as_deref());
    Ok(xml)
}

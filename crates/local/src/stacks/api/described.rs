//! Stacks, their events, resources, exports and templates, as the API describes them.

use super::asked::{PAGE, page, template};
use crate::clock::{iso, now_ms};
use crate::stacks::change_set;
use crate::stacks::record::{Event, OnFailure, Resource, STACK, Stack};
use crate::stacks::templates::values_of;
use crate::stacks::{REMEMBERED_MS, Stacks};
use crate::template::Template;
use crate::wire::{Form, Refusal, Xml};

pub(super) fn describe_stacks(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
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

pub(super) fn list_stacks(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
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

pub(super) fn describe_events(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
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

pub(super) fn describe_resource(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
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

pub(super) fn describe_resources(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
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

pub(super) fn list_resources(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
    let stack = stacks.need(form.need("StackName")?)?;
    let (found, next) = page(stack.resources.iter().collect(), form)?;
    let mut xml = Xml::default();
    xml.members("StackResourceSummaries", found, |xml, (id, resource)| {
        resource_fields(xml, id, resource, "LastUpdatedTimestamp");
    })
    .optional("NextToken", next.as_deref());
    Ok(xml)
}

pub(super) fn list_exports(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
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

pub(super) fn get_template(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
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

pub(super) fn summarise(stacks: &Stacks, action: &str, form: &Form) -> Result<Xml, Refusal> {
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

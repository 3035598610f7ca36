//! The calls that concern change sets.

use std::sync::Arc;

use super::asked::{asked, page, token};
use crate::clock::iso;
use crate::stacks::Stacks;
use crate::stacks::change_set::{self, Change, ChangeSet, Named};
use crate::stacks::record::stack_name;
use crate::stacks::start::Creation;
use crate::wire::{Form, Refusal, Xml};

pub(super) fn create_change_set(stacks: &Arc<Stacks>, form: &Form, region: String) -> Result<Xml, Refusal> {
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

pub(super) fn describe_change_set(stacks: &Stacks, form: &Form) -> Result<Xml, Refusal> {
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

pub(super) fn execute_change_set(stacks: &Arc<Stacks>, form: &Form) -> Result<Xml, Refusal> {
    change_set::execute(
        stacks,
        form.need("ChangeSetName")?,
        form.get("StackName"),
        token(form),
    )?;
    Ok(Xml::default())
}

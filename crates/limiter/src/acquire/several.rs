//! Several resources in one acquire: what a call may name.

use zae_limiter_core::{IntoName, InvalidInput, LimitName, ResourceName};

use crate::acquire::limiter::{Amounts, add};

/// How many resources an acquire may name.
const MOST: usize = 16;

/// Further resources with their amounts.
pub(super) type Also = Vec<(ResourceName, Amounts)>;

/// Adds a resource, unless one before it was refused.
pub(super) fn add_resource<L: IntoName<LimitName>>(
    also: &mut Result<Also, InvalidInput>,
    resource: impl IntoName<ResourceName>,
    amounts: impl IntoIterator<Item = (L, u64)>,
) {
    let Ok(list) = also else { return };
    match checked(list, resource, amounts) {
        Ok(part) => list.push(part),
        Err(err) => *also = Err(err),
    }
}

fn checked<L: IntoName<LimitName>>(
    before: &Also,
    resource: impl IntoName<ResourceName>,
    amounts: impl IntoIterator<Item = (L, u64)>,
) -> Result<(ResourceName, Amounts), InvalidInput> {
    let resource = resource.into_name().map_err(|err| err.in_field("also"))?;
    if before.len() + 1 >= MOST {
        let reason = format!("is one resource too many; an acquire may name {MOST}, the first one included");
        return Err(InvalidInput::of_request("also", resource, reason));
    }
    if before.iter().any(|(named, _)| *named == resource) {
        return Err(given_twice(&resource));
    }
    let field = format!("also.{resource}");
    let mut checked = Ok(Amounts::new());
    for (limit, tokens) in amounts {
        add(&mut checked, &field, limit, tokens);
    }
    let amounts = checked?;
    if amounts.is_empty() {
        return Err(InvalidInput::of_request(
            field,
            "nothing",
            "must name at least one limit",
        ));
    }
    Ok((resource, amounts))
}

/// Checks the further resources of a call against the rest of it.
pub(super) fn check(also: &Also, resource: &ResourceName, brings_limits: bool) -> Result<(), InvalidInput> {
    let Some((first, _)) = also.first() else {
        return Ok(());
    };
    if also.iter().any(|(named, _)| named == resource) {
        return Err(given_twice(resource));
    }
    if brings_limits {
        let reason = "cannot be used with limits of the call: they are of one resource; store limits for each resource";
        return Err(InvalidInput::of_request("also", first, reason));
    }
    Ok(())
}

fn given_twice(resource: &ResourceName) -> InvalidInput {
    let reason = "is given twice; name each resource once, with all its amounts";
    InvalidInput::of_request("also", resource, reason)
}

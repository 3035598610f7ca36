//! What tasks acquire, beside the limits that the file sets. A test has a namespace of its own, so there are no others.

use zae_limiter::Limit;

use super::{FileError, field};
use crate::scenario::{Action, Scenario};

/// Refuses tasks whose calls would all fail, or all be refused.
pub(super) fn check(scenario: &Scenario) -> Result<(), FileError> {
    for (number, class) in scenario.classes.iter().enumerate() {
        for (place, task) in class.tasks.iter().enumerate() {
            let path = format!("users[{number}].tasks[{place}]");
            for resource in &task.resources {
                let limits = limits_of(scenario, resource);
                if limits.is_empty() {
                    let why = format!("'{resource}' has no limits; set them under 'resources' or 'system'");
                    return field(format!("{path}.resources"), why);
                }
                if let Action::Acquire { consume, .. } = &task.action {
                    for (name, amount) in consume {
                        check_amount(
                            &format!("{path}.acquire.{name}"),
                            resource,
                            limits,
                            name,
                            *amount.start(),
                        )?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// The limits of the resource, or else those of the system.
fn limits_of<'s>(scenario: &'s Scenario, resource: &str) -> &'s [Limit] {
    let own = scenario.setup.resources.iter().find(|(name, _)| name == resource);
    own.map_or(&scenario.setup.system, |(_, limits)| limits)
}

fn check_amount(
    path: &str,
    resource: &str,
    limits: &[Limit],
    name: &str,
    least: u64,
) -> Result<(), FileError> {
    let Some(limit) = limits.iter().find(|limit| limit.name().as_str() == name) else {
        let known: Vec<&str> = limits.iter().map(|limit| limit.name().as_str()).collect();
        return field(
            path,
            format!("'{resource}' has no such limit; it has {}", known.join(", ")),
        );
    };
    if least > limit.capacity() {
        let why = format!(
            "{least} is more than the capacity of '{resource}', {}: no call would be admitted",
            limit.capacity()
        );
        return field(path, why);
    }
    Ok(())
}

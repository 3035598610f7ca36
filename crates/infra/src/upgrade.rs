//! Bringing a stack to this release's template and functions.

use std::collections::BTreeMap;
use std::fmt;

use aws_sdk_cloudformation::types as sdk;
use zae_limiter_core::InvalidInput;

use crate::code::CodeLocation;
use crate::deploy::{Functions, UPDATED, as_before, is_new, ours, sdk_tags, value_of};
use crate::error::{Error, failed};
use crate::options::LEAN_INDEX;
use crate::package::{Package, PackageSource};
use crate::summary::StackSummary;
use crate::tags::{self, Tags};
use crate::template::{FUNCTION_ARCHITECTURE, FUNCTION_CODE_BUCKET, FUNCTION_CODE_KEY, TEMPLATE};
use crate::{Progress, StackManager, names};

/// The parameters that follow from the package.
const CODE: [&str; 3] = [FUNCTION_CODE_BUCKET, FUNCTION_CODE_KEY, FUNCTION_ARCHITECTURE];

/// What an upgrade changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeScope {
    /// All: the stack gets this release's template.
    Template,
    /// Parameters, tags and the functions' code; the stack keeps its template.
    Settings,
    /// The functions' code.
    Code,
}

/// The options of an upgrade.
#[derive(Debug, Clone)]
pub struct Upgrade<'a> {
    /// The stack.
    pub stack: &'a str,
    /// The package of its functions; read only if it has functions.
    pub package: &'a PackageSource,
    /// The bucket that the functions' code is put in; `None` is one of the account's own.
    pub code_bucket: Option<&'a str>,
    /// What changes.
    pub scope: UpgradeScope,
    /// Whether resources other than the table may be removed or replaced.
    pub allow_removal: bool,
    /// Parameters to change. All others keep their values.
    pub parameters: &'a BTreeMap<String, String>,
    /// Tags of the user's to add.
    pub tags: &'a Tags,
    /// Whether to put the code into the functions even if they have it.
    pub force: bool,
    /// Whether to wait until it is done.
    pub wait: bool,
}

impl Upgrade<'_> {
    /// Checks everything that can be known to be wrong before AWS is called.
    ///
    /// # Errors
    /// Names the parameter that the template does not have, or that cannot be changed this way.
    pub fn check(&self) -> Result<(), InvalidInput> {
        crate::stack::checked(self.stack)?;
        check_parameters(self)
    }
}

/// A change of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `Add`, `Modify` or `Remove`.
    pub action: String,
    /// The resource's name in the template.
    pub logical_id: String,
    /// Its type.
    pub resource_type: String,
    /// Whether it is replaced: `True`, `False` or `Conditional`; empty if CloudFormation does not say.
    pub replacement: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.action, self.logical_id, self.resource_type)
    }
}

/// An upgrade that was prepared. Nothing has changed yet: it must be [applied](StackManager::apply) or
/// [discarded](StackManager::discard).
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[must_use = "a prepared upgrade is applied or discarded"]
pub struct Plan {
    /// The stack as it is.
    pub stack: StackSummary,
    /// The changes by the new template and parameters, in the template's order.
    pub changes: Vec<Change>,
    /// The functions that run Python, which would be replaced.
    pub python: Vec<String>,
    /// Whether the functions get other code.
    pub new_code: bool,
    /// Whether tags change.
    pub new_tags: bool,
    change_set: Option<String>,
    code: Option<(Package, CodeLocation)>,
    tags: Tags,
    force: bool,
    wait: bool,
}

impl Plan {
    /// Whether there is nothing to do to the stack.
    pub fn is_empty(&self) -> bool {
        self.change_set.is_none() && !self.new_code && !self.new_tags && !self.force
    }

    /// Whether the functions get their code even if they have it.
    pub const fn force(&self) -> bool {
        self.force
    }
}

/// The result of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgraded {
    /// The stack as it is now.
    pub stack: StackSummary,
    /// The result for the functions.
    pub functions: Functions,
    /// The functions whose code had been changed outside the stack, and which have the stack's code again.
    pub mended: Vec<String>,
}

impl StackManager {
    /// Prepares an upgrade, and returns what it would change.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::State`]; [`Error::Refused`] if the template would remove or replace resources;
    /// [`Error::InvalidInput`] for parameters that it does not have.
    pub async fn plan(
        &self,
        wanted: &Upgrade<'_>,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Plan, Error> {
        wanted.check()?;
        let Some(found) = self.existing(wanted.stack).await? else {
            return Err(Error::NotFound {
                stack: wanted.stack.to_owned(),
            });
        };
        if found.is_in_progress() {
            return Err(Error::State {
                stack: found.name,
                status: found.status,
                advice: "wait until that is done, then upgrade",
            });
        }
        let found = found.usable()?;
        check_fixed(wanted, &found.parameters)?;
        let mut then = found.clone();
        then.parameters.extend(wanted.parameters.clone());
        if wanted.scope == UpgradeScope::Code && !found.takes_code() {
            return Err(Error::State {
                stack: found.name,
                status: "deployed by another template".into(),
                advice: "its functions cannot run this project's code; upgrade without --lambda-only",
            });
        }
        let python = self.python_functions(wanted.stack).await?;
        names::check(wanted.stack, then.wants_aggregator(), then.wants_provisioner())?;
        let mut code = None;
        // A template of the Python tool does not take it.
        let takes_code = wanted.scope != UpgradeScope::Settings || found.takes_code();
        if !then.wanted_functions().is_empty() && takes_code {
            let package = wanted.package.load_aside().await?;
            let location = self
                .upload(&package, wanted.code_bucket, wanted.force, progress)
                .await?;
            code = Some((package, location));
        }
        let tags = tags::merged(wanted.stack, &found.tags, wanted.tags)?;
        let current = |key: &String| found.tags.get(key);
        let mut plan = Plan {
            new_code: code.as_ref().is_some_and(|(_, code)| is_new(&found, code)),
            new_tags: tags.iter().any(|(key, value)| current(key) != Some(value)),
            changes: Vec::new(),
            change_set: None,
            stack: found,
            force: wanted.force,
            wait: wanted.wait,
            python,
            code,
            tags,
        };
        if wanted.scope != UpgradeScope::Code {
            self.make_change_set(&mut plan, wanted, progress).await?;
        }
        Ok(plan)
    }

    /// Gives a prepared upgrade up.
    pub async fn discard(&self, plan: Plan) -> Result<(), Error> {
        match &plan.change_set {
            Some(id) => self.delete_change_set(id).await,
            None => Ok(()),
        }
    }

    /// Does what was prepared, and waits for it.
    ///
    /// # Errors
    /// [`Error::Operation`] if it failed, and was rolled back.
    pub async fn apply(
        &self,
        plan: Plan,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Upgraded, Error> {
        let found = &plan.stack;
        let mut stack = found.clone();
        if let Some(id) = &plan.change_set {
            let since = self.newest_event(&found.id).await;
            progress(Progress::Updating);
            let execute = self.clients.stacks.execute_change_set().change_set_name(id);
            execute.send().await.map_err(failed("ExecuteChangeSet"))?;
            if !plan.wait {
                return Ok(Upgraded {
                    stack: StackSummary {
                        status: "UPDATE_IN_PROGRESS".to_owned(),
                        ..found.clone()
                    },
                    functions: Functions::Unknown,
                    mended: Vec::new(),
                });
            }
            let ended = self.finished(&found.id, since.as_deref(), progress).await?;
            stack = ended.expect(&found.name, &UPDATED)?;
        } else if plan.new_tags || plan.new_code {
            let code = plan.code.as_ref().filter(|_| plan.new_code);
            let parameters = code
                .map(|(_, code)| code.parameters())
                .into_iter()
                .flatten()
                .collect();
            stack = self
                .update(found, parameters, &plan.tags, plan.wait, progress)
                .await?;
        }
        let (mut functions, mut mended) = (Functions::None, Vec::new());
        if let Some((package, code)) = &plan.code {
            mended = self.mend(&stack, package, code, plan.force).await?;
            functions = ours(package, plan.new_code || !mended.is_empty());
        }
        Ok(Upgraded {
            stack,
            functions,
            mended,
        })
    }

    async fn make_change_set(
        &self,
        plan: &mut Plan,
        wanted: &Upgrade<'_>,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<(), Error> {
        progress(Progress::Comparing);
        let found = &plan.stack;
        let mut values: BTreeMap<&str, String> = wanted
            .parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect();
        if let Some((_, code)) = plan.code.as_ref().filter(|_| plan.new_code) {
            values.extend(code.parameters());
        }
        let declared: Vec<&str> = if wanted.scope == UpgradeScope::Settings {
            found.parameters.keys().map(String::as_str).collect()
        } else {
            parameters_of(TEMPLATE)
        };
        let parameters = declared.into_iter().filter_map(|name| match values.get(name) {
            Some(value) => Some(value_of(name, value)),
            // Of the others the template's defaults hold.
            None => found.parameters.contains_key(name).then(|| as_before(name)),
        });
        let name = format!("zae-limiter-upgrade-{}", unique());
        let create = self.clients.stacks.create_change_set().stack_name(&found.name);
        let created = create
            .change_set_name(&name)
            .change_set_type(sdk::ChangeSetType::Update)
            .set_template_body((wanted.scope != UpgradeScope::Settings).then(|| TEMPLATE.to_owned()))
            .set_use_previous_template((wanted.scope == UpgradeScope::Settings).then_some(true))
            .set_parameters(Some(parameters.collect()))
            .set_tags(Some(sdk_tags(&plan.tags)))
            .capabilities(sdk::Capability::CapabilityNamedIam)
            .send()
            .await
            .map_err(failed("CreateChangeSet"));
        let id = match created {
            Ok(answer) => answer.id.unwrap_or(name),
            Err(err) if changes_nothing(&err.to_string()) => return Ok(()),
            Err(err) => return Err(err),
        };
        let changes = match self.changes(found, &id).await {
            Ok(changes) => changes,
            Err(err) => {
                // The reason matters more than what is left behind, which expires.
                let _ = self.delete_change_set(&id).await;
                return Err(err);
            }
        };
        let Some(changes) = changes else {
            return self.delete_change_set(&id).await;
        };
        let refused = refused(&changes, wanted.allow_removal);
        if !refused.is_empty() {
            self.delete_change_set(&id).await?;
            return Err(Error::Refused {
                stack: found.name.clone(),
                can_be_allowed: !refused.iter().any(|change| is_table(change)),
                resources: refused.into_iter().filter_map(loss).collect(),
            });
        }
        plan.change_set = Some(id);
        plan.changes = changes;
        Ok(())
    }

    /// The changes of a change set; `None` if there are none.
    async fn changes(&self, stack: &StackSummary, id: &str) -> Result<Option<Vec<Change>>, Error> {
        let mut looks = self.waits.looks(self.waits.change_set);
        let mut changes = Vec::new();
        let mut token: Option<String> = None;
        let wrong = |reason| Error::operation(stack, reason);
        loop {
            let call = self.clients.stacks.describe_change_set();
            let page = call
                .change_set_name(id)
                .stack_name(&stack.id)
                .set_next_token(token.take())
                .send()
                .await
                .map_err(failed("DescribeChangeSet"))?;
            match page.status() {
                Some(sdk::ChangeSetStatus::CreateComplete) => {
                    changes.extend(page.changes().iter().filter_map(change_of));
                    match page.next_token {
                        Some(next) => token = Some(next),
                        None => return Ok(Some(changes)),
                    }
                    continue;
                }
                Some(sdk::ChangeSetStatus::Failed) => {
                    let reason = page.status_reason().unwrap_or("CloudFormation gave no reason");
                    if changes_nothing(reason) {
                        return Ok(None);
                    }
                    return Err(wrong(format!("the new template was refused: {reason}")));
                }
                _ => {}
            }
            if !looks.again().await {
                let waited = self.waits.change_set.as_secs();
                return Err(wrong(format!(
                    "CloudFormation did not say within {waited} s what the new template changes"
                )));
            }
        }
    }

    async fn delete_change_set(&self, id: &str) -> Result<(), Error> {
        let call = self.clients.stacks.delete_change_set().change_set_name(id);
        call.send().await.map_err(failed("DeleteChangeSet")).map(drop)
    }
}

fn check_parameters(wanted: &Upgrade<'_>) -> Result<(), InvalidInput> {
    let declared = parameters_of(TEMPLATE);
    for (name, value) in wanted.parameters {
        let wrong = |reason: String| Err(InvalidInput::new("parameter", format!("{name}={value}"), reason));
        if wanted.scope == UpgradeScope::Code {
            return wrong(
                "cannot be changed with --lambda-only, which leaves everything but the code alone".into(),
            );
        }
        if CODE.contains(&name.as_str()) {
            return wrong("follows from the package; use --lambda-package and --code-bucket".into());
        }
        if !declared.contains(&name.as_str()) {
            return wrong(format!(
                "unknown parameter; the template has {}",
                declared.join(", ")
            ));
        }
    }
    Ok(())
}

/// Refuses another value for what is fixed when a stack is created.
fn check_fixed(wanted: &Upgrade<'_>, stored: &BTreeMap<String, String>) -> Result<(), InvalidInput> {
    let value = |parameters: &BTreeMap<String, String>| parameters.get(LEAN_INDEX).cloned();
    let stored = value(stored).unwrap_or_else(|| "false".to_owned());
    match value(wanted.parameters) {
        Some(value) if value != stored => Err(InvalidInput::new(
            "parameter",
            format!("{LEAN_INDEX}={value}"),
            format!(
                "is chosen when a stack is created, and this one has {stored}: the index would have to be deleted and built \
                 again. Deploy another stack, and move to it"
            ),
        )),
        _ => Ok(()),
    }
}

/// The parameters that a template declares: the keys below its line `Parameters:`, by their indentation.
fn parameters_of(template: &str) -> Vec<&str> {
    let section = template.lines().skip_while(|line| *line != "Parameters:").skip(1);
    section
        .take_while(|line| line.is_empty() || line.starts_with([' ', '#']))
        .filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'))
        .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric()))
        .collect()
}

fn change_of(change: &sdk::Change) -> Option<Change> {
    let change = change.resource_change()?;
    Some(Change {
        action: change
            .action()
            .map(sdk::ChangeAction::as_str)
            .unwrap_or_default()
            .to_owned(),
        logical_id: change.logical_resource_id().unwrap_or_default().to_owned(),
        resource_type: change.resource_type().unwrap_or_default().to_owned(),
        replacement: change
            .replacement()
            .map(sdk::Replacement::as_str)
            .unwrap_or_default()
            .to_owned(),
    })
}

/// The changes that lose something, and that are not allowed.
fn refused(changes: &[Change], allow_removal: bool) -> Vec<&Change> {
    let is_refused = |change: &&Change| loss(change).is_some() && (is_table(change) || !allow_removal);
    changes.iter().filter(is_refused).collect()
}

fn is_table(change: &Change) -> bool {
    change.resource_type == "AWS::DynamoDB::Table"
}

/// The loss by a change, if any.
fn loss(change: &Change) -> Option<String> {
    let what = if change.action == "Remove" {
        "would be removed"
    } else {
        match change.replacement.as_str() {
            "True" => "would be replaced",
            "Conditional" => "might be replaced",
            _ => return None,
        }
    };
    Some(format!(
        "{} ({}): {what}",
        change.logical_id, change.resource_type
    ))
}

fn changes_nothing(reason: &str) -> bool {
    reason.contains("didn't contain changes") || reason.contains("No updates are to be performed")
}

/// Twelve hexadecimal digits that no other change set of the stack is likely to have.
fn unique() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    let mut random = std::collections::hash_map::RandomState::new().build_hasher();
    random.write_u32(std::process::id());
    format!("{:012x}", random.finish() & 0xffff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_parameters_are_all_read() {
        let template: serde_json::Value = serde_saphyr::from_str(TEMPLATE).unwrap();
        let declared: Vec<&String> = template["Parameters"].as_object().unwrap().keys().collect();
        let mut read = parameters_of(TEMPLATE);
        read.sort_unstable();
        let mut expected: Vec<&str> = declared.iter().map(|name| name.as_str()).collect();
        expected.sort_unstable();
        assert_eq!(read, expected);
        for name in CODE {
            assert!(read.contains(&name), "{name}");
        }
    }

    #[test]
    fn every_parameter_that_options_set_is_declared() {
        let options = crate::StackOptions {
            pitr_recovery_days: Some(7),
            alarm_sns_topic: Some("t".into()),
            permission_boundary: Some("p".into()),
            role_name_format: Some("{}".into()),
            policy_name_format: Some("{}".into()),
            aggregator_role_arn: Some("arn".into()),
            ..crate::StackOptions::default()
        };
        let declared = parameters_of(TEMPLATE);
        let set = options.parameters("app").unwrap();
        for (name, _) in &set {
            assert!(declared.contains(name), "{name}");
        }
        // And the other way round, but for the code.
        for name in declared {
            assert!(
                CODE.contains(&name) || set.iter().any(|(set, _)| *set == name),
                "{name}"
            );
        }
    }

    #[test]
    fn changes_that_lose_data_are_told_apart() {
        let change = |action: &str, replacement: &str| Change {
            action: action.into(),
            logical_id: "T".into(),
            resource_type: "AWS::DynamoDB::Table".into(),
            replacement: replacement.into(),
        };
        assert_eq!(loss(&change("Modify", "False")), None);
        assert_eq!(loss(&change("Add", "")), None);
        let lost = |action, replacement| loss(&change(action, replacement)).unwrap();
        assert_eq!(lost("Remove", ""), "T (AWS::DynamoDB::Table): would be removed");
        assert_eq!(
            lost("Modify", "True"),
            "T (AWS::DynamoDB::Table): would be replaced"
        );
        assert_eq!(
            lost("Modify", "Conditional"),
            "T (AWS::DynamoDB::Table): might be replaced"
        );
        // A change that replaces the table is refused even if removals are allowed.
        let mut alarm = change("Remove", "");
        alarm.resource_type = "AWS::CloudWatch::Alarm".into();
        let both = [alarm, change("Modify", "True"), change("Modify", "False")];
        assert_eq!(refused(&both, false), [&both[0], &both[1]]);
        assert_eq!(refused(&both, true), [&both[1]]);
    }

    #[test]
    fn parameters_are_checked_before_anything_is_called() {
        let check = |name: &str, lambda_only, reason: &str| {
            let parameters = BTreeMap::from([(name.to_owned(), "1".to_owned())]);
            let wanted = Upgrade {
                stack: "app",
                package: &PackageSource::ThisProgram,
                code_bucket: None,
                scope: if lambda_only {
                    UpgradeScope::Code
                } else {
                    UpgradeScope::Template
                },
                allow_removal: false,
                parameters: &parameters,
                tags: &Tags::new(),
                force: false,
                wait: true,
            };
            let err = check_parameters(&wanted).unwrap_err();
            assert!(err.reason().contains(reason), "{err}");
        };
        check("Nope", false, "LambdaTimeout");
        check("FunctionCodeKey", false, "--lambda-package");
        check("LambdaTimeout", true, "--lambda-only");
    }
}

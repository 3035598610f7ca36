//! Creating a stack, and bringing one that exists up to date.

use std::collections::BTreeMap;

use aws_sdk_cloudformation::operation::update_stack::builders::UpdateStackFluentBuilder;
use aws_sdk_cloudformation::types as sdk;
use zae_limiter_core::version::FUNCTIONS_LEVEL;

use crate::code::CodeLocation;
use crate::error::{Error, failed};
use crate::options::{Parameter, StackOptions};
use crate::package::{Package, PackageSource};
use crate::summary::StackSummary;
use crate::tags::{self, Tags};
use crate::template::{FUNCTION_ARCHITECTURE, FUNCTION_CODE_KEY, TEMPLATE};
use crate::upgrade::{Upgrade, UpgradeScope};
use crate::{Progress, StackManager, names};

/// The status of a successful update.
pub(crate) const UPDATED: [&str; 1] = ["UPDATE_COMPLETE"];

/// A stack that is wanted.
#[derive(Debug, Clone)]
pub struct Deployment<'a> {
    /// Its name.
    pub stack: &'a str,
    /// How it is created if it does not exist.
    pub options: &'a StackOptions,
    /// Parameters to change if it exists, and how. All others keep their values.
    pub settings: &'a BTreeMap<String, String>,
    /// Whether a change of settings may remove or replace resources other than the table.
    pub allow_removal: bool,
    /// The package of its functions; read only if it has functions.
    pub package: &'a PackageSource,
    /// The bucket that the functions' code is put in; `None` is one of the account's own.
    pub code_bucket: Option<&'a str>,
    /// Whether to wait until it is there.
    pub wait: bool,
}

/// The result of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// The stack as it is now.
    pub stack: StackSummary,
    /// Whether this created it.
    pub created: bool,
    /// Whether another operation had to be waited for first.
    pub waited: bool,
    /// The result for the functions.
    pub functions: Functions,
    /// Whether tags were added to a stack that existed.
    pub tagged: bool,
}

/// The result of a deployment for a stack's functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Functions {
    /// There are none.
    None,
    /// They run this package now.
    Ours {
        /// The package's SHA-256, in hexadecimal.
        sha256: String,
        /// The size of its zip, in bytes.
        bytes: u64,
        /// Whether that is a change.
        changed: bool,
    },
    /// They run Python, and were left as they are. The names of the functions.
    Python(Vec<String>),
    /// The stack was created by a template that does not take this project's code, and has no functions yet.
    Foreign,
    /// The stack is busy, and waiting was not asked for.
    Unknown,
}

impl Functions {
    /// What the table's version record is to say of them; `None` to leave what it says, because they are not this
    /// project's or their state is not known.
    pub fn level(&self) -> Option<&'static str> {
        matches!(self, Self::Ours { .. }).then_some(FUNCTIONS_LEVEL)
    }
}

impl StackManager {
    /// Creates the stack. One that exists keeps its template: it gets the settings and the tags that it lacks, and the
    /// package's code if it runs this project's functions.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] and [`Error::Package`] before anything is called; [`Error::State`] for a stack that
    /// cannot be used; [`Error::Refused`] if settings would remove or replace resources, and nothing was changed;
    /// [`Error::Operation`] if the operation failed or was rolled back, with what failed first.
    pub async fn deploy(
        &self,
        wanted: &Deployment<'_>,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Deployed, Error> {
        wanted.options.check(wanted.stack)?;
        match self.existing(wanted.stack).await? {
            Some(found) => self.refresh(wanted, found, progress).await,
            None => match self.create(wanted, progress).await {
                // Another process was faster, and this one goes on with its stack.
                Err(err @ Error::AlreadyExists { .. }) => match self.existing(wanted.stack).await? {
                    Some(found) => self.refresh(wanted, found, progress).await,
                    None => Err(err),
                },
                created => created,
            },
        }
    }

    async fn create(
        &self,
        wanted: &Deployment<'_>,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Deployed, Error> {
        let options = wanted.options;
        let mut parameters = options.parameters(wanted.stack)?;
        let mut functions = Functions::None;
        if options.has_functions() {
            let package = wanted.package.load_aside().await?;
            let code = self.upload(&package, wanted.code_bucket, false, progress).await?;
            parameters.extend(code.parameters());
            functions = ours(&package, true);
        }
        progress(Progress::Creating);
        let tags = tags::merged(wanted.stack, &Tags::new(), &options.tags)?;
        let id = self
            .begin_create(wanted.stack, TEMPLATE, &parameters, &tags)
            .await?;
        let stack = if wanted.wait {
            let ended = self.finished(&id, None, progress).await?;
            ended.expect(wanted.stack, &["CREATE_COMPLETE"])?
        } else {
            StackSummary {
                name: wanted.stack.to_owned(),
                status: "CREATE_IN_PROGRESS".to_owned(),
                id,
                ..StackSummary::default()
            }
        };
        Ok(Deployed {
            stack,
            created: true,
            waited: false,
            functions,
            tagged: false,
        })
    }

    /// Begins to create a stack. Returns its id.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::Aws`].
    pub(crate) async fn begin_create(
        &self,
        stack: &str,
        template: &str,
        parameters: &[Parameter],
        tags: &Tags,
    ) -> Result<String, Error> {
        let create = self.clients.stacks.create_stack().stack_name(stack);
        let created = create
            .template_body(template)
            .set_parameters(Some(values(parameters)))
            .set_tags(Some(sdk_tags(tags)))
            .capabilities(sdk::Capability::CapabilityNamedIam)
            .send()
            .await
            .map_err(failed("CreateStack"));
        match created {
            Ok(answer) => Ok(answer.stack_id.unwrap_or_else(|| stack.to_owned())),
            Err(err) if err.is_code("AlreadyExistsException") => Err(Error::AlreadyExists {
                stack: stack.to_owned(),
            }),
            Err(err) => Err(err),
        }
    }

    /// Begins to update a stack. Returns whether there is something to change.
    ///
    /// # Errors
    /// [`Error::Aws`].
    pub(crate) async fn begin_update(&self, update: UpdateStackFluentBuilder) -> Result<bool, Error> {
        let update = update.capabilities(sdk::Capability::CapabilityNamedIam);
        match update.send().await.map_err(failed("UpdateStack")) {
            Ok(_) => Ok(true),
            Err(err) if err.to_string().contains("No updates are to be performed") => Ok(false),
            Err(err) => Err(err),
        }
    }

    async fn refresh(
        &self,
        wanted: &Deployment<'_>,
        found: StackSummary,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Deployed, Error> {
        let mut found = found;
        let mut delayed = false;
        if found.is_in_progress() && found.status != "DELETE_IN_PROGRESS" {
            if !wanted.wait {
                return Ok(Deployed {
                    stack: found,
                    created: false,
                    waited: delayed,
                    functions: Functions::Unknown,
                    tagged: false,
                });
            }
            progress(Progress::WaitingForOther {
                status: &found.status,
            });
            let since = self.newest_event(&found.id).await;
            let ended = self.finished(&found.id, since.as_deref(), progress).await?;
            let good = [
                "CREATE_COMPLETE",
                "UPDATE_COMPLETE",
                "UPDATE_ROLLBACK_COMPLETE",
                "IMPORT_COMPLETE",
            ];
            found = ended.expect(wanted.stack, &good)?;
            delayed = true;
        }
        let found = found.usable()?;
        if !wanted.settings.is_empty() {
            return self.change(wanted, delayed, progress).await;
        }
        let (functions, code) = self.code_for(wanted, &found, progress).await?;
        let current = &found.tags;
        let lacks = |(key, value): (&String, &String)| current.get(key) != Some(value);
        let tagged = !tags::are_found_by(wanted.stack, current) || wanted.options.tags.iter().any(lacks);
        let new_code = code.as_ref().filter(|(_, code)| is_new(&found, code));
        let mut stack = found.clone();
        if tagged || new_code.is_some() {
            let user = &wanted.options.tags;
            let tags = tags::merged(wanted.stack, current, user)?;
            let parameters = new_code
                .map(|(_, code)| code.parameters())
                .into_iter()
                .flatten()
                .collect();
            let waits = wanted.wait;
            stack = self.update(&found, parameters, &tags, waits, progress).await?;
        }
        let mut functions = functions;
        if let (Some((package, code)), None, true) = (&code, &new_code, wanted.wait)
            && !self.mend(&found, package, code, false).await?.is_empty()
        {
            functions = ours(package, true);
        }
        Ok(Deployed {
            stack,
            created: false,
            waited: delayed,
            functions,
            tagged,
        })
    }

    /// Changes settings of an existing stack, and its tags and code with them.
    async fn change(
        &self,
        wanted: &Deployment<'_>,
        delayed: bool,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Deployed, Error> {
        let upgrade = Upgrade {
            stack: wanted.stack,
            package: wanted.package,
            code_bucket: wanted.code_bucket,
            scope: UpgradeScope::Settings,
            allow_removal: wanted.allow_removal,
            parameters: wanted.settings,
            tags: &wanted.options.tags,
            force: false,
            wait: wanted.wait,
        };
        let plan = self.plan(&upgrade, progress).await?;
        progress(Progress::Planned {
            changes: &plan.changes,
        });
        let (tagged, python) = (plan.new_tags, plan.python.clone());
        let upgraded = self.apply(plan, progress).await?;
        let functions = match upgraded.functions {
            Functions::None if !python.is_empty() => Functions::Python(python),
            functions => functions,
        };
        Ok(Deployed {
            stack: upgraded.stack,
            created: false,
            waited: delayed,
            functions,
            tagged,
        })
    }

    /// The code that an existing stack is to run, brought to S3; none if it has no functions, or not ours.
    async fn code_for(
        &self,
        wanted: &Deployment<'_>,
        found: &StackSummary,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<(Functions, Option<(Package, CodeLocation)>), Error> {
        if found.wanted_functions().is_empty() {
            return Ok((Functions::None, None));
        }
        if !found.takes_code() {
            let python = self.python_functions(wanted.stack).await?;
            let functions = if python.is_empty() {
                Functions::Foreign
            } else {
                Functions::Python(python)
            };
            return Ok((functions, None));
        }
        names::check(wanted.stack, found.wants_aggregator(), found.wants_provisioner())?;
        let package = wanted.package.load_aside().await?;
        let code = self.upload(&package, wanted.code_bucket, false, progress).await?;
        let changed = is_new(found, &code);
        Ok((ours(&package, changed), Some((package, code))))
    }

    /// The stack's functions that run Python.
    pub async fn python_functions(&self, stack: &str) -> Result<Vec<String>, Error> {
        let found = self.functions(stack).await?;
        let python = found.into_iter().filter(crate::FunctionState::is_python);
        Ok(python.map(|function| function.name).collect())
    }

    /// Changes some parameters and all tags of a stack, and nothing else.
    pub(crate) async fn update(
        &self,
        found: &StackSummary,
        parameters: Vec<Parameter>,
        tags: &Tags,
        wait: bool,
        progress: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<StackSummary, Error> {
        let since = self.newest_event(&found.id).await;
        let mut changed: BTreeMap<&str, String> = parameters.into_iter().collect();
        let mut all: Vec<sdk::Parameter> = found
            .parameters
            .keys()
            .map(|name| match changed.remove(name.as_str()) {
                Some(value) => value_of(name, &value),
                None => as_before(name),
            })
            .collect();
        all.extend(changed.into_iter().map(|(name, value)| value_of(name, &value)));
        progress(Progress::Updating);
        let update = self.clients.stacks.update_stack().stack_name(&found.name);
        let update = update
            .use_previous_template(true)
            .set_parameters(Some(all))
            .set_tags(Some(sdk_tags(tags)));
        if !self.begin_update(update).await? {
            return Ok(found.clone());
        }
        if !wait {
            return Ok(StackSummary {
                status: "UPDATE_IN_PROGRESS".to_owned(),
                ..found.clone()
            });
        }
        let ended = self.finished(&found.id, since.as_deref(), progress).await?;
        ended.expect(&found.name, &UPDATED)
    }
}

pub(crate) fn ours(package: &Package, changed: bool) -> Functions {
    Functions::Ours {
        sha256: package.sha256.clone(),
        bytes: package.size(),
        changed,
    }
}

/// Whether code is other than what the stack has.
pub(crate) fn is_new(found: &StackSummary, code: &CodeLocation) -> bool {
    // The same code in another bucket is the same.
    found.parameters.get(FUNCTION_CODE_KEY) != Some(&code.key)
        || found.parameters.get(FUNCTION_ARCHITECTURE).map(String::as_str) != Some(code.architecture)
}

pub(crate) fn value_of(name: &str, value: &str) -> sdk::Parameter {
    sdk::Parameter::builder()
        .parameter_key(name)
        .parameter_value(value)
        .build()
}

pub(crate) fn as_before(name: &str) -> sdk::Parameter {
    sdk::Parameter::builder()
        .parameter_key(name)
        .use_previous_value(true)
        .build()
}

pub(crate) fn values(parameters: &[Parameter]) -> Vec<sdk::Parameter> {
    parameters
        .iter()
        .map(|(name, value)| value_of(name, value))
        .collect()
}

pub(crate) fn sdk_tags(tags: &Tags) -> Vec<sdk::Tag> {
    let tag = |(key, value): (&String, &String)| sdk::Tag::builder().key(key).value(value).build();
    tags.iter().map(tag).collect()
}

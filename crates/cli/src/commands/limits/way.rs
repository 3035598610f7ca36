//! Who plans and applies: the stack's limits provisioner, or this program.

use std::time::Duration;

use serde_json::{Value as Json, json};
use zae_limiter::{ApplyOptions, Error, Repository};
use zae_limiter_core::manifest::{Manifest, Target};
use zae_limiter_infra::{AwsFailure, Error as Infra, StackManager, names};

use super::answer::{self, Answer, Change};
use crate::args::{Connection, Events, Format, Namespaced};
use crate::commands::{Unfinished, above, failed};
use crate::connect::{Access, embedded, manager, namespace};
use crate::exit::Exit;
use crate::failure::{Failure, of_stack, options};
use crate::progress::Reporter;
use crate::say;

/// How long a function may run that does not say.
const LONGEST_RUN: Duration = Duration::from_mins(5);

/// How much longer than it may run a function's answer is waited for.
const MARGIN: Duration = Duration::from_secs(30);

/// The request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// Completes "Failed to".
    pub(super) what: &'static str,
    /// Whether it plans or applies.
    pub(super) access: Access,
    /// Whether what does not differ is applied, too.
    pub(super) full: bool,
}

impl Call {
    fn action(self) -> &'static str {
        match self.access {
            Access::Read => "plan",
            Access::Write => "apply",
        }
    }
}

/// Where manifests are planned and applied.
pub(super) struct Way {
    at: Namespaced,
    repo: Repository,
    function: Option<Function>,
}

/// A limits provisioner.
struct Function {
    manager: StackManager,
    name: String,
    /// How long its answer is waited for.
    patience: Duration,
}

impl Way {
    /// Opens the namespace, and looks for the stack's provisioner.
    pub(super) async fn find(at: Namespaced, direct: bool, call: Call) -> Result<Self, Failure> {
        let repo = namespace(&at, call.access, call.what).await?;
        let function = if direct || embedded(&at.connection).is_some() {
            None
        } else {
            provisioner(&at.connection, call).await?
        };
        Ok(Self { at, repo, function })
    }

    /// Its name in the JSON output.
    pub(super) fn as_str(&self) -> &'static str {
        match self.function {
            Some(_) => "provisioner",
            None => "direct",
        }
    }

    /// Has a manifest planned or applied.
    pub(super) async fn ask(
        &self,
        manifest: &Manifest,
        format: &Format,
        call: Call,
    ) -> Result<Answer, Failure> {
        let at = &self.at.connection;
        let reporter = Reporter::new(format, &Events::default());
        if let Some(function) = &self.function {
            let event = |action: &str| {
                json!({
                    "action": action,
                    "table_name": at.name,
                    "namespace_id": self.repo.namespace_id().as_str(),
                    "manifest": manifest.to_json(),
                    "full": call.full,
                })
            };
            reporter.wait(format!("Waiting for {}", function.name));
            // A function of the Python library passes keys over that it does not know, and would take the limits away
            // of a level that has only those.
            if !manifest.settings.is_empty() {
                let planned = function.ask(&event("plan"), at, call).await?;
                if !planned.knows_settings {
                    return Err(no_settings());
                }
                if call.access == Access::Read {
                    return Ok(planned);
                }
            }
            let unfinished = Unfinished((call.access == Access::Write).then(|| {
                format!(
                    "The function '{}' goes on with the apply. Another apply stops it; 'zae-limiter limits diff' shows what is \
                     stored.",
                    function.name
                )
            }));
            let answer = function.ask(&event(call.action()), at, call).await;
            unfinished.done();
            return answer;
        }
        let unfinished = Unfinished((call.access == Access::Write).then(|| {
            "The apply is not finished: some levels are stored and others are not. Run the same command again to finish it.".to_owned()
        }));
        let count = manifest.levels();
        reporter.wait(match call.access {
            Access::Read => format!("Comparing {count} levels"),
            Access::Write => format!("Applying {count} levels"),
        });
        let options = ApplyOptions {
            full: call.full,
            ..ApplyOptions::default()
        };
        let answer = match call.access {
            Access::Read => self
                .repo
                .admin()
                .plan_limits(manifest, options)
                .await
                .map(|plan| plan.to_json()),
            Access::Write => self
                .repo
                .admin()
                .apply_limits(manifest, options)
                .await
                .map(|applied| applied.to_json()),
        };
        unfinished.done();
        let answer = answer.map_err(failed(at, call.what))?;
        Answer::of(&answer).map_err(Failure::error)
    }

    /// Notes the declared limits of entities that their parents' keep from being reached.
    pub(super) async fn note_limits_above_parent(&self, manifest: &Manifest, answer: &Answer) {
        let deleted: Vec<Target> = answer.changes.iter().filter_map(Change::deleted).collect();
        above::note(
            self.repo.admin().declared_limits_above_parent(manifest, &deleted),
            true,
        )
        .await;
    }

    /// The levels that were set by hand; `None`, with a note, if they may not be read.
    pub(super) async fn set_by_hand(
        &self,
        manifest: &Manifest,
        what: &'static str,
    ) -> Result<Option<Vec<Target>>, Failure> {
        match self.repo.admin().hand_made_limits(manifest).await {
            Ok(found) => Ok(Some(found)),
            Err(err @ Error::PermissionDenied { .. }) => {
                if let Failure::Message { text, .. } = failed(&self.at.connection, "")(err) {
                    let why = text.strip_prefix("Error: ").unwrap_or(&text);
                    say(&format!("Note: limits set by hand are not listed: {why}"));
                }
                Ok(None)
            }
            Err(err) => Err(failed(&self.at.connection, what)(err)),
        }
    }
}

/// The stack's provisioner; `None`, with a note, if it has none.
async fn provisioner(at: &Connection, call: Call) -> Result<Option<Function>, Failure> {
    let manager = manager(at).await?;
    let name = names::provisioner(&at.name);
    let run = match manager.function(&name).await {
        Ok(Some(found)) => found.timeout.unwrap_or(LONGEST_RUN),
        // Who may not look at it may be allowed to call it.
        Err(err) if is_denied(&err) => LONGEST_RUN,
        Ok(None) => {
            note_direct("the stack has no limits provisioner", call);
            return Ok(None);
        }
        Err(err) if at.endpoint_url.is_some() && serves_no_functions(&err) => {
            note_direct(
                "the server has no functions, so there is no limits provisioner",
                call,
            );
            return Ok(None);
        }
        Err(err) => return Err(of_stack(&err, at)),
    };
    Ok(Some(Function {
        manager,
        name,
        patience: run + MARGIN,
    }))
}

/// The message about a provisioner that would pass a part of the manifest over.
fn no_settings() -> Failure {
    Failure::error(
        "The stack's limits provisioner does not know 'concurrency' and 'cascade_depth'. 'zae-limiter upgrade' \
         replaces it; --direct works without it.",
    )
}

fn note_direct(why: &str, call: Call) {
    let done = match call.access {
        Access::Read => "the table is read directly",
        Access::Write => "the limits are applied directly",
    };
    say(&format!("Note: {why}; {done}."));
}

fn is_denied(err: &Infra) -> bool {
    err.is_code("AccessDeniedException") || err.is_code("AccessDenied")
}

/// Whether a server that is not AWS answered, but does not know what was meant, as servers of tables alone do.
fn serves_no_functions(err: &Infra) -> bool {
    const FUNCTIONS: [&str; 4] = [
        "TooManyRequestsException",
        "ThrottlingException",
        "ServiceException",
        "InvalidParameterValueException",
    ];
    match err {
        Infra::Aws { kind, code, .. } => {
            matches!(kind, AwsFailure::Service | AwsFailure::Other) && !FUNCTIONS.contains(&&**code)
        }
        _ => false,
    }
}

impl Function {
    async fn ask(&self, event: &Json, at: &Connection, call: Call) -> Result<Answer, Failure> {
        let payload = event.to_string().into_bytes();
        let invoked = self.manager.invoke(&self.name, payload, self.patience).await;
        let invoked = invoked.map_err(|err| unanswered(&err, &self.name, self.patience, at, call))?;
        let text = String::from_utf8_lossy(&invoked.payload);
        let payload: Json = serde_json::from_str(&text).unwrap_or(Json::Null);
        let reason = answer::failure(&payload);
        if reason.is_some() || invoked.failure.is_some() {
            let reason = reason.or(invoked.failure).unwrap_or_default();
            return Err(Failure::error(format!("Lambda execution failed: {reason}")));
        }
        Answer::of(&payload)
            .map_err(|why| Failure::error(format!("Unexpected answer of '{}': {why}", self.name)))
    }
}

/// The message about a function that did not answer.
fn unanswered(err: &Infra, name: &str, patience: Duration, at: &Connection, call: Call) -> Failure {
    if err.is_code("ResourceNotFoundException") {
        return Failure::error(format!(
            "Lambda function '{name}' not found.\nThe stack has no limits provisioner: 'zae-limiter deploy' leaves \
             it out with --no-provisioner and with --no-iam. Add it with 'zae-limiter upgrade{} --parameter \
             EnableProvisioner=true', or use --direct.",
            options(at)
        ));
    }
    if err.is_code("TooManyRequestsException") {
        let outcome = match call.access {
            Access::Read => "",
            Access::Write => "; nothing was applied",
        };
        return Failure::with(
            format!("Lambda function '{name}' is throttled{outcome}. Try again in a moment."),
            Exit::Aws,
        );
    }
    if err.is_code("RequestTooLargeException") {
        return Failure::error(format!(
            "The manifest is too large for a call of '{name}'. Use --direct."
        ));
    }
    match err {
        Infra::Aws {
            kind: AwsFailure::Timeout,
            ..
        } => {
            let next = match call.access {
                Access::Read => "Try again, or use --direct.",
                Access::Write => {
                    "The apply may still be running; check 'zae-limiter limits diff' before re-running."
                }
            };
            let secs = patience.as_secs();
            Failure::with(
                format!("no answer from '{name}' after {secs} s. {next}"),
                Exit::Aws,
            )
        }
        _ => of_stack(err, at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_function_that_did_not_answer() {
        let at = Connection {
            name: "my-app".into(),
            region: Some("us-east-1".into()),
            endpoint_url: None,
        };
        let check = |kind, code: &str, access, expected: &str, expected_exit| {
            let err = Infra::Aws {
                kind,
                code: code.into(),
                message: "it failed".into(),
            };
            let call = Call {
                what: "",
                access,
                full: false,
            };
            let patience = Duration::from_secs(330);
            match unanswered(&err, "f", patience, &at, call) {
                Failure::Message { text, exit } => assert_eq!((&*text, exit), (expected, expected_exit)),
                Failure::NobodyReads => panic!("{err:?}"),
            }
        };
        let (service, timeout) = (AwsFailure::Service, AwsFailure::Timeout);
        check(
            service,
            "ResourceNotFoundException",
            Access::Read,
            "Error: Lambda function 'f' not found.\nThe stack has no limits provisioner: 'zae-limiter deploy' leaves it \
             out with --no-provisioner and with --no-iam. Add it with 'zae-limiter upgrade -n my-app --region us-east-1 \
             --parameter EnableProvisioner=true', or use --direct.",
            Exit::Failure,
        );
        check(
            service,
            "TooManyRequestsException",
            Access::Write,
            "Error: Lambda function 'f' is throttled; nothing was applied. Try again in a moment.",
            Exit::Aws,
        );
        check(
            service,
            "TooManyRequestsException",
            Access::Read,
            "Error: Lambda function 'f' is throttled. Try again in a moment.",
            Exit::Aws,
        );
        check(
            service,
            "RequestTooLargeException",
            Access::Write,
            "Error: The manifest is too large for a call of 'f'. Use --direct.",
            Exit::Failure,
        );
        check(
            timeout,
            "",
            Access::Write,
            "Error: no answer from 'f' after 330 s. The apply may still be running; check 'zae-limiter limits diff' \
             before re-running.",
            Exit::Aws,
        );
        check(
            timeout,
            "",
            Access::Read,
            "Error: no answer from 'f' after 330 s. Try again, or use --direct.",
            Exit::Aws,
        );
        check(
            service,
            "KMSDisabledException",
            Access::Write,
            "Error: it failed",
            Exit::Aws,
        );
    }

    #[test]
    fn servers_without_functions() {
        let check = |kind, code: &str, expected| {
            let err = Infra::Aws {
                kind,
                code: code.into(),
                message: String::new(),
            };
            assert_eq!(serves_no_functions(&err), expected, "{err:?}");
        };
        check(AwsFailure::Service, "UnknownOperationException", true);
        check(AwsFailure::Service, "MissingAuthenticationToken", true);
        check(AwsFailure::Other, "", true);
        check(AwsFailure::Service, "TooManyRequestsException", false);
        check(AwsFailure::Unreachable, "", false);
        check(AwsFailure::Timeout, "", false);
        check(AwsFailure::Credentials, "", false);
    }
}

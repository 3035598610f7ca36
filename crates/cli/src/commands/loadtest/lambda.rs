//! Load from a function of AWS Lambda: `handler` is inside of it, `run` and `tune` call it.

pub(crate) mod handler;
mod run;
mod tune;

use std::path::Path;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::Instant;
use zae_limiter_infra::{AwsFailure, Error as Infra, Invoked, StackManager, names};
use zae_limiter_loadtest::function::{Allotment, Answer, Headless};
use zae_limiter_loadtest::namespace::TestNamespace;
use zae_limiter_loadtest::selection::{self, Selection};

use super::interrupts::Interrupts;
use super::test_namespace::{clear_left_over, if_found};
use super::{found, refused};
use crate::args::Connection;
use crate::args::loadtest::Load;
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Failure, of_stack, options};
use crate::out::Out;
use crate::say;

pub(super) use run::run;
pub(super) use tune::tune;

/// The memory of a function, in MB, that has one processor.
const MEMORY_OF_VCPU: f64 = 1769.0;

/// What Lambda gives a function that does not say.
const DEFAULT_MEMORY: u32 = 128;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// How much longer than it may run a function's answer is waited for.
const MARGIN: Duration = Duration::from_secs(30);

/// The function that generates load on a stack.
pub(super) struct Worker {
    pub(super) manager: StackManager,
    /// Its name.
    pub(super) name: String,
    /// Its memory in MB.
    pub(super) memory_mb: u32,
    /// After how long it is stopped.
    pub(super) timeout: Duration,
}

impl Worker {
    /// Looks for it.
    pub(super) async fn find(at: &Connection, interrupts: &Interrupts) -> Result<Self, Failure> {
        crate::names::stack(&at.name)?;
        connect::needs_stack(at, "Add --local to run the users on this machine.")?;
        let found = async {
            let manager = connect::manager(at).await?;
            let name = names::load::worker(&at.name);
            let state = manager.function(&name).await;
            let state = state.map_err(|err| of_stack(&err, at))?;
            Ok::<_, Failure>((manager, name, state))
        };
        let (manager, name, state) = interrupts.unless(Box::pin(found)).await?;
        let Some(state) = state else {
            return Err(no_function(&name));
        };
        if state.is_python() {
            return Err(Failure::error(format!(
                "The function '{name}' runs {}, as the Python tool's does. Replace it with 'zae-limiter loadtest deploy{}'.",
                state.runtime,
                options(at)
            )));
        }
        Ok(Self {
            manager,
            name,
            memory_mb: state.memory_mb.unwrap_or(DEFAULT_MEMORY),
            timeout: state.timeout.unwrap_or(DEFAULT_TIMEOUT),
        })
    }

    /// The processors that Lambda gives it.
    pub(super) fn vcpus(&self) -> f64 {
        f64::from(self.memory_mb) / MEMORY_OF_VCPU
    }

    /// How long a test in it can be.
    fn effective(&self) -> Duration {
        Allotment::new(self.timeout).stop()
    }

    /// Warns of a test that is longer than the function may run. Returns whether it is.
    fn warn_of_length(&self, length: Duration) -> bool {
        let is_longer = length > self.effective();
        if is_longer {
            say(&format!(
                "Warning: duration ({}s) exceeds Lambda effective timeout ({}s with 10% buffer). Test will stop early.",
                length.as_secs(),
                self.effective().as_secs()
            ));
        }
        is_longer
    }

    /// Prints what it is.
    fn head(&self, out: &mut Out, title: &str) -> Result<(), Failure> {
        out.line(format_args!("\n{title}: {}", self.name))?;
        out.line(format_args!(
            "  Memory: {} MB (~{:.2} vCPU)",
            self.memory_mb,
            self.vcpus()
        ))?;
        out.line(format_args!("  Timeout: {}s", self.timeout.as_secs()))
    }

    /// Has it run a test.
    async fn ask(
        &self,
        at: &Connection,
        test: &Headless,
        interrupts: &Interrupts,
    ) -> Result<Answer, Failure> {
        let began = Instant::now();
        let event = test.to_event().to_string().into_bytes();
        let invoked = tokio::select! {
            biased;
            () = interrupts.first() => return Err(self.abandoned(test, began, interrupts)),
            invoked = self.manager.invoke(&self.name, event, self.timeout + MARGIN) => invoked,
        };
        let invoked =
            invoked.map_err(|err| unanswered(&err, &self.name, self.timeout, at, &test.namespace))?;
        if let Some(text) = failure(&invoked) {
            // It has ended, so that nothing is written any more.
            let left = match clear_left_over(at, &test.namespace).await {
                Err(Failure::Message { text, .. }) => format!("\n{text}"),
                _ => String::new(),
            };
            return Err(Failure::bare(
                format!("\nError: Lambda execution failed: {text}{left}"),
                Exit::Failure,
            ));
        }
        serde_json::from_slice(&invoked.payload).map_err(|err| {
            Failure::error(format!(
                "Unexpected answer of '{}': {err}. Update its code with 'zae-limiter loadtest push{}'.",
                self.name,
                options(at)
            ))
        })
    }

    /// The message about a function that is left to itself.
    fn abandoned(&self, test: &Headless, began: Instant, interrupts: &Interrupts) -> Failure {
        let left = self.timeout.saturating_sub(began.elapsed()).as_secs() + 1;
        let told = format!(
            "Interrupted. The function '{}' goes on until the end of its test, for {left} s at most, and then removes its namespace '{}'.",
            self.name, test.namespace
        );
        match interrupts.heard() {
            Some(ending) if !ending.is_interrupt() => {
                say(&told);
                ending.into_failure()
            }
            _ => Failure::bare(told, Exit::Failure),
        }
    }

    /// Removes what the function could not.
    async fn clear(&self, at: &Connection, answer: &Answer) -> Result<(), Failure> {
        match &answer.left_namespace {
            Some(left) => clear_left_over(at, &left.name).await.map(drop),
            None => Ok(()),
        }
    }
}

/// The message about a function that did not answer.
fn unanswered(err: &Infra, name: &str, timeout: Duration, at: &Connection, namespace: &str) -> Failure {
    if err.is_code("ResourceNotFoundException") {
        return no_function(name);
    }
    if err.is_code("TooManyRequestsException") {
        return Failure::with(
            format!("Lambda function '{name}' is throttled; no test was run. Try again in a moment."),
            Exit::Aws,
        );
    }
    let goes_on = || {
        format!(
            "The function may go on for {} s at most, and then removes its namespace '{namespace}'. {}",
            timeout.as_secs(),
            if_found(namespace, at)
        )
    };
    match err {
        Infra::Aws {
            kind: AwsFailure::Timeout,
            ..
        } => Failure::with(
            format!(
                "no answer from '{name}' after {} s. {}",
                (timeout + MARGIN).as_secs(),
                goes_on()
            ),
            Exit::Aws,
        ),
        Infra::Aws {
            kind: AwsFailure::Unreachable | AwsFailure::Other,
            ..
        } => match of_stack(err, at) {
            Failure::Message { text, exit } => Failure::bare(format!("{text}\n{}", goes_on()), exit),
            closed @ Failure::NobodyReads => closed,
        },
        _ => of_stack(err, at),
    }
}

fn no_function(name: &str) -> Failure {
    Failure::error(format!(
        "Lambda function not found: {name}\nDeploy first with: zae-limiter loadtest deploy --name ..."
    ))
}

/// How a function failed, with the lines of its stack, if it did.
fn failure(invoked: &Invoked) -> Option<String> {
    let kind = invoked.failure.as_ref()?;
    let payload: Json = serde_json::from_slice(&invoked.payload).unwrap_or(Json::Null);
    let mut text = payload["errorMessage"].as_str().unwrap_or(kind).to_owned();
    let lines = payload["stackTrace"].as_array().into_iter().flatten();
    for line in lines.filter_map(Json::as_str).flat_map(str::lines) {
        text.push_str("\n  ");
        text.push_str(line);
    }
    Some(text)
}

/// What users do in a function.
struct Chosen {
    /// The text of the file on this machine that describes it.
    text: Option<String>,
    /// The classes and the shape. None for a file that only the function has.
    selection: Option<Selection>,
}

impl Chosen {
    fn of(load: &Load) -> Result<Self, Failure> {
        let name = &load.locustfile;
        if selection::is_file(name) && !Path::new(name).exists() {
            return Ok(Self {
                text: None,
                selection: None,
            });
        }
        let found = found(name)?;
        let selection = Selection::new(found.scenario, &load.user_classes);
        Ok(Self {
            text: found.text,
            selection: Some(selection.map_err(|err| refused(&err))?),
        })
    }

    /// A test of it, in another namespace each time.
    fn test(&self, load: &Load, users: u64, duration: Option<Duration>, seed: u64) -> Headless {
        Headless {
            users,
            spawn_rate: load.spawn_rate as f64,
            rate: None,
            duration,
            locustfile: load.locustfile.clone(),
            scenario: self.text.clone(),
            user_classes: load.user_classes.clone(),
            seed,
            warm_up: Duration::ZERO,
            namespace: TestNamespace::new_name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_with_its_stack() {
        let invoked = |failure: Option<&str>, payload: &str| Invoked {
            payload: payload.as_bytes().to_vec(),
            failure: failure.map(str::to_owned),
        };
        assert_eq!(failure(&invoked(None, "{}")), None);
        assert_eq!(
            failure(&invoked(Some("Unhandled"), "")).as_deref(),
            Some("Unhandled")
        );
        let payload = r#"{"errorMessage": "it broke", "stackTrace": ["  File \"x\"\n    y()\n", "z"]}"#;
        assert_eq!(
            failure(&invoked(Some("Unhandled"), payload)).as_deref(),
            Some("it broke\n    File \"x\"\n      y()\n  z")
        );
    }

    #[test]
    fn without_an_answer_the_function_may_go_on() {
        let at = Connection {
            name: "my-app".into(),
            region: Some("us-east-1".into()),
            endpoint_url: None,
        };
        let told = |kind| {
            let err = Infra::Aws {
                kind,
                code: String::new(),
                message: "it failed".into(),
            };
            match unanswered(&err, "f", Duration::from_mins(5), &at, "loadtest-1") {
                Failure::Message { text, exit } => (text, exit),
                Failure::NobodyReads => unreachable!(),
            }
        };
        let rest = "The function may go on for 300 s at most, and then removes its namespace 'loadtest-1'. If 'zae-limiter namespace \
                    show loadtest-1 -n my-app --region us-east-1' finds it, remove it with 'zae-limiter namespace delete \
                    loadtest-1 -n my-app --region us-east-1' and 'zae-limiter namespace purge ID -n my-app --region us-east-1'.";
        assert_eq!(
            told(AwsFailure::Timeout),
            (
                format!("Error: no answer from 'f' after 330 s. {rest}"),
                Exit::Aws
            )
        );
        assert_eq!(
            told(AwsFailure::Unreachable),
            (format!("Error: it failed\n{rest}"), Exit::Aws)
        );
        assert_eq!(
            told(AwsFailure::Credentials),
            ("Error: it failed".to_owned(), Exit::Aws)
        );
    }
}

//! The process of a function: how it is started, named in the log, and ended.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

use super::machine;
use crate::clock::{iso, now_ms};
use crate::lambda::functions::package::Held;
use crate::lambda::names::{FunctionId, LATEST};
use crate::lambda::program::{Program, RUNTIME};
use crate::wire::uuid;

/// The settings of a process.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) id: FunctionId,
    pub(crate) program: Program,
    pub(crate) package: Held,
    pub(crate) runtime: String,
    pub(crate) handler: String,
    pub(crate) architecture: String,
    pub(crate) memory_mb: u32,
    pub(crate) timeout: Duration,
    /// The address of the endpoint.
    pub(crate) endpoint: String,
    /// The function's own variables.
    pub(crate) environment: Vec<(String, String)>,
}

/// Kills the processes of a group when it is dropped.
#[derive(Debug)]
pub(super) struct Group(pub(super) u32);

impl Drop for Group {
    fn drop(&mut self) {
        machine::kill(self.0);
    }
}

/// Starts a process in a group of its own, with the variables that Lambda sets.
pub(super) async fn spawn(launch: &Launch, address: &str, stream: &str) -> std::io::Result<Child> {
    let inherited = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let directory = launch.package.directory();
    let mut command = match &launch.program {
        Program::Bootstrap => Command::new(directory.join("bootstrap")),
        Program::Python(interpreter) => {
            let mut command = Command::new(interpreter);
            // Lines appear in the log when they are written, and the package stays as it was unpacked.
            command.args(["-u", "-B", "-c", RUNTIME]);
            command
        }
    };
    command
        .current_dir(directory)
        .env_clear()
        .env("PATH", inherited("PATH", "/usr/local/bin:/usr/bin:/bin"))
        .env("LANG", inherited("LANG", "en_US.UTF-8"))
        .env("TZ", ":UTC")
        .env("AWS_ENDPOINT_URL", &launch.endpoint)
        .envs(launch.environment.iter().map(|(name, value)| (name, value)))
        .env("LAMBDA_TASK_ROOT", directory)
        .env("_HANDLER", &launch.handler)
        .env("AWS_LAMBDA_RUNTIME_API", address)
        .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
        .env("AWS_EXECUTION_ENV", format!("AWS_Lambda_{}", launch.runtime))
        .env("AWS_LAMBDA_FUNCTION_NAME", &launch.id.name)
        .env("AWS_LAMBDA_FUNCTION_VERSION", LATEST)
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", launch.memory_mb.to_string())
        .env("AWS_LAMBDA_LOG_GROUP_NAME", launch.id.log_group())
        .env("AWS_LAMBDA_LOG_STREAM_NAME", stream)
        .env("AWS_REGION", &launch.id.region)
        .env("AWS_DEFAULT_REGION", &launch.id.region)
        .env("AWS_ACCESS_KEY_ID", "local")
        .env("AWS_SECRET_ACCESS_KEY", "local")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    // Another thread that starts a process just now may hold the file that was unpacked open for a moment.
    for _ in 0..50 {
        match command.spawn() {
            Err(err) if err.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            other => return other,
        }
    }
    command.spawn()
}

/// How a process ended, as Lambda says it.
pub(super) fn describe(status: std::io::Result<ExitStatus>) -> String {
    let status = match status {
        Ok(status) => status,
        Err(err) => return format!("for an unknown reason: {err}"),
    };
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt as _;
        if let Some(signal) = status.signal() {
            let name = nix::sys::signal::Signal::try_from(signal)
                .map_or("unknown", nix::sys::signal::Signal::as_str);
            let name = match name {
                "SIGKILL" => "killed",
                "SIGSEGV" => "segmentation fault",
                "SIGABRT" => "aborted",
                other => other,
            };
            return format!("with error: signal: {name}");
        }
    }
    match status.code() {
        Some(0) => "without providing a reason".to_owned(),
        Some(code) => format!("with error: exit status {code}"),
        None => "for an unknown reason".to_owned(),
    }
}

/// A log stream's name: the day, the version, and something of its own.
pub(super) fn stream_name() -> String {
    let day = iso(now_ms())[..10].replace('-', "/");
    format!("{day}/[{LATEST}]{}", uuid().replace('-', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_have_lambdas_form() {
        let stream = stream_name();
        let (day, rest) = stream.split_at(11);
        assert_eq!(day.matches('/').count(), 3, "{stream}");
        assert_eq!(rest.len(), "[$LATEST]".len() + 32, "{stream}");
    }
}

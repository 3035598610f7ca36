//! The tunnel to the master's page: a session of Systems Manager, which the AWS CLI and its plugin make.

use std::env::consts::EXE_SUFFIX;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use serde_json::json;
use tokio::process::{Child, Command};

use crate::failure::Failure;

/// The port of the page in the task.
const PAGE: u16 = 8089;

/// The programs, and what they are.
const PROGRAMS: [(&str, &str); 2] = [
    ("aws", "the AWS CLI"),
    (
        "session-manager-plugin",
        "the AWS CLI's plugin for Systems Manager",
    ),
];

const HOW: &str = "https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html";

/// Fails if there can be no tunnel from here: without the programs, or because the port is in use.
pub(super) fn check(port: u16) -> Result<(), Failure> {
    for (program, what) in PROGRAMS {
        if on_path(program).is_none() {
            return Err(Failure::error(format!(
                "The program '{program}' was not found. The tunnel to the master needs {what}: {HOW}. To run master and workers \
                 on this machine, add --local."
            )));
        }
    }
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(err) => Err(Failure::error(format!(
            "The tunnel cannot use port {port} of this machine: {err}. Choose another one with --port."
        ))),
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let name = format!("{program}{EXE_SUFFIX}");
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(&name))
        .find(|file| is_executable(file))
}

#[cfg(unix)]
fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(file: &Path) -> bool {
    file.is_file()
}

/// A session. It ends with this.
pub(super) struct Tunnel {
    child: Child,
}

impl Tunnel {
    /// Opens one from a port of this machine. What the programs print is discarded, unless `is_shown`; their errors are not.
    pub(super) fn open(
        session_target: &str,
        region: &str,
        port: u16,
        is_shown: bool,
    ) -> Result<Self, Failure> {
        let parameters = json!({"portNumber": [PAGE.to_string()], "localPortNumber": [port.to_string()]});
        let mut command = Command::new("aws");
        command
            .args([
                "ssm",
                "start-session",
                "--region",
                region,
                "--target",
                session_target,
            ])
            .args(["--document-name", "AWS-StartPortForwardingSession"])
            .args(["--parameters", &parameters.to_string()])
            .stdin(Stdio::null())
            .stdout(if is_shown { Stdio::inherit() } else { Stdio::null() })
            .kill_on_drop(true);
        // A signal of the terminal is for this program, which still needs the tunnel to end the test.
        #[cfg(unix)]
        command.process_group(0);
        let child = command
            .spawn()
            .map_err(|err| Failure::error(format!("Cannot run 'aws ssm start-session': {err}")))?;
        Ok(Self { child })
    }

    /// How it has ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    pub(super) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // The plugin is a process of its own, in the same group.
        #[cfg(unix)]
        if let Some(group) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            use nix::sys::signal::{Signal, killpg};
            let _ = killpg(nix::unistd::Pid::from_raw(group), Signal::SIGTERM);
        }
    }
}

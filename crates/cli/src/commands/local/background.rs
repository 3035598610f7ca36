//! The endpoint as a process in the background.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use zae_limiter_local::health;
use zae_limiter_local::lambda::Python;
use zae_limiter_local::process;
use zae_limiter_local::state::{Running, State};

use super::stop::GRACE;
use super::{data, instructions, kept, state, unusable};
use crate::args::local::Up;
use crate::args::{Cli, Command as Parsed, Format, PROGRAM};
use crate::commands::{Outcome, Unfinished};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;

/// How long a start may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long to wait for an endpoint that another process is starting, or for an answer of one that runs.
const SOON: Duration = Duration::from_secs(10);

/// How many times an endpoint is started, if others stop it at once.
const STARTS: u32 = 3;

/// How often to look whether it has started.
const PAUSE: Duration = Duration::from_millis(20);

/// A log of more bytes is put aside at the next start.
const LONG: u64 = 10 * 1024 * 1024;

/// Makes glibc return large blocks as soon as they are free. By itself it keeps up to 64 MiB for the next one,
/// and packages of functions are such blocks. See `mallopt(3)`.
const ALLOCATOR: [(&str, &str); 2] = [
    ("MALLOC_MMAP_THRESHOLD_", "262144"),
    ("MALLOC_TRIM_THRESHOLD_", "262144"),
];

/// The report of the process that was started.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    /// It answers.
    Ready(Running),
    /// Another one runs, which may be only just starting.
    Running(Option<Running>),
    /// It could not start.
    Error(String),
}

pub(super) async fn up(args: &Up) -> Outcome {
    let state = state()?;
    // Before anything is started.
    if let Some(name) = &args.name {
        check_name(name)?;
    }
    if let Err(err) = Python::find(args.python.as_deref()) {
        return Err(Failure::usage(format!("{err}.")));
    }
    let mut out = Out::to_the_end(&args.format);
    ended(&state, &mut out).await?;
    let (running, new) = match joined(&state).await? {
        Some(running) => (running, false),
        None => started(args, &state, &mut out).await?,
    };
    let url = running.url();
    if let Some(bound) = running.bound().filter(|ip| !ip.is_loopback()) {
        let warning = format!(
            "Warning: the endpoint listens on {bound}, and every client that reaches it has full access: signatures are not checked."
        );
        crate::say(&warning);
    }
    if let Some(note) = kept::note(args, &running).filter(|_| !new) {
        crate::say(&note);
    }
    let data = running
        .data
        .as_deref()
        .map(Path::display)
        .map(|path| path.to_string());
    let mut document = json!({
        "url": url, "port": running.port, "pid": running.pid, "data": data, "started": new,
    });
    if out.is_json() {
        // With a stack, both are printed together.
        if args.name.is_none() {
            out.json(&document)?;
        }
    } else if new {
        out.line(format_args!("Local endpoint is ready at {url}"))?;
        instructions(&mut out, running.port)?;
    } else {
        out.line(format_args!("Local endpoint is already running at {url}"))?;
    }
    let Some(name) = &args.name else {
        out.flush()?;
        return Ok(Exit::Success);
    };
    if !out.is_json() {
        out.line("")?;
    }
    out.flush()?;
    drop(out);
    let deployed = deploy(name, &url, &args.format, |stack| {
        document["stack"] = stack;
        document
    });
    let unfinished = Unfinished(new.then(|| {
        format!(
            "The endpoint at {url} still runs, and so does a deployment that has begun; stop it with 'zae-limiter local down'."
        )
    }));
    let deployed = deployed.await;
    unfinished.done();
    match deployed {
        Ok(exit) => Ok(exit),
        Err(failure) if new => Err(stopped_again(running, &state, failure).await),
        Err(failure) => Err(failure),
    }
}

/// Waits while an endpoint ends that has been asked to.
async fn ended(state: &State, out: &mut Out) -> Result<(), Failure> {
    let is_ending = || state.is_ending().map_err(|err| unusable(state, &err));
    if !is_ending()? {
        return Ok(());
    }
    out.tell("The local endpoint is being stopped; waiting until it has ended...")?;
    let mut waited = Duration::ZERO;
    while is_ending()? {
        if waited >= GRACE {
            return Err(Failure::error(format!(
                "The endpoint that is being stopped has not ended within {} s. Try again, or see {}.",
                GRACE.as_secs(),
                state.log().display()
            )));
        }
        tokio::time::sleep(PAUSE).await;
        waited += PAUSE;
    }
    Ok(())
}

/// The endpoint that runs and answers, and is not stopped by the process that started it from now on.
async fn joined(state: &State) -> Result<Option<Running>, Failure> {
    let begin = tokio::time::Instant::now();
    loop {
        let place = state.clone();
        let joined = tokio::task::spawn_blocking(move || place.join()).await;
        let joined = joined.unwrap_or_else(|err| Err(io::Error::other(err)));
        let Some(running) = joined.map_err(|err| unusable(state, &err))? else {
            return Ok(None);
        };
        // A process that was killed has its place for a moment more.
        if health::ask(running.address())
            .await
            .is_ok_and(|health| health.pid == running.pid)
        {
            return Ok(Some(running));
        }
        if begin.elapsed() >= SOON {
            return Err(Failure::error(format!(
                "The local endpoint (process {}) does not answer at {}. Stop it with 'zae-limiter local down', then try again.",
                running.pid,
                running.url()
            )));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Starts an endpoint, or finds one that another process starts at the same time.
async fn started(args: &Up, state: &State, out: &mut Out) -> Result<(Running, bool), Failure> {
    // Each time one is found, it may be stopped before it is joined.
    for _ in 0..STARTS {
        if let (running, true) = start(args, state, out).await? {
            return Ok((running, true));
        }
        if let Some(running) = joined(state).await? {
            return Ok((running, false));
        }
    }
    Err(Failure::error(
        "Other processes start and stop the endpoint all the time. Try again.",
    ))
}

/// Stops an endpoint that was started for a stack which could not be deployed, unless other processes use it. The next start
/// then begins without it.
async fn stopped_again(running: Running, state: &State, failure: Failure) -> Failure {
    let (pid, url) = (running.pid, running.url());
    let Failure::Message { text, exit } = failure else {
        // The stack is deployed; only its description was not read to the end.
        return failure;
    };
    let place = state.clone();
    let alone = tokio::task::spawn_blocking(move || place.alone()).await;
    let end = match alone {
        Ok(Ok(None)) => format!("The endpoint at {url} still runs: another 'zae-limiter local up' uses it."),
        Ok(Ok(Some(_alone))) if super::stop::stop(&running, state).await.is_ok() => {
            "The endpoint that was started for it was stopped.".to_owned()
        }
        _ => format!(
            "The endpoint at {url} (process {pid}) still runs; stop it with 'zae-limiter local down'."
        ),
    };
    Failure::bare(format!("{text}\n{end}"), exit)
}

/// Refuses a name that no stack can be deployed under.
fn check_name(name: &str) -> Result<(), Failure> {
    crate::names::stack(name)?;
    let checked = zae_limiter_infra::StackOptions::default().check(name);
    checked.map_err(|err| Failure::usage(crate::failure::invalid(&err)))
}

/// Does what the command `deploy` does. What it prints as JSON is what `document` makes of it.
async fn deploy(
    name: &str,
    url: &str,
    format: &Format,
    document: impl FnOnce(serde_json::Value) -> serde_json::Value,
) -> Outcome {
    let mut words = vec![
        PROGRAM,
        "deploy",
        "--name",
        name,
        "--endpoint-url",
        url,
        "--region",
        "us-east-1",
    ];
    if format.output == crate::args::OutputFormat::Json {
        words.extend(["--output", "json"]);
    }
    match Cli::read(words).map(|cli| cli.command) {
        Ok(Parsed::Deploy(args)) => crate::commands::stack::deploy::deploy_within(*args, document).await,
        Ok(_) => Ok(Exit::Success),
        Err(err) => Err(Failure::error(err.to_string())),
    }
}

async fn start(args: &Up, state: &State, out: &mut Out) -> Result<(Running, bool), Failure> {
    let place = match data(args, state) {
        Some(path) => format!("data in {}", path.display()),
        None => "data in memory".to_owned(),
    };
    if !out.is_json() {
        let version = env!("CARGO_PKG_VERSION");
        out.line(format_args!(
            "Starting the local endpoint (zae-limiter {version}, {place})..."
        ))?;
        out.flush()?;
    }
    let failed = |what: &str, err: &io::Error| Failure::error(format!("{what}: {err}"));
    let log = open_log(state).map_err(|err| unusable(state, &err))?;
    let program = std::env::current_exe().map_err(|err| failed("Cannot find this program", &err))?;
    let mut command = Command::new(program);
    command
        .args(["local", "up", "--foreground", "--announce"])
        .args([
            "--port",
            &args.port().to_string(),
            "--host",
            &args.host().to_string(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    for (option, path) in [("--data-dir", &args.data_dir), ("--python", &args.python)] {
        if let Some(path) = path {
            command.arg(option).arg(path);
        }
    }
    for (flag, is_set) in [("--ephemeral", args.ephemeral), ("--verbose", args.verbose)] {
        if is_set {
            command.arg(flag);
        }
    }
    for (variable, value) in ALLOCATOR {
        if std::env::var_os(variable).is_none() {
            command.env(variable, value);
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt as _;
        // Ctrl-C in this terminal is not meant for it.
        command.process_group(0);
    }
    let mut child = command
        .spawn()
        .map_err(|err| failed("Cannot start the endpoint", &err))?;
    let stdout = child.stdout.take();
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        let read = stdout.map(|stdout| BufReader::new(stdout).read_line(&mut line));
        read.transpose().map(|_| line)
    });
    let line = match tokio::time::timeout(PATIENCE, line).await {
        Ok(Ok(Ok(line))) => line,
        Ok(_) => String::new(),
        Err(_) => {
            // It did not become ready, so it is ended.
            let _ = child.kill();
            return Err(Failure::error(format!(
                "The endpoint was not ready within {} s; see {}",
                PATIENCE.as_secs(),
                state.log().display()
            )));
        }
    };
    match serde_json::from_str(&line) {
        Ok(Said::Ready(running)) => Ok((running, true)),
        Ok(Said::Running(Some(running))) => Ok((running, false)),
        Ok(Said::Running(None)) => match awaited(state).await? {
            Some(running) => Ok((running, false)),
            None => Err(Failure::error(
                "Another endpoint was just starting or stopping. Try again.",
            )),
        },
        Ok(Said::Error(text)) => Err(Failure::bare(text, Exit::Failure)),
        Err(_) => Err(Failure::error(format!(
            "The endpoint ended before it was ready; see {}",
            state.log().display()
        ))),
    }
}

/// Waits for an endpoint that another process is starting.
async fn awaited(state: &State) -> Result<Option<Running>, Failure> {
    let mut waited = Duration::ZERO;
    while waited < SOON {
        if let Some(running) = state.running().map_err(|err| unusable(state, &err))? {
            return Ok(Some(running));
        }
        tokio::time::sleep(PAUSE).await;
        waited += PAUSE;
    }
    Ok(None)
}

fn open_log(state: &State) -> io::Result<File> {
    state.make()?;
    let path = state.log();
    if fs::metadata(&path).is_ok_and(|found| found.len() > LONG) {
        fs::rename(&path, path.with_extension("log.1"))?;
    }
    process::private_file().create(true).append(true).open(path)
}

pub(super) async fn status(running: Option<&Running>, format: &Format) -> Outcome {
    let mut out = Out::new(format);
    let Some(running) = running else {
        out.answer("Local endpoint: not running", &json!({ "running": false }))?;
        return Ok(Exit::Success);
    };
    let health = health::ask(running.address()).await;
    let services = health
        .as_ref()
        .map(|health| health.services.join(","))
        .unwrap_or_default();
    let is_ending = state()?.is_ending().unwrap_or(false);
    let word = match &health {
        _ if is_ending => "stopping",
        Ok(health) if health.pid == running.pid => "healthy",
        Ok(_) => "unhealthy: another process answers on its port",
        Err(_) => "unhealthy: it does not answer",
    };
    let data = match &running.data {
        Some(path) => path.display().to_string(),
        None => "in memory".to_owned(),
    };
    if out.is_json() {
        out.json(&json!({
            "running": true, "url": running.url(), "port": running.port, "address": running.host, "pid": running.pid,
            "health": word, "version": running.version, "data": running.data, "services": services,
        }))?;
    } else {
        out.line("Local endpoint: running")?;
        out.line(format_args!("Endpoint:   {}", running.url()))?;
        out.line(format_args!("Health:     {word}"))?;
        out.line(format_args!(
            "Version:    zae-limiter {} (process {})",
            running.version, running.pid
        ))?;
        out.line(format_args!("Data:       {data}"))?;
        out.line(format_args!("Services:   {services}"))?;
        if health.is_ok() {
            instructions(&mut out, running.port)?;
        }
    }
    out.flush()?;
    Ok(Exit::Success)
}

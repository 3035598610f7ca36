//! `local`: this project's endpoint, or LocalStack in Docker in its place.

mod background;
mod container;
mod foreground;
mod kept;
mod log;
mod stop;

use std::io;
use std::path::{Path, PathBuf};

use zae_limiter_local::shell::{Format as ShellFormat, Variables};
use zae_limiter_local::state::{Running, STATE_DIR, State};

use super::Outcome;
use crate::args::local::{DockerHost, Env, EnvFormat, LocalCommand, PORT, Up};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;

pub(crate) use foreground::serve;

/// Holds the Docker daemon that LocalStack was started on, so that the other commands find it.
const CONTAINER: &str = "localstack.json";

pub(crate) async fn run(command: LocalCommand) -> Outcome {
    match command {
        LocalCommand::Up(args) if args.docker.is_wanted() => container::up(&args).await,
        LocalCommand::Up(args) => Box::pin(background::up(&args)).await,
        LocalCommand::Down(args) => match place(&args.docker)? {
            Place::Own(running) => stop::down(running, &args.format).await,
            Place::Container(host) => container::down(host.as_deref(), &args.format).await,
        },
        LocalCommand::Status(args) => match place(&args.docker)? {
            Place::Own(running) => background::status(running.as_ref(), &args.format).await,
            Place::Container(host) => container::status(host.as_deref(), &args.format).await,
        },
        LocalCommand::Logs(args) => match place(&args.docker)? {
            Place::Own(running) => log::logs(running.as_ref(), &args).await,
            Place::Container(host) => container::logs(host.as_deref(), &args).await,
        },
        LocalCommand::Env(args) => env(&args),
    }
}

/// The endpoint for the commands other than `up`.
enum Place {
    /// This project's endpoint, if it runs.
    Own(Option<Running>),
    /// LocalStack, on this Docker daemon.
    Container(Option<String>),
}

fn place(docker: &DockerHost) -> Result<Place, Failure> {
    if docker.docker_host.is_some() {
        return Ok(Place::Container(docker.docker_host.clone()));
    }
    let state = state()?;
    let running = state.running().map_err(|err| unusable(&state, &err))?;
    if running.is_some() {
        return Ok(Place::Own(running));
    }
    let path = state.directory().join(CONTAINER);
    match std::fs::read(&path) {
        Ok(text) => match serde_json::from_slice(&text) {
            Ok(host) => Ok(Place::Container(host)),
            Err(err) => Err(unreadable(&path, &err)),
        },
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Place::Own(None)),
        Err(err) => Err(unreadable(&path, &err)),
    }
}

fn unreadable(path: &Path, err: &dyn std::fmt::Display) -> Failure {
    Failure::error(format!(
        "The file {} with the Docker daemon of LocalStack cannot be read: {err}. Name the \
         daemon with --docker-host, or delete the file if LocalStack does not run any more.",
        path.display()
    ))
}

/// Where the endpoint leaves its mark.
fn state() -> Result<State, Failure> {
    State::of_user().ok_or_else(|| {
        Failure::error(format!(
            "There is no home directory for the endpoint's state. Set {STATE_DIR} to a directory."
        ))
    })
}

fn unusable(state: &State, err: &io::Error) -> Failure {
    Failure::error(format!(
        "The directory {} cannot be used: {err}",
        state.directory().display()
    ))
}

/// Where an endpoint that is to be started keeps its data; `None` for nowhere.
fn data(args: &Up, state: &State) -> Option<PathBuf> {
    if args.ephemeral {
        return None;
    }
    Some(args.data_dir.clone().unwrap_or_else(|| state.data()))
}

fn env(args: &Env) -> Outcome {
    let format = match args.format {
        EnvFormat::Eval => ShellFormat::Eval,
        EnvFormat::Direnv => ShellFormat::Direnv,
        EnvFormat::PowerShell => ShellFormat::PowerShell,
    };
    // One that cannot be asked for need not run.
    let running = State::of_user().and_then(|state| state.running().ok().flatten());
    let variables = match (running, args.port) {
        (Some(running), None | Some(0)) => Variables::of_url(running.url()),
        (Some(running), Some(port)) if port == running.port => Variables::of_url(running.url()),
        (_, port) => Variables::of_port(port.filter(|port| *port != 0).unwrap_or(PORT)),
    };
    let text = variables.render(format);
    io::Write::write_all(&mut io::stdout().lock(), text.as_bytes())?;
    Ok(Exit::Success)
}

/// How to lead a shell to a port.
fn instructions(out: &mut Out, port: u16) -> Result<(), Failure> {
    let other = if port == PORT {
        String::new()
    } else {
        format!(" --port {port}")
    };
    let commands = [
        (format!("eval \"$(zae-limiter local env{other})\""), "bash/zsh"),
        (
            format!("zae-limiter local env{other} --format direnv > .envrc"),
            "direnv",
        ),
        (
            format!("zae-limiter local env{other} --format powershell"),
            "PowerShell",
        ),
    ];
    out.line("\nTo configure your shell:")?;
    let width = commands
        .iter()
        .map(|(command, _)| command.len())
        .max()
        .unwrap_or_default();
    for (command, shell) in commands {
        out.line(format_args!("  {command:width$}  # {shell}"))?;
    }
    Ok(())
}

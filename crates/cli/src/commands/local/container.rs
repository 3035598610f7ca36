//! LocalStack in a Docker container.

use std::fs;
use std::io::{self, Write as _};
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;
use zae_limiter_local::docker::{Docker, Down, Error, LossyText, NotReady, Progress, Up, UpOptions};

use super::{CONTAINER, instructions, state};
use crate::args::Format;
use crate::args::local::{Logs, PYTHON_VARIABLE, Up as Args};
use crate::commands::Outcome;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;

/// Names the Docker daemon where no option does.
const DOCKER_HOST: &str = "DOCKER_HOST";

/// How often to look whether the log is still read, while nothing is written.
const LOOK: Duration = Duration::from_millis(200);

async fn connect(host: Option<&str>) -> Result<Docker, Failure> {
    let named = std::env::var(DOCKER_HOST).ok();
    let docker = Docker::connect(host.or(named.as_deref())).await;
    docker.map_err(|err| failed(&err))
}

fn failed(err: &Error) -> Failure {
    Failure::error(err.to_string())
}

pub(super) async fn up(args: &Args) -> Outcome {
    // A `PYTHON` of the environment is not meant for LocalStack.
    if let Some(python) = &args.python
        && std::env::var_os(PYTHON_VARIABLE).as_deref() != Some(python.as_os_str())
    {
        return Err(Failure::usage(format!(
            "the argument '--python {}' cannot be used with LocalStack, which has its own interpreter",
            python.display()
        )));
    }
    let host = args.docker.docker_host.as_deref();
    let docker = connect(host).await?;
    let mut options = UpOptions {
        port: args.port(),
        ..UpOptions::default()
    };
    if let Some(image) = &args.docker.image {
        options.image.clone_from(image);
    }
    remember(host)?;
    let json = args.format.output == crate::args::OutputFormat::Json;
    let outcome = docker.up(&options, &mut |progress| tell(json, &progress)).await;
    let outcome = outcome.map_err(|err| failed(&err))?;
    let end = |word: &str| {
        let mut out = io::stdout().lock();
        if json {
            Ok(())
        } else {
            writeln!(out, "{word}").and_then(|()| out.flush())
        }
    };
    let mut lines = Vec::new();
    let port = match outcome {
        Up::AlreadyRunning { port } => {
            let mut out = Out::new(&args.format);
            print(&mut out, port, "LocalStack is already running")?;
            return Ok(Exit::Success);
        }
        Up::Ready { port } => {
            end(" ready")?;
            Some(port)
        }
        Up::NotReady(why) => {
            match why {
                NotReady::Unhealthy => end(" failed")?,
                NotReady::Timeout => end(" timeout")?,
                NotReady::Exited { last_lines } => {
                    end(" container exited")?;
                    lines = last_lines;
                }
                NotReady::Dead => end(" container dead")?,
                _ => end(" container removed")?,
            }
            None
        }
    };
    let Some(port) = port else {
        if !lines.is_empty() {
            crate::say("Container logs:");
            for line in lines {
                crate::say(&line);
            }
        }
        return Err(Failure::error("LocalStack did not become healthy"));
    };
    let mut out = Out::new(&args.format);
    print(&mut out, port, "LocalStack is ready")?;
    if out.is_json() {
        return Ok(Exit::Success);
    }
    instructions(&mut out, port)?;
    if let Some(name) = &args.name {
        out.line("\nOr deploy directly:")?;
        out.line(format_args!(
            "  zae-limiter deploy --name {name} --endpoint-url http://localhost:{port} --region us-east-1"
        ))?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

fn print(out: &mut Out, port: u16, what: &str) -> Result<(), Failure> {
    if out.is_json() {
        out.json(&json!({ "url": format!("http://localhost:{port}"), "port": port }))?;
    } else {
        out.line(format_args!("{what} at http://localhost:{port}"))?;
    }
    out.flush()
}

/// Leaves word of the daemon for the other commands.
fn remember(host: Option<&str>) -> Result<(), Failure> {
    let state = state()?;
    let written = state
        .make()
        .and_then(|()| fs::write(state.directory().join(CONTAINER), json!(host).to_string()));
    written.map_err(|err| super::unusable(&state, &err))
}

/// Says what is being done, unless programs read it.
fn tell(json: bool, progress: &Progress<'_>) {
    if !json {
        // A closed terminal does not stop the command.
        let _ = print_progress(progress);
    }
}

fn print_progress(progress: &Progress<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match progress {
        Progress::RemovingStopped => writeln!(out, "Removing stopped container...")?,
        Progress::Pulling { image } => {
            writeln!(out, "Pulling image {image} (this may take a few minutes)...")?;
        }
        Progress::Pulled { image } => writeln!(out, "Image {image} pulled successfully")?,
        Progress::Starting { image } => writeln!(out, "Starting LocalStack ({image})...")?,
        Progress::Waiting => write!(out, "Waiting for LocalStack to become healthy...")?,
        Progress::Poll => write!(out, ".")?,
        Progress::Stopping => writeln!(out, "Stopping LocalStack...")?,
        _ => {}
    }
    out.flush()
}

pub(super) async fn down(host: Option<&str>, format: &Format) -> Outcome {
    let docker = connect(host).await?;
    let json = format.output == crate::args::OutputFormat::Json;
    let outcome = docker.down(&mut |progress| tell(json, &progress)).await;
    let outcome = outcome.map_err(|err| failed(&err))?;
    // That it is not there is as good.
    let _ = fs::remove_file(state()?.directory().join(CONTAINER));
    let stopped = outcome == Down::Stopped;
    let told = if stopped {
        "LocalStack stopped."
    } else {
        "LocalStack is not running."
    };
    Out::new(format).answer(told, &json!({ "stopped": stopped }))?;
    Ok(Exit::Success)
}

pub(super) async fn status(host: Option<&str>, format: &Format) -> Outcome {
    let status = connect(host).await?.status().await.map_err(|err| failed(&err))?;
    let mut out = Out::new(format);
    let Some(status) = status else {
        out.answer("LocalStack: not running", &json!({ "running": false }))?;
        return Ok(Exit::Success);
    };
    let port = status.port_or_default();
    let health = status.health.as_deref().unwrap_or("unknown");
    if out.is_json() {
        out.json(&json!({
            "running": status.state == "running", "state": status.state, "url": format!("http://localhost:{port}"),
            "port": port, "health": health, "image": status.image, "services": status.services,
        }))?;
    } else {
        out.line(format_args!("LocalStack: {}", status.state))?;
        out.line(format_args!("Endpoint:   http://localhost:{port}"))?;
        out.line(format_args!("Health:     {health}"))?;
        out.line(format_args!("Image:      {}", status.image))?;
        out.line(format_args!("Services:   {}", status.services))?;
        if status.is_ready() {
            instructions(&mut out, port)?;
        }
    }
    out.flush()?;
    Ok(Exit::Success)
}

pub(super) async fn logs(host: Option<&str>, args: &Logs) -> Outcome {
    let docker = connect(host).await?;
    let logs = docker.logs(args.tail.into(), args.follow).await;
    let mut logs = std::pin::pin!(logs.map_err(|err| failed(&err))?);
    let mut text = LossyText::default();
    loop {
        let piece = tokio::select! {
            piece = logs.next() => piece,
            () = tokio::time::sleep(LOOK) => {
                if crate::out::is_closed() {
                    return Ok(Exit::Success);
                }
                continue;
            }
        };
        let Some(piece) = piece else { break };
        match piece {
            Ok(bytes) => show(&text.push(&bytes))?,
            Err(Error::Removed) => {
                crate::say("\nContainer stopped.");
                return Ok(Exit::Success);
            }
            Err(err) => {
                crate::say("");
                return Err(failed(&err));
            }
        }
    }
    show(&text.finish())?;
    Ok(Exit::Success)
}

fn show(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

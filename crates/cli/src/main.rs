//! The `zae-limiter` command.
//!
//! `args` reads the command line, `connect` finds the table, `commands` do the work with the library, `out` and
//! `text` show results, `failure` and `exit` say what went wrong and how to end. Nothing here decides about
//! tokens or depends on the storage of records.
//!
//! The same executable is the bootstrap of the table's functions, and of the one that generates load: started by AWS Lambda, it
//! serves the one that the handler's name asks for.

mod args;
mod ask;
mod commands;
mod connect;
mod exit;
mod failure;
mod json;
mod names;
mod out;
mod progress;
mod signals;
mod text;

use std::io::Write as _;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use args::local::LocalCommand;
use args::{Cli, Command};
use commands::Outcome;
use exit::Exit;
use failure::Failure;
use signals::{Catch, Signals};
use zae_limiter_lambda::{HANDLER, RUNTIME_API};

fn main() -> ExitCode {
    if let (Some(_), Ok(handler)) = (std::env::var_os(RUNTIME_API), std::env::var(HANDLER)) {
        return serve_function(&handler);
    }
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(err) => {
            if err.use_stderr() && asks_for_json() {
                let text = err.to_string();
                let text = text.strip_prefix("error: ").unwrap_or(&text);
                say_as_json(text.split("\n\n").next().unwrap_or_default(), refused());
            } else {
                let printed = err.print();
                let is_lost = printed.is_err_and(|err| err.kind() != std::io::ErrorKind::BrokenPipe);
                if is_lost && !err.use_stderr() {
                    say("Error: The output could not be written.");
                    return Exit::Failure.into();
                }
            }
            let exit = if err.use_stderr() {
                refused()
            } else {
                Exit::Success
            };
            return exit.into();
        }
    };
    match run(cli.command) {
        Ok(exit) => match out::lost() {
            None => exit.into(),
            Some(err) => {
                // What the command has found goes before.
                let exit = if exit == Exit::Success {
                    Exit::Failure
                } else {
                    exit
                };
                let text = format!("The command has ended, but its output could not be written: {err}");
                if asks_for_json() {
                    say_as_json(&text, exit);
                } else {
                    say(&format!("Error: {text}"));
                }
                exit.into()
            }
        },
        Err(Failure::NobodyReads) => Exit::Success.into(),
        Err(Failure::Message { text, exit }) => {
            let exit = if exit == Exit::Usage { refused() } else { exit };
            if asks_for_json() {
                let message = text.strip_prefix("Error: ").or(text.strip_prefix("✗ "));
                say_as_json(message.unwrap_or(&text), exit);
            } else {
                say(&text);
            }
            exit.into()
        }
    }
}

/// The exit code for a wrong command line: 2, but 1 where 2 says that there is something to do.
fn refused() -> Exit {
    let is_detailed = std::env::args_os().any(|arg| arg == "--detailed-exitcode");
    if is_detailed { Exit::Failure } else { Exit::Usage }
}

/// Whether the command line asks for JSON. One that could not be read may do so, too.
fn asks_for_json() -> bool {
    let mut args = std::env::args_os().take_while(|arg| arg != "--");
    while let Some(arg) = args.next() {
        if arg == "--output=json" || (arg == "--output" && args.next().is_some_and(|format| format == "json"))
        {
            return true;
        }
    }
    false
}

/// Reports a failure on standard error as a line of JSON.
fn say_as_json(message: &str, exit: Exit) {
    let error = serde_json::json!({ "error": { "message": message, "exit_code": exit.code() } });
    // If this fails, there is no other place for it.
    drop(writeln!(std::io::stderr(), "{error}"));
}

/// Inside a function of AWS Lambda this program is the function.
fn serve_function(handler: &str) -> ExitCode {
    if handler == commands::loadtest::handler::NAME {
        return commands::loadtest::handler::serve();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map(|runtime| runtime.block_on(zae_limiter_lambda::run(handler))) {
        // What went wrong stands in the log.
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(_)) => ExitCode::FAILURE,
        Err(err) => {
            say(&format!("Error: Cannot start: {err}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Outcome {
    let command = match command {
        Command::Completions(args) => return commands::shell::completions(&args),
        Command::Man(args) => return commands::shell::man(&args),
        // These have threads of their own.
        Command::Loadtest(command) if command.has_users() => {
            return commands::loadtest::on_all_processors(command);
        }
        Command::Local(LocalCommand::Up(args)) if args.foreground => return commands::local::serve(&args),
        Command::Serve(args) => return commands::serve::serve(&args),
        other => other,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|err| Failure::error(format!("Cannot start: {err}")))?;
    let outcome = runtime.block_on(start(command));
    // An unanswered question must not keep the program running.
    runtime.shutdown_background();
    outcome
}

async fn start(command: Command) -> Outcome {
    // It hears of signals itself: its tokens must not be lost, nor its command be left alone.
    let command = match command {
        Command::Acquire(args) => return commands::acquire::acquire(args).await,
        other => other,
    };
    // It has no other end.
    let is_followed = matches!(&command, Command::Local(LocalCommand::Logs(args)) if args.follow);
    let mut signals = Signals::catch(Catch::Ends)?;
    tokio::select! {
        biased;
        ending = signals.ending() => {
            if is_followed && ending.is_interrupt() {
                return Ok(Exit::Success);
            }
            say("");
            Err(ending.into_failure())
        }
        outcome = dispatch(command) => {
            connect::warn_of_clock();
            outcome
        }
    }
}

async fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Acquire(args) => commands::acquire::acquire(args).await,
        Command::Audit(command) => commands::audit::run(command).await,
        Command::Available(args) => commands::acquire::available(args).await,
        Command::CfnTemplate(args) => commands::stack::export::template(&args),
        Command::Check(args) => commands::table::check(args).await,
        Command::Completions(args) => commands::shell::completions(&args),
        Command::Delete(args) => commands::stack::delete::delete(args).await,
        Command::Deploy(args) => commands::stack::deploy::deploy(*args).await,
        Command::Entity(command) => commands::entity::run(command).await,
        Command::LambdaExport(args) => commands::stack::export::package(&args),
        Command::Limits(command) => commands::limits::run(command).await,
        Command::List(args) => commands::stack::list::list(args).await,
        Command::Loadtest(command) => Box::pin(commands::loadtest::run(command)).await,
        Command::Local(command) => Box::pin(commands::local::run(command)).await,
        Command::Man(args) => commands::shell::man(&args),
        Command::Namespace(command) => commands::namespace::run(command).await,
        Command::RefusalSchema(_) => commands::acquire::schema(),
        Command::Replay(args) => Box::pin(commands::replay::replay(*args)).await,
        Command::Resource(command) => commands::resource::run(command).await,
        Command::Serve(args) => commands::serve::serve(&args),
        Command::Status(args) => commands::stack::status::status(args).await,
        Command::System(command) => commands::system::run(command).await,
        Command::Upgrade(args) => commands::stack::upgrade::upgrade(args).await,
        Command::Usage(command) => commands::usage::run(command).await,
        Command::Version(args) => commands::table::version(args).await,
    }
}

/// Prints a line on standard error, what it begins with in colour where colours are wanted. Ignores a
/// failure, since there is no other place for the line.
fn say(text: &str) {
    let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    let yellow = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
    let marks = [
        ("Error:", red),
        ("✗", red),
        ("Warning:", yellow),
        ("Note:", yellow),
    ];
    let marked = marks
        .iter()
        .find_map(|(mark, style)| Some((*mark, *style, text.strip_prefix(mark)?)));
    let mut to = anstream::stderr().lock();
    // On anything but a terminal, and with NO_COLOR, the stream leaves the colours out.
    let _ = match marked {
        Some((mark, style, rest)) => writeln!(to, "{style}{mark}{style:#}{rest}"),
        None => writeln!(to, "{text}"),
    };
}

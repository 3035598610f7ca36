//! What the program and its command do about signals. Limits fill up within a day, so that no token comes back by itself.

use std::fs;
use std::io;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::acquire::{left, limited, line_of, pid, started};
use crate::functions::{STACK, Server, function};
use crate::world::{Ran, World, ended};

/// What kills a process that does not catch it.
const KILLS: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
];

/// Counts a signal, and fails with code 9 a moment after the first.
const COUNTS: &str = "n=0; trap 'n=$((n+1))' NAME; echo started; m=0; while [ $n = 0 ] && [ $m -lt 1000 ]; do \
                      m=$((m+1)); sleep 0.02; done; sleep 0.3; echo \"got $n\"; exit 9";

fn counting(signal: Signal) -> String {
    COUNTS.replace("NAME", signal.as_str().trim_start_matches("SIG"))
}

/// `acquire` of 4 of 10 tokens, with more arguments.
fn acquiring(world: &World, more: &[&str]) -> Command {
    let mut args = vec!["acquire", "user-1", "-r", "gpt-4", "-c", "rpm:4"];
    args.extend(more);
    let mut command = world.connected(&args);
    // Its own process group, as a shell gives it.
    command.process_group(0);
    command
}

/// Waits until something is so.
#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1_500 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("it takes too long until {what}");
}

/// A line of what the system says of a process. Linux alone says it.
fn status(pid: Pid, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.map(|value| value.trim_start_matches(':').trim().to_owned())
}

fn catches(pid: Pid, signal: Signal) -> bool {
    let mask = status(pid, "SigCgt").and_then(|mask| u64::from_str_radix(&mask, 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal as i32 - 1)) != 0)
}

fn is_stopped(pid: Pid) -> bool {
    status(pid, "State").is_some_and(|state| state.starts_with('T'))
}

fn is_linux() -> bool {
    cfg!(target_os = "linux")
}

/// How the program says that a signal has ended it.
#[track_caller]
fn assert_aborted(ran: &Ran, signal: Signal) {
    let expected = match signal {
        Signal::SIGINT => (Some(130), "Aborted!\n".to_owned()),
        other => (Some(128 + other as i32), format!("Aborted by {other}\n")),
    };
    assert_eq!((ran.code, ran.stderr.clone()), expected, "{signal}");
}

#[test]
fn a_signal_while_it_waits_for_tokens() {
    let world = limited(&["rpm:10/day"]);
    world.json("acquire user-1 -r gpt-4 -c rpm:7");
    for signal in KILLS {
        // Without and with a command, which must not run.
        for more in [
            &["--wait", "24h"][..],
            &["--wait", "24h", "--", "echo", "It must not be seen"],
        ] {
            let child = acquiring(&world, more).spawn().unwrap();
            if is_linux() {
                until("the signal is caught", || catches(pid(&child), signal));
            }
            // However far it has come.
            std::thread::sleep(Duration::from_millis(150));
            kill(pid(&child), signal).unwrap();
            let ran = ended(child);
            assert_aborted(&ran, signal);
            assert_eq!(ran.stdout, "");
            assert_eq!(left(&world, "user-1", "rpm"), 3, "{signal}");
        }
    }
}

/// The tokens are taken, and the reader of the output does not read.
#[test]
fn a_signal_while_the_output_is_blocked() {
    let world = limited(&["rpm:10/day"]);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (_reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&vec![b'x'; 1 << 16]).unwrap();
        let child = acquiring(&world, &[]).stdout(writer).spawn().unwrap();
        if is_linux() {
            until("the signal is caught", || catches(pid(&child), signal));
        }
        // Until it prints, most likely. It must give the tokens back however far it has come.
        std::thread::sleep(Duration::from_secs(1));
        kill(pid(&child), signal).unwrap();
        assert_aborted(&ended(child), signal);
        assert_eq!(left(&world, "user-1", "rpm"), 10, "{signal}");
    }
}

/// The exit code says that nothing was taken, so nothing is.
#[test]
fn tokens_come_back_if_the_output_cannot_be_written() {
    if !is_linux() {
        return;
    }
    let world = limited(&["rpm:10/day"]);
    for more in [&[][..], &["--output", "json"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let ran = ended(acquiring(&world, more).stdout(full).spawn().unwrap());
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains("No space left"), "{ran:?}");
        assert_eq!(left(&world, "user-1", "rpm"), 10, "{more:?}");
    }
}

#[test]
fn a_change_is_made_although_the_output_cannot_be_written() {
    if !is_linux() {
        return;
    }
    let world = World::new();
    for line in [
        "system set-defaults -l rpm:10",
        "resource set-defaults r -l rpm:10",
        "entity create u",
        "entity set-limits u -l rpm:10",
        "namespace register other",
        "entity delete-limits u -y",
        "entity delete u -y",
        "resource delete-defaults r -y",
        "system delete-defaults -y",
        "namespace delete other -y",
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let args: Vec<&str> = line.split(' ').collect();
        let ran = ended(world.connected(&args).stdout(full).spawn().unwrap());
        assert_eq!(ran.code, Some(1), "{line}: {ran:?}");
        let told = "Error: The command has ended, but its output could not be written: No space left";
        assert!(ran.stderr.contains(told), "{line}: {ran:?}");
    }
}

/// The exit code is the answer.
#[test]
fn an_exit_code_stays_as_it_is_although_the_output_is_closed() {
    let world = World::new();
    fs::write(
        world.path().join("limits.yaml"),
        "namespace: default\nsystem: {limits: {rpm: {capacity: 5}}}\n",
    )
    .unwrap();
    for (line, code) in [
        ("limits plan -f limits.yaml --detailed-exitcode", 2),
        ("limits diff -f limits.yaml --detailed-exitcode --output json", 2),
        ("check", 0),
        ("check -n none", 4),
        ("version -n none --output json", 4),
        ("status -n none", 4),
    ] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let args: Vec<&str> = line.split(' ').collect();
        let mut command = world.connected(&args[..]);
        if args.contains(&"none") {
            let args: Vec<_> = args
                .iter()
                .copied()
                .chain(["--endpoint-url", "embedded:./none"])
                .collect();
            command = world.command(&args);
        }
        let ran = ended(command.stdout(writer).spawn().unwrap());
        assert_eq!(ran.code, Some(code), "{line}: {ran:?}");
    }
}

/// The tokens are taken, and the program does not know it yet.
#[test]
fn a_signal_while_the_answer_is_on_its_way() {
    let server = Server::new(function("provided.al2023"));
    let world = World::without_table();
    let at = [
        "-n",
        STACK,
        "--region",
        "us-east-1",
        "--endpoint-url",
        &server.url,
    ];
    let run = |line: &str| {
        let args: Vec<&str> = line.split(' ').chain(at).collect();
        let ran = ended(world.command(&args).spawn().unwrap());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran
    };
    run("system set-defaults -l rpm:10/day");
    run("acquire user-1 -r gpt-4 -c rpm:1");
    for signal in KILLS {
        for more in [&[][..], &["--", "echo", "It must not be seen"]] {
            let args = ["acquire", "user-1", "-r", "gpt-4", "-c", "rpm:4"];
            let args: Vec<&str> = args.iter().chain(&at).chain(more).copied().collect();
            let (is_done, answer) = server.hold("UpdateItem");
            let child = world.command(&args).spawn().unwrap();
            is_done.recv_timeout(Duration::from_secs(30)).unwrap();
            kill(pid(&child), signal).unwrap();
            answer.send(()).unwrap();
            let ran = ended(child);
            assert_aborted(&ran, signal);
            assert_eq!(ran.stdout, "");
            let found = run("available user-1 -r gpt-4 --output json").json();
            assert_eq!(found["available"]["rpm"], 9, "{signal} {more:?}");
        }
    }
}

/// A table that has fallen silent does not keep the program, however often it is asked to end.
#[test]
fn signals_while_the_table_is_silent() {
    let server = Server::new(function("provided.al2023"));
    let world = World::without_table();
    let at = [
        "-n",
        STACK,
        "--region",
        "us-east-1",
        "--endpoint-url",
        &server.url,
    ];
    let with = |line: &str| world.command(&line.split(' ').chain(at).collect::<Vec<_>>());
    for line in [
        "system set-defaults -l rpm:10/day",
        "acquire user-1 -r gpt-4 -c rpm:1",
    ] {
        assert_eq!(ended(with(line).spawn().unwrap()).code, Some(0));
    }
    let (is_done, answer) = server.hold("UpdateItem");
    let child = with("acquire user-1 -r gpt-4 -c rpm:4 --timeout 10m")
        .spawn()
        .unwrap();
    is_done.recv_timeout(Duration::from_secs(30)).unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGTERM] {
        kill(pid(&child), signal).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    let ran = ended(child);
    assert_eq!(ran.code, Some(128 + Signal::SIGTERM as i32), "{ran:?}");
    assert!(ran.stderr.ends_with("Aborted by SIGTERM\n"), "{ran:?}");
    // It was held back until now.
    answer.send(()).unwrap();
}

/// Neither swallowed nor doubled: it is for the command to decide what to do about it.
#[test]
fn a_command_gets_each_signal_once() {
    let world = limited(&["rpm:10/day"]);
    for signal in KILLS
        .into_iter()
        .chain([Signal::SIGTSTP, Signal::SIGCONT, Signal::SIGWINCH])
    {
        let mut child = started(&mut acquiring(&world, &["--", "sh", "-c", &counting(signal)]));
        kill(pid(&child), signal).unwrap();
        assert_eq!(line_of(&mut child), "got 1", "{signal}");
        let ran = ended(child);
        assert_eq!(ran.code, Some(9), "{signal}");
        assert_eq!(left(&world, "user-1", "rpm"), 10, "{signal}");
    }
}

#[test]
fn a_command_that_a_signal_kills_gives_its_tokens_back() {
    let world = limited(&["rpm:10/day"]);
    for signal in KILLS {
        let script = "echo started; exec sleep 600";
        let child = started(&mut acquiring(&world, &["--", "sh", "-c", script]));
        kill(pid(&child), signal).unwrap();
        let ran = ended(child);
        assert_eq!(
            (ran.code, &*ran.stderr),
            (Some(128 + signal as i32), ""),
            "{signal}"
        );
        assert_eq!(left(&world, "user-1", "rpm"), 10, "{signal}");
    }
}

/// A command may signal its parent, and all its group. Neither comes back to it.
#[test]
fn a_command_does_not_signal_itself() {
    let world = limited(&["rpm:10/day"]);
    for target in ["$PPID", "0"] {
        let script = format!("n=0; trap 'n=$((n+1))' USR1; kill -USR1 {target}; sleep 0.3; echo \"got $n\"");
        let ran = ended(acquiring(&world, &["--", "sh", "-c", &script]).spawn().unwrap());
        let expected = if target == "0" { "got 1\n" } else { "got 0\n" };
        assert_eq!((ran.code, &*ran.stdout), (Some(0), expected), "{ran:?}");
    }
}

/// A program as a shell starts it that ignores a signal.
fn ignoring(world: &World, signal: Signal, program: &Command) -> Command {
    let name = signal.as_str().trim_start_matches("SIG");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "trap '' \"$0\"; exec \"$@\"", name])
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(world.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    shell
}

/// What `nohup`, and shells for their background jobs, ignore stays ignored.
#[test]
fn ignored_signals_stay_ignored() {
    if !is_linux() {
        return;
    }
    let world = limited(&["rpm:40/day", "rps:10/sec"]);
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        let name = signal.as_str().trim_start_matches("SIG");
        let script = format!("echo started; kill -{name} $$; read end; echo over");
        let program = acquiring(&world, &["--", "sh", "-c", &script]);
        let mut child = started(&mut ignoring(&world, signal, &program));
        kill(pid(&child), signal).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert_eq!(line_of(&mut child), "over", "{signal}");
        assert_eq!(ended(child).code, Some(0), "{signal}");
    }
    assert_eq!(left(&world, "user-1", "rpm"), 40 - 4 * 4);
    // While it waits for tokens, too.
    world.json("acquire user-1 -r gpt-4 -c rps:10");
    let program = acquiring(&world, &["-c", "rps:10", "--wait", "10m"]);
    let child = ignoring(&world, Signal::SIGHUP, &program).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    kill(pid(&child), Signal::SIGHUP).unwrap();
    assert_eq!(ended(child).code, Some(0));
}

/// The shell sees a job that has stopped, and continues it.
#[test]
fn a_command_that_stops_stops_the_program() {
    if !is_linux() {
        return;
    }
    let world = limited(&["rpm:10/day"]);
    let mut child = started(&mut acquiring(
        &world,
        &["--", "sh", "-c", "echo started; echo $$; exec sleep 600"],
    ));
    let command = Pid::from_raw(line_of(&mut child).parse().unwrap());
    for _ in 0..2 {
        kill(pid(&child), Signal::SIGTSTP).unwrap();
        until("both have stopped", || {
            is_stopped(command) && is_stopped(pid(&child))
        });
        kill(pid(&child), Signal::SIGCONT).unwrap();
        until("both continue", || {
            !is_stopped(command) && !is_stopped(pid(&child))
        });
    }
    kill(pid(&child), Signal::SIGTERM).unwrap();
    assert_eq!(ended(child).code, Some(128 + Signal::SIGTERM as i32));
    assert_eq!(left(&world, "user-1", "rpm"), 10);
}

/// A program as the leader of a session with a terminal, and the terminal's other end. None where that cannot be made.
fn on_terminal(world: &World, program: &Command) -> Option<(Command, fs::File)> {
    if Command::new("setsid").args(["-c", "true"]).output().is_err() {
        return None;
    }
    let terminal = openpty(None, None).unwrap();
    // Else the program would keep its own terminal alive.
    fcntl(&terminal.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    let mut session = Command::new("setsid");
    session
        .arg("-c")
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(world.path())
        .stdin(Stdio::from(terminal.slave))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Some((session, terminal.master.into()))
}

/// A key reaches the program and its command, a signal of another process the program alone. The command gets both once.
#[test]
fn on_a_terminal() {
    let world = limited(&["rpm:10/day"]);
    for (signal, key) in [
        (Signal::SIGINT, Some(b"\x03")),
        (Signal::SIGQUIT, Some(b"\x1c")),
        (Signal::SIGINT, None),
        (Signal::SIGQUIT, None),
        (Signal::SIGTERM, None),
    ] {
        let program = acquiring(&world, &["--", "sh", "-c", &counting(signal)]);
        let Some((mut session, mut terminal)) = on_terminal(&world, &program) else {
            println!("skipped: there is no setsid");
            return;
        };
        let mut child = started(&mut session);
        match key {
            Some(key) => terminal.write_all(key).unwrap(),
            None => kill(pid(&child), signal).unwrap(),
        }
        assert_eq!(line_of(&mut child), "got 1", "{signal} {key:?}");
        assert_eq!(ended(child).code, Some(9), "{signal} {key:?}");
        assert_eq!(left(&world, "user-1", "rpm"), 10, "{signal} {key:?}");
    }
}

/// Only the leader of a session gets the end of its terminal.
#[test]
fn a_terminal_that_goes_away() {
    let world = limited(&["rpm:10/day"]);
    let program = acquiring(&world, &["--", "sh", "-c", &counting(Signal::SIGHUP)]);
    let Some((mut session, terminal)) = on_terminal(&world, &program) else {
        println!("skipped: there is no setsid");
        return;
    };
    let mut child = started(&mut session);
    // The other copy of the terminal.
    drop((session, terminal));
    assert_eq!(line_of(&mut child), "got 1");
    assert_eq!(ended(child).code, Some(9));
    assert_eq!(left(&world, "user-1", "rpm"), 10);
}

/// Other commands end as they do for Ctrl-C, with the signal's exit code.
#[test]
fn other_commands() {
    let world = limited(&["rpm:10/day"]);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut command = world.connected(&["system", "delete-defaults"]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let answers = child.stdin.take();
        until("it asks", || catches(pid(&child), signal) || !is_linux());
        kill(pid(&child), signal).unwrap();
        let mut ran = ended(child);
        drop(answers);
        // The answer's line is left first.
        ran.stderr = ran.stderr.trim_start().to_owned();
        assert_aborted(&ran, signal);
    }
    assert_eq!(left(&world, "user-1", "rpm"), 10);
}

/// A program whose output is not read can be ended.
#[test]
fn while_the_output_is_blocked() {
    if !is_linux() {
        return;
    }
    let world = limited(&["rpm:10/day"]);
    for args in [
        &["system", "get-defaults"][..],
        &["acquire", "user-1", "-r", "gpt-4", "-c", "rpm:4"],
    ] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        // As much as it holds.
        writer.write_all(&vec![b'-'; 65_536]).unwrap();
        let mut child: Child = world.connected(args).stdout(writer).spawn().unwrap();
        until("the signal is caught", || catches(pid(&child), Signal::SIGTERM));
        std::thread::sleep(Duration::from_millis(500));
        kill(pid(&child), Signal::SIGTERM).unwrap();
        until("it has ended", || {
            status(pid(&child), "State").is_none_or(|state| state.starts_with('Z'))
        });
        assert_eq!(child.wait().unwrap().code(), Some(143), "{args:?}");
        drop(reader);
    }
}

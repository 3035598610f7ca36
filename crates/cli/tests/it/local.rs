//! The local endpoint: the commands around it. What it serves has tests of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::world::{Ran, World, finish, words};

/// A user's endpoint, with its state in a temporary directory.
pub(crate) struct Local {
    pub(crate) world: World,
    state: PathBuf,
}

impl Local {
    pub(crate) fn new() -> Self {
        let world = World::without_table();
        let state = world.path().join("state");
        Self { world, state }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = self.world.command(&words(&format!("local {line}")));
        command.env("ZAE_LIMITER_STATE_DIR", &self.state);
        command
    }

    fn run(&self, line: &str) -> Ran {
        finish(&mut self.command(line), None)
    }

    /// Starts it. What it says of itself.
    pub(crate) fn up(&self, options: &str) -> serde_json::Value {
        self.run(&format!("up --port 0 --ephemeral --output json {options}"))
            .json()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // It may not run.
        let _ = self.run("down");
    }
}

#[test]
fn a_second_start_says_what_the_first_keeps() {
    let local = Local::new();
    let port = local.up("")["port"].clone();
    let plain = local.run("up");
    assert_eq!((plain.code, &*plain.stderr), (Some(0), ""));
    let other = local.run("up --host 0.0.0.0 --data-dir elsewhere --verbose");
    assert_eq!(
        other.stderr,
        "Note: The running endpoint keeps its address 127.0.0.1 (not 0.0.0.0), its data in memory (not in elsewhere), \
         its log without requests (no --verbose); run 'zae-limiter local down' first to change that.\n"
    );
    assert!(
        other.stdout.starts_with(&format!(
            "Local endpoint is already running at http://localhost:{port}\n"
        )),
        "{other:?}"
    );
}

#[test]
fn what_it_stores_is_for_its_user_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let local = Local::new();
    // As an earlier release made it.
    fs::create_dir(&local.state).unwrap();
    fs::set_permissions(&local.state, fs::Permissions::from_mode(0o755)).unwrap();
    let data = local.world.path().join("data");
    local
        .run(&format!(
            "up --port 0 --data-dir {} --name my-app --output json",
            data.display()
        ))
        .json();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&local.state), mode(&data)), (0o700, 0o700));
    let mut files: Vec<_> = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(!files.is_empty());
    files.retain(|file| mode(file) & 0o077 != 0);
    assert!(files.is_empty(), "{files:?}");
    let table = local.world.path().join("embedded");
    let place = format!("deploy --endpoint-url embedded:{}", table.display());
    let deployed = finish(&mut local.world.command(&words(&place)), None);
    assert_eq!((deployed.code, mode(&table)), (Some(0), 0o700), "{deployed:?}");
    // A directory that was there keeps its mode; the files in it are private nevertheless.
    let shared = local.world.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    let place = format!("deploy --endpoint-url embedded:{}", shared.display());
    let deployed = finish(&mut local.world.command(&words(&place)), None);
    assert_eq!((deployed.code, mode(&shared)), (Some(0), 0o755), "{deployed:?}");
    for entry in fs::read_dir(&shared).unwrap() {
        let file = entry.unwrap().path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

/// Functions start in another directory than the endpoint.
#[test]
fn functions_run_from_a_relative_directory() {
    let local = Local::new();
    local
        .run("up --port 0 --data-dir data --name my-app --output json")
        .json();
    let manifest = "namespace: default\nsystem: {limits: {rpm: {capacity: 5}}}\n";
    fs::write(local.world.path().join("limits.yaml"), manifest).unwrap();
    let url = local.run("status --output json").json()["url"]
        .as_str()
        .unwrap()
        .to_owned();
    let line = format!(
        "limits apply -n my-app -f limits.yaml --region us-east-1 --endpoint-url {url} --output json"
    );
    let applied = finish(&mut local.world.command(&words(&line)), None);
    assert_eq!(applied.code, Some(0), "{applied:?}");
    assert_eq!(applied.json()["created"], 1, "{applied:?}");
}

#[test]
fn variables_follow_the_one_that_runs() {
    let local = Local::new();
    let usual = "export AWS_ENDPOINT_URL=http://localhost:4566\n";
    assert!(local.run("env").stdout.starts_with(usual));
    let url = local.up("")["url"].clone();
    let url = url.as_str().unwrap();
    let led = format!("export AWS_ENDPOINT_URL={url}\n");
    assert!(local.run("env").stdout.starts_with(&led));
    assert!(local.run("env --port 4566").stdout.starts_with(usual));
}

#[test]
#[cfg(target_os = "linux")]
fn another_loopback_address_is_where_it_is_reached() {
    let local = Local::new();
    let up = local.up("--host 127.0.0.2");
    let url = format!("http://127.0.0.2:{}", up["port"]);
    assert_eq!(up["url"], url);
    let status = local.run("status --output json").json();
    assert_eq!(
        (&status["health"], &status["url"]),
        (&"healthy".into(), &url.clone().into())
    );
    let env = local.run(&format!("env --port {}", up["port"]));
    assert!(
        env.stdout
            .starts_with(&format!("export AWS_ENDPOINT_URL={url}\n")),
        "{env:?}"
    );
}

#[test]
#[cfg(target_os = "linux")]
fn it_may_open_as_many_files_as_the_system_lets_it() {
    let local = Local::new();
    let mut command = Command::new("sh");
    let up = local.command("up --port 0 --ephemeral --output json");
    command
        .args(["-c", "ulimit -S -n 100 && exec \"$@\"", "sh"])
        .arg(up.get_program())
        .args(up.get_args())
        .env_clear()
        .envs(up.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let up: serde_json::Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", up["pid"])).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let soft = files.split_whitespace().nth(3).unwrap();
    assert_ne!(soft, "100", "{files}");
}

#[test]
fn following_the_log_ends_in_silence() {
    let local = Local::new();
    local.up("");
    let mut command = local.command("logs --follow");
    let mut following = command.spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("the endpoint is ready"));
    // What comes later is shown, too.
    let log = local.state.join("endpoint.log");
    let mut log = fs::File::options().append(true).open(log).unwrap();
    writeln!(log, "one more line").unwrap();
    while lines.next().unwrap().unwrap() != "one more line" {}
    let pid = nix::unistd::Pid::from_raw(i32::try_from(following.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let status = following.wait().unwrap();
    let mut said = String::new();
    following
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!((status.code(), &*said), (Some(0), ""));
}

#[test]
fn following_the_log_ends_when_it_is_not_read_any_more() {
    let local = Local::new();
    local.up("");
    let mut following = local.command("logs --follow").spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().is_ok());
    drop(lines);
    // The endpoint writes nothing.
    assert_eq!(following.wait().unwrap().code(), Some(0));
}

#[test]
fn a_start_waits_for_an_endpoint_that_is_being_stopped() {
    let local = Local::new();
    let first = local.up("")["pid"].clone();
    let mark = local.state.join("endpoint.ending");
    fs::write(&mark, "").unwrap();
    assert!(local.run("status").stdout.contains("Health:     stopping"));
    let mut second = local.command("up --port 0 --ephemeral").spawn().unwrap();
    let mut lines = BufReader::new(second.stdout.take().unwrap()).lines();
    let mut line = || lines.next().unwrap().unwrap();
    assert_eq!(
        line(),
        "The local endpoint is being stopped; waiting until it has ended..."
    );
    assert_eq!(local.run("down").code, Some(0));
    assert!(line().starts_with("Starting the local endpoint"));
    assert!(line().starts_with("Local endpoint is ready"));
    assert_eq!(second.wait().unwrap().code(), Some(0));
    assert!(!mark.exists());
    let running = local.run("status --output json").json();
    assert_ne!(running["pid"], first);
}

#[test]
fn it_keeps_nothing_open_that_its_starter_had_open() {
    let local = Local::new();
    let (mut reader, writer) = std::io::pipe().unwrap();
    // Unlike the pipe's own ends, a copy is inherited.
    let copy = nix::unistd::dup(&writer).unwrap();
    drop(writer);
    local.up("");
    drop(copy);
    // It ends at once: nothing has the other end any more.
    let mut read = String::new();
    reader.read_to_string(&mut read).unwrap();
    assert_eq!(local.run("status --output json").json()["running"], true);
}

#[test]
fn proxies_are_not_used_for_this_machine() {
    let local = Local::new();
    let url = local.up("")["url"].as_str().unwrap().to_owned();
    let variables = [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
    ];
    let through = |line: &str| {
        let mut command = local.world.command(&words(line));
        // Nothing listens at port 9.
        command.envs(variables.map(|name| (name, "http://user:secret@127.0.0.1:9")));
        command.envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")]);
        finish(&mut command, None)
    };
    let ran = through(&format!("list --region us-east-1 --endpoint-url {url}"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = through(&format!("resource list --region us-east-1 --endpoint-url {url}"));
    assert_eq!(ran.code, Some(4), "{ran:?}");
    let ran = through("resource list --region us-east-1 --endpoint-url http://192.0.2.1:4566");
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains(". HTTPS_PROXY names a proxy"), "{ran:?}");
    assert!(!ran.stderr.contains("secret"), "{ran:?}");
}

#[test]
fn a_bad_variable_is_named() {
    let local = Local::new();
    let ran = finish(local.command("up").env("ZAE_LIMITER_LOCAL_PORT", "abc"), None);
    assert_eq!(ran.code, Some(2));
    let told = "error: invalid value 'abc' for '--port <PORT> in ZAE_LIMITER_LOCAL_PORT': expected a whole number from 0 to 65535";
    assert!(ran.stderr.starts_with(told), "{}", ran.stderr);
}

#[test]
fn a_start_beside_an_endpoint_that_does_not_answer_says_so() {
    use nix::sys::signal::{Signal, kill};

    let local = Local::new();
    let pid = local.up("")["pid"].as_i64().unwrap();
    let process = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    kill(process, Signal::SIGSTOP).unwrap();
    let ran = local.run("up");
    kill(process, Signal::SIGCONT).unwrap();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let told = format!("Error: The local endpoint (process {pid}) does not answer at http://localhost:");
    assert!(ran.stderr.starts_with(&told), "{ran:?}");
}

#[test]
fn localstack_is_not_given_an_interpreter() {
    let local = Local::new();
    let mut command = local.command("up --image localstack/localstack:4 --python python3");
    let ran = finish(&mut command, None);
    assert_eq!(ran.code, Some(2));
    assert_eq!(
        ran.stderr,
        "Error: the argument '--python python3' cannot be used with LocalStack, which has its own interpreter\n"
    );
    let mut command = local.command("up --image localstack/localstack:4 --docker-host tcp://127.0.0.1:1");
    let ran = finish(command.env("PYTHON", "python3"), None);
    assert!(ran.stderr.contains("127.0.0.1:1"), "{}", ran.stderr);
}

#[test]
fn an_unreadable_note_of_a_container_is_named() {
    let local = Local::new();
    fs::create_dir_all(&local.state).unwrap();
    let note = local.state.join("localstack.json");
    fs::write(&note, "{not json").unwrap();
    for command in ["status", "logs", "down"] {
        let ran = local.run(command);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains(&note.display().to_string()), "{ran:?}");
    }
    fs::remove_file(note).unwrap();
    assert_eq!(local.run("status").stdout, "Local endpoint: not running\n");
}

#[test]
fn a_name_that_no_stack_can_have_starts_nothing() {
    let local = Local::new();
    for name in ["j", "jj", "my_app"] {
        let ran = local.run(&format!("up --port 0 --ephemeral --name {name} --output json"));
        assert_eq!((ran.code, &*ran.stdout), (Some(2), ""), "{ran:?}");
        assert_eq!(local.run("status").stdout, "Local endpoint: not running\n");
    }
}

#[test]
fn an_endpoint_whose_stack_cannot_be_deployed_is_stopped_if_it_was_started_for_it() {
    let local = Local::new();
    // The functions' package is not an executable.
    let package = local.world.path().join("package");
    fs::write(&package, "no executable").unwrap();
    let up = |options: &str| {
        let mut command = local.command(&format!("up --port 0 --ephemeral --name my-app {options}"));
        command.env("ZAE_LIMITER_LAMBDA_PACKAGE", &package);
        finish(&mut command, None)
    };
    for options in ["--output json", ""] {
        let ran = up(options);
        assert_ne!(ran.code, Some(0), "{ran:?}");
        let said = ran.failure();
        assert!(
            said.ends_with("The endpoint that was started for it was stopped."),
            "{ran:?}"
        );
        assert_eq!(local.run("status").stdout, "Local endpoint: not running\n");
    }
    // One that ran before continues.
    local.up("");
    let ran = up("--output json");
    assert_eq!((ran.code == Some(0), &*ran.stdout), (false, ""), "{ran:?}");
    assert_eq!(local.run("status --output json").json()["running"], true);
}

#[test]
fn an_endpoint_that_others_use_is_not_stopped_with_the_stack_that_failed() {
    let local = Local::new();
    // The functions' package is not an executable, and is not read before the test says so.
    let package = local.world.path().join("package");
    nix::unistd::mkfifo(&package, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut command = local.command("up --port 0 --ephemeral --name my-app");
    command.env("ZAE_LIMITER_LAMBDA_PACKAGE", &package);
    let first = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let writer = || {
        fs::File::options()
            .write(true)
            .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
            .open(&package)
    };
    // It can be opened once the first one reads.
    let mut held = (0..6000)
        .find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            writer().ok()
        })
        .expect("the package is read");
    assert_eq!(local.up("")["started"], false);
    held.write_all(b"no executable").unwrap();
    drop(held);
    // It may be read more than once.
    let ended = std::sync::atomic::AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                if let Ok(mut again) = writer() {
                    let _ = again.write_all(b"no executable");
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        });
        let output = first.wait_with_output().unwrap();
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
        output
    });
    let ran = Ran::of(output);
    assert!(
        ran.code != Some(0)
            && ran
                .stderr
                .ends_with("still runs: another 'zae-limiter local up' uses it.\n"),
        "{ran:?}"
    );
    assert_eq!(local.run("status --output json").json()["running"], true);
}

/// Without the table's version record and namespace the stack could not be used.
#[test]
fn a_deployment_whose_output_cannot_be_written_is_finished() {
    let local = Local::new();
    let url = local.up("")["url"].as_str().unwrap().to_owned();
    let options = format!("--endpoint-url {url} --region us-east-1");
    let run = |line: &str| local.world.command(&words(&format!("{line} {options}")));
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let deploy = |name: &str| {
        run(&format!(
            "deploy -n {name} --no-aggregator --no-provisioner --no-alarms"
        ))
    };
    let output = deploy("piped").stdout(closed()).output().unwrap();
    let ran = Ran::of(output);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let full = fs::File::options().write(true).open("/dev/full");
    if let Ok(full) = full {
        let ran = Ran::of(deploy("full").stdout(full).output().unwrap());
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(
            ran.stderr
                .contains("The command has ended, but its output could not be written"),
            "{ran:?}"
        );
        let listed = finish(&mut run("namespace list -n full --output json"), None).json();
        assert_eq!(listed[0]["name"], "default");
    }
    let listed = finish(&mut run("namespace list -n piped --output json"), None).json();
    assert_eq!(listed[0]["name"], "default");
    let output = run("delete -n piped --yes").stdout(closed()).output().unwrap();
    assert_eq!(Ran::of(output).code, Some(0));
    let status = finish(&mut run("status -n piped"), None);
    assert_ne!(status.code, Some(0), "{status:?}");
}

#[test]
fn starts_at_the_same_time_share_one_endpoint_and_one_stack() {
    let local = Local::new();
    let starts: Vec<_> = (0..3)
        .map(|_| {
            let mut command = local.command("up --port 0 --ephemeral --output json --name my-app");
            let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            piped.spawn().unwrap()
        })
        .collect();
    let told: Vec<_> = starts
        .into_iter()
        .map(|start| Ran::of(start.wait_with_output().unwrap()).json())
        .collect();
    for part in ["/started", "/stack/created"] {
        let new = told.iter().filter(|one| one.pointer(part) == Some(&true.into()));
        assert_eq!(new.count(), 1, "{part}: {told:?}");
    }
    assert!(told.iter().all(|one| one["url"] == told[0]["url"]), "{told:?}");
}

#[test]
fn a_start_with_a_stack_is_told_in_one_document() {
    let local = Local::new();
    let up = local.up("--name my-app");
    assert_eq!(
        (&up["started"], &up["stack"]["name"]),
        (&true.into(), &"my-app".into())
    );
    assert_eq!(up["url"], format!("http://localhost:{}", up["port"]));
    assert_eq!(up["stack"]["created"], true);
    let again = local.up("--name my-app");
    assert_eq!(
        (&again["started"], &again["stack"]["created"]),
        (&false.into(), &false.into())
    );
}

//! `loadtest deploy`, `push`, `list` and `delete` on the local endpoint.

use std::fs;
use std::path::PathBuf;

use zae_limiter_infra::{StackManager, Waits};

use crate::world::{Ran, World, block_on, finish, words};

const SCENARIO: &str = "\
system:
  limits:
    rpm: {capacity: 1000}
users:
  - name: One
    entity:
      one: {name: e}
    tasks:
      - resources: [api]
        acquire: {rpm: 1}
";

/// The options of a network, which nothing here looks up.
const NETWORK: &str = "--vpc-id vpc-1 --subnet-ids subnet-a,subnet-b";

/// The smallest file whose header is that of an executable of Linux.
pub(crate) fn executable(content: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    for half in [2_u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    file.extend([0; 28]);
    file.extend(64_u16.to_le_bytes());
    file.resize(64, 0);
    file.extend(content);
    file
}

/// A local endpoint, and a directory with a package and a scenario.
struct Local {
    world: World,
    state: PathBuf,
    url: String,
}

impl Local {
    fn up() -> Self {
        let world = World::without_table();
        let state = world.path().join("state");
        let mut local = Self {
            world,
            state,
            url: String::new(),
        };
        let up = local.run("local up --port 0 --ephemeral --output json").json();
        up["url"].as_str().unwrap().clone_into(&mut local.url);
        fs::create_dir(local.world.path().join("load")).unwrap();
        fs::write(local.world.path().join("load/mine.yaml"), SCENARIO).unwrap();
        local.package(b"");
        local
    }

    fn package(&self, content: &[u8]) {
        fs::write(self.world.path().join("worker"), executable(content)).unwrap();
    }

    fn run(&self, line: &str) -> Ran {
        self.answered(line, None)
    }

    fn answered(&self, line: &str, input: Option<&str>) -> Ran {
        let mut command = self.world.command(&words(line));
        command.env("ZAE_LIMITER_STATE_DIR", &self.state);
        finish(&mut command, input)
    }

    /// Runs a command on the endpoint.
    fn on(&self, line: &str) -> Ran {
        self.run(&format!("{line} --region us-east-1 --endpoint-url {}", self.url))
    }

    /// [`on`](Self::on), for a success: its lines.
    #[track_caller]
    fn lines(&self, line: &str) -> Vec<String> {
        let ran = self.on(line);
        assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
        ran.stdout.lines().map(str::to_owned).collect()
    }

    /// Deploys the stack that load is put on.
    fn target(&self, name: &str, options: &str) {
        self.lines(&format!(
            "deploy --name {name} --no-aggregator --no-provisioner {options}"
        ));
    }

    fn deploy(&self, options: &str) -> Vec<String> {
        self.lines(&format!(
            "loadtest deploy --name my-app {NETWORK} --lambda-package worker -C load {options}"
        ))
    }

    /// The hash of the worker's code.
    fn code(&self) -> String {
        let connection = zae_limiter::table::Connection {
            region: Some("us-east-1".into()),
            endpoint_url: Some(self.url.clone()),
            ..zae_limiter::table::Connection::default()
        };
        block_on(async move {
            let manager = StackManager::new(&connection.sdk_config().await, Waits::local());
            let found = manager.function("my-app-load-worker").await.unwrap();
            found.unwrap().code_sha256
        })
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // It may not run.
        let _ = self.run("local down");
    }
}

/// The lines without those that name an object by its content.
fn plain(lines: &[String]) -> Vec<&str> {
    let lines = lines.iter().map(String::as_str);
    lines
        .map(|line| match line.split_once("s3://") {
            Some((before, _)) => before,
            None => line,
        })
        .collect()
}

#[test]
fn deployed_changed_pushed_listed_and_deleted() {
    crate::world::embedded_only!("this starts a local endpoint");
    let local = Local::up();
    local.target("my-app", "--role-name-format pb-{}");
    let none = local.lines("loadtest list");
    assert_eq!(
        none,
        [
            "",
            "No load test stacks found.",
            "  Region: us-east-1",
            "",
            "Deploy a load test with:",
            "  zae-limiter loadtest deploy --name my-app"
        ]
    );
    let head = [
        "Deploying load test stack: my-app-load",
        "  Using role name format: pb-{}",
        "  Stack validated",
        "  zae-limiter source: worker",
        "  DynamoDB endpoint not created: the endpoint has no EC2",
        "  Building Lambda package...",
        "  Scenarios packed: 1",
        "  Lambda package built: ",
    ];
    let end = [
        "  Lambda code uploaded: my-app-load-worker",
        "",
        "Stack ready: my-app-load",
    ];
    let created = [
        "  CloudFormation stack creation started",
        "  Waiting for stack creation...",
        "  CloudFormation stack created",
    ];
    assert_eq!(plain(&local.deploy("")), [&head[..], &created, &end].concat());
    let first = local.code();

    let same = ["  Stack already exists, updating...", "  Stack is up to date"];
    assert_eq!(plain(&local.deploy("")), [&head[..], &same, &end].concat());
    assert_eq!(local.code(), first);

    let changed = [
        "  Stack already exists, updating...",
        "  CloudFormation stack updated",
    ];
    let lines = local.deploy("--lambda-memory 512");
    assert_eq!(plain(&lines), [&head[..], &changed, &end].concat());

    // New code beside the stack, and by the stack again.
    local.package(b"other");
    let pushed = local.lines("loadtest push --name my-app --lambda-package worker -C load");
    assert_eq!(
        plain(&pushed),
        [
            "Pushing code to my-app-load",
            "  zae-limiter source: worker",
            "  Building Lambda package...",
            "  Scenarios packed: 1",
            "  Lambda package built: ",
            "  Lambda code uploaded: my-app-load-worker",
            "",
            "Code pushed: my-app-load"
        ]
    );
    let second = local.code();
    assert_ne!(second, first);
    local.package(b"");
    local.deploy("--lambda-memory 512");
    assert_eq!(local.code(), first);
    fs::remove_file(local.world.path().join("load/mine.yaml")).unwrap();
    local.deploy("--lambda-memory 512");
    assert_ne!(local.code(), first);

    let listed = local.lines("loadtest list");
    assert_eq!(listed[1], "Load Test Stacks (us-east-1)");
    assert!(
        listed[3].starts_with("Name ") && listed[3].contains("Target"),
        "{listed:?}"
    );
    let row: Vec<&str> = listed[5].split_whitespace().collect();
    assert_eq!(row[..3], ["my-app-load", "my-app", "UPDATE_COMPLETE"]);
    assert_eq!(listed[7], "Total: 1 stack(s)");
    // It is not listed among limiters.
    assert!(
        !local
            .lines("list")
            .iter()
            .any(|line| line.contains("my-app-load"))
    );

    let line = format!("loadtest delete --name my-app --endpoint-url {}", local.url);
    let declined = local.answered(&line, Some("n\n"));
    assert_eq!((declined.code, &*declined.stderr), (Some(1), "Aborted!\n"));
    assert_eq!(declined.stdout, "Delete load test stack 'my-app-load'? [y/N]: ");
    let deleted = local.lines("loadtest delete --name my-app --yes");
    assert_eq!(
        deleted,
        [
            "Deleting load test stack: my-app-load",
            "  Waiting for stack deletion...",
            "  Stack deleted"
        ]
    );
    assert_eq!(local.lines("loadtest list"), none);
    let again = local.lines("loadtest delete --name my-app --yes");
    assert_eq!(again[1..], ["  Stack does not exist"]);
}

/// Each line is written to a pipe whose reader has gone.
#[test]
fn commands_whose_output_cannot_be_written_finish() {
    crate::world::embedded_only!("this starts a local endpoint");
    let local = Local::up();
    local.target("my-app", "");
    for line in [
        format!("loadtest deploy --name my-app {NETWORK} --lambda-package worker -C load"),
        "loadtest delete --name my-app --yes".to_owned(),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let line = format!("{line} --region us-east-1 --endpoint-url {}", local.url);
        let mut command = local.world.command(&words(&line));
        let output = command.stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{line}: {output:?}");
        let listed = local.on("loadtest list --output json").json();
        let statuses: Vec<_> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["status"])
            .collect();
        if line.contains("deploy") {
            assert_eq!(statuses, ["CREATE_COMPLETE"]);
        } else {
            assert!(statuses.is_empty(), "{listed}");
        }
    }
}

#[test]
fn what_cannot_be_deployed_is_refused_in_one_line() {
    crate::world::embedded_only!("this starts a local endpoint");
    let local = Local::up();
    local.target("bare", "--no-iam");
    let refused = |line: &str, code: i32, why: &str| {
        let ran = local.on(&format!("loadtest {line}"));
        assert_eq!((ran.code, &*ran.stderr), (Some(code), why), "{line}");
    };
    let network = "--vpc-id vpc-1 --subnet-ids subnet-a,subnet-b --lambda-package worker -C load";
    refused(
        &format!("deploy --name none {network}"),
        1,
        "Error: Stack not found: none\n",
    );
    refused(
        &format!("deploy --name bare {network}"),
        1,
        "Error: Stack missing outputs: ['AcquireOnlyPolicyArn', 'FullAccessPolicyArn']\n",
    );
    refused(
        "deploy --name bare --vpc-id vpc-1 --subnet-ids subnet-a,subnet-a -C load",
        1,
        "Error: Select at least 2 subnets\n",
    );
    refused(
        "deploy --name bare --vpc-id mine --subnet-ids subnet-a,subnet-b -C load",
        2,
        "Error: Invalid vpc_id 'mine': must look like vpc-0123456789abcdef0\n",
    );
    refused(
        &format!("deploy --name bare --max-workers 5 --min-workers 6 {network}"),
        2,
        "Error: Invalid min_workers '6': must be at most the greatest number of workers, 5\n",
    );
    refused(
        &format!("deploy {network}"),
        1,
        "Warning: Input is not a terminal (fd=0).\nAborted!\n",
    );
    refused(
        "push --name bare --lambda-package worker -C load",
        1,
        "Error: Stack not found: bare-load\n",
    );
    let missing = local.on(&format!("loadtest deploy --name bare {NETWORK} -C nowhere"));
    assert_eq!(missing.code, Some(2));
    assert!(
        missing
            .stderr
            .contains("invalid value 'nowhere' for '-C <DIRECTORY>': there is no such directory"),
        "{missing:?}"
    );
    assert_eq!(local.lines("loadtest list")[1], "No load test stacks found.");
}

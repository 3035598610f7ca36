//! A table of its own for each test, the program run on it, and a transcript of what was said.
//!
//! The table is embedded in a temporary directory. If the environment variable in [`INDEPENDENT`] holds the URL
//! of a server that speaks DynamoDB's protocol, it is made there instead, and the transcripts must not differ.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use zae_limiter::clock::{Clock, SystemClock};
use zae_limiter::table::definition::create_table;
use zae_limiter::table::embedded::OpenError;
use zae_limiter::table::{Connection, DynamoTable, EmbeddedEngine, Table, TableExt as _};
use zae_limiter::{NamespaceId, Repository};
use zae_limiter_core::EpochMillis;
use zae_limiter_core::table::{Condition, Item, Put};

/// Names an independent implementation of DynamoDB to test against.
pub(crate) const INDEPENDENT: &str = "ZAE_LIMITER_TEST_ENDPOINT";

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_zae-limiter");

/// Where the embedded table lies, seen from the temporary directory.
const DIRECTORY: &str = "db";

/// What stands for an instant of the test run: as long as one.
const NOW: &str = "<the present moment>";

/// A table, the program to use it with, and the transcript.
pub(crate) struct World {
    dir: TempDir,
    stack: String,
    independent: Option<String>,
    /// Texts that differ from run to run, and what stands for them.
    known: Vec<(String, String)>,
    namespaces: BTreeMap<String, String>,
    events: usize,
    begin: String,
    transcript: String,
}

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// What the last line of standard error tells of the failure, as JSON or as text.
    #[track_caller]
    pub(crate) fn failure(&self) -> String {
        let last = self
            .stderr
            .trim_end()
            .lines()
            .last()
            .expect("it says what failed");
        match serde_json::from_str::<serde_json::Value>(last) {
            Ok(told) => told["error"]["message"].as_str().expect("a message").to_owned(),
            Err(_) => last.to_owned(),
        }
    }

    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The standard output of a success, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// The URL of the independent table, if the tests are to use one. For tests of embedded tables alone, which
/// then have nothing to do.
pub(crate) fn independent() -> Option<String> {
    std::env::var(INDEPENDENT).ok().filter(|url| !url.is_empty())
}

/// Ends a test of embedded tables where the tests are to use an independent one.
macro_rules! embedded_only {
    () => {
        crate::world::embedded_only!("this is about embedded tables")
    };
    ($why:literal) => {
        if crate::world::independent().is_some() {
            println!("skipped: {}", $why);
            return;
        }
    };
}
pub(crate) use embedded_only;

/// Compares a transcript with the one that was approved.
macro_rules! assert_transcript {
    ($world:expr) => {
        insta::with_settings!({ omit_expression => true }, {
            insta::assert_snapshot!($world.transcript())
        })
    };
}
pub(crate) use assert_transcript;

impl World {
    /// A new table with the namespace `default`.
    pub(crate) fn new() -> Self {
        let mut world = Self::without_table();
        match &world.independent {
            None => {
                let ran = world.silently(&["deploy"], None);
                assert_eq!(ran.code, Some(0), "{ran:?}");
            }
            Some(url) => {
                let stack = world.stack.clone();
                let connection = connection(url);
                block_on(async move {
                    create_table(&connection.client().await, &stack).await.unwrap();
                });
                let _ = world.repository("default");
            }
        }
        world.learn_namespaces();
        world
    }

    /// A place for a table, without one.
    pub(crate) fn without_table() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let independent = independent();
        let stack = match (&independent, dir.path().file_name()) {
            // The directory's name is unique, but may begin with a dot and have any letters.
            (Some(_), Some(name)) => {
                let name = name.to_string_lossy();
                let unique: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
                format!("limits-{unique}-{}", std::process::id())
            }
            _ => "limits".to_owned(),
        };
        let place = match &independent {
            Some(url) => format!("--region us-east-1 --endpoint-url {url}"),
            None => format!("--endpoint-url embedded:./{DIRECTORY}"),
        };
        let endpoint = match &independent {
            Some(url) => url.clone(),
            None => format!("embedded:./{DIRECTORY}"),
        };
        let known = [
            (format!("-n {stack} {place}"), "-n limits <place>"),
            (format!("--name {stack} {place}"), "--name limits <place>"),
            (place, "<place>"),
            (endpoint, "<endpoint>"),
            (format!("'{stack}'"), "'limits'"),
            (dir.path().display().to_string(), "<temporary directory>"),
        ];
        Self {
            dir,
            stack,
            independent,
            known: known.map(|(text, name)| (text, name.to_owned())).to_vec(),
            namespaces: BTreeMap::new(),
            events: 0,
            begin: EpochMillis::from(SystemClock.now()).to_text(),
            transcript: String::new(),
        }
    }

    /// The directory the program is run in.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The directory of the embedded table.
    pub(crate) fn directory(&self) -> PathBuf {
        self.path().join(DIRECTORY)
    }

    pub(crate) fn stack(&self) -> &str {
        &self.stack
    }

    /// The options that lead to the table.
    pub(crate) fn connection_options(&self) -> Vec<String> {
        let mut options = vec![
            "--name".to_owned(),
            self.stack.clone(),
            "--endpoint-url".to_owned(),
        ];
        match &self.independent {
            Some(url) => options.extend([url.clone(), "--region".to_owned(), "us-east-1".to_owned()]),
            None => options.push(format!("embedded:./{DIRECTORY}")),
        }
        options
    }

    /// The program with these arguments and nothing of the environment of the tests.
    pub(crate) fn command<S: AsRef<str>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(args.iter().map(AsRef::as_ref))
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if self.independent.is_some() {
            command
                .env("AWS_ACCESS_KEY_ID", "test")
                .env("AWS_SECRET_ACCESS_KEY", "test");
        }
        command
    }

    /// The program with these arguments and the options that lead to the table.
    pub(crate) fn connected<S: AsRef<str>>(&self, args: &[S]) -> Command {
        let mut args: Vec<String> = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
        let end = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
        args.splice(end..end, self.connection_options());
        self.command(&args)
    }

    /// Runs the program on the table, off the record.
    pub(crate) fn silently<S: AsRef<str>>(&self, args: &[S], input: Option<&str>) -> Ran {
        finish(&mut self.connected(args), input)
    }

    /// Runs the program on the table with a line of arguments, off the record, for a success as JSON.
    #[track_caller]
    pub(crate) fn json(&self, line: &str) -> serde_json::Value {
        let mut args = words(line);
        args.extend(["--output", "json"].map(str::to_owned));
        self.silently(&args, None).json()
    }

    /// Runs the program on the table with a line of arguments. Blanks part them, single quotes group them.
    pub(crate) fn run(&mut self, line: &str) -> Ran {
        let args = words(line);
        let command = self.connected(&args);
        self.record(command, &shown(&args), None)
    }

    /// [`run`](Self::run), with something to read on standard input.
    pub(crate) fn answer(&mut self, line: &str, input: &str) -> Ran {
        let args = words(line);
        let command = self.connected(&args);
        self.record(command, &shown(&args), Some(input))
    }

    /// [`run`](Self::run), without the options that lead to the table.
    pub(crate) fn plainly(&mut self, line: &str) -> Ran {
        let args = words(line);
        let command = self.command(&args);
        self.record(command, &shown(&args), None)
    }

    /// Runs a command, and adds to the transcript what it was and what it said.
    pub(crate) fn record(&mut self, mut command: Command, shown: &str, input: Option<&str>) -> Ran {
        let ran = finish(&mut command, input);
        let answers = input.map(|input| format!("   # answers: {input:?}"));
        self.note(shown, &answers.unwrap_or_default(), &ran);
        ran
    }

    /// Adds a run to the transcript.
    pub(crate) fn note(&mut self, shown: &str, remark: &str, ran: &Ran) {
        if ran.code == Some(0) && (shown.starts_with("namespace ") || shown.contains(" -N ")) {
            self.learn_namespaces();
        }
        let shown = self.normal(shown);
        let stdout = self.normal(&ran.stdout);
        let stderr = self.normal(&ran.stderr);
        if !self.transcript.is_empty() {
            self.transcript.push('\n');
        }
        let gap = if shown.is_empty() { "" } else { " " };
        let _ = writeln!(self.transcript, "$ zae-limiter{gap}{shown}{remark}");
        self.transcript += &stdout;
        if !stdout.is_empty() && !stdout.ends_with('\n') {
            self.transcript += "<no line break>\n";
        }
        for line in stderr.lines() {
            let _ = writeln!(self.transcript, "{}", format!("!stderr {line}").trim_end());
        }
        match ran.code {
            Some(0) => {}
            Some(code) => drop(writeln!(self.transcript, "[exit {code}]")),
            None => self.transcript += "[killed]\n",
        }
    }

    /// What was said so far.
    pub(crate) fn transcript(&self) -> &str {
        &self.transcript
    }

    /// The engine of the directory. One that was let go a moment ago may still be closing.
    fn engine(&self) -> EmbeddedEngine {
        for _ in 0..500 {
            match EmbeddedEngine::open(self.directory()) {
                Err(OpenError::InUse { .. }) => std::thread::sleep(Duration::from_millis(10)),
                opened => return opened.unwrap(),
            }
        }
        panic!("{} stays in use", self.directory().display())
    }

    /// The table, for what the program cannot do. Let it go before the program is run again: an embedded table
    /// is used by one process at a time.
    pub(crate) fn table(&self) -> Arc<dyn Table> {
        let client = match &self.independent {
            Some(url) => {
                let connection = connection(url);
                block_on(async move { connection.client().await })
            }
            None => self.engine().client(),
        };
        Arc::new(DynamoTable::new(client, self.stack.as_str()))
    }

    /// A namespace of the table, registered if need be.
    pub(crate) fn repository(&self, namespace: &str) -> Repository {
        self.repository_at(namespace, SystemClock)
    }

    /// [`repository`](Self::repository), under another clock.
    pub(crate) fn repository_at(&self, namespace: &str, clock: impl Clock) -> Repository {
        let builder = Repository::builder()
            .custom_table(self.table())
            .namespace(namespace)
            .principal("tester")
            .clock(clock);
        block_on(async move { builder.open().await.unwrap() })
    }

    /// Writes items into the table.
    pub(crate) fn put(&self, items: impl IntoIterator<Item = Item>) {
        let table = self.table();
        let puts: Vec<_> = items
            .into_iter()
            .map(|item| {
                table.put(Put {
                    item,
                    condition: Condition::ALWAYS,
                })
            })
            .collect();
        block_on(async move {
            for put in puts {
                assert!(put.await.unwrap().is_applied());
            }
        });
    }

    /// The id of a namespace that is in use.
    #[track_caller]
    pub(crate) fn id_of(&self, namespace: &str) -> String {
        let found = self.json(&format!("namespace show {namespace}"));
        found["namespace_id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn namespace_id(&self, namespace: &str) -> NamespaceId {
        NamespaceId::new(self.id_of(namespace)).unwrap()
    }

    /// Gives the id of every namespace in use a name of the same length, one after the other.
    fn learn_namespaces(&mut self) {
        let ran = self.silently(&["namespace", "list", "--output", "json"], None);
        let Ok(serde_json::Value::Array(found)) = serde_json::from_str(&ran.stdout) else {
            return;
        };
        for record in found {
            let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
            let (id, name) = (text("namespace_id"), text("name"));
            if self.namespaces.contains_key(&id) {
                continue;
            }
            let earlier = self.namespaces.values().filter(|other| **other == name).count();
            let shown = format!("{name}{}", "'".repeat(earlier));
            self.known.push((id.clone(), format!("<{shown:.<9.9}>")));
            self.namespaces.insert(id, name);
        }
    }

    /// The text without what differs from run to run.
    fn normal(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for (known, name) in &self.known {
            text = text.replace(known, name);
        }
        if independent().is_some() {
            // A server is reached with a region more, which a usage line lists.
            text = text.replace(" --endpoint-url <URL> --region <REGION>", " --endpoint-url <URL>");
        }
        let end = EpochMillis::from(SystemClock.now()).to_text();
        let begin = self.begin.clone();
        text = replace_runs(&text, is_instant, 20, |instant| {
            (*begin <= *instant && *instant <= *end).then(|| NOW.to_owned())
        });
        let events = &mut self.events;
        let known = &mut self.known;
        text = replace_runs(
            &text,
            |c| c.is_ascii_uppercase() || c.is_ascii_digit(),
            26,
            |ulid| {
                // It may occur twice in this very text.
                if let Some((_, name)) = known.iter().find(|(text, _)| text == ulid) {
                    return Some(name.clone());
                }
                *events += 1;
                let name = format!("<event {events}>");
                known.push((ulid.to_owned(), name.clone()));
                Some(name)
            },
        );
        text = seconds(&text);
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap();
        let user = user.map(|user| user.name).unwrap_or_default();
        if self.independent.is_some() || text.contains(&user) {
            text = narrow(&text, &user);
        }
        text
    }
}

/// How the independent table is reached.
fn connection(url: &str) -> Connection {
    Connection {
        region: Some("us-east-1".into()),
        endpoint_url: Some(url.into()),
        ..Connection::default()
    }
}

/// Runs a command to its end. Its output must not have a panic or characters that move a cursor.
pub(crate) fn finish(command: &mut Command, input: Option<&str>) -> Ran {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().unwrap();
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        // It may end without reading all.
        let _ = stdin.write_all(input.as_bytes());
    }
    ended(child)
}

/// Waits for the end of a run.
pub(crate) fn ended(child: Child) -> Ran {
    let ran = Ran::of(child.wait_with_output().unwrap());
    for text in [&ran.stdout, &ran.stderr] {
        assert!(!text.contains("panicked"), "{ran:?}");
        assert!(!text.contains('\u{1b}'), "{ran:?}");
        assert!(!text.contains('\r'), "{ran:?}");
    }
    ran
}

/// Runs a future to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Splits a line at blanks; single quotes group.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Arguments as one would type them.
fn shown(args: &[String]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=@+,%".contains(c);
    let each: Vec<String> = args
        .iter()
        .map(|arg| {
            if !arg.is_empty() && arg.chars().all(plain) {
                arg.clone()
            } else {
                format!("'{}'", arg.escape_debug().to_string().replace("\\'", "'"))
            }
        })
        .collect();
    each.join(" ")
}

fn is_instant(c: char) -> bool {
    c.is_ascii_digit() || "-:TZ".contains(c)
}

/// Replaces those runs of characters of a kind that have a given length.
fn replace_runs(
    text: &str,
    kind: impl Fn(char) -> bool,
    length: usize,
    mut with: impl FnMut(&str) -> Option<String>,
) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find(&kind) {
        let run = &rest[begin..];
        let run = &run[..run.find(|c| !kind(c)).unwrap_or(run.len())];
        out += &rest[..begin];
        match (run.len() == length).then(|| with(run)).flatten() {
            Some(other) => out += &other,
            None => out += run,
        }
        rest = &rest[begin + run.len()..];
    }
    out + rest
}

/// The text with waiting times in JSON made alike: they depend on how much time has passed.
fn seconds(text: &str) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let marks = ["\"retry_after_seconds\": ", "\"retry_after_ms\": "];
        let mark = marks
            .iter()
            .find_map(|mark| line.find(mark).map(|at| at + mark.len()));
        match mark.map(|at| line.split_at(at)) {
            Some((name, value)) => {
                let end = value.find([',', '\n']).unwrap_or(value.len());
                let (number, rest) = value.split_at(end);
                let shown = if ["null", "0.0", "0"].contains(&number) {
                    number
                } else {
                    "<some>"
                };
                let _ = write!(out, "{name}{shown}{rest}");
            }
            _ => match line.split_once("; retry after ") {
                Some((before, after)) => {
                    let rest = after.find(" s").map_or("", |at| &after[at..]);
                    let _ = write!(out, "{before}; retry after <some>{rest}");
                }
                None => out += line,
            },
        }
    }
    out
}

/// On a server the principal is the caller's ARN, else the name of the user. Makes it the same everywhere, in tables too.
fn narrow(text: &str, user: &str) -> String {
    const WIDTH: usize = 12;
    let arn = |cell: &str| {
        if cell.starts_with("arn:") || cell == user {
            "tester".to_owned()
        } else {
            cell.to_owned()
        }
    };
    let mut column = None;
    let mut lines: Vec<String> = Vec::new();
    for line in text.split('\n') {
        if let Some(at) = line.find("Principal") {
            column = line[at..].find("Resource").map(|width| (at, width));
        }
        let chars: Vec<char> = line.chars().collect();
        let line = match column {
            Some((at, width)) if chars.len() > at + width => {
                let part = |from, to| chars[from..to].iter().collect::<String>();
                let cell = arn(part(at, at + width).trim());
                let cell = if cell.starts_with('─') {
                    "─".repeat(WIDTH - 2)
                } else {
                    cell
                };
                format!("{}{cell:<WIDTH$}{}", part(0, at), part(at + width, chars.len()))
            }
            _ => {
                column = column.filter(|_| !line.is_empty());
                line.to_owned()
            }
        };
        lines.push(match line.split_once("\"principal\": \"") {
            Some((before, after)) => {
                let (cell, after) = after.split_once('"').unwrap_or((after, ""));
                format!("{before}\"principal\": \"{}\"{after}", arn(cell))
            }
            None => line,
        });
    }
    lines.join("\n")
}

/// The names in a directory, sorted.
pub(crate) fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

//! A server on this machine with a table and one function that answers as a test wants.
//! Local servers do not run functions for nothing, nor do they fail in every way.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value as Json, json};
use zae_limiter::Repository;
use zae_limiter::clock::SystemClock;
use zae_limiter::table::definition::create_table;
use zae_limiter::table::{DynamoTable, EmbeddedEngine};
use zae_limiter_lambda::log::{Level, Log};
use zae_limiter_lambda::provisioner::Provisioner;

use crate::world::block_on;

/// The stack, and the table.
pub(crate) const STACK: &str = "limits";

/// Where functions are called.
const FUNCTIONS: &str = "/2015-03-31/functions/";

/// The table's own function.
const PROVISIONER: &str = "limits-limits-provisioner";

/// How long an answer is held back at most.
const PATIENCE: Duration = Duration::from_mins(1);

/// What the server says of the function.
#[derive(Clone)]
pub(crate) enum Described {
    /// It exists.
    As(Json),
    /// An error.
    Error(u16, &'static str),
    /// What a server of tables alone says.
    NotUnderstood,
}

/// How the function answers.
#[derive(Clone)]
pub(crate) enum Answers {
    /// As this project's.
    Truly,
    /// With this.
    With(Json),
    /// With what this makes of the event.
    From(fn(&Json) -> Json),
    /// With this, as a failure.
    Failing(Json),
    /// Not before a test is over.
    Late,
    /// An error of the service.
    Error(u16, &'static str),
}

/// The server.
pub(crate) struct Server {
    pub(crate) url: String,
    state: Arc<State>,
}

struct State {
    engine: EmbeddedEngine,
    function: &'static str,
    described: Described,
    answers: Mutex<Answers>,
    calls: AtomicUsize,
    last: Mutex<Json>,
    refused: Mutex<Option<&'static str>>,
    held: Mutex<Option<Held>>,
}

/// An answer that is held back once the table has done what was asked.
struct Held {
    operation: &'static str,
    done: SyncSender<()>,
    answered: Receiver<()>,
}

impl Server {
    /// A server with the provisioner, and an empty table that has the namespace `default`.
    pub(crate) fn new(described: Described) -> Self {
        Self::with(PROVISIONER, described)
    }

    /// [`new`](Self::new), with another function.
    pub(crate) fn with(function: &'static str, described: Described) -> Self {
        let engine = EmbeddedEngine::memory().unwrap();
        let client = engine.client();
        block_on(async {
            create_table(&client, STACK).await.unwrap();
            repository(&engine).await
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            engine,
            function,
            described,
            answers: Mutex::new(Answers::Truly),
            calls: AtomicUsize::new(0),
            last: Mutex::new(Json::Null),
            refused: Mutex::new(None),
            held: Mutex::new(None),
        });
        let served = Arc::clone(&state);
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&served);
                std::thread::spawn(move || serve(&stream, &state));
            }
        });
        Self { url, state }
    }

    /// How the function answers from now on.
    pub(crate) fn answer(&self, answers: Answers) {
        *self.state.answers.lock().unwrap() = answers;
    }

    /// Refuses this operation on the table from now on.
    pub(crate) fn refuse(&self, operation: &'static str) {
        *self.state.refused.lock().unwrap() = Some(operation);
    }

    /// Holds back the answer to the next operation of this name: the first end tells that it is done, the second lets
    /// the answer go.
    pub(crate) fn hold(&self, operation: &'static str) -> (Receiver<()>, SyncSender<()>) {
        let ((done, is_done), (answer, answered)) = (sync_channel(1), sync_channel(1));
        *self.state.held.lock().unwrap() = Some(Held {
            operation,
            done,
            answered,
        });
        (is_done, answer)
    }

    /// How often the function was called.
    pub(crate) fn calls(&self) -> usize {
        self.state.calls.load(Ordering::SeqCst)
    }

    /// The last event.
    pub(crate) fn last(&self) -> Json {
        self.state.last.lock().unwrap().clone()
    }
}

async fn repository(engine: &EmbeddedEngine) -> Repository {
    let table = Arc::new(DynamoTable::new(engine.client(), STACK));
    let builder = Repository::builder().stack(STACK).custom_table(table);
    builder.namespace("default").open().await.unwrap()
}

/// A function as Lambda describes it.
pub(crate) fn function(runtime: &str) -> Described {
    Described::As(json!({
        "FunctionName": "limits-limits-provisioner", "FunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:f",
        "Runtime": runtime, "Timeout": 300, "CodeSha256": "x", "LastUpdateStatus": "Successful",
    }))
}

fn serve(stream: &TcpStream, state: &State) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let (mut length, mut target) = (0, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        match &*name.to_ascii_lowercase() {
            "content-length" => length = value.parse().ok()?,
            "x-amz-target" => value.clone_into(&mut target),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let reply = state.reply(&path, &target, &body);
    let Reply { status, header, body } = reply;
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{header}Connection: close\r\n\r\n",
        body.len()
    );
    (&mut &*stream).write_all((head + &body).as_bytes()).ok()
}

struct Reply {
    status: u16,
    header: String,
    body: String,
}

impl State {
    fn reply(&self, path: &str, target: &str, body: &[u8]) -> Reply {
        let ok = |json: &Json| Reply {
            status: 200,
            header: String::new(),
            body: json.to_string(),
        };
        let error = |status, code: &str| Reply {
            status,
            header: format!("x-amzn-ErrorType: {code}\r\n"),
            body: json!({ "Message": "so it is" }).to_string(),
        };
        let path = path.strip_prefix(FUNCTIONS);
        match path.and_then(|path| path.strip_prefix(self.function)) {
            Some("/configuration") => match &self.described {
                Described::As(json) => return ok(json),
                Described::Error(status, code) => return error(*status, code),
                Described::NotUnderstood => {}
            },
            Some("/invocations") => {
                self.calls.fetch_add(1, Ordering::SeqCst);
                let event: Json = serde_json::from_slice(body).unwrap();
                *self.last.lock().unwrap() = event.clone();
                let answers = self.answers.lock().unwrap().clone();
                let failing = |json: &Json| Reply {
                    header: "X-Amz-Function-Error: Unhandled\r\n".into(),
                    ..ok(json)
                };
                return match answers {
                    Answers::Truly => match self.provision(&event) {
                        Ok(json) => ok(&json),
                        Err(text) => failing(&json!({ "errorMessage": text, "errorType": "X" })),
                    },
                    Answers::With(json) => ok(&json),
                    Answers::From(answer) => ok(&answer(&event)),
                    Answers::Late => {
                        std::thread::sleep(PATIENCE);
                        error(500, "ServiceException")
                    }
                    Answers::Failing(json) => failing(&json),
                    Answers::Error(status, code) => error(status, code),
                };
            }
            _ => {}
        }
        let refused = *self.refused.lock().unwrap();
        if refused.is_some_and(|operation| target.ends_with(operation)) {
            return error(400, "AccessDeniedException");
        }
        let reply = self.engine.answer(target, body);
        let held = self
            .held
            .lock()
            .unwrap()
            .take_if(|held| target.ends_with(held.operation));
        if let Some(held) = held {
            let _ = held.done.send(());
            let _ = held.answered.recv_timeout(PATIENCE);
        }
        Reply {
            status: reply.status,
            header: String::new(),
            body: reply.body,
        }
    }

    fn provision(&self, event: &Json) -> Result<Json, String> {
        block_on(async {
            let log = Log::new(Level::Error, Arc::new(SystemClock));
            let function = Provisioner::new(repository(&self.engine).await.stack_handle(), log);
            let served = function.handle(event, None).await;
            served.map_err(|err| err.error_message)
        })
    }
}

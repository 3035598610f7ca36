//! A machine whose clock is wrong.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use jiff::{SignedDuration, Timestamp};
use zae_limiter::clock::{Clock as _, SystemClock};
use zae_limiter::table::{EmbeddedEngine, definition::create_table};
use zae_limiter::{Limit, Repository};

use crate::world::{Ran, World, block_on};

/// A table behind a port whose clock is ahead of the machine's, for as long as the test lasts.
fn serve(ahead: SignedDuration) -> u16 {
    let engine = EmbeddedEngine::memory().unwrap();
    let client = engine.client();
    block_on(async move {
        create_table(&client, "limits").await.unwrap();
        let repo = Repository::builder().stack("limits").dynamo_client(client).open();
        let limits = [Limit::per_minute("rpm", 100)];
        repo.await
            .unwrap()
            .admin()
            .set_system_defaults(limits, None)
            .await
            .unwrap();
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A client may hang up before it has its answer.
            let _ = answer(&engine, stream.unwrap(), ahead);
        }
    });
    port
}

fn answer(engine: &EmbeddedEngine, stream: TcpStream, ahead: SignedDuration) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut target, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            None if line.trim_end().is_empty() => break,
            Some((name, value)) if name.eq_ignore_ascii_case("x-amz-target") => value.clone_into(&mut target),
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().unwrap_or_default();
            }
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let reply = engine.answer(&target, &body);
    let now = Timestamp::try_from(SystemClock.now()).unwrap() + ahead;
    let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT");
    write!(
        reader.into_inner(),
        "HTTP/1.1 {} -\r\nDate: {date}\r\nx-amzn-RequestId: 1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}",
        reply.status,
        reply.body.len(),
        reply.body
    )
}

#[test]
fn a_wrong_clock_is_told_once_and_corrected() {
    let world = World::without_table();
    let run = |line: &str, port: u16| {
        let line = format!("{line} -n limits --region us-east-1 --endpoint-url http://127.0.0.1:{port}");
        let args: Vec<&str> = line.split(' ').collect();
        Ran::of(world.command(&args).output().unwrap())
    };
    let minute = SignedDuration::from_mins(1);
    let told = |ahead: SignedDuration| -> Vec<String> {
        let port = serve(ahead);
        let acquired = run("acquire u -r r -c rpm:100", port);
        assert_eq!(acquired.code, Some(0), "{acquired:?}");
        let refused = run("acquire u -r r -c rpm:100", port);
        assert_eq!(refused.code, Some(75), "{refused:?}");
        let listed = run("namespace show default", port);
        assert_eq!(listed.code, Some(0), "{listed:?}");
        [acquired.stderr, refused.stderr, listed.stderr]
            .iter()
            .map(|said| {
                let warnings: Vec<&str> = said.lines().filter(|line| line.starts_with("Warning:")).collect();
                warnings.join("\n")
            })
            .collect()
    };
    // Half a minute more, since the clock is measured to a second.
    let half = SignedDuration::from_secs(30);
    let warning = "Warning: this machine's clock is 1h 0m ahead of the table's; times are corrected";
    assert_eq!(told(-minute * 60 - half), [warning; 3]);
    let warning = "Warning: this machine's clock is 2d 3h behind the table's; times are corrected";
    assert_eq!(told(minute * 60 * 51 + half), [warning; 3]);
    assert_eq!(told(SignedDuration::ZERO), [""; 3]);
}

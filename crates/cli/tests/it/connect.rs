//! Tables that are not there, cannot be opened or do not answer.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;

use zae_limiter::table::EmbeddedEngine;

use crate::acquire::limited;
use crate::world::{World, assert_transcript, embedded_only, finish, names_in, words};

/// A line of each command that asks the table.
const EVERY_COMMAND: [&str; 25] = [
    "acquire u -r r -c rpm:1",
    "audit list -e u",
    "available u -r r",
    "entity children u",
    "entity create u",
    "entity delete u --yes",
    "entity delete-limits u --yes",
    "entity get-limits u",
    "entity list --with-custom-limits r",
    "entity list-resources",
    "entity set-limits u -l rpm:1",
    "entity show u",
    "namespace delete n --yes",
    "namespace list",
    "namespace orphans",
    "namespace purge AAAAAAAAAAA --yes",
    "namespace recover AAAAAAAAAAA",
    "namespace register n",
    "namespace show n",
    "resource delete-defaults r --yes",
    "resource get-defaults r",
    "resource list",
    "resource set-defaults r -l rpm:1",
    "system get-defaults",
    "usage list -e u",
];

#[test]
fn no_table() {
    let mut world = World::without_table();
    for line in EVERY_COMMAND {
        world.run(line);
    }
    for line in [
        "system set-defaults -l rpm:1",
        "system delete-defaults --yes",
        "usage summary -e u",
        "system get-defaults --output json",
    ] {
        world.run(line);
    }
    assert_transcript!(world);
    // Nothing came into being.
    assert_eq!(names_in(world.path()), [""; 0]);
}

/// Questions come before the connection, so that a no needs none.
#[test]
fn declined_without_a_table() {
    let mut world = World::without_table();
    for line in [
        "entity delete u",
        "entity delete-limits u",
        "namespace delete n",
        "namespace purge AAAAAAAAAAA",
        "resource delete-defaults r",
        "system delete-defaults",
    ] {
        world.answer(line, "n\n");
        world.answer(line, "y\n");
    }
    assert_transcript!(world);
    assert_eq!(names_in(world.path()), [""; 0]);
}

/// The hint names the table by the options that were given, and following it helps.
#[test]
fn the_command_that_is_told_creates_the_table() {
    embedded_only!();
    let mut world = World::without_table();
    world.plainly("system get-defaults -n my-app --endpoint-url embedded:./here --region eu-west-1");
    world.plainly("deploy -n my-app --endpoint-url embedded:./here --region eu-west-1");
    world.plainly("system get-defaults -n my-app --endpoint-url embedded:./here --region eu-west-1");
    world.plainly("system get-defaults -N t -n my-app --endpoint-url embedded:./here");
    // Another stack in the same directory is another table.
    world.plainly("system get-defaults --endpoint-url embedded:./here");
    world.plainly("version --endpoint-url embedded:./here");
    assert_transcript!(world);
}

#[test]
fn endpoints_that_are_none() {
    let mut world = World::without_table();
    for line in [
        "system get-defaults --endpoint-url localhost:4566",
        "system get-defaults --endpoint-url ''",
        "system get-defaults --endpoint-url http://",
        "system get-defaults --endpoint-url ftp://localhost",
        "system get-defaults --endpoint-url 'http://bad host'",
        "deploy --endpoint-url http://h:99999",
        "status --name limits --endpoint-url http://h:0",
        "system get-defaults --endpoint-url embedded:",
        "version --endpoint-url embedded",
        "check --endpoint-url embedded:",
        "system get-defaults --region 'us east 1'",
        "system get-defaults --region ''",
    ] {
        world.plainly(line);
    }
    assert_transcript!(world);
    assert_eq!(names_in(world.path()), [""; 0]);
}

#[test]
fn directories_that_are_none() {
    embedded_only!();
    let mut world = World::without_table();
    fs::write(world.path().join("file"), "not a directory").unwrap();
    world.plainly("system get-defaults --endpoint-url embedded:./file");
    world.plainly("deploy --endpoint-url embedded:./file");
    world.plainly("deploy --endpoint-url embedded:./file/below");
    fs::create_dir(world.path().join("empty")).unwrap();
    world.plainly("system get-defaults --endpoint-url embedded:./empty");
    world.plainly("system set-defaults -l rpm:1 --endpoint-url embedded:./empty");
    assert_transcript!(world);
    assert_eq!(names_in(world.path()), ["empty", "file"]);
    assert_eq!(names_in(&world.path().join("empty")), [""; 0]);
}

#[test]
fn a_data_file_that_is_something_else() {
    embedded_only!();
    let mut world = World::new();
    let data = world.directory().join("zae-limiter.sqlite");
    fs::write(&data, "this was a table once ".repeat(1000)).unwrap();
    world.run("system get-defaults");
    world.run("system set-defaults -l rpm:1");
    world.run("version");
    world.run("check --output json");
    world.run("deploy");
    // The file is not changed, so that it can be inspected.
    assert!(
        fs::read_to_string(&data)
            .unwrap()
            .starts_with("this was a table once")
    );
    assert_transcript!(world);
}

/// An empty file is what a crash leaves behind between two steps of a deployment.
#[test]
fn a_data_file_that_is_empty() {
    embedded_only!();
    let mut world = World::without_table();
    fs::create_dir(world.directory()).unwrap();
    fs::write(world.directory().join("zae-limiter.sqlite"), "").unwrap();
    world.run("system get-defaults");
    world.run("version");
    world.run("deploy");
    world.run("system get-defaults");
    assert_transcript!(world);
}

/// Waits as long as the program's patience lasts, which is why there is one such test.
#[test]
fn a_directory_that_another_process_uses() {
    embedded_only!();
    let mut world = World::new();
    let repo = world.repository("default");
    world.run("system get-defaults");
    for policy in ["allow", "block"] {
        world.run(&format!(
            "acquire u -r r -c rpm:1 --timeout 300ms --on-unavailable {policy} -- echo 'This must not be seen'"
        ));
    }
    drop(repo);
    world.run("system get-defaults");
    assert_transcript!(world);
}

/// No server listens, and nothing is read from this machine or a network.
#[test]
fn an_endpoint_that_does_not_answer() {
    let mut world = World::without_table();
    for line in [
        "system set-defaults -l rpm:1",
        "entity show u",
        "acquire u -r r -c rpm:1 --timeout 5s",
        "acquire u -r r -c rpm:1 --timeout 5s --on-unavailable allow",
        "check",
    ] {
        world.plainly(&format!(
            "{line} --endpoint-url http://127.0.0.1:1 --region us-east-1"
        ));
    }
    assert_transcript!(world);
}

/// The variable or file is named that the endpoint or profile comes from. A metadata service is not asked.
#[test]
fn an_environment_that_leads_nowhere() {
    let mut world = World::without_table();
    fs::write(
        world.path().join("config"),
        "[profile here]\nendpoint_url = http://h:99999\n",
    )
    .unwrap();
    let files = [
        ("AWS_CONFIG_FILE", "config"),
        ("AWS_SHARED_CREDENTIALS_FILE", "none"),
        ("AWS_REGION", "eu-west-1"),
    ];
    for line in [
        "system get-defaults",
        "status --name limits",
        "acquire u -r r -c rpm:1 --on-unavailable allow",
    ] {
        for (name, value) in [
            ("AWS_ENDPOINT_URL", "localhost:4566"),
            ("AWS_ENDPOINT_URL_DYNAMODB", "http://bad host"),
            ("AWS_PROFILE", "here"),
            ("AWS_PROFILE", "nosuch"),
        ] {
            let mut command = world.command(&words(line));
            command
                .env_remove("AWS_ACCESS_KEY_ID")
                .env_remove("AWS_SECRET_ACCESS_KEY")
                .env_remove("AWS_EC2_METADATA_DISABLED")
                .envs(files)
                .env(name, value);
            world.record(command, &format!("{line}   # {name}={value}"), None);
        }
    }
    assert_transcript!(world);
}

/// Answers requests of clients of an embedded table, each on a connection of its own. It executes updates, and closes
/// their connections instead of answering.
fn cutting_updates(engine: EmbeddedEngine) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut target, mut length, mut line) = (String::new(), 0, String::new());
            while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                if let Some((name, value)) = line.split_once(':') {
                    match name.to_ascii_lowercase().as_str() {
                        "x-amz-target" => value.trim().clone_into(&mut target),
                        "content-length" => length = value.trim().parse().unwrap(),
                        _ => {}
                    }
                }
                line.clear();
            }
            let mut body = vec![0; length];
            if stream.read_exact(&mut body).is_err() {
                continue;
            }
            let reply = engine.answer(&target, &body);
            if !target.ends_with("UpdateItem") {
                let head = format!(
                    "HTTP/1.1 {} -\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {}\r\n\
                     Connection: close\r\n\r\n",
                    reply.status,
                    reply.body.len()
                );
                let _ = stream.get_mut().write_all((head + &reply.body).as_bytes());
            }
        }
    });
    port
}

#[test]
fn a_write_whose_answer_is_cut_off_may_have_happened() {
    embedded_only!();
    let world = limited(&["rpm:10/day"]);
    let acquire = ["acquire", "user-1", "-r", "gpt-4", "-c", "rpm:1"];
    assert_eq!(world.silently(&acquire, None).code, Some(0));
    let engine = EmbeddedEngine::open(world.directory()).unwrap();
    let url = format!("http://127.0.0.1:{}", cutting_updates(engine));
    let mut args = acquire.to_vec();
    args.extend([
        "-n",
        world.stack(),
        "--region",
        "us-east-1",
        "--endpoint-url",
        &url,
    ]);
    let ran = finish(&mut world.command(&args), None);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(
        ran.stderr.starts_with(&format!(
            "Error: Failed to acquire: The connection to the endpoint URL \"{url}\" ended before the answer came ("
        )),
        "{ran:?}"
    );
    assert!(
        ran.stderr.ends_with("); the write may have happened\n"),
        "{ran:?}"
    );
}

/// Without an endpoint it would be AWS.
#[test]
fn no_credentials_and_no_region() {
    let mut world = World::without_table();
    let nothing = [];
    let region = [("AWS_REGION", "eu-west-1")];
    let credentials = [("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    for line in ["system get-defaults", "entity show u", "check", "version"] {
        for (given, variables) in [
            ("nothing is given", &nothing[..]),
            ("a region is given", &region),
            ("credentials are given", &credentials),
        ] {
            let args: Vec<&str> = line.split(' ').collect();
            let mut command = world.command(&args);
            command
                .env_remove("AWS_ACCESS_KEY_ID")
                .env_remove("AWS_SECRET_ACCESS_KEY")
                .envs(variables.iter().copied());
            world.record(command, &format!("{line}   # {given}"), None);
        }
    }
    assert_transcript!(world);
}

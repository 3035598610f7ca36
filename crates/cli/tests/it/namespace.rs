//! `namespace`.

use zae_limiter::table::TableExt as _;
use zae_limiter_core::table::{Update, Value};
use zae_limiter_core::{NamespaceName, schema};

use crate::world::{World, assert_transcript, block_on};

#[test]
fn registered_listed_and_shown() {
    let mut world = World::new();
    world.run("namespace list");
    world.run("namespace show default");
    world.run("namespace show team-a");
    world.run("namespace register team-a");
    world.run("namespace register team-a");
    world.run("namespace register team-c team-a team-b team-c");
    world.run("namespace register team-b team-b");
    world.run("namespace list");
    world.run("namespace show team-a");
    world.run("namespace list --output json");
    world.run("namespace show team-a --output json");
    world.run("namespace show nope --output json");
    world.run("namespace register team-a team-d --output json");
    assert_transcript!(world);
}

#[test]
fn some_names_are_not_registered() {
    let mut world = World::new();
    world.run("namespace register _");
    world.run("namespace register good _");
    world.run("namespace register ''");
    world.run("namespace register 'a#b'");
    world.run("namespace show _");
    world.run("namespace delete _ --yes");
    world.run("namespace delete '' --yes");
    world.run("system get-defaults -N _");
    world.run("system get-defaults -N ''");
    world.run("system set-defaults -N _ -l rpm:1");
    world.plainly("namespace register");
    world.run("namespace list");
    assert_transcript!(world);
}

#[test]
fn a_name_with_odd_characters_does_not_reach_the_terminal() {
    let mut world = World::new();
    let ran = world.silently(&["namespace", "register", "a\u{1b}[31mb"], None);
    if ran.code == Some(0) {
        world.run("namespace list");
    } else {
        world.note("namespace register 'a\\u{1b}[31mb'", "", &ran);
    }
    assert_transcript!(world);
}

#[test]
fn deleted_and_recovered() {
    let mut world = World::new();
    world.run("namespace orphans");
    world.run("namespace orphans --output json");
    world.run("system set-defaults -N team-a -l rpm:5000");
    let id = world.id_of("team-a");
    world.run("namespace delete team-a --yes");
    world.run("namespace list");
    world.run("namespace orphans");
    world.run("namespace orphans --output json");
    world.run("namespace show team-a");
    world.run("system get-defaults -N team-a");
    world.run(&format!("namespace recover {id}"));
    world.run(&format!("namespace recover {id}"));
    world.run("namespace orphans");
    world.run("system get-defaults -N team-a");
    world.run("namespace delete team-a --yes --output json");
    world.run("namespace delete team-a --yes --output json");
    world.run("namespace delete team-a --yes");
    world.run(&format!("namespace recover {id} --output json"));
    world.run("namespace show team-a");
    assert_transcript!(world);
}

#[test]
fn not_everything_can_be_recovered() {
    let mut world = World::new();
    world.run("namespace recover nope");
    world.run("namespace recover AAAAAAAAAAA");
    world.run("namespace register team-a");
    let id = world.id_of("team-a");
    world.run(&format!("namespace recover {id}"));
    world.run("namespace delete team-a -y");
    world.run("namespace register team-a");
    world.run(&format!("namespace recover {id}"));
    world.run("namespace orphans");
    world.run("namespace list");
    assert_transcript!(world);
}

#[test]
fn purged() {
    let mut world = World::new();
    world.run("system set-defaults -N team-a -l rpm:5000");
    world.run("entity set-limits user-1 -N team-a -r gpt-4 -l rpm:5000");
    world.run("acquire user-1 -N team-a -r gpt-4 -c rpm:1");
    let id = world.id_of("team-a");
    world.run(&format!("namespace purge {id} --yes"));
    world.run("namespace delete team-a --yes");
    world.run(&format!("namespace purge {id} --yes"));
    world.run("namespace orphans");
    world.run(&format!("namespace recover {id}"));
    world.run(&format!("namespace purge {id} --yes"));
    world.run("namespace purge nope -y");
    world.run("system get-defaults -N team-a");
    world.run("namespace register team-b");
    let id = world.id_of("team-b");
    world.run("namespace delete team-b -y");
    world.run(&format!("namespace purge {id} --yes --output json"));
    world.run("namespace list");
    assert_transcript!(world);
}

#[test]
fn a_purge_that_has_begun_is_terminal() {
    let mut world = World::new();
    world.run("namespace register team-a");
    let id = world.namespace_id("team-a");
    world.run("namespace delete team-a -y");
    let table = world.table();
    let mut update = Update::new(schema::namespace_id_key(&id));
    update.set.push(("status".into(), Value::text("purging")));
    assert!(block_on(table.update(update)).unwrap().is_applied());
    drop(table);
    world.run(&format!("namespace recover {id}"));
    world.run("namespace orphans");
    world.run("namespace list");
    world.run(&format!("namespace purge {id} -y"));
    world.run(&format!("namespace recover {id}"));
    assert_transcript!(world);
}

#[test]
fn deleting_and_purging_ask() {
    let mut world = World::new();
    world.run("namespace register team-a");
    let id = world.id_of("team-a");
    world.answer("namespace delete team-a", "n\n");
    world.answer("namespace delete team-a", "\n");
    world.answer("namespace delete team-a", "hm\nn\n");
    world.answer("namespace delete team-a", "");
    world.answer("namespace delete team-a --output json", "n\n");
    world.run("namespace orphans");
    world.answer("namespace delete team-a", "hm\ny\n");
    world.answer(&format!("namespace purge {id}"), "n\n");
    world.answer(&format!("namespace purge {id}"), "\n");
    world.answer(&format!("namespace purge {id}"), "hm\nn\n");
    world.answer(&format!("namespace purge {id}"), "");
    world.answer(&format!("namespace purge {id} --output json"), "n\n");
    world.run("namespace orphans");
    world.answer(&format!("namespace purge {id}"), "hm\nYes\n");
    world.run("namespace orphans");
    assert_transcript!(world);
}

#[test]
fn orphans_are_sorted_by_id_and_namespaces_by_name() {
    let world = World::new();
    let names = ["t9", "T1", "t10", "t1", "a", "b", "c"];
    let mut args = vec!["namespace", "register"];
    args.extend(names);
    assert_eq!(world.silently(&args, None).code, Some(0));
    let texts = |list: &serde_json::Value, name: &str| -> Vec<String> {
        let text = |record: &serde_json::Value| record[name].as_str().unwrap().to_owned();
        list.as_array().unwrap().iter().map(text).collect()
    };
    let listed = texts(&world.json("namespace list"), "name");
    assert_eq!(listed, ["T1", "a", "b", "c", "default", "t1", "t10", "t9"]);
    for name in names {
        world.json(&format!("namespace delete {name} -y"));
    }
    let ids = texts(&world.json("namespace orphans"), "namespace_id");
    assert_eq!(ids.len(), names.len());
    assert!(ids.is_sorted(), "{ids:?}");
}

/// Deleting `default` is allowed, and only a write brings it back, with a new id.
#[test]
fn the_default_namespace_is_one_like_others() {
    let mut world = World::new();
    let id = world.id_of("default");
    world.run("namespace delete default -y");
    world.run("namespace list");
    world.run("system get-defaults");
    world.run("system set-defaults -l rpm:1");
    world.run("namespace list");
    assert_ne!(world.id_of("default"), id);
    assert_transcript!(world);
}

/// Records that the program itself would not have written.
#[test]
fn records_of_others_are_shown_as_they_are() {
    let mut world = World::new();
    world.run("namespace register team-a");
    let table = world.table();
    let mut update = Update::new(schema::namespace_key(&NamespaceName::new("team-a").unwrap()));
    update.remove.push("created_at".into());
    assert!(block_on(table.update(update)).unwrap().is_applied());
    drop(table);
    world.run("namespace list");
    world.run("namespace show team-a");
    assert_transcript!(world);
}

/// Reads never register a namespace, writes do.
#[test]
fn namespaces_that_are_not_registered() {
    let mut world = World::new();
    for line in [
        "entity show u -N new",
        "entity children u -N new",
        "entity get-limits u -N new",
        "entity list --with-custom-limits r -N new",
        "entity list-resources -N new",
        "entity delete u --yes -N new",
        "resource get-defaults r -N new",
        "resource list -N new",
        "system get-defaults -N new",
        "audit list -e u -N new",
        "usage list -e u -N new",
        "usage summary -e u -N new",
        "available u -r r -N new",
        "acquire u -r r -c rpm:1 -N new",
    ] {
        world.run(line);
    }
    world.run("namespace list");
    let writes = [
        "entity create u",
        "entity set-limits u -l rpm:1",
        "entity delete-limits u -y",
        "resource set-defaults r -l rpm:1",
        "resource delete-defaults r -y",
        "system set-defaults -l rpm:1",
        "system delete-defaults -y",
    ];
    for (number, line) in writes.iter().enumerate() {
        world.run(&format!("{line} -N new{number}"));
    }
    world.run("namespace list");
    assert_transcript!(world);
}

/// An option goes before the variable, an empty variable counts as none.
#[test]
fn the_environment_names_stack_and_namespace() {
    let mut world = World::new();
    world.run("system set-defaults -N other -l rpm:7");
    world.run("system set-defaults -l rpm:1");
    let mut run = |variables: &[(&str, &str)], args: &[&str], shown: &str| {
        let mut command = world.connected(args);
        command.envs(variables.iter().copied());
        world.record(command, shown, None);
    };
    let args = ["system", "get-defaults"];
    run(
        &[("ZAEL_NAMESPACE", "other")],
        &args,
        "system get-defaults   # ZAEL_NAMESPACE=other",
    );
    run(
        &[("ZAEL_NAMESPACE", "")],
        &args,
        "system get-defaults   # ZAEL_NAMESPACE=",
    );
    let args = ["system", "get-defaults", "-N", "default"];
    let shown = "system get-defaults -N default   # ZAEL_NAMESPACE=other";
    run(&[("ZAEL_NAMESPACE", "other")], &args, shown);
    assert_transcript!(world);
    // The options still lead to the table.
    let mut command = world.connected(&["resource", "list"]);
    command.env("ZAEL_STACK", "no-such-stack");
    assert_eq!(command.output().unwrap().status.code(), Some(0));
    let place: Vec<String> = world.connection_options()[2..].to_vec();
    let mut args = vec!["resource".to_owned(), "list".to_owned()];
    args.extend(place);
    let mut command = world.command(&args);
    command.env("ZAEL_STACK", world.stack());
    assert_eq!(command.output().unwrap().status.code(), Some(0));
    command.env("ZAEL_STACK", "no-such-stack");
    assert_eq!(command.output().unwrap().status.code(), Some(4));
}

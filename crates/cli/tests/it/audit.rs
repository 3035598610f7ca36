//! `audit`.

use zae_limiter_core::schema::{add_namespace_index, audit_key, key_item};
use zae_limiter_core::table::Value;

use crate::world::{World, assert_transcript};

#[test]
fn events_of_every_change() {
    let mut world = World::new();
    world.run("audit list -e user-1");
    world.run("audit list -e user-1 --output json");
    world.run("entity create user-1 --parent org-456 --cascade");
    world.run("entity set-limits user-1 -r gpt-4 -l rpm:10 -l tpm:5/hour:7");
    world.run("entity set-limits user-1 -l rpm:10");
    world.run("entity delete-limits user-1 -r gpt-4 -y");
    // There is nothing left to delete, and so nothing to tell.
    world.run("entity delete-limits user-1 -r gpt-4 -y");
    world.run("entity delete user-1 -y");
    world.run("audit list --entity-id user-1");
    world.run("audit list -e user-1 --output json");
    assert_transcript!(world);
}

#[test]
fn events_of_the_system_and_of_resources() {
    let mut world = World::new();
    world.run("system set-defaults -l rpm:10 --on-unavailable allow");
    world.run("system delete-defaults -y");
    world.run("resource set-defaults gpt-4 -l rpm:10");
    world.run("resource delete-defaults gpt-4 -y");
    world.run("audit list -e '$SYSTEM'");
    world.run("audit list -e '$RESOURCE:gpt-4'");
    world.run("audit list -e '$RESOURCE:gpt-4' --output json");
    world.run("audit list -e '$RESOURCE:other'");
    world.run("audit list -e '$SYSTEM' -N default --limit 1 --output json");
    assert_transcript!(world);
}

#[test]
fn events_of_all() {
    let mut world = World::new();
    world.run("audit list");
    world.run("audit list --output json");
    world.run("entity create user-1");
    world.run("system set-defaults -l rpm:10");
    world.run("resource set-defaults gpt-4 -l rpm:10");
    world.run("entity set-limits user-2 -r gpt-4 -l rpm:10");
    world.run("audit list");
    let page = world.run("audit list --limit 3");
    let hint = page.stdout.lines().last().unwrap();
    let next = hint
        .strip_prefix("More events may exist. Use --start-event-id ")
        .unwrap();
    world.run(&format!("audit list --start-event-id {next}"));
    world.run("audit list --limit 1 --output json");
    world.run("audit list --start-event-id 1");
    world.run("audit list -N other");
    assert_transcript!(world);
}

#[test]
fn page_after_page() {
    let mut world = World::new();
    for rate in 1..=5 {
        world.silently(&["entity", "set-limits", "u", "-l", &format!("rpm:{rate}")], None);
    }
    let next = |ran: &crate::world::Ran| {
        let hint = ran.stdout.lines().last().unwrap_or_default();
        hint.strip_prefix("More events may exist. Use --start-event-id ")
            .map(str::to_owned)
    };
    let first = next(&world.run("audit list -e u --limit 2")).unwrap();
    let second = next(&world.run(&format!("audit list -e u -l 2 --start-event-id {first}"))).unwrap();
    let third = world.run(&format!("audit list -e u -l 2 --start-event-id {second}"));
    assert_eq!(next(&third), None);
    // As many as were asked for: whether there are more is not known.
    let all = next(&world.run("audit list -e u -l 5")).unwrap();
    world.run(&format!("audit list -e u -l 2 --start-event-id {all}"));
    assert_eq!(next(&world.run("audit list -e u")), None);
    world.run(&format!(
        "audit list -e u -l 2 --start-event-id {first} --output json"
    ));
    assert_transcript!(world);
}

/// Events of other clients: an unknown principal, another action, characters that move a cursor.
#[test]
fn events_of_others_are_shown_as_they_are() {
    let mut world = World::new();
    let namespace = world.namespace_id("default");
    let event = |number: u32, attributes: &[(&str, Value)]| {
        let id = format!("01M7ZTFJRZQM6J5PZ6BAZG00{number:02}");
        let key = audit_key(&namespace, "aud", &id);
        let mut item = key_item(&key);
        item.insert("event_id".into(), Value::text(id));
        item.insert("entity_id".into(), Value::text("aud"));
        item.insert(
            "timestamp".into(),
            Value::text(format!("2026-11-21T19:49:{number:02}Z")),
        );
        add_namespace_index(&mut item, namespace.as_str(), &key.pk);
        for (name, value) in attributes {
            item.insert((*name).to_owned(), value.clone());
        }
        item
    };
    let arn = Value::text("arn:aws:iam::123456789012:user/jdoe");
    let items = [
        event(
            1,
            &[
                ("action", Value::text("entity_created")),
                ("principal", Value::Null),
            ],
        ),
        event(
            2,
            &[
                ("action", Value::text("limits_deleted")),
                ("resource", Value::text("gpt-4")),
            ],
        ),
        event(
            3,
            &[
                ("action", Value::text("bucket_topped_up_for_the_weekend")),
                ("principal", Value::text("a\u{1b}[31m\nb")),
                ("resource", Value::text("meta-llama/Llama-3.1-405B")),
            ],
        ),
        event(4, &[]),
    ];
    world.put(items);
    if crate::world::independent().is_none() {
        // On a server ARNs are taken for the caller's.
        world.put([event(
            5,
            &[("action", Value::text("limits_set")), ("principal", arn)],
        )]);
        world.run("audit list -e aud");
        assert_transcript!(world);
    }
    assert_eq!(
        world.silently(&["audit", "list", "-e", "aud"], None).code,
        Some(0)
    );
}

#[test]
fn wrong_ways_to_ask() {
    let mut world = World::new();
    world.plainly("audit list -e u --limit 0");
    world.plainly("audit list -e u --limit -1");
    world.plainly("audit list -e u --limit many");
    world.run("audit list -e 'bad#e'");
    world.run("audit list -e ''");
    world.run("audit list -e u --start-event-id nonsense");
    assert_transcript!(world);
}

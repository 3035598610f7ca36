//! `entity`.

use zae_limiter::NewEntity;

use crate::world::{World, assert_transcript, block_on};

#[test]
fn created_and_shown() {
    let mut world = World::new();
    world.run("entity show user-123");
    world.run("entity create user-123");
    world.run("entity create user-123");
    world.run("entity create org-456 --display-name 'Widgets Inc.'");
    world.run("entity create api-key-abc --display-name 'Production API' --parent org-456 --cascade");
    world.run("entity create kid --parent nobody-yet --cascade --no-cascade");
    world.run("entity create plain --display-name ''");
    world.run("entity create same --display-name same");
    world.run("entity show user-123");
    world.run("entity show org-456");
    world.run("entity show api-key-abc");
    world.run("entity show kid");
    assert_transcript!(world);
}

#[test]
fn created_and_shown_as_json() {
    let mut world = World::new();
    world.run("entity create org-456 --output json");
    world.run("entity create kid --display-name 'The Kid' --parent org-456 --cascade --output json");
    world.run("entity create kid --output json");
    world.run("entity show kid --output json");
    world.run("entity show nobody --output json");
    assert_transcript!(world);
}

#[test]
fn a_cascade_needs_a_parent_other_than_itself() {
    let mut world = World::new();
    world.run("entity create alone --cascade");
    world.run("entity create alone --parent alone");
    world.run("entity show alone");
    world.run("audit list -e alone");
    assert_transcript!(world);
}

#[test]
fn metadata_is_a_dict_literal() {
    let mut world = World::new();
    let repo = world.repository("default");
    let entity = NewEntity::new("md1")
        .name("Alice\u{1b}[31m Smith")
        .metadata("tier", "premium")
        .metadata("note", "it's")
        .metadata("both", "it's \"so\"")
        .metadata("line", "one\ntwo");
    block_on(repo.admin().create_entity(entity)).unwrap();
    drop(repo);
    world.run("entity show md1");
    world.run("entity show md1 --output json");
    assert_transcript!(world);
}

#[test]
fn limits_are_set_shown_and_deleted() {
    let mut world = World::new();
    world.run("entity get-limits user-premium");
    world.run("entity get-limits user-premium -r gpt-4");
    world.run("entity set-limits user-premium -r gpt-4 -l tpm:100000 -l rpm:1000");
    world.run("entity set-limits user-premium -l rpd:5000/day:9000");
    world.run("entity get-limits user-premium --resource gpt-4");
    world.run("entity get-limits user-premium");
    world.run("entity get-limits user-premium -r claude-3");
    // They are replaced as a whole.
    world.run("entity set-limits user-premium -r gpt-4 -l rps:5/sec");
    world.run("entity get-limits user-premium -r gpt-4");
    world.run("entity delete-limits user-premium -r gpt-4 --yes");
    world.run("entity delete-limits user-premium -r gpt-4 --yes");
    world.run("entity get-limits user-premium -r gpt-4");
    world.run("entity delete-limits user-premium -y");
    world.run("entity get-limits user-premium");
    assert_transcript!(world);
}

#[test]
fn limits_as_json() {
    let mut world = World::new();
    world.run("entity get-limits u --output json");
    world.run("entity set-limits u -r gpt-4 -l tpm:100000/hour:5 -l rpm:1000 --output json");
    world.run("entity get-limits u -r gpt-4 --output json");
    world.run("entity delete-limits u -r gpt-4 --yes --output json");
    world.run("entity delete-limits u -r gpt-4 --yes --output json");
    assert_transcript!(world);
}

#[test]
fn deleting_limits_asks() {
    let mut world = World::new();
    world.run("entity set-limits user-premium -r gpt-4 -l rpm:1000");
    world.answer("entity delete-limits user-premium -r gpt-4", "n\n");
    world.answer("entity delete-limits user-premium -r gpt-4", "\n");
    world.answer("entity delete-limits user-premium -r gpt-4", "maybe\nNO\n");
    world.answer("entity delete-limits user-premium -r gpt-4", "");
    world.answer("entity delete-limits user-premium -r gpt-4 --output json", "no\n");
    world.run("entity get-limits user-premium -r gpt-4");
    world.answer("entity delete-limits user-premium -r gpt-4", "what\n YES \n");
    world.run("entity get-limits user-premium -r gpt-4");
    // The question comes before anything is looked for.
    world.answer("entity delete-limits nobody -N nowhere", "no\n");
    assert_transcript!(world);
}

#[test]
fn those_with_limits_of_their_own_are_listed() {
    let mut world = World::new();
    world.run("entity list --with-custom-limits gpt-4");
    world.run("entity list --with-custom-limits gpt-4 --output json");
    world.run("entity list-resources");
    world.run("entity list-resources --output json");
    for id in ["user-9", "user-10", "abc", "Zoe", "user@example.com"] {
        world.silently(&["entity", "set-limits", id, "-r", "gpt-4", "-l", "rpm:1"], None);
    }
    world.run("entity set-limits abc -r claude-3 -l rpm:1");
    world.run("entity set-limits abc -l rpm:1");
    world.run("entity list --with-custom-limits gpt-4");
    world.run("entity list --with-custom-limits gpt-4 --limit 2");
    world.run("entity list --with-custom-limits gpt-4 --limit 100");
    world.run("entity list --with-custom-limits gpt-4 --limit 2 --output json");
    world.run("entity list --with-custom-limits claude-3");
    world.run("entity list --with-custom-limits _default_");
    world.run("entity list --with-custom-limits nothing");
    world.run("entity list-resources");
    world.run("entity list-resources --output json");
    world.run("entity delete-limits abc -r claude-3 -y");
    world.run("entity list-resources");
    assert_transcript!(world);
}

#[test]
fn children_of_a_parent() {
    let mut world = World::new();
    world.run("entity children org-456");
    world.run("entity children org-456 --output json");
    for id in ["user-2", "user-10", "user-1"] {
        world.silently(&["entity", "create", id, "--parent", "org-456"], None);
    }
    world.silently(&["entity", "create", "other", "--parent", "org-4567"], None);
    world.run("entity children org-456");
    world.run("entity children org-456 --output json");
    assert_transcript!(world);
}

#[test]
fn an_entity_is_deleted_with_all_it_has() {
    let mut world = World::new();
    world.run("entity delete nobody --yes");
    world.silently(&["system", "set-defaults", "-l", "rpm:100/day"], None);
    world.run("entity create user-1");
    world.run("entity delete user-1 --yes");
    world.run("entity show user-1");
    world.run("entity create user-1 --parent org-456");
    world.run("entity set-limits user-1 -r gpt-4 -l rpm:10/day");
    world.run("entity set-limits user-1 -l rpm:10/day");
    world.run("acquire user-1 -r gpt-4 -c rpm:4");
    world.run("entity set-limits user-2 -r gpt-4 -l rpm:10/day");
    world.answer("entity delete user-1", "n\n");
    world.answer("entity delete user-1", "\n");
    world.answer("entity delete user-1", "");
    world.answer("entity delete user-1 --output json", "n\n");
    world.answer("entity delete user-1", "perhaps\ny\n");
    world.run("entity show user-1");
    world.run("entity get-limits user-1 -r gpt-4");
    world.run("entity children org-456");
    world.run("entity list --with-custom-limits gpt-4");
    world.run("entity list-resources");
    world.run("available user-1 -r gpt-4");
    world.run("entity delete user-1 -y --output json");
    world.run("entity set-limits user-1 -l rpm:1");
    world.run("entity delete user-1 -y --output json");
    // What was logged of it stays.
    world.run("audit list -e user-1");
    assert_transcript!(world);
}

#[test]
fn deleting_a_parent_names_its_children() {
    let mut world = World::new();
    world.silently(&["system", "set-defaults", "-l", "rpm:1000/day"], None);
    world.silently(&["entity", "create", "proj"], None);
    for n in 1..=7 {
        world.silently(
            &[
                "entity",
                "create",
                &format!("key-{n}"),
                "--parent",
                "proj",
                "--cascade",
            ],
            None,
        );
    }
    world.answer("entity delete proj", "n\n");
    world.answer("entity delete proj --children", "n\n");
    world.run("entity delete proj --yes");
    world.run("entity children proj");
    world.silently(&["entity", "create", "proj"], None);
    world.run("entity delete key-1 --yes");
    world.run("entity delete proj --children --yes");
    world.run("entity children proj");
    world.run("entity show key-7");
    assert_transcript!(world);
}

#[test]
fn a_limit_above_the_parents_is_noted() {
    let mut world = World::new();
    world.silently(&["entity", "create", "proj"], None);
    world.silently(
        &["entity", "create", "key", "--parent", "proj", "--cascade"],
        None,
    );
    world.silently(&["entity", "create", "apart", "--parent", "proj"], None);
    world.run("entity set-limits proj -l rpm:60");
    world.run("entity set-limits key -l rpm:60");
    world.run("entity set-limits key -l rpm:600");
    world.run("entity get-limits key");
    world.run("entity set-limits key -r gpt-4 -l rpm:1:600 -l tpm:5");
    world.run("entity set-limits apart -l rpm:600");
    world.run("entity set-limits key -l rpm:600 --output json");
    world.run("entity show key");
    world.run("entity show key --output json");
    world.run("entity show apart");
    assert_transcript!(world);
}

#[test]
fn only_what_is_there_is_deleted_in_a_namespace_that_is_not() {
    let mut world = World::new();
    world.run("entity delete user-1 --yes -N nowhere");
    world.run("namespace list");
    assert_transcript!(world);
}

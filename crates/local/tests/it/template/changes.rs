//! What an update changes, and how sure that is.

use zae_limiter_local::template::{
    Action, Attribute, Bound, ChangeSource, Changes, Evaluation, Known, Recreation, Replacement,
    ResourceChange, Rules, additions, changes,
};

use super::{bind, known};

/// Names never change, `Maybe` depends; an ARN never changes in place.
struct Names;

impl Rules for Names {
    fn recreation(&self, _: &str, property: &str) -> Recreation {
        match property {
            "Name" => Recreation::Always,
            "Maybe" => Recreation::Conditionally,
            _ => Recreation::Never,
        }
    }

    fn attribute_may_change(&self, _: &str, attribute: &str, _: &[String]) -> bool {
        attribute != "Arn"
    }
}

const OLD: &str = "
Parameters:
  Name: {Type: String, Default: one}
  Size: {Type: Number, Default: 5}
Conditions:
  Big: !Equals [!Ref Size, 50]
Resources:
  Table: {Type: T, Properties: {Name: !Ref Name, Size: !Ref Size, Tags: [{Key: a, Value: b}]}}
  Reader: {Type: R, Properties: {Table: !Ref Table, Arn: !GetAtt Table.Arn, Stream: !GetAtt Table.Stream, Fixed: {x: 1}}}
  Other: {Type: T, Properties: {Name: other}}
  Extra: {Type: T, Condition: Big}
Outputs:
  Id: {Value: !Ref Table}
";

fn things() -> Known {
    known(&[
        ("Table", "t-1", &[("Arn", "arn:t"), ("Stream", "stream:t")]),
        ("Reader", "r-1", &[]),
        ("Other", "o-1", &[]),
        ("Extra", "e-1", &[]),
    ])
}

fn between(old: &Bound, new: &Bound) -> Changes {
    changes(old, new, &things(), &Names).unwrap()
}

fn named<'c>(changes: &'c Changes, id: &str) -> &'c ResourceChange {
    changes
        .resources
        .iter()
        .find(|change| change.logical_id == id)
        .unwrap()
}

fn ids(changes: &Changes) -> Vec<(&str, &str)> {
    changes
        .resources
        .iter()
        .map(|change| (change.action.as_str(), change.logical_id.as_str()))
        .collect()
}

#[test]
fn the_same_is_no_change() {
    let old = bind(OLD, &[]);
    for new in [
        bind(OLD, &[]),
        // Numbers and texts are one, so are a literal and a reference to what it says.
        bind(
            &OLD.replace("Size: !Ref Size", "Size: '5'")
                .replace("{x: 1}", "{x: '1'}"),
            &[],
        ),
        bind(
            &OLD.replace("Name: other}", "Name: other}, DeletionPolicy: Retain"),
            &[],
        ),
    ] {
        let changes = between(&old, &new);
        assert!(changes.is_empty(), "{changes:?}");
    }
}

#[test]
fn a_change_in_place() {
    let changes = between(&bind(OLD, &[]), &bind(OLD, &[("Size", "6")]));
    assert_eq!(ids(&changes), [("Modify", "Table"), ("Modify", "Reader")]);
    assert!(!changes.outputs);
    let table = named(&changes, "Table");
    assert_eq!(
        (table.replacement, table.physical_id.as_deref()),
        (Some(Replacement::False), Some("t-1"))
    );
    let [detail] = table.details.as_slice() else {
        panic!("{table:?}")
    };
    assert_eq!(detail.paths, ["/Properties/Size"]);
    assert_eq!(
        (detail.evaluation, detail.source),
        (Evaluation::Static, ChangeSource::ParameterReference)
    );
    assert_eq!(detail.cause.as_deref(), Some("Size"));
    // The stream may be another one; the ARN is not.
    let [detail] = named(&changes, "Reader").details.as_slice() else {
        panic!("{changes:?}")
    };
    assert_eq!(
        (detail.name.as_deref(), detail.cause.as_deref()),
        (Some("Stream"), Some("Table.Stream"))
    );
    assert_eq!(
        (detail.evaluation, detail.source),
        (Evaluation::Dynamic, ChangeSource::ResourceAttribute)
    );
}

#[test]
fn a_replacement_is_unknown_to_others() {
    let changes = between(&bind(OLD, &[]), &bind(OLD, &[("Name", "two")]));
    assert_eq!(named(&changes, "Table").replacement, Some(Replacement::True));
    let reader = named(&changes, "Reader");
    assert_eq!(reader.details.len(), 3);
    assert!(
        reader
            .details
            .iter()
            .all(|detail| detail.evaluation == Evaluation::Dynamic)
    );
    assert!(
        reader
            .details
            .iter()
            .any(|detail| detail.source == ChangeSource::ResourceReference)
    );
    assert!(changes.outputs);
}

#[test]
fn what_depends_on_the_unknown_may_be_replaced() {
    let text = OLD.replace("Stream: !GetAtt", "Name: !GetAtt");
    let changes = between(&bind(&text, &[]), &bind(&text, &[("Size", "6")]));
    assert_eq!(
        named(&changes, "Reader").replacement,
        Some(Replacement::Conditional)
    );
}

#[test]
fn paths_are_as_deep_as_they_can_be() {
    let old = bind(OLD, &[]);
    for (from, to, paths) in [
        ("Value: b", "Value: c", vec!["/Properties/Tags/0/Value"]),
        (
            "Value: b}",
            "Value: b}, {Key: c, Value: d}",
            vec!["/Properties/Tags"],
        ),
        (
            "Tags: [{Key: a, Value: b}]",
            "a/b: 1",
            vec!["/Properties/a~1b", "/Properties/Tags"],
        ),
    ] {
        let changes = between(&old, &bind(&OLD.replace(from, to), &[]));
        let found: Vec<_> = named(&changes, "Table")
            .details
            .iter()
            .flat_map(|detail| detail.paths.clone())
            .collect();
        assert_eq!(found, paths);
        assert!(
            named(&changes, "Table")
                .details
                .iter()
                .all(|detail| detail.source == ChangeSource::DirectModification)
        );
    }
}

#[test]
fn resources_come_and_go() {
    let text = OLD.replace(
        "  Other: {Type: T, Properties: {Name: other}}\n",
        "  New: {Type: T, DependsOn: Extra}\n",
    );
    let changes = between(&bind(OLD, &[]), &bind(&text, &[("Size", "50")]));
    assert_eq!(
        ids(&changes),
        [
            ("Add", "Extra"),
            ("Modify", "Table"),
            ("Add", "New"),
            ("Modify", "Reader"),
            ("Remove", "Other")
        ]
    );
    assert_eq!(named(&changes, "New").physical_id, None);
    assert_eq!(named(&changes, "Other").physical_id.as_deref(), Some("o-1"));
    assert_eq!(named(&changes, "Other").action, Action::Remove);
    assert_eq!(named(&changes, "Other").replacement, None);
}

#[test]
fn metadata_policies_and_outputs() {
    let text = OLD.replace(
        "Name: other}}",
        "Name: other}, Metadata: {v: 2}, DeletionPolicy: Retain}",
    );
    let changes = between(&bind(OLD, &[]), &bind(&text, &[]));
    assert_eq!(
        named(&changes, "Other").scope,
        [Attribute::Metadata, Attribute::DeletionPolicy]
    );
    assert_eq!(named(&changes, "Other").replacement, Some(Replacement::False));
    let output = between(
        &bind(OLD, &[]),
        &bind(&OLD.replace("Id: {", "Id: {Description: d, "), &[]),
    );
    assert!(output.outputs && output.resources.is_empty() && !output.is_empty());
}

#[test]
fn a_new_stack_adds_everything() {
    let changes = additions(&bind(OLD, &[("Size", "50")]));
    assert_eq!(
        ids(&changes),
        [
            ("Add", "Extra"),
            ("Add", "Other"),
            ("Add", "Table"),
            ("Add", "Reader")
        ]
    );
    assert!(
        changes.outputs
            && changes
                .resources
                .iter()
                .all(|change| change.physical_id.is_none())
    );
}

#[test]
fn another_type_is_refused() {
    let error = changes(
        &bind(OLD, &[]),
        &bind(&OLD.replace("Reader: {Type: R", "Reader: {Type: X"), &[]),
        &things(),
        &Names,
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "Update of resource type is not permitted. The new template modifies resource type of the following resources: [Reader]"
    );
}

#[test]
fn conditional_recreation() {
    let old = OLD.replace("Fixed: {x: 1}", "Maybe: 1");
    let changes = between(&bind(&old, &[]), &bind(&old.replace("Maybe: 1", "Maybe: 2"), &[]));
    assert_eq!(
        named(&changes, "Reader").replacement,
        Some(Replacement::Conditional)
    );
}

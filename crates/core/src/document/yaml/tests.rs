//! Manifests as YAML: places of problems, and what YAML takes for something else than it says.

use proptest::prelude::*;

use crate::manifest::Manifest;

/// Checks that a file is refused with exactly these lines.
#[track_caller]
fn check_refused(text: &str, lines: &[&str]) {
    let err = Manifest::from_yaml(text.as_bytes()).unwrap_err();
    assert_eq!(err.to_string(), lines.join("\n"));
}

#[track_caller]
fn check_same(a: &str, b: &str) {
    let read = |text: &str| Manifest::from_yaml(text.as_bytes()).unwrap_or_else(|err| panic!("{err}"));
    assert_eq!(read(a), read(b));
}

#[test]
fn problems_have_their_places() {
    check_refused(
        "namespace: default\nresources:\n  gpt-4:\n    limits:\n      tpm:\n        capacity: 5k\n        \
         refil_amount: 3\n  gpt-4:\n    limits: []\n",
        &[
            "line 6, column 19: resources.gpt-4.limits.tpm.capacity is '5k': it must be a whole number from 1 to \
             1000000000000000",
            "line 7, column 9: resources.gpt-4.limits.tpm.refil_amount is unknown; did you mean 'refill_amount'?",
            "line 8, column 3: resources.gpt-4 is given twice; one of them must go",
        ],
    );
}

#[test]
fn what_is_no_single_document_is_refused() {
    for empty in ["", "\n# nothing\n", "---\n", "~"] {
        let err = Manifest::from_yaml(empty.as_bytes()).unwrap_err();
        assert!(
            err.to_string()
                .ends_with("is empty; it must at least name its namespace"),
            "{err}"
        );
    }
    check_refused(
        "namespace: a\n---\nnamespace: b\n",
        &["line 2, column 1: the manifest has a second document here; a manifest is one document"],
    );
    check_refused(
        "- a\n",
        &["line 1, column 1: the manifest is a list of 1: it must be a mapping of names to values"],
    );
    let err = Manifest::from_yaml(b"namespace: a\nresources: [\n").unwrap_err();
    assert!(err.to_string().contains("is not valid YAML"), "{err}");
    let err = Manifest::from_yaml(b"namespace: a\n# \xff\n").unwrap_err();
    assert!(err.to_string().starts_with("line 2, column 3: "), "{err}");
    let deep = format!("namespace: {}", "[".repeat(200));
    let err = Manifest::from_yaml(deep.as_bytes()).unwrap_err();
    assert!(err.to_string().contains("deeper than 64"), "{err}");
}

#[test]
fn numbers_are_plain_whole_numbers() {
    let limit =
        |capacity: &str| format!("namespace: d\nsystem: {{limits: {{x: {{capacity: {capacity}}}}}}}\n");
    for good in ["1_000", "+1000", "!!int 1000"] {
        check_same(&limit(good), &limit("1000"));
    }
    for bad in [
        "010",
        "0x10",
        "0o10",
        "0b11",
        "1:30",
        "1e3",
        "1.0",
        "1.",
        ".5",
        ".inf",
        "-1",
        "0",
        "true",
        "on",
        "'5'",
        "!!str 5",
        "2024-01-01",
        "99999999999999999999",
        "1000000000000001",
        "99999999999999999999999999999999999999999999",
        "[]",
        "five",
    ] {
        let err = Manifest::from_yaml(limit(bad).as_bytes()).unwrap_err();
        let text = err.to_string();
        assert!(
            text.contains("system.limits.x.capacity is ") && text.contains("must be a whole number"),
            "{text}"
        );
    }
}

#[test]
fn names_that_read_as_something_else_are_quoted() {
    let entity = |id: &str| format!("namespace: d\nentities: {{{id}: {{}}}}\n");
    check_same(&entity("123"), &entity("'123'"));
    for bad in ["on", "1.5", "0x1f", "2024-01-01", "null", "1_0", "012"] {
        let err = Manifest::from_yaml(entity(bad).as_bytes()).unwrap_err();
        assert!(err.to_string().contains("put it in quotes"), "{bad}: {err}");
        assert!(
            Manifest::from_yaml(entity(&format!("'{bad}'")).as_bytes()).is_ok(),
            "{bad}"
        );
    }
    let err = Manifest::from_yaml(b"namespace: 12\n").unwrap_err();
    assert!(err.to_string().contains("put it in quotes"), "{err}");
    let err = Manifest::from_yaml(b"namespace: d\n? [a]\n: b\n").unwrap_err();
    assert!(err.to_string().contains("must be a name"), "{err}");
}

#[test]
fn anchors_and_merge_keys_are_followed() {
    check_same(
        "namespace: d\nresources:\n  a: &a\n    limits: {x: &x {capacity: 1}}\n  b: *a\n  c:\n    limits:\n      y:\n        \
         <<: [*x, {capacity: 9, refill_period: 5}]\n        refill_amount: 2\n",
        "namespace: d\nresources:\n  a: {limits: {x: {capacity: 1}}}\n  b: {limits: {x: {capacity: 1}}}\n  c:\n    \
         limits: {y: {capacity: 1, refill_period: 5, refill_amount: 2}}\n",
    );
    let err = Manifest::from_yaml(b"namespace: d\nresources: &r\n  a: *r\n").unwrap_err();
    assert!(err.to_string().contains("contains itself"), "{err}");
    let err = Manifest::from_yaml(b"namespace: d\nresources: {<<: 5}\n").unwrap_err();
    assert!(err.to_string().contains("names no mapping"), "{err}");
    let mut bomb = String::from("namespace: d\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.extend([format!("a{level}: &a{level} [{items}]\n")]);
    }
    let err = Manifest::from_yaml(bomb.as_bytes()).unwrap_err();
    assert!(err.to_string().contains("grows beyond 1000000"), "{err}");
    // A long text, copied often, and anchors inside of anchors.
    let long = "y".repeat(100_000);
    for bomb in [
        format!("x: &a \"{long}\"\nz: [{}]\n", vec!["*a"; 50_000].join(",")),
        format!("x: &a {{{long}: 1}}\nz: [{}]\n", vec!["*a"; 50_000].join(",")),
        format!(
            "x: {}\"{}\"{}\n",
            (0..50).fold(String::new(), |nested, n| nested + &format!("&a{n} [")),
            "y".repeat(2_000_000),
            "]".repeat(50)
        ),
    ] {
        let err = Manifest::from_yaml(format!("namespace: d\n{bomb}").as_bytes()).unwrap_err();
        assert!(
            err.to_string()
                .contains("grows beyond 1000000 values of 64 bytes"),
            "{err}"
        );
    }
    let err = Manifest::from_yaml(b"namespace: !Ref name\n").unwrap_err();
    assert!(err.to_string().contains("has the tag !Ref"), "{err}");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Manifest::from_yaml(&bytes);
    }

    #[test]
    fn no_pieces_of_yaml_panic(pieces in prop::collection::vec(prop::sample::select(vec![
        "namespace", ": ", "\n", "  ", "- ", "{", "}", "[", "]", "*a", "&a ", "<<", "?", "|", ">", "'", "\"", "!!int ",
        "!", "1", "~", "#", "---\n", "...\n", ", ", "resources", "limits", "%YAML 1.2\n", "\t", "é", "\u{feff}",
    ]), 0..40)) {
        let _ = Manifest::from_yaml(pieces.concat().as_bytes());
    }
}

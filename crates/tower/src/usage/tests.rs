//! The readers of usage: by example, and compared with a parser.

use bytes::Bytes;
use http::Response;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::json::{Path, Reader};
use super::*;

fn found(paths: &[&str], pieces: &[&[u8]]) -> (Vec<Option<u64>>, bool) {
    let paths: Vec<Path> = paths.iter().map(|path| Path::new(path)).collect();
    let mut reader = Reader::new(paths.len());
    let mut found = vec![None; paths.len()];
    for piece in pieces {
        reader.read(&paths, piece, &mut |path, number| found[path] = Some(number));
    }
    (found, reader.is_whole())
}

fn read(usage: &JsonUsage, media_type: &str, pieces: &[&[u8]]) -> Option<u64> {
    let head = Response::builder().header("content-type", media_type).body(());
    let (head, ()) = head.unwrap().into_parts();
    let mut reader = usage.reader(&head)?;
    for piece in pieces {
        reader.read(piece);
    }
    reader.total()
}

#[test]
fn numbers_are_met_at_their_places_only() {
    let text = br#"{"a":{"b":1,"c":{"b":2}},"b":3,"l":[{"a":{"b":4}},[5]],"d":{"a":{"b":6}},"x":"{\"a\":{\"b\":7}}"}"#;
    for cut in 0..text.len() {
        let pieces = [&text[..cut], &text[cut..]];
        let (found, is_whole) = found(&["a.b", "a.c.b", "b", "a", "l", "d.a.b", "l.a.b"], &pieces);
        assert_eq!(
            found,
            [Some(1), Some(2), Some(3), None, None, Some(6), None],
            "{cut}"
        );
        assert!(is_whole);
    }
}

#[test]
fn only_whole_numbers_count() {
    for (text, expected) in [
        (r#"{"n":0}"#, Some(0)),
        (r#"{ "n" : 12 }"#, Some(12)),
        (r#"{"n":999999999999999999}"#, Some(999_999_999_999_999_999)),
        (r#"{"n":1000000000000000000}"#, None),
        (r#"{"n":-1}"#, None),
        (r#"{"n":1.0}"#, None),
        (r#"{"n":1e3}"#, None),
        (r#"{"n":"1"}"#, None),
        (r#"{"n":null}"#, None),
        (r#"{"n":[1]}"#, None),
        (r#"{"n":1"#, None),
        (r#"{"n":1,"n":2}"#, Some(2)),
        (r#"{"\u006e":3}"#, Some(3)),
        (r#"[{"n":1}]"#, None),
        ("", None),
        ("n", None),
    ] {
        assert_eq!(found(&["n"], &[text.as_bytes()]).0, [expected], "{text}");
    }
}

#[test]
fn what_is_no_json_ends_the_search() {
    for text in [
        r#"{"a" 1,"n":1}"#,
        r#"{"a":tru,"n":1}"#,
        r#"{"a":1 2,"n":1}"#,
        r#"{"a":"\x","n":1}"#,
        r#"{"a":[1},"n":1}"#,
        r#"{,"n":1}"#,
        r#"{"a":1}{"n":1}"#,
        r#"}{"n":1}"#,
    ] {
        let (found, is_whole) = found(&["n"], &[text.as_bytes()]);
        assert_eq!((found, is_whole), (vec![None], false), "{text}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(found(&["n"], &[deep.as_bytes()]), (vec![None], false));
    let long = format!(r#"{{"{}":1,"n":2}}"#, "x".repeat(100_000));
    assert_eq!(found(&["n"], &[long.as_bytes()]), (vec![Some(2)], true));
}

#[test]
fn usage_of_bodies() {
    let chat = br#"{"choices":[{"message":{"content":"\"usage\":{\"total_tokens\":9}"}}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;
    assert_eq!(
        read(&openai(), "application/json; charset=utf-8", &[chat]),
        Some(15)
    );
    assert_eq!(
        read(&json("usage.completion_tokens"), "application/json", &[chat]),
        Some(5)
    );
    assert_eq!(read(&openai(), "text/html", &[chat]), None);
    assert_eq!(read(&openai(), "application/json", &[br#"{"error":{}}"#]), None);
    let message = br#"{"type":"message","usage":{"input_tokens":25,"output_tokens":15}}"#;
    assert_eq!(read(&anthropic(), "application/json", &[message]), Some(40));
}

#[test]
fn usage_of_streams() {
    let chat = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n: comment\n\ndata: {\"choices\":[],\"usage\":{\"total_tokens\":17}}\n\ndata: [DONE]\n\n";
    let responses = "event: response.created\ndata: {\"response\":{\"usage\":null}}\n\nevent: response.completed\ndata: {\"response\":{\"usage\":{\"total_tokens\":17}}}\n\n";
    let messages = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":7}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    for (usage, text) in [(openai(), chat), (openai(), responses), (anthropic(), messages)] {
        for text in [
            text.to_owned(),
            text.replace('\n', "\r\n"),
            text.replace('\n', "\r"),
        ] {
            for cut in 0..text.len() {
                let (one, two) = text.as_bytes().split_at(cut);
                assert_eq!(
                    read(&usage, "text/event-stream", &[one, two]),
                    Some(17),
                    "{cut}: {text}"
                );
            }
        }
    }
}

#[test]
fn a_stream_that_breaks_off_has_what_was_met() {
    let start = b"data: {\"message\":{\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}\n\n";
    assert_eq!(read(&anthropic(), "text/event-stream", &[start]), None);
    // An event over several lines, and one without a space.
    let lines = b"data:{\"usage\":\ndata: {\"total_tokens\"\ndata::4}}\n\n";
    assert_eq!(read(&openai(), "text/event-stream", &[lines]), Some(4));
    // What is malformed does not end the next one.
    let broken = b"data: {{{{\n\ndata: {\"usage\":{\"total_tokens\":4}}\n\n";
    assert_eq!(read(&openai(), "text/event-stream", &[broken]), Some(4));
}

#[test]
fn a_byte_order_mark_does_not_count() {
    let event = b"\xef\xbb\xbfdata: {\"usage\":{\"total_tokens\":4}}\n\n";
    assert_eq!(read(&openai(), "text/event-stream", &[event]), Some(4));
    // A part of one belongs to the name of a field, which is not `data` then.
    for event in [
        &b"\xefdata: {\"usage\":{\"total_tokens\":4}}\n\n"[..],
        b"\xef\xbb\ndata: 1\n\n",
    ] {
        assert_eq!(read(&openai(), "text/event-stream", &[event]), None);
    }
    let body = b"\xef\xbb\xbf{\"usage\":{\"total_tokens\":4}}";
    assert_eq!(read(&openai(), "application/json", &[body]), Some(4));
}

#[test]
fn tokens_written_to_a_cache_are_added_if_there_are_any() {
    let message = br#"{"usage":{"input_tokens":5,"cache_creation_input_tokens":20,"output_tokens":15}}"#;
    assert_eq!(read(&anthropic(), "application/json", &[message]), Some(40));
    let none = br#"{"usage":{"input_tokens":5,"cache_creation_input_tokens":null,"output_tokens":15}}"#;
    assert_eq!(read(&anthropic(), "application/json", &[none]), Some(20));
}

#[test]
fn an_encoded_body_is_not_read() {
    let head = Response::builder()
        .header("content-type", "application/json")
        .header("content-encoding", "gzip");
    let (head, ()) = head.body(()).unwrap().into_parts();
    assert!(openai().reader(&head).is_none());
}

#[test]
fn a_header_field_is_a_whole_number() {
    let of = |value: &'static str| {
        let head = Response::builder().header("x-usage", value).body(());
        let (head, ()) = head.unwrap().into_parts();
        header(HeaderName::from_static("x-usage"))
            .reader(&head)
            .and_then(|reader| reader.total())
    };
    assert_eq!(
        (of("12"), of("-1"), of("x"), of("")),
        (Some(12), None, None, None)
    );
}

#[test]
fn paths_are_checked() {
    assert!(openai().check().is_ok() && anthropic().check().is_ok());
    for bad in ["", "a..b", ".", "a."] {
        let err = json(bad).check().unwrap_err();
        assert_eq!((err.field(), err.value()), ("usage", bad));
    }
    assert!(json(&"x".repeat(65)).check().is_err());
    assert!(json("a").or("").check().is_err());
}

/// What the paths lead to in a parsed text.
fn at<'j>(text: &'j Json, path: &str) -> Option<&'j Json> {
    path.split('.')
        .try_fold(text, |at, name| at.as_object()?.get(name))
}

fn texts() -> impl Strategy<Value = Json> {
    let name = prop_oneof!["[ab]", "[a-c]{2}", any::<String>()];
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (0_u64..2000).prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        (-1e9..1e9_f64).prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::hash_map(name.clone(), inner, 0..6)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

/// Pieces of a text, cut at random.
fn pieces(text: &[u8], cuts: &[prop::sample::Index]) -> Vec<Bytes> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    at.extend([0, text.len()]);
    at.sort_unstable();
    at.windows(2)
        .map(|ends| Bytes::copy_from_slice(&text[ends[0]..ends[1]]))
        .collect()
}

proptest! {
    #[test]
    fn the_reader_agrees_with_a_parser(
        text in texts(),
        is_pretty in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let paths = ["a", "a.a", "a.b", "b.ab", "a.b.a"];
        let written = if is_pretty { serde_json::to_string_pretty(&text) } else { serde_json::to_string(&text) }.unwrap();
        let pieces = pieces(written.as_bytes(), &cuts);
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
        let (found, is_whole) = found(&paths, &pieces);
        let is_open = text.is_number() || text.is_boolean() || text.is_null();
        // A number or word at the outside ends with the text.
        prop_assert!(is_whole || is_open);
        for (path, found) in paths.iter().zip(found) {
            let expected = at(&text, path).and_then(Json::as_u64).filter(|number| *number < 10_u64.pow(18));
            prop_assert_eq!(found, expected, "{} in {}", path, written);
        }
    }

    #[test]
    fn no_bytes_panic(
        bytes in prop::collection::vec(prop_oneof![
            Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b'\\'), Just(b':'), Just(b','), Just(b'\n'), Just(b'\r'),
            Just(b'u'), Just(b'1'), Just(b'a'), Just(b'd'), Just(b't'), Just(b' '), any::<u8>(),
        ], 0..400),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let pieces = pieces(&bytes, &cuts);
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
        let whole = read(&openai(), "application/json", &[&bytes]);
        prop_assert_eq!(read(&openai(), "application/json", &pieces), whole);
        let whole = read(&anthropic(), "text/event-stream", &[&bytes]);
        prop_assert_eq!(read(&anthropic(), "text/event-stream", &pieces), whole);
        // What a parser takes, this takes.
        if serde_json::from_slice::<Json>(&bytes).is_ok_and(|text| text.is_object() || text.is_array() || text.is_string()) {
            prop_assert!(found(&["a"], &pieces).1);
        }
    }

    #[test]
    fn an_event_is_read_like_a_body(text in texts(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let text = serde_json::json!({ "usage": text, "filler": "x" });
        let written = text.to_string();
        let usage = json("usage.a").or("usage.b.a");
        let body = read(&usage, "application/json", &[written.as_bytes()]);
        let event = format!("event: e\ndata: {written}\nid: 1\n\n");
        let pieces = pieces(event.as_bytes(), &cuts);
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
        prop_assert_eq!(read(&usage, "text/event-stream", &pieces), body);
    }
}

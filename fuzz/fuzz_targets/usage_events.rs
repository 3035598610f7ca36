//! The reader of usage in server-sent events: how a stream is cut does not matter, and events are those of the HTML standard.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zae_limiter_fuzz::{PATHS, Tree, bytes, pieces, written};
use zae_limiter_tower::fuzzing::{numbers, numbers_of_events};

// Each input is read as it is, and as the choices of a well-formed text.
fuzz_target!(|input: &[u8]| {
    check(input);
    check(written::events(input).as_bytes());
});

fn check(stream: &[u8]) {
    let found = numbers_of_events(&PATHS, &[stream]);
    assert_eq!(numbers_of_events(&PATHS, &pieces(stream)), found);
    assert_eq!(numbers_of_events(&PATHS, &bytes(stream)), found);
    let mut expected = vec![None; PATHS.len()];
    for event in events(stream) {
        let of_event = match serde_json::from_slice::<Tree>(&event) {
            Ok(tree) => tree.numbers(&PATHS),
            Err(_) => numbers(&PATHS, &[&event]).0,
        };
        for (expected, found) in expected.iter_mut().zip(of_event) {
            *expected = found.or(*expected);
        }
    }
    assert_eq!(found, expected);
}

/// The data of each event, of the one that has not ended, too.
fn events(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let (mut events, mut data) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let (line, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after.strip_prefix(b"\r\n").or(after.get(1..)).unwrap_or_default();
        if line.is_empty() {
            events.push(std::mem::take(&mut data));
        } else if let Some(value) = line.strip_prefix(b"data:") {
            data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            if end.is_some() {
                data.push(b'\n');
            }
        }
    }
    events.push(data);
    events
}

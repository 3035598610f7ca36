//! The reader of usage in JSON bodies: how a text is cut does not matter, and what a parser takes is read as the parser does.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zae_limiter_fuzz::{PATHS, Tree, bytes, pieces, written};
use zae_limiter_tower::fuzzing::numbers;

// Each input is read as it is, and as the choices of a well-formed text.
fuzz_target!(|input: &[u8]| {
    check(input);
    check(written::object(input).as_bytes());
});

fn check(text: &[u8]) {
    let whole = numbers(&PATHS, &[text]);
    assert_eq!(numbers(&PATHS, &pieces(text)), whole);
    assert_eq!(numbers(&PATHS, &bytes(text)), whole);
    let (found, is_whole) = whole;
    if let Ok(tree) = serde_json::from_slice::<Tree>(text) {
        // The end of a number or word at the outside is only known by what follows.
        assert!(is_whole || !matches!(tree, Tree::Object(_) | Tree::List(_) | Tree::Text(_)));
        assert_eq!(found, tree.numbers(&PATHS));
    }
}

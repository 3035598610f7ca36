//! What the targets share: texts that are cut into pieces, texts that are well formed, and a JSON text as another parser reads it.

mod tree;
pub mod written;

pub use tree::Tree;

/// Where numbers are looked for.
pub const PATHS: [&str; 6] = ["a", "a.a", "a.b", "b.ab", "b.a.b", "usage.total_tokens"];

/// A text in a few pieces. Where it is cut depends on its bytes, so that an input is the text and nothing else.
pub fn pieces(text: &[u8]) -> Vec<&[u8]> {
    let mut state = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut cuts = [0; 6];
    for cut in &mut cuts[1..] {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *cut = usize::try_from(state >> 33).unwrap_or(0) % (text.len() + 1);
    }
    cuts.sort_unstable();
    let ends = cuts[1..].iter().copied().chain([text.len()]);
    cuts.iter().zip(ends).map(|(from, to)| &text[*from..to]).collect()
}

/// A text byte by byte.
pub fn bytes(text: &[u8]) -> Vec<&[u8]> {
    text.chunks(1).collect()
}

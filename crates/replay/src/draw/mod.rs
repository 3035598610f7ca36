//! Charts of a report: lines for a terminal, and a page.

mod html;

pub use html::page;

/// The heights of a bar.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws numbers as bars beside each other, in one line of at most `width` characters. What is 0 is blank, and anything above it
/// is seen. If there are more numbers than characters, a bar is the largest of its numbers.
///
/// ```
/// use zae_limiter_replay::draw::bars;
///
/// assert_eq!(bars(&[0, 1, 4, 8], 8, 80), " ▁▄█");
/// assert_eq!(bars(&[0, 0, 8, 1], 8, 2), " █");
/// ```
pub fn bars(numbers: &[u64], most: u64, width: usize) -> String {
    if numbers.is_empty() || width == 0 {
        return String::new();
    }
    let each = numbers.len().div_ceil(width);
    let bar = |numbers: &[u64]| {
        let number = numbers.iter().copied().max().unwrap_or(0);
        if number == 0 {
            return ' ';
        }
        // Rounded up, so that the smallest number is seen.
        let height = (u128::from(number) * BARS.len() as u128).div_ceil(u128::from(most.max(1)));
        let index = (height as usize).clamp(1, BARS.len()) - 1;
        BARS.get(index).copied().unwrap_or(' ')
    };
    numbers.chunks(each).map(bar).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_are_as_wide_as_asked(numbers in proptest::collection::vec(any::<u64>(), 0..200), width in 0_usize..100) {
            let most = numbers.iter().copied().max().unwrap_or(0);
            let line = bars(&numbers, most, width);
            prop_assert!(line.chars().count() <= width);
            if width > 0 && most > 0 {
                prop_assert!(line.contains('█'));
            }
        }
    }
}

//! "Did you mean": the known name that is nearest to a wrong one.

/// The nearest of the known names, if one is near enough to be meant.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    // A name far longer than any known one cannot be near, and need not be compared.
    if name.len() > 64 {
        return None;
    }
    let name = name.to_lowercase();
    let near = known
        .iter()
        .map(|known| (distance(&name, &known.to_lowercase()), *known));
    near.min_by_key(|(distance, _)| *distance)
        .filter(|(distance, known)| *distance <= (known.len() / 3).max(1))
        .map(|(_, known)| known)
}

/// How many characters must be put in, taken out or replaced to get from one text to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let known = ["capacity", "refill_amount", "refill_period"];
        assert_eq!(nearest("capcity", &known), Some("capacity"));
        assert_eq!(nearest("Capacity", &known), Some("capacity"));
        assert_eq!(nearest("refill_periods", &known), Some("refill_period"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest(&"x".repeat(10_000), &known), None);
    }
}

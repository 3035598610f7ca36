//! Which values of a key a rule is for.

/// Values of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Exact(String),
    /// What begins with it. An empty one is for every value.
    Prefix(String),
}

impl Pattern {
    /// Reads values, each one itself, or with `*` at its end what begins with the rest.
    ///
    /// # Errors
    /// What would be right.
    pub(super) fn read<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, &'static str> {
        let part = |text: &str| match text.strip_suffix('*') {
            Some(prefix) if prefix.contains('*') => Err(ONLY_AT_THE_END),
            Some(prefix) => Ok(Part::Prefix(prefix.to_owned())),
            None if text.contains('*') => Err(ONLY_AT_THE_END),
            None => Ok(Part::Exact(text.to_owned())),
        };
        let parts: Vec<Part> = texts.into_iter().map(part).collect::<Result<_, _>>()?;
        if parts.is_empty() {
            return Err("must have at least one value");
        }
        Ok(Self(parts))
    }

    pub(super) fn fits(&self, value: &str) -> bool {
        self.0.iter().any(|part| match part {
            Part::Exact(exact) => exact == value,
            Part::Prefix(prefix) => value.starts_with(prefix),
        })
    }

    /// The values as they were written.
    pub(super) fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|part| match part {
            Part::Exact(exact) => exact.clone(),
            Part::Prefix(prefix) => format!("{prefix}*"),
        })
    }
}

const ONLY_AT_THE_END: &str = "can have '*' only at its end, for all values that begin with the rest";

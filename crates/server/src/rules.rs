//! Rules: what the descriptors of a request take.
//!
//! A descriptor is a list of keys with values. The first [`Rule`] of its domain that names exactly its keys, and whose patterns fit
//! their values, says which entity it is, which resource it uses, and what it takes. Files are read by [`Rules::from_yaml`], which
//! reports all problems of a file with their places.

mod pattern;
mod read;
mod shown;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use zae_limiter::{EntityId, InvalidInput, LimitName, ResourceName};
use zae_limiter_tower::Fields;

use crate::error::Error;
use crate::files;
use pattern::Pattern;
use template::Template;

/// The most tokens that a limit can hold.
pub(crate) const MAX_TOKENS: u64 = 1_000_000_000_000_000;

/// What the descriptors of requests take, by domain.
///
/// ```
/// use zae_limiter_server::Rules;
///
/// let rules = Rules::from_yaml(br#"
/// version: 1
/// domains:
///   gateway:
///     rules:
///       - match: {api_key: "*", model: "gpt-*"}
///         entity: "{api_key}"
///         resource: "{model}"
///         consume: {rpm: 1}
/// "#)?;
/// assert_eq!(rules.domains().collect::<Vec<_>>(), ["gateway"]);
///
/// let err = Rules::from_yaml(b"version: 1\ndomain: {}").unwrap_err();
/// assert_eq!(err.to_string(), "line 2, column 1: domain is unknown; did you mean 'domains'?");
/// # Ok::<(), zae_limiter_server::Problems>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    domains: BTreeMap<String, Domain>,
}

impl Rules {
    /// The JSON Schema of a file of rules (draft 2020-12), for editors.
    pub const SCHEMA: &'static str = include_str!("rules/schema.json");

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read, [`Error::Rules`] with every problem of it.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let bytes = files::read(path).map_err(|err| Error::File {
            option: "the rules",
            path: path.to_owned(),
            reason: err.to_string(),
        })?;
        Self::from_yaml(&bytes).map_err(|problems| Error::Rules {
            path: path.to_owned(),
            problems,
        })
    }

    /// No rules: every descriptor passes.
    pub fn none() -> Self {
        Self {
            domains: BTreeMap::new(),
        }
    }

    /// The names of the domains, in order.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.domains.keys().map(String::as_str)
    }

    /// The rules of a domain.
    pub(crate) fn domain(&self, name: &str) -> Option<(&str, &Domain)> {
        let found = self.domains.get_key_value(name);
        found.map(|(name, domain)| (name.as_str(), domain))
    }
}

/// The rules of a domain, in the order in which they are tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Domain {
    pub(crate) rules: Vec<Rule>,
    /// The header fields of answers.
    pub(crate) headers: Vec<Fields>,
}

/// What a descriptor that does not lead to limits means for its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// The request passes, as if the descriptor did not exist.
    Pass,
    /// The request is over the limit.
    Refuse,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Its name in logs and metrics.
    pub(crate) name: String,
    /// By key, each once.
    matches: BTreeMap<String, Pattern>,
    entity: Template,
    resource: Template,
    takes: BTreeMap<LimitName, Takes>,
    /// Whether refusals are only counted.
    pub(crate) is_shadow: bool,
    /// Whether a limit that the descriptor brings is enforced instead of the stored one.
    pub(crate) allows_override: bool,
    /// Whether limits go into debt instead of refusing.
    pub(crate) overdraws: bool,
    /// For values that make no names and no amounts.
    pub(crate) on_invalid: Fallback,
    /// For entities without limits.
    pub(crate) on_unconfigured: Fallback,
}

/// What is taken of a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Takes {
    amount: Amount,
    /// Whether it is multiplied by the hits of the descriptor.
    is_per_hit: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Amount {
    Fixed(u64),
    /// What the value of a key says.
    Of(Template),
}

/// The keys of a descriptor with their values.
pub(crate) type Values<'d> = BTreeMap<&'d str, &'d str>;

/// What a descriptor takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) entity: EntityId,
    pub(crate) resource: ResourceName,
    /// By limit; `None` for more than any limit holds.
    pub(crate) amounts: Vec<(LimitName, Option<u64>)>,
}

impl Domain {
    /// The first rule that is for these values.
    pub(crate) fn rule(&self, values: &Values<'_>) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.is_for(values))
    }
}

impl Rule {
    fn is_for(&self, values: &Values<'_>) -> bool {
        // Both are in order, and both have each key once.
        self.matches.len() == values.len()
            && self
                .matches
                .iter()
                .zip(values)
                .all(|((key, pattern), (its, value))| key == its && pattern.fits(value))
    }

    /// What these values take.
    ///
    /// # Errors
    /// The values make no name, or no amount.
    pub(crate) fn charge(&self, values: &Values<'_>, hits: u64) -> Result<Charge, InvalidInput> {
        let amounts = self.takes.iter().map(|(limit, takes)| {
            let each = match &takes.amount {
                Amount::Fixed(amount) => *amount,
                Amount::Of(template) => {
                    let text = template.fill(values);
                    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                    if !is_number {
                        let reason = "must be a whole number, 0 or more";
                        return Err(InvalidInput::new(format!("consume.{limit}"), text, reason));
                    }
                    text.parse().unwrap_or(u64::MAX)
                }
            };
            let hits = if takes.is_per_hit { hits } else { 1 };
            let amount = each.checked_mul(hits).filter(|amount| *amount <= MAX_TOKENS);
            Ok((limit.clone(), amount))
        });
        Ok(Charge {
            entity: EntityId::new(self.entity.fill(values))?,
            resource: ResourceName::new(self.resource.fill(values))?,
            amounts: amounts.collect::<Result<_, _>>()?,
        })
    }
}

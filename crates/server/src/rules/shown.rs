//! The rules in force, for operators.

use serde_json::{Map, Value as Json, json};
use zae_limiter_tower::Fields;

use super::{Amount, Domain, Fallback, Rule, Rules};

impl Rules {
    /// The rules with every default written out, in the form of the file.
    pub fn to_json(&self) -> Json {
        let domains = self.domains.iter();
        let domains: Map<_, _> = domains
            .map(|(name, domain)| (name.clone(), domain.to_json()))
            .collect();
        json!({ "version": 1, "domains": domains })
    }
}

impl Domain {
    fn to_json(&self) -> Json {
        let headers: Vec<&str> = self
            .headers
            .iter()
            .map(|fields| match fields {
                Fields::Ietf => "ietf",
                _ => "x-ratelimit",
            })
            .collect();
        let rules: Vec<Json> = self.rules.iter().map(Rule::to_json).collect();
        json!({ "headers": headers, "rules": rules })
    }
}

impl Rule {
    fn to_json(&self) -> Json {
        let matches = self.matches.iter();
        let matches: Map<_, _> = matches
            .map(|(key, pattern)| {
                let mut texts: Vec<String> = pattern.texts().collect();
                let shown = match texts.pop() {
                    Some(only) if texts.is_empty() => only.into(),
                    last => texts.into_iter().chain(last).collect(),
                };
                (key.clone(), shown)
            })
            .collect();
        let amounts = |is_per_hit: bool| -> Map<String, Json> {
            let takes = self
                .takes
                .iter()
                .filter(|(_, takes)| takes.is_per_hit == is_per_hit);
            takes
                .map(|(limit, takes)| {
                    let amount = match &takes.amount {
                        Amount::Fixed(amount) => json!(amount),
                        Amount::Of(template) => json!(template.to_string()),
                    };
                    (limit.to_string(), amount)
                })
                .collect()
        };
        json!({
            "name": self.name,
            "match": matches,
            "entity": self.entity.to_string(),
            "resource": self.resource.to_string(),
            "consume": amounts(true),
            "consume_once": amounts(false),
            "override": self.allows_override,
            "overdraw": self.overdraws,
            "shadow": self.is_shadow,
            "on_invalid": self.on_invalid.as_str(),
            "on_unconfigured": self.on_unconfigured.as_str(),
        })
    }
}

impl Fallback {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Refuse => "refuse",
        }
    }
}

//! Limits and entities: two projects with two keys each.

use zae_limiter::{ALL_RESOURCES, Error, Limit, NewEntity, Repository};
use zae_limiter_tower::key::hashed;

/// The models that are served, which are the resources of limits.
pub const MODELS: [&str; 2] = ["gpt-4o", "gpt-4o-mini"];

/// The keys, with their projects. A service makes them at random, and keeps their hashes alone.
pub const KEYS: [(&str, &str); 4] = [
    ("sk-search-1", "search"),
    ("sk-search-2", "search"),
    ("sk-support-1", "support"),
    ("sk-support-2", "support"),
];

/// What a key may use of a model, and what the keys of a project may use together.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// Requests a minute of a key.
    pub requests: u64,
    /// Tokens a minute of a key.
    pub tokens: u64,
    /// Tokens a minute of a project.
    pub project_tokens: u64,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            requests: 60,
            tokens: 20_000,
            project_tokens: 30_000,
        }
    }
}

/// Stores the limits. What is there already stays as it is.
///
/// # Errors
/// Those of the table.
pub async fn store(repo: &Repository, allowance: Allowance) -> Result<(), Error> {
    let admin = repo.admin();
    for (key, project) in KEYS {
        for new in [
            NewEntity::new(project),
            NewEntity::new(hashed(key))
                .name(key)
                .parent(project)
                .cascade(true),
        ] {
            match admin.create_entity(new).await {
                Ok(_) | Err(Error::EntityExists(_)) => {}
                Err(err) => return Err(err),
            }
        }
        // Limits are those of known keys: there are no defaults, so that others are refused.
        let of_key = [
            Limit::per_minute("rpm", allowance.requests),
            Limit::per_minute("tpm", allowance.tokens),
        ];
        admin
            .set_entity_limits(hashed(key), ALL_RESOURCES, of_key)
            .await?;
        let of_project = [Limit::per_minute("tpm", allowance.project_tokens)];
        admin
            .set_entity_limits(project, ALL_RESOURCES, of_project)
            .await?;
    }
    Ok(())
}

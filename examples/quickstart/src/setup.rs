//! Stores limits, a project and its API keys. Does not change what an earlier run stored.

use zae_limiter::{ALL_RESOURCES, Error, Limit, NewEntity, Repository};

/// The model that all calls use, which is the limited resource. A resource can have any name.
pub(crate) const MODEL: &str = "gpt-4";

/// The parent entity of all keys.
pub(crate) const PROJECT: &str = "project";

/// The limits that every call consumes: requests and tokens a minute.
pub(crate) const LIMITS: [&str; 2] = ["rpm", "tpm"];

/// The API key of a rank; the first is the busiest.
pub(crate) fn key(rank: usize) -> String {
    format!("key-{}", rank + 1)
}

/// A stored level of limits.
#[derive(Debug)]
pub(crate) struct Level {
    pub(crate) name: &'static str,
    pub(crate) scope: String,
    pub(crate) limits: Vec<Limit>,
}

/// The stored limits and entities.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) levels: Vec<Level>,
    /// How many of the keys existed before.
    pub(crate) keys_found: usize,
}

/// Stores limits and entities that are missing.
pub(crate) async fn prepare(repo: &Repository, keys: usize) -> Result<Setup, Error> {
    // For every entity and resource without limits of a more specific level.
    if repo.admin().system_defaults().await?.0.is_empty() {
        let limits = [Limit::per_minute("rpm", 20), Limit::per_minute("tpm", 20_000)];
        repo.admin().set_system_defaults(limits, None).await?;
    }
    // For every entity on this model. The burst lets an idle key take more than a minute's tokens at once.
    if repo.admin().resource_defaults(MODEL).await?.is_empty() {
        let limits = [
            Limit::per_minute("rpm", 30),
            Limit::per_minute("tpm", 50_000).burst(60_000),
        ];
        repo.admin().set_resource_defaults(MODEL, limits).await?;
    }
    // For the project, from which every call of its keys takes tokens too, and for its main key.
    let for_project = [
        Limit::per_minute("rpm", 400),
        Limit::per_minute("tpm", 400_000).burst(500_000),
    ];
    let for_main_key = [
        Limit::per_minute("rpm", 120),
        Limit::per_minute("tpm", 150_000).burst(180_000),
    ];
    for (entity, limits) in [(PROJECT.to_owned(), for_project), (key(0), for_main_key)] {
        if repo
            .admin()
            .entity_limits(&entity, ALL_RESOURCES)
            .await?
            .is_empty()
        {
            repo.admin()
                .set_entity_limits(&entity, ALL_RESOURCES, limits)
                .await?;
        }
    }
    create_unless_there(repo, NewEntity::new(PROJECT).name("Demo project")).await?;
    let mut keys_found = 0;
    for rank in 0..keys {
        let new = NewEntity::new(key(rank)).parent(PROJECT).cascade(true);
        if !create_unless_there(repo, new).await? {
            keys_found += 1;
        }
    }
    Ok(Setup {
        levels: levels(repo).await?,
        keys_found,
    })
}

/// Returns whether the entity is new.
async fn create_unless_there(repo: &Repository, new: NewEntity) -> Result<bool, Error> {
    match repo.admin().create_entity(new).await {
        Ok(_) => Ok(true),
        Err(Error::EntityExists(_)) => Ok(false),
        Err(err) => Err(err),
    }
}

async fn levels(repo: &Repository) -> Result<Vec<Level>, Error> {
    let level = |name, scope: &str, limits| Level {
        name,
        scope: scope.to_owned(),
        limits,
    };
    Ok(vec![
        level("system", "all", repo.admin().system_defaults().await?.0),
        level("resource", MODEL, repo.admin().resource_defaults(MODEL).await?),
        level(
            "entity",
            PROJECT,
            repo.admin().entity_limits(PROJECT, ALL_RESOURCES).await?,
        ),
        level(
            "entity",
            &key(0),
            repo.admin().entity_limits(&key(0), ALL_RESOURCES).await?,
        ),
    ])
}

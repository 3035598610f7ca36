//! Calls as JSON lines.
//!
//! A line is `{"id": 1, "call": "acquire", ...arguments}`; its answer is `{"id": 1, "ok": ...}` or
//! `{"id": 1, "error": {"kind": "RateLimitExceeded", "message": "...", ...}}`. Calls run at once, so answers may
//! come in another order. `open` makes a client of its own, with its own caches and clock, and answers its
//! number; the other calls name it as `client`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::{Mutex, mpsc};
use zae_limiter::clock::ManualClock;
use zae_limiter::table::{Connection, Timeouts, definition};
use zae_limiter::{
    Access, BucketReset, EntityId, Error, Lease, LimitStatus, NewEntity, OnUnavailable, OperationResult,
    RateLimiter, Refusal, Repository, RepositoryBuilder, TopUp, UsageQuery,
};
use zae_limiter_core::EpochMillis;

use crate::limits::show;

/// The suite compares outcomes, not speed, and a machine under load can stand still for longer than a service would
/// wait. A write that is not answered in time counts as lost, and its acquire fails.
const PATIENT: Timeouts = Timeouts {
    connect: Duration::from_mins(1),
    attempt: Duration::from_mins(1),
    operation: Duration::from_mins(1),
};

/// One client of the library.
struct Client {
    repo: Repository,
    limiter: RateLimiter,
    clock: Option<ManualClock>,
    draw: Arc<AtomicU32>,
}

/// The objects that calls refer to by number.
#[derive(Default)]
struct State {
    numbers: AtomicU64,
    clients: Mutex<HashMap<u64, Arc<Client>>>,
    leases: Mutex<HashMap<u64, Arc<Mutex<Lease>>>>,
}

/// Why a call failed.
enum Failure {
    /// The library says no.
    Library(Error),
    /// The call is not one.
    Call(String),
}

impl From<Error> for Failure {
    fn from(err: Error) -> Self {
        Self::Library(err)
    }
}

impl From<String> for Failure {
    fn from(err: String) -> Self {
        Self::Call(err)
    }
}

type Answer = Result<Json, Failure>;

/// Answers calls until standard input ends.
pub(crate) async fn answer() -> Result<(), Box<dyn std::error::Error>> {
    let state = Arc::new(State::default());
    let (answers, mut ready) = mpsc::unbounded_channel::<Json>();
    let writer = tokio::spawn(async move {
        let mut out = tokio::io::stdout();
        while let Some(answer) = ready.recv().await {
            out.write_all(format!("{answer}\n").as_bytes()).await?;
            out.flush().await?;
        }
        Ok::<_, std::io::Error>(())
    });
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let call: Json = serde_json::from_str(&line)?;
        let (state, answers) = (Arc::clone(&state), answers.clone());
        tokio::spawn(async move {
            let id = call["id"].clone();
            let answer = match state.call(&call).await {
                Ok(value) => json!({ "id": id, "ok": value }),
                Err(Failure::Library(err)) => json!({ "id": id, "error": describe(&err) }),
                Err(Failure::Call(text)) => {
                    json!({ "id": id, "error": { "kind": "BadCall", "message": text } })
                }
            };
            // The receiver is gone once the process ends.
            let _ = answers.send(answer);
        });
    }
    for client in state.clients.lock().await.values() {
        client.repo.drain().await;
    }
    drop(answers);
    writer.await??;
    Ok(())
}

fn describe(err: &Error) -> Json {
    let mut value = json!({ "kind": kind(err), "message": err.to_string() });
    if let Some(refusal) = err.refusal() {
        value["status"] = json!(refusal.status());
        value["body"] = refusal.into_body();
    }
    match err {
        Error::InvalidInput(err) => value["field"] = json!(err.field()),
        Error::NamespaceState { state, .. } => value["state"] = json!(state),
        _ => {}
    }
    value
}

fn kind(err: &Error) -> &'static str {
    match err {
        Error::RateLimitExceeded(_) => "RateLimitExceeded",
        Error::Unavailable(_) => "Unavailable",
        Error::InvalidInput(_) => "InvalidInput",
        Error::Disabled { .. } => "Disabled",
        Error::NotConfigured { .. } => "NotConfigured",
        Error::Corrupt(_) => "Corrupt",
        Error::Unsupported(_) => "Unsupported",
        Error::InfrastructureNotFound { .. } => "InfrastructureNotFound",
        Error::VersionMismatch(_) => "VersionMismatch",
        Error::NamespaceNotFound(_) => "NamespaceNotFound",
        Error::NamespaceIdNotFound(_) => "NamespaceIdNotFound",
        Error::NamespaceState { .. } => "NamespaceState",
        Error::EntityExists(_) => "EntityExists",
        Error::FanoutIncomplete { .. } => "FanoutIncomplete",
        _ => "Other",
    }
}

/// A call's arguments.
#[derive(Clone, Copy)]
struct Arguments<'a>(&'a Json);

/// Amounts by limit.
type Amounts<'a> = Vec<(&'a str, u64)>;

impl<'a> Arguments<'a> {
    fn text(self, name: &str) -> Result<&'a str, String> {
        self.text_opt(name)
            .ok_or_else(|| format!("'{name}' must be a text"))
    }

    fn text_opt(self, name: &str) -> Option<&'a str> {
        self.0[name].as_str()
    }

    fn number(self, name: &str) -> Result<u64, String> {
        self.0[name]
            .as_u64()
            .ok_or_else(|| format!("'{name}' must be a number"))
    }

    /// Numbers by limit: those that `read` finds in their values.
    fn by_limit<T>(self, name: &str, read: fn(&Json) -> Option<T>) -> Result<Vec<(&'a str, T)>, String> {
        let amounts = self.0[name]
            .as_object()
            .ok_or_else(|| format!("'{name}' must be an object"))?;
        let amount = |(limit, tokens): (&'a String, &Json)| {
            let tokens = read(tokens).ok_or_else(|| format!("'{name}.{limit}' must be a number"))?;
            Ok((limit.as_str(), tokens))
        };
        amounts.iter().map(amount).collect()
    }

    fn amounts(self, name: &str) -> Result<Amounts<'a>, String> {
        self.by_limit(name, Json::as_u64)
    }

    /// Amounts by limit, by resource, if there are any.
    fn amounts_by_resource(self, name: &str) -> Result<Vec<(&'a str, Amounts<'a>)>, String> {
        let Some(parts) = self.0.get(name) else {
            return Ok(Vec::new());
        };
        let resources = parts
            .as_object()
            .ok_or_else(|| format!("'{name}' must be an object"))?;
        let amounts = |resource: &'a String| Ok((resource.as_str(), Arguments(parts).amounts(resource)?));
        resources.keys().map(amounts).collect()
    }

    /// Limits, see [`crate::limits::described`].
    fn limits(self) -> Result<Vec<crate::limits::Described>, String> {
        crate::limits::described(&self.0["limits"])
    }

    fn policy(self, name: &str) -> Result<Option<OnUnavailable>, String> {
        match self.text_opt(name) {
            None => Ok(None),
            Some("allow") => Ok(Some(OnUnavailable::Allow)),
            Some("block") => Ok(Some(OnUnavailable::Block)),
            Some(other) => Err(format!("'{name}' is '{other}'")),
        }
    }
}

impl State {
    fn next(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    async fn client(&self, arguments: Arguments<'_>) -> Result<Arc<Client>, String> {
        let number = arguments.number("client")?;
        let clients = self.clients.lock().await;
        clients
            .get(&number)
            .cloned()
            .ok_or_else(|| format!("there is no client {number}"))
    }

    async fn lease(&self, arguments: Arguments<'_>) -> Result<Arc<Mutex<Lease>>, String> {
        let number = arguments.number("lease")?;
        let leases = self.leases.lock().await;
        leases
            .get(&number)
            .cloned()
            .ok_or_else(|| format!("there is no lease {number}"))
    }

    /// Takes a lease out, to finish it.
    async fn take_lease(&self, arguments: Arguments<'_>) -> Result<Lease, String> {
        let number = arguments.number("lease")?;
        let lease = self.leases.lock().await.remove(&number);
        let lease = lease.ok_or_else(|| format!("there is no lease {number}"))?;
        Arc::into_inner(lease)
            .map(Mutex::into_inner)
            .ok_or_else(|| format!("lease {number} is in use"))
    }

    async fn call(&self, call: &Json) -> Answer {
        let arguments = Arguments(call);
        match arguments.text("call")? {
            "create_table" => create_table(arguments).await,
            "open" => self.open(arguments).await,
            "check_manifest" => Ok(crate::limits::check(call)),
            "manifest_schema" => Ok(crate::limits::schema()),
            "refusal_schema" => Ok(serde_json::from_str(Refusal::SCHEMA).unwrap_or_default()),
            "limits" => {
                let client = self.client(arguments).await?;
                let served = crate::limits::serve(&client.repo, call).await;
                served.map_err(|err| match err {
                    Ok(err) => Failure::Library(err),
                    Err(text) => Failure::Call(text),
                })
            }
            "acquire" => self.acquire(arguments).await,
            "consume" | "adjust" | "release" => self.change_lease(arguments).await,
            "commit" => {
                self.take_lease(arguments).await?.commit().await?;
                Ok(Json::Null)
            }
            "rollback" => {
                self.take_lease(arguments).await?.rollback().await?;
                Ok(Json::Null)
            }
            name => {
                let client = self.client(arguments).await?;
                match client.look(name, arguments).await? {
                    Some(answer) => Ok(answer),
                    None => match client.flag(name, arguments).await? {
                        Some(answer) => Ok(answer),
                        None => client.change(name, arguments).await,
                    },
                }
            }
        }
    }

    async fn open(&self, arguments: Arguments<'_>) -> Answer {
        let mut builder = Repository::builder()
            .stack(arguments.text("stack")?)
            .namespace(arguments.text_opt("namespace").unwrap_or("default"))
            .endpoint_url(arguments.text("endpoint")?)
            .region("us-east-1")
            .timeouts(PATIENT)
            .acquire_timeout(PATIENT.operation);
        let millis = |name: &str| arguments.number(name).ok().map(Duration::from_millis);
        if let Some(ttl) = millis("config_cache_ms") {
            builder = builder.config_cache_ttl(ttl);
        }
        if let Some(ttl) = millis("reject_cache_ms") {
            builder = builder.reject_cache_ttl(ttl);
        }
        if let Some(principal) = arguments.text_opt("principal") {
            builder = builder.principal(principal);
        }
        let clock = call_clock(arguments);
        if let Some(clock) = &clock {
            builder = builder.clock(clock.clone());
        }
        let draw = Arc::new(AtomicU32::new(0));
        if arguments.0["draws"] == true {
            let chosen = Arc::clone(&draw);
            builder = builder.draws(move |_| chosen.load(Ordering::Relaxed));
        }
        let repo = if arguments.0["connect"] == true {
            RepositoryBuilder::connect(builder).await?
        } else {
            builder.open().await?
        };
        let namespace = repo.namespace_id().to_string();
        let client = Client {
            limiter: RateLimiter::new(repo.clone()),
            repo,
            clock,
            draw,
        };
        let number = self.next();
        self.clients.lock().await.insert(number, Arc::new(client));
        Ok(json!({ "client": number, "namespace_id": namespace }))
    }

    async fn acquire(&self, arguments: Arguments<'_>) -> Answer {
        let client = self.client(arguments).await?;
        let mut request = client
            .limiter
            .acquire(arguments.text("entity")?, arguments.text("resource")?);
        for (limit, tokens) in arguments.amounts("consume")? {
            request = request.consume(limit, tokens);
        }
        for (resource, amounts) in arguments.amounts_by_resource("also")? {
            request = request.also(resource, amounts);
        }
        if arguments.0.get("limits").is_some() {
            request = request.limits(arguments.limits()?);
        }
        if let Some(policy) = arguments.policy("on_unavailable")? {
            request = request.on_unavailable(policy);
        }
        let lease = request.await?;
        let number = self.next();
        self.leases
            .lock()
            .await
            .insert(number, Arc::new(Mutex::new(lease)));
        Ok(json!({ "lease": number }))
    }

    async fn change_lease(&self, arguments: Arguments<'_>) -> Answer {
        let lease = self.lease(arguments).await?;
        let mut lease = lease.lock().await;
        let call = arguments.text("call")?;
        let resource = match arguments.0.get("resource").and_then(Json::as_str) {
            Some(resource) => resource.to_owned(),
            None => lease.resource().to_string(),
        };
        let mut part = lease.on(resource)?;
        if call == "adjust" {
            for (limit, delta) in arguments.by_limit("amounts", Json::as_i64)? {
                part.adjust(limit, delta)?;
            }
            return Ok(Json::Null);
        }
        for (limit, tokens) in arguments.amounts("amounts")? {
            match call {
                "consume" => part.consume(limit, tokens).await?,
                _ => part.release(limit, tokens)?,
            }
        }
        Ok(Json::Null)
    }
}

/// Creates a table as a stack's.
async fn create_table(arguments: Arguments<'_>) -> Answer {
    let connection = Connection {
        endpoint_url: Some(arguments.text("endpoint")?.to_owned()),
        region: Some("us-east-1".to_owned()),
        ..Connection::default()
    };
    let client = connection.client().await;
    definition::create_table(&client, arguments.text("stack")?)
        .await
        .map_err(|err| err.to_string())?;
    Ok(Json::Null)
}

fn snapshot(snapshot: &zae_limiter::UsageSnapshot) -> Json {
    let counters = snapshot.counters.iter();
    let counters: Map<_, _> = counters
        .map(|(name, tokens)| (name.clone(), json!(i64::try_from(*tokens).ok())))
        .collect();
    json!([
        snapshot.resource,
        snapshot.window,
        EpochMillis::from(snapshot.window_start).to_text(),
        counters
    ])
}

/// The effect of a reset or a top-up: shards, and tokens by limit.
fn operated(done: &OperationResult) -> Json {
    let amounts = done.amounts.iter();
    let amounts: Map<_, _> = amounts
        .map(|(limit, gained)| (limit.to_string(), json!(gained)))
        .collect();
    json!([done.shards, amounts])
}

/// The clock that a client was opened with: one that stands still at `now_ms`, or the machine's.
fn call_clock(arguments: Arguments<'_>) -> Option<ManualClock> {
    let now = arguments.0["now_ms"].as_i64()?;
    Some(ManualClock::at(EpochMillis(now).into()))
}

impl Client {
    /// Calls that look at tokens; `None` for others.
    async fn look_at_tokens(&self, name: &str, arguments: Arguments<'_>) -> Result<Option<Json>, Failure> {
        Ok(Some(match name {
            "available" => {
                let (entity, resource) = (arguments.text("entity")?, arguments.text("resource")?);
                json!(self.limiter.available(entity, resource).await?)
            }
            "time_until_available" => {
                let (entity, resource) = (arguments.text("entity")?, arguments.text("resource")?);
                let needed = arguments.amounts("consume")?;
                let wait = self
                    .limiter
                    .time_until_available(entity, resource, needed)
                    .await?;
                json!(wait.map(|wait| wait.as_secs_f64()))
            }
            "availability" => {
                let (entity, resource) = (arguments.text("entity")?, arguments.text("resource")?);
                let mut check = self.limiter.check(entity, resource);
                for (limit, tokens) in arguments.amounts("consume")? {
                    check = check.needed(limit, tokens);
                }
                let found = check.await?;
                json!({
                    "available": found.available(),
                    "needed": found.needed(),
                    "deficit": found.deficit(),
                    "exceeded": found.exceeded().map(|status| status.limit_name.as_str()).collect::<Vec<_>>(),
                    "allowed": found.is_admitted(),
                    "bypassed": found.is_bypassed(),
                    "disabled": found.disabled.as_ref().map(|by| &by.level),
                    "retry_after": found.retry_after().map(|wait| wait.as_secs_f64()),
                })
            }
            "check" => {
                let (entity, resource) = (arguments.text("entity")?, arguments.text("resource")?);
                let mut check = self.limiter.check(entity, resource);
                for (limit, tokens) in arguments.amounts("consume")? {
                    check = check.needed(limit, tokens);
                }
                let statuses = check.await?.statuses;
                statuses.iter().map(LimitStatus::to_json).collect()
            }
            _ => return Ok(None),
        }))
    }

    /// Calls that only read; `None` for others.
    async fn look(&self, name: &str, arguments: Arguments<'_>) -> Result<Option<Json>, Failure> {
        if let Some(found) = self.look_at_tokens(name, arguments).await? {
            return Ok(Some(found));
        }
        let (repo, admin) = (&self.repo, self.repo.admin());
        Ok(Some(match name {
            "entity" => {
                let Some(entity) = admin.entity(arguments.text("entity")?).await? else {
                    return Ok(Some(Json::Null));
                };
                json!({
                    "id": entity.id.as_str(),
                    "name": entity.name,
                    "parent": entity.parent.map(|parent| parent.to_string()),
                    "cascade": entity.cascade,
                    "metadata": entity.metadata.iter().map(|(k, v)| (k.clone(), json!(v.as_text()))).collect::<Map<_, _>>(),
                    "created_at": entity.created_at.map(|time| EpochMillis::from(time).to_text()),
                })
            }
            "children" => {
                let children = admin.children(arguments.text("entity")?).await?;
                children.iter().map(|child| json!(child.id.as_str())).collect()
            }
            "entity_limits" => {
                let (entity, resource) = (arguments.text("entity")?, arguments.text("resource")?);
                show(&admin.entity_limits(entity, resource).await?)
            }
            "resource_defaults" => show(&admin.resource_defaults(arguments.text("resource")?).await?),
            "system_defaults" => {
                let (stored, policy) = admin.system_defaults().await?;
                let policy = policy.map(|policy| format!("{policy:?}").to_lowercase());
                json!({ "limits": show(&stored), "on_unavailable": policy })
            }
            "effective_limits" => {
                let (entity, resource) = (arguments.text("entity")?, arguments.text("resource")?);
                show(&admin.effective_limits(entity, resource).await?)
            }
            "resources_with_defaults" => json!(admin.resources_with_defaults().await?),
            "resources_with_entity_limits" => json!(admin.resources_with_entity_limits().await?),
            "entities_with_limits" => {
                let ids = admin
                    .entities_with_limits(arguments.text("resource")?)?
                    .all()
                    .await?;
                ids.iter().map(|id| json!(id.as_str())).collect()
            }
            "audit_events" => {
                let events = admin
                    .audit_events(arguments.text("subject")?, None)?
                    .all()
                    .await?;
                events
                    .iter()
                    .map(|event| json!([event.action, event.principal, event.resource]))
                    .collect()
            }
            "usage" => {
                let mut query = UsageQuery::entity(arguments.text("entity")?);
                if let Some(resource) = arguments.text_opt("resource") {
                    query = query.resource(resource);
                }
                let snapshots = admin.usage_snapshots(query)?.all().await?;
                snapshots.iter().map(snapshot).collect()
            }
            "namespaces" => {
                let records = repo.stack_handle().namespaces().await?;
                records
                    .iter()
                    .map(|record| json!([record.name, record.id.as_str()]))
                    .collect()
            }
            "orphans" => {
                let records = repo.stack_handle().orphans().await?;
                records
                    .iter()
                    .map(|record| json!([record.name, record.id.as_str()]))
                    .collect()
            }
            _ => return Ok(None),
        }))
    }

    /// Calls that say who is refused or let through, and whose parent is debited; resets and top-ups.
    async fn flag(&self, name: &str, arguments: Arguments<'_>) -> Result<Option<Json>, Failure> {
        let repo = &self.repo;
        Ok(Some(match name {
            "set_access" => {
                let access = match arguments.text_opt("access") {
                    Some("disable") => Some(Access::Disabled),
                    Some("enable") => Some(Access::Enabled),
                    Some("bypass") => Some(Access::Bypass),
                    _ => None,
                };
                let resource = arguments.text("resource")?;
                json!(match arguments.text_opt("entity") {
                    Some(entity) => repo.admin().set_entity_access(entity, resource, access).await?,
                    None => repo.admin().set_resource_access(resource, access).await?,
                })
            }
            "set_cascade" => {
                let cascade = arguments.0["cascade"].as_bool();
                let resource = arguments.text("resource")?;
                json!(match arguments.text_opt("entity") {
                    Some(entity) => repo.admin().set_entity_cascade(entity, resource, cascade).await?,
                    None => repo.admin().set_resource_cascade(resource, cascade).await?,
                })
            }
            "set_parent" => {
                let parent = arguments.text_opt("parent").map(EntityId::new).transpose();
                let parent = parent.map_err(|err| err.to_string())?;
                json!(repo.admin().set_parent(arguments.text("entity")?, parent).await?)
            }
            "reset_bucket" => {
                let mut reset = BucketReset::new(arguments.text("entity")?, arguments.text("resource")?);
                for limit in arguments.0["limits"].as_array().into_iter().flatten() {
                    reset = reset.limit(limit.as_str().unwrap_or_default());
                }
                if let Some(key) = arguments.text_opt("key") {
                    reset = reset.idempotency_key(key);
                }
                operated(&repo.admin().reset_bucket(reset).await?)
            }
            "top_up" => {
                let mut order = TopUp::new(arguments.text("entity")?, arguments.text("resource")?);
                for (limit, tokens) in arguments.amounts("amounts")? {
                    order = order.add(limit, tokens);
                }
                if let Some(key) = arguments.text_opt("key") {
                    order = order.idempotency_key(key);
                }
                operated(&repo.admin().top_up(order).await?)
            }
            _ => return Ok(None),
        }))
    }

    fn set_clock(&self, arguments: Arguments<'_>) -> Result<Json, String> {
        let clock = self.clock.as_ref();
        let clock = clock.ok_or_else(|| "opened without 'now_ms'".to_owned())?;
        let now = arguments.0["now_ms"].as_i64();
        let now = now.ok_or_else(|| "'now_ms' must be a number".to_owned())?;
        clock.set(EpochMillis(now).into());
        Ok(Json::Null)
    }

    /// Which of the shards to choose from the client takes; it was opened with `draws`.
    fn set_draw(&self, arguments: Arguments<'_>) -> Result<Json, String> {
        let draw = u32::try_from(arguments.number("draw")?);
        let draw = draw.map_err(|_| "'draw' is too large".to_owned())?;
        self.draw.store(draw, Ordering::Relaxed);
        Ok(Json::Null)
    }

    /// Calls that change something, in the table or here.
    async fn change(&self, name: &str, arguments: Arguments<'_>) -> Answer {
        let repo = &self.repo;
        Ok(match name {
            "set_clock" => self.set_clock(arguments)?,
            "set_draw" => self.set_draw(arguments)?,
            "invalidate" => {
                repo.invalidate_caches();
                Json::Null
            }
            "drain" => {
                repo.drain().await;
                Json::Null
            }
            "create_entity" => {
                let mut new = NewEntity::new(arguments.text("entity")?);
                if let Some(name) = arguments.text_opt("name") {
                    new = new.name(name);
                }
                if let Some(parent) = arguments.text_opt("parent") {
                    new = new.parent(parent).cascade(arguments.0["cascade"] == true);
                }
                for (key, value) in arguments.0["metadata"].as_object().into_iter().flatten() {
                    new = new.metadata(key, value.as_str().unwrap_or_default());
                }
                repo.admin().create_entity(new).await?;
                Json::Null
            }
            "delete_entity" => json!(repo.admin().delete_entity(arguments.text("entity")?).await?),
            "set_entity_limits" => {
                let (entity, resource) = (arguments.text("entity")?, arguments.text("resource")?);
                repo.admin()
                    .set_entity_limits(entity, resource, arguments.limits()?)
                    .await?;
                Json::Null
            }
            "delete_entity_limits" => {
                let (entity, resource) = (arguments.text("entity")?, arguments.text("resource")?);
                json!(repo.admin().delete_entity_limits(entity, resource).await?)
            }
            "set_resource_defaults" => {
                let resource = arguments.text("resource")?;
                repo.admin()
                    .set_resource_defaults(resource, arguments.limits()?)
                    .await?;
                Json::Null
            }
            "delete_resource_defaults" => {
                json!(
                    repo.admin()
                        .delete_resource_defaults(arguments.text("resource")?)
                        .await?
                )
            }
            "set_system_defaults" => {
                let policy = arguments.policy("on_unavailable")?;
                repo.admin()
                    .set_system_defaults(arguments.limits()?, policy)
                    .await?;
                Json::Null
            }
            "delete_system_defaults" => json!(repo.admin().delete_system_defaults().await?),
            "delete_stack" => {
                repo.delete_stack().await?;
                Json::Null
            }
            "register_namespace" => {
                let id = repo.register_namespace(arguments.text("namespace")?).await?;
                json!(id.as_str())
            }
            "delete_namespace" => {
                json!(
                    repo.stack_handle()
                        .delete_namespace(arguments.text("namespace")?)
                        .await?
                )
            }
            "recover_namespace" => {
                json!(
                    repo.stack_handle()
                        .recover_namespace(arguments.text("namespace_id")?)
                        .await?
                )
            }
            "purge_namespace" => {
                let id = arguments.text("namespace_id")?;
                json!(repo.stack_handle().purge_namespace(id, &|_| ()).await?)
            }
            other => return Err(Failure::Call(format!("there is no call '{other}'"))),
        })
    }
}

//! A driver without time or failures of its own: every call is answered at once, in order.

use std::collections::HashMap;
use std::sync::Arc;

use smol_str::SmolStr;
use zae_limiter_core::acquire::{
    Acquire, AcquireError, Ask, Call, Debit, Decision, Found, Grant, Hint, Reply, Request, Settings,
};
use zae_limiter_core::bucket::Bucket;
use zae_limiter_core::config::{Resolved, limit_attributes};
use zae_limiter_core::credit::{Credit, CreditEnd};
use zae_limiter_core::entity::{MetaRecord, Metadata};
use zae_limiter_core::memory::MemoryTable;
use zae_limiter_core::random::Random;
use zae_limiter_core::resolve::resolve_items;
use zae_limiter_core::schema::{BucketId, entity_config_key, key_item, resource_config_key};
use zae_limiter_core::table::{Answer, Item, Key, Op, TableError, Value};
use zae_limiter_core::{
    Entity, EntityId, EpochMillis, Limit, LimitName, Millitokens, NamespaceId, RateLimitExceeded,
    ResourceName, ResourceScope,
};

pub(crate) const NOW: i64 = 1_795_290_000_000;

/// `SplitMix64`.
pub(crate) struct Dice(pub(crate) u64);

impl Random for Dice {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Does something to the table, or to an answer, around one operation.
type Meddler = Box<dyn FnMut(usize, &Op, &mut MemoryTable) -> Option<Result<Answer, TableError>>>;

/// A table, a process's memory, and a count of what was asked of them.
pub(crate) struct Desk {
    pub(crate) table: MemoryTable,
    pub(crate) namespace: NamespaceId,
    pub(crate) resource: ResourceName,
    pub(crate) now: i64,
    pub(crate) dice: Dice,
    /// Whether configuration and images are remembered between acquires.
    pub(crate) remembers: bool,
    pub(crate) limits: Option<Vec<Limit>>,
    pub(crate) ttl_multiplier: u32,
    configs: HashMap<(EntityId, ResourceName), Arc<Resolved>>,
    pub(crate) images: HashMap<(BucketId, u32), Arc<Bucket>>,
    counts: HashMap<BucketId, u32>,
    /// Operations since the last [`Desk::acquire`] began.
    pub(crate) ops: Vec<Op>,
    /// Configurations read since then.
    pub(crate) configs_read: usize,
    /// Called before each operation, with its number; may answer in the table's stead.
    pub(crate) meddle: Option<Meddler>,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self {
            table: MemoryTable::new(),
            namespace: NamespaceId::new("dSkXlbmmfyU").unwrap(),
            resource: ResourceName::new("gpt-4").unwrap(),
            now: NOW,
            dice: Dice(7),
            remembers: false,
            limits: None,
            ttl_multiplier: 7,
            configs: HashMap::new(),
            images: HashMap::new(),
            counts: HashMap::new(),
            ops: Vec::new(),
            configs_read: 0,
            meddle: None,
        }
    }

    /// With these limits as the resource's.
    pub(crate) fn with(limits: &[Limit]) -> Self {
        let mut desk = Self::new();
        desk.configure_resource(limits);
        desk
    }

    pub(crate) fn configure_resource(&mut self, limits: &[Limit]) {
        let key = resource_config_key(&self.namespace, &self.resource);
        self.configure(&key, limits);
    }

    pub(crate) fn configure_entity(&mut self, entity: &str, limits: &[Limit]) {
        let key = self.entity_config_key(entity);
        self.configure(&key, limits);
    }

    pub(crate) fn entity_config_key(&self, entity: &str) -> Key {
        let scope = ResourceScope::One(self.resource.clone());
        entity_config_key(&self.namespace, &EntityId::new(entity).unwrap(), &scope)
    }

    fn configure(&mut self, key: &Key, limits: &[Limit]) {
        let mut item = key_item(key);
        item.extend(
            limit_attributes(limits)
                .into_iter()
                .map(|(name, value)| (name.to_string(), value)),
        );
        self.table.insert(item).unwrap();
        self.forget();
    }

    /// Creates an entity's META.
    pub(crate) fn entity(&mut self, id: &str, parent: Option<&str>, cascade: bool) {
        self.entity_of(id, parent, cascade, (7, "80729c5437a39750"));
    }

    /// Creates an entity's META of this generation and incarnation, in place of an earlier one.
    pub(crate) fn entity_of(
        &mut self,
        id: &str,
        parent: Option<&str>,
        cascade: bool,
        (generation, incarnation): (i64, &str),
    ) {
        let meta = MetaRecord::new(
            Entity {
                id: EntityId::new(id).unwrap(),
                name: id.into(),
                parent: parent.map(|parent| EntityId::new(parent).unwrap()),
                cascade,
                metadata: Metadata::new(),
                created_at: Some(EpochMillis(NOW).into()),
            },
            Some(generation),
            Some(incarnation.into()),
        );
        self.table.insert(meta.encode(&self.namespace)).unwrap();
    }

    pub(crate) fn forget(&mut self) {
        self.configs.clear();
        self.images.clear();
        self.counts.clear();
    }

    /// Lets the process remember the configuration alone.
    pub(crate) fn forget_images(&mut self) {
        self.images.clear();
    }

    /// Lets the process remember nothing but a shard count.
    pub(crate) fn remember_only_the_count(&mut self, entity: &str, count: u32) {
        self.forget();
        self.counts.insert(self.id(entity), count);
    }

    pub(crate) fn id(&self, entity: &str) -> BucketId {
        BucketId {
            namespace: self.namespace.clone(),
            entity: EntityId::new(entity).unwrap(),
            resource: self.resource.clone(),
        }
    }

    pub(crate) fn item(&self, entity: &str, shard: u32) -> &Item {
        self.table
            .get(&self.id(entity).key(shard))
            .expect("the bucket exists")
    }

    /// Changes a stored bucket by hand.
    pub(crate) fn poke(&mut self, entity: &str, shard: u32, attrs: &[(&str, Value)]) {
        let mut item = self.item(entity, shard).clone();
        for (name, value) in attrs {
            item.insert((*name).to_owned(), value.clone());
        }
        self.table.insert(item).unwrap();
    }

    pub(crate) fn int(&self, entity: &str, shard: u32, attr: &str) -> i128 {
        self.item(entity, shard)[attr].as_int().unwrap()
    }

    pub(crate) fn request(&self, entity: &str, consume: &[(&str, i64)]) -> Request {
        let amount =
            |(name, tokens): &(&str, i64)| (LimitName::new(name).unwrap(), Millitokens::from_tokens(*tokens));
        Request {
            id: self.id(entity),
            consume: consume.iter().map(amount).collect(),
            also: Vec::new(),
            limits: self.limits.clone(),
            overdraws: false,
            settings: Settings {
                bucket_ttl_multiplier: self.ttl_multiplier,
                ..Settings::default()
            },
            slices: None,
        }
    }

    /// One acquire from beginning to end.
    pub(crate) fn acquire(&mut self, entity: &str, consume: &[(&str, i64)]) -> Decision {
        let mut acquire = Acquire::new(self.request(entity, consume));
        self.drive(&mut acquire)
    }

    /// Drives an acquire from beginning to end.
    pub(crate) fn drive(&mut self, acquire: &mut Acquire) -> Decision {
        (self.ops, self.configs_read) = (Vec::new(), 0);
        let mut calls: Vec<Call> = acquire.start(&|_, _| None, EpochMillis(self.now), &mut self.dice);
        while !calls.is_empty() {
            assert!(self.ops.len() < 200, "no decision after {} calls", self.ops.len());
            let call = calls.remove(0);
            let reply = self.reply(call.ask);
            calls.extend(acquire.answer(call.id, reply, EpochMillis(self.now), &mut self.dice));
            for seen in acquire.take_observations() {
                let count = self.counts.entry(seen.id.clone()).or_default();
                *count = (*count).max(seen.image.shard_count);
                self.images.insert((seen.id, seen.shard), seen.image);
            }
        }
        let decision = acquire.decision().cloned();
        decision.expect("nothing is asked, and there is no decision")
    }

    #[track_caller]
    pub(crate) fn admitted(&mut self, entity: &str, consume: &[(&str, i64)]) -> Vec<Grant> {
        match self.acquire(entity, consume) {
            Decision::Admitted(grants) => grants,
            other => panic!("{entity} {consume:?}: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn rejected(&mut self, entity: &str, consume: &[(&str, i64)]) -> RateLimitExceeded {
        match self.acquire(entity, consume) {
            Decision::Rejected(why) => why,
            other => panic!("{entity} {consume:?}: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn failed(&mut self, entity: &str, consume: &[(&str, i64)]) -> AcquireError {
        match self.acquire(entity, consume) {
            Decision::Failed(why) => why,
            other => panic!("{entity} {consume:?}: {other:?}"),
        }
    }

    pub(crate) fn reply(&mut self, ask: Ask) -> Reply {
        match ask {
            Ask::Table(op) => Reply::Table(self.call(&op)),
            Ask::Debit(debit) => Reply::Table(self.debit(&debit)),
            Ask::Config {
                entity,
                resource,
                fresh,
            } => Reply::Config(self.config_for(&entity, &resource, fresh)),
            Ask::Wait => Reply::Waited,
            Ask::GiveBack(grant) => self.give_back(&grant),
        }
    }

    pub(crate) fn debit(&mut self, debit: &Debit) -> Result<Answer, TableError> {
        let update = debit.update(EpochMillis(self.now));
        self.call(&Op::Update(update))
    }

    pub(crate) fn call(&mut self, op: &Op) -> Result<Answer, TableError> {
        let number = self.ops.len();
        self.ops.push(op.clone());
        if let Some(mut meddle) = self.meddle.take() {
            let answer = meddle(number, op, &mut self.table);
            self.meddle = Some(meddle);
            if let Some(answer) = answer {
                return answer;
            }
        }
        self.table.call(op)
    }

    pub(crate) fn config(&mut self, entity: &EntityId, fresh: bool) -> Result<Found, AcquireError> {
        let resource = self.resource.clone();
        self.config_for(entity, &resource, fresh)
    }

    pub(crate) fn config_for(
        &mut self,
        entity: &EntityId,
        resource: &ResourceName,
        fresh: bool,
    ) -> Result<Found, AcquireError> {
        let pair = (entity.clone(), resource.clone());
        let cached = self
            .configs
            .get(&pair)
            .filter(|_| !fresh && self.remembers)
            .cloned();
        let config = if let Some(config) = cached {
            config
        } else {
            self.configs_read += 1;
            let find = |key: &Key| self.table.get(key);
            let now = EpochMillis(self.now);
            Arc::new(resolve_items(&self.namespace, (entity, resource), find, now)?)
        };
        self.configs.insert(pair, Arc::clone(&config));
        let id = BucketId {
            resource: resource.clone(),
            ..self.id(entity.as_str())
        };
        let images = self
            .images
            .iter()
            .filter(|((of, _), _)| self.remembers && *of == id);
        let hint = Hint {
            shard_count: self.counts.get(&id).copied().unwrap_or(1),
            images: images
                .map(|((_, shard), image)| (*shard, Arc::clone(image)))
                .collect(),
            ..Hint::default()
        };
        Ok(Found { config, hint })
    }

    /// Gives back (or, if negative, charges) on a grant's shard, from beginning to end.
    pub(crate) fn credit(&mut self, grant: &Grant, deltas: &[(&str, i64)]) -> CreditEnd {
        self.credit_by(grant, None, deltas)
    }

    /// The same in a process that has seen this image of the shard since.
    pub(crate) fn credit_by(
        &mut self,
        grant: &Grant,
        latest: Option<Arc<Bucket>>,
        deltas: &[(&str, i64)],
    ) -> CreditEnd {
        self.ops = Vec::new();
        let amount = |(name, tokens): &(&str, i64)| ((*name).into(), Millitokens::from_tokens(*tokens));
        self.drive_credit(grant, latest, deltas.iter().map(amount).collect())
    }

    /// What a driver does when a machine asks for it.
    pub(crate) fn give_back(&mut self, grant: &Grant) -> Reply {
        let all = grant
            .amounts
            .iter()
            .map(|(name, amount)| (name.to_smol(), *amount));
        self.drive_credit(grant, None, all.collect());
        Reply::GivenBack
    }

    fn drive_credit(
        &mut self,
        grant: &Grant,
        latest: Option<Arc<Bucket>>,
        deltas: Vec<(SmolStr, Millitokens)>,
    ) -> CreditEnd {
        let sent = self.ops.len();
        let image = Arc::clone(&grant.image);
        let mut credit =
            Credit::new(grant.id.clone(), grant.shard, deltas, image, &mut self.dice).with_latest(latest);
        let mut next = credit.start(EpochMillis(self.now));
        while let Some(send) = next {
            assert!(
                self.ops.len() < sent + 50,
                "no end after {} calls",
                self.ops.len()
            );
            let answer = self.call(&send.op);
            next = credit.answer(answer, EpochMillis(self.now), &mut self.dice);
        }
        credit
            .end()
            .cloned()
            .expect("nothing is asked, and there is no end")
    }
}

pub(crate) fn per_minute(name: &str, rate: i64) -> Limit {
    Limit::per_minute(name, rate.unsigned_abs()).build().unwrap()
}

pub(crate) fn per_second(name: &str, rate: i64) -> Limit {
    Limit::per_second(name, rate.unsigned_abs()).build().unwrap()
}

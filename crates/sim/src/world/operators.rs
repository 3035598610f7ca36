//! What others than our clients write during a run.

use std::collections::BTreeMap;

use zae_limiter_core::bucket::limit_attr;
use zae_limiter_core::entity::MetaRecord;
use zae_limiter_core::schema::meta_key;
use zae_limiter_core::sync::{LimitChange, change_limits};
use zae_limiter_core::table::{Condition, Delete, Item, Key, Op, Put, Update, Value};
use zae_limiter_core::{EpochMillis, Level};

use super::{Event, World};
use crate::plan::{Action, LIMITS, Rule};
use crate::rows::change::Source;
use crate::rows::row::Row;
use crate::rows::terms::Regain;
use crate::state::setup::{config_item, limits};
use crate::time::true_ms;

/// Milliseconds between the writes of a fan-out.
const STRIDE_US: u64 = 3000;

impl World<'_> {
    /// Begins an action that is not an acquire.
    pub(crate) fn act_other(&mut self, action: &Action) {
        match action {
            Action::Acquire { .. }
            | Action::Recreate { .. }
            | Action::SetAccess { .. }
            | Action::Operate { .. }
            | Action::Nothing => {}
            Action::Crash(process) => {
                self.stats.crashes += 1;
                self.crash(*process);
            }
            Action::SetLimits { entity, rules } => {
                self.stats.limit_changes += 1;
                self.set_limits(*entity, rules);
            }
            Action::SetDisabled(entity, disabled) => {
                self.stats.flag_changes += 1;
                self.set_disabled(*entity, *disabled);
            }
            Action::Move(child, parent) => self.move_to(*child, *parent),
            Action::Sweep => self.sweep(),
            Action::DrainWrites(entity, left) => self.drain(*entity, *left),
            Action::ForeignTake(entity, amounts) => self.foreign_take(*entity, amounts),
            Action::ForeignRefill(entity) => self.foreign_refill(*entity, 0),
            Action::ForeignClock(entity, off_ms) => self.foreign_refill(*entity, *off_ms),
        }
    }

    pub(crate) fn true_ms(&self) -> i64 {
        true_ms(self.now_us)
    }

    pub(crate) fn rows(&self, entity: usize) -> BTreeMap<u32, Row> {
        let id = self.names.bucket(entity);
        let row = |shard| Some((shard, Row::read(self.table.get(&id.key(shard))?).ok()?));
        (0..32).filter_map(row).collect()
    }

    /// Configuration first, then every shard found, in two passes.
    fn fan_out(&mut self, entity: usize, update: impl Fn(Key) -> Update) {
        let id = self.names.bucket(entity);
        let mut at = self.now_us;
        for _ in 0..2 {
            for shard in 0..32 {
                at += STRIDE_US / 3;
                let op = Op::Update(update(id.key(shard)));
                let source = Source::Admin;
                self.schedule(at, Event::Other { source, op });
            }
        }
    }

    pub(crate) fn set_limits(&mut self, entity: Option<usize>, rules: &[Rule]) {
        let key = self.names.config_key(entity);
        let disabled = self
            .table
            .get(&key)
            .and_then(|item| item.get("disabled").cloned());
        let op = Op::Put(Put {
            item: config_item(&key, rules, disabled),
            condition: Condition::ALWAYS,
        });
        let _ = self.write(Source::Admin, &op);
        let Some(entity) = entity else { return };
        let limits = limits(rules);
        if self.plan.shapes {
            // As the library does it, with the shapes.
            let now = EpochMillis(self.true_ms());
            let change = LimitChange {
                limits: &limits,
                level: Level::Entity,
                may_expire: false,
                stale: &[],
                bucket_ttl_multiplier: self.plan.ttl_multiplier,
            };
            return self.fan_out(entity, |key| change_limits(key, &change, &limits, now));
        }
        self.fan_out(entity, |key| {
            let mut update = Update::new(key);
            let mut parts = vec![Condition::Exists("PK".into())];
            for limit in &limits {
                let (name, params) = (limit.name().as_str(), limit.params());
                update
                    .set
                    .push((limit_attr(name, "cp"), Value::int(params.capacity)));
                update
                    .set
                    .push((limit_attr(name, "ra"), Value::int(params.refill)));
                update
                    .set
                    .push((limit_attr(name, "rp"), Value::int(params.period_ms)));
                // 0.17 would write the parameters of a limit that the item lacks; that is data without balance.
                parts.push(Condition::Exists(limit_attr(name, "tk")));
            }
            update.set.push(("vu".into(), Value::int(0)));
            update.remove.push("ttl".into());
            update.condition = Condition::All(parts);
            update
        });
    }

    fn set_disabled(&mut self, entity: usize, disabled: bool) {
        let mut update = Update::new(self.names.config_key(Some(entity)));
        update.set.push(("disabled".into(), Value::Bool(disabled)));
        let _ = self.write(Source::Admin, &Op::Update(update));
        self.fan_out(entity, |key| {
            let mut update = Update::new(key);
            if disabled {
                update.set.push(("disabled".into(), Value::Bool(true)));
            } else {
                update.remove.push("disabled".into());
                update.remove.push("bypass".into());
            }
            update.condition = Condition::Exists("PK".into());
            update
        });
    }

    fn move_to(&mut self, child: usize, parent: usize) {
        let key = meta_key(&self.names.namespace, &self.names.entities[child]);
        let Some(stored) = self.table.get(&key) else {
            return;
        };
        if child == parent || self.plan.entities[parent].parent == Some(child) {
            return;
        }
        self.stats.moves += 1;
        let Ok(mut record) = MetaRecord::decode(stored) else {
            return;
        };
        let generation = stored.get("pgen").and_then(Value::as_int).unwrap_or(100) as i64 + 1;
        record.entity.parent = Some(self.names.entities[parent].clone());
        record.generation = Some(generation);
        let op = Op::Put(Put {
            item: record.encode(&self.names.namespace),
            condition: Condition::ALWAYS,
        });
        let _ = self.write(Source::Admin, &op);
        self.owned_by(child, Some(parent).filter(|_| record.entity.cascade));
    }

    fn sweep(&mut self) {
        let now = self.true_ms() / 1000;
        let expired = |(key, item): (&Key, &Item)| {
            let ttl = item.get("ttl").and_then(Value::as_int)?;
            (ttl < i128::from(now)).then(|| key.clone())
        };
        let keys: Vec<Key> = self.table.items().filter_map(expired).collect();
        for key in keys {
            self.stats.swept += 1;
            self.note(|| format!("swept {key}"));
            let op = Op::Delete(Delete {
                key,
                condition: Condition::ALWAYS,
            });
            let _ = self.write(Source::Sweep, &op);
        }
    }

    fn drain(&mut self, entity: usize, left: i64) {
        let id = self.names.bucket(entity);
        for shard in self.rows(entity).into_keys() {
            let mut update = Update::new(id.key(shard));
            update.set.push(("b_wcu_tk".into(), Value::int(left * 1000)));
            let _ = self.write(Source::Admin, &Op::Update(update));
        }
    }

    /// The fast write of a 0.17 client.
    fn foreign_take(&mut self, entity: usize, amounts: &[(usize, i64)]) {
        let mut update = Update::new(self.names.bucket(entity).key(0));
        let mut parts = vec![
            Condition::Exists("PK".into()),
            Condition::Absent("disabled".into()),
            Condition::Any(vec![
                Condition::Absent("vu".into()),
                Condition::AtLeast("vu".into(), i128::from(self.true_ms()) + 1),
            ]),
            Condition::Absent("ttl".into()),
        ];
        for (limit, amount) in amounts {
            let (name, cost) = (LIMITS[*limit], i128::from(*amount) * 1000);
            update.add.push((limit_attr(name, "tk"), -cost));
            update.add.push((limit_attr(name, "tc"), cost));
            parts.push(Condition::AtLeast(limit_attr(name, "tk"), cost));
            parts.push(Condition::Exists(limit_attr(name, "cp")));
        }
        update.condition = Condition::All(parts);
        if let Ok(zae_limiter_core::table::Answer::Applied(_)) =
            self.write(Source::Foreign, &Op::Update(update))
        {
            self.stats.foreign_writes += 1;
        }
    }

    /// The refill of the stream function, or of a client whose clock is off, from an image that is up to date.
    fn foreign_refill(&mut self, entity: usize, off_ms: i64) {
        let Some(row) = self.rows(entity).remove(&0) else {
            return;
        };
        let now = self.true_ms() + off_ms;
        if row.vu == Some(0) || row.disabled || now <= row.rf {
            return;
        }
        if row.limits.values().any(|cell| !cell.terms.is_plain()) {
            return self.foreign_pass(entity, &row, now, off_ms);
        }
        let mut update = Update::new(self.names.bucket(entity).key(0));
        update.set.push(("rf".into(), Value::int(now)));
        for (name, cell) in &row.limits {
            let earned = i128::from(now - row.rf) * (cell.ra / row.count) / cell.rp;
            let gained = earned.min(row.ceiling(cell) - cell.tk);
            if gained > 0 {
                update.add.push((limit_attr(name, "tk"), gained));
                if off_ms > 0 {
                    self.check
                        .minted(&self.names.bucket(entity), name, gained, self.now_us);
                }
            }
        }
        update.condition = Condition::Is("rf".into(), Value::int(row.rf));
        if let Ok(zae_limiter_core::table::Answer::Applied(_)) =
            self.write(Source::Foreign, &Op::Update(update))
        {
            self.stats.foreign_writes += 1;
        }
    }

    /// The refilling write of a 0.17 client on an item whose limits have shapes. It pays all the time since the last refill at
    /// the rate of now.
    fn foreign_pass(&mut self, entity: usize, row: &Row, now: i64, off_ms: i64) {
        // With a wrong clock, such a client begins periods and windows early: that is not the limiter's doing.
        if off_ms != 0 {
            return;
        }
        let mut update = Update::new(self.names.bucket(entity).key(0));
        let mut parts = vec![
            Condition::Is("rf".into(), Value::int(row.rf)),
            Condition::same("vu".into(), row.vu.map(Value::int)),
        ];
        let mut valid_until = None;
        let mut minted = Vec::new();
        update.set.push(("rf".into(), Value::int(now)));
        for (name, cell) in &row.limits {
            let whole = cell.share(row.count, now);
            let held = match cell.terms.regain {
                Regain::Resets(minutes) if minutes.begins_in(row.rf, now) => {
                    update.set.push((limit_attr(name, "gc"), Value::int(row.count)));
                    whole
                }
                // Only a use begins a session.
                Regain::Session(millis, start) if start.is_none_or(|start| start + millis <= now) => return,
                Regain::Rate => {
                    let params = cell.terms.in_force(cell.base(), now);
                    let earned = i128::from(now - row.rf) * (params.ra / row.count) / params.rp;
                    if cell.terms.is_scheduled() {
                        minted.push((name, earned));
                    }
                    (cell.tk + earned).min(whole)
                }
                _ => cell.tk.min(whole),
            };
            if held != cell.tk {
                update.add.push((limit_attr(name, "tk"), held - cell.tk));
            }
            parts.push(Condition::Is(limit_attr(name, "tk"), Value::int(cell.tk)));
            valid_until = valid_until.into_iter().chain(cell.terms.valid_until(now)).min();
        }
        match valid_until {
            Some(until) => update.set.push(("vu".into(), Value::int(until))),
            None => update.remove.push("vu".into()),
        }
        update.condition = Condition::All(parts);
        for (name, earned) in minted {
            self.check
                .minted(&self.names.bucket(entity), name, earned, self.now_us);
        }
        if let Ok(zae_limiter_core::table::Answer::Applied(_)) =
            self.write(Source::Foreign, &Op::Update(update))
        {
            self.stats.foreign_writes += 1;
            self.stats.foreign_passes += 1;
        }
    }
}

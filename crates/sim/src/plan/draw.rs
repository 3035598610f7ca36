//! Draws plans: six kinds of scenario, each with its own way of asking for trouble.

use zae_limiter_core::depth::CascadeDepth;

use super::extras::{chains, outages, recreations, several};
use super::faults::Faults;
use super::operators::operators;
use super::shape::Shape;
use super::{Action, End, EntityPlan, LIMITS, Origin, Plan, ProcessPlan, Rule};
use crate::rng::Rng;

impl Plan {
    /// Draws the plan of a seed.
    pub fn of(seed: u64) -> Self {
        plan(seed)
    }
}

fn plan(seed: u64) -> Plan {
    let mut rng = Rng::of(seed, u64::MAX);
    let draw = Draw { rng: &mut rng };
    let mut plan = match seed % 6 {
        0 => draw.mixed(seed, "mixed"),
        1 => draw.hot(seed),
        2 => draw.refunds(seed),
        3 => draw.cascade(seed),
        4 => draw.expiring(seed),
        _ => draw.quiet(seed),
    };
    if seed / 6 % 5 == 4 {
        recreations(&mut plan);
    }
    if seed / 6 % 5 == 1 {
        several(&mut plan);
    } else if matches!(seed / 30 % 10, 2 | 7..=9) {
        outages(&mut plan);
    }
    if seed / 180 % 2 == 1 {
        chains(&mut plan);
    }
    if seed / 42 % 5 == 2 {
        operators(&mut plan);
    }
    plan
}

/// Draws scenarios.
pub(super) struct Draw<'a> {
    pub(super) rng: &'a mut Rng,
}

impl Draw<'_> {
    pub(super) fn rules(&mut self, most: i64) -> Vec<Rule> {
        let count = self.rng.index(LIMITS.len()) + 1;
        (0..count).map(|limit| self.rule(limit, most)).collect()
    }

    /// Rates from one token a day to thousands a second, with and without burst.
    fn rule(&mut self, limit: usize, most: i64) -> Rule {
        let refill = self.rng.range(1, most);
        let period_secs = [1, 1, 10, 60, 3600, 86_400][(limit + self.rng.index(4)) % 6];
        let capacity = match self.rng.index(3) {
            0 => refill,
            1 => refill * self.rng.range(2, 10),
            _ => self.rng.range(1, refill.max(2)),
        };
        Rule {
            limit,
            capacity,
            refill,
            period_secs,
            shape: Shape::default(),
        }
    }

    fn processes(&mut self, most: usize, skew_ms: i64) -> Vec<ProcessPlan> {
        let count = self.rng.index(most) + 1;
        (0..count)
            .map(|_| ProcessPlan {
                skew_ms: self.rng.range(-skew_ms, skew_ms),
                drift_ppm: if skew_ms > 0 { self.rng.range(-200, 200) } else { 0 },
                remembers: self.rng.chance(700),
                policy: None,
            })
            .collect()
    }

    fn faults(&mut self, heavy: bool) -> Faults {
        let most = if heavy { 60 } else { 15 };
        let mut some = || {
            if self.rng.chance(500) {
                0
            } else {
                self.rng.range(0, most) as u32
            }
        };
        Faults {
            throttled: some(),
            unreachable: some(),
            lost_before: some(),
            lost_after: some(),
            applied_late: some(),
            internal: some(),
            conflict: some(),
            slow: some(),
            permanent: some() / 4,
            empty: some() / 4,
            latency_us: self.rng.pick(&[200, 2000, 10_000, 40_000]),
            timeout_us: self.rng.pick(&[50_000, 300_000]),
            stall_us: None,
        }
    }

    fn entity(&mut self, most: i64) -> EntityPlan {
        EntityPlan {
            parent: None,
            cascade: false,
            meta: self.rng.chance(500),
            rules: self.rng.chance(500).then(|| self.rules(most)),
            origin: self
                .rng
                .pick(&[Origin::None, Origin::None, Origin::Old, Origin::New]),
            shards: self.rng.pick(&[1, 1, 1, 2, 4]),
            untold: self.rng.pick(&[0, 0, 0, 1, 2]),
            write_units: self.rng.pick(&[1000, 1000, 5, 0]),
            filled: self.rng.pick(&[100, 100, 50, 0, -50]),
        }
    }

    pub(super) fn amounts(&mut self, rules: &[Rule], tries: i64) -> Vec<(usize, i64)> {
        let mut amounts = Vec::new();
        for rule in rules {
            if amounts.is_empty() || self.rng.chance(600) {
                let amount = match self.rng.index(20) {
                    0 => 0,
                    1 => rule.capacity + self.rng.range(0, 2),
                    _ => self.rng.range(1, (rule.capacity / tries).max(1)),
                };
                amounts.push((rule.limit, amount));
            }
        }
        amounts
    }

    fn end(&mut self, amounts: &[(usize, i64)]) -> End {
        match self.rng.index(10) {
            0..=5 => End::Commit(
                amounts
                    .iter()
                    .map(|(limit, amount)| (*limit, self.rng.range(-amount, amount / 2 + 3)))
                    .filter(|(_, delta)| *delta != 0)
                    .collect(),
            ),
            6 | 7 => End::Rollback,
            8 => End::Drop,
            _ => End::Hold,
        }
    }

    fn acquire(&mut self, plan: &Plan, entity: usize, tries: i64, hold_ms: i64) -> Action {
        let rules = plan.entities[entity]
            .rules
            .as_ref()
            .unwrap_or(&plan.rules)
            .clone();
        let limits = self.rng.chance(plan.own_limits).then(|| {
            let changed = |rule: &Rule| Rule {
                capacity: self.rng.range(1, rule.capacity * 2),
                refill: self.rng.range(1, rule.refill * 2),
                ..*rule
            };
            rules.iter().map(changed).collect::<Vec<_>>()
        });
        let amounts = self.amounts(limits.as_ref().unwrap_or(&rules), tries);
        Action::Acquire {
            process: self.rng.index(plan.processes.len()),
            entity,
            also: Vec::new(),
            limits,
            patience_ms: if self.rng.chance(100) {
                self.rng.range(0, 30)
            } else {
                10_000
            },
            hold_ms: self.rng.range(0, hold_ms),
            end: self.end(&amounts),
            amounts,
        }
    }

    fn admin(&mut self, plan: &Plan, most: i64) -> Action {
        let entity = self.rng.index(plan.entities.len());
        match self.rng.index(9) {
            0 => Action::Crash(self.rng.index(plan.processes.len())),
            1 => {
                let mut rules = plan.entities[entity]
                    .rules
                    .as_ref()
                    .unwrap_or(&plan.rules)
                    .clone();
                for rule in &mut rules {
                    rule.capacity = self.rng.range(1, most);
                    rule.refill = self.rng.range(1, most);
                }
                let whole = plan.entities[entity].rules.is_none() && self.rng.chance(300);
                Action::SetLimits {
                    entity: (!whole).then_some(entity),
                    rules,
                }
            }
            2 => Action::SetDisabled(entity, self.rng.chance(500)),
            3 => Action::Sweep,
            4 => Action::DrainWrites(entity, self.rng.range(0, 3)),
            5 => {
                let rules = plan.entities[entity]
                    .rules
                    .as_ref()
                    .unwrap_or(&plan.rules)
                    .clone();
                Action::ForeignTake(entity, self.amounts(&rules, 10))
            }
            6 => Action::ForeignRefill(entity),
            7 => {
                let hours = self.rng.pick(&[-48, -1, 1, 48]);
                Action::ForeignClock(entity, hours * 3_600_000 + self.rng.range(-10_000, 10_000))
            }
            _ => Action::Move(entity, self.rng.index(plan.entities.len())),
        }
    }

    fn blank(seed: u64, kind: &'static str) -> Plan {
        Plan {
            seed,
            kind,
            processes: Vec::new(),
            entities: Vec::new(),
            rules: Vec::new(),
            depth: CascadeDepth::default(),
            more: Vec::new(),
            faults: Faults::NONE,
            outages: Vec::new(),
            local_limits: 1000,
            config_ttl_ms: 60_000,
            stale_reads: 0,
            own_limits: 0,
            ttl_multiplier: 7,
            groups: false,
            rides: false,
            shapes: false,
            actions: Vec::new(),
        }
    }

    fn finish(mut plan: Plan) -> Plan {
        plan.actions.sort_by_key(|(at, _)| *at);
        plan
    }

    /// A bit of everything.
    fn mixed(mut self, seed: u64, kind: &'static str) -> Plan {
        let mut plan = Self::blank(seed, kind);
        let most = self.rng.pick(&[5, 100, 10_000]);
        let skew = self.rng.pick(&[0, 5, 100, 2000]);
        plan.processes = self.processes(5, skew);
        plan.faults = self.faults(true);
        plan.rules = self.rules(most);
        plan.config_ttl_ms = self.rng.pick(&[0, 200, 60_000]);
        plan.stale_reads = self.rng.pick(&[0, 0, 300]);
        plan.own_limits = self.rng.pick(&[0, 0, 150]);
        plan.ttl_multiplier = self.rng.pick(&[7, 1, 0]);
        let entities = self.rng.index(3) + 1;
        plan.entities = (0..entities).map(|_| self.entity(most)).collect();
        self.link(&mut plan);
        let span = self.rng.pick(&[20_000, 1_000_000, 30_000_000]);
        let hold = span / 4000;
        for _ in 0..self.rng.range(10, 120) {
            let at = self.rng.range(0, span).unsigned_abs();
            let entity = self.rng.index(entities);
            let action = if self.rng.chance(120) {
                self.admin(&plan, most)
            } else {
                self.acquire(&plan, entity, 8, hold)
            };
            plan.actions.push((at, action));
        }
        Self::finish(plan)
    }

    /// The later half of the entities may be children of the earlier.
    fn link(&mut self, plan: &mut Plan) {
        for child in 1..plan.entities.len() {
            if self.rng.chance(600) {
                plan.entities[child].parent = Some(self.rng.index(child));
                plan.entities[child].cascade = self.rng.chance(800);
                plan.entities[child].meta = true;
            }
        }
    }

    /// One bucket, thousands of writes a second, few write units: shards double.
    fn hot(mut self, seed: u64) -> Plan {
        let mut plan = Self::blank(seed, "hot");
        let skew = self.rng.pick(&[0, 0, 20]);
        plan.processes = self.processes(4, skew);
        let heavy = self.rng.chance(300);
        plan.faults = self.faults(heavy);
        plan.faults.latency_us = self.rng.pick(&[200, 2000]);
        let big = self.rng.pick(&[200, 5000, 1_000_000]);
        plan.rules = self.rules(big);
        for rule in &mut plan.rules {
            rule.capacity = rule.capacity.max(big / 2);
        }
        let mut entity = self.entity(big);
        entity.rules = None;
        entity.write_units = self.rng.range(0, 20);
        entity.filled = 100;
        plan.entities.push(entity);
        let (mut at, waves) = (0, self.rng.range(3, 8));
        let tries = self.rng.pick(&[40, 200]);
        // Others of the fleet use up what write units there are, again and again.
        let drains = self.rng.pick(&[2, 20, 60]);
        let large = self.rng.pick(&[0, 50, 300]);
        for _ in 0..waves {
            at += self.rng.range(0, 200_000);
            let when = |rng: &mut Rng| (at + rng.range(0, 5000)).unsigned_abs();
            for _ in 0..drains {
                plan.actions
                    .push((when(self.rng), Action::DrainWrites(0, self.rng.range(0, 2))));
            }
            for _ in 0..self.rng.range(10, 80) {
                // Some ask for more than a shard holds.
                let tries = if self.rng.chance(large) { 1 } else { tries };
                plan.actions
                    .push((when(self.rng), self.acquire(&plan, 0, tries, 100)));
            }
            if self.rng.chance(100) {
                plan.actions.push((at.unsigned_abs(), self.admin(&plan, big)));
            }
        }
        Self::finish(plan)
    }

    /// Leases that end all at once, over a network that loses answers.
    fn refunds(mut self, seed: u64) -> Plan {
        let mut plan = Self::blank(seed, "refunds");
        let skew = self.rng.pick(&[0, 10]);
        plan.processes = self.processes(4, skew);
        plan.faults = self.faults(true);
        plan.faults.lost_after = self.rng.range(20, 150) as u32;
        plan.faults.applied_late = self.rng.range(20, 150) as u32;
        plan.faults.latency_us = 2000;
        plan.faults.timeout_us = self.rng.pick(&[5000, 50_000]);
        let most = self.rng.pick(&[20, 1000]);
        plan.rules = self.rules(most);
        let mut entity = self.entity(most);
        entity.rules = None;
        plan.entities.push(entity);
        for _ in 0..self.rng.range(5, 60) {
            let at = self.rng.range(0, 500_000).unsigned_abs();
            plan.actions.push((at, self.acquire(&plan, 0, 12, 60)));
        }
        Self::finish(plan)
    }

    /// Children of common parents, some of which move.
    fn cascade(mut self, seed: u64) -> Plan {
        let mut plan = Self::blank(seed, "cascade");
        let skew = self.rng.pick(&[0, 50]);
        plan.processes = self.processes(3, skew);
        let heavy = self.rng.chance(500);
        plan.faults = self.faults(heavy);
        let most = self.rng.pick(&[20, 1000]);
        plan.rules = self.rules(most);
        plan.config_ttl_ms = self.rng.pick(&[100, 60_000]);
        for i in 0..self.rng.index(3) + 3 {
            let mut entity = self.entity(most);
            if i > 1 {
                entity.parent = Some(self.rng.index(2));
                entity.cascade = true;
                entity.meta = true;
                entity.rules = None;
            }
            plan.entities.push(entity);
        }
        let entities = plan.entities.len();
        for _ in 0..self.rng.range(10, 80) {
            let at = self.rng.range(0, 2_000_000).unsigned_abs();
            let child = 2 + self.rng.index(entities - 2);
            let action = match self.rng.index(12) {
                0 => Action::Move(child, self.rng.index(2)),
                1 => self.admin(&plan, most),
                _ => self.acquire(&plan, child, 8, 300),
            };
            plan.actions.push((at, action));
        }
        Self::finish(plan)
    }

    /// Fast limits over minutes, so that shards expire and are swept while others are in use.
    fn expiring(mut self, seed: u64) -> Plan {
        let mut plan = Self::blank(seed, "expiring");
        plan.processes = self.processes(2, 0);
        plan.faults = self.faults(false);
        plan.ttl_multiplier = self.rng.pick(&[1, 2, 7]);
        let most = self.rng.pick(&[20, 1000]);
        let capacity = self.rng.range(8, most);
        plan.rules = vec![Rule {
            limit: 0,
            capacity,
            refill: capacity,
            period_secs: 1,
            shape: Shape::default(),
        }];
        let mut entity = self.entity(most);
        entity.rules = None;
        entity.shards = self.rng.pick(&[1, 2, 4, 8]);
        plan.entities.push(entity);
        let mut at = 0;
        for _ in 0..self.rng.range(10, 80) {
            at += self.rng.pick(&[0, 1000, 900_000, 4_000_000]) + self.rng.range(0, 2000);
            let action = match self.rng.index(5) {
                0 => Action::Sweep,
                _ => self.acquire(&plan, 0, 2, 300),
            };
            plan.actions.push((at.unsigned_abs(), action));
            if self.rng.chance(100) {
                plan.actions.push((at.unsigned_abs(), Action::DrainWrites(0, 0)));
            }
        }
        Self::finish(plan)
    }

    /// A perfect network and one process.
    fn quiet(self, seed: u64) -> Plan {
        let again = Draw { rng: self.rng };
        let mut plan = again.mixed(seed, "quiet");
        plan.faults = Faults::NONE;
        plan.processes.truncate(1);
        for (_, action) in &mut plan.actions {
            match action {
                Action::Acquire { process, .. } | Action::Crash(process) => *process = 0,
                _ => {}
            }
        }
        plan
    }
}

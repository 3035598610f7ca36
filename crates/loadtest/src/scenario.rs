//! What simulated users do.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zae_limiter::Limit;

use crate::schedule::Stage;

/// A load: classes of users, and what they need in the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scenario {
    /// The name, such as `max_rps`.
    pub name: String,
    /// The limits to set up before the first user starts.
    pub setup: Setup,
    /// The classes of users.
    pub classes: Vec<UserClass>,
    /// Numbers of users over time, by name; one replaces the number of users of a run.
    pub shapes: Vec<Shape>,
}

/// A number of users that changes over time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shape {
    /// The name, such as `MorningSpike`.
    pub name: String,
    /// The stages, in order.
    pub stages: Vec<Stage>,
}

/// Limits that a run sets up in its namespace.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Setup {
    /// Default limits of the system.
    pub system: Vec<Limit>,
    /// Default limits of resources.
    pub resources: Vec<(String, Vec<Limit>)>,
}

/// A kind of user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserClass {
    /// The name, such as `MaxRpsUser`.
    pub name: String,
    /// How many of its users there are, beside those of the other classes.
    pub weight: u32,
    /// Which entities its requests are for.
    pub entity: EntityChoice,
    /// What its users do, one of them at a time.
    pub tasks: Vec<Task>,
    /// The time between a task's end and the next task.
    pub think: RangeInclusive<Duration>,
}

/// Which entity a request is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum EntityChoice {
    /// Each user is one entity with this prefix and a random end.
    Own {
        /// The start of its name.
        prefix: String,
        /// The start of the name of a parent that all users of the class share, and cascade to.
        parent: Option<String>,
    },
    /// All requests are for this one.
    One(String),
    /// Some entities get more requests than others.
    Skewed(Skew),
}

/// Entities by the Zipf distribution, beside two that get shares of their own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Skew {
    /// The entity that gets a fixed share.
    pub whale: String,
    /// Its share, from 0 to 1.
    pub whale_share: f64,
    /// The entity that all requests are for during a spike.
    pub spiker: String,
    /// Its share outside of spikes, from 0 to 1.
    pub spiker_share: f64,
    /// The probability that a choice starts a spike, from 0 to 1.
    pub spike_probability: f64,
    /// How long a spike lasts.
    pub spike: Duration,
    /// The start of the names of the others; five digits follow.
    pub prefix: String,
    /// The exponent of the Zipf distribution of the other requests; 0 for equal shares.
    pub exponent: f64,
    /// How many other entities there are.
    pub others: usize,
}

/// One thing that a user does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// How often it is chosen, beside the other tasks.
    pub weight: u32,
    /// The resources; one of them at a time.
    pub resources: Vec<String>,
    /// What is appended to the resource in the name of the measurement.
    pub suffix: String,
    /// What is called.
    pub action: Action,
}

/// A call of the limiter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Action {
    /// Takes tokens, and perhaps corrects how many.
    Acquire {
        /// The limits and how much of each is taken.
        consume: Vec<(String, RangeInclusive<u64>)>,
        /// Limits, and how much of each was really used.
        actual: Vec<(String, RangeInclusive<u64>)>,
    },
    /// Asks what is available.
    Available,
}

impl Skew {
    /// Entities with this prefix and numbers below `count`, by the Zipf distribution with this exponent.
    pub fn zipf(prefix: impl Into<String>, count: usize, exponent: f64) -> Self {
        Self {
            whale: String::new(),
            whale_share: 0.0,
            spiker: String::new(),
            spiker_share: 0.0,
            spike_probability: 0.0,
            spike: Duration::ZERO,
            prefix: prefix.into(),
            exponent,
            others: count,
        }
    }
}

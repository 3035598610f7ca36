//! The scenarios of the Python library's examples, by the names of their files and classes.

use std::time::Duration;

use zae_limiter::Limit;

use crate::scenario::{Action, EntityChoice, Scenario, Setup, Shape, Skew, Task, UserClass};
use crate::schedule::Stage;

/// A limit that refuses nothing: tokens a minute.
const ENDLESS: u64 = 1_000_000_000;

/// Models with their requests and tokens a minute.
const MODELS: [(&str, u64, u64); 8] = [
    ("openai/gpt-4o", 500, 800_000),
    ("openai/gpt-4o-mini", 2000, 4_000_000),
    ("openai/o1", 100, 200_000),
    ("openai/o3-mini", 200, 400_000),
    ("anthropic/claude-sonnet", 1000, 400_000),
    ("anthropic/claude-haiku", 2000, 4_000_000),
    ("google/gemini-pro", 360, 1_000_000),
    ("google/gemini-flash", 1500, 4_000_000),
];

/// The names of the scenarios.
pub const NAMES: [&str; 5] = ["simple", "max_rps", "llm_gateway", "llm_production", "stress"];

/// Returns the scenario that a name or the path of one of the original's files means, such as `max_rps` or
/// `locustfiles/max_rps.py`.
///
/// ```
/// use zae_limiter_loadtest::shipped;
///
/// assert_eq!(shipped::find("locustfiles/max_rps.py").unwrap().name, "max_rps");
/// assert!(shipped::find("my_users.py").is_none());
/// ```
pub fn find(name: &str) -> Option<Scenario> {
    let file = name.rsplit(['/', '\\']).next().unwrap_or(name);
    match file.strip_suffix(".py").unwrap_or(file) {
        "simple" => Some(simple()),
        "max_rps" => Some(max_rps()),
        "llm_gateway" => Some(llm_gateway()),
        "llm_production" => Some(llm_production()),
        "stress" => Some(stress()),
        _ => None,
    }
}

fn millis(from: u64, to: u64) -> std::ops::RangeInclusive<Duration> {
    Duration::from_millis(from)..=Duration::from_millis(to)
}

fn request(name: &str, parent: Option<&str>, think: std::ops::RangeInclusive<Duration>) -> UserClass {
    UserClass {
        name: name.to_owned(),
        weight: 1,
        entity: EntityChoice::Own {
            prefix: "user-".to_owned(),
            parent: parent.map(str::to_owned),
        },
        tasks: vec![Task {
            weight: 1,
            resources: vec!["api".to_owned()],
            suffix: String::new(),
            action: Action::Acquire {
                consume: vec![("rpm".to_owned(), 1..=1)],
                actual: Vec::new(),
            },
        }],
        think,
    }
}

/// A limit; always one, as names and rates here are valid.
fn per_minute(name: &str, rate: u64) -> Option<Limit> {
    Limit::per_minute(name, rate).build().ok()
}

fn endless(limits: &[&str]) -> Setup {
    Setup {
        system: limits
            .iter()
            .filter_map(|name| per_minute(name, ENDLESS))
            .collect(),
        resources: Vec::new(),
    }
}

fn simple() -> Scenario {
    Scenario {
        name: "simple".to_owned(),
        setup: endless(&["rpm"]),
        classes: vec![
            request("SimpleUser", None, millis(100, 1000)),
            request("SimpleCascadeUser", Some("org-"), millis(100, 1000)),
        ],
        shapes: Vec::new(),
    }
}

fn max_rps() -> Scenario {
    Scenario {
        name: "max_rps".to_owned(),
        setup: endless(&["rpm"]),
        classes: vec![
            request("MaxRpsUser", None, millis(0, 0)),
            request("MaxRpsCascadeUser", Some("org-"), millis(0, 0)),
        ],
        shapes: Vec::new(),
    }
}

fn models() -> Setup {
    let limits = |(model, rpm, tpm): (&str, u64, u64)| {
        let limits = [per_minute("rpm", rpm), per_minute("tpm", tpm)];
        (model.to_owned(), limits.into_iter().flatten().collect())
    };
    Setup {
        system: Vec::new(),
        resources: MODELS.map(limits).into(),
    }
}

fn completion(weight: u32) -> Task {
    Task {
        weight,
        resources: MODELS.map(|(model, ..)| model.to_owned()).into(),
        suffix: String::new(),
        action: Action::Acquire {
            consume: vec![("rpm".to_owned(), 1..=1), ("tpm".to_owned(), 800..=800)],
            actual: vec![("tpm".to_owned(), 200..=2000)],
        },
    }
}

fn gateway(name: &str, weights: &[u32], think: std::ops::RangeInclusive<Duration>) -> UserClass {
    UserClass {
        name: name.to_owned(),
        weight: 1,
        entity: EntityChoice::Own {
            prefix: "apikey-".to_owned(),
            parent: None,
        },
        tasks: weights.iter().map(|weight| completion(*weight)).collect(),
        think,
    }
}

fn llm_gateway() -> Scenario {
    Scenario {
        name: "llm_gateway".to_owned(),
        setup: models(),
        classes: vec![gateway("LLMGatewayUser", &[1], millis(500, 2000))],
        shapes: Vec::new(),
    }
}

fn llm_production() -> Scenario {
    let stages = |unit: u64, stages: &[(usize, u64)]| {
        let stage = |(users, length): &(usize, u64)| Stage {
            users: *users,
            length: Duration::from_secs(unit * length),
        };
        stages.iter().map(stage).collect()
    };
    let day = [(15, 6), (100, 2), (150, 1), (150, 8), (120, 2), (30, 4), (15, 1)];
    let morning = [(50, 10), (150, 10), (150, 30), (100, 10)];
    Scenario {
        name: "llm_production".to_owned(),
        setup: models(),
        classes: vec![
            gateway("LLMGatewayUser", &[1], millis(500, 2000)),
            gateway("LLMGatewayUserReal", &[15, 2, 1], millis(20_000, 45_000)),
        ],
        shapes: vec![
            Shape {
                name: "ProductionDailyLoad".to_owned(),
                stages: stages(3600, &day),
            },
            Shape {
                name: "MorningSpike".to_owned(),
                stages: stages(60, &morning),
            },
        ],
    }
}

fn stress() -> Scenario {
    let apis: Vec<String> = (0..8).map(|api| format!("api-{api}")).collect();
    let task = |weight, suffix, action| Task {
        weight,
        resources: apis.clone(),
        suffix: str::to_owned(suffix),
        action,
    };
    let acquire = Action::Acquire {
        consume: vec![("rpm".to_owned(), 1..=1), ("tpm".to_owned(), 100..=1000)],
        actual: Vec::new(),
    };
    Scenario {
        name: "stress".to_owned(),
        setup: endless(&["rpm", "tpm"]),
        classes: vec![UserClass {
            name: "LoadTestUser".to_owned(),
            weight: 1,
            entity: EntityChoice::Skewed(Skew {
                whale: "entity-whale".to_owned(),
                whale_share: 0.5,
                spiker: "entity-spiker".to_owned(),
                spiker_share: 0.03,
                spike_probability: 0.10 / 60.0,
                spike: Duration::from_secs(30),
                prefix: "entity-".to_owned(),
                exponent: 1.5,
                others: 15_998,
            }),
            tasks: vec![
                task(100, "/acquire", acquire),
                task(5, "/available", Action::Available),
            ],
            think: millis(10, 100),
        }],
        shapes: Vec::new(),
    }
}

//! The event of a call.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::field::{BadEvent, given, number, text, wrong};
use super::join::Join;
use crate::run::Plan;
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::selection::{self, Selection, SelectionError};
use crate::timeline::Timeline;
use crate::{namespace, shipped};

/// The length of a test without a shape, in seconds.
const DURATION: f64 = 60.0;

/// The longest test, in seconds.
const LONGEST: f64 = 604_800.0;

/// The most users, and the most that start in a second.
const MOST_USERS: u64 = 1_000_000;

/// What the name of a namespace must be.
const NAMESPACE: &str = "a name that begins with loadtest-, since the namespace is removed at the end";

/// What a call asks for.
#[derive(Debug, Clone)]
pub enum Call {
    /// A test of its own.
    Headless(Box<Headless>),
    /// To be one of several workers of a master.
    Worker(Join),
}

/// A test that one call runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Headless {
    /// How many users.
    pub users: u64,
    /// How many of them start in a second.
    pub spawn_rate: f64,
    /// For an open loop: how many calls are due in a second. All users start at once.
    pub rate: Option<f64>,
    /// The length; that of the shape if there is one, or else a minute.
    pub duration: Option<Duration>,
    /// The name of a scenario, or of a file.
    pub locustfile: String,
    /// The text of the file, unless it lies where the function runs.
    pub scenario: Option<String>,
    /// Names of classes, and of a shape.
    pub user_classes: Vec<String>,
    /// The seed of random choices.
    pub seed: u64,
    /// What is measured before this time is discarded.
    pub warm_up: Duration,
    /// The name of the namespace to make for the test.
    pub namespace: String,
}

/// The fields of a test's configuration.
const FIELDS: [&str; 11] = [
    "mode",
    "users",
    "spawn_rate",
    "rate",
    "duration_seconds",
    "locustfile",
    "scenario",
    "user_classes",
    "seed",
    "warm_up_seconds",
    "namespace",
];

impl Call {
    /// Reads an event.
    ///
    /// ```
    /// use serde_json::json;
    /// use zae_limiter_loadtest::function::Call;
    ///
    /// let event = json!({"config": {"mode": "headless", "locustfile": "locustfiles/max_rps.py", "users": 3}});
    /// let Ok(Call::Headless(test)) = Call::read(&event) else { panic!("a test of its own") };
    /// assert_eq!((test.users, test.spawn_rate), (3, 5.0));
    /// let err = Call::read(&json!({"config": {"locustfile": "simple", "users": "many"}})).unwrap_err();
    /// assert_eq!(err.to_string(), "'users' is \"many\"; it must be a whole number from 1 to 1000000");
    /// ```
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn read(event: &Json) -> Result<Self, BadEvent> {
        let config = event.get("config").unwrap_or(&Json::Null);
        let Json::Object(config) = config else {
            return Err(wrong("config", config, "an object with the fields of a test"));
        };
        match config.get("mode").unwrap_or(&Json::Null) {
            Json::Null => {}
            Json::String(mode) if mode == "headless" => {}
            Json::String(mode) if mode == "worker" => return Ok(Self::Worker(Join::read(config)?)),
            other => return Err(wrong("mode", other, "\"headless\" or \"worker\"")),
        }
        Ok(Self::Headless(Box::new(Headless::read(config)?)))
    }
}

impl Headless {
    fn read(config: &Map<String, Json>) -> Result<Self, BadEvent> {
        if let Some(unknown) = config.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            return Err(BadEvent::unknown(unknown, &FIELDS));
        }
        let users = match given(config, "users") {
            None => 10,
            Some(value) => value
                .as_u64()
                .filter(|users| (1..=MOST_USERS).contains(users))
                .ok_or_else(|| wrong("users", value, "a whole number from 1 to 1000000"))?,
        };
        let spawn_rate = number(
            config,
            "spawn_rate",
            |rate| rate > 0.0 && rate <= MOST_USERS as f64,
            "a number of users a second, above 0 and up to 1000000",
        )?;
        let rate = number(
            config,
            "rate",
            |rate| rate > 0.0 && rate <= MOST_USERS as f64,
            "a number of calls a second, above 0 and up to 1000000",
        )?;
        let duration = number(
            config,
            "duration_seconds",
            |secs| secs > 0.0 && secs <= LONGEST,
            "a number of seconds, above 0 and up to 604800",
        )?;
        let warm_up = number(
            config,
            "warm_up_seconds",
            |secs| (0.0..=LONGEST).contains(&secs),
            "a number of seconds from 0 to 604800",
        )?;
        let locustfile = text(config, "locustfile", "the name of a scenario or of a file")?;
        let locustfile = locustfile
            .ok_or_else(|| wrong("locustfile", &Json::Null, "the name of a scenario or of a file"))?;
        let seed = match given(config, "seed") {
            // Below 2^53, so that every reader of JSON reads it exactly.
            None => fastrand::u64(..1 << 53),
            Some(value) => value
                .as_u64()
                .ok_or_else(|| wrong("seed", value, "a whole number from 0"))?,
        };
        let namespace = text(config, "namespace", NAMESPACE)?;
        if let Some(name) = &namespace
            && !name.starts_with(namespace::PREFIX)
        {
            return Err(wrong("namespace", &json!(name), NAMESPACE));
        }
        Ok(Self {
            users,
            spawn_rate: spawn_rate.unwrap_or(5.0),
            rate,
            duration: duration.map(Duration::from_secs_f64),
            locustfile,
            scenario: text(config, "scenario", "the text of a YAML file with a scenario")?,
            user_classes: classes(config)?,
            seed,
            warm_up: Duration::from_secs_f64(warm_up.unwrap_or(0.0)),
            namespace: namespace.unwrap_or_else(namespace::TestNamespace::new_name),
        })
    }

    /// The event that asks for this.
    pub fn to_event(&self) -> Json {
        let mut config = json!({
            "mode": "headless",
            "users": self.users,
            "spawn_rate": self.spawn_rate,
            "rate": self.rate,
            "locustfile": self.locustfile,
            "user_classes": self.user_classes,
            "seed": self.seed,
            "warm_up_seconds": self.warm_up.as_secs_f64(),
            "namespace": self.namespace,
        });
        if let Some(duration) = self.duration {
            config["duration_seconds"] = json!(duration.as_secs_f64());
        }
        if let Some(scenario) = &self.scenario {
            config["scenario"] = json!(scenario);
        }
        json!({ "config": config })
    }

    /// The scenario: the text that came with the call, one of the program, or a file below `folder`.
    ///
    /// # Errors
    /// If there is none.
    pub fn find(&self, folder: &Path) -> Result<Scenario, SelectionError> {
        if let Some(text) = &self.scenario {
            return selection::read(&self.locustfile, text);
        }
        match shipped::find(&self.locustfile) {
            Some(scenario) => Ok(scenario),
            None => selection::read_below(folder, &self.locustfile),
        }
    }

    /// What to run of a scenario, and which shape it has.
    ///
    /// # Errors
    /// For classes that the scenario does not have.
    pub fn plan(&self, scenario: Scenario) -> Result<(Plan, Option<String>), SelectionError> {
        let selection = Selection::new(scenario, &self.user_classes)?;
        let users = usize::try_from(self.users).unwrap_or(usize::MAX);
        let stages = selection.stages(users, self.duration, Duration::from_secs_f64(DURATION));
        let plan = Plan {
            // In an open loop users are there to take calls.
            schedule: Schedule::new(stages, self.rate.map_or(self.spawn_rate, |_| f64::MAX)),
            scenario: selection.scenario,
            rate: self.rate,
            warm_up: self.warm_up,
            seed: self.seed,
            every: Timeline::EVERY,
        };
        Ok((plan, selection.shape))
    }
}

/// A list of names, or names separated by commas.
fn classes(config: &Map<String, Json>) -> Result<Vec<String>, BadEvent> {
    const RIGHT: &str = "a list of names of classes";
    let name = |text: &str| Some(text.trim().to_owned()).filter(|name| !name.is_empty());
    match given(config, "user_classes") {
        None => Ok(Vec::new()),
        Some(Json::String(names)) => Ok(names.split(',').filter_map(name).collect()),
        Some(value @ Json::Array(names)) => {
            let names = names.iter().map(|one| one.as_str().and_then(name));
            let names: Option<Vec<_>> = names.collect();
            names.ok_or_else(|| wrong("user_classes", value, RIGHT))
        }
        Some(other) => Err(wrong("user_classes", other, RIGHT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &Json) -> Result<Headless, BadEvent> {
        match Call::read(&json!({ "config": config }))? {
            Call::Headless(test) => Ok(*test),
            Call::Worker(_) => unreachable!("no mode was given"),
        }
    }

    #[test]
    fn missing_fields_have_defaults() {
        let test = read(&json!({"locustfile": "simple"})).unwrap();
        assert_eq!((test.users, test.spawn_rate, test.duration), (10, 5.0, None));
        assert!(test.namespace.starts_with("loadtest-"), "{test:?}");
        let (plan, shape) = test.plan(test.find(Path::new("/nowhere")).unwrap()).unwrap();
        assert_eq!(
            (plan.schedule.length(), plan.schedule.most()),
            (Duration::from_mins(1), 10)
        );
        assert_eq!((plan.scenario.classes.len(), shape), (2, None));
    }

    #[test]
    fn what_a_command_asks_for_is_what_the_function_reads() {
        let test = Headless {
            users: 7,
            spawn_rate: 2.5,
            rate: Some(12.5),
            duration: Some(Duration::from_millis(1500)),
            locustfile: "mine.yaml".into(),
            scenario: Some("users: []".into()),
            user_classes: vec!["A".into(), "B".into()],
            seed: (1 << 53) - 1,
            warm_up: Duration::from_millis(250),
            namespace: "loadtest-1".into(),
        };
        let event = test.to_event().to_string();
        let Call::Headless(read) = Call::read(&serde_json::from_str(&event).unwrap()).unwrap() else {
            unreachable!()
        };
        assert_eq!(*read, test);
    }

    #[test]
    fn what_the_python_tool_sends_is_understood() {
        let config = json!({
            "mode": "headless", "users": 20, "spawn_rate": 10, "duration_seconds": 60,
            "locustfile": "locustfiles/llm_production.py", "user_classes": "LLMGatewayUser, MorningSpike",
        });
        let test = read(&config).unwrap();
        let (plan, shape) = test.plan(test.find(Path::new("/nowhere")).unwrap()).unwrap();
        assert_eq!(shape.as_deref(), Some("MorningSpike"));
        assert_eq!(
            (plan.schedule.length(), plan.schedule.most()),
            (Duration::from_mins(1), 50)
        );
    }

    #[test]
    fn the_first_wrong_field_is_named_with_what_would_be_right() {
        for (config, why) in [
            (
                json!(3),
                "'config' is 3; it must be an object with the fields of a test",
            ),
            (
                json!({"mode": "x"}),
                "'mode' is \"x\"; it must be \"headless\" or \"worker\"",
            ),
            (
                json!({}),
                "'locustfile' is null; it must be the name of a scenario or of a file",
            ),
            (
                json!({"users": 0}),
                "'users' is 0; it must be a whole number from 1 to 1000000",
            ),
            (
                json!({"users": 1.5}),
                "'users' is 1.5; it must be a whole number from 1 to 1000000",
            ),
            (
                json!({"spawn_rate": 0}),
                "'spawn_rate' is 0; it must be a number of users a second, above 0 and up to 1000000",
            ),
            (
                json!({"duration_seconds": -1}),
                "'duration_seconds' is -1; it must be a number of seconds, above 0 and up to 604800",
            ),
            (
                json!({"duration_seconds": 1e9}),
                "'duration_seconds' is 1000000000.0; it must be a number of seconds, above 0 and up to 604800",
            ),
            (
                json!({"warm_up_seconds": "1"}),
                "'warm_up_seconds' is \"1\"; it must be a number of seconds from 0 to 604800",
            ),
            (
                json!({"locustfile": ""}),
                "'locustfile' is \"\"; it must be the name of a scenario or of a file",
            ),
            (
                json!({"locustfile": "simple", "seed": -1}),
                "'seed' is -1; it must be a whole number from 0",
            ),
            (
                json!({"locustfile": "simple", "user_classes": [1]}),
                "'user_classes' is [1]; it must be a list of names of classes",
            ),
            (
                json!({"locustfile": "simple", "namespace": "default"}),
                "'namespace' is \"default\"; it must be a name that begins with loadtest-, since the namespace is removed at the end",
            ),
            (
                json!({"host": "x"}),
                "'host' is not a field of a call; the fields are mode, users, spawn_rate, rate, duration_seconds, locustfile, scenario, user_classes, seed, warm_up_seconds, namespace",
            ),
        ] {
            assert_eq!(read(&config).unwrap_err().to_string(), why);
        }
        assert_eq!(
            Call::read(&json!({})).unwrap_err().to_string(),
            "'config' is null; it must be an object with the fields of a test"
        );
    }

    #[test]
    fn files_come_from_the_folder_alone() {
        let root = std::env::temp_dir().join(format!(
            "zae-limiter-loadtest-{}-{}",
            std::process::id(),
            fastrand::u64(..)
        ));
        let folder = root.join("locustfiles");
        std::fs::create_dir_all(folder.join("deep")).unwrap();
        let content = "system: {limits: {rpm: {capacity: 9}}}\n\
            users: [{name: A, entity: {one: {name: e}}, tasks: [{resources: [r], available: true}]}]";
        for file in [
            "locustfiles/mine.yaml",
            "locustfiles/deep/mine.yml",
            "secret.yaml",
        ] {
            std::fs::write(root.join(file), content).unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(root.join("secret.yaml"), folder.join("link.yaml")).unwrap();
        let find = |name: &str| {
            let test = read(&json!({"locustfile": name})).unwrap();
            test.find(&folder)
                .map(|found| found.name)
                .map_err(|err| err.to_string())
        };
        assert_eq!(find("mine.yaml"), Ok("mine".into()));
        assert_eq!(find("./deep/mine.yml"), Ok("mine".into()));
        let absolute = folder.join("mine.yaml").display().to_string();
        for name in ["../secret.yaml", "deep/../../secret.yaml", &absolute, "link.yaml"] {
            if name == "link.yaml" && cfg!(not(unix)) {
                continue;
            }
            let why = find(name).unwrap_err();
            assert!(
                why.starts_with(&format!("Cannot read '{name}': it is not below ")),
                "{why}"
            );
        }
        assert!(
            find("no.yaml")
                .unwrap_err()
                .starts_with("Cannot read 'no.yaml': ")
        );
        assert!(
            find("mine.py")
                .unwrap_err()
                .starts_with("Unknown scenario 'mine.py'.")
        );
        std::fs::remove_dir_all(root).unwrap();
    }
}

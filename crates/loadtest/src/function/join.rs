//! A call that asks for a worker of a master.

use serde_json::{Map, Value as Json, json};

use super::field::{BadEvent, given, text, wrong};
use crate::cluster::Secret;

/// The port of a master, unless the call says another one.
pub const MASTER_PORT: u16 = 5557;

/// The most characters of a host's name.
const LONGEST_HOST: usize = 253;

/// The fields of a worker's configuration. Those that the Python tool also sends are known to the master here.
const FIELDS: [&str; 6] = [
    "mode",
    "master_host",
    "master_port",
    "secret",
    "user_classes",
    "locustfile",
];

/// Which master to connect to.
#[derive(Debug, Clone)]
pub struct Join {
    /// Its address, or the name of its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The secret of its tests.
    pub secret: Secret,
}

impl Join {
    pub(super) fn read(config: &Map<String, Json>) -> Result<Self, BadEvent> {
        if let Some(unknown) = config.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            return Err(BadEvent::unknown(unknown, &FIELDS));
        }
        let right = "the address of the master";
        let host = text(config, "master_host", right)?.filter(|host| host.len() <= LONGEST_HOST);
        let host = host.ok_or_else(|| {
            wrong(
                "master_host",
                config.get("master_host").unwrap_or(&Json::Null),
                right,
            )
        })?;
        let port = match given(config, "master_port") {
            None => MASTER_PORT,
            Some(value) => value
                .as_u64()
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port > 0)
                .ok_or_else(|| wrong("master_port", value, "a port from 1 to 65535"))?,
        };
        // It is not repeated in the message.
        let bad_secret = || wrong("secret", &json!("..."), "the secret of a master of this program");
        let secret = given(config, "secret")
            .and_then(Json::as_str)
            .and_then(Secret::from_text);
        Ok(Self {
            host,
            port,
            secret: secret.ok_or_else(bad_secret)?,
        })
    }

    /// The event that asks for this.
    ///
    /// ```
    /// use zae_limiter_loadtest::cluster::Secret;
    /// use zae_limiter_loadtest::function::{Call, Join};
    ///
    /// let join = Join { host: "10.0.0.7".into(), port: 5557, secret: Secret::random()? };
    /// let Ok(Call::Worker(read)) = Call::read(&join.to_event()) else { panic!("a worker") };
    /// assert_eq!((read.host, read.port), (join.host, join.port));
    /// # Ok::<(), zae_limiter_loadtest::cluster::HandshakeError>(())
    /// ```
    pub fn to_event(&self) -> Json {
        json!({"config": {
            "mode": "worker",
            "master_host": self.host,
            "master_port": self.port,
            "secret": self.secret.to_text(),
        }})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_without_the_secret() {
        let secret = Secret::random().unwrap().to_text();
        let read = |config: Json| Join::read(config.as_object().unwrap()).map_err(|err| err.to_string());
        let join =
            read(json!({"mode": "worker", "master_host": "m", "secret": secret, "locustfile": "x"})).unwrap();
        assert_eq!((join.host.as_str(), join.port), ("m", 5557));
        assert!(!format!("{join:?}").contains(&secret));
        for (config, why) in [
            (
                json!({"secret": secret}),
                "'master_host' is null; it must be the address of the master",
            ),
            (
                json!({"master_host": "m".repeat(254), "secret": secret}),
                "'master_host' is \"mmm",
            ),
            (
                json!({"master_host": "m", "master_port": 70_000, "secret": secret}),
                "'master_port' is 70000; it must be a port from 1 to 65535",
            ),
            (
                json!({"master_host": "m", "secret": "hidden"}),
                "'secret' is \"...\"; it must be the secret of a master of this program",
            ),
            (json!({"master_host": "m"}), "'secret' is \"...\"; it must be"),
            (
                json!({"users": 5}),
                "'users' is not a field of a call; the fields are mode, master_host",
            ),
        ] {
            let refused = read(config).map(|_| ()).unwrap_err();
            assert!(refused.starts_with(why), "{refused}");
            assert!(!refused.contains("hidden"), "{refused}");
        }
    }
}

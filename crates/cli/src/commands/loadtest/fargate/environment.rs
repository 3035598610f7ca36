//! What a command tells the master: variables of its container.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use zae_limiter_loadtest::scenario::Scenario;
use zae_limiter_loadtest::{selection, shipped};

use super::super::Found;
use crate::failure::Failure;

/// The most bytes of a scenario's text.
const LARGEST: u64 = 4 << 20;

/// The variables by which a master finds what users do.
pub(super) fn of_scenario(name: &str, found: &Found) -> Vec<(&'static str, String)> {
    match &found.text {
        None => vec![("LOCUSTFILE", found.scenario.name.clone())],
        Some(text) => vec![("LOCUSTFILE", name.to_owned()), ("SCENARIO", packed(text))],
    }
}

/// What users do, from these variables.
pub(super) fn scenario(name: &str, text: Option<&str>) -> Result<Scenario, Failure> {
    let Some(text) = text else {
        return shipped::find(name).ok_or_else(|| super::super::refused(&selection::unknown(name)));
    };
    let text = unpacked(text).map_err(|err| {
        let why = err.to_string();
        Failure::error(format!(
            "Invalid SCENARIO: {}. 'loadtest run' and 'loadtest ui' make it.",
            why.trim_end_matches('.')
        ))
    })?;
    selection::read(name, &text).map_err(|err| super::super::refused(&err))
}

fn packed(text: &str) -> String {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail.
    let _ = gzip.write_all(text.as_bytes());
    STANDARD.encode(gzip.finish().unwrap_or_default())
}

fn unpacked(text: &str) -> Result<String, Box<dyn std::error::Error>> {
    let bytes = STANDARD.decode(text)?;
    let mut unpacked = String::new();
    let read = GzDecoder::new(&*bytes)
        .take(LARGEST + 1)
        .read_to_string(&mut unpacked)?;
    if read as u64 > LARGEST {
        return Err(format!("it has more than {LARGEST} bytes").into());
    }
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
system:
  limits:
    rpm: {capacity: 1000}
users:
  - name: One
    entity:
      one: {name: e}
    tasks:
      - resources: [api]
        acquire: {rpm: 1}
";

    #[test]
    fn a_scenario_arrives_as_it_was_sent() {
        let scenario = selection::read("mine.yaml", TEXT).unwrap();
        let found = Found {
            scenario: scenario.clone(),
            text: Some(TEXT.to_owned()),
        };
        let variables = of_scenario("mine.yaml", &found);
        let [("LOCUSTFILE", name), ("SCENARIO", text)] = &variables[..] else {
            panic!("{variables:?}");
        };
        let arrived = super::scenario(name, Some(text)).unwrap();
        assert_eq!(format!("{arrived:?}"), format!("{scenario:?}"));
        let shipped = Found {
            scenario: shipped::find("locustfiles/simple.py").unwrap(),
            text: None,
        };
        let variables = of_scenario("locustfiles/simple.py", &shipped);
        assert_eq!(variables, [("LOCUSTFILE", "simple".to_owned())]);
        assert_eq!(super::scenario("simple", None).unwrap().name, "simple");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "!", "aGVsbG8=", &packed("users: 5")] {
            assert!(scenario("mine.yaml", Some(text)).is_err(), "{text}");
        }
        let bomb = packed(&" ".repeat(usize::try_from(LARGEST).unwrap() + 1));
        let refused = format!("{:?}", scenario("mine.yaml", Some(&bomb)).unwrap_err());
        assert!(refused.contains("more than 4194304 bytes"), "{refused}");
        assert!(scenario("nothing", None).is_err());
    }
}

//! The Python library on the same table, in a process of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::measure::Round;
use crate::{Outcome, TABLE, World};

const PROGRAM: &str = include_str!("original.py");

/// A Python process that acquires in rounds. It ends with its standard input.
pub(crate) struct Original {
    process: Child,
    rounds: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Original {
    /// Starts it with the interpreter of a virtual environment, in the namespace of `world`.
    pub(crate) fn start(venv: &Path, world: &World, url: &str) -> Outcome<Self> {
        let python = venv.join("bin/python");
        let mut process = Command::new(&python)
            .args(["-c", PROGRAM, TABLE, world.repo().namespace_name(), url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|err| format!("{} cannot be started: {err}", python.display()))?;
        let rounds = process.stdin.take().ok_or("no standard input")?;
        let answers = BufReader::new(process.stdout.take().ok_or("no standard output")?);
        Ok(Self {
            process,
            rounds,
            answers,
        })
    }

    /// One round.
    pub(crate) fn round(&mut self, ops: usize, concurrency: usize) -> Outcome<Round> {
        writeln!(self.rounds, "{ops} {concurrency}")?;
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err("the Python process has ended; its error is above".into());
        }
        let answer: serde_json::Value = serde_json::from_str(&line)?;
        let seconds = |name: &str| {
            let seconds = answer[name].as_f64().map(Duration::from_secs_f64);
            seconds.ok_or_else(|| format!("no '{name}' in {line}"))
        };
        let latencies: Vec<Duration> = answer["latencies_us"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|us| Some(Duration::from_secs_f64(us.as_f64()? / 1e6)))
            .collect();
        Ok(Round {
            wall: seconds("wall_s")?,
            cpu: seconds("cpu_s")?,
            admitted: latencies.len() as u64,
            rejected: 0,
            latencies,
        })
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        // It has no state.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

//! Reads very many mutated records, and says whether any made the reader panic.
//!
//! ```sh
//! cargo run --release -p zae-limiter-core --features yaml --example hostile-bytes -- --runs 10000000
//! ```
//!
//! `--seed N` begins elsewhere than at a random place, `--target NAME` takes one kind of input. See `scripts/hostile-bytes`.

#![expect(clippy::unwrap_used, reason = "it is a test")]
#![expect(clippy::print_stdout, reason = "it is a program")]

#[path = "../tests/it/drive.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod drive;
#[path = "../tests/it/hostile.rs"]
mod hostile;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::hint::black_box;
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let mut runs = 100_000;
    let mut seed = RandomState::new().build_hasher().finish() >> 16;
    let mut only = None;
    let mut args = std::env::args().skip(1);
    while let Some(option) = args.next() {
        let value = args.next().unwrap_or_default();
        match option.as_str() {
            "--runs" => runs = value.parse().unwrap(),
            "--seed" => seed = value.parse().unwrap(),
            "--target" => only = Some(value),
            other => {
                println!("what is '{other}'? --runs N, --seed N, --target NAME");
                return ExitCode::FAILURE;
            }
        }
    }
    std::panic::set_hook(Box::new(|_| {}));
    let checks = catch_unwind(|| black_box(u8::MAX) + black_box(1)).is_err();
    let _ = std::panic::take_hook();
    println!(
        "seed {seed}, {runs} inputs each, overflow checks {}",
        if checks { "on" } else { "OFF" }
    );
    let mut is_clean = true;
    for (name, target) in hostile::TARGETS {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        #[expect(clippy::disallowed_methods, reason = "it is a measurement")]
        let begin = Instant::now();
        let ran = hostile::run(target, seed, runs);
        println!(
            "{name:14} {:3.0} % taken for records, {:6.0} s, {} panics {:?}",
            ran.taken as f64 * 100.0 / runs as f64,
            begin.elapsed().as_secs_f64(),
            ran.panicked.len(),
            ran.panicked
        );
        is_clean &= ran.panicked.is_empty();
    }
    if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

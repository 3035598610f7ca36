//! The library for tests written in another language.
//!
//! `zae-limiter-bridge calls` reads a call in JSON from each line of standard input and answers it with a line
//! on standard output; see [`calls`]. `zae-limiter-bridge serve` is the embedded engine behind a port; see
//! [`server`]. Both end with their standard input, so that nothing outlives the test that started it.

mod calls;
mod limits;
mod server;

use std::path::PathBuf;

use clap::Parser;

/// The library's calls as JSON lines, and the embedded engine as a server.
#[derive(Debug, Parser)]
enum Mode {
    /// Answer calls, a line each
    Calls,
    /// Serve the embedded engine on a free port of 127.0.0.1, whose number is printed
    Serve {
        /// Keep the data in this directory rather than in memory
        #[arg(long)]
        data_dir: Option<PathBuf>,
    },
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    match Mode::parse() {
        Mode::Calls => calls::answer().await,
        Mode::Serve { data_dir } => server::serve(data_dir).await,
    }
}

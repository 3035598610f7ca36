//! `loadtest worker`.

use std::net::SocketAddr;

use clap::Args;

use crate::args::Connection;

/// Run users for the master of a load test. 'loadtest run --local --workers' starts it.
///
/// Reads the secret of the test from standard input.
#[derive(Debug, Clone, Args)]
#[command(hide = true, verbatim_doc_comment)]
pub(crate) struct Worker {
    /// Address of the master
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) connect: SocketAddr,

    /// Where.
    #[command(flatten)]
    pub(crate) at: Connection,
}

//! Plays a trace: the clock of each run is moved from event to event, and calls are made as a service makes them.
//!
//! `feed` reads the trace, `world` is one manifest on its table, `table` that table.

mod feed;
mod table;
mod world;

use std::io;

use zae_limiter::{Error, InvalidInput};

use crate::level::Declared;
use crate::options::Options;
use crate::report::{Comparer, Report, Widths};
use crate::trace::{Request, Trace, TraceError};
use feed::Fed;
use world::World;

/// Why a trace was not played to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The trace cannot be used.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The manifest cannot be applied.
    #[error("{name}: {reason}")]
    Manifest {
        /// Its name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A choice cannot be used.
    #[error(transparent)]
    Input(#[from] InvalidInput),
    /// More requests run or wait at the same time than fit into memory.
    #[error(
        "more than 1000000 requests are running or waiting at the same time; replay a shorter part of the trace, or without retries"
    )]
    TooMany,
    /// The limiter failed, which is a fault of this program.
    #[error("the limiter failed: {0}")]
    Limiter(#[source] Error),
    /// The thread that reads the trace cannot be started, or has ended.
    #[error("the trace cannot be read: {0}")]
    Thread(io::Error),
}

/// Replays a trace against each of the manifests, and compares the second with the first.
///
/// `trace` opens the trace; it is called in a thread of its own. If the future is dropped, that thread ends with its next batch of
/// requests.
///
/// # Errors
/// If the trace or a manifest cannot be used. Nothing is reported then.
pub async fn replay(
    trace: impl FnOnce() -> Result<Trace, TraceError> + Send + 'static,
    declared: &[Declared],
    options: &Options,
) -> Result<Report, ReplayError> {
    let mut fed = feed::feed(trace).map_err(ReplayError::Thread)?;
    let mut widths = Widths::new(options.every_ms);
    let mut comparer = Comparer::new(declared.len());
    let mut worlds = Vec::new();
    let (mut description, mut span, mut requests) = (None, None, 0);
    let counts = loop {
        let gone = || ReplayError::Thread(io::Error::other("its reader has stopped"));
        match fed.recv().await.ok_or_else(gone)? {
            Fed::Open(opened) => description = Some(*opened),
            Fed::Batch(batch) => {
                for request in batch {
                    let (first, _) = *span.get_or_insert((request.at_ms, request.at_ms));
                    span = Some((first, request.at_ms));
                    if worlds.is_empty() {
                        for (run, declared) in declared.iter().enumerate() {
                            worlds.push(World::open(run, declared, request.at_ms, options).await?);
                        }
                    }
                    requests += 1;
                    arrive(&mut worlds, &request, requests, &mut widths, &mut comparer).await?;
                }
                // Lets a signal end the replay.
                tokio::task::yield_now().await;
            }
            Fed::End(counts) => break counts,
            Fed::Failed(err) => return Err(err.into()),
        }
    };
    for world in &mut worlds {
        world.finish(&mut widths, &mut comparer).await?;
    }
    let Some(description) = description else {
        return Err(ReplayError::Thread(io::Error::other("its reader has stopped")));
    };
    let Some(span) = span else {
        let problem = match counts.first_bad {
            Some(bad) => format!("has no request that can be replayed; the first row that cannot: {bad}"),
            None => "has no requests to replay".to_owned(),
        };
        return Err(TraceError::of_file(&description.name, problem).into());
    };
    let runs = worlds.into_iter().map(|world| world.into_run(&widths)).collect();
    Ok(Report::new(
        description,
        counts,
        requests,
        span,
        options,
        &widths,
        runs,
        comparer,
    ))
}

async fn arrive(
    worlds: &mut [World<'_>],
    request: &Request,
    number: u64,
    widths: &mut Widths,
    comparer: &mut Comparer,
) -> Result<(), ReplayError> {
    widths.include(request.at_ms)?;
    comparer.arrived(number, request);
    for world in worlds {
        world.advance(request.at_ms, widths, comparer).await?;
        world.arrive(number, request, widths, comparer).await?;
    }
    Ok(())
}

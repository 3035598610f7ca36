//! `loadtest master`: leads workers from a task on Fargate, until it is stopped or nothing is asked of it.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use zae_limiter_loadtest::cluster::{Master as Door, Scaling};
use zae_limiter_loadtest::function::Join;

use super::super::WHAT;
use super::super::desk::{self, Desk};
use super::super::interrupts::Interrupts;
use super::environment;
use super::functions::Functions;
use crate::args::Connection;
use crate::args::loadtest::Master;
use crate::commands::{Outcome, failed};
use crate::connect;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::{names, say};

/// An address that is only used to ask which of this machine's own leads elsewhere. Nothing is sent to it.
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

pub(in super::super) async fn master(args: Master) -> Outcome {
    let at = Connection {
        name: args.target.clone(),
        region: args.region.clone(),
        endpoint_url: None,
    };
    names::stack(&at.name)?;
    let scaling = scaling(&args)?;
    let scenario = environment::scenario(&args.locustfile, args.scenario.as_deref())?;
    let interrupts = Interrupts::catch()?;
    let stack = connect::measured_stack(&at, WHAT).await?;
    stack.check_compatible().await.map_err(failed(&at, WHAT))?;
    let manager = connect::manager(&at).await?;
    let cannot = |err: std::io::Error| {
        Failure::error(format!("Cannot listen for workers on port {}: {err}", args.port))
    };
    let door = Door::bind((Ipv4Addr::UNSPECIFIED, args.port).into())
        .await
        .map_err(cannot)?;
    let port = door.address().map_err(cannot)?.port();
    let host = match args.host {
        Some(host) => host,
        None => own_address().map_err(|err| {
            Failure::error(format!(
                "The address of this machine is unknown: {err}. Set MASTER_HOST."
            ))
        })?,
    };
    let join = Join {
        host: host.to_string(),
        port,
        secret: door.secret().clone(),
    };
    let least = scaling.min_workers;
    let options = desk::options(scaling.max_workers);
    let (page, asked) = desk::page(&at, &scenario, args.page_port).await?;
    let cluster = door.open(Functions::new(manager, &args.function, &join), scaling, options);
    say(&format!(
        "Master of load tests of '{}' at {host}:{port}, with a page on port {} of this machine.",
        at.name,
        page.address().port()
    ));
    let mut desk = Desk {
        at: &at,
        scenario,
        page,
        asked,
        cluster,
        least,
        interrupts,
        idle: Some(Duration::from_secs(args.idle_timeout.into())),
    };
    let is_clean = desk.work().await;
    // Workers end with their connections.
    desk.cluster.close();
    say(if desk.interrupts.heard().is_some() {
        "Stopped."
    } else {
        "Ended, as no test was started."
    });
    Ok(if is_clean { Exit::Success } else { Exit::Failure })
}

fn scaling(args: &Master) -> Result<Scaling, Failure> {
    if args.max_workers < args.min_workers {
        return Err(Failure::error(format!(
            "MAX_WORKERS {} is less than MIN_WORKERS {}.",
            args.max_workers, args.min_workers
        )));
    }
    Ok(Scaling {
        users_per_worker: usize::try_from(args.users_per_worker).unwrap_or(usize::MAX),
        min_workers: args.min_workers.into(),
        max_workers: Some(args.max_workers.into()),
        startup_lead_time: Duration::from_secs(args.startup_lead_time.into()),
        lifetime: Some(Duration::from_secs(args.lambda_timeout.into())),
        ..Scaling::default()
    })
}

/// The address from which this machine reaches others.
fn own_address() -> std::io::Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(ELSEWHERE)?;
    Ok(socket.local_addr()?.ip())
}

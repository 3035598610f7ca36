//! `loadtest deploy`.

use serde_json::json;
use zae_limiter_infra::names::load;
use zae_limiter_infra::{DynamoRoute, Error, LoadDeployment, LoadOptions, LoadTarget, StackManager, Subnet};

use super::push::source_line;
use super::scenarios;
use super::stack::{check, failure, show, tell};
use crate::args::loadtest::LoadDeploy;
use crate::args::{Connection, Events, Format};
use crate::ask::{choose, choose_several};
use crate::commands::Outcome;
use crate::connect::manager;
use crate::exit::Exit;
use crate::failure::{Failure, of_stack};
use crate::out::Out;
use crate::progress::Reporter;

/// The fewest subnets.
const SUBNETS: usize = 2;

pub(in super::super) async fn deploy(args: LoadDeploy) -> Outcome {
    let mut at = args.common.at.connection();
    if let Some(name) = &args.name {
        at.name.clone_from(name);
    }
    check(&at)?;
    let given = args.network.subnet_ids.as_deref().map(listed);
    if given.as_ref().is_some_and(|ids| ids.len() < SUBNETS) {
        return Err(too_few());
    }
    let found = scenarios::find(&args.scenarios.directory)?;
    let manager = manager(&at).await?;
    if args.name.is_none() {
        at.name = choose_target(&manager, &at).await?;
    }
    let vpc = match &args.network.vpc_id {
        Some(vpc) => vpc.clone(),
        None => choose_vpc(&manager, &at).await?,
    };
    let subnets = match given {
        Some(subnets) => subnets,
        None => choose_subnets(&manager, &at, &vpc).await?,
    };
    let mut options = options(&args, vpc, subnets);
    options.check().map_err(|err| of_stack(&err.into(), &at))?;

    let format = &args.common.format;
    let stack = load::stack(&at.name);
    tell(format, &format!("Deploying load test stack: {stack}"));
    let about = target(&manager, &at, format).await?;
    tell(format, &source_line(&args.code.package));
    if args.network.has_dynamodb_endpoint() {
        options.route_tables = route(&manager, &at, &options, format).await?;
    }
    tell(format, "  Building Lambda package...");
    for note in &found.notes {
        crate::say(note);
    }
    let package = args.code.package.source();
    let wanted = LoadDeployment {
        target: &at.name,
        about: &about,
        options: &options,
        package: &package,
        files: &found.files,
        code_bucket: args.code.code_bucket.as_deref(),
    };
    let reporter = Reporter::new(&args.common.format, &Events::default());
    let (mut creates, mut place) = (false, String::new());
    let deployed = manager
        .deploy_load(&wanted, &mut |progress| {
            if let zae_limiter_infra::Progress::Uploaded { bucket, key, .. } = &progress {
                place = format!("s3://{bucket}/{key}");
                tell(format, &scenarios::line(&found.files));
                tell(format, &format!("  Lambda package built: {place}"));
            }
            show(format, &reporter, &mut creates, &progress);
        })
        .await
        .map_err(|err| failure(&err, &at))?;
    drop(reporter);
    let mut out = Out::to_the_end(format);
    if out.is_json() {
        out.json(&json!({
            "name": at.name,
            "stack": stack,
            "stack_id": deployed.stack.id,
            "status": deployed.stack.status,
            "created": deployed.created,
            "changed": deployed.changed,
            "code": place,
            "scenarios": found.files.len(),
            "route_tables": options.route_tables,
            "outputs": deployed.stack.outputs,
        }))?;
        out.flush()?;
        return Ok(Exit::Success);
    }
    let state = match (deployed.created, deployed.changed) {
        (true, _) => "  CloudFormation stack created",
        (false, true) => "  CloudFormation stack updated",
        (false, false) => "  Stack is up to date",
    };
    out.tell(state)?;
    let function = load::worker(&at.name);
    out.tell(&format!("  Lambda code uploaded: {function}"))?;
    out.tell(&format!("\nStack ready: {stack}"))?;
    Ok(Exit::Success)
}

/// What the target says of roles.
async fn target(manager: &StackManager, at: &Connection, format: &Format) -> Result<LoadTarget, Failure> {
    let about = manager.load_target(&at.name).await;
    let about = about.map_err(|err| failure(&err, at))?;
    if let Some(boundary) = &about.boundary {
        tell(format, &format!("  Using permission boundary: {boundary}"));
    }
    let names = &about.role_name_format;
    if names != "{}" {
        tell(format, &format!("  Using role name format: {names}"));
    }
    tell(format, "  Stack validated");
    Ok(about)
}

fn options(args: &LoadDeploy, vpc: String, subnets: Vec<String>) -> LoadOptions {
    let workers = &args.workers;
    LoadOptions {
        max_workers: workers.max_workers,
        users_per_worker: workers.users_per_worker,
        min_workers: workers.min_workers,
        startup_lead_time: workers.startup_lead_time,
        lambda_timeout: workers.lambda_timeout * 60,
        lambda_memory: workers.lambda_memory,
        capacity_provider: args.master.capacity_provider.provider(),
        ssm_endpoint: args.network.ssm_endpoint,
        image: args.master.image.clone(),
        ..LoadOptions::new(vpc, subnets)
    }
}

/// Ids that are separated by commas, each once.
fn listed(text: &str) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for id in text.split(',').map(str::trim).filter(|id| !id.is_empty()) {
        if !ids.iter().any(|known| known == id) {
            ids.push(id.to_owned());
        }
    }
    ids
}

fn too_few() -> Failure {
    Failure::error(format!("Select at least {SUBNETS} subnets"))
}

/// The route tables that get an endpoint of DynamoDB.
async fn route(
    manager: &StackManager,
    at: &Connection,
    options: &LoadOptions,
    format: &Format,
) -> Result<Vec<String>, Failure> {
    let failed = |err: &Error| failure(err, at);
    let vpc = &options.vpc_id;
    let subnets = match manager.subnets(vpc).await {
        Ok(subnets) => subnets,
        // Such an endpoint has no networks either.
        Err(err) if err.is_code("NotImplemented") => {
            tell(format, "  DynamoDB endpoint not created: the endpoint has no EC2");
            return Ok(Vec::new());
        }
        Err(err) => return Err(failed(&err)),
    };
    check_subnets(vpc, &subnets, &options.subnet_ids)?;
    let own = manager.own_endpoint(&at.name).await.map_err(|err| failed(&err))?;
    let route = manager
        .dynamo_route(vpc, &options.subnet_ids, own.as_deref())
        .await;
    match route.map_err(|err| failed(&err))? {
        DynamoRoute::Endpoint(id) => {
            tell(format, &format!("  DynamoDB endpoint already exists: {id}"));
            Ok(Vec::new())
        }
        DynamoRoute::Tables(tables) => {
            if !tables.is_empty() {
                let tables = tables.join(",");
                tell(format, &format!("  Route tables for DynamoDB endpoint: {tables}"));
            }
            Ok(tables)
        }
    }
}

/// Refuses subnets that are not in the VPC.
fn check_subnets(vpc: &str, there: &[Subnet], chosen: &[String]) -> Result<(), Failure> {
    if there.is_empty() {
        return Err(no_subnets(vpc));
    }
    match chosen
        .iter()
        .find(|id| !there.iter().any(|subnet| subnet.id == **id))
    {
        None => Ok(()),
        Some(absent) => {
            let known: Vec<&str> = there.iter().map(|subnet| subnet.id.as_str()).collect();
            Err(Failure::error(format!(
                "The subnet '{absent}' is not in {vpc}, which has {}.",
                known.join(", ")
            )))
        }
    }
}

fn no_subnets(vpc: &str) -> Failure {
    Failure::error(format!("No subnets found in VPC {vpc}"))
}

async fn choose_target(manager: &StackManager, at: &Connection) -> Result<String, Failure> {
    let found = manager.list().await.map_err(|err| failure(&err, at))?;
    let names: Vec<String> = found
        .into_iter()
        .filter(|one| one.stack.is_healthy())
        .map(|one| one.stack.name)
        .collect();
    if names.is_empty() {
        return Err(Failure::error("No zae-limiter stacks found"));
    }
    let chosen = choose("Select zae-limiter stack:", names.clone()).await?;
    names.into_iter().nth(chosen).ok_or_else(Failure::aborted)
}

async fn choose_vpc(manager: &StackManager, at: &Connection) -> Result<String, Failure> {
    let vpcs = manager.vpcs().await.map_err(|err| failure(&err, at))?;
    if vpcs.is_empty() {
        return Err(Failure::error("No VPCs found"));
    }
    let label = |vpc: &zae_limiter_infra::Vpc| match &vpc.name {
        Some(name) => format!("{} ({name})", vpc.id),
        None => vpc.id.clone(),
    };
    let chosen = choose("Select VPC:", vpcs.iter().map(label).collect()).await?;
    let mut vpcs = vpcs.into_iter().map(|vpc| vpc.id);
    vpcs.nth(chosen).ok_or_else(Failure::aborted)
}

async fn choose_subnets(manager: &StackManager, at: &Connection, vpc: &str) -> Result<Vec<String>, Failure> {
    let subnets = manager.subnets(vpc).await.map_err(|err| failure(&err, at))?;
    if subnets.is_empty() {
        return Err(no_subnets(vpc));
    }
    let label = |subnet: &Subnet| match &subnet.name {
        Some(name) => format!("{} ({}, {name})", subnet.id, subnet.zone),
        None => format!("{} ({})", subnet.id, subnet.zone),
    };
    let labels = subnets.iter().map(label).collect();
    let chosen = choose_several("Select subnets (at least 2):", labels).await?;
    if chosen.len() < SUBNETS {
        return Err(too_few());
    }
    let of = |index: &usize| subnets.get(*index).map(|subnet| subnet.id.clone());
    Ok(chosen.iter().filter_map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_listed_once() {
        assert_eq!(listed(" a, b,,a ,"), ["a", "b"]);
        assert_eq!(listed(""), [""; 0]);
    }

    #[test]
    fn subnets_must_be_in_the_vpc() {
        let subnet = |id: &str| Subnet {
            id: id.into(),
            zone: "z".into(),
            name: None,
        };
        let chosen = ["subnet-a".to_owned(), "subnet-c".to_owned()];
        let refused = |there: &[Subnet]| match check_subnets("vpc-1", there, &chosen) {
            Err(Failure::Message { text, .. }) => text,
            _ => String::new(),
        };
        assert_eq!(refused(&[]), "Error: No subnets found in VPC vpc-1");
        assert_eq!(
            refused(&[subnet("subnet-a"), subnet("subnet-b")]),
            "Error: The subnet 'subnet-c' is not in vpc-1, which has subnet-a, subnet-b."
        );
        assert_eq!(refused(&[subnet("subnet-c"), subnet("subnet-a")]), "");
    }
}

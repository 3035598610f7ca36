//! `limits cfn-template`: a manifest as a stack of its own.

use std::io::{self, Write as _};

use serde_json::{Map, Value as Json, json};
use zae_limiter_core::manifest::Manifest;

use super::file;
use crate::args::limits::CfnTemplate;
use crate::commands::Outcome;
use crate::exit::Exit;
use crate::names;
use crate::text::yaml;

pub(super) fn print(args: &CfnTemplate) -> Outcome {
    names::stack(&args.name)?;
    let manifest = file::read(&args.manifest.file)?;
    let template = template(&args.name, &manifest, args.full);
    let mut to = io::stdout().lock();
    writeln!(to, "{}", yaml::document(&template))?;
    to.flush()?;
    Ok(Exit::Success)
}

fn template(stack: &str, manifest: &Manifest, full: bool) -> Json {
    let mut properties = Map::new();
    let service = json!({ "Fn::ImportValue": format!("{stack}-ProvisionerArn") });
    properties.insert("ServiceToken".into(), service);
    properties.insert("TableName".into(), json!(stack));
    if let Json::Object(declared) = manifest.to_properties() {
        for (name, value) in declared {
            let is_namespace = name == "Namespace";
            properties.insert(name, value);
            if is_namespace && full {
                properties.insert("FullApply".into(), json!(true));
            }
        }
    }
    json!({
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": format!("Declarative limits for namespace '{}'", manifest.namespace),
        "Resources": {
            "TenantLimits": { "Type": "Custom::ZaeLimiterLimits", "Properties": properties },
        },
    })
}

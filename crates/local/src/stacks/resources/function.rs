//! `AWS::Lambda::Function` and `AWS::Lambda::EventSourceMapping`.

use std::collections::BTreeMap;
use std::io::{Cursor, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::properties::Properties;
use super::{Made, NotMade, Place};

/// Lambda's code for a name, or a mapping, that is in use.
const TAKEN: &str = "ResourceConflictException";

const FUNCTION: [&str; 16] = [
    "Architectures",
    "Code",
    "Description",
    "Environment",
    "FunctionName",
    "Handler",
    "LoggingConfig",
    "MemorySize",
    "PackageType",
    "ReservedConcurrentExecutions",
    "Role",
    "Runtime",
    "Tags",
    "Timeout",
    "TracingConfig",
    "VpcConfig",
];

const MAPPING: [&str; 15] = [
    "BatchSize",
    "BisectBatchOnFunctionError",
    "DestinationConfig",
    "Enabled",
    "EventSourceArn",
    "FilterCriteria",
    "FunctionName",
    "FunctionResponseTypes",
    "MaximumBatchingWindowInSeconds",
    "MaximumRecordAgeInSeconds",
    "MaximumRetryAttempts",
    "ParallelizationFactor",
    "StartingPosition",
    "Tags",
    "TumblingWindowInSeconds",
];

/// The physical id of a mapping that is only being made: its own is known afterwards.
const PENDING: &str = "pending";

fn read(properties: &Json) -> Result<Properties<'_>, String> {
    let read = Properties::new("AWS::Lambda::Function", properties, &FUNCTION)?;
    if read.text("PackageType")?.is_some_and(|package| package != "Zip") {
        return Err(
            "PackageType of AWS::Lambda::Function must be Zip: the local endpoint runs no images".into(),
        );
    }
    Ok(read)
}

pub(super) fn name(place: &Place<'_>, properties: &Json) -> Result<String, String> {
    Ok(read(properties)?
        .text("FunctionName")?
        .unwrap_or_else(|| place.generated(64)))
}

pub(super) fn exists(place: &Place<'_>, name: &str) -> bool {
    place.services.lambda.configuration(place.region, name).is_ok()
}

/// A property that is not in the template gets Lambda's default, even if an earlier template had another value.
const DEFAULTS: [(&str, &str); 6] = [
    ("Description", "\"\""),
    ("Environment", "{\"Variables\": {}}"),
    ("Handler", "\"\""),
    ("MemorySize", "128"),
    ("Timeout", "3"),
    ("TracingConfig", "{\"Mode\": \"PassThrough\"}"),
];

fn request(place: &Place<'_>, name: &str, properties: &Json) -> Result<Map<String, Json>, String> {
    let read = read(properties)?;
    let mut request = Map::new();
    for (name, default) in DEFAULTS {
        // They are constants of this file.
        request.insert(name.into(), serde_json::from_str(default).unwrap_or_default());
    }
    request.extend(properties.as_object().cloned().unwrap_or_default());
    request.retain(|name, value| {
        // There are no networks here.
        let ignored = ["PackageType", "ReservedConcurrentExecutions", "VpcConfig"];
        !value.is_null() && !ignored.contains(&name.as_str())
    });
    request.insert("FunctionName".into(), name.into());
    if let Some(text) = properties["Code"]["ZipFile"].as_str() {
        let runtime = properties["Runtime"].as_str().unwrap_or_default();
        request.insert("Code".into(), json!({"ZipFile": inline(runtime, text)?}));
    }
    request.insert("Tags".into(), json!(place.tags(&read)?));
    Ok(request)
}

/// A package of code that stands in the template, which is the text of one file.
fn inline(runtime: &str, text: &str) -> Result<String, String> {
    let file = match runtime {
        python if python.starts_with("python") => "index.py",
        node if node.starts_with("nodejs") => "index.js",
        _ => {
            return Err(format!(
                "ZipFile of Code is for Python and Node.js, and not for {runtime}"
            ));
        }
    };
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let written = archive
        .start_file(file, SimpleFileOptions::default())
        .and_then(|()| Ok(archive.write_all(text.as_bytes())?))
        .and_then(|()| archive.finish());
    let archive = written.map_err(|err| format!("ZipFile of Code cannot be packed: {err}"))?;
    Ok(STANDARD.encode(archive.into_inner()))
}

fn made(name: &str, configuration: &Json) -> Made {
    let arn = configuration["FunctionArn"].as_str().unwrap_or_default();
    Made::new(name, [("Arn", arn.to_owned())])
}

pub(super) async fn create(place: &Place<'_>, name: &str, properties: &Json) -> Result<Made, NotMade> {
    let request = Json::Object(request(place, name, properties)?);
    let created = place
        .services
        .lambda
        .create_function(place.region, &request)
        .await;
    created
        .map(|made_of| made(name, &made_of))
        .map_err(|err| NotMade::refused(err, TAKEN))
}

pub(super) async fn update(place: &Place<'_>, name: &str, old: &Json, new: &Json) -> Result<Made, String> {
    let lambda = &place.services.lambda;
    let mut request = request(place, name, new)?;
    let code = request.remove("Code");
    let tags = request.remove("Tags");
    let architectures = request.remove("Architectures");
    let code_changed = old["Code"] != new["Code"] || old["Architectures"] != new["Architectures"];
    if let Some(Json::Object(mut code)) = code.filter(|_| code_changed) {
        if let Some(architectures) = architectures {
            code.insert("Architectures".into(), architectures);
        }
        let updated = lambda.update_code(place.region, name, &Json::Object(code)).await;
        updated.map_err(|err| err.message)?;
    }
    let updated = lambda
        .update_configuration(place.region, name, &Json::Object(request))
        .await
        .map_err(|err| err.message)?;
    let wanted: BTreeMap<String, String> = tags
        .and_then(|tags| serde_json::from_value(tags).ok())
        .unwrap_or_default();
    let had = lambda.tags(place.region, name).map_err(|err| err.message)?;
    let gone: Vec<String> = had.into_keys().filter(|key| !wanted.contains_key(key)).collect();
    lambda
        .untag(place.region, name, &gone)
        .map_err(|err| err.message)?;
    lambda
        .tag(place.region, name, &wanted)
        .map_err(|err| err.message)?;
    Ok(made(name, &updated))
}

pub(super) async fn delete(place: &Place<'_>, name: &str) -> Result<(), String> {
    super::log_group::gone(
        place.services.lambda.delete_function(place.region, name).await,
        "ResourceNotFoundException",
    )
}

// Mappings.

fn mapping(properties: &Json) -> Result<Json, String> {
    Properties::new("AWS::Lambda::EventSourceMapping", properties, &MAPPING)?;
    let mut request = properties.as_object().cloned().unwrap_or_default();
    // Mappings have no tags here; those of the stack are found by its name.
    request.retain(|name, value| !value.is_null() && name != "Tags");
    Ok(Json::Object(request))
}

pub(super) fn mapping_name(properties: &Json) -> Result<String, String> {
    mapping(properties)?;
    Ok(PENDING.to_owned())
}

fn mapped(answer: &Json) -> Made {
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    let id = text("UUID");
    Made::new(
        id.clone(),
        [
            ("Id", id),
            ("EventSourceMappingArn", text("EventSourceMappingArn")),
        ],
    )
}

pub(super) async fn create_mapping(place: &Place<'_>, properties: &Json) -> Result<Made, NotMade> {
    let created = place
        .services
        .lambda
        .create_mapping(place.region, &mapping(properties)?)
        .await;
    created
        .map(|answer| mapped(&answer))
        .map_err(|err| NotMade::refused(err, TAKEN))
}

pub(super) fn update_mapping(place: &Place<'_>, id: &str, properties: &Json) -> Result<Made, String> {
    let mut request = mapping(properties)?;
    if let Some(map) = request.as_object_mut() {
        // They are what it is, and cannot have changed.
        for fixed in ["EventSourceArn", "StartingPosition", "Tags"] {
            map.remove(fixed);
        }
    }
    let updated = place.services.lambda.update_mapping(place.region, id, &request);
    updated.map(|answer| mapped(&answer)).map_err(|err| err.message)
}

pub(super) fn delete_mapping(place: &Place<'_>, id: &str, properties: &Json) -> Result<(), String> {
    let lambda = &place.services.lambda;
    let mut ids = vec![id.to_owned()];
    if id == PENDING {
        // It was cut off between being made and being written down: whatever connects the two is it.
        let source = properties["EventSourceArn"].as_str();
        let function = properties["FunctionName"].as_str();
        let found = lambda.mappings(place.region, source, function);
        let found = found.map_err(|err| err.message)?;
        ids = found
            .iter()
            .filter_map(|mapping| mapping["UUID"].as_str().map(str::to_owned))
            .collect();
    }
    for id in ids {
        let deleted = lambda.delete_mapping(place.region, &id).map(|_| ());
        super::log_group::gone(deleted, "ResourceNotFoundException")?;
    }
    Ok(())
}

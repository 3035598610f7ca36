//! A function as it is stored and shown.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::clock::now_ms;
use crate::lambda::fields::Fields;
use crate::lambda::names::{FunctionId, LATEST, check_new};
use crate::lambda::program::{Program, Python};
use crate::lambda::refusal;
use crate::wire::{Refusal, uuid};

/// The kind of the documents.
pub(crate) const KIND: &str = "lambda.function";

/// The runtimes whose `bootstrap` is an executable of its own.
const RUNTIMES: [&str; 3] = ["provided.al2023", "provided.al2", "provided"];

/// The family of runtimes that an interpreter of this machine stands in for.
const PYTHON: &str = "python";

/// The runtimes of languages, which are not here but for Python's.
const FOREIGN: [&str; 5] = [PYTHON, "nodejs", "java", "dotnet", "ruby"];

/// Names of variables that Lambda sets itself.
const RESERVED: [&str; 16] = [
    "_HANDLER",
    "_X_AMZN_TRACE_ID",
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
];

/// How many bytes the names and values of a function's variables may have together.
const LARGEST_ENVIRONMENT: usize = 4096;

/// The fields that make up a function's configuration, in `CreateFunction` and `UpdateFunctionConfiguration`.
const CONFIGURATION: [&str; 11] = [
    "FunctionName",
    "Runtime",
    "Handler",
    "Role",
    "Description",
    "Timeout",
    "MemorySize",
    "Environment",
    "TracingConfig",
    "EphemeralStorage",
    "RevisionId",
];

/// The further fields of `CreateFunction`.
const CREATION: [&str; 4] = ["Code", "Architectures", "PackageType", "Tags"];

/// The package of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Code {
    /// SHA-256 of the package, in hexadecimal digits; also the name of the directory that it is unpacked to.
    pub(crate) sha256: String,
    /// The package's size in bytes.
    pub(crate) size: u64,
}

/// A function.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Function {
    pub(crate) region: String,
    pub(crate) name: String,
    pub(crate) runtime: String,
    pub(crate) handler: String,
    pub(crate) role: String,
    pub(crate) description: String,
    pub(crate) timeout_seconds: u32,
    pub(crate) memory_mb: u32,
    pub(crate) storage_mb: u32,
    pub(crate) tracing: String,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) architecture: String,
    pub(crate) code: Code,
    pub(crate) modified_ms: i64,
    pub(crate) revision: String,
    pub(crate) tags: BTreeMap<String, String>,
}

impl Function {
    /// The fields of a request to create one.
    pub(crate) fn creation(request: &Json) -> Result<Fields<'_>, Refusal> {
        let known: Vec<&str> = CONFIGURATION.into_iter().chain(CREATION).collect();
        Fields::read(request, &known)
    }

    /// The function that a request describes, once its code is there.
    pub(crate) fn create(region: &str, fields: &Fields<'_>, code: Code) -> Result<Self, Refusal> {
        let id = FunctionId::read(region, fields.need("FunctionName")?)?;
        check_new(&id.name)?;
        fields.one_of("PackageType", &["Zip"])?;
        let mut function = Self {
            region: id.region,
            name: id.name,
            runtime: fields.need("Runtime")?.to_owned(),
            handler: fields.need("Handler")?.to_owned(),
            role: fields.need("Role")?.to_owned(),
            description: String::new(),
            timeout_seconds: 3,
            memory_mb: 128,
            storage_mb: 512,
            tracing: "PassThrough".to_owned(),
            environment: BTreeMap::new(),
            architecture: architecture(fields)?.unwrap_or("x86_64").to_owned(),
            code,
            modified_ms: 0,
            revision: String::new(),
            tags: fields.tags()?.unwrap_or_default(),
        };
        function.configure(fields)?;
        Ok(function)
    }

    /// What runs it here, or why nothing does.
    pub(crate) fn program(&self, python: &Python) -> Result<Program, String> {
        if RUNTIMES.contains(&self.runtime.as_str()) {
            return Ok(Program::Bootstrap);
        }
        let (name, runtime) = (&self.name, &self.runtime);
        if !runtime.starts_with(PYTHON) {
            return Err(format!(
                "the function {name} needs the runtime {runtime}, and the local endpoint runs native functions ({}) and \
                 functions in Python only.",
                RUNTIMES.join(", ")
            ));
        }
        match python.path() {
            Some(interpreter) => Ok(Program::Python(interpreter.to_owned())),
            None => Err(format!(
                "the function {name} needs the runtime {runtime}, and this machine has no Python interpreter. Install one, \
                 or name one with 'zae-limiter local up --python PATH'. Without one, deploy with --no-aggregator and \
                 --no-provisioner, or with the Rust command zae-limiter, whose functions are native."
            )),
        }
    }

    /// The fields of a request to change the configuration.
    pub(crate) fn update(request: &Json) -> Result<Fields<'_>, Refusal> {
        Fields::read(request, &CONFIGURATION)
    }

    /// Takes over what a request says of the configuration.
    pub(crate) fn configure(&mut self, fields: &Fields<'_>) -> Result<(), Refusal> {
        self.check_revision(fields)?;
        if let Some(runtime) = fields.text("Runtime")? {
            check_runtime(runtime)?;
            runtime.clone_into(&mut self.runtime);
        }
        for (name, slot) in [
            ("Handler", &mut self.handler),
            ("Role", &mut self.role),
            ("Description", &mut self.description),
        ] {
            if let Some(text) = fields.text(name)? {
                text.clone_into(slot);
            }
        }
        if let Some(seconds) = fields.number("Timeout", 1..=900)? {
            self.timeout_seconds = seconds as u32;
        }
        if let Some(megabytes) = fields.number("MemorySize", 128..=10_240)? {
            self.memory_mb = megabytes as u32;
        }
        if let Some(storage) = fields.inner("EphemeralStorage", &["Size"])?
            && let Some(megabytes) = storage.number("Size", 512..=10_240)?
        {
            self.storage_mb = megabytes as u32;
        }
        if let Some(tracing) = fields.inner("TracingConfig", &["Mode"])?
            && let Some(mode) = tracing.one_of("Mode", &["PassThrough", "Active"])?
        {
            mode.clone_into(&mut self.tracing);
        }
        if let Some(environment) = fields.inner("Environment", &["Variables"])? {
            let variables = environment.pairs("Variables")?.unwrap_or_default();
            check_environment(&variables)?;
            self.environment = variables;
        }
        self.touch();
        Ok(())
    }

    /// Refuses a change that was made for another state of the function.
    pub(crate) fn check_revision(&self, fields: &Fields<'_>) -> Result<(), Refusal> {
        match fields.text("RevisionId")? {
            Some(revision) if revision != self.revision => Err(Refusal::new(
                "PreconditionFailedException",
                format!(
                    "The RevisionId provided ({revision}) does not match the function's ({}); get the function anew",
                    self.revision
                ),
            )
            .status(412)),
            _ => Ok(()),
        }
    }

    /// Marks it as changed now.
    pub(crate) fn touch(&mut self) {
        self.modified_ms = now_ms();
        self.revision = uuid();
    }

    pub(crate) fn id(&self) -> FunctionId {
        FunctionId {
            region: self.region.clone(),
            name: self.name.clone(),
        }
    }

    /// As Lambda shows a function's configuration.
    pub(crate) fn configuration(&self) -> Json {
        let id = self.id();
        let modified = Timestamp::from_millisecond(self.modified_ms).unwrap_or_default();
        let mut shown = json!({
            "FunctionName": self.name,
            "FunctionArn": id.arn(),
            "Runtime": self.runtime,
            "Role": self.role,
            "Handler": self.handler,
            "CodeSize": self.code.size,
            "CodeSha256": base64_of_hex(&self.code.sha256),
            "Description": self.description,
            "Timeout": self.timeout_seconds,
            "MemorySize": self.memory_mb,
            "LastModified": modified.strftime("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string(),
            "Version": LATEST,
            "TracingConfig": {"Mode": self.tracing},
            "RevisionId": self.revision,
            "State": "Active",
            "LastUpdateStatus": "Successful",
            "PackageType": "Zip",
            "Architectures": [self.architecture],
            "EphemeralStorage": {"Size": self.storage_mb},
            "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
            "LoggingConfig": {"LogFormat": "Text", "LogGroup": id.log_group()},
        });
        if !self.environment.is_empty() {
            shown["Environment"] = json!({"Variables": self.environment});
        }
        shown
    }
}

/// The architecture that a request asks for.
pub(crate) fn architecture<'a>(fields: &Fields<'a>) -> Result<Option<&'a str>, Refusal> {
    match fields.texts("Architectures")?.as_deref() {
        None => Ok(None),
        Some([one]) if ["x86_64", "arm64"].contains(one) => Ok(Some(one)),
        Some(other) => Err(refusal(format!(
            "Architectures is {other:?}; it must be one of [x86_64] and [arm64]"
        ))),
    }
}

/// Accepts a runtime that Lambda has. Those that are not native are kept, so that stacks with them can be deployed,
/// but nothing runs them.
fn check_runtime(runtime: &str) -> Result<(), Refusal> {
    if RUNTIMES.contains(&runtime) || FOREIGN.iter().any(|family| runtime.starts_with(family)) {
        return Ok(());
    }
    Err(refusal(format!(
        "Runtime is {runtime}; it must be one of {}, or a version of one of {}",
        RUNTIMES.join(", "),
        FOREIGN.join(", ")
    )))
}

fn check_environment(variables: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let reserved: Vec<&str> = variables
        .keys()
        .map(String::as_str)
        .filter(|name| RESERVED.contains(name))
        .collect();
    if !reserved.is_empty() {
        return Err(refusal(format!(
            "Lambda was unable to configure your environment variables because the environment variables you have \
             provided contains reserved keys that are currently not supported for modification. Reserved keys used \
             in this request: {}",
            reserved.join(", ")
        )));
    }
    for (name, value) in variables {
        let mut letters = name.chars();
        let named = letters.next().is_some_and(|first| first.is_ascii_alphabetic())
            && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        if !named || value.contains('\0') {
            return Err(refusal(format!(
                "Environment.Variables has '{name}'; a name is a letter followed by letters, digits and '_', and no \
                 value holds a NUL"
            )));
        }
    }
    let size: usize = variables
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if size > LARGEST_ENVIRONMENT {
        return Err(refusal(format!(
            "Environment.Variables has {size} bytes; it may have {LARGEST_ENVIRONMENT}"
        )));
    }
    Ok(())
}

fn base64_of_hex(hex: &str) -> String {
    let bytes: Vec<u8> = (0..hex.len() / 2)
        .filter_map(|at| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok())
        .collect();
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(request: &Json) -> Result<Function, Refusal> {
        let code = Code {
            sha256: "00ff".into(),
            size: 7,
        };
        Function::create("eu-west-1", &Function::creation(request)?, code)
    }

    fn request() -> Json {
        json!({
            "FunctionName": "f", "Runtime": "provided.al2023", "Handler": "h", "Role": "r", "Timeout": "7",
            "Environment": {"Variables": {"A": "b"}}, "Code": {"ZipFile": ""}, "Architectures": ["arm64"],
        })
    }

    #[test]
    fn a_function_is_shown_as_lambda_does() {
        let shown = create(&request()).unwrap().configuration();
        assert_eq!(
            shown["FunctionArn"],
            "arn:aws:lambda:eu-west-1:000000000000:function:f"
        );
        assert_eq!(
            (&shown["Timeout"], &shown["MemorySize"]),
            (&json!(7), &json!(128))
        );
        assert_eq!(shown["CodeSha256"], "AP8=");
        assert_eq!(shown["Architectures"], json!(["arm64"]));
        assert_eq!(shown["Environment"], json!({"Variables": {"A": "b"}}));
        let modified = shown["LastModified"].as_str().unwrap();
        assert_eq!((modified.len(), &modified[23..]), (28, "+0000"));
    }

    #[test]
    fn what_does_not_run_here_is_refused_by_name() {
        for (field, value, said) in [
            ("Runtime", json!("cobol"), "python"),
            ("Layers", json!(["l"]), "Layers"),
            ("Timeout", json!(901), "901"),
            ("Publish", json!(true), "Publish"),
            ("Architectures", json!(["mips"]), "mips"),
            ("PackageType", json!("Image"), "Image"),
            (
                "Environment",
                json!({"Variables": {"AWS_REGION": "x"}}),
                "AWS_REGION",
            ),
            ("Environment", json!({"Variables": {"a-b": "x"}}), "a-b"),
            (
                "Environment",
                json!({"Variables": {"A": "x".repeat(5_000)}}),
                "5001",
            ),
            ("FunctionName", json!("n".repeat(65)), "65"),
        ] {
            let mut request = request();
            request[field] = value;
            let err = create(&request).unwrap_err();
            assert_eq!(err.code, "InvalidParameterValueException");
            assert!(err.message.contains(said), "{field}: {}", err.message);
        }
    }

    #[test]
    fn a_change_leaves_the_rest_and_minds_the_revision() {
        let mut function = create(&request()).unwrap();
        let before = function.revision.clone();
        let change = json!({"MemorySize": 256, "RevisionId": before});
        function.configure(&Function::update(&change).unwrap()).unwrap();
        assert_eq!((function.memory_mb, function.timeout_seconds), (256, 7));
        let err = function
            .configure(&Function::update(&change).unwrap())
            .unwrap_err();
        assert_eq!(
            (err.status, err.code.as_ref()),
            (412, "PreconditionFailedException")
        );
        let dropped = json!({"Environment": {}});
        function.configure(&Function::update(&dropped).unwrap()).unwrap();
        assert!(function.environment.is_empty());
    }
}

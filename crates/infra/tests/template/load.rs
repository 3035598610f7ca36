//! The template of the stack that generates load.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use zae_limiter_infra::names::load;
use zae_limiter_infra::template::{
    FUNCTION_ARCHITECTURE, FUNCTION_CODE_BUCKET, FUNCTION_CODE_KEY, LOAD_TEMPLATE, MAX_BODY_BYTES,
};

use crate::stack::{Mention, STACK, Stack, Template, is_pseudo, names, text};

/// The parameters that have no default.
const REQUIRED: [(&str, &str); 5] = [
    ("TargetStackName", "target"),
    ("VpcId", "vpc-1"),
    ("PrivateSubnetIds", "subnet-a,subnet-b"),
    (FUNCTION_CODE_BUCKET, "code"),
    (FUNCTION_CODE_KEY, "functions/abc.zip"),
];

const BOUNDARY: &str = "arn:aws:iam::123456789012:policy/fence";
const MIRROR: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/base:1";
const POLICY: &str = "<target-FullAccessPolicyArn>";

fn template() -> Template {
    Template::parse(LOAD_TEMPLATE)
}

fn with(given: &[(&str, &str)]) -> Stack {
    template().with(&[&REQUIRED, given].concat())
}

#[test]
fn the_template_fits_into_a_request() {
    assert!(
        LOAD_TEMPLATE.len() <= MAX_BODY_BYTES,
        "{} bytes",
        LOAD_TEMPLATE.len()
    );
}

#[test]
fn names_lead_somewhere_and_nothing_is_idle() {
    let template = template();
    let declared = |section: &str, name: &str| template.section(section).contains_key(name);
    let (mut parameters, mut conditions) = (BTreeSet::new(), BTreeSet::new());
    for (path, mention) in template.mentions() {
        let found = match &mention {
            Mention::Ref(name) => {
                parameters.insert(name.clone());
                is_pseudo(name) || declared("Parameters", name) || declared("Resources", name)
            }
            Mention::Resource(name) => declared("Resources", name),
            Mention::Condition(name) => {
                conditions.insert(name.clone());
                declared("Conditions", name)
            }
        };
        assert!(found, "{path}: {mention:?} leads nowhere");
    }
    for name in template.section("Parameters").keys() {
        assert!(parameters.contains(name), "parameter {name} has no effect");
    }
    for name in template.section("Conditions").keys() {
        assert!(conditions.contains(name), "condition {name} is not used");
    }
    let groups = &template.body["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"];
    let mut grouped: Vec<String> = groups
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| names(&group["Parameters"]))
        .map(str::to_owned)
        .collect();
    grouped.sort();
    let declared: Vec<&String> = template.section("Parameters").keys().collect();
    let declared: BTreeSet<&String> = declared.into_iter().collect();
    assert_eq!(grouped.iter().collect::<Vec<_>>(), Vec::from_iter(declared));
}

/// The switches, with a value for each way.
const SWITCHES: [(&str, [&str; 2]); 6] = [
    ("PermissionBoundary", ["", BOUNDARY]),
    ("PrivateRouteTableIds", ["", "rtb-a,rtb-b"]),
    ("CreateSsmEndpoint", ["false", "true"]),
    ("CapacityProvider", ["FARGATE_SPOT", "FARGATE"]),
    (FUNCTION_ARCHITECTURE, ["x86_64", "arm64"]),
    ("MasterImage", ["public.ecr.aws/base:1", MIRROR]),
];

/// Resources that always exist, with their types.
const ALWAYS: [(&str, &str); 14] = [
    ("WorkerSecurityGroup", "AWS::EC2::SecurityGroup"),
    ("MasterSecurityGroup", "AWS::EC2::SecurityGroup"),
    ("MasterPageIngress", "AWS::EC2::SecurityGroupIngress"),
    ("WorkerLogGroup", "AWS::Logs::LogGroup"),
    ("MasterLogGroup", "AWS::Logs::LogGroup"),
    ("WorkerRole", "AWS::IAM::Role"),
    ("WorkerCalls", "AWS::Lambda::EventInvokeConfig"),
    ("WorkerFunction", "AWS::Lambda::Function"),
    ("ExecutionRole", "AWS::IAM::Role"),
    ("TaskRole", "AWS::IAM::Role"),
    ("Cluster", "AWS::ECS::Cluster"),
    ("ClusterCapacity", "AWS::ECS::ClusterCapacityProviderAssociations"),
    ("MasterTask", "AWS::ECS::TaskDefinition"),
    ("MasterService", "AWS::ECS::Service"),
];

const OUTPUTS: [(&str, &str); 4] = [
    ("ClusterArn", "@Cluster.Arn"),
    ("MasterServiceName", "@MasterService.Name"),
    ("WorkerFunctionArn", "@WorkerFunction.Arn"),
    ("MasterSecurityGroupId", "@MasterSecurityGroup.GroupId"),
];

#[test]
fn every_combination_of_switches_makes_a_whole_stack() {
    let template = template();
    for combination in 0_usize..1 << SWITCHES.len() {
        let given: Vec<(&str, &str)> = SWITCHES
            .iter()
            .enumerate()
            .map(|(bit, (name, values))| (*name, values[combination >> bit & 1]))
            .collect();
        let is_on = |name: &str| {
            let at = SWITCHES.iter().position(|(switch, _)| *switch == name).unwrap();
            combination >> at & 1 == 1
        };
        let stack = template.with(&[&REQUIRED, &given[..]].concat());
        assert!(stack.dangling.is_empty(), "{:#?} with {given:?}", stack.dangling);
        let mut expected: Vec<(&str, &str)> = ALWAYS.to_vec();
        if is_on("PrivateRouteTableIds") {
            expected.push(("DynamoDBEndpoint", "AWS::EC2::VPCEndpoint"));
        }
        if is_on("CreateSsmEndpoint") {
            expected.push(("SsmEndpointSecurityGroup", "AWS::EC2::SecurityGroup"));
            let endpoints = ["SsmEndpoint", "SsmMessagesEndpoint", "Ec2MessagesEndpoint"];
            expected.extend(endpoints.map(|name| (name, "AWS::EC2::VPCEndpoint")));
        }
        expected.sort_unstable();
        let found: Vec<(&str, &str)> = stack
            .resources
            .iter()
            .map(|(name, resource)| (name.as_str(), resource["Type"].as_str().unwrap()))
            .collect();
        assert_eq!(found, expected, "with {given:?}");

        let outputs: Vec<&str> = stack.outputs.keys().map(String::as_str).collect();
        assert_eq!(outputs.len(), OUTPUTS.len(), "{outputs:?}");
        for (name, value) in OUTPUTS {
            let output = &stack.outputs[name];
            assert_eq!(output["Value"], value, "{name}");
            assert_eq!(output["Export"], json!({"Name": format!("{STACK}-{name}")}));
        }

        let boundary = is_on("PermissionBoundary").then_some(BOUNDARY);
        for role in ["WorkerRole", "ExecutionRole", "TaskRole"] {
            let found = stack.properties(role).get("PermissionsBoundary");
            assert_eq!(found.and_then(Value::as_str), boundary, "{role} with {given:?}");
        }
        let provider = if is_on("CapacityProvider") {
            "FARGATE"
        } else {
            "FARGATE_SPOT"
        };
        let strategy = json!([{"CapacityProvider": provider, "Weight": 1}]);
        let capacity = stack.properties("ClusterCapacity");
        assert_eq!(capacity["DefaultCapacityProviderStrategy"], strategy);
        assert_eq!(
            stack.properties("MasterService")["CapacityProviderStrategy"],
            strategy
        );
        let both = if is_on("CapacityProvider") {
            json!(["FARGATE"])
        } else {
            json!(["FARGATE_SPOT", "FARGATE"])
        };
        assert_eq!(capacity["CapacityProviders"], both, "with {given:?}");
        let arm = is_on(FUNCTION_ARCHITECTURE);
        let platform = &stack.properties("MasterTask")["RuntimePlatform"];
        assert_eq!(platform["CpuArchitecture"], if arm { "ARM64" } else { "X86_64" });
        let function = stack.properties("WorkerFunction");
        assert_eq!(
            function["Architectures"],
            json!([if arm { "arm64" } else { "x86_64" }])
        );
        let policies = stack.properties("ExecutionRole")["Policies"].as_array().unwrap();
        assert_eq!(
            policies.len(),
            1 + usize::from(is_on("MasterImage")),
            "with {given:?}"
        );
    }
}

#[test]
fn names_are_those_that_the_code_uses() {
    // The stack of the tests has this name.
    let stack = with(&[]);
    let named = |resource: &str, property: &str| text(&stack.properties(resource)[property]);
    let target = "my-app";
    let of = |name: String| name.replace(&load::stack(target), STACK);
    assert_eq!(named("WorkerFunction", "FunctionName"), of(load::worker(target)));
    assert_eq!(named("Cluster", "ClusterName"), of(load::cluster(target)));
    assert_eq!(named("MasterService", "ServiceName"), of(load::master(target)));
    assert_eq!(named("MasterTask", "Family"), of(load::master(target)));
    assert_eq!(
        named("WorkerLogGroup", "LogGroupName"),
        format!("/aws/lambda/{STACK}-worker")
    );
    assert_eq!(
        named("MasterLogGroup", "LogGroupName"),
        format!("/aws/ecs/{STACK}-master")
    );
    for group in ["WorkerLogGroup", "MasterLogGroup"] {
        assert_eq!(stack.properties(group)["RetentionInDays"], 7);
    }
}

#[test]
fn names_of_roles_follow_the_format() {
    for (format, before, after) in [("{}", "", ""), ("pb-{}-x", "pb-", "-x"), ("team.{}", "team.", "")] {
        let stack = with(&[("RoleNameFormat", format)]);
        for (role, part) in [
            ("WorkerRole", "worker"),
            ("ExecutionRole", "exec"),
            ("TaskRole", "task"),
        ] {
            let name = format!("{before}{STACK}-{part}{after}");
            assert_eq!(stack.properties(role)["RoleName"], name, "{format}");
        }
    }
}

/// Statements of a role's own policies: id, actions, resources.
fn statements(stack: &Stack, role: &str) -> Vec<(String, Vec<String>, Vec<String>)> {
    let Some(policies) = stack.properties(role).get("Policies") else {
        return Vec::new();
    };
    let owned = |value: &Value| names(value).into_iter().map(str::to_owned).collect::<Vec<_>>();
    policies
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|policy| policy["PolicyDocument"]["Statement"].as_array().unwrap())
        .map(|statement| {
            assert_eq!(statement["Effect"], "Allow");
            (
                text(&statement["Sid"]),
                owned(&statement["Action"]),
                owned(&statement["Resource"]),
            )
        })
        .collect()
}

#[test]
fn roles_may_do_what_they_need() {
    let stack = with(&[("MasterImage", MIRROR)]);
    let lambda = "arn:aws:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole";
    let trust = |role: &str| {
        let statement = &stack.properties(role)["AssumeRolePolicyDocument"]["Statement"];
        text(&statement[0]["Principal"]["Service"])
    };
    assert_eq!(trust("WorkerRole"), "lambda.amazonaws.com");
    assert_eq!(
        stack.properties("WorkerRole")["ManagedPolicyArns"],
        json!([lambda, POLICY])
    );
    assert_eq!(statements(&stack, "WorkerRole"), []);

    assert_eq!(trust("TaskRole"), "ecs-tasks.amazonaws.com");
    assert_eq!(stack.properties("TaskRole")["ManagedPolicyArns"], json!([POLICY]));
    let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let statement = |id: &str, actions: &[&str], on: &str| (id.to_owned(), list(actions), list(&[on]));
    let channels = [
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
    ];
    assert_eq!(
        statements(&stack, "TaskRole"),
        [
            statement("Workers", &["lambda:InvokeFunction"], "@WorkerFunction.Arn"),
            statement("Tunnel", &channels, "*"),
        ]
    );

    assert_eq!(trust("ExecutionRole"), "ecs-tasks.amazonaws.com");
    assert_eq!(stack.properties("ExecutionRole").get("ManagedPolicyArns"), None);
    let logs = ["logs:CreateLogStream", "logs:PutLogEvents"];
    let pull = [
        "ecr:BatchGetImage",
        "ecr:GetDownloadUrlForLayer",
        "ecr:BatchCheckLayerAvailability",
    ];
    assert_eq!(
        statements(&stack, "ExecutionRole"),
        [
            statement("Logs", &logs, "@MasterLogGroup.Arn"),
            statement("RegistryToken", &["ecr:GetAuthorizationToken"], "*"),
            statement("Image", &pull, "arn:aws:ecr:*:*:repository/*"),
        ]
    );
    let public = with(&[]);
    assert_eq!(
        statements(&public, "ExecutionRole"),
        [statement("Logs", &logs, "@MasterLogGroup.Arn")]
    );
}

#[test]
fn traffic_is_let_in_from_the_workers_and_the_tunnel_alone() {
    let stack = with(&[("CreateSsmEndpoint", "true")]);
    let rule = |rule: &Value| {
        let ports = (text(&rule["FromPort"]), text(&rule["ToPort"]));
        (
            text(&rule["IpProtocol"]),
            ports,
            text(&rule["SourceSecurityGroupId"]),
        )
    };
    let expected = |from: &str, to: &str, source: &str| {
        (
            "tcp".to_owned(),
            (from.to_owned(), to.to_owned()),
            format!("@{source}.GroupId"),
        )
    };
    let inbound = |group: &str| {
        let rules = stack.properties(group)["SecurityGroupIngress"]
            .as_array()
            .unwrap();
        rules.iter().map(rule).collect::<Vec<_>>()
    };
    assert_eq!(
        inbound("MasterSecurityGroup"),
        [expected("5557", "5558", "WorkerSecurityGroup")]
    );
    assert_eq!(
        inbound("SsmEndpointSecurityGroup"),
        [expected("443", "443", "MasterSecurityGroup")]
    );
    let page = stack.properties("MasterPageIngress");
    assert_eq!(rule(page), expected("8089", "8089", "MasterSecurityGroup"));
    assert_eq!(page["GroupId"], "@MasterSecurityGroup.GroupId");
    assert_eq!(
        stack
            .properties("WorkerSecurityGroup")
            .get("SecurityGroupIngress"),
        None
    );
    for (endpoint, service) in [
        ("SsmEndpoint", "ssm"),
        ("SsmMessagesEndpoint", "ssmmessages"),
        ("Ec2MessagesEndpoint", "ec2messages"),
    ] {
        let name = format!("com.amazonaws.eu-central-1.{service}");
        assert_eq!(stack.properties(endpoint)["ServiceName"], name);
    }
    let gateway = with(&[("PrivateRouteTableIds", "rtb-a")]);
    let gateway = gateway.properties("DynamoDBEndpoint");
    assert_eq!(gateway["ServiceName"], "com.amazonaws.eu-central-1.dynamodb");
    assert_eq!(gateway["VpcEndpointType"], "Gateway");
    assert_eq!(gateway["RouteTableIds"], "rtb-a");
}

#[test]
fn the_worker_is_this_program_in_the_network_of_the_user() {
    let stack = with(&[
        ("MaxWorkers", "7"),
        ("LambdaTimeout", "600"),
        ("LambdaMemory", "512"),
    ]);
    let function = stack.properties("WorkerFunction");
    for (property, value) in [
        ("Runtime", json!("provided.al2023")),
        ("Handler", json!("load-worker")),
        ("Code", json!({"S3Bucket": "code", "S3Key": "functions/abc.zip"})),
        ("ReservedConcurrentExecutions", json!("7")),
        ("Timeout", json!("600")),
        ("MemorySize", json!("512")),
        ("Role", json!("@WorkerRole.Arn")),
        (
            "VpcConfig",
            json!({"SubnetIds": "subnet-a,subnet-b", "SecurityGroupIds": ["@WorkerSecurityGroup.GroupId"]}),
        ),
        (
            "Environment",
            json!({"Variables": {"TARGET_STACK_NAME": "target", "TARGET_REGION": "eu-central-1"}}),
        ),
    ] {
        assert_eq!(function[property], value, "{property}");
    }
    let task = stack.properties("MasterTask");
    assert_eq!((&task["Cpu"], &task["Memory"]), (&json!("1024"), &json!("2048")));
    let container = &task["ContainerDefinitions"][0];
    let environment: Vec<(String, String)> = container["Environment"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (text(&entry["Name"]), text(&entry["Value"])))
        .collect();
    let expected = [
        ("TARGET_STACK_NAME", "target"),
        ("TARGET_REGION", "eu-central-1"),
        ("WORKER_FUNCTION_NAME", "@WorkerFunction"),
        ("LAMBDA_TIMEOUT", "600"),
        ("USERS_PER_WORKER", "10"),
        ("MIN_WORKERS", "1"),
        ("MAX_WORKERS", "7"),
        ("STARTUP_LEAD_TIME", "20"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(environment, expected);
    let service = stack.properties("MasterService");
    assert_eq!(service["DesiredCount"], 0);
    assert_eq!(service["EnableExecuteCommand"], true);
}

#[test]
fn parameters_have_the_ranges_of_the_command() {
    let template = template();
    let parameters = template.section("Parameters");
    for (name, default, least, most) in [
        ("MaxWorkers", 100, 1, 1000),
        ("UsersPerWorker", 10, 1, 1000),
        ("MinWorkers", 1, 0, 1000),
        ("StartupLeadTime", 20, 0, 120),
        ("LambdaTimeout", 300, 60, 900),
        ("LambdaMemory", 1769, 128, 10240),
    ] {
        let mut found = parameters[name].clone();
        found.as_object_mut().unwrap().remove("Description").unwrap();
        let expected = json!({"Type": "Number", "Default": default, "MinValue": least, "MaxValue": most});
        assert_eq!(found, expected, "{name}");
    }
    let required: BTreeSet<&str> = parameters
        .iter()
        .filter(|(_, parameter)| parameter.get("Default").is_none())
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(required, REQUIRED.iter().map(|(name, _)| *name).collect());
}

//! Stacks from outside: what they go through, what is left when something fails, what outlives a restart.

use std::time::Duration;

use serde_json::json;

use crate::client::Running;

/// A table, something that uses it, and what may fail: with `WithFault` set, the last resource cannot be made.
const TEMPLATE: &str = "
Parameters:
  Name: {Type: String}
  WithExtra: {Type: String, Default: 'no', AllowedValues: ['yes', 'no']}
  WithFault: {Type: String, Default: 'no'}
  Level: {Type: Number, Default: 1}
Conditions:
  HasExtra: !Equals [!Ref WithExtra, 'yes']
  IsBroken: !Equals [!Ref WithFault, 'yes']
Resources:
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      TableName: !Ref Name
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{AttributeName: PK, AttributeType: S}]
      KeySchema: [{AttributeName: PK, KeyType: HASH}]
      StreamSpecification: {StreamViewType: NEW_AND_OLD_IMAGES}
  Alarm:
    Type: AWS::CloudWatch::Alarm
    Properties:
      AlarmName: !Sub '${Table}-alarm'
      ComparisonOperator: GreaterThanThreshold
      EvaluationPeriods: !Ref Level
  Extra:
    Type: AWS::Logs::LogGroup
    Condition: HasExtra
    Properties: {LogGroupName: !Sub '/${AWS::StackName}/extra'}
  Broken:
    Type: AWS::CloudWatch::Alarm
    Condition: IsBroken
    DependsOn: [Alarm]
    Properties: {ComparisonOperator: GreaterThanThreshold, EvaluationPeriod: 1}
Outputs:
  Arn: {Value: !GetAtt Table.Arn, Export: {Name: !Sub '${AWS::StackName}-arn'}}
";

/// Parameters of a call.
fn parameters<'a>(stack: &'a str, values: &[(&'a str, &'a str)]) -> Vec<(String, &'a str)> {
    let mut all = vec![("StackName".to_owned(), stack)];
    for (index, (key, value)) in values.iter().enumerate() {
        let member = format!("Parameters.member.{}", index + 1);
        all.push((format!("{member}.ParameterKey"), *key));
        all.push((format!("{member}.ParameterValue"), *value));
    }
    all
}

async fn call(
    endpoint: &Running,
    action: &str,
    stack: &str,
    template: Option<&str>,
    values: &[(&str, &str)],
) -> crate::client::Answer {
    let mut all = parameters(stack, values);
    match template {
        Some(template) => all.push(("TemplateBody".to_owned(), template)),
        None if action == "UpdateStack" => all.push(("UsePreviousTemplate".to_owned(), "true")),
        None => {}
    }
    let all: Vec<(&str, &str)> = all.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    endpoint.cloudformation(action, &all).await
}

/// Waits until no operation is under way; the stack's status.
async fn settled(endpoint: &Running, stack: &str) -> String {
    loop {
        let answer = endpoint
            .cloudformation("DescribeStacks", &[("StackName", stack)])
            .await;
        let status = answer.element("StackStatus").to_owned();
        if !status.ends_with("_IN_PROGRESS") {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What happened to resources of a stack, oldest first: `Logical STATUS`.
async fn events(endpoint: &Running, stack: &str) -> Vec<String> {
    let answer = endpoint
        .cloudformation("DescribeStackEvents", &[("StackName", stack)])
        .await;
    let ids = answer.elements("LogicalResourceId");
    let statuses = answer.elements("ResourceStatus");
    let mut all: Vec<String> = ids
        .iter()
        .zip(statuses)
        .map(|(id, status)| format!("{id} {status}"))
        .collect();
    all.reverse();
    all
}

async fn tables(endpoint: &Running) -> serde_json::Value {
    endpoint.dynamodb("ListTables", &json!({})).await["TableNames"].clone()
}

async fn created(endpoint: &Running, values: &[(&str, &str)]) {
    let answer = call(endpoint, "CreateStack", "app", Some(TEMPLATE), values).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(settled(endpoint, "app").await, "CREATE_COMPLETE");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_creation_to_deletion() {
    let endpoint = Running::ephemeral().await;
    created(&endpoint, &[("Name", "limits")]).await;
    assert_eq!(tables(&endpoint).await, json!(["limits"]));
    let described = endpoint
        .cloudformation("DescribeStacks", &[("StackName", "app")])
        .await;
    let arn = "arn:aws:dynamodb:eu-west-1:000000000000:table/limits";
    assert_eq!(described.element("OutputValue"), arn);
    let exports = endpoint.cloudformation("ListExports", &[]).await;
    assert_eq!(
        (exports.element("Name"), exports.element("Value")),
        ("app-arn", arn)
    );
    assert_eq!(
        events(&endpoint, "app").await,
        [
            "app CREATE_IN_PROGRESS",
            "Table CREATE_IN_PROGRESS",
            "Table CREATE_IN_PROGRESS",
            "Table CREATE_COMPLETE",
            "Alarm CREATE_IN_PROGRESS",
            "Alarm CREATE_IN_PROGRESS",
            "Alarm CREATE_COMPLETE",
            "app CREATE_COMPLETE",
        ]
    );
    let again = call(&endpoint, "CreateStack", "app", Some(TEMPLATE), &[("Name", "x")]).await;
    assert_eq!(again.element("Code"), "AlreadyExistsException");

    let id = described.element("StackId").to_owned();
    endpoint
        .cloudformation("DeleteStack", &[("StackName", "app")])
        .await;
    assert_eq!(settled(&endpoint, &id).await, "DELETE_COMPLETE");
    assert_eq!(tables(&endpoint).await, json!([]));
    let gone = endpoint
        .cloudformation("DescribeStacks", &[("StackName", "app")])
        .await;
    assert_eq!(gone.element("Message"), "Stack with id app does not exist");
    endpoint.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_fails_leaves_nothing() {
    let endpoint = Running::ephemeral().await;
    let values = [("Name", "limits"), ("WithFault", "yes")];
    call(&endpoint, "CreateStack", "app", Some(TEMPLATE), &values).await;
    assert_eq!(settled(&endpoint, "app").await, "ROLLBACK_COMPLETE");
    assert_eq!(tables(&endpoint).await, json!([]));
    let told = endpoint
        .cloudformation("DescribeStackEvents", &[("StackName", "app")])
        .await;
    let reasons = told.elements("ResourceStatusReason").join("\n");
    assert!(
        reasons.contains("does not support the property EvaluationPeriod"),
        "{reasons}"
    );
    assert!(reasons.contains("failed to create: [Broken]"), "{reasons}");
    // It can only be deleted.
    let update = call(&endpoint, "UpdateStack", "app", None, &values).await;
    assert!(
        update
            .element("Message")
            .contains("ROLLBACK_COMPLETE state and can not be updated")
    );

    // Nor does it take over a resource of another client.
    let table = json!({
        "TableName": "theirs", "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "PK", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "PK", "KeyType": "HASH"}],
    });
    endpoint.dynamodb("CreateTable", &table).await;
    call(
        &endpoint,
        "CreateStack",
        "other",
        Some(TEMPLATE),
        &[("Name", "theirs")],
    )
    .await;
    assert_eq!(settled(&endpoint, "other").await, "ROLLBACK_COMPLETE");
    assert_eq!(tables(&endpoint).await, json!(["theirs"]));
    endpoint.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_be_retained_outlives_a_creation_that_fails() {
    let template = "
Resources:
  Kept:
    Type: AWS::SQS::Queue
    DeletionPolicy: Retain
    Properties: {QueueName: kept, Tags: [{Key: own, Value: mine}, {Key: both, Value: mine}]}
  Gone:
    Type: AWS::SQS::Queue
    DeletionPolicy: RetainExceptOnCreate
    Properties: {QueueName: gone}
  Broken:
    Type: AWS::CloudWatch::Alarm
    DependsOn: [Kept, Gone]
    Properties: {ComparisonOperator: GreaterThanThreshold, EvaluationPeriod: 1}
";
    let endpoint = Running::ephemeral().await;
    let answer = endpoint
        .cloudformation(
            "CreateStack",
            &[
                ("StackName", "app"),
                ("TemplateBody", template),
                ("Tags.member.1.Key", "both"),
                ("Tags.member.1.Value", "the stack's"),
                ("Tags.member.2.Key", "team"),
                ("Tags.member.2.Value", "gateway"),
            ],
        )
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(settled(&endpoint, "app").await, "ROLLBACK_COMPLETE");
    let told = events(&endpoint, "app").await;
    assert!(told.contains(&"Kept DELETE_SKIPPED".to_owned()), "{told:?}");
    assert!(told.contains(&"Gone DELETE_COMPLETE".to_owned()), "{told:?}");
    // A resource has its stack's tags, and its own before those.
    let found = endpoint
        .json(
            "tagging",
            "ResourceGroupsTaggingAPI_20170126.GetResources",
            &json!({}),
        )
        .await;
    let queues: Vec<_> = found["ResourceTagMappingList"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|found| found["ResourceARN"].as_str().unwrap().contains(":sqs:"))
        .collect();
    assert_eq!(queues.len(), 1, "{found}");
    for (key, value) in [("own", "mine"), ("both", "mine"), ("team", "gateway")] {
        let tag = json!({"Key": key, "Value": value});
        assert!(queues[0]["Tags"].as_array().unwrap().contains(&tag), "{found}");
    }
    endpoint.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_look_twice_a_minute_are_answered_when_it_is_over() {
    let endpoint = Running::ephemeral().await;
    let template = "Resources: {Queue: {Type: 'AWS::SQS::Queue'}}";
    for (action, over) in [
        ("CreateStack", "CREATE_COMPLETE"),
        ("DeleteStack", "DELETE_COMPLETE"),
    ] {
        let parameters = [("StackName", "app"), ("TemplateBody", template)];
        let answer = endpoint
            .cloudformation_as("aws-cli/1.46 Botocore/1.43", action, &parameters)
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let statuses = endpoint.cloudformation("ListStacks", &[]).await;
        assert_eq!(statuses.element("StackStatus"), over);
    }
    endpoint.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_fails_is_undone() {
    let endpoint = Running::ephemeral().await;
    created(&endpoint, &[("Name", "limits")]).await;
    let nothing = call(&endpoint, "UpdateStack", "app", None, &[("Name", "limits")]).await;
    assert_eq!(nothing.element("Message"), "No updates are to be performed.");

    // What was added is gone, what was changed is as it was, and what was to be replaced is still there.
    let values = [
        ("Name", "renamed"),
        ("WithExtra", "yes"),
        ("WithFault", "yes"),
        ("Level", "3"),
    ];
    call(&endpoint, "UpdateStack", "app", None, &values).await;
    assert_eq!(settled(&endpoint, "app").await, "UPDATE_ROLLBACK_COMPLETE");
    assert_eq!(tables(&endpoint).await, json!(["limits"]));
    let resources = endpoint
        .cloudformation("ListStackResources", &[("StackName", "app")])
        .await;
    assert_eq!(resources.elements("LogicalResourceId"), ["Alarm", "Table"]);
    assert_eq!(
        resources.elements("PhysicalResourceId"),
        ["limits-alarm", "limits"]
    );
    let described = endpoint
        .cloudformation("DescribeStacks", &[("StackName", "app")])
        .await;
    assert!(described.element("OutputValue").ends_with("table/limits"));
    let shown = described.elements("ParameterValue");
    assert_eq!(
        shown,
        ["1", "limits", "no", "no"],
        "the parameters are those of before"
    );

    // The same without the fault.
    let values = [("Name", "renamed"), ("WithExtra", "yes"), ("Level", "3")];
    call(&endpoint, "UpdateStack", "app", None, &values).await;
    assert_eq!(settled(&endpoint, "app").await, "UPDATE_COMPLETE");
    assert_eq!(tables(&endpoint).await, json!(["renamed"]));
    let resources = endpoint
        .cloudformation("ListStackResources", &[("StackName", "app")])
        .await;
    assert_eq!(
        resources.elements("PhysicalResourceId"),
        ["renamed-alarm", "/app/extra", "renamed"]
    );
    endpoint.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_set_says_what_executing_it_does() {
    let endpoint = Running::ephemeral().await;
    created(&endpoint, &[("Name", "limits")]).await;
    let change_set = async |name: &str, values: &[(&str, &str)]| {
        let mut all = parameters("app", values);
        all.push(("ChangeSetName".to_owned(), name));
        all.push(("UsePreviousTemplate".to_owned(), "true"));
        let all: Vec<(&str, &str)> = all.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        let made = endpoint.cloudformation("CreateChangeSet", &all).await;
        let id = made.element("Id").to_owned();
        endpoint
            .cloudformation("DescribeChangeSet", &[("ChangeSetName", &id)])
            .await
    };
    let empty = change_set("nothing", &[("Name", "limits")]).await;
    assert_eq!(empty.element("Status"), "FAILED");
    assert!(empty.element("StatusReason").contains("didn't contain changes"));

    let some = change_set("some", &[("Name", "renamed"), ("WithExtra", "yes")]).await;
    assert_eq!(
        (some.element("Status"), some.element("ExecutionStatus")),
        ("CREATE_COMPLETE", "AVAILABLE")
    );
    assert_eq!(some.elements("LogicalResourceId"), ["Extra", "Table", "Alarm"]);
    assert_eq!(some.elements("Action"), ["Add", "Modify", "Modify"]);
    assert_eq!(some.element("Replacement"), "True");
    assert_eq!(
        tables(&endpoint).await,
        json!(["limits"]),
        "nothing has happened yet"
    );

    let wanted = [("ChangeSetName", "some"), ("StackName", "app")];
    endpoint.cloudformation("ExecuteChangeSet", &wanted).await;
    assert_eq!(settled(&endpoint, "app").await, "UPDATE_COMPLETE");
    assert_eq!(tables(&endpoint).await, json!(["renamed"]));
    let again = endpoint.cloudformation("ExecuteChangeSet", &wanted).await;
    assert_eq!(again.element("Code"), "InvalidChangeSetStatus");
    endpoint.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_import_stays() {
    let endpoint = Running::ephemeral().await;
    created(&endpoint, &[("Name", "limits")]).await;
    let importing = "
Resources:
  Alarm:
    Type: AWS::CloudWatch::Alarm
    Properties:
      ComparisonOperator: GreaterThanThreshold
      EvaluationPeriods: 1
      AlarmDescription: !ImportValue app-arn
";
    call(&endpoint, "CreateStack", "importer", Some(importing), &[]).await;
    assert_eq!(settled(&endpoint, "importer").await, "CREATE_COMPLETE");
    let refused = endpoint
        .cloudformation("DeleteStack", &[("StackName", "app")])
        .await;
    assert!(
        refused.element("Message").contains("in use by importer"),
        "{refused:?}"
    );
    // An update that would change its value is undone.
    call(&endpoint, "UpdateStack", "app", None, &[("Name", "renamed")]).await;
    assert_eq!(settled(&endpoint, "app").await, "UPDATE_ROLLBACK_COMPLETE");
    assert_eq!(tables(&endpoint).await, json!(["limits"]));
    endpoint.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stacks_outlive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Running::on(directory.path()).await;
    created(&endpoint, &[("Name", "limits")]).await;
    let before = events(&endpoint, "app").await;
    endpoint.stop().await;
    let endpoint = Running::on(directory.path()).await;
    assert_eq!(settled(&endpoint, "app").await, "CREATE_COMPLETE");
    assert_eq!(events(&endpoint, "app").await, before);
    assert_eq!(tables(&endpoint).await, json!(["limits"]));
    endpoint.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_has_not_it_refuses_by_name() {
    let endpoint = Running::ephemeral().await;
    let unknown = "Resources: {Net: {Type: AWS::EC2::VPC}}";
    let refused = call(&endpoint, "CreateStack", "app", Some(unknown), &[]).await;
    assert!(
        refused
            .element("Message")
            .contains("Unrecognized resource types: [AWS::EC2::VPC]")
    );
    let attribute = "Resources: {Q: {Type: AWS::SQS::Queue}}\nOutputs: {X: {Value: !Sub '${Q.Nope}'}}";
    let refused = call(&endpoint, "CreateStack", "app", Some(attribute), &[]).await;
    assert_eq!(
        (refused.status.as_u16(), refused.element("Message")),
        (
            400,
            "Template error: resource Q does not support attribute type Nope in Fn::GetAtt"
        )
    );
    let refused = endpoint
        .cloudformation("DetectStackDrift", &[("StackName", "app")])
        .await;
    assert_eq!(
        (refused.status.as_u16(), refused.element("Code")),
        (501, "NotImplemented")
    );
    assert!(refused.element("Message").contains("DetectStackDrift"));
    let refused = call(&endpoint, "CreateStack", "1app", Some(unknown), &[]).await;
    assert!(
        refused.element("Message").contains("'1app' at 'stackName'"),
        "{refused:?}"
    );
    endpoint.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_is_refused_leaves_a_stack_that_can_be_updated() {
    let endpoint = Running::ephemeral().await;
    created(&endpoint, &[("Name", "limits")]).await;
    let table = "TableName: !Ref Name";
    let refused = TEMPLATE.replace(table, "TableName: !Ref Name\n      TableClass: STANDARD");
    let values = [("Name", "limits")];
    call(&endpoint, "UpdateStack", "app", Some(&refused), &values).await;
    assert_eq!(settled(&endpoint, "app").await, "UPDATE_ROLLBACK_COMPLETE");
    let told = endpoint
        .cloudformation("DescribeStackEvents", &[("StackName", "app")])
        .await;
    let reasons = told.elements("ResourceStatusReason").join("\n");
    assert!(
        reasons.contains("does not support the property TableClass"),
        "{reasons}"
    );
    let accepted = TEMPLATE.replace(
        table,
        "TableName: !Ref Name\n      DeletionProtectionEnabled: true",
    );
    call(&endpoint, "UpdateStack", "app", Some(&accepted), &values).await;
    assert_eq!(settled(&endpoint, "app").await, "UPDATE_COMPLETE");
    endpoint.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_resource_that_cannot_be_made_does_not_hold_up_its_stack() {
    let template = "
Resources:
  Maker:
    Type: AWS::Lambda::Function
    Properties: {Runtime: python3.12, Handler: index.f, Role: r, Code: {ZipFile: pass}}
  Thing:
    Type: Custom::Thing
    Properties: {ServiceToken: !GetAtt Maker.Arn, ServiceTimeout: 1}
";
    let endpoint = Running::ephemeral().await;
    call(&endpoint, "CreateStack", "app", Some(template), &[]).await;
    assert_eq!(settled(&endpoint, "app").await, "ROLLBACK_COMPLETE");
    let told = endpoint
        .cloudformation("DescribeStackEvents", &[("StackName", "app")])
        .await;
    let reasons = told.elements("ResourceStatusReason").join("\n");
    assert!(reasons.contains("needs the runtime python3.12"), "{reasons}");
    endpoint.stop().await;
}

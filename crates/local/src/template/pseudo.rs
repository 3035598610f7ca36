//! The names that CloudFormation itself gives values to.

use serde_json::Value;

/// The values of pseudo parameters in a stack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pseudo {
    /// `AWS::StackName`.
    pub stack_name: String,
    /// `AWS::StackId`, an ARN.
    pub stack_id: String,
    /// `AWS::Region`.
    pub region: String,
    /// `AWS::AccountId`.
    pub account_id: String,
    /// `AWS::Partition`, such as `aws`.
    pub partition: String,
    /// `AWS::URLSuffix`, such as `amazonaws.com`.
    pub url_suffix: String,
    /// `AWS::NotificationARNs`.
    pub notification_arns: Vec<String>,
}

impl Pseudo {
    /// The value of a pseudo parameter other than `AWS::NoValue`, which has no value.
    pub(super) fn get(&self, name: &str) -> Option<Value> {
        let text = match name {
            "AWS::StackName" => &self.stack_name,
            "AWS::StackId" => &self.stack_id,
            "AWS::Region" => &self.region,
            "AWS::AccountId" => &self.account_id,
            "AWS::Partition" => &self.partition,
            "AWS::URLSuffix" => &self.url_suffix,
            "AWS::NotificationARNs" => {
                return Some(
                    self.notification_arns
                        .iter()
                        .map(String::as_str)
                        .map(Value::from)
                        .collect(),
                );
            }
            _ => return None,
        };
        Some(Value::from(text.as_str()))
    }
}

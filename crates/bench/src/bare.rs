//! The yardstick: the conditional update that an acquire comes down to, written by hand against the SDK.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure};

pub(crate) const UPDATE: &str = "ADD #rpm_tk :minus_rpm, #rpm_tc :rpm, #tpm_tk :minus_tpm, #tpm_tc :tpm, #wcu_tk :minus_wcu, #wcu_tc :wcu";
pub(crate) const CONDITION: &str = "#rpm_tk >= :rpm AND attribute_exists(#rpm_cp) AND #tpm_tk >= :tpm AND attribute_exists(#tpm_cp) \
     AND #wcu_tk >= :wcu AND (attribute_not_exists(#ttl) OR #ttl >= :secs) AND attribute_not_exists(#disabled) \
     AND (attribute_not_exists(#vu) OR #vu >= :now)";

type Names = [(&'static str, &'static str); 11];
type Values = [(&'static str, i64); 8];

/// What the names and values of the expressions stand for.
pub(crate) fn aliases(tpm: i64, now: i64) -> (Names, Values) {
    let names = [
        ("#rpm_tk", "b_rpm_tk"),
        ("#rpm_tc", "b_rpm_tc"),
        ("#rpm_cp", "b_rpm_cp"),
        ("#tpm_tk", "b_tpm_tk"),
        ("#tpm_tc", "b_tpm_tc"),
        ("#tpm_cp", "b_tpm_cp"),
        ("#wcu_tk", "b_wcu_tk"),
        ("#wcu_tc", "b_wcu_tc"),
        ("#ttl", "ttl"),
        ("#disabled", "disabled"),
        ("#vu", "vu"),
    ];
    let values = [
        (":minus_rpm", -1000),
        (":rpm", 1000),
        (":minus_tpm", -1000 * tpm),
        (":tpm", 1000 * tpm),
        (":minus_wcu", -1000),
        (":wcu", 1000),
        (":secs", now / 1000 + 1),
        (":now", now + 1),
    ];
    (names, values)
}

/// Takes one request and `tpm` tokens from a bucket item. Returns whether the condition held.
pub(crate) async fn debit(client: Client, table: String, pk: String, tpm: i64, now: i64) -> bool {
    let number = |n: i64| AttributeValue::N(n.to_string());
    let (names, values) = aliases(tpm, now);
    let names: HashMap<String, String> = names.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
    let values: HashMap<String, AttributeValue> =
        values.iter().map(|(a, n)| ((*a).into(), number(*n))).collect();
    client
        .update_item()
        .table_name(table)
        .key("PK", AttributeValue::S(pk))
        .key("SK", AttributeValue::S("#STATE".into()))
        .update_expression(UPDATE)
        .condition_expression(CONDITION)
        .set_expression_attribute_names(Some(names))
        .set_expression_attribute_values(Some(values))
        .return_values(ReturnValue::AllNew)
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .send()
        .await
        .is_ok()
}

//! Reads the table's time from its answers.

use std::sync::Arc;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::Headers;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use aws_smithy_types::date_time::Format;

use crate::clock::{Reading, TableOffset};

/// Reports the date of every answer, including errors. Changes neither requests nor answers.
#[derive(Debug)]
pub(super) struct ReadDate(pub(super) Arc<TableOffset>);

#[derive(Debug)]
struct SentAt(Reading);

impl Storable for SentAt {
    type Storer = StoreReplace<Self>;
}

#[dyn_dispatch_hint]
impl Intercept for ReadDate {
    fn name(&self) -> &'static str {
        "ReadDate"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(SentAt(self.0.read()));
        Ok(())
    }

    fn read_after_transmit(
        &self,
        answer: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(sent) = config.load::<SentAt>()
            && let Some(date) = date_of(answer.response().headers())
        {
            self.0.answered(sent.0, date);
        }
        Ok(())
    }
}

/// When an answer was given, in seconds since the epoch, if it is the service's own and new.
///
/// An answer without a request id is a proxy's or a captive portal's page; one with an age comes from a cache.
fn date_of(headers: &Headers) -> Option<i64> {
    headers.get("x-amzn-requestid")?;
    if headers.get("age").is_some() {
        return None;
    }
    let date = DateTime::from_str(headers.get("date")?, Format::HttpDate).ok()?;
    Some(date.secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[(&'static str, &'static str)], date: Option<i64>) {
        let mut all = Headers::new();
        for (name, value) in headers {
            all.insert(*name, *value);
        }
        assert_eq!(date_of(&all), date, "{headers:?}");
    }

    #[test]
    fn only_a_new_answer_of_the_service_tells_the_time() {
        let id = (
            "x-amzn-RequestId",
            "4KBNVRGD25RG1KEO9UT4V3FQDJVV4KQNSO5AEMVJF66Q9ASUAAJG",
        );
        let date = ("Date", "Sat, 28 Nov 2026 05:00:00 GMT");
        check(&[id, date], Some(1_795_842_000));
        check(&[date], None);
        check(&[id], None);
        check(&[id, date, ("Age", "0")], None);
        check(&[id, ("Date", "yesterday")], None);
        check(&[id, ("Date", "")], None);
        check(&[id, ("Date", "Sat, 31 Feb 2026 05:00:00 GMT")], None);
        check(&[id, ("Date", "Thu, 01 Jan 1970 00:00:00 GMT")], Some(0));
    }
}

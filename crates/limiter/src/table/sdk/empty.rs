//! Refuses answers without a body.

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::AfterDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

use crate::table::failure::EMPTY;

/// The error for such an answer.
#[derive(Debug, thiserror::Error)]
#[error("{EMPTY}")]
pub(super) struct EmptyAnswer;

/// Makes a success without a body an error. DynamoDB's answers are JSON objects, and the SDK takes no body for an empty
/// one: a read would find nothing where a proxy has answered.
#[derive(Debug)]
pub(super) struct RefuseEmpty;

#[dyn_dispatch_hint]
impl Intercept for RefuseEmpty {
    fn name(&self) -> &'static str {
        "RefuseEmpty"
    }

    fn read_after_deserialization(
        &self,
        answer: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let is_empty = answer.response().body().bytes().is_some_and(<[u8]>::is_empty);
        if is_empty && answer.response().status().is_success() {
            return Err(EmptyAnswer.into());
        }
        Ok(())
    }
}

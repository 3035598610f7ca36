//! A table whose requests are timed and have spans.

use std::sync::Arc;

use tracing::{Instrument as _, Span};
use zae_limiter_core::table::{Answer, FailureKind, Op, TableError};

use super::record::{self, OfTable, Timer};
use super::spans;
use crate::table::{Table, TableFuture};

/// A table as it is used by its repositories.
pub(crate) fn observed(table: Arc<dyn Table>, of_table: &OfTable) -> Arc<dyn Table> {
    Arc::new(Observed {
        table,
        of_table: of_table.clone(),
    })
}

#[derive(Debug)]
struct Observed {
    table: Arc<dyn Table>,
    of_table: OfTable,
}

impl Table for Observed {
    fn call(&self, op: Op) -> TableFuture {
        let operation = operation(&op);
        let span = spans::table(operation);
        let request = self.table.call(op);
        if span.is_disabled() && !record::IS_ON {
            return request;
        }
        let of_table = self.of_table.clone();
        Box::pin(async move {
            let mut sent = Sent {
                operation,
                of_table,
                timer: Timer::start(),
                span: span.clone(),
                result: "dropped",
            };
            let answer = request.instrument(span).await;
            sent.result = result(&answer);
            answer
        })
    }
}

/// A request on its way. It ends when this is dropped.
struct Sent {
    operation: &'static str,
    of_table: OfTable,
    timer: Timer,
    span: Span,
    result: &'static str,
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.span.record("result", self.result);
        self.of_table.answered(self.operation, self.result, self.timer);
    }
}

const fn operation(op: &Op) -> &'static str {
    match op {
        Op::Get { .. } => "get",
        Op::BatchGet { .. } => "batch_get",
        Op::Query(_) => "query",
        Op::Put(_) => "put",
        Op::Update(_) => "update",
        Op::Delete(_) => "delete",
        Op::BatchDelete(_) => "batch_delete",
        Op::Transact(_) => "transact",
    }
}

fn result(answer: &Result<Answer, TableError>) -> &'static str {
    match answer {
        Ok(Answer::Item(_) | Answer::Items(_) | Answer::Page { .. } | Answer::Applied(_)) => "ok",
        Ok(Answer::Refused(_) | Answer::Cancelled(_)) => "refused",
        Err(err) => match err.kind {
            FailureKind::Throttled => "throttled",
            FailureKind::Conflict => "conflict",
            FailureKind::Timeout => "timeout",
            FailureKind::Unreachable => "unreachable",
            FailureKind::Internal => "internal",
            FailureKind::AccessDenied => "denied",
            FailureKind::TableMissing => "table_missing",
            FailureKind::BadRequest => "bad_request",
            // The core can gain kinds.
            _ => "other",
        },
    }
}

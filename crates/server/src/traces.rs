//! Spans for a collector of OpenTelemetry.

use std::time::Duration;

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::error::Error;
use crate::span::TARGET;

/// How long the last spans may take at the end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends spans of requests and of the limiter to a collector, as Protobuf over HTTP, from a thread of its own.
#[derive(Debug, Clone)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Sends them to a URL, such as `http://localhost:4318/v1/traces`. Not on a thread of the runtime.
    ///
    /// # Errors
    /// The URL is malformed, or not one of plain HTTP.
    pub fn to(url: &str) -> Result<Self, Error> {
        let malformed = |reason: String| Error::Traces {
            url: url.to_owned(),
            reason,
        };
        let address: http::Uri = url.parse().map_err(|err| malformed(format!("{err}")))?;
        if address.scheme_str() != Some("http") || address.host().is_none() {
            let reason = "must be http://HOST:PORT/v1/traces: a collector with TLS is reached through one on this machine";
            return Err(malformed(reason.to_owned()));
        }
        let exporter = SpanExporter::builder().with_http().with_endpoint(url).build();
        let exporter = exporter.map_err(|err| malformed(err.to_string()))?;
        let resource = Resource::builder().with_service_name("zae-limiter").build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter);
        Ok(Self(provider.with_resource(resource).build()))
    }

    /// Gives spans to a provider that exports them in another way.
    pub fn with(provider: SdkTracerProvider) -> Self {
        Self(provider)
    }

    /// Makes spans of OpenTelemetry of those of the server and the limiter.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        // TRACE of the limiter adds a span for each request to the table.
        let levels = Targets::new()
            .with_target(TARGET, LevelFilter::DEBUG)
            .with_target("zae_limiter", LevelFilter::TRACE);
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("zae-limiter"))
            .with_filter(levels)
    }

    /// Sends the last spans. Not on a thread of the runtime.
    ///
    /// # Errors
    /// Why some may not have arrived.
    pub fn end(self) -> Result<(), String> {
        self.0
            .shutdown_with_timeout(PATIENCE)
            .map_err(|err| err.to_string())
    }
}

/// Makes a span a child of the one that `traceparent` names.
pub(crate) fn adopt(span: &Span, headers: &HeaderMap) {
    if span.is_disabled() {
        return;
    }
    let parent = TraceContextPropagator::new().extract(&Fields(headers));
    if parent.span().span_context().is_valid() {
        // It fails for spans that are not exported.
        let _ = span.set_parent(parent);
    }
}

struct Fields<'h>(&'h HeaderMap);

impl Extractor for Fields<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

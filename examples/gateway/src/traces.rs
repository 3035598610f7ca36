//! Spans of the gateway and the limiter, for OpenTelemetry.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

/// Sends spans to a collector, such as `http://localhost:4318/v1/traces`, as Protobuf over plain HTTP, from a thread of its own. For HTTPS, add
/// a feature for TLS to `opentelemetry-otlp`.
///
/// Call [`SdkTracerProvider::shutdown`] at the end, after [`Repository::drain`](zae_limiter::Repository::drain) and not on a thread of the runtime: it waits
/// until the last spans are sent.
///
/// # Errors
/// If the URL is malformed.
pub fn exporting(url: &str) -> Result<SdkTracerProvider, ExporterBuildError> {
    let exporter = SpanExporter::builder().with_http().with_endpoint(url).build()?;
    let resource = Resource::builder().with_service_name("gateway").build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build())
}

/// Makes spans of OpenTelemetry of those of the gateway and the limiter.
///
/// A call's span is a child of the span in which it is awaited. Corrections run in the background and have no parent: a lease may end
/// long after the span of its request.
pub fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    // TRACE adds a span for each request to the table. Spans of other libraries are left out below INFO.
    let levels = Targets::new()
        .with_target("zae_limiter", LevelFilter::TRACE)
        .with_default(LevelFilter::INFO);
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("gateway"))
        .with_filter(levels)
}

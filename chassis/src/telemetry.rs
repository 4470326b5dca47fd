//! Logs and metrics of the process.
//!
//! Logs go to stderr: JSON lines, or for people where stderr is a terminal. `WONDER_LOG` filters
//! them, in the syntax of tracing's env-filter (`info,sqlx=warn`).

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable that filters logs.
pub const FILTER_VARIABLE: &str = "WONDER_LOG";

/// Bounds of duration histograms, in seconds.
const SECONDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0, 60.0,
];
/// Bounds of histograms that count things.
const COUNTS: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 10_000.0];

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Pretty where stderr is a terminal, else JSON.
    #[default]
    Auto,
    Json,
    Pretty,
}

/// What the process says about itself.
#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    /// Version of the build, for `build_info`.
    pub version: &'static str,
    /// Commit of the build, for `build_info`.
    pub commit: &'static str,
    /// The filter where [`FILTER_VARIABLE`] isn't set.
    pub filter: String,
    pub format: LogFormat,
}

/// Why telemetry can't start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("{FILTER_VARIABLE} can't be read: {0}; write it like `info,sqlx=warn`")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("metrics can't be recorded: {0}")]
    Metrics(#[from] BuildError),
}

/// The process's metrics. Clones are the same.
#[derive(Debug, Clone)]
pub struct Telemetry {
    prometheus: PrometheusHandle,
}

impl Telemetry {
    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        self.prometheus.run_upkeep();
        self.prometheus.render()
    }
}

/// Libraries that tell at level info what is told elsewhere. What is asked for comes after it, and
/// counts.
const QUIET: &str = "async_nats=warn,sqlx::postgres::notice=warn";

static STARTED: Mutex<Option<Telemetry>> = Mutex::new(None);

/// Starts logs and metrics. A second call changes nothing and answers what the first one did.
pub fn init(config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(telemetry) = &*started {
        return Ok(telemetry.clone());
    }
    let wanted = std::env::var(FILTER_VARIABLE).ok().filter(|filter| !filter.is_empty());
    let filter = wanted.as_deref().unwrap_or(&config.filter);
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}"))?;
    let prometheus = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets(&COUNTS)?
        .install_recorder()?;
    log_to_stderr(filter, config.format);
    metrics::gauge!("build_info", "version" => config.version, "commit" => config.commit).set(1.0);
    let telemetry = Telemetry { prometheus };
    *started = Some(telemetry.clone());
    Ok(telemetry)
}

fn log_to_stderr(filter: EnvFilter, format: LogFormat) {
    let pretty = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Json => false,
        LogFormat::Pretty => true,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let set = if pretty {
        registry.with(layer).try_init()
    } else {
        registry.with(layer.json().flatten_event(true).with_current_span(true)).try_init()
    };
    if let Err(error) = set {
        // Somebody else (a test) collects the logs already, and this one goes there.
        tracing::debug!(%error, "logs are collected already");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_once_and_renders_what_is_recorded() {
        let config = TelemetryConfig {
            version: "1.2.3",
            commit: "abc",
            filter: "warn".into(),
            format: LogFormat::Json,
        };
        let first = init(&config).expect("nothing else records metrics here");
        let second = init(&config).expect("a second start is no error");
        metrics::histogram!("telemetry_test_seconds").record(0.002);
        let text = second.render();
        assert!(text.contains(r#"build_info{version="1.2.3",commit="abc"} 1"#), "{text}");
        assert!(text.contains(r#"telemetry_test_seconds_bucket{le="0.0025"} 1"#), "{text}");
        assert_eq!(first.render(), text);
    }
}

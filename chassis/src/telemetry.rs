//! Logs and metrics of the process.
//!
//! Logs go to stderr: JSON lines, or for people where stderr is a terminal. `WONDER_LOG` filters
//! them, in the syntax of tracing's env-filter (`info,sqlx=warn`). What is told at a level of its
//! own and above is handed on as [`Record`]s as well, for who keeps them.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::Level;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::bus::Receiver;

mod records;

pub use records::{Record, dropped, unrecorded};

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
    /// Of which level, and above, [`Telemetry::records`] are made; of none, where it is absent.
    pub records: Option<Level>,
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
    records: Receiver<Record>,
}

impl Telemetry {
    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        self.prometheus.run_upkeep();
        self.prometheus.render()
    }

    /// What is told from now on, at the configured level and above. Each record goes to one of
    /// those who receive; where they are slow, records are dropped and counted.
    pub fn records(&self) -> Receiver<Record> {
        self.records.clone()
    }
}

/// Libraries that tell at level info what is told elsewhere.
const QUIET_TARGETS: [&str; 2] = ["async_nats", "sqlx::postgres::notice"];

static STARTED: Mutex<Option<Telemetry>> = Mutex::new(None);

/// Starts logs and metrics. A second call changes nothing and answers what the first one did.
pub fn init(config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(telemetry) = &*started {
        return Ok(telemetry.clone());
    }
    let wanted = std::env::var(FILTER_VARIABLE).ok().filter(|filter| !filter.is_empty());
    let filter = wanted.as_deref().unwrap_or(&config.filter);
    // What is asked for comes after what is quiet, and counts.
    let quiet = QUIET_TARGETS.map(|target| format!("{target}=warn")).join(",");
    let filter = EnvFilter::try_new(format!("{quiet},{filter}"))?;
    let prometheus = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets(&COUNTS)?
        .install_recorder()?;
    let records = collect(filter, config);
    metrics::gauge!("build_info", "version" => config.version, "commit" => config.commit).set(1.0);
    let telemetry = Telemetry { prometheus, records };
    *started = Some(telemetry.clone());
    Ok(telemetry)
}

/// Logs to stderr, and answers what is told as records.
fn collect(filter: EnvFilter, config: &TelemetryConfig) -> Receiver<Record> {
    let pretty = match config.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Json => false,
        LogFormat::Pretty => true,
    };
    let (recorder, records) = records::recorder();
    let recorder = config.records.map(|level| recorder.with_filter(records::of_level(level)));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match pretty {
        true => layer.boxed(),
        false => layer.json().flatten_event(true).with_current_span(true).boxed(),
    };
    let registry = tracing_subscriber::registry().with(layer.with_filter(filter)).with(recorder);
    if let Err(error) = registry.try_init() {
        // Somebody else (a test) collects the logs already, and this one goes there.
        tracing::debug!(%error, "logs are collected already");
    }
    records
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
            records: Some(Level::WARN),
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

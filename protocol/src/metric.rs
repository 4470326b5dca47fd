//! Metrics over runs: what is asked of them, and what is answered.

use std::collections::BTreeMap;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Points of one series in an answer, at most.
pub const METRIC_POINTS: u64 = 1_500;
/// Series of an answer, at most; those with the most are answered.
pub const METRIC_SERIES: usize = 100;
/// Points of all series of an answer, at most.
pub const METRIC_ANSWER_POINTS: usize = 20_000;

/// How long the time is that a point stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MetricStep {
    #[serde(rename = "1m")]
    Minute,
    #[serde(rename = "1h")]
    Hour,
    #[serde(rename = "1d")]
    Day,
}

impl MetricStep {
    /// All of them, the shortest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// The text in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::Hour => "1h",
            Self::Day => "1d",
        }
    }

    /// Its length in seconds.
    pub const fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }
}

/// Why a text isn't a [`MetricStep`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("use 1m, 1h or 1d")]
pub struct InvalidStep;

impl FromStr for MetricStep {
    type Err = InvalidStep;

    fn from_str(text: &str) -> Result<Self, InvalidStep> {
        Self::ALL.into_iter().find(|step| step.as_str() == text).ok_or(InvalidStep)
    }
}

/// What is asked of a metric, in one workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricQuery {
    pub metric: String,
    /// Rounded down to the step; without it, an hour before `to`.
    pub from: Option<DateTime<Utc>>,
    /// Not counted in; rounded up to the step. Without it, now.
    pub to: Option<DateTime<Utc>>,
    pub now: DateTime<Utc>,
    /// Without it, the shortest that gives at most 200 points and is kept since `from`.
    pub step: Option<MetricStep>,
    /// Dimensions: one series for each of their values that occurs.
    pub group_by: Vec<String>,
    /// Dimensions and the value that they must have; all must hold.
    pub filters: Vec<(String, String)>,
    pub min_position: Option<u64>,
}

/// A metric over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MetricAnswer {
    pub metric: String,
    /// `count`, `sum` or `distribution`.
    pub r#type: String,
    /// What `sum` and all that is like it are in: `ms`, `tokens` …; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The begin of the first bucket.
    pub from: DateTime<Utc>,
    /// The end of the last one.
    pub to: DateTime<Utc>,
    /// `1m`, `1h` or `1d`.
    #[schema(value_type = String)]
    pub step: MetricStep,
    pub group_by: Vec<String>,
    /// Those with the largest count (of a `sum`, the largest sum) first: at most 100, with at most
    /// 20,000 points together.
    pub series: Vec<MetricSeries>,
    /// How many more there are.
    pub series_left_out: u64,
    /// How far the read model was, at least.
    pub position: u64,
}

/// One series of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MetricSeries {
    /// The value of each dimension of `group_by`; empty where there is none.
    pub group: BTreeMap<String, String>,
    /// Over all of the time.
    pub total: MetricValues,
    /// In order of time; buckets without a value are left out.
    pub points: Vec<MetricPoint>,
}

/// One bucket of a series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MetricPoint {
    /// The begin of the bucket.
    pub at: DateTime<Utc>,
    #[serde(flatten)]
    pub values: MetricValues,
}

/// What is known of the values in some time. Of a `count` there is only that, of a `sum` that too;
/// the rest is of a `distribution`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MetricValues {
    pub count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Half of the values are at most this, within 1.6 %; the others likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
}

/// The metrics that exist in a workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MetricList {
    /// Those of every workspace, then those that definitions have emitted, by name.
    pub items: Vec<MetricInfo>,
}

/// A metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MetricInfo {
    pub name: String,
    /// `count`, `sum` or `distribution`.
    pub r#type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    pub description: String,
    /// What it can be grouped and narrowed by.
    pub dimensions: Vec<String>,
}

//! Checking `emit` nodes: a business event, or a value of a metric.

use serde_json::Value;

use super::super::problem::escaped;
use super::super::{EmitSpec, Mapping, ProblemCode};
use super::Checker;
use super::scopes::Names;
use crate::ids::Name;
use crate::limits;
use crate::metric;

impl Checker<'_> {
    pub(super) fn emit(&mut self, place: &str, emit: &EmitSpec, names: &Names<'_>) {
        match (&emit.event, &emit.metric) {
            (None, None) => {
                let message = "give the name of an event as `event`, or of a metric as `metric`";
                self.problem(ProblemCode::MissingKey, place, message);
            }
            (Some(_), Some(_)) => {
                let message = "an `emit` has an `event` or a `metric`: use two nodes";
                self.problem(ProblemCode::InvalidValue, &format!("{place}/metric"), message);
            }
            (None, Some(_)) if emit.value.is_none() => {
                let message = "give the metric's value as `value`";
                self.problem(ProblemCode::MissingKey, place, message);
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        for (key, is_there, of) in [
            ("data", emit.data.is_some() && emit.event.is_none(), "event"),
            ("value", emit.value.is_some() && emit.metric.is_none(), "metric"),
            ("dimensions", emit.dimensions.is_some() && emit.metric.is_none(), "metric"),
        ] {
            if is_there {
                let message = format!("`{key}` is for a {of}: drop it");
                self.problem(ProblemCode::InvalidValue, &format!("{place}/{key}"), message);
            }
        }
        if let Some(data) = &emit.data {
            self.value(&format!("{place}/data"), data, names);
        }
        if let Some(value) = &emit.value {
            self.metric_value(&format!("{place}/value"), value, names);
        }
        if let Some(dimensions) = &emit.dimensions {
            self.dimensions(&format!("{place}/dimensions"), dimensions, names);
        }
    }

    fn metric_value(&mut self, place: &str, value: &Value, names: &Names<'_>) {
        if is_expression(value) {
            self.value(place, value, names);
        } else if let Err(message) = metric::value(value) {
            self.problem(ProblemCode::InvalidValue, place, message);
        }
    }

    fn dimensions(&mut self, place: &str, given: &Mapping, names: &Names<'_>) {
        if given.len() > limits::METRIC_DIMENSIONS {
            let most = limits::METRIC_DIMENSIONS;
            let message = format!("a metric may have at most {most} dimensions");
            self.problem(ProblemCode::LimitExceeded, place, message);
        }
        for (name, value) in given {
            let place = format!("{place}/{}", escaped(name));
            if let Err(error) = name.parse::<Name>() {
                self.problem(ProblemCode::InvalidName, &place, error.to_string());
            }
            if is_expression(value) {
                self.value(&place, value, names);
            } else if let Err(message) = metric::dimension(value) {
                self.problem(ProblemCode::InvalidValue, &place, message);
            }
        }
    }
}

fn is_expression(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.contains("${"))
}

//! What `emit` nodes publish: business events and values of metrics.

use std::collections::BTreeMap;

use super::{Decider, at, boxed};
use crate::definition::plan::PlanEmit;
use crate::expression::Binding;
use crate::metric;
use crate::run::event::{Event, RunError, TokenId};

impl Decider<'_> {
    pub(super) fn publish(&mut self, id: TokenId, emit: &PlanEmit) {
        let event = match emit {
            PlanEmit::Event { name, data } => {
                let data = data.as_ref().map(|data| self.value_at(id, data)).transpose();
                data.map_err(|error| at("emit", "data", error)).map(|data| {
                    let (name, data) = (name.clone(), data.unwrap_or_default());
                    Event::EventEmitted { token: id, name, data }
                })
            }
            PlanEmit::Metric { name, value, dimensions } => {
                self.metric(id, name, value, dimensions)
            }
        };
        match event {
            Ok(event) => {
                self.emit(event);
                self.route(id);
            }
            Err(error) => self.fail_node(id, *error),
        }
    }

    fn metric(
        &self,
        id: TokenId,
        name: &str,
        value: &Binding,
        dimensions: &[(String, Binding)],
    ) -> Result<Event, Box<RunError>> {
        let invalid = |message| boxed("invalid_metric", message);
        let given = self.value_at(id, value);
        let value = given.and_then(|value| metric::value(&value).map_err(invalid));
        let value = value.map_err(|error| at("emit", "value", error))?;
        let mut texts = BTreeMap::new();
        for (name, binding) in dimensions {
            let given = self.value_at(id, binding);
            let text = given.and_then(|value| metric::dimension(&value).map_err(invalid));
            let text = text.map_err(|error| at("emit.dimensions", name, error))?;
            texts.extend(text.map(|text| (name.clone(), text)));
        }
        Ok(Event::MetricEmitted { token: id, name: name.to_owned(), value, dimensions: texts })
    }
}

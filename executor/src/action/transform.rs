//! `transform`: answers `with.value`, a pure mapping.

use protocol::task::Success;
use protocol::view::Usage;
use serde_json::{Map, Value};

use super::only;
use crate::context::{Bound, Context};
use crate::fault::{Ended, Fault, invalid};

pub(crate) struct Transform {
    value: Bound,
}

impl Transform {
    pub(crate) fn compile(with: &Map<String, Value>) -> Result<Self, Fault> {
        only(with, &["value"])?;
        let value = with.get("value").ok_or_else(|| invalid("with.value", "missing"))?;
        Ok(Self { value: Bound::compile("with.value", value)? })
    }

    pub(crate) fn perform(&self, context: &Context<'_>) -> Ended {
        Ok(Success { result: self.value.eval(context)?, usage: Usage::default() })
    }
}

//! Which model providers a workspace's runs may call.

use domain::resource::Provider;
use protocol::{Rejection, RejectionKind};

/// A model that a definition may ask, and where it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) provider: Provider,
    /// A profile's name; `None` for a model that stands in the action itself.
    pub(super) profile: Option<String>,
    /// JSON Pointer into the definition.
    pub(super) pointer: String,
}

/// Refuses the first model of a provider that isn't among the allowed ones; none allows all.
pub(super) fn check(allowed: &[Provider], models: &[Model]) -> Result<(), Rejection> {
    if allowed.is_empty() {
        return Ok(());
    }
    let Some(model) = models.iter().find(|model| !allowed.contains(&model.provider)) else {
        return Ok(());
    };
    let which = match &model.profile {
        Some(name) => format!("the model profile {name}"),
        None => "this model".to_owned(),
    };
    let names: Vec<_> = allowed.iter().copied().map(name).collect();
    let message = format!(
        "{which} is of the provider {}, and the workspace allows only {}; choose another model",
        name(model.provider),
        names.join(", "),
    );
    let rejection = Rejection::new(RejectionKind::Forbidden, "provider_not_allowed", message);
    Err(rejection.at(model.pointer.clone()))
}

const fn name(provider: Provider) -> &'static str {
    match provider {
        Provider::Openai => "openai",
        Provider::Anthropic => "anthropic",
        Provider::Mock => "mock",
    }
}

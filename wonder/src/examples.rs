//! The workflows that `wonder dev` brings along, embedded in the program.

/// A demo: a definition, and an input that it runs with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Example {
    /// As the definition's own name.
    pub(crate) name: &'static str,
    pub(crate) definition: &'static str,
    pub(crate) input: &'static str,
}

/// All of them; the first one is run by `wonder dev`.
pub(crate) const EXAMPLES: &[Example] = &[Example {
    name: "judge-panel",
    definition: include_str!("../demo/judge-panel.yaml"),
    input: include_str!("../demo/judge-panel.input.json"),
}];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_valid_and_named_as_listed() {
        for example in EXAMPLES {
            let definition = crate::definition_file::check(example.definition)
                .unwrap_or_else(|problems| panic!("{}: {problems:#?}", example.name));
            assert_eq!(definition.name.to_string(), example.name);
            let input: serde_json::Value =
                serde_json::from_str(example.input).expect("the input is JSON");
            assert!(input.is_object(), "{}", example.name);
        }
    }
}

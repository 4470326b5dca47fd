//! The workflows that `wonder dev` brings along, embedded in the program.

/// An example: a definition, and an input that it runs with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Example {
    /// As the definition's own name and its folder's.
    pub(crate) name: &'static str,
    pub(crate) definition: &'static str,
    pub(crate) input: &'static str,
}

macro_rules! example {
    ($name:literal) => {
        Example {
            name: $name,
            definition: include_str!(concat!("../../examples/", $name, "/workflow.yaml")),
            input: include_str!(concat!("../../examples/", $name, "/input.json")),
        }
    };
}

/// All of them. `wonder dev` loads each and runs the first, which needs nothing from outside.
pub(crate) const EXAMPLES: &[Example] = &[
    example!("judge-panel"),
    example!("document-pipeline"),
    example!("retry-and-fallback"),
    example!("http-fan-out"),
    example!("approval"),
    example!("research-team"),
    example!("trip-booking"),
    example!("reports-in-turn"),
];

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

    #[test]
    fn every_folder_of_examples_is_listed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
        let mut folders: Vec<String> = std::fs::read_dir(folder)
            .expect("the examples can be listed")
            .map(|entry| entry.expect("an entry can be read").path())
            .filter(|path| path.join("workflow.yaml").is_file())
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        folders.sort();
        let mut listed: Vec<_> = EXAMPLES.iter().map(|example| example.name).collect();
        listed.sort_unstable();
        assert_eq!(folders, listed);
    }
}

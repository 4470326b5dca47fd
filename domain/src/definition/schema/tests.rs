//! Tests of the published schema: it is one, and it agrees with the parser.

use serde_json::{Value, json};

use super::*;
use crate::definition::parse;
use crate::definition::validate::tests::PANEL;

fn validator() -> jsonschema::Validator {
    jsonschema::draft202012::new(definition_schema()).expect("the schema is one")
}

fn panel() -> Value {
    let definition = parse::read(PANEL.as_bytes()).expect("the example is valid");
    serde_json::to_value(definition).expect("definitions are JSON")
}

#[test]
fn the_example_is_valid_to_both() {
    assert!(validator().is_valid(&panel()));
}

#[test]
fn an_unknown_key_anywhere_is_refused_by_both() {
    let validator = validator();
    for place in [
        "",
        "/nodes/draft",
        "/nodes/draft/action",
        "/nodes/draft/retry",
        "/transitions/0",
        "/transitions/1/join",
        "/transitions/1/join/merge",
    ] {
        let mut value = panel();
        let object = value.pointer_mut(place).and_then(Value::as_object_mut).expect(place);
        object.insert("unknown".to_owned(), json!(1));
        assert!(!validator.is_valid(&value), "{place}");
        let problems = parse::parse_value(&value).expect_err(place);
        assert_eq!(problems[0].pointer, format!("{place}/unknown"));
    }
}

/// Every key that the schema names is one that the model decodes, and no word of JSON Schema
/// stands in it that the parser would pass over.
#[test]
fn the_schema_has_only_words_that_the_parser_reads() {
    fn words(schema: &Value, found: &mut Vec<String>) {
        let Some(members) = schema.as_object() else { return };
        for (word, member) in members {
            found.push(word.clone());
            match word.as_str() {
                "properties" | "$defs" => {
                    member.as_object().into_iter().flatten().for_each(|(_, s)| words(s, found));
                }
                "items" | "additionalProperties" => words(member, found),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    words(definition_schema(), &mut found);
    for word in found {
        assert!(parse::WORDS.contains(&word.as_str()), "{word}");
    }
}

#[test]
fn the_model_knows_every_key_of_the_schema() {
    use crate::definition::{
        ActionUse, ChildSpec, Definition, EmitSpec, GateSpec, JoinSpec, Merge, Node, Retry, Step,
        Transition, UndoSpec, WaitSpec,
    };
    fn known<T: serde::de::DeserializeOwned>(keys: &Value) {
        for key in keys.as_object().expect("keys").keys() {
            // A value of the wrong type for the key, whatever it is: only an unknown key is
            // refused as such.
            let text = json!({ key: [[]] });
            let error = serde_json::from_value::<T>(text).err().map(|error| error.to_string());
            assert!(!error.clone().unwrap_or_default().contains("unknown field"), "{error:?}");
        }
    }
    let keys = |place: &str| definition_schema().pointer(place).expect("a place").clone();
    known::<Definition>(&keys("/properties"));
    known::<Node>(&keys("/$defs/node/properties"));
    known::<UndoSpec>(&keys("/$defs/undo/properties"));
    known::<ActionUse>(&keys("/$defs/action/properties"));
    known::<Step>(&keys("/$defs/step/properties"));
    known::<ChildSpec>(&keys("/$defs/workflow/properties"));
    known::<WaitSpec>(&keys("/$defs/wait/properties"));
    known::<GateSpec>(&keys("/$defs/gate/properties"));
    known::<EmitSpec>(&keys("/$defs/emit/properties"));
    known::<Retry>(&keys("/$defs/retry/properties"));
    known::<Transition>(&keys("/$defs/transition/properties"));
    known::<JoinSpec>(&keys("/$defs/join/properties"));
    known::<Merge>(&keys("/$defs/merge/properties"));
}

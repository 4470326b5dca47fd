//! Tests of the codec: canonical bytes, moved values, reserved keys, old and foreign events.

use std::collections::HashMap;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::run::Event;

fn workspace(number: u128) -> WorkspaceId {
    WorkspaceId::new(Uuid::from_u128(number))
}

fn completed(output: Value) -> Event {
    Event::RunCompleted { output }
}

fn there_and_back(event: &Event) -> Event {
    let encoded = encode(event, workspace(1)).expect("it encodes");
    assert_eq!(refs(&encoded.payload).len(), encoded.blobs.len());
    let blobs: HashMap<_, _> = encoded.blobs.into_iter().collect();
    let version = event.event_version();
    decode(event.event_type(), version, &encoded.payload, &|hash| blobs.get(hash).cloned())
        .expect("it decodes")
}

fn json_values() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        "[a-d$\"\\\\\u{e000}\u{1f600}é]{0,3}",
        Just("$ref".to_owned()),
        Just("$$ref".to_owned()),
        Just("$enc".to_owned()),
        Just("type".to_owned())
    ];
    let leaf = prop_oneof![
        4 => Just(Value::Null),
        4 => any::<bool>().prop_map(Value::from),
        4 => any::<i32>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        4 => any::<f64>().prop_map(Value::from),
        4 => "\\PC{0,8}".prop_map(Value::from),
        4 => "[\u{1}-\u{1f}\"\\\\/]{0,4}".prop_map(Value::from),
        1 => "\u{0}?".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn bytes_are_those_of_the_canonicaliser(value in json_values()) {
        let ours = canonical::to_vec(&value, None).expect("it has a form");
        let stored = value_as_stored(&ours).expect("it is JSON");
        let theirs = serde_json_canonicalizer::to_vec(&stored).expect("it has a form");
        prop_assert_eq!(String::from_utf8(ours), String::from_utf8(theirs));
    }

    #[test]
    fn normalised_values_come_back_as_they_went(mut value in json_values()) {
        match normalise(&mut value) {
            Ok(()) => {
                let event = completed(value);
                prop_assert_eq!(there_and_back(&event), event);
            }
            Err(error) => {
                prop_assert!(matches!(error, EncodeError::Inexact(_) | EncodeError::Nul), "{error}");
            }
        }
    }
}

#[test]
fn the_type_stays_out_of_the_payload_and_inner_types_stay_in() {
    let encoded = encode(&completed(json!({"type": 1, "a": 2})), workspace(1)).expect("encodes");
    assert_eq!(encoded.payload, br#"{"output":{"a":2,"type":1}}"#);
    let archived = encode(&resource::Event::Archived, workspace(1)).expect("encodes");
    assert_eq!(archived.payload, b"{}");
    let back: resource::Event = decode("archived", 1, b"{}", &|_| None).expect("decodes");
    assert_eq!(back, resource::Event::Archived);
}

#[test]
fn large_values_move_out_and_equal_ones_move_once() {
    let text = "x".repeat(INLINE_VALUE_BYTES);
    let event = Event::TaskSucceeded {
        token: 1,
        attempt: 1,
        result: json!({"text": text, "model": "m"}),
        writes: [("draft".to_owned(), json!(text))].into_iter().collect(),
        usage: run::Usage::default(),
        duration_ms: 0,
        undo: None,
        adopted: None,
    };
    let encoded = encode(&event, workspace(1)).expect("encodes");
    assert_eq!(encoded.blobs.len(), 1, "the same text in result and writes");
    assert!(encoded.payload.len() < 300);
    assert!(String::from_utf8_lossy(&encoded.payload).contains(r#""model":"m""#));
    assert_eq!(there_and_back(&event), event);

    let other = encode(&event, workspace(2)).expect("encodes");
    assert_ne!(other.blobs[0].0, encoded.blobs[0].0, "hashes are keyed by workspace");
}

#[test]
fn many_middling_values_move_as_one() {
    let items: Vec<Value> = (0..100).map(|_| json!("y".repeat(3_000))).collect();
    let event = completed(Value::from(items));
    let encoded = encode(&event, workspace(1)).expect("encodes");
    assert_eq!(encoded.blobs.len(), 1);
    assert_eq!(there_and_back(&event), event);

    let large: Vec<Value> = (0..900).map(|_| json!("z".repeat(66_000))).collect();
    let event = completed(Value::from(large));
    let encoded = encode(&event, workspace(1)).expect("encodes");
    assert!(encoded.payload.len() < 200, "references alone would be too much");
    assert!(refs(&encoded.blobs[0].1).is_empty(), "no references inside of what moved");
}

#[test]
fn a_users_own_reserved_keys_are_not_taken_for_ours() {
    let forged = json!({"$ref": "00", "list": [{"$enc": "x"}, {"$$ref": 1}, {"$$$enc": 2}]});
    let event = completed(forged);
    let encoded = encode(&event, workspace(1)).expect("encodes");
    assert!(refs(&encoded.payload).is_empty());
    assert_eq!(there_and_back(&event), event);
    let other = completed(json!({"$refs": 1, "$": 2, "$$": 3, "ref": 4}));
    assert_eq!(there_and_back(&other), other);
}

#[test]
fn too_deep_values_are_refused() {
    let nested = |depth: usize| (0..depth).fold(Value::Null, |inner, _| json!([inner]));
    assert!(encode(&completed(nested(JSON_DEPTH)), workspace(1)).is_ok());
    let refused = encode(&completed(nested(JSON_DEPTH + 10)), workspace(1));
    assert_eq!(refused, Err(EncodeError::TooDeep));
    assert_eq!(normalise(&mut nested(JSON_DEPTH + 1)), Err(EncodeError::TooDeep));
    assert_eq!(normalise(&mut nested(JSON_DEPTH)), Ok(()));
}

#[test]
fn foreign_types_versions_and_missing_values_are_told_apart() {
    let read = |event_type: &str, version, payload: &str| {
        decode::<Event>(event_type, version, payload.as_bytes(), &|_| None)
    };
    assert_eq!(read("run_melted", 1, "{}"), Err(DecodeError::UnknownType("run_melted".into())));
    for version in [0, 2] {
        let unknown = DecodeError::UnknownVersion { event_type: "group_ended".into(), version };
        assert_eq!(read("group_ended", version, r#"{"instance":1}"#), Err(unknown));
    }
    let missing = read("run_completed", 1, r#"{"output":{"$ref":"ab"}}"#);
    assert_eq!(missing, Err(DecodeError::MissingBlob("ab".into())));
    assert_eq!(read("run_completed", 1, r#"{"output":{"$enc":"ab"}}"#), Err(DecodeError::Sealed));
    for damaged in ["", "[]", "{", "{}", r#"{"output":1,}"#] {
        let read = read("run_completed", 1, damaged);
        assert!(matches!(read, Err(DecodeError::Damaged { .. })), "{damaged}");
    }
    let kept = shown(br#"{"output":{"$ref":"ab"},"x":{"$$ref":1}}"#, &|_| None);
    assert_eq!(kept, Ok(json!({"output": {"$ref": "ab"}, "x": {"$ref": 1}})));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Grown {
    Renamed { to: String },
}

impl Stored for Grown {
    fn newest_version(event_type: &str) -> Option<u32> {
        (event_type == "renamed").then_some(3)
    }

    fn upcast(_: &str, from: u32, mut payload: Map<String, Value>) -> Option<Map<String, Value>> {
        let (old, new) = if from == 1 { ("n", "name") } else { ("name", "to") };
        let value = payload.remove(old)?;
        payload.insert(new.to_owned(), value);
        Some(payload)
    }
}

#[test]
fn old_versions_go_through_every_upcaster() {
    for (version, payload) in [(1, r#"{"n":"x"}"#), (2, r#"{"name":"x"}"#), (3, r#"{"to":"x"}"#)] {
        let event: Grown =
            decode("renamed", version, payload.as_bytes(), &|_| None).expect("it decodes");
        assert_eq!(event, Grown::Renamed { to: "x".into() });
    }
}

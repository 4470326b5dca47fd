//! Bundles that are whole, cut, put together and changed.

use serde_json::json;

use super::*;

fn raw(value: &serde_json::Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("JSON")
}

fn run_id() -> RunId {
    RunId::new(uuid::Uuid::from_u128(7))
}

fn workspace() -> WorkspaceId {
    WorkspaceId::new(uuid::Uuid::from_u128(1))
}

fn event(sequence: u64, payload: &serde_json::Value) -> Line {
    Line::Event(Box::new(StoredEvent {
        position: 10 + sequence,
        id: uuid::Uuid::from_u128(sequence.into()),
        aggregate_type: RUN.to_owned(),
        aggregate_id: run_id().to_string(),
        sequence,
        event_type: "node_computed".to_owned(),
        event_version: 1,
        recorded_at: DateTime::UNIX_EPOCH,
        metadata: None,
        payload: raw(payload),
    }))
}

fn manifest() -> Line {
    Line::WonderBundle(Manifest {
        format: FORMAT,
        run_id: run_id(),
        workspace_id: workspace(),
        epoch: "0000002a".to_owned(),
        position: 99,
        exported_at: DateTime::UNIX_EPOCH,
        engine_version: "0.1.0".to_owned(),
        is_masked: false,
    })
}

fn payload(value: &serde_json::Value) -> (String, Line) {
    let value = raw(value);
    let hash = codec::hash(value.get().as_bytes(), workspace());
    (hash.clone(), Line::Payload(StoredPayload { hash, value }))
}

/// The lines of a bundle, with its end.
fn sealed(lines: &[Line]) -> Vec<String> {
    let mut seal = Seal::default();
    let mut texts: Vec<String> = Vec::new();
    for line in lines {
        let text = line.to_raw().expect("JSON").get().to_owned();
        seal.take(text.as_bytes());
        texts.push(text);
    }
    texts.push(Line::End(seal.end()).to_raw().expect("JSON").get().to_owned());
    texts
}

fn read<T: AsRef<[u8]>>(lines: &[T]) -> Result<Manifest, Damaged> {
    let mut reader = Reader::default();
    for line in lines {
        reader.take(line.as_ref())?;
    }
    reader.end()
}

fn whole() -> Vec<String> {
    let (hash, value) = payload(&json!({"large": "yes"}));
    sealed(&[manifest(), event(1, &json!({})), value, event(2, &json!({"output": {"$ref": hash}}))])
}

fn refused(lines: &[String]) -> (u64, Fault) {
    let Damaged { line, fault } = read(lines).expect_err("it is refused");
    (line, fault)
}

#[test]
fn a_whole_bundle_is_read() {
    let Line::WonderBundle(written) = manifest() else { unreachable!("a manifest") };
    assert_eq!(read(&whole()), Ok(written));
}

#[test]
fn the_end_is_the_hash_that_any_program_makes_of_the_lines_before() {
    let lines = whole();
    let (end, before) = lines.split_last().expect("lines");
    let text: String = before.iter().map(|line| format!("{line}\n")).collect();
    let sha256 = HEXLOWER.encode(&Sha256::digest(text.as_bytes()));
    assert_eq!(end, &json!({"end": {"lines": 4, "sha256": sha256}}).to_string());
}

#[test]
fn a_bundle_that_is_cut_anywhere_is_refused_with_the_place() {
    let lines = whole();
    assert_eq!(refused(&[]), (1, Fault::Foreign));
    for kept in 1..lines.len() {
        assert_eq!(refused(&lines[..kept]), (kept as u64, Fault::CutOff));
    }
    let mut inside = lines.clone();
    inside[3].pop();
    assert!(matches!(refused(&inside), (4, Fault::Unreadable(_))));
}

#[test]
fn what_is_missing_moved_or_added_is_found() {
    let lines = whole();
    let without = |index: usize| {
        let mut lines = lines.clone();
        lines.remove(index);
        lines
    };
    assert_eq!(refused(&without(0)), (1, Fault::Foreign));
    let gap = Fault::Gap { aggregate_id: run_id().to_string(), expected: 1, found: 2 };
    assert_eq!(refused(&without(1)), (3, gap));
    assert!(matches!(refused(&without(2)), (3, Fault::MissingValue(_))));
    assert_eq!(refused(&without(3)), (4, Fault::OtherLines));
    let mut twice = lines.clone();
    twice.extend(lines.clone());
    assert_eq!(refused(&twice), (6, Fault::AfterEnd));
    let mut second = lines.clone();
    second.insert(2, lines[0].clone());
    assert_eq!(refused(&second), (3, Fault::SecondManifest));
    let mut changed = lines.clone();
    changed[2] = changed[2].replace("yes", "no!");
    assert!(matches!(refused(&changed), (3, Fault::OtherValue(_))));
    let mut changed = lines;
    changed[1] = changed[1].replace("1970", "1971");
    assert_eq!(refused(&changed), (5, Fault::OtherLines));
    assert_eq!(refused(&sealed(&[manifest()])), (2, Fault::NoRun));
}

#[test]
fn foreign_files_newer_forms_and_huge_lines_are_named() {
    for foreign in ["", "{}", "[1]", "\u{1f}\u{8b}", r#"{"wonder_bundle":{"format":0}}"#] {
        assert_eq!(refused(&[foreign.to_owned()]), (1, Fault::Foreign), "{foreign:?}");
    }
    let newer = r#"{"wonder_bundle":{"format":2,"something":"else"}}"#.to_owned();
    assert_eq!(refused(&[newer]), (1, Fault::Newer(2)));
    let huge = " ".repeat(BUNDLE_LINE_BYTES + 1);
    assert_eq!(refused(&[whole()[0].clone(), huge]), (2, Fault::TooLong));
}

#[test]
fn hostile_lines_are_read_or_refused() {
    let lines = whole();
    let valid: Vec<&str> = lines.iter().map(String::as_str).collect();
    graphs::holds(2_000, graphs::hostile_text(&valid), |text| {
        let mut reader = Reader::default();
        reader.take(lines[0].as_bytes()).expect("the manifest");
        drop(reader.take(text.as_bytes()));
        drop(Reader::default().take(text.as_bytes()));
    });
}

#[test]
fn stored_json_is_taken_over_as_it_is() {
    let kept = |text: &str| on_one_line(text.as_bytes()).expect("JSON").get().to_owned();
    assert_eq!(kept(r#"{"b":1.0e2, "a":"\u0041"}"#), r#"{"b":1.0e2, "a":"\u0041"}"#);
    assert_eq!(kept("{\n\"a\": 1\n}"), r#"{"a":1}"#);
    assert!(on_one_line(b"{").is_err());
}

/// The lines of a bundle as they come out of a screen, and how many secrets that found.
fn screened(lines: Vec<Line>, masks: bool) -> (Vec<Line>, Vec<Finding>) {
    let mut screen = Screen::new(workspace(), masks);
    let lines = lines.into_iter().map(|line| screen.take(line).expect("JSON")).collect();
    (lines, screen.finish().0)
}

#[test]
fn secrets_are_found_and_a_masked_bundle_is_whole_and_says_so() {
    let key = format!("ghp_{}", "a1".repeat(18));
    let (hash, value) = payload(&json!({"large": [key.clone()]}));
    let (same, clean) = payload(&json!({"large": "yes"}));
    let input = json!({"input": {"token": key, "n": 1}});
    let output = json!({"clean": {"$ref": same}, "output": {"$ref": hash}});
    let lines = vec![manifest(), event(1, &input), value, clean, event(2, &output)];
    let texts = |lines: &[Line]| -> Vec<_> {
        lines.iter().map(|line| line.to_raw().expect("JSON").get().to_owned()).collect()
    };
    let before = texts(&lines);
    let (kept, found) = screened(lines, false);
    assert_eq!(texts(&kept), before, "only masks change anything");
    let at: Vec<_> = found.iter().map(|finding| &*finding.pointer).collect();
    assert_eq!(at, ["/input/token", "/large/0"]);
    assert!(found[0].of.contains("event 1 (node_computed)"), "{found:?}");
    let (masked, found) = screened(kept, true);
    assert_eq!(found.len(), 2);
    assert_eq!(read(&sealed(&masked)).map(|manifest| manifest.is_masked), Ok(true));
    let masked = texts(&masked);
    assert!(masked.iter().all(|line| !line.contains(&key)), "{masked:?}");
    assert_eq!(masked[3], before[3], "what has no secret is as it was stored");
    assert!(masked[4].contains(&same) && !masked[4].contains(&hash));
}

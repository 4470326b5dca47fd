//! A bundle proves what it has, and whatever is altered in it is found.

use chrono::DateTime;
use serde_json::Value;
use uuid::Uuid;

use super::*;

const EPOCH: u32 = 42;
const OURS: &str = "ws_ours";

fn key() -> AuditKey {
    AuditKey::from_seed(&[1; 32])
}

/// History of ten events; of each third one another workspace's, and the fifth is an API key's.
fn event(position: u64, payload: &str, then: impl FnOnce(&Recorded<'_>)) {
    let aggregate_id = format!("run_{position}");
    then(&Recorded {
        position,
        event_id: Uuid::from_u128(u128::from(position)),
        recorded_at: DateTime::UNIX_EPOCH,
        aggregate_type: if position == 5 { "api_key" } else { "run" },
        aggregate_id: &aggregate_id,
        sequence: 1,
        event_type: "run_started",
        event_version: 1,
        workspace_id: if position.is_multiple_of(3) { "ws_theirs" } else { OURS },
        metadata: br#"{"actor":"ann"}"#,
        payload: Payload::Whole(payload.as_bytes()),
    });
}

fn payload(position: u64) -> String {
    // One that can't stand in a line as it is.
    if position == 2 { "{\n}".to_owned() } else { format!(r#"{{"n":{position}}}"#) }
}

/// The chain up to a position.
fn chain(position: u64) -> Chain {
    let mut chain = Chain::start(EPOCH);
    for position in 1..=position {
        event(position, &payload(position), |event| chain.follow(&event.leaf()));
    }
    chain
}

fn head(position: u64) -> SignedHead {
    key().sign(EPOCH, &chain(position), DateTime::UNIX_EPOCH)
}

/// The lines of what comes after a position, up to the tenth event, with heads at 4, 8 and 10.
fn lines(start: u64, only: Option<&str>, told: impl Fn(u64) -> String) -> Vec<String> {
    let manifest = Manifest {
        format: BUNDLE_FORMAT.to_owned(),
        epoch: format!("{EPOCH:08x}"),
        workspace_id: only.map(str::to_owned),
        start: Place::from(&chain(start)),
        to: 10,
        from: start + 1,
        exported_at: DateTime::UNIX_EPOCH,
        exported_by: "key_ann".to_owned(),
        public_key: key().public().to_pem(),
    };
    let (mut writer, first) = Writer::begin(manifest, chain(start));
    let mut all = vec![first];
    if start > 0 {
        all.push(writer.head(head(start)));
    }
    for position in start + 1..=10 {
        event(position, &told(position), |event| {
            let mark = Some(event.leaf().mark());
            let with_payload = event.aggregate_type != "api_key";
            all.push(match only {
                Some(only) if only != event.workspace_id => writer.leaf(event),
                _ => writer.event(event, mark.as_deref(), with_payload),
            });
        });
        if [4, 8, 10].contains(&position) {
            all.push(writer.head(head(position)));
        }
    }
    assert_eq!(writer.position(), 10);
    all.push(writer.end(&key()));
    all.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

fn verified_with(
    key: Option<AuditPublicKey>,
    kept: Vec<SignedHead>,
    lines: &[impl AsRef<str>],
) -> Verified {
    let mut verifier = Verifier::new(key, kept);
    lines.iter().for_each(|line| verifier.line(line.as_ref().as_bytes()));
    verifier.finish()
}

fn verified(lines: &[impl AsRef<str>]) -> Verified {
    verified_with(Some(key().public()), Vec::new(), lines)
}

/// Where the line of a position stands.
fn line_of(lines: &[String], position: u64) -> usize {
    let stands = |line: &String| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let place = line.pointer("/event/entry/position").or(line.pointer("/leaf/position"));
        place.and_then(Value::as_u64) == Some(position)
    };
    lines.iter().position(stands).expect("it is there")
}

/// The SHA-256 at the end made again to fit, as whoever has no key can.
fn mended(mut lines: Vec<String>) -> Vec<String> {
    let mut sha = Sha256::new();
    let last = lines.pop().expect("an end");
    lines.iter().for_each(|line| {
        sha.update(line);
        sha.update("\n");
    });
    let mut end: Value = serde_json::from_str(&last).expect("JSON");
    let is =
        |kind: &str| lines.iter().filter(|line| line.starts_with(&format!("{{\"{kind}\""))).count();
    end["end"]["signed"]["sha256"] = Hash(sha.finalize().into()).to_string().into();
    end["end"]["signed"]["events"] = is("event").into();
    end["end"]["signed"]["leaves"] = is("leaf").into();
    lines.push(end.to_string());
    lines
}

fn problems(report: &Verified) -> String {
    report.findings.iter().map(|finding| format!("{}\n", finding.problem)).collect()
}

#[test]
fn a_bundle_as_it_was_written_proves_what_it_has() {
    for (start, only, told) in
        [(0, None, (10, 0)), (4, None, (6, 0)), (0, Some(OURS), (7, 3)), (4, Some(OURS), (4, 2))]
    {
        let lines = lines(start, only, payload);
        let report = verified(&lines);
        assert_eq!(problems(&report), "", "from {start}");
        assert!(report.ok && !report.own_key);
        assert_eq!((report.first, report.last, report.signed), (start + 1, 10, 10));
        assert_eq!((report.events, report.leaves), told);
        assert_eq!(report.heads, 3);
        let own = verified_with(None, Vec::new(), &lines);
        assert!(own.ok && own.own_key);
        // What is another workspace's isn't told.
        assert_eq!(lines.concat().contains("ws_theirs"), only.is_none());
    }
    let kept = vec![head(2), head(6), head(9)];
    let report = verified_with(Some(key().public()), kept, &lines(4, None, payload));
    assert!(report.ok);
    assert_eq!(report.kept_heads, 2, "those after its start");
}

#[test]
fn an_altered_event_is_named() {
    let whole = lines(0, None, payload);
    // By what the store gives out: the entry and all that follows are made to fit.
    let told = |position| if position == 7 { r#"{"n":8}"#.to_owned() } else { payload(position) };
    let report = verified(&lines(0, None, told));
    assert!(!report.ok);
    // The heads say that it isn't before the fifth, and that it is up to the eighth.
    assert_eq!((report.first_bad, report.signed), (Some(5), 4), "{}", problems(&report));
    // By whoever has the bundle.
    for (from, to) in [
        (r#"{"n":7}"#, r#"{"n":8}"#),
        (r#""actor":"ann""#, r#""actor":"bob""#),
        (r#""sequence":1"#, r#""sequence":2"#),
        (r#""workspace_id":"ws_ours""#, r#""workspace_id":"ws_mine""#),
        (r#""payload":{"json":{"n":7}}"#, r#""payload":{"base64":"?"}"#),
        (r#","payload":{"json":{"n":7}}"#, ""),
    ] {
        let mut altered = whole.clone();
        let at = line_of(&altered, 7);
        altered[at] = altered[at].replace(from, to);
        assert_ne!(altered, whole, "{from}");
        for altered in [mended(altered.clone()), altered] {
            let report = verified(&altered);
            assert!(!report.ok);
            assert!(
                [Some(7), Some(5)].contains(&report.first_bad),
                "{from}: {}",
                problems(&report)
            );
            assert_eq!(report.findings[0].position, Some(7), "{from}: {}", problems(&report));
        }
    }
}

#[test]
fn what_is_gone_moved_or_put_in_is_named() {
    let whole = lines(0, None, payload);
    let (sixth, seventh) = (line_of(&whole, 6), line_of(&whole, 7));
    let mut gone = whole.clone();
    gone.remove(sixth);
    let mut moved = whole.clone();
    moved.swap(sixth, seventh);
    let mut twice = whole.clone();
    twice.insert(sixth, whole[sixth].clone());
    for (altered, position) in [(gone, 6), (moved, 6), (twice, 6)] {
        for altered in [mended(altered.clone()), altered] {
            let report = verified(&altered);
            let named = report.findings[0].position.expect("a position");
            assert!(!report.ok && named.abs_diff(position) <= 1, "{}", problems(&report));
        }
    }
}

#[test]
fn a_bundle_that_is_cut_off_is_found_wherever_that_is() {
    for start in [0, 4] {
        let whole = lines(start, Some(OURS), payload);
        for kept in 0..whole.len() {
            let report = verified(&whole[..kept]);
            assert!(!report.ok, "{kept} lines of {}", whole.len());
            // With an end after what is left, as whoever has no key can make it.
            let mut ended = whole[..kept].to_vec();
            ended.push(whole[whole.len() - 1].clone());
            if kept + 1 < whole.len() {
                assert!(!verified(&mended(ended)).ok, "{kept} lines and an end");
            }
        }
        let cut = &whole[..line_of(&whole, 8)];
        assert_eq!(verified(cut).first_bad, Some(8));
    }
    assert_eq!(problems(&verified(&[""; 0])), "the bundle is empty\n");
    let mut more = lines(0, None, payload);
    more.push(more[1].clone());
    assert_eq!(problems(&verified(&more)), "there is something after the end\n");
}

#[test]
fn no_member_of_manifest_or_end_can_be_altered() {
    for start in [0, 4] {
        let whole = lines(start, Some(OURS), payload);
        let altered = |line: usize, kind: &str, pointer: &str| {
            let mut altered = whole.clone();
            let mut value: Value = serde_json::from_str(&altered[line]).expect("JSON");
            let member = value[kind].pointer_mut(pointer).expect("a member");
            *member = match &*member {
                Value::Number(number) => (number.as_u64().expect("whole") + 1).into(),
                Value::String(text) if text.starts_with("1970") => "1971-01-01T00:00:00Z".into(),
                Value::String(text) => {
                    let other = if text.starts_with('0') { "1" } else { "0" };
                    format!("{other}{}", &text[1..]).into()
                }
                other => panic!("{other}"),
            };
            altered[line] = value.to_string();
            altered
        };
        let of_manifest = [
            "/format",
            "/epoch",
            "/workspace_id",
            "/start/position",
            "/start/hash",
            "/to",
            "/from",
            "/exported_at",
            "/exported_by",
            "/public_key",
        ];
        for pointer in of_manifest {
            for lines in [altered(0, "manifest", pointer), mended(altered(0, "manifest", pointer))]
            {
                assert!(!verified(&lines).ok, "{pointer}");
            }
        }
        let members: Value = serde_json::from_str(&whole[0]).expect("JSON");
        let names = members["manifest"].as_object().expect("members").keys();
        assert!(names.into_iter().all(|name| of_manifest.iter().any(|at| at.contains(&**name))));
        for pointer in [
            "/signed/position",
            "/signed/hash",
            "/signed/events",
            "/signed/leaves",
            "/signed/sha256",
            "/key_id",
            "/signature",
        ] {
            assert!(!verified(&altered(whole.len() - 1, "end", pointer)).ok, "{pointer}");
        }
    }
}

#[test]
fn what_is_ours_cannot_be_passed_off_as_anothers() {
    let mut lines = lines(0, Some(OURS), payload);
    let at = line_of(&lines, 7);
    event(7, &payload(7), |event| {
        let leaf = LeafLine { position: 7, leaf: event.leaf().to_string() };
        lines[at] = serde_json::to_string(&Line::Leaf(leaf)).expect("JSON");
    });
    let report = verified(&mended(lines));
    // The chain is the same; it is the end's signature that tells.
    assert_eq!(report.signed, 10);
    assert_eq!(problems(&report), "the key did not sign the bundle\n");
}

#[test]
fn another_key_and_other_heads_are_found() {
    let other = AuditKey::from_seed(&[2; 32]);
    let report = verified_with(Some(other.public()), Vec::new(), &lines(0, None, payload));
    assert!(problems(&report).contains("the bundle names another public key"));
    assert!(problems(&report).contains("the key did not sign the head"));
    assert!(problems(&report).contains("the key did not sign the bundle"));
    // History was made again, with all heads: one that was kept elsewhere tells.
    let mut other_history = chain(6);
    other_history.follow(&Hash([7; 32]));
    let kept = key().sign(EPOCH, &other_history, DateTime::UNIX_EPOCH);
    let report = verified_with(None, vec![kept], &lines(0, None, payload));
    assert_eq!(report.first_bad, Some(5), "{}", problems(&report));
    // Without the heads nothing says that it is history.
    let mut bare = lines(4, None, payload);
    bare.retain(|line| !line.starts_with("{\"head\""));
    let report = verified(&mended(bare));
    assert!(problems(&report).contains("no signed head says that history before it"));
    assert!(problems(&report).contains("no signed head covers"));
}

#[test]
fn hostile_lines_are_found_and_nothing_worse() {
    let whole = lines(0, Some(OURS), payload);
    let valid: Vec<&str> = whole[1..].iter().map(String::as_str).collect();
    let mut begun = Verifier::new(None, Vec::new());
    begun.line(whole[0].as_bytes());
    graphs::holds(1_000, graphs::hostile_text(&valid), |text| {
        let mut verifier = begun.clone();
        verifier.line(text.as_bytes());
        let report = verifier.finish();
        assert!(report.finding_count > 0 && report.last <= 10, "{text}");
    });
}

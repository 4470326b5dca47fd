//! The chain's rules, and what they find.

use super::*;

fn recorded(position: u64) -> Recorded<'static> {
    Recorded {
        position,
        event_id: Uuid::from_u128(u128::from(position)),
        recorded_at: "2026-01-01T00:00:00.000001Z".parse().expect("a time"),
        aggregate_type: "run",
        aggregate_id: "run_1",
        sequence: position,
        event_type: "run_paused",
        event_version: 1,
        workspace_id: "ws_1",
        metadata: br#"{"actor":"ann"}"#,
        payload: Payload::Whole(b"{}"),
    }
}

fn chain(events: &[Recorded<'_>]) -> Hash {
    let mut chain = Chain::start(7);
    events.iter().for_each(|event| chain.follow(&event.leaf()));
    assert_eq!(chain.position, events.len() as u64);
    chain.hash
}

#[test]
fn an_entry_is_canonical_json_and_the_chain_follows_the_rules() {
    let entry = recorded(1).entry();
    let value: serde_json::Value = serde_json::from_slice(&entry).expect("JSON");
    assert_eq!(entry, serde_json_canonicalizer::to_vec(&value).expect("canonical"));
    assert_eq!(value["recorded_at"], "2026-01-01T00:00:00.000001Z");
    // By hand, with nothing of the module.
    let start: [u8; 32] = Sha256::digest(b"wonder-audit-1:00000007").into();
    let leaf: [u8; 32] = Sha256::digest(&entry).into();
    let next: [u8; 32] = Sha256::digest([start, leaf].concat()).into();
    assert_eq!(chain(&[recorded(1)]), Hash(next));
}

#[test]
fn whatever_is_changed_changes_the_chain() {
    let whole = [recorded(1), recorded(2), recorded(3)];
    let hash = chain(&whole);
    let mut seen = vec![hash, chain(&whole[..2]), chain(&[whole[0], whole[2], whole[1]])];
    let changes: &[fn(&mut Recorded<'static>)] = &[
        |event| event.position += 1,
        |event| event.event_id = Uuid::nil(),
        |event| event.recorded_at += chrono::Duration::microseconds(1),
        |event| event.aggregate_type = "ru",
        |event| event.aggregate_id = "run_2",
        |event| event.sequence += 1,
        |event| event.event_type = "run_resumed",
        |event| event.event_version += 1,
        |event| event.workspace_id = "",
        |event| event.metadata = br#"{"actor":"bob"}"#,
        |event| event.payload = Payload::Whole(b"{} "),
    ];
    for change in changes {
        let mut changed = whole;
        change(&mut changed[1]);
        let hash = chain(&changed);
        assert!(!seen.contains(&hash), "{changed:?}");
        assert_ne!(changed[1].leaf().mark(), whole[1].leaf().mark(), "{changed:?}");
        seen.push(hash);
    }
    assert_ne!(Chain::start(8).hash, Chain::start(7).hash);
}

#[test]
fn a_signature_holds_for_its_head_and_key_alone() {
    let key = AuditKey::from_seed(&[1; 32]);
    let other = AuditKey::from_seed(&[2; 32]);
    let at = "2026-01-01T00:00:00Z".parse().expect("a time");
    let mut at_five = Chain::start(7);
    at_five.position = 5;
    let head = key.sign(7, &at_five, at);
    assert!(key.public().has_signed(&head));
    assert!(!other.public().has_signed(&head));
    assert_eq!(head.chain(), Ok(at_five));
    let changes: &[fn(&mut SignedHead)] = &[
        |head| head.epoch = "00000008".to_owned(),
        |head| head.position = 4,
        |head| head.hash = Chain::start(8).hash.to_string(),
        |head| head.signed_at = "2026-01-01T00:00:01.000000Z".to_owned(),
        |head| head.key_id = "0".to_owned(),
        |head| head.signature = "AAAA".to_owned(),
        |head| head.signature = "?".to_owned(),
    ];
    for change in changes {
        let mut changed = head.clone();
        change(&mut changed);
        assert!(!key.public().has_signed(&changed), "{changed:?}");
    }
}

#[test]
fn keys_are_read_as_openssl_writes_them() {
    // The pair of RFC 8410, section 10, in the form without attributes.
    let private = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";
    let public = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";
    let key = AuditKey::from_pem(private).expect("a key");
    assert_eq!(key.public().to_pem(), public);
    assert_eq!(AuditPublicKey::from_pem(public), Ok(key.public()));
    let again = AuditKey::from_pem(&key.to_pem()).expect("a key");
    assert_eq!(again.public(), key.public());
    assert!(!format!("{key:?}").contains("INTuctv5"), "{key:?}");
    assert!(AuditKey::from_pem(public).is_err());
    assert!(AuditPublicKey::from_pem("").expect_err("no key").to_string().contains("openssl"));
}

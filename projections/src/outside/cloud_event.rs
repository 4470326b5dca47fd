//! An event as a CloudEvent 1.0 in binary mode: attributes are headers, the payload is the body.

use std::borrow::Cow;

use bytes::Bytes;
use chassis::bus::Publication;
use chassis::journal::RecordedEvent;
use chrono::SecondsFormat;
use domain::ids::EventId;

/// What the type of an event of a store begins with.
const TYPE_PREFIX: &str = "wonder";
/// The header that tells where an event came from.
pub(super) const SOURCE: &str = "ce-source";
/// The header that tells its place in the journal.
pub(super) const POSITION: &str = "ce-position";

/// `/wonder/<epoch of the store, 8 hexadecimal digits>`: positions of another source are of another
/// history.
pub(super) fn source(epoch: u32) -> String {
    format!("/wonder/{epoch:08x}")
}

/// The message of an event of a [`source`], below the prefix of the bus:
/// `events.<workspace>.<aggregate type>.<aggregate id>.<event type>`.
pub(super) fn publication(event: &RecordedEvent, source: &str, body: Bytes) -> Publication {
    let subject = [
        "events",
        &token(&event.workspace_id),
        &token(&event.aggregate_type),
        &token(&event.aggregate_id),
        &token(&event.event_type),
    ]
    .join(".");
    let id = EventId::new(event.id).to_string();
    let kind = format!("{TYPE_PREFIX}.{}.{}", event.aggregate_type, event.event_type);
    let time = event.recorded_at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let headers = vec![
        ("ce-specversion", "1.0".to_owned()),
        ("ce-id", id.clone()),
        (SOURCE, source.to_owned()),
        ("ce-type", kind),
        ("ce-subject", event.aggregate_id.to_string()),
        ("ce-time", time),
        ("ce-sequence", event.sequence.to_string()),
        (POSITION, event.position.to_string()),
        ("ce-workspace", event.workspace_id.to_string()),
        ("ce-dataversion", event.event_version.to_string()),
        ("content-type", "application/json".to_owned()),
    ];
    Publication { subject, id, headers, body }
}

/// The same without a body, where even that of an event with all large values left out doesn't fit
/// into a message: `null`, and how many bytes it would have.
pub(super) fn without_body(mut publication: Publication) -> Publication {
    publication.headers.push(("ce-omitted", publication.body.len().to_string()));
    publication.body = Bytes::from_static(b"null");
    publication
}

/// What a subject takes as one of its tokens. Ids and types are such already.
fn token(text: &str) -> Cow<'_, str> {
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match text {
        "" => "_".into(),
        text if text.chars().all(is_of_token) => text.into(),
        text => text.chars().map(|c| if is_of_token(c) { c } else { '_' }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;

    fn event() -> RecordedEvent {
        RecordedEvent {
            position: 7,
            id: Uuid::nil(),
            aggregate_type: "run".into(),
            aggregate_id: "run_1".into(),
            sequence: 3,
            event_type: "run_started".into(),
            event_version: 1,
            workspace_id: "ws_1".into(),
            payload: Bytes::new(),
            metadata: Bytes::new(),
            recorded_at: DateTime::UNIX_EPOCH,
            redacted: None,
        }
    }

    #[test]
    fn its_attributes_are_headers() {
        let body = Bytes::from_static(br#"{"input":1}"#);
        let publication = publication(&event(), &source(0xab), body.clone());
        assert_eq!(publication.subject, "events.ws_1.run.run_1.run_started");
        let id = EventId::new(Uuid::nil()).to_string();
        assert_eq!(publication.id, id);
        assert_eq!(publication.body, body);
        let headers: Vec<(&str, &str)> =
            publication.headers.iter().map(|(name, value)| (*name, &**value)).collect();
        assert_eq!(
            headers,
            [
                ("ce-specversion", "1.0"),
                ("ce-id", &*id),
                ("ce-source", "/wonder/000000ab"),
                ("ce-type", "wonder.run.run_started"),
                ("ce-subject", "run_1"),
                ("ce-time", "1970-01-01T00:00:00.000000Z"),
                ("ce-sequence", "3"),
                ("ce-position", "7"),
                ("ce-workspace", "ws_1"),
                ("ce-dataversion", "1"),
                ("content-type", "application/json"),
            ]
        );
    }

    #[test]
    fn a_subject_holds_no_separator_or_wildcard_of_an_event() {
        let strange =
            RecordedEvent { workspace_id: "".into(), aggregate_id: "a.b c>*".into(), ..event() };
        let publication = publication(&strange, "", Bytes::from_static(br#"{"input":1}"#));
        assert_eq!(publication.subject, "events._.run.a_b_c__.run_started");
        let empty = without_body(publication);
        assert_eq!((&*empty.body, empty.headers[11].1.as_str()), (b"null".as_slice(), "11"));
    }
}

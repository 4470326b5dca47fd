//! Log records for a store: what is told at a level or above, with the fields of the spans around.
//!
//! Handing a record on never waits: the queue is bounded, and what doesn't fit is dropped and
//! counted. Who keeps records works inside of [`unrecorded`], so that its own troubles, and those
//! of what it calls, become no records: they stand in the log on stderr only.

use std::fmt::{self, Write as _};

use chrono::{DateTime, Utc};
use serde_json::{Map, Number, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record as Values};
use tracing::{Event, Level, Metadata, Span, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, Scope};
use uuid::Uuid;

use super::QUIET_TARGETS;
use crate::bus::{Receiver, SendError, Sender, queue};

/// Records that wait to be kept.
const WAITING: usize = 1_024;
/// Fields of a record.
const FIELDS: usize = 32;
/// Bytes of a field's text, of all of them, and of the message.
const FIELD_BYTES: usize = 1_024;
const FIELDS_BYTES: usize = 8 * 1_024;
const MESSAGE_BYTES: usize = 2_048;
/// The span whose events aren't recorded.
const UNRECORDED: &str = "log_store";

/// Something that was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// A UUIDv7 of its time.
    pub id: Uuid,
    pub at: DateTime<Utc>,
    pub level: Level,
    /// The module that told it.
    pub target: String,
    /// At most 2 KiB.
    pub message: String,
    /// Those of the event and of the spans around it, inner ones before outer ones: at most 32
    /// and 8 KiB, texts of at most 1 KiB.
    pub fields: Map<String, Value>,
}

/// Counts records that nobody keeps: `why` is `full`, or what keeps them says.
pub fn dropped(why: &'static str, records: usize) {
    metrics::counter!("wonder_logs_dropped_total", "why" => why).increment(records as u64);
}

/// The span of who keeps records: nothing that is told in it becomes one.
pub fn unrecorded() -> Span {
    tracing::error_span!(UNRECORDED)
}

/// Hands records of a level and above to a queue.
pub(super) struct Recorder(Sender<Record>);

/// A recorder of a level and above, and where its records come out.
pub(super) fn recorder() -> (Recorder, Receiver<Record>) {
    let (sender, receiver) = queue(WAITING);
    (Recorder(sender), receiver)
}

/// What a recorder sees: events of a level and above, and the spans that say what they are about.
pub(super) fn of_level(level: Level) -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    let spans = Level::INFO;
    let wanted = move |metadata: &Metadata<'_>| match metadata.is_span() {
        true => *metadata.level() <= spans,
        false => {
            let is_quiet =
                || QUIET_TARGETS.iter().any(|quiet| metadata.target().starts_with(quiet));
            *metadata.level() <= level && (*metadata.level() <= Level::WARN || !is_quiet())
        }
    };
    filter_fn(wanted).with_max_level_hint(LevelFilter::from_level(spans.max(level)))
}

impl<S> Layer<S> for Recorder
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut told = Told::default();
        attributes.record(&mut told);
        span.extensions_mut().insert(told);
    }

    fn on_record(&self, id: &Id, values: &Values<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(told) = span.extensions_mut().get_mut::<Told>() {
            values.record(told);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut told = Told::default();
        event.record(&mut told);
        for span in context.event_scope(event).into_iter().flat_map(Scope::into_iter) {
            if span.name() == UNRECORDED {
                return;
            }
            if let Some(outer) = span.extensions().get::<Told>() {
                outer.fields.iter().for_each(|(name, value)| told.keep(name, value.clone()));
            }
        }
        let (metadata, at) = (event.metadata(), Utc::now());
        let record = Record {
            id: Uuid::now_v7(),
            at,
            level: *metadata.level(),
            target: told.target.unwrap_or_else(|| metadata.target().to_owned()),
            message: told.message,
            fields: told.fields,
        };
        if let Err(SendError::Full(_)) = self.0.try_send(record) {
            dropped("full", 1);
        }
    }
}

/// What an event or a span says.
#[derive(Default)]
struct Told {
    message: String,
    /// Of what came through the crate `log`.
    target: Option<String>,
    fields: Map<String, Value>,
    bytes: usize,
}

impl Told {
    /// Keeps a field that isn't there yet, where there is room.
    fn keep(&mut self, name: &str, value: Value) {
        let bytes = self.bytes + name.len() + value.as_str().map_or(8, str::len);
        let has_room = self.fields.len() < FIELDS && bytes <= FIELDS_BYTES;
        if has_room && !self.fields.contains_key(name) {
            self.fields.insert(name.to_owned(), value);
            self.bytes = bytes;
        }
    }

    fn text(&mut self, field: &Field, text: impl fmt::Display) {
        match field.name() {
            "message" => self.message = cut(text, MESSAGE_BYTES),
            "log.target" => self.target = Some(cut(text, FIELD_BYTES)),
            name if name.starts_with("log.") => {}
            name => self.keep(name, cut(text, FIELD_BYTES).into()),
        }
    }
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.keep(field.name(), Number::from_f64(value).map_or(Value::Null, Value::Number));
    }
}

/// A text of at most so many bytes; what no database takes is replaced.
fn cut(text: impl fmt::Display, bytes: usize) -> String {
    struct Bounded {
        text: String,
        room: usize,
    }
    impl fmt::Write for Bounded {
        fn write_str(&mut self, more: &str) -> fmt::Result {
            for char in more.chars() {
                let char = if char == '\0' { char::REPLACEMENT_CHARACTER } else { char };
                self.room = self.room.checked_sub(char.len_utf8()).ok_or(fmt::Error)?;
                self.text.push(char);
            }
            Ok(())
        }
    }
    let mut bounded = Bounded { text: String::new(), room: bytes - '…'.len_utf8() };
    if write!(bounded, "{text}").is_err() {
        bounded.text.push('…');
    }
    bounded.text
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// The records of what is told by `work`.
    fn recorded(level: Level, work: impl FnOnce()) -> Vec<Record> {
        let (recorder, records) = recorder();
        let layer = recorder.with_filter(of_level(level));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        let mut all = Vec::new();
        records.try_recv_many(&mut all, usize::MAX);
        all
    }

    #[test]
    fn a_record_has_the_fields_of_the_spans_around_it() {
        let records = recorded(Level::WARN, || {
            let outer = tracing::info_span!(
                "request",
                trace_id = "t",
                code = 1,
                late = tracing::field::Empty
            );
            outer.record("late", 7);
            let _outer = outer.entered();
            let _inner = tracing::info_span!("work", run_id = %"run_1").entered();
            tracing::info!("not this");
            tracing::warn!(code = "x", ok = true, ratio = 0.5, what = ?Some(1), "it {}", "failed");
        });
        let [record] = &records[..] else { panic!("one record: {records:?}") };
        assert_eq!((record.level, &*record.message), (Level::WARN, "it failed"));
        assert_eq!(record.target, module_path!());
        let fields = serde_json::json!({"code": "x", "ok": true, "ratio": 0.5, "what": "Some(1)",
            "run_id": "run_1", "trace_id": "t", "late": 7});
        assert_eq!(Value::Object(record.fields.clone()), fields);
        assert_eq!(record.id.get_version_num(), 7);
    }

    #[test]
    fn it_takes_the_level_that_it_is_told_and_nothing_of_who_keeps_records() {
        let tell = || {
            tracing::error!("one");
            tracing::info!("two");
            tracing::info!(target: "async_nats::x", "chatter");
            tracing::debug!("three");
            unrecorded().in_scope(|| tracing::error!("the store is away"));
        };
        let messages = |level| {
            let records = recorded(level, tell);
            records.into_iter().map(|record| record.message).collect::<Vec<_>>()
        };
        assert_eq!(messages(Level::WARN), ["one"]);
        assert_eq!(messages(Level::INFO), ["one", "two"]);
    }

    #[test]
    fn what_is_long_is_cut_and_what_is_many_is_dropped() {
        let long = "ä\0".repeat(10_000);
        let records = recorded(Level::WARN, || {
            let _spans: Vec<_> = (0..10)
                .map(|_| tracing::info_span!("x", a = long, b = long, c = long, d = long).entered())
                .collect();
            tracing::warn!(%long, e = long, f = long, g = long, h = long, i = long, "{long}");
            for _ in 0..2 * WAITING {
                tracing::warn!("again");
            }
        });
        assert_eq!(records.len(), WAITING);
        assert!(records[0].message.len() <= MESSAGE_BYTES && records[0].message.ends_with('…'));
        let fields = serde_json::to_vec(&records[0].fields).expect("json");
        assert!(fields.len() < 2 * FIELDS_BYTES);
        let field = records[0].fields["long"].as_str().expect("a text");
        assert!(field.len() <= FIELD_BYTES && field.starts_with("ä\u{fffd}ä"));
    }
}

//! Exports: a part of history as a bundle, streamed in bounded memory.

use std::collections::VecDeque;
use std::sync::Arc;

use chassis::journal::{Journal, RecordedEvent};
use domain::audit::bundle::{BUNDLE_FORMAT, Manifest, Place, Writer};
use domain::audit::{AuditKey, Chain, SignedHead};
use domain::resource::Kind;
use futures::stream::{self, BoxStream, StreamExt};
use protocol::{ExportAudit, Rejection, RejectionKind};

use super::{AuditTrail, Seal, recorded};
use crate::{Projections, refusal};

/// Events that are read at once.
const PAGE: usize = 256;
/// Bytes after which a piece of the stream ends.
const PIECE_BYTES: usize = 256 * 1024;
/// Heads that are read at once.
const HEADS: u32 = 1_000;

impl Projections {
    /// See [`protocol::AuditQueries::export`].
    pub(crate) async fn exported(
        &self,
        asked: ExportAudit,
    ) -> Result<BoxStream<'static, Result<String, Rejection>>, Rejection> {
        let key = self.config.audit_key.clone().ok_or_else(unsigned)?;
        let (readers, epoch) = (self.store.readers().clone(), self.journal.epoch());
        let trail = AuditTrail { readers, epoch };
        let key_id = key.public().id();
        let newest = trail.newest_head(&key_id).await?.ok_or_else(unsigned)?;
        let last = match asked.to {
            None => newest,
            Some(to) if to > newest.position => return Err(not_yet(to, newest.position)),
            Some(to) => trail.first_head(&key_id, to).await?.unwrap_or(newest),
        };
        let from = asked.from.unwrap_or(1).max(1);
        if from > asked.to.unwrap_or(last.position) {
            let message = "the first position must not be after the last one that is signed";
            return Err(Rejection::new(RejectionKind::Malformed, "invalid_parameter", message));
        }
        let first = trail.head_before(&key_id, from).await?;
        let start = match &first {
            None => Chain::start(epoch),
            Some(head) => {
                head.chain().map_err(|error| refusal::damaged("a signed head", &error))?
            }
        };
        let only = asked.workspace_id.map(|id| id.to_string());
        let manifest = Manifest {
            format: BUNDLE_FORMAT.to_owned(),
            epoch: format!("{epoch:08x}"),
            workspace_id: only.clone(),
            start: Place::from(&start),
            to: last.position,
            from,
            exported_at: asked.at,
            exported_by: asked.by,
            public_key: key.public().to_pem(),
        };
        let (writer, mut piece) = Writer::begin(manifest, start);
        let mut export = Export {
            journal: Arc::clone(&self.journal),
            trail,
            key,
            only,
            to: last.position,
            writer: Some(writer),
            events: VecDeque::new(),
            heads: VecDeque::new(),
            seals: Vec::new(),
        };
        if let (Some(head), Some(writer)) = (first, &mut export.writer) {
            piece.push_str(&writer.head(head));
        }
        let rest = stream::unfold(export, |mut export| async move {
            let piece = export.next().await?;
            Some((piece, export))
        });
        Ok(stream::iter([Ok(piece)]).chain(rest).boxed())
    }
}

fn unsigned() -> Rejection {
    let message = "nothing of history is signed here: give the processes that fold and that answer \
                   queries an audit key (WONDER_AUDIT_KEY), and wait for the first signed head";
    Rejection::new(RejectionKind::Conflict, "audit_not_signed", message)
}

fn not_yet(to: u64, signed: u64) -> Rejection {
    let message = format!(
        "history is signed up to position {signed}, and {to} was asked for: ask for less, or again \
         in ten seconds"
    );
    Rejection::new(RejectionKind::Unavailable, "position_not_signed", message)
}

/// An export under way.
struct Export {
    journal: Arc<dyn Journal>,
    trail: AuditTrail,
    key: AuditKey,
    /// The workspace whose events are told.
    only: Option<String>,
    to: u64,
    /// Absent when the end is written, or after an error.
    writer: Option<Writer>,
    /// Those that come next, as far as they were read.
    events: VecDeque<RecordedEvent>,
    /// Those after where the bundle is, as far as they were read.
    heads: VecDeque<SignedHead>,
    seals: Vec<Seal>,
}

impl Export {
    async fn next(&mut self) -> Option<Result<String, Rejection>> {
        let mut writer = self.writer.take()?;
        let mut piece = String::new();
        while piece.len() < PIECE_BYTES {
            if writer.position() >= self.to {
                piece.push_str(&writer.end(&self.key));
                return Some(Ok(piece));
            }
            // After an error nothing follows: without its end, the bundle is no whole one.
            if self.events.is_empty()
                && let Err(rejection) = self.read(writer.position()).await
            {
                return Some(Err(rejection));
            }
            self.write(&mut writer, &mut piece);
        }
        self.writer = Some(writer);
        Some(Ok(piece))
    }

    /// Reads what comes after a position.
    async fn read(&mut self, after: u64) -> Result<(), Rejection> {
        let wanted = usize::try_from(self.to - after).map_or(PAGE, |left| left.min(PAGE));
        let events = self.journal.read(after, wanted).await.map_err(refusal::journal)?;
        if events.is_empty() {
            return Err(refusal::damaged("the journal", &"events that were signed are gone"));
        }
        self.events = events.into();
        // A page has parts of two blocks at most.
        self.seals = self.trail.seals(after, 2).await?;
        if self.heads.back().is_none_or(|head| head.position < after + PAGE as u64) {
            let read = self.heads.back().map_or(after, |head| head.position);
            let more = self.trail.heads(read, HEADS).await?;
            let key_id = self.key.public().id();
            self.heads.extend(more.into_iter().filter(|head| head.key_id == key_id));
        }
        Ok(())
    }

    /// Writes the next event, and the head that is about it.
    fn write(&mut self, writer: &mut Writer, piece: &mut String) {
        let Some(event) = self.events.pop_front() else { return };
        let told = recorded(&event);
        piece.push_str(&match &self.only {
            Some(only) if **only != *event.workspace_id => writer.leaf(&told),
            _ => {
                let with_payload = &*event.aggregate_type != Kind::ApiKey.as_str();
                writer.event(&told, self.mark(event.position), with_payload)
            }
        });
        while let Some(head) = self.heads.pop_front_if(|head| head.position <= event.position) {
            if head.position == event.position {
                piece.push_str(&writer.head(head));
            }
        }
    }

    /// The mark that an event was sealed with.
    fn mark(&self, position: u64) -> Option<&str> {
        let of = |seal: &&Seal| (seal.first..=seal.last()).contains(&position);
        let seal = self.seals.iter().find(of)?;
        let number = usize::try_from(position - seal.first).ok()?;
        seal.marks.get(number).map(String::as_str)
    }
}

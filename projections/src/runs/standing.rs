//! Where runs stand while they go on, and where they stood: stretches of time with a status and
//! what was waited for.
//!
//! Most runs work on tasks from their start to their end, so that is what a run does for as long as
//! no stretch says something else. That a run is paused or queued stands in its events; what its
//! tokens wait for stands beside the events that changed it (`waits` of their metadata).

use std::collections::{BTreeMap, HashMap};

use chassis::journal::RecordedEvent;
use domain::codec;
use domain::run::RunStatus;
use domain::run::state::{WaitKind, WaitKinds};
use protocol::event::is_shared;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use crate::store::dialect::Dialect;
use crate::store::sql::{Session, sql};

/// Where a run stands while it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    paused_micros: Option<i64>,
    queued_micros: Option<i64>,
    waits: WaitKinds,
}

/// What an event says of it.
#[derive(Debug, Clone, Copy)]
enum Said {
    Paused,
    Resumed,
    Queued,
    Admitted,
    Waits(WaitKinds),
    /// From here on it is a run of its own.
    Forked,
    Ended(RunStatus),
}

/// What the events of a batch say of one run, in their order, and when.
#[derive(Debug, Default)]
pub(super) struct Turns(Vec<(i64, Said)>);

/// What becomes of a run's row; the names are those of its columns.
#[derive(Debug, Serialize)]
pub(super) struct Stands {
    /// Tells that the others are given.
    stood: u8,
    status: RunStatus,
    paused_micros: Option<i64>,
    queued_micros: Option<i64>,
    waits: u8,
}

/// A stretch that begins in the batch.
#[derive(Debug, Serialize)]
struct Stretch<'a> {
    run_id: &'a str,
    from_micros: i64,
    to_micros: Option<i64>,
    status: RunStatus,
    waits: u8,
}

/// What a batch changes of stretches.
#[derive(Debug, Default)]
pub(super) struct Stretches<'a> {
    /// Runs whose open stretch ends, and when.
    closed: Vec<(&'a str, i64)>,
    begun: Vec<Stretch<'a>>,
}

#[derive(Deserialize)]
struct Beside {
    #[serde(default)]
    waits: Option<WaitKinds>,
}

#[derive(FromRow)]
struct Known {
    id: String,
    paused_micros: Option<i64>,
    queued_micros: Option<i64>,
    waits: i64,
}

impl Standing {
    /// What a run does of which nothing is said.
    const WORKS: Self = Self { paused_micros: None, queued_micros: None, waits: WaitKinds::TASK };

    fn status(&self) -> RunStatus {
        let is_queued = self.queued_micros.is_some() || self.waits.has(WaitKind::Queue);
        match (self.paused_micros, is_queued, self.waits.has(WaitKind::Task)) {
            (Some(_), ..) => RunStatus::Paused,
            (None, true, _) => RunStatus::Queued,
            (None, false, false) => RunStatus::Waiting,
            (None, false, true) => RunStatus::Running,
        }
    }

    fn looks_like(&self, other: &Self) -> bool {
        (self.status(), self.waits) == (other.status(), other.waits)
    }

    fn take(&mut self, at: i64, said: Said) {
        match said {
            Said::Paused => self.paused_micros = Some(at),
            Said::Resumed => self.paused_micros = None,
            // Recorded again where only the reason has changed.
            Said::Queued => self.queued_micros = self.queued_micros.or(Some(at)),
            Said::Admitted => self.queued_micros = None,
            Said::Waits(waits) => self.waits = waits,
            Said::Forked => *self = Self::WORKS,
            Said::Ended(_) => {
                *self = Self { waits: WaitKinds::default(), ..Self::WORKS };
            }
        }
    }
}

impl Turns {
    /// Takes what an event says, by its type and what stands beside it. Where the other run of a fork
    /// stood is told of that run alone.
    pub(super) fn take(&mut self, event: &RecordedEvent) -> Result<(), serde_json::Error> {
        let says_waits = codec::mentions(&event.metadata, "\"waits\":");
        let (before, said) = match &*event.event_type {
            "run_forked" => (Some(Said::Forked), None),
            "run_paused" => (None, Some(Said::Paused)),
            "run_resumed" => (None, Some(Said::Resumed)),
            "run_queued" => (None, Some(Said::Queued)),
            "run_admitted" => (None, Some(Said::Admitted)),
            _ if says_waits => (None, None),
            _ => return Ok(()),
        };
        if is_shared(&event.metadata, event.sequence) {
            return Ok(());
        }
        let waits = if says_waits {
            let beside: Beside = serde_json::from_slice(&event.metadata)?;
            beside.waits.map(Said::Waits)
        } else {
            None
        };
        let at = event.recorded_at.timestamp_micros();
        self.0.extend(before.into_iter().chain(waits).chain(said).map(|said| (at, said)));
        Ok(())
    }

    /// The run ends.
    pub(super) fn end(&mut self, status: RunStatus, at: i64) {
        self.0.push((at, Said::Ended(status)));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Stretches<'a> {
    /// Folds what is said of a run over where it stood; `None` where it is new.
    pub(super) fn fold(
        &mut self,
        run_id: &'a str,
        turns: &Turns,
        stood: Option<&KnownStanding>,
    ) -> Stands {
        let before = stood.map_or(Standing::WORKS, |known| known.0);
        let mut standing = before;
        let mut ended = None;
        // By when they begin: of those that begin at the same time, the last one counts.
        let mut begun: BTreeMap<i64, Stretch<'a>> = BTreeMap::new();
        let mut is_open = !before.looks_like(&Standing::WORKS);
        for (at, said) in &turns.0 {
            let last = standing;
            standing.take(*at, *said);
            if let Said::Ended(status) = said {
                ended = Some(*status);
            } else if standing.looks_like(&last) {
                continue;
            }
            match begun.last_entry() {
                Some(mut open) => {
                    let to = &mut open.get_mut().to_micros;
                    *to = to.or(Some(*at));
                }
                None if is_open => {
                    self.closed.push((run_id, *at));
                    is_open = false;
                }
                None => {}
            }
            if ended.is_none() && !standing.looks_like(&Standing::WORKS) {
                let (status, waits) = (standing.status(), standing.waits.bits());
                let (from_micros, to_micros) = (*at, None);
                begun.insert(*at, Stretch { run_id, from_micros, to_micros, status, waits });
            }
        }
        self.begun.extend(begun.into_values());
        Stands {
            stood: 1,
            status: ended.unwrap_or_else(|| standing.status()),
            paused_micros: standing.paused_micros,
            queued_micros: standing.queued_micros,
            waits: standing.waits.bits(),
        }
    }

    /// Writes them. The caller owns the transaction.
    pub(super) async fn write(self, session: &mut Session<'_>) -> Result<(), sqlx::Error> {
        let dialect = session.dialect();
        if !self.closed.is_empty() {
            let closed = serde_json::json!(self.closed).to_string();
            session.execute(sql(close(dialect)).bind(closed)).await?;
        }
        if !self.begun.is_empty() {
            let begun = serde_json::json!(self.begun).to_string();
            session.execute(sql(begin(dialect)).bind(begun)).await?;
        }
        Ok(())
    }
}

/// Where a run stood before a batch.
#[derive(Debug)]
pub(super) struct KnownStanding(Standing);

/// Where runs stood before a batch, by their ids.
pub(super) async fn known(
    session: &mut Session<'_>,
    ids: &[&str],
) -> Result<HashMap<String, KnownStanding>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let each = session.dialect().each("$1");
    let query = format!(
        "select id, paused_micros, queued_micros, waits from runs \
         where id in (select one.value ->> 0 from {each} as one)"
    );
    let ids: Vec<_> = ids.iter().map(|id| [id]).collect();
    let rows: Vec<Known> =
        session.rows(sql(query).bind(serde_json::json!(ids).to_string())).await?;
    let standing = |row: Known| {
        let Known { id, paused_micros, queued_micros, waits } = row;
        let waits = WaitKinds::from_bits(u8::try_from(waits).unwrap_or_default());
        (id, KnownStanding(Standing { paused_micros, queued_micros, waits }))
    };
    Ok(rows.into_iter().map(standing).collect())
}

fn close(dialect: Dialect) -> String {
    format!(
        "update run_stretches set to_micros = cast(change.value ->> 1 as bigint) \
         from {} as change where run_id = change.value ->> 0 and to_micros is null",
        dialect.each("$1")
    )
}

/// A stretch without length gives way to the one after it.
fn begin(dialect: Dialect) -> String {
    format!(
        "insert into run_stretches (run_id, from_micros, to_micros, status, waits) \
         select change.value ->> 'run_id', cast(change.value ->> 'from_micros' as bigint), \
            cast(change.value ->> 'to_micros' as bigint), change.value ->> 'status', \
            cast(change.value ->> 'waits' as bigint) from {} as change where true \
         on conflict (run_id, from_micros) do update set \
            to_micros = excluded.to_micros, status = excluded.status, waits = excluded.waits",
        dialect.each("$1")
    )
}

//! The same answers by decoding and folding all of both: what comparisons of long runs are held
//! against.

use super::*;

/// See [`Histories::differing`].
pub(crate) async fn differing(
    histories: Histories<'_>,
    workspace_id: WorkspaceId,
    run_id: RunId,
    to: DiffTo,
) -> Result<RunDiff, Rejection> {
    let id = run_id.to_string();
    let started = histories.run_started(workspace_id, &id).await?;
    match to {
        DiffTo::Moments { from, to } => {
            let mut events = BTreeMap::new();
            let left = side(histories, &started, &id, from, |_, _| ()).await?;
            let first = left.sequence;
            let right = side(histories, &started, &id, to, |sequence, event| {
                if sequence > first {
                    *events.entry(event.event_type().to_owned()).or_default() += 1;
                }
            });
            let right = right.await?;
            Ok(RunDiff { events, ..between(&left, &right)? })
        }
        DiffTo::Run(other) => {
            let other = other.to_string();
            let others = histories.run_started(workspace_id, &other).await?;
            let (left, right) = (Side::new(&id, &started), Side::new(&other, &others));
            runs(histories, left, right).await
        }
    }
}

async fn side(
    histories: Histories<'_>,
    started: &RunStarted,
    id: &str,
    at: StateAt,
    mut also: impl FnMut(u64, &Event) + Send,
) -> Result<Side, Rejection> {
    let (mut side, mut timeline) = (Side::new(id, started), Timeline::default());
    histories
        .walk(id, at, started.started_at, |sequence, time, event| {
            also(sequence, event);
            side.follow(&mut timeline, sequence, time, event);
        })
        .await?;
    Ok(Side { nodes: counts(&timeline), ..side })
}

async fn runs(
    histories: Histories<'_>,
    mut left: Side,
    mut right: Side,
) -> Result<RunDiff, Rejection> {
    let (mut parts, mut values) = (None, None);
    let (mut our, mut their) = (Timeline::default(), Timeline::default());
    loop {
        let ours = histories.run_events(&left.id, left.sequence, PAGE_EVENTS).await?;
        let theirs = histories.run_events(&right.id, right.sequence, PAGE_EVENTS).await?;
        let is_last = ours.len() < PAGE_EVENTS && theirs.len() < PAGE_EVENTS;
        let mut ours = histories.decoded(&ours).await?.into_iter();
        let mut theirs = histories.decoded(&theirs).await?.into_iter();
        loop {
            let (one, other) = (ours.next(), theirs.next());
            if one.is_none() && other.is_none() {
                break;
            }
            let pair = (one.as_ref().map(|(_, one)| one), other.as_ref().map(|(_, one)| one));
            if parts.is_none() {
                match kind_of(pair) {
                    None => {}
                    Some(PartingKind::Values) if values.is_some() => {}
                    Some(PartingKind::Values) => values = Some(parting(&left, pair)),
                    Some(_) => parts = Some(parting(&left, pair)),
                }
            }
            for (side, timeline, one) in
                [(&mut left, &mut our, one), (&mut right, &mut their, other)]
            {
                if let Some((recorded, event)) = one {
                    side.follow(timeline, recorded.sequence, recorded.recorded_at, &event);
                }
            }
        }
        if is_last {
            (left.nodes, right.nodes) = (counts(&our), counts(&their));
            return Ok(RunDiff { parts, values, ..between(&left, &right)? });
        }
    }
}

fn parting(before: &Side, (left, right): (Option<&Event>, Option<&Event>)) -> Divergence {
    let shown = |event: Option<&Event>| event.map(|event| brief(event).expect("JSON").0);
    Divergence {
        sequence: before.sequence + 1,
        node: left.or(right).and_then(|event| node_of(event, &before.run)),
        left: shown(left),
        right: shown(right),
    }
}

impl Side {
    fn follow(&mut self, timeline: &mut Timeline, sequence: u64, at: DateTime<Utc>, event: &Event) {
        timeline.take(event, sequence, at);
        self.run.evolve(event, at);
        (self.sequence, self.at) = (sequence, at);
    }
}

//! What runs waited for, now and as of a time.

use domain::run::RunStatus::{self, Completed, Paused, Queued, Running, Waiting};
use domain::run::state::WaitKind;
use protocol::{PageRequest, RunFilter, RunQueries};

use super::*;

impl World {
    /// Events beside which stands what the run waits for after them.
    async fn waits(&self, run: RunId, after: u64, events: &[Event], waits: &[WaitKind]) {
        let encode = |event: &Event| NewEvent {
            id: Uuid::now_v7(),
            event_type: event.event_type().into(),
            event_version: 1,
            payload: codec::encode(event, ours()).expect("it encodes").payload.into(),
        };
        let events = events.iter().map(encode).collect();
        let metadata = json!({"actor": "test", "waits": waits}).to_string();
        let stream = run.to_string();
        let stream = ("run", stream.as_str());
        self.append_encoded(stream, ours(), after, events, Vec::new(), &metadata).await;
    }

    /// What a list answers: each run's number, status and what it waits for.
    async fn listed(&self, filter: RunFilter) -> Vec<(u128, RunStatus, Vec<WaitKind>)> {
        let mut listed = Vec::new();
        let mut cursor = None;
        loop {
            let page = PageRequest { limit: 1, cursor, min_position: None };
            let page = RunQueries::list(&*self.views, ours(), filter.clone(), page).await;
            let page = page.expect("a page");
            listed.extend(page.items.iter().map(|run| {
                let id: RunId = run.id.parse().expect("an id");
                (id.bits().as_u128(), run.status, run.waiting_on.iter().collect())
            }));
            cursor = page.next_cursor;
            if cursor.is_none() {
                return listed;
            }
        }
    }
}

fn resumed() -> Event {
    event(json!({"type": "run_resumed"}))
}

fn paused() -> Event {
    event(json!({"type": "run_paused"}))
}

fn waits() -> Event {
    event(json!({"type": "wait_started", "token": 1}))
}

async fn runs_are_listed_as_they_were(storage: Storage) {
    use WaitKind::{Gate, Queue, Task, Timer};
    let world = World::new(storage).await;
    let [a, b, c] = [run_id(40), run_id(30), run_id(20)];
    let began = |run| started(run, json!({}), &[]);
    // Each event of a run is a second later than the one before it.
    world.run(a, 0, &[began(a)]).await;
    world.waits(a, 1, &[waits()], &[Timer]).await;
    world.waits(a, 2, &[waits()], &[Timer]).await;
    world.waits(a, 3, &[succeeded(1, json!(1))], &[Task]).await;
    world.run(a, 4, &[Event::RunCompleted { output: json!("done") }]).await;
    // One whose first append waits for a gate already, and that is paused meanwhile.
    world.waits(b, 0, &[began(b), waits()], &[Task, Gate]).await;
    world.run(b, 2, &[paused()]).await;
    world.run(b, 3, &[resumed()]).await;
    let queued = json!({"type": "run_queued", "reason": "concurrency", "limit": 1, "ahead": 0});
    let queued = event(queued);
    world.waits(c, 0, &[began(c), queued], &[Queue]).await;
    world.waits(c, 2, &[Event::RunAdmitted { deadline: None, until: None }], &[Task]).await;
    world.caught_up().await;

    let now = world.listed(RunFilter::default()).await;
    let task = || vec![Task];
    let wanted = [(40, Completed, vec![]), (30, Running, vec![Task, Gate]), (20, Running, task())];
    assert_eq!(now, wanted);
    let as_of = |at| RunFilter { as_of: Some(at), ..RunFilter::default() };
    let micro = TimeDelta::microseconds(1);
    let both = || vec![Task, Gate];
    let moments = [
        (moment(0) - micro, [(40, Running, task()), (30, Running, task()), (20, Running, task())]),
        (moment(0), [(40, Running, task()), (30, Running, both()), (20, Queued, vec![Queue])]),
        (moment(1), [(40, Waiting, vec![Timer]), (30, Running, both()), (20, Queued, vec![Queue])]),
        (moment(2), [(40, Waiting, vec![Timer]), (30, Paused, both()), (20, Running, task())]),
        (
            moment(3) - micro,
            [(40, Waiting, vec![Timer]), (30, Paused, both()), (20, Running, task())],
        ),
        (moment(3), [(40, Running, task()), (30, Running, both()), (20, Running, task())]),
        (moment(4), [(40, Completed, vec![]), (30, Running, both()), (20, Running, task())]),
        (moment(99), [(40, Completed, vec![]), (30, Running, both()), (20, Running, task())]),
    ];
    for (at, wanted) in &moments {
        assert_eq!(world.listed(as_of(*at)).await, wanted, "{at}");
    }
    let early = DateTime::UNIX_EPOCH + TimeDelta::seconds(15);
    assert_eq!(world.listed(as_of(early)).await.len(), 2, "one hadn't been started");

    let filtered = |filter: RunFilter| {
        let world = &world;
        async move {
            let listed = world.listed(filter).await;
            listed.into_iter().map(|(number, ..)| number).collect::<Vec<_>>()
        }
    };
    let waiting_on = |kinds: &[WaitKind], at: Option<u64>| RunFilter {
        waiting_on: kinds.to_vec(),
        as_of: at.map(moment),
        ..RunFilter::default()
    };
    assert_eq!(filtered(waiting_on(&[Gate], None)).await, [30]);
    assert_eq!(filtered(waiting_on(&[Timer], None)).await, [0_u128; 0]);
    assert_eq!(filtered(waiting_on(&[Timer, Queue], Some(1))).await, [40, 20]);
    assert_eq!(filtered(waiting_on(&[Task], Some(4))).await, [30, 20]);
    let status = RunFilter { status: vec![Waiting, Paused], ..as_of(moment(2)) };
    assert_eq!(filtered(status).await, [40, 30]);
    let status = RunFilter { status: vec![Completed], ..as_of(moment(3)) };
    assert_eq!(filtered(status).await, [0_u128; 0]);
    // What came later isn't shown, and isn't found.
    let page = PageRequest::default();
    let then = RunQueries::list(&*world.views, ours(), as_of(moment(3)), page).await;
    let then = &then.expect("a page").items[0];
    assert_eq!((&then.output, then.ended_at), (&None, None));

    // In one batch or event by event: the rows are the same.
    let done = world.views.rebuild("runs", |_| {}).await.expect("it rebuilds");
    assert_eq!(done.difference, None);
    for (at, wanted) in &moments {
        assert_eq!(world.listed(as_of(*at)).await, wanted, "{at}, rebuilt");
    }
}

on_both_storages!(runs_are_listed_as_they_were);

//! Metrics: the same sums in whatever batches and orders events come, and what is asked of them.

use protocol::{MetricAnswer, MetricQueries, MetricQuery, MetricStep};

use super::driven::{Driven, judged};
use super::*;

on_both_storages!(
    runs_are_counted_by_definition_and_minute,
    nodes_and_attempts_are_told_by_node_kind_and_model,
    a_rebuild_has_the_same_rows_as_the_live_fold,
    what_was_shared_is_counted_once,
    series_beyond_the_limit_become_one,
    what_is_too_old_is_forgotten_and_stays_so,
    what_is_wrong_is_refused,
    an_answer_is_bounded,
);

fn of(metric: &str) -> MetricQuery {
    MetricQuery {
        metric: metric.to_owned(),
        from: Some(moment(0)),
        to: None,
        now: moment(3_600),
        step: None,
        group_by: Vec::new(),
        filters: Vec::new(),
        min_position: None,
    }
}

fn by(metric: &str, groups: &[&str]) -> MetricQuery {
    let group_by = groups.iter().map(|&name| name.to_owned()).collect();
    MetricQuery { group_by, ..of(metric) }
}

async fn ask(world: &World, asked: MetricQuery) -> MetricAnswer {
    world.caught_up().await;
    MetricQueries::query(&*world.views, ours(), asked).await.expect("it answers")
}

/// The groups of an answer with their counts, in order.
fn counts(answer: &MetricAnswer) -> Vec<(String, u64)> {
    let text = |group: &std::collections::BTreeMap<String, String>| {
        group.values().cloned().collect::<Vec<_>>().join(" ")
    };
    let each = answer.series.iter().map(|one| (text(&one.group), one.total.count));
    each.collect()
}

async fn runs_are_counted_by_definition_and_minute(storage: Storage) {
    let world = World::new(storage).await;
    for number in 0..4 {
        // Two definitions, `flow-0` of 0 and 3. Runs 0 to 2 end, each in the first minute.
        world.whole_run(number, 1, number < 3).await;
    }
    // One that ends in the second minute.
    let late = run_id(3);
    let end = Event::RunFailed { error: domain::run::RunError::permanent("no", "no".to_owned()) };
    let filler = (0..60).map(|_| event(json!({"type": "run_paused"})));
    world.run(late, 3, &filler.collect::<Vec<_>>()).await;
    let position = world.run(late, 63, &[end]).await;
    let asked = MetricQuery { min_position: Some(position), ..by("runs.ended", &["definition"]) };
    let answer = MetricQueries::query(&*world.views, ours(), asked).await.expect("it answers");
    assert_eq!((answer.r#type.as_str(), answer.unit.as_deref()), ("count", Some("runs")));
    assert_eq!((answer.step, answer.from), (MetricStep::Minute, moment(0)));
    let expected = [("flow-0", 2), ("flow-1", 1), ("flow-2", 1)];
    assert_eq!(counts(&answer), expected.map(|(name, count)| (name.to_owned(), count)));
    let points: Vec<_> =
        answer.series[0].points.iter().map(|point| (point.at, point.values.count)).collect();
    assert_eq!(points, [(moment(0), 1), (moment(60), 1)]);
    assert_eq!(counts(&ask(&world, of("runs.started")).await), [(String::new(), 4)]);
    assert_eq!(counts(&ask(&world, of("runs.failed")).await), [(String::new(), 1)]);
    let asked = MetricQuery { step: Some(MetricStep::Day), ..by("runs.duration", &["status"]) };
    let answer = ask(&world, asked).await;
    let expected = [("completed", 3), ("failed", 1)];
    assert_eq!(counts(&answer), expected.map(|(name, count)| (name.to_owned(), count)));
    // Started at second 1 of 1970, and ended 63 s after the day 20,000 began.
    let took = answer.series[1].total.clone();
    let is = 20_000.0 * 86_400_000.0 + 62_000.0;
    assert_eq!((took.min, took.max, took.p99), (Some(is), Some(is), Some(is)));
    let theirs = MetricQueries::query(&*world.views, theirs(), of("runs.started")).await;
    assert_eq!(theirs.expect("it answers").series, []);
}

async fn nodes_and_attempts_are_told_by_node_kind_and_model(storage: Storage) {
    let world = World::new(storage).await;
    let mut definition = judged();
    definition["nodes"]["judge"] = json!({"action": {"kind": "llm", "with": {"prompt": "?"}},
        "retry": {"max_attempts": 2}});
    let mut driven = Driven::start(&world, 1, definition, json!({"judges": [1, 2, 3]})).await;
    driven.succeed(1, json!({"score": 5, "model": "none of a mock"})).await;
    world.caught_up().await;
    driven.succeed(2, json!({"text": "a", "model": "small"})).await;
    driven.fail(3).await;
    driven.succeed(4, json!({"text": "b", "model": "large"})).await;
    driven.succeed(5, json!(1)).await;
    assert_eq!(driven.run.status().map(|status| status.as_str()), Some("completed"));
    let answer = ask(&world, by("attempts.started", &["node", "kind"])).await;
    let expected = [("llm judge", 3), ("mock draft", 1), ("mock publish", 1)];
    assert_eq!(counts(&answer), expected.map(|(name, count)| (name.to_owned(), count)));
    let answer = ask(&world, by("attempts.duration", &["node", "model", "status"])).await;
    let expected = [
        "draft  succeeded",
        "judge large succeeded",
        "judge small succeeded",
        "judge  failed",
        "publish  succeeded",
    ];
    let mut groups: Vec<_> = answer
        .series
        .iter()
        .map(|one| ["node", "model", "status"].map(|name| one.group[name].clone()).join(" "))
        .collect();
    groups.sort();
    let mut expected = expected.map(str::to_owned);
    expected.sort();
    assert_eq!(groups, expected);
    assert_eq!(answer.series[0].total.max, Some(5.0), "as its worker measured");
    let answer = ask(&world, by("usage.input_tokens", &["kind"])).await;
    let sums: Vec<_> = answer.series.iter().map(|one| one.total.sum).collect();
    assert_eq!(sums, [Some(21.0), Some(14.0)], "the kind with the most first");
    let asked = MetricQuery {
        filters: vec![("kind".to_owned(), "llm".to_owned())],
        ..by("nodes.duration", &["node", "status"])
    };
    let answer = ask(&world, asked).await;
    assert_eq!(counts(&answer).len(), 2, "the node succeeded, and failed: {answer:?}");
}

/// Many runs, of which some go on in later batches and some never end.
async fn busy(world: &World, numbers: std::ops::Range<u128>) {
    for number in numbers {
        let run = run_id(number);
        world.whole_run(number, number as u64 % 5, number % 3 != 0).await;
        if number % 3 == 0 {
            let steps = 2 * (number as u64 % 5) + 1;
            let token = number as u64 % 5 + 1;
            let opened = event(json!({"type": "token_routed", "token": token, "opened": [
                {"instance": 1, "branches": [{"transition": 0, "node": "left", "count": 2},
                    {"transition": 1, "node": "right", "count": 2}]}]}));
            world.run(run, steps, &[opened]).await;
            let spawned = event(json!({"type": "branches_spawned", "instance": 1, "index": 1,
                "token": token + 1, "count": 2}));
            world.run(run, steps + 1, &[spawned, succeeded(token + 2, json!(1))]).await;
            let routed = event(json!({"type": "token_routed", "token": token + 2}));
            let emitted = event(json!({"type": "metric_emitted", "token": token + 1,
                "name": "score", "value": 0.1 * number as f64,
                "dimensions": {"region": if number % 2 == 0 { "eu" } else { "us" }}}));
            world.run(run, steps + 3, &[routed, emitted]).await;
            // The join has fired, and the last branch is made all the same.
            let joined = event(json!({"type": "join_fired", "instance": 1, "token": token + 3,
                "node": "after", "rest_continues": true, "arithmetic": {"declared": 4,
                "arrived": 1, "failed": 0, "ended": 0, "needed": 1}}));
            let last = event(json!({"type": "branches_spawned", "instance": 1, "index": 3,
                "token": token + 4, "count": 1}));
            let routed = event(json!({"type": "token_routed", "token": token + 4}));
            world.run(run, steps + 5, &[joined, last, routed]).await;
        }
    }
}

async fn a_rebuild_has_the_same_rows_as_the_live_fold(storage: Storage) {
    let mut world = World::idle(storage, Config { batch_events: 7, ..config() }).await;
    busy(&world, 0..20).await;
    world.start();
    busy(&world, 20..40).await;
    world.caught_up().await;
    let same = world.views.compare("metrics", |_| {}).await.expect("it compares");
    assert_eq!(same.difference, None, "in batches of 7, and in one");
    let answer = ask(&world, by("nodes.duration", &["node"])).await;
    let expected = [("again", 59), ("first", 35), ("right", 28)];
    let expected = expected.map(|(node, count)| (node.to_owned(), count));
    assert_eq!(counts(&answer), expected, "the third branch and the fourth are on the right");
    let answer = ask(&world, by("score", &["dimensions.region"])).await;
    let totals: Vec<_> = answer
        .series
        .iter()
        .map(|one| (one.group["dimensions.region"].as_str(), one.total.count, one.total.sum))
        .collect();
    // 0, 6 … 36 tenths and 3, 9 … 39: exact, as no sum of such floats is.
    assert_eq!(totals, [("eu", 7, Some(12.6)), ("us", 7, Some(14.7))]);
    let names = MetricQueries::list(&*world.views, ours(), None).await.expect("a list").items;
    let score = names.last().expect("the emitted ones come last");
    assert_eq!(score.name, "score");
    assert!(score.dimensions.contains(&"dimensions.region".to_owned()), "{score:?}");
    world.sql_on_views("update metric_points set count = count + 1 where metric = 'score'").await;
    let other = world.views.rebuild("metrics", |_| {}).await.expect("it rebuilds");
    assert_eq!(other.difference.expect("it differs").table, "metric_points");
    let answer = ask(&world, by("score", &["dimensions.region"])).await;
    assert_eq!(answer.series[0].total.count, 7, "as it was");
}

async fn what_was_shared_is_counted_once(storage: Storage) {
    let world = World::new(storage).await;
    world.whole_run(1, 1, true).await;
    let fork = run_id(2);
    let Event::RunStarted(mut first) = started(run_id(1), json!({}), &[]) else {
        unreachable!("it is a start")
    };
    let from = json!({"run_id": run_id(1), "sequence": 3, "at": moment(50)});
    first.forked_from = Some(serde_json::from_value(from).expect("a fork"));
    let forked = event(json!({"type": "run_forked", "run_id": fork, "from": run_id(1),
        "sequence": 3, "until": 4, "adopt": "all", "since": moment(0)}));
    let shared = [Event::RunStarted(first), succeeded(1, json!(1)), moved(1, 2), forked];
    let (mut encoded, id) = (Vec::new(), fork.to_string());
    for event in &shared {
        encoded.push(NewEvent {
            id: Uuid::now_v7(),
            event_type: event.event_type().into(),
            event_version: 1,
            payload: codec::encode(event, ours()).expect("it encodes").payload.into(),
            recorded_at: None,
        });
    }
    let stream = ("run", id.as_str());
    world.append_encoded(stream, ours(), 0, encoded, Vec::new(), r#"{"shared":3}"#).await;
    let end = Event::RunCompleted { output: json!(null) };
    world.run(fork, 4, &[succeeded(2, json!(2)), moved(2, 3), end]).await;
    assert_eq!(counts(&ask(&world, of("runs.started")).await)[0].1, 2);
    assert_eq!(counts(&ask(&world, of("attempts.succeeded")).await)[0].1, 2, "one of each");
    let answer = ask(&world, by("nodes.succeeded", &["node"])).await;
    let expected = [("again", 1), ("first", 1)];
    assert_eq!(counts(&answer), expected.map(|(name, count)| (name.to_owned(), count)));
}

async fn what_is_wrong_is_refused(storage: Storage) {
    let quick = Config { position_wait: Duration::ZERO, ..config() };
    let mut world = World::idle(storage, quick).await;
    world.start();
    world.whole_run(1, 1, true).await;
    world.caught_up().await;
    let with = |change: fn(&mut MetricQuery)| {
        let mut asked = of("runs.ended");
        change(&mut asked);
        asked
    };
    for (code, asked) in [
        ("unknown_metric", of("runs.ending")),
        ("unknown_metric", of("")),
        ("unknown_dimension", by("runs.ended", &["node"])),
        ("unknown_dimension", by("runs.ended", &["dimensions.region"])),
        ("unknown_dimension", by("score", &["model"])),
        ("unknown_dimension", by("runs.ended", &["version", "version"])),
        ("unknown_dimension", with(|asked| asked.filters.push(("x".into(), "y".into())))),
        ("invalid_range", with(|asked| asked.to = Some(moment(0)))),
        (
            "metric_query_too_large",
            with(|asked| {
                asked.step = Some(MetricStep::Minute);
                asked.now += TimeDelta::days(2);
            }),
        ),
    ] {
        let refused = MetricQueries::query(&*world.views, ours(), asked).await;
        assert_eq!(refused.expect_err(code).code, code);
    }
    let beyond = MetricQuery { min_position: Some(1_000), ..of("runs.ended") };
    let refused = MetricQueries::query(&*world.views, ours(), beyond).await;
    assert_eq!(refused.expect_err("it is beyond").code, "position_not_reached");
    // A metric that nobody has emitted yet may come to be: it has no series.
    assert_eq!(ask(&world, of("score")).await.series, []);
}

/// Events of a run, each recorded so many seconds after the first moment.
async fn at(world: &World, run: RunId, after: u64, events: &[(i64, Event)]) -> u64 {
    let encoded = events.iter().map(|(second, event)| NewEvent {
        id: Uuid::now_v7(),
        event_type: event.event_type().into(),
        event_version: 1,
        payload: codec::encode(event, ours()).expect("it encodes").payload.into(),
        recorded_at: Some(moment(0) + TimeDelta::seconds(*second)),
    });
    let (id, encoded) = (run.to_string(), encoded.collect());
    world.append_encoded(("run", &id), ours(), after, encoded, Vec::new(), METADATA).await
}

fn emitted(name: &str, value: f64, of: &str) -> Event {
    event(json!({"type": "metric_emitted", "token": 1, "name": name, "value": value,
        "dimensions": {"of": of}}))
}

async fn series_beyond_the_limit_become_one(storage: Storage) {
    let world = World::new(storage).await;
    let run = run_id(1);
    world.run(run, 0, &[started(run, json!({}), &[])]).await;
    let each = |numbers: std::ops::Range<u64>| -> Vec<_> {
        numbers.map(|n| (0, emitted("score", 1.0, &n.to_string()))).collect()
    };
    at(&world, run, 1, &each(0..900)).await;
    world.caught_up().await;
    at(&world, run, 901, &each(890..1_010)).await;
    // A day later there is room again.
    at(&world, run, 1_021, &[(86_400, emitted("score", 1.0, "1005"))]).await;
    let day = |day: i64| MetricQuery {
        from: Some(moment(0) + TimeDelta::days(day)),
        to: Some(moment(0) + TimeDelta::days(day + 1)),
        step: Some(MetricStep::Day),
        ..by("score", &["dimensions.of", "definition"])
    };
    let answer = ask(&world, day(0)).await;
    assert_eq!((answer.series.len(), answer.series_left_out), (100, 901));
    let most = &answer.series[0];
    assert_eq!((most.group["dimensions.of"].as_str(), most.total.count), ("(other)", 10));
    assert_eq!(most.group["definition"], "(other)");
    assert_eq!(
        counts(&ask(&world, MetricQuery { group_by: Vec::new(), ..day(0) }).await)[0].1,
        1_020
    );
    assert_eq!(ask(&world, day(1)).await.series[0].group["dimensions.of"], "1005");

    let names: Vec<_> = (0..505).map(|n| (0, emitted(&format!("m{n:03}"), 2.5, "x"))).collect();
    at(&world, run, 1_022, &names).await;
    assert_eq!(counts(&ask(&world, of("m498")).await)[0].1, 1);
    assert_eq!(ask(&world, of("m499")).await.series, [], "with `score` there are 500");
    assert_eq!(counts(&ask(&world, of("metrics.dropped")).await)[0].1, 6);
    let same = world.views.compare("metrics", |_| {}).await.expect("it compares");
    assert_eq!(same.difference, None, "the same ones have the places");
}

async fn what_is_too_old_is_forgotten_and_stays_so(storage: Storage) {
    let mut world = World::idle(storage, Config { batch_events: 1, ..config() }).await;
    world.start();
    let run = run_id(1);
    world.run(run, 0, &[started(run, json!({}), &[])]).await;
    let days = |days: i64| days * 86_400;
    let score = |day: i64| (days(day), emitted("score", 1.0, "x"));
    // The fourth comes late, from a time that is forgotten as minutes and kept as a day.
    at(&world, run, 1, &[score(0), score(3), score(9), score(1), score(9)]).await;
    let over = |step: MetricStep| MetricQuery {
        to: Some(moment(0) + TimeDelta::days(10)),
        step: Some(step),
        ..of("score")
    };
    assert_eq!(counts(&ask(&world, over(MetricStep::Day)).await)[0].1, 5);
    assert_eq!(counts(&ask(&world, over(MetricStep::Hour)).await)[0].1, 5);
    let minutes =
        MetricQuery { from: Some(moment(0) + TimeDelta::days(9)), ..over(MetricStep::Minute) };
    assert_eq!(counts(&ask(&world, minutes).await)[0].1, 2);
    let early =
        MetricQuery { to: Some(moment(0) + TimeDelta::days(1)), ..over(MetricStep::Minute) };
    assert_eq!(ask(&world, early).await.series, []);
    let same = world.views.compare("metrics", |_| {}).await.expect("it compares");
    assert_eq!(same.difference, None, "one by one, and at once");
    // Without a step, one is taken that is kept for so long.
    let usual = MetricQuery { now: moment(0) + TimeDelta::days(10), ..of("score") };
    let usual = MetricQuery { to: Some(moment(3_600)), ..usual };
    assert_eq!(ask(&world, usual).await.step, MetricStep::Hour);
}

/// Points of so many series, each minute of 25 hours.
async fn many_points(world: &World, metric: &str, series: u64) {
    let begin = moment(0).timestamp();
    let text = format!(
        "insert into metric_points with recursive \
            minutes(n) as (select 0 union all select n + 1 from minutes where n < 1499), \
            series(m) as (select 1 union all select m + 1 from series where m < {series}) \
         select '{}', '{metric}', 60, {begin} + n * 60, cast(m as text), '', '', '', \
            cast(m as text), '', '', '', '', '{{}}', m, '1', 1, 1, '' from minutes, series",
        ours()
    );
    world.sql_on_views(&text).await;
}

async fn an_answer_is_bounded(storage: Storage) {
    let world = World::new(storage).await;
    many_points(&world, "some", 15).await;
    many_points(&world, "more", 40).await;
    let all = |metric: &str| MetricQuery {
        to: Some(moment(1_500 * 60)),
        step: Some(MetricStep::Minute),
        ..by(metric, &["version"])
    };
    let answer = ask(&world, all("some")).await;
    assert_eq!((answer.series.len(), answer.series_left_out), (13, 2), "of 1,500 points each");
    assert_eq!(answer.series[0].group["version"], "15", "the largest first");
    let refused = MetricQueries::query(&*world.views, ours(), all("more")).await;
    assert_eq!(refused.expect_err("60,000 points").code, "metric_query_too_large");
    let narrowed = vec![("version".to_owned(), "7".to_owned())];
    let answer = ask(&world, MetricQuery { filters: narrowed, ..all("more") }).await;
    assert_eq!((answer.series.len(), answer.series[0].total.count), (1, 7 * 1_500));
}

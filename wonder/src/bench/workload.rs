//! The workloads, each from a clean server.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use protocol::EventPage;
use serde_json::{Value, json};

use super::load::{Taken, closed_loop};
use super::measure::Moment;
use super::report::{Report, Steps, median, round};
use super::target::Target;
use super::{Size, Workload, beside, definitions, process};
use crate::exit::Failure;

/// How long one answer of a run to its end may take.
pub(super) const WAIT_S: u32 = 60;
pub(super) const COMPLETED: &str = "\"completed\"";
const TASKS_OF_SEQUENCE: usize = 5;
/// How often a long run is looked at; its times are taken from its events, not from here.
const POLL: Duration = Duration::from_millis(100);
const HISTORY_TIMEOUT: Duration = Duration::from_secs(600);

/// Measures one workload and answers its line.
pub(super) async fn measure(
    workload: Workload,
    size: Size,
    target: &Target,
) -> Result<Value, Failure> {
    let mut report = match workload {
        Workload::Sequence => sequence("sequence", size, target).await?,
        Workload::Latency => sequence("latency", size, target).await?,
        Workload::Fanout => fanout(size, target).await?,
        Workload::Beside => beside::measure(size, target).await?,
        Workload::Start => start(size, target).await?,
        Workload::History => history(size, target).await?,
        Workload::Floor | Workload::All => {
            return Err(anyhow::anyhow!("{workload:?} isn't measured against a server").into());
        }
    };
    report.rss_mib = target.pid().and_then(|pid| process::rss_mib(&pid));
    Ok(serde_json::to_value(report)?)
}

/// Runs of five tasks, each awaited by its client.
async fn sequence(name: &'static str, size: Size, target: &Target) -> Result<Report, Failure> {
    let workflow = target.workflow(&definitions::sequence(TASKS_OF_SEQUENCE)).await?;
    let request = target.start(&workflow, WAIT_S, &json!({"n": 1}));
    let address = &target.address;
    closed_loop(address, &request, size.clients, size.warm_up, COMPLETED).await?;
    let before = Moment::now(target).await?;
    let mut taken = Vec::new();
    for _ in 0..size.repetitions {
        taken.push(closed_loop(address, &request, size.clients, size.n, COMPLETED).await?);
    }
    let used = before.until(Moment::now(target).await?);
    let mut report = Report::new(name, size);
    report.taken(&taken, TASKS_OF_SEQUENCE as u64);
    report.used(used, size.n * u64::from(size.repetitions) * TASKS_OF_SEQUENCE as u64);
    Ok(report)
}

/// One run of many branches and a join, from the request to its answer.
async fn fanout(size: Size, target: &Target) -> Result<Report, Failure> {
    let workflow = target.workflow(&definitions::fanout()).await?;
    let items: Vec<u64> = (0..size.n).collect();
    let request = target.start(&workflow, WAIT_S, &json!({"items": items}));
    let address = &target.address;
    closed_loop(address, &request, 1, size.warm_up, COMPLETED).await?;
    let before = Moment::now(target).await?;
    let taken = closed_loop(address, &request, 1, u64::from(size.repetitions), COMPLETED).await?;
    let used = before.until(Moment::now(target).await?);
    let rates: Vec<f64> =
        taken.each.iter().map(|took| size.n as f64 / took.as_secs_f64()).collect();
    let mut report = Report::new("fanout", size);
    report.tasks_per_s = Some(round(median(rates.clone())));
    report.p50_ms = Some(round(taken.percentile(50).as_secs_f64() * 1e3));
    report.repeated(rates);
    report.used(used, size.n * u64::from(size.repetitions));
    Ok(report)
}

/// Starts that are answered when they are durable, of runs that then do nothing.
async fn start(size: Size, target: &Target) -> Result<Report, Failure> {
    let workflow = target.workflow(&definitions::start()).await?;
    let request = target.start(&workflow, 0, &json!({}));
    let address = &target.address;
    closed_loop(address, &request, size.clients, size.warm_up, "\"run_").await?;
    let before = Moment::now(target).await?;
    let mut taken: Vec<Taken> = Vec::new();
    for _ in 0..size.repetitions {
        taken.push(closed_loop(address, &request, size.clients, size.n, "\"run_").await?);
    }
    let used = before.until(Moment::now(target).await?);
    let mut report = Report::new("start", size);
    report.taken(&taken, 1);
    report.used(used, size.n * u64::from(size.repetitions));
    report.method = Some(
        "each connection asks again when its start is durable; the first node is a mock of 10m, \
         so nothing ends meanwhile, and the runs go with the server",
    );
    if !target.is_throwaway() {
        cancel_all(target, &workflow).await?;
    }
    Ok(report)
}

/// Leaves nothing running on a server that isn't ours.
async fn cancel_all(target: &Target, workflow: &str) -> Result<(), Failure> {
    loop {
        let query = [
            ("workflow_id", workflow.to_owned()),
            ("status", "queued,running,waiting".to_owned()),
            ("limit", "200".to_owned()),
        ];
        let page: Value = target.client.get("/runs", &query).await?.read()?;
        let runs = page["items"].as_array().cloned().unwrap_or_default();
        let mut position = 0;
        for run in &runs {
            let path = format!("/runs/{}/cancel", run["id"].as_str().unwrap_or_default());
            let body = json!({"reason": "end of measurement"});
            let receipt: Value = target.client.post(&path, &[], &body).await?.read()?;
            position = receipt["position"].as_u64().unwrap_or(position);
        }
        if runs.is_empty() {
            return Ok(());
        }
        // The next page is asked for once this one's ends are in the read model.
        let last = runs.last().and_then(|run| run["id"].as_str()).unwrap_or_default();
        let query = [("min_position", position.to_string())];
        target.client.get(&format!("/runs/{last}"), &query).await?;
    }
}

/// Many steps in one run: what a step costs at the start and at the end of a history.
async fn history(size: Size, target: &Target) -> Result<Report, Failure> {
    let workflow = target.workflow(&definitions::history(size.n)).await?;
    let before = Moment::now(target).await?;
    let mut all = Vec::new();
    for _ in 0..size.repetitions {
        let path = format!("/workflows/{workflow}/runs");
        let body = json!({"input": {"steps": size.n}});
        let started: Value = target.client.post(&path, &[], &body).await?.read()?;
        let run_id = started["id"].as_str().context("the new run has no id")?.to_owned();
        wait_for_end(target, &run_id).await?;
        all.push(steps(&step_times(target, &run_id, size.n).await?)?);
    }
    let used = before.until(Moment::now(target).await?);
    let middle = |of: fn(&Steps) -> f64| round(median(all.iter().map(of).collect()));
    let mut report = Report::new("history", size);
    let steps = Steps {
        all_ms: middle(|steps| steps.all_ms),
        first_tenth_ms: middle(|steps| steps.first_tenth_ms),
        last_tenth_ms: middle(|steps| steps.last_tenth_ms),
        last_to_first: middle(|steps| steps.last_to_first),
    };
    report.tasks_per_s = Some(round(1e3 / steps.all_ms));
    report.repeated(all.iter().map(|steps| steps.all_ms).collect());
    report.steps = Some(steps);
    report.used(used, size.n * u64::from(size.repetitions));
    report.method = Some("times between the journal's recorded_at of the steps' outcomes");
    Ok(report)
}

pub(super) async fn wait_for_end(target: &Target, run_id: &str) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        let run = target.client.get(&format!("/runs/{run_id}"), &[]).await;
        // The read model may not know the run yet.
        let run: Value = match run {
            Ok(answer) => answer.read()?,
            Err(Failure::Api(problem)) if problem.status == 404 => Value::Null,
            Err(failure) => return Err(failure),
        };
        match run["status"].as_str() {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled" | "timed_out") => {
                return Err(
                    anyhow::anyhow!("the measured run {run_id} ended: {}", run["error"]).into()
                );
            }
            _ => {}
        }
        if begun.elapsed() > HISTORY_TIMEOUT {
            return Err(anyhow::anyhow!("the measured run {run_id} takes too long").into());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// When each step's outcome was recorded.
async fn step_times(target: &Target, run_id: &str, n: u64) -> Result<Vec<DateTime<Utc>>, Failure> {
    let mut times = Vec::with_capacity(usize::try_from(n).unwrap_or_default());
    let mut after = None;
    loop {
        let mut query = vec![("limit", "1000".to_owned())];
        query.extend(after.map(|cursor| ("after", cursor)));
        let path = format!("/runs/{run_id}/events");
        let page: EventPage = target.client.get(&path, &query).await?.read()?;
        let outcomes = page.items.iter().filter(|event| event.event_type == "task_succeeded");
        times.extend(outcomes.map(|event| event.recorded_at));
        if !page.more || page.items.is_empty() {
            return Ok(times);
        }
        after = Some(page.cursor.to_string());
    }
}

fn steps(times: &[DateTime<Utc>]) -> anyhow::Result<Steps> {
    ensure!(times.len() >= 20, "{} steps are too few to compare start and end", times.len());
    let tenth = times.len() / 10;
    let last = times.len() - 1;
    let each_ms = |from: usize, to: usize| {
        let span = (times[to] - times[from]).num_microseconds().unwrap_or(i64::MAX);
        span as f64 / 1e3 / (to - from) as f64
    };
    let (first, end) = (each_ms(0, tenth), each_ms(last - tenth, last));
    Ok(Steps {
        all_ms: each_ms(0, last),
        first_tenth_ms: first,
        last_tenth_ms: end,
        last_to_first: if first > 0.0 { end / first } else { 0.0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_that_slows_down_shows() {
        let mut at = DateTime::<Utc>::UNIX_EPOCH;
        let times: Vec<_> = (0..100)
            .map(|step| {
                at += chrono::Duration::milliseconds(if step > 85 { 3 } else { 1 });
                at
            })
            .collect();
        let steps = steps(&times).expect("enough of them");
        assert!((steps.first_tenth_ms - 1.0).abs() < 1e-9, "{steps:?}");
        assert!((steps.last_to_first - 3.0).abs() < 1e-9, "{steps:?}");
        assert!(super::steps(&times[..5]).is_err());
    }
}

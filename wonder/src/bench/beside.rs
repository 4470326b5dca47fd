//! Small runs beside a very large one: what others feel of it.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use super::load::{Taken, closed_loop, loop_while};
use super::measure::Moment;
use super::report::{Beside, Report, median, round};
use super::target::Target;
use super::workload::{COMPLETED, WAIT_S, wait_for_end};
use super::{Size, definitions};
use crate::exit::Failure;

/// How long the small runs are measured alone.
const ALONE: Duration = Duration::from_secs(3);
const TASKS: usize = 3;

pub(super) async fn measure(size: Size, target: &Target) -> Result<Report, Failure> {
    let small = target.workflow(&definitions::sequence(TASKS)).await?;
    let large = target.workflow(&definitions::spawn(size.n)).await?;
    let request = target.start(&small, WAIT_S, &json!({"n": 1}));
    let address = &target.address;
    closed_loop(address, &request, size.clients, size.warm_up, COMPLETED).await?;
    let before = Moment::now(target).await?;
    let (mut alone, mut beside, mut took) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..size.repetitions {
        let begun = Instant::now();
        let goes_on = || begun.elapsed() < ALONE;
        alone.push(loop_while(address, &request, size.clients, COMPLETED, goes_on).await?);
        let goes_on = Cell::new(true);
        let small = async {
            let taken = loop_while(address, &request, size.clients, COMPLETED, || goes_on.get());
            taken.await.map_err(Failure::from)
        };
        let large = async {
            let begun = Instant::now();
            let ended = run(target, &large).await;
            goes_on.set(false);
            ended.map(|()| begun.elapsed())
        };
        let (taken, large_took) = tokio::try_join!(small, large)?;
        beside.push(taken);
        took.push(large_took.as_secs_f64());
    }
    let used = before.until(Moment::now(target).await?);
    let ms = |of: &[Taken], percent| {
        median(of.iter().map(|taken| taken.percentile(percent).as_secs_f64() * 1e3).collect())
    };
    let tasks: usize = alone.iter().chain(&beside).map(|taken| taken.each.len() * TASKS).sum();
    let mut report = Report::new("beside", size);
    report.beside = Some(Beside {
        alone_p50_ms: round(ms(&alone, 50)),
        alone_p99_ms: round(ms(&alone, 99)),
        p50_ms: round(ms(&beside, 50)),
        p99_ms: round(ms(&beside, 99)),
        p99_ratio: round(ms(&beside, 99) / ms(&alone, 99)),
        runs: median(beside.iter().map(|taken| taken.each.len() as f64).collect()),
        large_s: round(median(took)),
    });
    report.repeated(beside.iter().map(|taken| taken.percentile(99).as_secs_f64() * 1e3).collect());
    report.used(used, tasks as u64 + size.n * u64::from(size.repetitions));
    report.method =
        Some("the small runs for three seconds, and then until the large run has ended");
    Ok(report)
}

/// Starts a run and waits for its end.
async fn run(target: &Target, workflow: &str) -> Result<(), Failure> {
    let path = format!("/workflows/{workflow}/runs");
    let started: Value = target.client.post(&path, &[], &json!({"input": {}})).await?.read()?;
    wait_for_end(target, started["id"].as_str().context("the new run has no id")?).await
}

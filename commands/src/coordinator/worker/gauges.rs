//! What a worker shows of itself.

/// What a worker shows of itself.
pub(super) struct Gauges {
    pub in_flight: metrics::Gauge,
    /// Attempts that nothing was heard of for some time, as the last sweep found.
    pub unheard: metrics::Gauge,
    pub runs: metrics::Gauge,
}

impl Gauges {
    pub(super) fn of(worker: usize) -> Self {
        let worker = worker.to_string();
        Self {
            in_flight: metrics::gauge!("wonder_tasks_owed_in_flight", "worker" => worker.clone()),
            unheard: metrics::gauge!("wonder_tasks_unheard", "worker" => worker.clone()),
            runs: metrics::gauge!("wonder_runs_in_memory", "worker" => worker),
        }
    }
}

//! measure
use bytes::Bytes;
use chassis::journal::*;
use chassis::scratch::ScratchDatabase;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;
fn ap(id: &str, seq: u64, inbox: bool) -> Append {
    let ev = || NewEvent {
        id: Uuid::now_v7(),
        event_type: "run.node_completed".into(),
        event_version: 1,
        payload: Bytes::from(format!("{{\"x\":\"{}\"}}", "p".repeat(292))),
    };
    Append {
        aggregate_type: "run".into(),
        aggregate_id: id.into(),
        expected_sequence: seq,
        workspace_id: "ws_01234567890123456789012345".into(),
        metadata: Bytes::from_static(
            br#"{"actor":"usr_01234567890123456789","command":"0192-0000-00"}"#,
        ),
        recorded_at: chrono::Utc::now(),
        events: vec![ev(), ev()],
        inbox: if inbox {
            vec![InboxEntry {
                key: format!("ws/{id}/{seq}"),
                fingerprint: "0123456789abcdef".into(),
                answer: Bytes::from_static(b"{\"ok\":true}"),
            }]
        } else {
            vec![]
        },
        payloads: vec![],
        open: if seq == 0 { Some(true) } else { None },
        snapshot: None,
        shard: 3,
        epoch: Some(1),
    }
}
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let scratch = ScratchDatabase::create().await;
    let db = scratch.connect().await;
    sqlx::raw_sql("insert into shards (shard, epoch) values (3,1)")
        .execute(db.pool())
        .await
        .unwrap();
    let j = PostgresJournal::open(&db, PostgresOptions::default()).await.unwrap();
    for inbox in [false, true] {
        for writers in [1usize, 16, 64, 256, 1024] {
            let until = Instant::now() + Duration::from_secs(4);
            let tasks: Vec<_> = (0..writers)
                .map(|w| {
                    let j = Arc::clone(&j);
                    tokio::spawn(async move {
                        let id = format!("run_{inbox}_{writers}_{w:020}");
                        let mut seq = 0;
                        let mut lat = Vec::new();
                        while Instant::now() < until {
                            let a = ap(&id, seq, inbox);
                            let t = Instant::now();
                            seq = j.append(a).await.unwrap().last_sequence;
                            lat.push(t.elapsed());
                        }
                        lat
                    })
                })
                .collect();
            let t0 = Instant::now();
            let mut lat = Vec::new();
            for t in tasks {
                lat.extend(t.await.unwrap());
            }
            let el = t0.elapsed().as_secs_f64();
            lat.sort();
            println!(
                "inbox {inbox} writers {writers}: {:.0} events/s, {:.0} appends/s, p50 {:?} p99 {:?}",
                lat.len() as f64 * 2.0 / el,
                lat.len() as f64 / el,
                lat[lat.len() / 2],
                lat[lat.len() * 99 / 100]
            );
        }
    }
    // reads
    let t = Instant::now();
    let n = 2000;
    for i in 0..n {
        j.written_elsewhere(1_000_000_000 + i, "run").await.unwrap();
    }
    println!("written_elsewhere {:?}", t.elapsed() / n as u32);
    let t = Instant::now();
    for _ in 0..n {
        j.head().await.unwrap();
    }
    println!("head {:?}", t.elapsed() / n as u32);
    let t = Instant::now();
    for _ in 0..n {
        j.load("run", "run_false_1_00000000000000000000", 0, 10).await.unwrap();
    }
    println!("load 10 {:?}", t.elapsed() / n as u32);
    let t = Instant::now();
    let mut p = 0;
    for _ in 0..20 {
        p = j.read(p, 2000).await.unwrap().last().unwrap().position;
    }
    println!("read {:.0} events/s", p as f64 / t.elapsed().as_secs_f64());
    j.close().await;
    db.pool().close().await;
}

//! Clients side by side, and what they saw.

use super::cost::Cpu;
use super::work::{Tables, Work, Worker};
use hdrhistogram::Histogram;
use std::io::Result;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// Longest time a histogram can tell apart, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// An address under test.
#[derive(Clone)]
pub struct Endpoint {
    pub name: String,
    pub port: u16,
    /// The proxy's process; None for a direct connection.
    pub pid: Option<u32>,
    pub tables: Tables,
    /// The second server of a client that writes to both itself.
    pub other: Option<u16>,
}

/// What one round showed.
#[derive(Clone, Copy)]
pub struct Sample {
    pub statements: u64,
    pub seconds: f64,
    /// Time of one unit of work, in microseconds.
    pub mean: f64,
    pub p50: f64,
    pub p99: f64,
    /// The proxy's CPU in this round.
    pub cpu: Cpu,
}

impl Sample {
    /// Microseconds of the proxy's CPU per statement.
    pub fn cpu_each(&self) -> f64 {
        self.cpu.all / (self.statements as f64).max(1.0)
    }

    pub fn rate(&self) -> f64 {
        self.statements as f64 / self.seconds
    }
}

/// Connected clients, all driven by the calling thread.
pub struct Crowd {
    runtime: Runtime,
    workers: Vec<Worker>,
    pid: Option<u32>,
}

impl Crowd {
    /// Connects and prepares.
    pub fn connect(to: &Endpoint, work: Work, clients: u64) -> Result<Crowd> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let workers = runtime.block_on(async {
            let mut workers = Vec::new();
            for _ in 0..clients {
                workers.push(Worker::new(to, work).await?);
            }
            Ok::<_, std::io::Error>(workers)
        })?;
        Ok(Crowd {
            runtime,
            workers,
            pid: to.pid,
        })
    }

    /// One write by each client, one after the other.
    pub fn touch(&mut self) -> Result<()> {
        let Crowd {
            runtime, workers, ..
        } = self;
        runtime.block_on(async {
            for worker in workers {
                worker.touch().await?;
            }
            Ok(())
        })
    }

    /// All clients work for `duration`.
    pub fn run(&mut self, duration: Duration) -> Result<Sample> {
        let workers = std::mem::take(&mut self.workers);
        let before = self.pid.map(Cpu::of).unwrap_or_default();
        let began = Instant::now();
        let until = began + duration;
        let (workers, statements, times) = self.runtime.block_on(async {
            let mut running = JoinSet::new();
            for worker in workers {
                running.spawn(one(worker, until));
            }
            let mut workers = Vec::new();
            let mut statements = 0;
            let mut times = histogram();
            while let Some(ended) = running.join_next().await {
                let (worker, count, own) = ended.map_err(std::io::Error::other)??;
                workers.push(worker);
                statements += count;
                times.add(own).map_err(std::io::Error::other)?;
            }
            Ok::<_, std::io::Error>((workers, statements, times))
        })?;
        self.workers = workers;
        Ok(Sample {
            statements,
            seconds: began.elapsed().as_secs_f64(),
            mean: times.mean() / 1e3,
            p50: times.value_at_quantile(0.5) as f64 / 1e3,
            p99: times.value_at_quantile(0.99) as f64 / 1e3,
            cpu: self.pid.map(Cpu::of).unwrap_or_default().since(before),
        })
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds of a histogram")
}

async fn one(mut worker: Worker, until: Instant) -> Result<(Worker, u64, Histogram<u64>)> {
    let mut times = histogram();
    let mut statements = 0;
    let mut now = Instant::now();
    while now < until {
        statements += worker.step().await?;
        let after = Instant::now();
        let ns = u64::try_from((after - now).as_nanos()).unwrap_or(LONGEST_NS);
        times.saturating_record(ns.max(1));
        now = after;
    }
    Ok((worker, statements, times))
}

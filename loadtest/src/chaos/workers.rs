//! The workers, two of them, and what is done to them.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use farwrite_devstack::{Devstack, Program};
use fastrand::Rng;

use super::{
    schedule::last,
    stage::{PATIENCE, Stage, command},
};

pub(super) struct Workers {
    running: Vec<Program>,
    programs: PathBuf,
}

impl Workers {
    pub(super) fn begin(stack: &Devstack, programs: &Path, random: &mut Rng) -> Result<Self> {
        let mut workers = Self { running: Vec::new(), programs: programs.to_path_buf() };
        for _ in 0..2 {
            workers.add(stack, random, false)?;
        }
        Ok(workers)
    }

    fn add(&mut self, stack: &Devstack, random: &mut Rng, forced: bool) -> Result<()> {
        let mut command = command(stack, &self.programs, "run")?;
        command.args(["--lanes", ["1", "2", "3", "5"][random.usize(..4)]]);
        command.args(["--take-over", if forced { "true" } else { "false" }]);
        self.running.push(stack.spawn(command, "worker")?);
        Ok(())
    }

    fn take(&mut self, random: &mut Rng) -> Program {
        self.running.remove(random.usize(..self.running.len()))
    }

    /// None has ended by itself.
    pub(super) fn check(&self) -> Result<()> {
        for worker in &self.running {
            let ended = worker.status()?;
            ensure!(ended.is_none(), "a worker has ended ({ended:?})\n{}", worker.log_tail());
        }
        Ok(())
    }

    /// Ends all of them.
    pub(super) async fn end(&mut self) -> Result<Vec<String>> {
        let mut logs = Vec::new();
        for worker in self.running.drain(..) {
            if worker.status()?.is_none() {
                worker.terminate(PATIENCE).await?;
            }
            logs.push(worker.log_tail());
        }
        Ok(logs)
    }

    pub(super) fn suspend(&self) -> Result<()> {
        self.running.iter().try_for_each(Program::suspend)
    }

    pub(super) fn resume(&self) -> Result<()> {
        self.running.iter().try_for_each(Program::resume)
    }

    /// Whether all end within a time because the stream is not the one that they know.
    pub(super) async fn have_stopped(&mut self, within: Duration) -> Result<bool> {
        let began = Instant::now();
        for worker in &self.running {
            let Ok(status) = worker.wait(within.saturating_sub(began.elapsed())).await else {
                return Ok(false);
            };
            ensure!(
                status.code() == Some(4),
                "a worker ended with {status}\n{}",
                worker.log_tail()
            );
        }
        self.running.clear();
        Ok(true)
    }

    /// Begins two again, after all were ended.
    pub(super) fn begin_again(&mut self, stack: &Devstack, random: &mut Rng) -> Result<()> {
        while self.running.len() < 2 {
            self.add(stack, random, false)?;
        }
        Ok(())
    }
}

impl Stage {
    pub(super) async fn kill_worker(&self, random: &mut Rng) -> Result<()> {
        let mut workers = self.workers.lock().await;
        workers.check()?;
        workers.take(random).kill().await?;
        last(random, 0..500).await;
        workers.add(&self.stack, random, false)
    }

    pub(super) async fn stop_worker(&self, random: &mut Rng) -> Result<()> {
        let mut workers = self.workers.lock().await;
        workers.check()?;
        let worker = workers.take(random);
        worker.suspend()?;
        last(random, 200..3_000).await;
        worker.resume()?;
        workers.running.push(worker);
        Ok(())
    }

    pub(super) async fn deploy_worker(&self, random: &mut Rng) -> Result<()> {
        let mut workers = self.workers.lock().await;
        workers.check()?;
        workers.add(&self.stack, random, false)?;
        last(random, 0..1_000).await;
        let old = workers.running.remove(0);
        let status = old.terminate(PATIENCE).await?;
        ensure!(status.success(), "a worker ended with {status}\n{}", old.log_tail());
        Ok(())
    }

    pub(super) async fn force_worker(&self, random: &mut Rng) -> Result<()> {
        let mut workers = self.workers.lock().await;
        workers.check()?;
        workers.add(&self.stack, random, true)?;
        last(random, 300..1_500).await;
        workers.take(random).kill().await
    }
}

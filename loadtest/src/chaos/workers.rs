//! The workers: two of them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use farwrite_devstack::{Devstack, Program};
use fastrand::Rng;

use super::app::{PATIENCE, worker_command, worker_command_over_links};

#[derive(Default)]
pub(super) struct Workers {
    pub(super) running: Vec<Program>,
}

impl Workers {
    pub(super) fn begin(stack: &Devstack, random: &mut Rng) -> Result<Self> {
        let mut workers = Self::default();
        workers.begin_again(stack, random)?;
        Ok(workers)
    }

    pub(super) fn add(&mut self, stack: &Devstack, random: &mut Rng, forced: bool) -> Result<()> {
        let mut command = if random.bool() {
            worker_command_over_links(stack, "run")?
        } else {
            worker_command(stack, "run")?
        };
        command.args(["--lanes", ["1", "2", "3", "5"][random.usize(..4)]]);
        command.args(["--memory-mb", ["8", "128"][random.usize(..2)]]);
        command.args(["--take-over", if forced { "true" } else { "false" }]);
        self.running.push(stack.spawn(command, "worker")?);
        Ok(())
    }

    pub(super) fn take(&mut self, random: &mut Rng) -> Program {
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

    /// Whether all workers end within a time because the stream is another one than they know.
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

    /// Begins workers until there are two.
    pub(super) fn begin_again(&mut self, stack: &Devstack, random: &mut Rng) -> Result<()> {
        while self.running.len() < 2 {
            self.add(stack, random, false)?;
        }
        Ok(())
    }
}

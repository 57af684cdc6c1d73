//! Users who hop between regions, and are shown what they have seen before, or not.
//!
//! Each user writes a number that grows, in whatever region they are, and reads it in another one at
//! their bookmark. A read that shows less than the user wrote is *stale*; one of somebody else's
//! number that shows less than the user has read before *goes back*. Meanwhile replicas are held and
//! crashed, and the worker is killed.

mod disturb;
mod stage;
mod user;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use stage::Stage;
use user::User;

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For how long.
    pub duration: Duration,
    /// How many users hop at once.
    pub users: u32,
    /// The round trip between the primary's region and the others.
    pub rtt: Duration,
    /// Whether replicas are held and crashed, and the worker killed.
    pub disturbed: bool,
    /// Where the programs are.
    pub programs: PathBuf,
    /// What the choices are drawn from.
    pub seed: u64,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Reads that were checked, of users' own numbers and of others'.
    pub reads: u64,
    /// Of these, reads that the primary served, because the region was late.
    pub on_primary: u64,
    /// Reads that showed less than their user had written. Must be none.
    pub stale: u64,
    /// Reads that showed less than their user had read. Must be none.
    pub went_back: u64,
    /// Calls that failed, and were repeated under the same id.
    pub retries: u64,
    /// Disturbances.
    pub disturbances: u64,
}

impl Report {
    fn add(&mut self, other: &Self) {
        self.writes += other.writes;
        self.reads += other.reads;
        self.on_primary += other.on_primary;
        self.stale += other.stale;
        self.went_back += other.went_back;
        self.retries += other.retries;
        self.disturbances += other.disturbances;
    }

    /// Whether nobody was shown less than they had seen, and anybody was shown anything.
    #[must_use]
    pub const fn is_well(&self) -> bool {
        self.stale == 0 && self.went_back == 0 && self.reads > 0
    }
}

/// Simulates; the servers end with it.
///
/// # Errors
/// When a server or a program does not start, or a user gets no further.
pub async fn run(settings: &Settings) -> Result<Report> {
    let stage = Stage::set(settings).await?;
    let mut random = fastrand::Rng::with_seed(settings.seed);
    let until = Instant::now() + settings.duration;
    let calm = CancellationToken::new();
    let mut users = tokio::task::JoinSet::new();
    for number in 0..settings.users {
        let user = User::new(number, settings.users, stage.producers.clone(), random.fork());
        users.spawn(user.hop(until));
    }
    let disturbing = async {
        if settings.disturbed { stage.disturb(random.fork(), &calm).await } else { Ok(0) }
    };
    let hopping = async {
        let mut report = Report::default();
        while let Some(ended) = users.join_next().await {
            report.add(&ended.context("a user failed")??);
        }
        calm.cancel();
        anyhow::Ok(report)
    };
    let (report, disturbances) = tokio::try_join!(hopping, disturbing)?;
    let report = Report { disturbances, ..report };
    stage.strike().await?;
    Ok(report)
}

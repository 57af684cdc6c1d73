//! Which region this is and where it reads, as the environment says.
//!
//! Platforms name regions and servers in their own ways; what they say is only a first guess, since
//! what a server really is its watcher asks itself. On Fly the replica's URL is made from that of
//! the primary, by the rules that Fly's own libraries follow: replicas listen on port 5433, and an
//! internal host is asked for by its nearest instance.

use farwrite_schemas::Origin;
use url::Url;

use crate::build_error::{BuildError, variable};

/// The region of an app that runs nowhere in particular: development.
const NOWHERE: &str = "local";
/// The port on which a replica on Fly listens.
const FLY_REPLICA_PORT: u16 = 5433;
/// What asks Fly's DNS for the nearest instance of a host.
const FLY_NEAREST: &str = "top1.nearest.of.";
/// An older form of it, which may answer with two instances: watched and read must be one server.
const FLY_NEAREST_TWO: &str = "top2.nearest.of.";

/// Where this process runs, and where it reads.
#[derive(Clone, PartialEq, Eq)]
pub struct Region {
    /// This region: the origin of its commands.
    pub name: Origin,
    /// The primary's region, where it is said.
    pub primary: Option<Origin>,
    /// The URL of this region's replica; `None` in the primary's region, and where there is none.
    pub replica_url: Option<String>,
    /// The URL of the primary: what is read without a replica, and the fallback with one.
    pub primary_url: Option<String>,
}

impl std::fmt::Debug for Region {
    /// Without the URLs, which may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region")
            .field("name", &self.name)
            .field("primary", &self.primary)
            .field("has_replica", &self.replica_url.is_some())
            .field("has_primary", &self.primary_url.is_some())
            .finish()
    }
}

impl Region {
    /// Reads the environment.
    ///
    /// | variable | |
    /// |---|---|
    /// | `FARWRITE_ORIGIN`, `MY_REGION`, `FLY_REGION` | this region, the first that is set; without any of them and without `PRIMARY_REGION` it is `local` |
    /// | `PRIMARY_REGION` | the primary's region |
    /// | `FARWRITE_REPLICA_URL`, `REPLICA_URL` | this region's replica, the first that is set |
    /// | `DATABASE_URL` | the primary |
    ///
    /// In the primary's region `REPLICA_URL` is not looked at. In another one with `FLY_REGION` and
    /// no replica's URL, the replica's is made from `DATABASE_URL`.
    ///
    /// # Errors
    /// When a region's name is not one, or `PRIMARY_REGION` is set and this region is not; when the
    /// replica's URL has to be made of one that cannot be read.
    pub fn from_env() -> Result<Self, BuildError> {
        Self::from_variables(variable)
    }

    pub(crate) fn from_variables(
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, BuildError> {
        let first = |names: &[&'static str]| names.iter().copied().find_map(&variable);
        let primary = variable("PRIMARY_REGION").map(Origin::new).transpose()?;
        let name = match (first(&["FARWRITE_ORIGIN", "MY_REGION", "FLY_REGION"]), &primary) {
            (Some(name), _) => Origin::new(name)?,
            (None, None) => Origin::new(NOWHERE)?,
            (None, Some(_)) => return Err(BuildError::Missing("FARWRITE_ORIGIN")),
        };
        let is_primary = primary.as_ref() == Some(&name);
        let primary_url = variable("DATABASE_URL");
        let replica_url = match (variable("FARWRITE_REPLICA_URL"), is_primary) {
            (Some(url), _) => Some(url),
            (None, true) => None,
            (None, false) => match (variable("REPLICA_URL"), &primary, &primary_url) {
                (Some(url), ..) => Some(url),
                (None, Some(_), Some(url)) if variable("FLY_REGION").is_some() => {
                    Some(replica_on_fly(url)?)
                }
                (None, ..) => None,
            },
        };
        Ok(Self { name, primary, replica_url, primary_url })
    }

    /// Whether this is the primary's region.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.primary.as_ref() == Some(&self.name)
    }
}

/// The URL of the nearest replica on Fly of a primary's.
fn replica_on_fly(primary: &str) -> Result<String, BuildError> {
    // The parser's own words could repeat a part of the URL.
    let malformed = || BuildError::Variable {
        name: "DATABASE_URL",
        rule: "a URL like postgres://user@host:port/database",
    };
    let mut url = Url::parse(primary).map_err(|_| malformed())?;
    let host = url.host_str().ok_or_else(malformed)?;
    let host = match host.strip_prefix(FLY_NEAREST_TWO) {
        Some(rest) => Some(format!("{FLY_NEAREST}{rest}")),
        None if host.starts_with(FLY_NEAREST) || !host.ends_with(".internal") => None,
        None => Some(format!("{FLY_NEAREST}{host}")),
    };
    if let Some(host) = host {
        url.set_host(Some(&host)).map_err(|_| malformed())?;
    }
    url.set_port(Some(FLY_REPLICA_PORT)).map_err(|()| malformed())?;
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(variables: &[(&'static str, &str)]) -> Result<Region, BuildError> {
        Region::from_variables(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn urls(variables: &[(&'static str, &str)]) -> (Option<String>, Option<String>) {
        let region = region(variables).unwrap();
        (region.replica_url, region.primary_url)
    }

    const DB: &str = "postgres://app:secret@db.internal:5432/shop?sslmode=disable";

    #[test]
    fn development_needs_one_url() {
        let region = region(&[("DATABASE_URL", "postgres://localhost/shop")]).unwrap();
        assert_eq!(region.name.as_str(), "local");
        assert_eq!(region.replica_url, None);
        assert!(!region.is_primary());
        assert!(!format!("{region:?}").contains("postgres"));
    }

    #[test]
    fn a_region_reads_its_replica_and_the_primarys_reads_the_primary() {
        let there = [("PRIMARY_REGION", "ewr"), ("REPLICA_URL", "r"), ("DATABASE_URL", "p")];
        let with = |name: &'static str, value| {
            let variables: Vec<_> = there.into_iter().chain([(name, value)]).collect();
            urls(&variables)
        };
        let (replica, primary) = (Some("r".to_owned()), Some("p".to_owned()));
        assert_eq!(with("MY_REGION", "jfk"), (replica.clone(), primary.clone()));
        assert_eq!(with("FARWRITE_ORIGIN", "jfk"), (replica, primary.clone()));
        assert_eq!(with("FLY_REGION", "ewr"), (None, primary));
        assert!(matches!(region(&there), Err(BuildError::Missing("FARWRITE_ORIGIN"))));
    }

    #[test]
    fn what_is_said_for_farwrite_wins() {
        let variables = [
            ("PRIMARY_REGION", "ewr"),
            ("FARWRITE_ORIGIN", "ewr"),
            ("FLY_REGION", "jfk"),
            ("FARWRITE_REPLICA_URL", "mine"),
            ("REPLICA_URL", "r"),
        ];
        let region = region(&variables).unwrap();
        assert!(region.is_primary());
        assert_eq!(region.replica_url.as_deref(), Some("mine"));
    }

    #[test]
    fn on_fly_a_replicas_url_is_made_of_the_primarys() {
        let replica = |url| {
            urls(&[("PRIMARY_REGION", "ewr"), ("FLY_REGION", "jfk"), ("DATABASE_URL", url)]).0
        };
        let made = |host: &str| {
            let url = format!("postgres://app:secret@{host}:5433/shop?sslmode=disable");
            Some(url)
        };
        assert_eq!(replica(DB), made("top1.nearest.of.db.internal"));
        let nearest = DB.replace("@db", "@top1.nearest.of.db");
        assert_eq!(replica(&nearest), made("top1.nearest.of.db.internal"));
        let two = DB.replace("@db", "@top2.nearest.of.db");
        assert_eq!(replica(&two), made("top1.nearest.of.db.internal"));
        let flycast = DB.replace("db.internal", "db.flycast");
        assert_eq!(replica(&flycast), made("db.flycast"));
        let elsewhere = DB.replace("db.internal", "db.example.com");
        assert_eq!(replica(&elsewhere), made("db.example.com"));
        // In the primary's region, and where nobody says which that is, nothing is made up.
        assert_eq!(
            urls(&[("PRIMARY_REGION", "jfk"), ("FLY_REGION", "jfk"), ("DATABASE_URL", DB)]).0,
            None
        );
        assert_eq!(urls(&[("FLY_REGION", "jfk"), ("DATABASE_URL", DB)]).0, None);
        let wrong = [("PRIMARY_REGION", "ewr"), ("FLY_REGION", "jfk"), ("DATABASE_URL", "secret")];
        let error = region(&wrong).unwrap_err().to_string();
        assert!(error.contains("DATABASE_URL") && !error.contains("secret"), "{error}");
    }
}

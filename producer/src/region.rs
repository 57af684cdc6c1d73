//! Which region this is and where it reads, as the environment says.
//!
//! Platforms name regions and servers in their own ways. What the environment says is a first guess:
//! the watcher asks each server what it is. With the feature `fly`, a replica's URL may be made of
//! the primary's (`fly.rs`).

use farwrite_schemas::Origin;

use crate::build_error::{BuildError, variable};

/// The region of an app that runs nowhere in particular: development.
const NOWHERE: &str = "local";

/// Where this process runs, and where it reads.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
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
    /// In the primary's region `REPLICA_URL` is not looked at. With the feature `fly`, in another
    /// region with `FLY_REGION` and no replica's URL, the replica's is made of `DATABASE_URL`; without
    /// the feature that is an error.
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
                #[cfg(feature = "fly")]
                (None, Some(_), Some(url)) if variable("FLY_REGION").is_some() => {
                    Some(crate::fly::replica_url(url)?)
                }
                // Reads would go to the primary, across the ocean, without a word.
                #[cfg(not(feature = "fly"))]
                (None, Some(_), Some(_)) if variable("FLY_REGION").is_some() => {
                    return Err(BuildError::Variable {
                        name: "FARWRITE_REPLICA_URL",
                        rule: "set, or the feature `fly` enabled",
                    });
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
}

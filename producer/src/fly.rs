//! The URL of a replica on Fly, made of the primary's by the rules that Fly's own libraries follow.
//!
//! A replica listens on port 5433. An internal host is asked for by its nearest instance. The feature
//! `fly` brings this in.

use url::Url;

use crate::build_error::BuildError;

/// The port on which a replica listens.
const REPLICA_PORT: u16 = 5433;
/// What asks Fly's DNS for the nearest instance of a host.
const NEAREST: &str = "top1.nearest.of.";
/// An older form of it, which may answer with two instances: watched and read must be one server.
const NEAREST_TWO: &str = "top2.nearest.of.";

/// The URL of the nearest replica of the primary with this URL.
pub(crate) fn replica_url(primary: &str) -> Result<String, BuildError> {
    // The parser's own words could repeat a part of the URL.
    let malformed = || BuildError::Variable {
        name: "DATABASE_URL",
        rule: "a URL like postgres://user@host:port/database",
    };
    let mut url = Url::parse(primary).map_err(|_| malformed())?;
    let host = url.host_str().ok_or_else(malformed)?;
    let host = match host.strip_prefix(NEAREST_TWO) {
        Some(rest) => Some(format!("{NEAREST}{rest}")),
        None if host.starts_with(NEAREST) || !host.ends_with(".internal") => None,
        None => Some(format!("{NEAREST}{host}")),
    };
    if let Some(host) = host {
        url.set_host(Some(&host)).map_err(|_| malformed())?;
    }
    url.set_port(Some(REPLICA_PORT)).map_err(|()| malformed())?;
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use crate::{build_error::BuildError, region::Region};

    const DB: &str = "postgres://app:secret@db.internal:5432/shop?sslmode=disable";

    fn region(variables: &[(&'static str, &str)]) -> Result<Region, BuildError> {
        Region::from_variables(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn replica_url(variables: &[(&'static str, &str)]) -> Option<String> {
        region(variables).unwrap().replica_url
    }

    #[test]
    fn on_fly_a_replicas_url_is_made_of_the_primarys() {
        let replica = |url| {
            replica_url(&[("PRIMARY_REGION", "ewr"), ("FLY_REGION", "jfk"), ("DATABASE_URL", url)])
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
        // In the primary's region, and where that region is not named, nothing is made up.
        assert_eq!(
            replica_url(&[("PRIMARY_REGION", "jfk"), ("FLY_REGION", "jfk"), ("DATABASE_URL", DB)]),
            None
        );
        assert_eq!(replica_url(&[("FLY_REGION", "jfk"), ("DATABASE_URL", DB)]), None);
        let wrong = [("PRIMARY_REGION", "ewr"), ("FLY_REGION", "jfk"), ("DATABASE_URL", "secret")];
        let error = region(&wrong).unwrap_err().to_string();
        assert!(error.contains("DATABASE_URL") && !error.contains("secret"), "{error}");
    }
}

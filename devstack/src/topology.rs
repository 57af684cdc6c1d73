//! The regions' names, and whose server follows whose.

use anyhow::{Context, Result, ensure};

/// Checks the regions' names.
pub(crate) fn check_regions(regions: &[String]) -> Result<()> {
    for (index, region) in regions.iter().enumerate() {
        let form = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        ensure!(
            (1..=32).contains(&region.len()) && region.bytes().all(form),
            "region {region:?}: 1 to 32 lower-case letters, digits or '-'"
        );
        ensure!(!regions[..index].contains(region), "region {region:?} is named twice");
    }
    Ok(())
}

/// Which region each one's server follows at first; the primary's names itself.
pub(crate) fn upstreams(regions: &[String], cascades: &[(String, String)]) -> Result<Vec<usize>> {
    let index = |region: &String| {
        let known = regions.iter().position(|known| known == region);
        known.with_context(|| format!("cascade: there is no region {region:?}"))
    };
    let mut upstreams = vec![0; regions.len()];
    for (region, from) in cascades {
        let (region, from) = (index(region)?, index(from)?);
        ensure!(region != 0, "cascade: {} is the primary's region", regions[0]);
        upstreams[region] = from;
    }
    let reached = from_the_top(&upstreams).len() + 1;
    ensure!(reached == regions.len(), "cascade: replicas follow each other in a circle");
    Ok(upstreams)
}

/// The replicas, each one after what it follows. Those of a circle are missing.
pub(crate) fn from_the_top(upstreams: &[usize]) -> Vec<usize> {
    let mut order = vec![0];
    let mut next = 0;
    while let Some(&upstream) = order.get(next) {
        order.extend((1..upstreams.len()).filter(|&index| upstreams[index] == upstream));
        next += 1;
    }
    order.split_off(1)
}

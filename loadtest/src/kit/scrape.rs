//! Reading numbers from a program's metrics.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long an answer may take, and how long it may be.
const WITHIN: Duration = Duration::from_secs(10);
const MOST_BYTES: u64 = 1 << 20;

/// A counter without labels; one that has counted nothing yet is not listed, and is zero.
pub(crate) async fn counter(addr: SocketAddr, name: &str) -> Result<u64> {
    count(addr, name, value).await
}

/// The sum of a counter over all its labels.
pub(crate) async fn total(addr: SocketAddr, name: &str) -> Result<u64> {
    count(addr, name, sum).await
}

async fn count(addr: SocketAddr, name: &str, read: fn(&str, &str) -> Option<u64>) -> Result<u64> {
    let page = page(addr).await?;
    read(&page, name).with_context(|| format!("the worker's metrics: {name} is not a count"))
}

/// A part of what a summary has seen, such as `0.5`; `None` while it has seen nothing.
pub(crate) async fn quantile(addr: SocketAddr, name: &str, part: &str) -> Result<Option<f64>> {
    let line = format!("{name}{{quantile=\"{part}\"}} ");
    let page = page(addr).await?;
    let value = page.lines().find_map(|text| text.strip_prefix(&line));
    let value = value.map(|value| value.trim().parse::<f64>()).transpose();
    value.with_context(|| format!("the worker's metrics: {name} is not a number"))
}

async fn page(addr: SocketAddr) -> Result<String> {
    let page = timeout(WITHIN, get(addr)).await.context("no answer in time").flatten();
    page.with_context(|| format!("the worker's metrics at {addr}"))
}

async fn get(addr: SocketAddr) -> Result<String> {
    let mut connection = TcpStream::connect(addr).await?;
    let question = format!("GET /metrics HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    connection.write_all(question.as_bytes()).await?;
    let mut page = String::new();
    connection.take(MOST_BYTES).read_to_string(&mut page).await?;
    anyhow::ensure!(page.starts_with("HTTP/1.1 200"), "{}", page.lines().next().unwrap_or("empty"));
    Ok(page)
}

/// `None` where the line is there and holds no count.
fn value(page: &str, name: &str) -> Option<u64> {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(Some(0), |value| value.trim().parse().ok())
}

/// `None` where one of the lines holds no count.
fn sum(page: &str, name: &str) -> Option<u64> {
    let of_it = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
    of_it.map(|line| line.rsplit_once(' ')?.1.trim().parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_whole_name_and_zero_where_it_is_not_listed() {
        let page = "# TYPE a_total counter\na_total_b 3\na_total{x=\"y\"} 4\na_total 7\nb x\n";
        assert_eq!(value(page, "a_total"), Some(7));
        assert_eq!(value(page, "a"), Some(0));
        assert_eq!(value(page, "b"), None);
    }

    #[test]
    fn a_sum_goes_over_all_labels_of_one_name() {
        let page = "a_total{x=\"y\"} 4\na_total{x=\"z z\"} 7\na_total_b{x=\"y\"} 1\nc{d=\"e\"} x\n";
        assert_eq!(sum(page, "a_total"), Some(11));
        assert_eq!(sum(page, "missing"), Some(0));
        assert_eq!(sum(page, "c"), None);
    }
}

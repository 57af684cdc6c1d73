//! The report as one page.

mod bars;
mod page;
mod percentiles;
mod svg;
mod timeline;

pub(super) use page::page;

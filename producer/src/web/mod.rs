//! Read-your-writes across requests, processes and devices: a layer for axum and every other tower
//! service.
//!
//! A request brings the bookmark of what its user saw last, in a cookie or a header. Before the
//! handler runs, the layer waits for it in this region, for a short budget; what happens when that
//! runs out is [`Late`]'s to say. The handler finds a [`Session`] in the request's extensions: the
//! pool to read with, and where to note what it wrote. Afterwards the newest bookmark goes back to
//! the user.
//!
//! ```text
//! request ── cookie/header → wait → Session → handler → note → Set-Cookie/header ── response
//! ```
//!
//! A bookmark that cannot be believed (malformed, not signed, another database's) is taken for none:
//! a stranger's cookie must not keep a page from its user. One whose commit a failover lost is
//! dropped, since nothing can satisfy it any more.

mod layer;
mod session;
mod token;

pub use layer::{BookmarkLayer, BookmarkService, Late};
pub use session::Session;

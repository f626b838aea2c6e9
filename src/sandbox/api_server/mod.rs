//! An HTTP server on loopback that speaks enough of the Kubernetes API for the real kube client
//! and the real kubectl. The edge of `store/`: it has the clock, the randomness and the disk.
//!
//! | file | what |
//! |---|---|
//! | `running.rs` | start, address, kubeconfig, shutdown |
//! | `tls.rs` | certificate, authority, token |
//! | `state.rs`, `journal.rs` | the store behind a lock; what it said, on disk |
//! | `route.rs`, `request.rs` | paths, queries, bodies |
//! | `protobuf.rs` | what kubectl sends unasked |
//! | `handle.rs` | from a route to a reply |
//! | `reply.rs`, `watch.rs`, `table/` | objects, lists, watches, and how kubectl shows them |
//! | `discovery.rs`, `openapi.rs` | what there is |
//! | `subresources.rs`, `log.rs` | scale, binding, eviction; logs of pods |
//!
//! What is not supported is answered with 501 and says so. Must never listen on anything but
//! loopback.

mod count;
mod discovery;
mod handle;
mod journal;
mod log;
mod openapi;
mod protobuf;
mod reply;
mod request;
mod route;
mod running;
mod state;
mod subresources;
mod table;
mod tls;
mod watch;

pub use count::{ADMIN, Access, Counts};
pub use running::{ApiServer, LogPath, Options, PsqlLine, Running, random_token};

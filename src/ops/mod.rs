//! Requests → servers: carries one database from what it runs to what its request asks for.
//!
//! ```text
//! PostgresOpsRequest ─▶ admit ─▶ dry run ─▶ pause ─▶ keep ─▶ write ─▶ load ─▶ restart ─▶ prove ─▶ resume
//!                         queue                                └───── roll back ◀──────┘
//! ```
//! `reconcile` loops: observe → [`rollout::next`] (pure) → act, one step at a time, and begins anew
//! at every look. Pure files think, the three edges touch:
//!
//! | file | question |
//! |---|---|
//! | [`queue`], [`admit`] | which request, and may it? |
//! | [`configuration`] | what does it make of the custom configuration? |
//! | [`rollout`] | what comes next? |
//! | [`node_file`], [`hot_standby`] | which file may a node have now, whose turn is it? |
//! | [`proof`], [`status`] | was it found, how is it said? |
//! | [`journal`], [`seen`], [`step`] | the values these speak in |
//!
//! Invariants: a finalizer stands before the first effect; only our own pause is ever lifted; a
//! value that needs a restart reaches a disk at its node's turn; nobody is stopped while another
//! is not well; nothing is done to what is not known.

pub mod admit;
pub mod configuration;
pub mod hot_standby;
pub mod journal;
pub mod node_file;
pub mod proof;
pub mod queue;
pub mod rollout;
pub mod seen;
pub mod status;
pub mod step;

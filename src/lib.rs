//! pgitops: push a config change to git, read the proven result in `git log`.
//!
//! pgitops watches a git repository that says how Postgres databases are to be configured,
//! compares it with what lives in the cluster, turns the difference into `PostgresOpsRequest`
//! objects (KubeDB's API), carries those out on the running servers with as little interruption
//! as the server allows, proves the result on every node, and attaches the outcome to the commit
//! as a git note.
//!
//! # The line
//!
//! ```text
//! git commit ─▶ desired ─▶ live ─▶ drift ─▶ plan ─▶ PostgresOpsRequest   git/, sync/
//!                                                          │              (Kubernetes)
//!                                     rollout ─▶ proof ◀───┘              ops/, instance/
//!                                                  │
//!                                     git note ◀───┘                      sync/, git/
//! ```
//!
//! # The rooms, in order of flow
//!
//! | room | what happens there |
//! |---|---|
//! | [`api`] | words: the Kubernetes objects and the document in git; pure |
//! | [`pgconf`] | words: Postgres configuration, its grammar, values, layers, tiers; pure |
//! | [`git`] | edge: mirrors, files as blobs, notes; the only room that knows libgit2 |
//! | [`sync`] | git → requests → notes; one pass per `ConfigRepository` |
//! | [`ops`] | requests → servers; one rollout per database |
//! | [`provision`] | a `Postgres` → its children, and the roles of its members |
//! | [`instance`] | in the pod: supervises the server, keeps its files, proves what runs |
//! | [`cluster`] | edge: the Kubernetes client, reflectors, events, lease |
//! | [`telemetry`] | logs, metrics, health |
//! | [`cli`] | one file per command |
//! | [`sandbox`] | a small Kubernetes of our own, to try pgitops out and to test it |
//!
//! # Invariants
//!
//! - Each of the three loops (`sync`, `ops`, `provision`) has the same furniture: `observe.rs`
//!   reads, `act.rs` writes, `reconcile.rs` is the table of contents, every other file is pure.
//! - The loops never import each other: they meet in Kubernetes.
//! - Pure files never await, do I/O, read a clock, the environment or randomness, and never log.
//! - Unknown is never planned upon; waiting and holding are values with reasons, not errors.
//! - `tests/it/tidy.rs` checks what a machine can check of this.

pub mod api;
pub mod pgconf;

pub mod git;

pub mod ops;
pub mod provision;
pub mod sync;

pub mod instance;

pub mod cluster;
pub mod telemetry;

pub mod cli;
pub mod sandbox;

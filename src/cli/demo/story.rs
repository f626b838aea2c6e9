//! The chapters of the demonstration: what is committed, and how it must end.
//!
//! Data only.

/// One commit.
pub struct Chapter {
    /// The commit's message.
    pub message: &'static str,
    /// The parameters of the document; none reverts the commit before.
    pub document: Option<&'static [(&'static str, &'static str)]>,
    /// What is asked of every node afterwards.
    pub parameters: &'static [&'static str],
    /// First words of notes with which the chapter may end.
    pub verdicts: &'static [&'static str],
}

/// A reload, a restart, a removal, a value that the server refuses, and the way back.
pub const CHAPTERS: [Chapter; 5] = [
    Chapter {
        message: "orders: more memory for sorts (a reload is enough)",
        document: Some(&[("work_mem", "16MB")]),
        parameters: &["work_mem"],
        verdicts: &["APPLIED"],
    },
    Chapter {
        message: "orders: 250 connections (needs a restart)",
        document: Some(&[("work_mem", "16MB"), ("max_connections", "250")]),
        parameters: &["work_mem", "max_connections"],
        verdicts: &["APPLIED"],
    },
    Chapter {
        message: "orders: default memory for sorts (a removal)",
        document: Some(&[("max_connections", "250")]),
        parameters: &["work_mem", "max_connections"],
        verdicts: &["APPLIED"],
    },
    Chapter {
        message: "orders: preload a library that is not there (the server refuses)",
        document: Some(&[("max_connections", "250"), ("shared_preload_libraries", "nosuchlib")]),
        parameters: &["max_connections", "shared_preload_libraries"],
        verdicts: &["FAILED", "REFUSED", "INCOMPLETE"],
    },
    Chapter {
        message: "Revert \"orders: preload a library that is not there\"",
        document: None,
        parameters: &["max_connections", "shared_preload_libraries"],
        verdicts: &["APPLIED", "NO CHANGE"],
    },
];

//! `pgitops demo`: the whole line, from a push to a note, on real servers, in a minute.

pub mod writer;

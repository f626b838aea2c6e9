//! git → requests → notes.

pub mod desired;
pub mod drift;
pub mod live;
pub mod note;
pub mod outcome;
pub mod plan;
pub mod problem;
pub mod source;
pub mod status;
pub mod window;

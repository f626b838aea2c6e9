//! What the server's own check of single integer parameters does to a value that is in range.
//!
//! The table follows the check functions in the server's sources. It is complete as far as the
//! oracle test finds no difference on any major version. Never looks at other parameters.

use std::ops::RangeInclusive;

use super::{Refusal, Why};
use crate::pgconf::catalogue::{Number, Parameter};

/// A check of one parameter.
enum Hook {
    /// A value below this, other than -1, is raised to it.
    RaiseTo(i64),
    /// 0 or at least this.
    ZeroOrAtLeast(i64),
    /// A multiple of this.
    MultipleOf(i64),
    /// Anything but 0.
    NotZero,
}

/// Parameter, majors, check.
const HOOKS: [(&str, RangeInclusive<u32>, Hook); 12] = [
    ("autovacuum_work_mem", 13..=16, Hook::RaiseTo(1024)),
    ("autovacuum_work_mem", 17..=99, Hook::RaiseTo(64)),
    ("wal_buffers", 13..=99, Hook::RaiseTo(4)),
    ("vacuum_buffer_usage_limit", 16..=99, Hook::ZeroOrAtLeast(128)),
    ("commit_timestamp_buffers", 17..=99, Hook::MultipleOf(16)),
    ("multixact_member_buffers", 17..=99, Hook::MultipleOf(16)),
    ("multixact_offset_buffers", 17..=99, Hook::MultipleOf(16)),
    ("notify_buffers", 17..=99, Hook::MultipleOf(16)),
    ("serializable_buffers", 17..=99, Hook::MultipleOf(16)),
    ("subtransaction_buffers", 17..=99, Hook::MultipleOf(16)),
    ("transaction_buffers", 17..=99, Hook::MultipleOf(16)),
    ("io_max_concurrency", 18..=99, Hook::NotZero),
];

/// The value that the server makes of it, in base units.
pub(super) fn apply(parameter: &Parameter, value: i64, range: &Number) -> Result<i64, Refusal> {
    let (name, major) = (parameter.name(), parameter.major());
    let mut hooks = HOOKS.iter().filter(|(hooked, at, _)| *hooked == name && at.contains(&major));
    let Some((_, _, hook)) = hooks.next() else { return Ok(value) };
    // A number of base units in an i64 is below 2^32 here, so a double holds it.
    let show = |value: i64| range.show(value as f64);
    let refuse = |message: String, instead: String| {
        Err(Refusal { why: Why::Range, message, instead: Some(instead) })
    };
    match hook {
        Hook::RaiseTo(least) if value != -1 => Ok(value.max(*least)),
        Hook::ZeroOrAtLeast(least) if value != 0 && value < *least => refuse(
            format!("{} is neither 0 nor at least {}", show(value), show(*least)),
            format!("write {}", show(*least)),
        ),
        Hook::MultipleOf(factor) if value % factor != 0 => refuse(
            format!("{} is no multiple of {}", show(value), show(*factor)),
            format!("write {}", show((value / factor + 1) * factor)),
        ),
        Hook::NotZero if value == 0 => {
            refuse("0 is not allowed here".to_owned(), "write -1 or at least 1".to_owned())
        }
        Hook::RaiseTo(_) | Hook::ZeroOrAtLeast(_) | Hook::MultipleOf(_) | Hook::NotZero => {
            Ok(value)
        }
    }
}

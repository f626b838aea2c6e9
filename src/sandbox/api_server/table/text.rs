//! Ages and lists as text.

use jiff::Timestamp;
use serde_json::Value;

/// An age as kubectl writes it: `5s`, `3m20s`, `4h`, `2d3h`, `1y20d`.
pub fn age(since: &Value, now: Timestamp) -> String {
    let Some(since) = since.as_str().and_then(|t| t.parse::<Timestamp>().ok()) else {
        return "<unknown>".into();
    };
    let s = now.duration_since(since).as_secs();
    let (m, h, d) = (s / 60, s / 3600, s / 86400);
    let two = |a: i64, unit: &str, b: i64, small: &str| {
        if b == 0 { format!("{a}{unit}") } else { format!("{a}{unit}{b}{small}") }
    };
    // The steps of apimachinery's HumanDuration.
    match s {
        ..-1 => "<invalid>".into(),
        -1..0 => "0s".into(),
        0..120 => format!("{s}s"),
        120..600 => two(m, "m", s % 60, "s"),
        600..10_800 => format!("{m}m"),
        10_800..28_800 => two(h, "h", m % 60, "m"),
        28_800..172_800 => format!("{h}h"),
        172_800..691_200 => two(d, "d", h % 24, "h"),
        691_200..63_072_000 => format!("{d}d"),
        _ => two(d / 365, "y", d % 365, "d"),
    }
}

/// A value as text: strings plain, what is missing as `missing`.
pub fn plain(value: &Value, missing: &str) -> String {
    match value {
        Value::Null => missing.to_owned(),
        Value::String(text) if text.is_empty() => missing.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Labels as `a=b,c=d`.
pub fn labels(labels: &Value) -> String {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", plain(v, "")))
        .collect();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",") }
}

/// The parts that are there, separated by commas.
pub fn list<'a>(parts: impl Iterator<Item = &'a Value>) -> String {
    let parts: Vec<String> = parts.map(|p| plain(p, "")).collect();
    if parts.is_empty() { "<none>".into() } else { parts.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use serde_json::json;

    fn check(seconds: i64, expected: &str) {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let since = now.checked_sub(SignedDuration::from_secs(seconds)).unwrap();
        assert_eq!(age(&json!(since.to_string()), now), expected);
    }

    #[test]
    fn ages_are_kubectls() {
        check(5, "5s");
        check(119, "119s");
        check(200, "3m20s");
        check(180, "3m");
        check(3600, "60m");
        check(4 * 3600, "4h");
        check(30 * 3600, "30h");
        check(3 * 86400 + 7200, "3d2h");
    }
}

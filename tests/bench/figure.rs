//! A figure: what was measured, how often, and what is to be reached (design, section 16).
//!
//! Values only, and how they are printed.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Mebibytes.
    MiB,
    /// A number of something.
    Number,
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Figure {
    what: String,
    unit: Unit,
    samples: Vec<f64>,
    reach: Option<f64>,
    remark: Option<String>,
}

impl Figure {
    /// Durations.
    pub fn of_durations(what: &str, samples: impl IntoIterator<Item = Duration>) -> Self {
        Self::of(what, Unit::Ms, samples.into_iter().map(|taken| taken.as_secs_f64() * 1000.0))
    }

    /// Numbers.
    pub fn of(what: &str, unit: Unit, samples: impl IntoIterator<Item = f64>) -> Self {
        let mut samples: Vec<f64> = samples.into_iter().collect();
        samples.sort_by(f64::total_cmp);
        Self { what: what.to_owned(), unit, samples, reach: None, remark: None }
    }

    /// With what is to be reached, in the same unit; 0 where the design names nothing.
    #[must_use]
    pub fn reach(self, reach: f64) -> Self {
        Self { reach: Some(reach).filter(|reach| *reach > 0.0), ..self }
    }

    /// With a word on what it means.
    #[must_use]
    pub fn remark(self, remark: impl Into<String>) -> Self {
        Self { remark: Some(remark.into()), ..self }
    }

    /// With a word before what it is.
    #[must_use]
    pub fn named(self, before: &str) -> Self {
        Self { what: format!("{before}: {}", self.what), ..self }
    }

    /// The middle of all runs; the higher one of two.
    pub fn median(&self) -> Option<f64> {
        self.samples.get(self.samples.len() / 2).copied()
    }

    /// Median by what is to be reached.
    fn ratio(&self) -> Option<f64> {
        Some(self.median()? / self.reach?)
    }

    /// One line for programs.
    pub fn json(&self, subject: &str) -> String {
        let Self { what, unit, samples, reach, remark } = self;
        let unit = match unit {
            Unit::Ms => "ms",
            Unit::MiB => "MiB",
            Unit::Number => "1",
        };
        json!({
            "subject": subject, "figure": what, "unit": unit, "runs": samples.len(),
            "min": samples.first(), "median": self.median(), "max": samples.last(),
            "reach": reach, "ratio": self.ratio(), "remark": remark,
        })
        .to_string()
    }
}

/// All figures of a subject.
pub fn table(figures: &[Figure]) -> String {
    let width = figures.iter().map(|figure| figure.what.chars().count()).max().unwrap_or(0);
    let mut text = format!(
        "  {:width$}  {:>10} {:>10} {:>10} {:>5}  {:>10} {:>6}\n",
        "", "min", "median", "max", "runs", "reach", "ratio"
    );
    for figure in figures {
        let Figure { what, unit, samples, reach, remark } = figure;
        let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| show(value, *unit));
        let reach = reach.map_or(String::new(), |reach| format!("<= {}", show(reach, *unit)));
        let ratio = figure.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let line = format!(
            "  {what:width$}  {:>10} {:>10} {:>10} {:>5}  {reach:>10} {ratio:>6}  {}",
            shown(samples.first().copied()),
            shown(figure.median()),
            shown(samples.last().copied()),
            samples.len(),
            remark.as_deref().unwrap_or_default(),
        );
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn show(value: f64, unit: Unit) -> String {
    let unit = match unit {
        Unit::Ms => " ms",
        Unit::MiB => " MiB",
        Unit::Number => "",
    };
    let places = match value.abs() {
        whole if whole.fract() == 0.0 => 0,
        large if large >= 100.0 => 0,
        middle if middle >= 1.0 => 1,
        _ => 3,
    };
    format!("{value:.places$}{unit}")
}

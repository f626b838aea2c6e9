//! Probes: what a series of results means, and how one is made.
//!
//! [`Gauge`] is pure: thresholds in, a changed verdict out. [`attempt`] runs one probe as the
//! kubelet does. Leaves acting upon a verdict to `worker`.

use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::process::{Launch, run_to_end};

/// Replies are read up to this many bytes: the status line is all that counts.
const REPLY_LIMIT: usize = 4096;

/// First step of the quick attempts right after a start, doubled up to the period: a server that
/// is up after 60 ms should not look absent for a second.
pub const QUICK_STEP: Duration = Duration::from_millis(30);

/// Which of the three probes of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Holds the other two back until it has succeeded once.
    Startup,
    /// Says whether traffic may come.
    Readiness,
    /// Its failure restarts the container.
    Liveness,
}

impl Kind {
    /// The word used in events.
    pub fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }

    /// The probe of this kind, if the container has one.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
        }
    }
}

/// Time between two attempts; at least a second, as in the API.
pub fn period(probe: &Probe) -> Duration {
    seconds(probe.period_seconds, 10)
}

/// Time that one attempt may take; at least a second, as in the API.
pub fn timeout(probe: &Probe) -> Duration {
    seconds(probe.timeout_seconds, 1)
}

/// Time from the container's start to the first attempt.
pub fn initial_delay(probe: &Probe) -> Duration {
    Duration::from_secs(u64::try_from(probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0))
}

fn seconds(given: Option<i32>, default: u64) -> Duration {
    let seconds = given.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
    Duration::from_secs(seconds.unwrap_or(default).max(1))
}

/// What the results so far say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gauge {
    verdict: Option<bool>,
    run_of: (bool, i32),
    success_threshold: i32,
    failure_threshold: i32,
}

impl Gauge {
    /// No result yet.
    pub fn new(probe: &Probe) -> Self {
        Self {
            verdict: None,
            run_of: (true, 0),
            success_threshold: probe.success_threshold.unwrap_or(1).max(1),
            failure_threshold: probe.failure_threshold.unwrap_or(3).max(1),
        }
    }

    /// Takes a result; returns the verdict when it changed.
    pub fn observe(&mut self, success: bool) -> Option<bool> {
        self.run_of =
            if self.run_of.0 == success { (success, self.run_of.1 + 1) } else { (success, 1) };
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        if self.run_of.1 < threshold || self.verdict == Some(success) {
            return None;
        }
        self.verdict = Some(success);
        self.verdict
    }
}

/// One attempt's failure in the kubelet's words; `Ok` is a success.
///
/// # Errors
/// The words for the event `Unhealthy`.
pub async fn attempt(
    probe: &Probe,
    container: &Container,
    address: Ipv4Addr,
    launch: &Launch,
) -> Result<(), String> {
    let limit = timeout(probe);
    let work = async {
        if let Some(exec) = &probe.exec {
            let command = exec.command.clone().unwrap_or_default();
            return run_to_end(launch, &command, limit).await;
        }
        if let Some(http) = &probe.http_get {
            return http_get(http, container, address).await;
        }
        if let Some(tcp) = &probe.tcp_socket {
            let port = port(&tcp.port, container)?;
            let host = tcp.host.clone().unwrap_or_else(|| address.to_string());
            return connect(&host, port).await.map(drop);
        }
        Err("the sandbox has exec, httpGet and tcpSocket probes only".to_owned())
    };
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(format!("timed out after {} s", limit.as_secs())),
    }
}

fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_ref() == Some(name))
            .map(|p| p.container_port)
            .or_else(|| name.parse().ok()),
    };
    let number = number.ok_or_else(|| format!("couldn't find port {port:?} in the container"))?;
    u16::try_from(number).map_err(|_| format!("port {number} is out of range"))
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port)).await.map_err(|e| format!("dial tcp {host}:{port}: {e}"))
}

async fn http_get(
    http: &HTTPGetAction,
    container: &Container,
    address: Ipv4Addr,
) -> Result<(), String> {
    if http.scheme.as_deref().is_some_and(|scheme| !scheme.eq_ignore_ascii_case("http")) {
        return Err("the sandbox has no https probes; use exec or tcpSocket".to_owned());
    }
    let port = port(&http.port, container)?;
    let host = http.host.clone().unwrap_or_else(|| address.to_string());
    let mut stream = connect(&host, port).await?;
    let path = http.path.as_deref().unwrap_or("/");
    let mut request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n");
    for header in http.http_headers.iter().flatten() {
        request.push_str(&format!("{}: {}\r\n", header.name, header.value));
    }
    request.push_str("User-Agent: kube-probe/sandbox\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|e| format!("writing to {host}: {e}"))?;
    let mut reply = Vec::new();
    let mut limited = stream.take(REPLY_LIMIT as u64);
    limited.read_to_end(&mut reply).await.map_err(|e| format!("reading from {host}: {e}"))?;
    match status_code(&reply) {
        Some(200..=399) => Ok(()),
        Some(code) => Err(format!("HTTP probe failed with statuscode: {code}")),
        None => Err(format!("malformed HTTP response from {host}:{port}")),
    }
}

/// `HTTP/1.1 200 OK` → 200.
fn status_code(reply: &[u8]) -> Option<u16> {
    let line = reply.split(|b| *b == b'\r' || *b == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    line.strip_prefix("HTTP/")?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(success: i32, failure: i32, results: &str, expected: &str) {
        let probe = Probe {
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            ..Probe::default()
        };
        let mut gauge = Gauge::new(&probe);
        let verdicts: String = results
            .chars()
            .map(|result| match gauge.observe(result == '+') {
                Some(true) => '+',
                Some(false) => '-',
                None => '.',
            })
            .collect();
        assert_eq!(verdicts, expected, "{success} {failure} {results}");
    }

    #[test]
    fn thresholds_count_results_in_a_row() {
        check(1, 3, "+++", "+..");
        check(1, 3, "---", "..-");
        check(1, 3, "--+---", "..+..-");
        check(1, 3, "+--+--", "+.....");
        check(2, 1, "+-++-", ".-.+-");
        check(1, 1, "-+-+", "-+-+");
        check(0, 0, "-+", "-+");
    }

    #[test]
    fn a_status_line_is_read() {
        assert_eq!(status_code(b"HTTP/1.1 204 No Content\r\n\r\n"), Some(204));
        assert_eq!(status_code(b"HTTP/1.0 503"), Some(503));
        assert_eq!(status_code(b"SSH-2.0-x\r\n"), None);
        assert_eq!(status_code(b""), None);
    }

    #[test]
    fn periods_are_at_least_a_second() {
        assert_eq!(period(&Probe::default()), Duration::from_secs(10));
        assert_eq!(timeout(&Probe::default()), Duration::from_secs(1));
        let probe =
            Probe { period_seconds: Some(0), timeout_seconds: Some(-1), ..Probe::default() };
        assert_eq!(period(&probe), Duration::from_secs(10));
        assert_eq!(timeout(&probe), Duration::from_secs(1));
    }
}

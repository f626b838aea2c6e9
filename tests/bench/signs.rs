//! The signs that a change gives on its way, each with the time at which it could be seen from
//! outside: the branch moves, a request appears, begins and ends, the note's reference moves.
//!
//! The system tells when something happens among the references, and requests are watched: nothing
//! polls, so nothing is in the controller's way. Leaves judging to the subjects.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::StreamExt as _;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use pgitops::api::PostgresOpsRequest;
use pgitops::api::names::annotations;
use pgitops::api::ops_request::{OpsPhase, ProofReport};
use pgitops::cluster::{Cluster, Watched};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A rollout of three nodes takes a second or two; one under load on a busy machine far longer.
const END: Duration = Duration::from_secs(90);
/// Words with which a note begins that is not final yet.
const INTERIM: &str = "IN PROGRESS";

/// Makes a sign of the commit at which a reference stands.
type At = fn(String) -> Sign;

/// The references that are looked at, with the sign that they give.
const REFERENCES: [(&str, At); 2] =
    [("refs/heads/main", Sign::Branch), ("refs/notes/pgitops/default", Sign::Notes)];

/// Something that could be seen.
enum Sign {
    /// The branch stands at this commit.
    Branch(String),
    /// The notes stand at this commit of theirs.
    Notes(String),
    /// A request was touched.
    Request(Arc<PostgresOpsRequest>),
}

/// Everything that can be seen, as it happens.
pub struct Signs {
    seen: UnboundedReceiver<(Instant, Sign)>,
    repository: PathBuf,
    _requests: Arc<Watched<PostgresOpsRequest>>,
    _references: RecommendedWatcher,
}

/// When what happened to one commit.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// The branch moved: from here on anybody can see the commit.
    pub pushed: Instant,
    /// Its request was there.
    pub emitted: Instant,
    /// Its request was Progressing.
    pub accepted: Instant,
    /// Its request was terminal.
    pub ended: Instant,
    /// Its final note was in the repository.
    pub noted: Instant,
    /// How the request ended.
    pub phase: OpsPhase,
    /// What was proven and measured.
    pub report: ProofReport,
    /// The final note.
    pub note: String,
    /// What the API server was asked from the push to the note; watches, the lease and the node's
    /// own heartbeat left out.
    pub calls: u64,
}

/// A timeline of which not everything has happened.
#[derive(Default)]
struct Partial {
    pushed: Option<Instant>,
    emitted: Option<Instant>,
    accepted: Option<Instant>,
    ended: Option<(Instant, OpsPhase, ProofReport)>,
    noted: Option<(Instant, String)>,
}

impl Signs {
    /// Begins to look.
    ///
    /// # Errors
    /// When the requests cannot be watched.
    pub async fn watch(cluster: &Cluster, repository: &Path) -> anyhow::Result<Self> {
        let requests = Watched::<PostgresOpsRequest>::start(cluster, None);
        tokio::time::timeout(END, requests.ready()).await.context("requests cannot be watched")?;
        let (sender, seen) = unbounded_channel();
        let changes = requests.changes();
        let of_requests = sender.clone();
        // Ends with the watch.
        tokio::spawn(async move {
            let mut changes = std::pin::pin!(changes);
            while let Some(request) = changes.next().await {
                // Nobody listens any more at the end.
                drop(of_requests.send((Instant::now(), Sign::Request(request))));
            }
        });
        let references = look(repository, sender)?;
        let repository = repository.to_owned();
        Ok(Self { seen, repository, _requests: requests, _references: references })
    }

    /// Forgets what was seen before a change.
    pub fn forget(&mut self) {
        while self.seen.try_recv().is_ok() {}
    }

    /// Follows a commit until its request has ended and its final note is there.
    ///
    /// # Errors
    /// When that does not happen in time; says what did.
    pub async fn follow(&mut self, commit: &str) -> anyhow::Result<Timeline> {
        let mut partial = Partial::default();
        let whole = async {
            loop {
                let (at, sign) = self.seen.recv().await.context("nobody looks any more")?;
                partial.take(commit, at, sign, &self.repository).await?;
                if let Some(timeline) = partial.whole() {
                    return anyhow::Ok(timeline);
                }
            }
        };
        let done = tokio::time::timeout(END, whole).await;
        done.with_context(|| {
            let note = partial.noted.as_ref().map_or("", |(_, note)| note);
            format!("commit {commit}: {} after {END:?}\n{note}", partial.lacks())
        })?
    }
}

impl Partial {
    async fn take(
        &mut self,
        commit: &str,
        at: Instant,
        sign: Sign,
        repository: &Path,
    ) -> anyhow::Result<()> {
        match sign {
            Sign::Branch(id) if id == commit => drop(self.pushed.get_or_insert(at)),
            Sign::Branch(_) => {}
            Sign::Notes(tip) => {
                let note = note_at(repository, &tip, commit).await?;
                if let Some(note) = note.filter(|note| !note.starts_with(INTERIM)) {
                    self.noted.get_or_insert((at, note));
                }
            }
            Sign::Request(request) => {
                if request.annotation(annotations::COMMIT) != Some(commit) {
                    return Ok(());
                }
                self.emitted.get_or_insert(at);
                let phase = request.phase();
                if phase == OpsPhase::Progressing {
                    self.accepted.get_or_insert(at);
                }
                if phase.is_terminal() {
                    let report = request.status.as_ref().and_then(|status| status.proof.clone());
                    self.ended.get_or_insert((at, phase, report.unwrap_or_default()));
                }
            }
        }
        Ok(())
    }

    fn whole(&self) -> Option<Timeline> {
        let (ended, phase, report) = self.ended.clone()?;
        let (noted, note) = self.noted.clone()?;
        // A watch may tell of the last of several changes only.
        let accepted = self.accepted.unwrap_or(ended);
        let (pushed, emitted) = (self.pushed?, self.emitted?);
        let calls = 0;
        Some(Timeline { pushed, emitted, accepted, ended, noted, phase, report, note, calls })
    }

    fn lacks(&self) -> &'static str {
        match (self.pushed, self.emitted, &self.ended) {
            (None, ..) => "the branch has not moved",
            (_, None, _) => "there is no request",
            (_, _, None) => "its request has not ended",
            _ => "it has no final note",
        }
    }
}

/// Tells of each reference that moves.
fn look(
    repository: &Path,
    sender: UnboundedSender<(Instant, Sign)>,
) -> anyhow::Result<RecommendedWatcher> {
    let mut known = REFERENCES.map(|_| String::new());
    let folder = repository.to_owned();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let at = Instant::now();
        // To read what moved is no move: it would call itself for ever, on a whole processor.
        if matches!(event.map(|event| event.kind), Ok(EventKind::Access(_))) {
            return;
        }
        for ((name, sign), known) in REFERENCES.iter().zip(&mut known) {
            // Absent at first, and for a moment while it is replaced.
            let Ok(text) = std::fs::read_to_string(folder.join(name)) else { continue };
            let id = text.trim();
            if !id.is_empty() && id != known {
                id.clone_into(known);
                drop(sender.send((at, sign(id.to_owned()))));
            }
        }
    })?;
    for (name, _) in REFERENCES {
        let path = repository.join(name);
        let folder = path.parent().context("a reference has no folder")?;
        // What is made before it is watched would be missed.
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        watcher.watch(folder, RecursiveMode::NonRecursive).context("watching the references")?;
    }
    Ok(watcher)
}

/// The note on a commit as it stands at this commit of the notes, in the fan-out that we write.
async fn note_at(repository: &Path, tip: &str, commit: &str) -> anyhow::Result<Option<String>> {
    let (folder, rest) = commit.split_at(2);
    let output = tokio::process::Command::new("git")
        .arg("-C")
        .arg(repository)
        .args(["cat-file", "blob", &format!("{tip}:{folder}/{rest}")])
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .kill_on_drop(true)
        .output()
        .await
        .context("git cannot be started; install it")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(output.status.success().then_some(text))
}

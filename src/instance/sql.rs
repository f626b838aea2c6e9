//! Sessions on the local server, over the unix socket, as the superuser.
//!
//! Every session is new, so it sees what a new client sees, and every statement has a deadline on
//! this side: a session-level `statement_timeout` would change the very settings we look at.
//! Leaves the statements to others.

use std::{path::PathBuf, time::Duration};

use tokio::time::timeout;
use tokio_postgres::{Client, NoTls, Row, error::SqlState, types::ToSql};

use super::{options::Options, words};

/// How long a connection over the local socket may take; it takes 3 ms.
const CONNECT: Duration = Duration::from_secs(5);

/// Why the server did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server or the socket said no.
    #[error("ask the server: {}", said(.0))]
    Server(#[from] tokio_postgres::Error),
    /// It said nothing.
    #[error("ask the server: no answer within {0:?}")]
    Late(Duration),
}

/// The server's message, masked, where there is one.
fn said(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    match error.as_db_error() {
        Some(db) => {
            let detail = db.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
            words::clean(&format!("{}: {}{detail}", db.severity(), db.message()))
        }
        None => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

impl Error {
    /// What a failed connection says about the server.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let Self::Server(error) = self else { return Verdict::NotYet };
        let Some(code) = error.code() else { return Verdict::NotYet };
        // Starting up, shutting down, in recovery.
        if *code == SqlState::CANNOT_CONNECT_NOW {
            return Verdict::NotYet;
        }
        match code.code().get(..2) {
            // It counts its clients, knows no such user or database: it is up.
            Some("53" | "28" | "3D" | "55") => Verdict::Accepts,
            // Shut down or cancelled meanwhile.
            Some("57") => Verdict::NotYet,
            // A library that every session needs is missing, for example.
            Some(_) | None => Verdict::Broken,
        }
    }
}

/// See [`Error::verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ask again.
    NotYet,
    /// It accepts connections, if not ours.
    Accepts,
    /// New sessions fail: nobody can use this server (a missing session preload library).
    Broken,
}

/// Where and as whom.
#[derive(Clone, Debug)]
pub struct Local {
    socket_directory: PathBuf,
    port: u16,
    user: String,
}

impl Local {
    /// The server of this instance.
    #[must_use]
    pub fn new(options: &Options, user: &str) -> Self {
        let socket_directory = options.socket_directory.clone();
        Self { socket_directory, port: options.postgres_port, user: user.to_owned() }
    }

    /// A server on the same socket folder with another port number.
    #[must_use]
    pub fn with_port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// Opens a session.
    pub async fn connect(&self) -> Result<Session, Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.socket_directory).port(self.port).user(&self.user);
        config.dbname("postgres");
        let connecting = timeout(CONNECT, config.connect(NoTls)).await;
        let (client, connection) = connecting.map_err(|_| Error::Late(CONNECT))??;
        tokio::spawn(connection);
        Ok(Session { client })
    }
}

/// An open session; dropping it closes it.
pub struct Session {
    client: Client,
}

impl Session {
    /// Rows of a statement.
    pub async fn rows(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
        within: Duration,
    ) -> Result<Vec<Row>, Error> {
        self.bounded(self.client.query(statement, parameters), within).await
    }

    /// The one row of a statement.
    pub async fn row(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
        within: Duration,
    ) -> Result<Row, Error> {
        self.bounded(self.client.query_one(statement, parameters), within).await
    }

    /// Statements without an answer.
    pub async fn run(&self, statements: &str, within: Duration) -> Result<(), Error> {
        self.bounded(self.client.batch_execute(statements), within).await
    }

    async fn bounded<T>(
        &self,
        asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
        within: Duration,
    ) -> Result<T, Error> {
        match timeout(within, asked).await {
            Ok(answer) => Ok(answer?),
            Err(_) => {
                // The statement would go on in the server after we have gone.
                let cancel = self.client.cancel_token();
                let _ = timeout(CONNECT, cancel.cancel_query(NoTls)).await;
                Err(Error::Late(within))
            }
        }
    }
}
